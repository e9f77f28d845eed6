//! An arena of its own for each watcher test: a directory, scripts in it, a watcher started there
//! with a clean environment, and waiting with a deadline instead of sleeping.
#![allow(dead_code, missing_docs, clippy::unwrap_used)]

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

pub const TOOLKIT: &str = env!("CARGO_BIN_EXE_rl-cleanup");
pub const WATCHER: &str = env!("CARGO_BIN_EXE_beakerlib-testwatcher");

/// Long enough for the slowest machine; a test that gets here has failed.
pub const DEADLINE: Duration = Duration::from_secs(180);

/// Polls until `done`, or panics with `what`.
pub fn until(what: &str, mut done: impl FnMut() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < DEADLINE, "waited in vain for: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Whether the tests run as root; otherwise the reason is counted.
pub fn is_root(test: &str) -> bool {
    nix::unistd::geteuid().is_root() || skip(test, "needs root")
}

#[path = "../common/skips.rs"]
mod skips;

/// Prints and counts why a test did not run; answers false.
pub fn skip(test: &str, why: &str) -> bool {
    skips::record(test, why);
    false
}

/// Whether a program is installed; otherwise the reason is counted.
pub fn installed(test: &str, program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|dir| dir.join(program).is_file())
        || skip(test, &format!("'{program}' is not installed"))
}

pub struct Arena {
    dir: tempfile::TempDir,
}

impl Arena {
    pub fn new() -> Self {
        Self { dir: tempfile::Builder::new().prefix("rl-test-").tempdir().unwrap() }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// An executable bash script.
    pub fn script(&self, name: &str, body: &str) -> PathBuf {
        let path = self.path(name);
        let new = self.path(&format!(".{name}.new"));
        fs::write(&new, format!("#!/bin/bash\n{body}\n")).unwrap();
        // Copied by another process: what this one had open for writing, another thread's fork may
        // still have when it is executed (ETXTBSY).
        let copied = Command::new("install").args(["-m", "755"]).arg(&new).arg(&path).status().unwrap();
        assert!(copied.success());
        fs::remove_file(&new).unwrap();
        path
    }

    /// A test that hooks `./cleanup.sh` and then does `body`.
    pub fn hooking_test(&self, body: &str) -> PathBuf {
        self.script("test.sh", &format!("echo \"$PWD/cleanup.sh\" > \"$TESTWATCHER_CLPATH\"\n{body}"))
    }

    pub fn text(&self, name: &str) -> String {
        fs::read(self.path(name)).map(|b| String::from_utf8_lossy(&b).into_owned()).unwrap_or_default()
    }

    pub fn exists(&self, name: &str) -> bool {
        self.path(name).exists()
    }

    pub fn await_file(&self, name: &str) {
        until(&format!("file {name}"), || self.exists(name));
    }

    /// A program with a clean environment, in this directory, with output to files.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new(program);
        command.current_dir(self.dir.path()).stdin(Stdio::null());
        for (name, _) in std::env::vars_os() {
            let text = name.to_string_lossy();
            if ["TESTWATCHER_", "RSTRNT_", "TMT_", "BEAKERLIB"].iter().any(|p| text.starts_with(p))
                || ["TASKID", "TESTID", "RHTSDIR"].contains(&text.as_ref())
            {
                command.env_remove(name);
            }
        }
        command.stdout(fs::File::create(self.path("stdout")).unwrap());
        command.stderr(fs::File::create(self.path("stderr")).unwrap());
        command
    }

    /// The watcher under test with these arguments; `WATCHER_UNDER_TEST` names another one.
    pub fn watcher<A: AsRef<OsStr>>(&self, args: &[A]) -> Command {
        let program = std::env::var_os("WATCHER_UNDER_TEST").unwrap_or_else(|| WATCHER.into());
        let mut command = self.command(program);
        command.args(args);
        command
    }

