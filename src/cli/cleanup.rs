//! The subcommands that manage the buffer.

use super::args::Command;
use crate::error::{Error, Result};
use std::path::PathBuf;

/// Runs one subcommand.
pub fn dispatch(_dir: Option<PathBuf>, _command: Command) -> Result<()> {
    Err(Error::usage("placeholder"))
}
