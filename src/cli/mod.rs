//! Arguments in, text or JSON and an exit status out. Owns dispatch; all work is done below.

pub mod args;
mod caller;
mod cleanup;
mod render;
mod script;
mod watch;

use crate::error::{Error, Result, Status};
use args::{Cli, Command};
use clap::Parser;
use nix::sys::signal::{SigSet, Signal};
use std::ffi::OsString;
use std::io::Write;
use std::process::ExitCode;

/// The exit table of `watch`, for its `--help`.
pub const WATCH_STATUSES: &str = "\
Exit status:
  CMD's own  CMD ended by itself (128+N if signal N ended it)
  130        a person interrupted it (SIGINT, SIGQUIT)
  124        a deadline or the harness's watchdog (SIGHUP) stopped it
  121        CMD ended with 0, but its cleanup was cut short, could not be run,
             or with --strict had a failing entry
  127, 126   CMD was not found, could not be executed
  2, 125     usage error, the watcher itself failed
With --exit-zero or TESTWATCHER_EXIT_ZERO=1 the first four are 0.";

/// `rl-cleanup`.
pub fn toolkit(args: impl Iterator<Item = OsString>) -> ExitCode {
    let args: Vec<OsString> = args.collect();
    if let Some(status) = own_process(&args) {
        return ExitCode::from(status);
    }
    let cli = match Cli::try_parse_from(args) {
        Ok(cli) => cli,
        // clap prints help and version on stdout with 0, mistakes on stderr with 2.
        Err(answer) => {
            let _ = answer.print();
            return ExitCode::from(u8::try_from(answer.exit_code()).unwrap_or(2));
        }
    };
    match cli.command {
        Command::Watch(_) if cli.dir.is_some() => finish(Err(Error::usage(
            "watch takes no --dir: the test's own BEAKERLIB_DIR, or the watcher's private directory, is used",
        ))),
        Command::Watch(args) => watch::watch(args),
        Command::HarnessHook { .. } => {
            crate::harness::dropin::end_task();
            ExitCode::SUCCESS
        }
        Command::Script(args) => finish(script::dispatch(cli.dir, args)),
        command => finish(cleanup::dispatch(cli.dir, command)),
    }
}

/// `beakerlib-testwatcher`: no options of its own, so that every word belongs to the command.
pub fn testwatcher(args: impl Iterator<Item = OsString>) -> ExitCode {
    let args: Vec<OsString> = args.collect();
    if let Some(status) = own_process(&args) {
        return ExitCode::from(status);
    }
    watch::testwatcher(args.into_iter())
}

/// What is started under a name of ours: a sentinel, a hook.
fn own_process(args: &[OsString]) -> Option<u8> {
    if crate::watch::was_a_sentinel(args) { Some(0) } else { crate::harness::dropin::is_run_as(args) }
}

/// Whatever the test has set: nothing here is made for others to read, and a file that grows past a limit
/// (setrlimit(2)) is an error like others, not a signal that ends this process in the middle. What is
/// started from here gets an open mask from the standard library.
fn shield() {
    nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o077));
    let _ = SigSet::from(Signal::SIGXFSZ).thread_block();
}

/// The exit status of a subcommand, and its one sentence on stderr if it failed.
fn finish(result: Result<u8>) -> ExitCode {
    match result {
        Ok(status) => ExitCode::from(status),
        Err(error) => {
            complain(&error);
            ExitCode::from(error.status() as u8)
        }
    }
}

/// One sentence on stderr; a dead stderr is no reason to fail differently.
fn complain(error: &Error) {
    complain_as("rl-cleanup", error);
}

fn complain_as(program: &str, error: &Error) {
    let _ = writeln!(std::io::stderr(), "{program}: {error}");
}

/// One line on stderr about what takes a while.
fn say(sentence: &str) {
    let _ = writeln!(std::io::stderr(), "rl-cleanup: {sentence}");
}

/// Writes to stdout. A reader that has gone (`rl-cleanup list | head -1`) is not an error.
fn print(bytes: &[u8]) -> Result<()> {
    let mut out = std::io::stdout().lock();
    match out.write_all(bytes).and_then(|()| out.flush()) {
        Err(e) if e.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(Error::io("write", "standard output", &e).with_status(Status::Failed))
        }
        _ => Ok(()),
    }
}
