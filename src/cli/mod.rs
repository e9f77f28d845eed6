//! Arguments in, text or JSON and an exit status out. Owns dispatch; all work is done below.

pub mod args;
mod caller;
mod cleanup;
mod completions;
mod help;
mod render;
mod script;
mod watch;

use crate::error::{Error, Result, Status};
use args::{Cli, Command};
use clap::Parser;
use nix::sys::signal::{SigSet, Signal};
use nix::sys::stat::{Mode, umask};
use std::ffi::OsString;
use std::io::{ErrorKind, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::ExitCode;

/// The name of standard output in a sentence.
const OUTPUT: &str = "standard output";

/// `rl-cleanup`; and `beakerlib-testwatcher`, where that is a link to the same file.
pub fn toolkit(args: impl Iterator<Item = OsString>) -> ExitCode {
    let args: Vec<OsString> = args.collect();
    if let Some(status) = own_process(&args) {
        return ExitCode::from(status);
    }
    if is_testwatcher(&args) {
        return watch::testwatcher(args.into_iter());
    }
    let cli = match Cli::try_parse_from(args) {
        Ok(cli) => cli,
        Err(answer) => return misread(&answer),
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

/// Whether the program was started under the watcher's name, or one made from it (`testwatcher.py`).
fn is_testwatcher(args: &[OsString]) -> bool {
    let name = args.first().and_then(|path| Path::new(path).file_name());
    name.is_some_and(|name| name.as_bytes().windows(11).any(|part| part == b"testwatcher"))
}

/// What is started under a name of ours: a sentinel, a hook.
fn own_process(args: &[OsString]) -> Option<u8> {
    if crate::watch::was_a_sentinel(args) { Some(0) } else { crate::harness::dropin::is_run_as(args) }
}

/// The umask of this process: what it makes is for this user alone.
const OURS_ALONE: Mode = Mode::S_IRWXG.union(Mode::S_IRWXO);

/// Whatever the test has set: nothing here is made for others to read, and a file that grows past a limit
/// (setrlimit(2)) is an error like others, not a signal that ends this process in the middle. What is
/// started from here gets an open signal mask from the standard library. The answer is the umask that was.
fn shield() -> Mode {
    let _ = SigSet::from(Signal::SIGXFSZ).thread_block();
    umask(OURS_ALONE)
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

/// Help and version go to stdout, with 0 if they arrive; what is wrong with a command line to stderr, with 2.
fn misread(answer: &clap::Error) -> ExitCode {
    if answer.use_stderr()
        && answer.kind() != clap::error::ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand
    {
        let text = answer.render().to_string();
        let _ = write!(std::io::stderr(), "rl-cleanup: {}", text.strip_prefix("error: ").unwrap_or(&text));
    } else if let Err(error) = answer.print()
        && !answer.use_stderr()
        && error.kind() != ErrorKind::BrokenPipe
    {
        return finish(Err(Error::io("write", OUTPUT, &error)));
    }
    ExitCode::from(u8::try_from(answer.exit_code()).unwrap_or(2))
}

/// One sentence on stderr; a dead stderr is no reason to fail differently.
fn complain(error: &Error) {
    complain_as("rl-cleanup", error);
}

fn complain_as(program: &str, error: &Error) {
    let more = match error.status() {
        Status::Untrusted => " (see SECURITY in rl-cleanup(1))",
        _ => "",
    };
    let _ = writeln!(std::io::stderr(), "{program}: {error}{more}");
}

/// One line on stderr about what takes a while.
fn say(sentence: &str) {
    let _ = writeln!(std::io::stderr(), "rl-cleanup: {sentence}");
}

/// Writes to stdout. A reader that has gone (`rl-cleanup list | head -1`) is not an error.
fn print(bytes: &[u8]) -> Result<()> {
    let mut out = std::io::stdout().lock();
    match out.write_all(bytes).and_then(|()| out.flush()) {
        Err(e) if e.kind() != ErrorKind::BrokenPipe => Err(Error::io("write", OUTPUT, &e)),
        _ => Ok(()),
    }
}
