//! `rl-cleanup watch` and `beakerlib-testwatcher`: from arguments to watcher options.

use super::args::WatchArgs;
use std::ffi::OsString;
use std::process::ExitCode;

/// `rl-cleanup watch`.
pub fn watch(_args: WatchArgs) -> ExitCode {
    ExitCode::from(125)
}

/// `beakerlib-testwatcher`.
pub fn testwatcher(_args: impl Iterator<Item = OsString>) -> ExitCode {
    ExitCode::from(125)
}
