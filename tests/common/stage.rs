//! What the tests of whole programs share: a scratch directory, starting a program and waiting for it
//! with a deadline, and saying that a test cannot run here.

#![allow(
    dead_code,
    unreachable_pub,
    reason = "every test file includes this module and uses its own part of it"
)]

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs::File;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Nothing here takes seconds; a busy machine may make it so.
pub const DEADLINE: Duration = Duration::from_secs(120);

/// Says why `test` cannot run here. The caller returns, and `tests/run` counts it as skipped.
pub fn skip(test: &str, reason: &str) {
    skips::record(test, reason);
}

#[path = "skips.rs"]
mod skips;

/// The directory of the repository.
#[must_use]
pub fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The directory that holds both programs under test.
#[must_use]
pub fn programs() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_rl-cleanup")).parent().unwrap()
}

/// The directory that `BEAKERLIB` names, if it is set.
#[must_use]
pub fn beakerlib() -> Option<PathBuf> {
    std::env::var_os("BEAKERLIB").filter(|v| !v.is_empty()).map(PathBuf::from)
}

/// Whether `program` can be found and run, with these arguments, with success.
#[must_use]
pub fn works(program: &str, args: &[&str]) -> bool {
    Command::new(program)
        .args(args)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

/// A directory where cleanups may be stacked: of this user alone, on a disk, and removed at the end.
#[must_use]
pub fn scratch() -> tempfile::TempDir {
    tempfile::Builder::new().prefix("rl-cleanup-test-").tempdir_in("/var/tmp").unwrap()
}

/// `program`, with both programs under test in `PATH` and none of the variables by which a harness or
/// a watcher around this test would reach it.
#[must_use]
pub fn command(program: impl AsRef<Path>) -> Command {
    let mut command = if hangup_is_ignored() {
        // Under nohup. A watcher started so ignores SIGHUP, as it should; these tests send one.
        let mut env = Command::new("env");
        env.arg("--default-signal=HUP").arg(program.as_ref());
        env
    } else {
        Command::new(program.as_ref())
    };
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        let foreign = ["TESTWATCHER_", "RSTRNT_", "TMT_", "EXAMPLE_"].iter().any(|p| text.starts_with(p));
        if foreign || ["BEAKERLIB", "BEAKERLIB_DIR", "TESTID", "TASKID", "RHTSDIR"].contains(&&*text) {
            command.env_remove(&name);
        }
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let dirs = std::iter::once(programs().to_owned())
        .chain(std::env::split_paths(&path))
        .chain(["/usr/sbin".into(), "/sbin".into()]);
    command
        .env("PATH", std::env::join_paths(dirs).unwrap())
        .env("RL_CLEANUP", env!("CARGO_BIN_EXE_rl-cleanup"))
        .env_remove("RL_CLEANUP_NO_TRAP")
        .stdin(Stdio::null());
    command
}

/// Bit 0 of SigIgn is signal 1 (proc_pid_status(5)).
fn hangup_is_ignored() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let mask = status.lines().find_map(|l| l.strip_prefix("SigIgn:")).unwrap().trim();
    u64::from_str_radix(mask, 16).unwrap() & 1 != 0
}

/// A running program, whose output goes to a file. Killed if the test ends before it does.
pub struct Running {
    child: Child,
    output: PathBuf,
    over: bool,
}

impl Running {
    /// Starts `command`; its output goes to a new file `output`.
    pub fn start(mut command: Command, output: PathBuf) -> Self {
        let file = File::create(&output).unwrap();
        let child = command.stdout(file.try_clone().unwrap()).stderr(file).spawn().unwrap();
        Self { child, output, over: false }
    }

    /// What it has written so far.
    #[must_use]
    pub fn output(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.output).unwrap()).into_owned()
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        kill(self.pid(), signal).unwrap();
    }

    fn pid(&self) -> Pid {
        Pid::from_raw(i32::try_from(self.child.id()).unwrap())
    }

    /// Waits until the file `path` has a whole line, and returns that.
    pub fn line_in(&mut self, path: &Path) -> String {
        self.until("has come to its middle", |this| {
            if let Some(line) =
                std::fs::read_to_string(path).ok().and_then(|t| Some(t.split_once('\n')?.0.to_owned()))
            {
                return Some(line);
            }
            let ended = this.child.try_wait().unwrap();
            assert!(ended.is_none(), "ended before its middle, {ended:?}:\n{}", this.output());
            None
        })
    }

    /// Waits for its end, and returns its exit status as a shell does (128+N for signal N).
    pub fn exit_status(&mut self) -> i32 {
        let status = self.until("ended", |this| this.child.try_wait().unwrap());
        self.over = true;
        status.code().unwrap_or_else(|| 128 + status.signal().unwrap())
    }

    fn until<T>(&mut self, what: &str, mut probe: impl FnMut(&mut Self) -> Option<T>) -> T {
        let start = Instant::now();
        loop {
            if let Some(found) = probe(self) {
                return found;
            }
            assert!(start.elapsed() < DEADLINE, "not {what} within {DEADLINE:?}:\n{}", self.output());
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if !self.over {
            // A person's interrupt and not SIGKILL, so that what a failed test leaves is cleaned up.
            let _ = kill(self.pid(), Signal::SIGINT);
            let start = Instant::now();
            while matches!(self.child.try_wait(), Ok(None)) && start.elapsed() < Duration::from_secs(10) {
                std::thread::sleep(Duration::from_millis(10));
            }
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// Polls until `probe` holds; whether it came to hold within 10 seconds.
#[must_use]
pub fn soon(probe: impl Fn() -> bool) -> bool {
    let start = Instant::now();
    while !probe() {
        if start.elapsed() > Duration::from_secs(10) {
            return false;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    true
}
