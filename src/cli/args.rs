//! The command line of `rl-cleanup`, as clap reads it. Owns names, help texts and value parsers;
//! must not do any of the work.

use super::help;
use crate::cleanup::buffer::Id;
use crate::watch::options::{Duration, HarnessChoice, KillScope, SigtermPolicy};
use clap::{Args, Parser, Subcommand, ValueHint};
use std::ffi::OsString;
use std::path::PathBuf;

/// A test watcher and a cleanup stack: stops an interrupted test and puts the machine back in order.
#[derive(Debug, Parser)]
#[command(name = "rl-cleanup", version, arg_required_else_help = true, disable_help_subcommand = true)]
#[command(after_help = "'rl-cleanup COMMAND --help' has its options and examples.", after_long_help = help::PROGRAM)]
pub struct Cli {
    /// State directory [default: $BEAKERLIB_DIR, else the watcher's private directory]
    #[arg(long, global = true, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub dir: Option<PathBuf>,

    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The subcommands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run a command; when it ends or is interrupted, run the cleanup it has hooked
    Watch(WatchArgs),
    /// Add an entry at the end of the cleanup
    Append(AddArgs),
    /// Add an entry at the front of the cleanup
    Prepend(AddArgs),
    /// Find an existing buffer, make its final script whole again and hook it
    Rehook(RehookArgs),
    /// Show the entries in the order they will run
    List(ListArgs),
    /// Print the buffer's raw text, or the final script
    Show(ShowArgs),
    /// Take entries back
    Remove(RemoveArgs),
    /// Take all entries back
    #[command(after_long_help = help::CLEAR)]
    Clear,
    /// Run entries now; each is removed once it has run
    Run(RunArgs),
    /// Show state directory, entries, hook and live watchers
    Status(StatusArgs),
    /// Print the bash shim, for eval "$(rl-cleanup shim)"
    Shim(ShimArgs),
    /// Print a completion script
    Completions(CompletionsArgs),
    /// What a harness's hook does: end this task's watchers and wait for them
    #[command(hide = true)]
    HarnessHook {
        /// What the harness says, which is not needed
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        words: Vec<OsString>,
    },
    /// What a running final script and the shim ask for
    #[command(hide = true)]
    Script(ScriptArgs),
}

/// What the shim passes as options, since it runs the binary in an empty environment: a single
/// variable of more than 128 KiB would keep it from being executed at all (execve(2)).
#[derive(Debug, Args)]
pub struct ShellArgs {
    /// The shell's state, and the entry's text in front of it, come through standard input
    #[arg(long, hide = true)]
    pub shell: bool,
    /// The shell's `TESTWATCHER_CLPATH`
    #[arg(long, hide = true, value_name = "FILE")]
    pub clpath: Option<PathBuf>,
    /// The shell's `SUDO_UID`, whatever it is
    #[arg(long, hide = true, value_name = "UID", allow_hyphen_values = true)]
    pub sudo_uid: Option<OsString>,
    /// The shell's `XDG_RUNTIME_DIR`
    #[arg(long, hide = true, value_name = "DIR")]
    pub runtime_dir: Option<PathBuf>,
}

/// `watch`.
#[derive(Debug, Args)]
#[command(after_help = help::WATCH_SHORT, after_long_help = help::WATCH)]
pub struct WatchArgs {
    /// Kill the test after this long, as the harness's watchdog would (90, 90s, 10m, 1h 30m)
    #[arg(long, value_name = "D")]
    pub time_limit: Option<Duration>,
    /// Kill the cleanup this long after it started, or after the watchdog
    #[arg(long, value_name = "D")]
    pub cleanup_limit: Option<Duration>,
    /// Which harness runs this test
    #[arg(long, value_name = "NAME", value_enum, default_value = "auto")]
    pub harness: HarnessChoice,
    /// What an interrupt kills: the test's process group, or all of its descendants
    #[arg(long, value_name = "SCOPE", value_enum, default_value = "group")]
    pub kill: KillScope,
    /// Exit 121 if an entry of the cleanup failed after a test that ended with 0
    #[arg(long)]
    pub strict: bool,
    /// What SIGTERM means: the machine goes down, or a person's interrupt
    #[arg(long, value_name = "MEANING", value_enum, default_value = "exit")]
    pub sigterm: SigtermPolicy,
    /// Exit 0 whatever the test did, as the original did
    #[arg(long)]
    pub exit_zero: bool,
    /// Ignore the harness's own time limit
    #[arg(long)]
    pub no_deadline: bool,
    /// Print nothing but errors
    #[arg(long, short)]
    pub quiet: bool,
    /// The test and its arguments
    #[arg(value_name = "CMD", required = true, trailing_var_arg = true, value_hint = ValueHint::CommandWithArguments)]
    pub command: Vec<OsString>,
}

