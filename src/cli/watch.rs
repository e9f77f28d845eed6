//! `rl-cleanup watch` and `beakerlib-testwatcher`: from arguments to watcher options.

use super::args::WatchArgs;
use super::complain_as;
use crate::error::{Error, Result};
use crate::watch::Volume;
use crate::watch::options::{Answer, HarnessDeadline, Options};
use std::ffi::OsString;
use std::process::ExitCode;

/// `rl-cleanup watch`.
pub(super) fn watch(args: WatchArgs) -> ExitCode {
    let run = Options::from_environment(args.command.clone()).and_then(|options| {
        let answer = match (args.exit_zero, args.strict) {
            (true, _) => Answer::Zero,
            (false, true) if options.answer == Answer::Plain => Answer::Strict,
            (false, _) => options.answer,
        };
        crate::watch::watch(Options {
            time_limit: args.time_limit,
            cleanup_limit: args.cleanup_limit,
            harness: args.harness,
            harness_deadline: if args.no_deadline { HarnessDeadline::Ignore } else { HarnessDeadline::Keep },
            kill: args.kill,
            sigterm: args.sigterm,
            answer,
            volume: if args.quiet { Volume::Quiet } else { Volume::Normal },
            ..options
        })
    });
    answer("rl-cleanup", run)
}

/// `beakerlib-testwatcher`.
pub(super) fn testwatcher(mut args: impl Iterator<Item = OsString>) -> ExitCode {
    let name = args.next();
    let command: Vec<OsString> = args.collect();
    let run = if command.is_empty() {
        // Under any name, a copy called testwatcher.py too.
        let name = name.unwrap_or_else(|| "beakerlib-testwatcher".into());
        let name = std::path::Path::new(&name).file_name().unwrap_or_default().to_string_lossy().into_owned();
        Err(Error::usage(format!("no command given: usage: {name} COMMAND [ARGUMENT]…")))
    } else {
        Options::from_environment(command).and_then(crate::watch::watch)
    };
    answer("beakerlib-testwatcher", run)
}

fn answer(program: &str, run: Result<u8>) -> ExitCode {
    match run {
        Ok(status) => ExitCode::from(status),
        Err(error) => {
            complain_as(program, &error);
            ExitCode::from(error.status() as u8)
        }
    }
}