    /// `rl-cleanup watch` with these arguments.
    pub fn watch<A: AsRef<OsStr>>(&self, args: &[A]) -> Command {
        let mut command = self.command(TOOLKIT);
        command.arg("watch").args(args);
        command
    }

    pub fn start(&self, mut command: Command) -> Run<'_> {
        Run { arena: self, child: command.spawn().unwrap(), over: false }
    }

    /// Runs to the end.
    pub fn run(&self, command: Command) -> Ending {
        self.start(command).end()
    }
}

pub struct Run<'a> {
    arena: &'a Arena,
    pub child: Child,
    over: bool,
}

#[derive(Debug)]
pub struct Ending {
    /// As a shell shows it.
    pub status: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Run<'_> {
    pub fn pid(&self) -> Pid {
        Pid::from_raw(i32::try_from(self.child.id()).unwrap())
    }

    pub fn signal(&self, signal: Signal) -> &Self {
        kill(self.pid(), signal).unwrap();
        self
    }

    pub fn is_over(&mut self) -> bool {
        self.over = self.over || self.child.try_wait().unwrap().is_some();
        self.over
    }

    pub fn end(mut self) -> Ending {
        until("the watcher's end", || self.is_over());
        let status = self.child.wait().unwrap();
        Ending {
            status: status.code().unwrap_or_else(|| 128 + status.signal().unwrap()),
            stdout: self.arena.text("stdout"),
            stderr: self.arena.text("stderr"),
        }
    }

    /// Sends a signal again and again until the run is over: for what only counts after a while.
    pub fn end_by_repeating(mut self, signal: Signal) -> Ending {
        until("the watcher's end", || {
            if !self.is_over() {
                let _ = kill(self.pid(), signal);
            }
            self.over
        });
        self.end()
    }
}

impl Drop for Run<'_> {
    fn drop(&mut self) {
        if !self.over {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// Whether a process is there and not a zombie.
pub fn is_alive(pid: i32) -> bool {
    let Ok(stat) = fs::read_to_string(format!("/proc/{pid}/stat")) else { return false };
    let state = stat.rsplit(") ").next().and_then(|r| r.chars().next());
    !matches!(state, Some('Z' | 'X') | None)
}

/// The number a script wrote into a file.
pub fn number(arena: &Arena, name: &str) -> i32 {
    until(&format!("a number in {name}"), || arena.text(name).trim().parse::<i32>().is_ok());
    arena.text(name).trim().parse().unwrap()
}

/// The living processes that were started with this CLPATH.
pub fn started_with(clpath: &str) -> Vec<i32> {
    let wanted = format!("TESTWATCHER_CLPATH={clpath}");
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|n| n.parse().ok()) else { continue };
        let environ = fs::read(entry.path().join("environ")).unwrap_or_default();
        if environ.split(|b| *b == 0).any(|v| v == wanted.as_bytes()) && is_alive(pid) {
            found.push(pid);
        }
    }
    found
}

/// The guards of a CLPATH that are alive: processes of their name, oldest pid first.
pub fn guards_of(clpath: &str) -> Vec<i32> {
    let name = format!("tw-guard-{}", &clpath[clpath.len() - 6..]);
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|n| n.parse().ok()) else { continue };
        let comm = fs::read_to_string(entry.path().join("comm")).unwrap_or_default();
        if comm.trim_end() == name && is_alive(pid) {
            found.push(pid);
        }
    }
    found
}

/// Whether nothing of a watcher is left: no file, no process.
pub fn assert_no_trace(clpath: &str) {
    let clpath = clpath.trim();
    assert!(!clpath.is_empty());
    assert!(!Path::new(clpath).exists(), "{clpath} is left");
    assert!(!Path::new(&format!("{clpath}.d")).exists(), "{clpath}.d is left");
    assert_eq!(guards_of(clpath), Vec::<i32>::new(), "a guard is left");
    assert_eq!(started_with(clpath), Vec::<i32>::new(), "a process is left");
}