/// `append` and `prepend`.
#[derive(Debug, Args)]
#[command(after_long_help = help::ADD)]
pub struct AddArgs {
    /// Quote each word after -- and make them one command
    #[arg(long)]
    pub argv: bool,
    /// Set a mark at this entry, for 'run --to-mark'
    #[arg(long)]
    pub mark: bool,
    /// Print the new entry's id
    #[arg(long)]
    pub print_id: bool,
    /// The id that the new entry is to have; exit status 11 if it is taken
    #[arg(long, hide = true, value_name = "ID")]
    pub id: Option<Id>,
    /// Shell text; '-' reads it from standard input
    #[arg(value_name = "TEXT", required_unless_present = "shell", allow_hyphen_values = true)]
    pub text: Vec<OsString>,
    /// From the shim.
    #[command(flatten)]
    pub shell: ShellArgs,
}

/// `rehook`.
#[derive(Debug, Args)]
#[command(after_long_help = help::REHOOK)]
pub struct RehookArgs {
    /// From the shim.
    #[command(flatten)]
    pub shell: ShellArgs,
}

/// `list`.
#[derive(Debug, Args)]
#[command(after_long_help = help::LIST)]
pub struct ListArgs {
    /// As JSON, one array
    #[arg(long)]
    pub json: bool,
}

/// `show`.
#[derive(Debug, Args)]
#[command(after_long_help = help::SHOW)]
pub struct ShowArgs {
    /// The final script instead of the buffer
    #[arg(long)]
    pub script: bool,
}

/// `remove`.
#[derive(Debug, Args)]
#[command(after_long_help = help::REMOVE)]
pub struct RemoveArgs {
    /// Ids, as 'list' shows them
    #[arg(value_name = "ID", required = true)]
    pub ids: Vec<Id>,
    /// From the shim.
    #[command(flatten)]
    pub shell: ShellArgs,
}

/// `run`.
#[derive(Debug, Args)]
#[command(after_long_help = help::RUN)]
pub struct RunArgs {
    /// Run all entries in front of the first mark, and the marked one
    #[arg(long, conflicts_with = "ids")]
    pub to_mark: bool,
    /// Ids, as 'list' shows them [default: all entries]
    #[arg(value_name = "ID")]
    pub ids: Vec<Id>,
    /// From the shim.
    #[command(flatten)]
    pub shell: ShellArgs,
}

/// `status`.
#[derive(Debug, Args)]
#[command(after_long_help = help::STATUS)]
pub struct StatusArgs {
    /// As JSON, one object
    #[arg(long)]
    pub json: bool,
}

/// `shim`.
#[derive(Debug, Args)]
#[command(after_long_help = help::SHIM)]
pub struct ShimArgs {
    /// Print the installed file's path instead
    #[arg(long)]
    pub path: bool,
}

/// `completions`.
#[derive(Debug, Args)]
#[command(after_long_help = help::COMPLETIONS)]
pub struct CompletionsArgs {
    /// The shell
    #[arg(value_name = "SHELL", value_parser = ["bash", "zsh", "fish"])]
    pub shell: String,
}

/// `script`: the protocol between a final script and the binary.
///
/// Exit status 10 means that the script on disk is another one now, and must be executed anew.
#[derive(Debug, Args)]
pub struct ScriptArgs {
    /// What has happened
    #[arg(value_enum)]
    pub event: ScriptEvent,
    /// The script's own path
    #[arg(long, value_name = "FILE")]
    pub script: Option<PathBuf>,
    /// The script runs some entries now, not the cleanup
    #[arg(long)]
    pub now: bool,
    /// The script's own process
    #[arg(long, value_name = "PID", value_parser = clap::value_parser!(i32).range(1..))]
    pub pid: Option<i32>,
    /// A watcher waits for the script: another cleanup is waited for
    #[arg(long)]
    pub patient: bool,
    /// Which entries the script holds
    #[arg(long, value_name = "NUMBER")]
    pub fingerprint: Option<u64>,
    /// The entry that has run
    #[arg(long, value_name = "ID")]
    pub id: Option<Id>,
    /// Its exit status
    #[arg(long, value_name = "STATUS", default_value_t = 0)]
    pub status: u8,
    /// The entry that the script would run next
    #[arg(long, value_name = "ID")]
    pub next: Option<Id>,
    /// From the shell.
    #[command(flatten)]
    pub shell: ShellArgs,
}

/// What a final script reports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum ScriptEvent {
    /// It starts, or goes on in a new shell.
    Begin,
    /// An entry has run.
    Strike,
    /// An entry has ended the shell, or the buffer has changed: the shell's state follows.
    Resume,
    /// All entries have run.
    Finish,
    /// `rlJournalStart`: a state directory is wanted, and its path on standard output.
    Prepare,
    /// Nothing; whether a watcher is alive is asked (exit status 0 or 1).
    Alive,
}
