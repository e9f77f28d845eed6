//! What the tests of the cleanup half share: a state directory of their own, the binary, shells.
#![allow(dead_code, missing_docs, unreachable_pub)]

use std::ffi::OsStr;
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

/// The toolkit under test.
pub const BINARY: &str = env!("CARGO_BIN_EXE_rl-cleanup");

/// The shim under test.
pub fn shim() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("shell/rl-cleanup.sh")
}

/// The shell that tests run in: `RL_CLEANUP_BASH` tries another version.
pub fn bash() -> std::ffi::OsString {
    std::env::var_os("RL_CLEANUP_BASH").unwrap_or_else(|| "/bin/bash".into())
}

/// Counts a test that cannot run here, and says why.
pub fn skipped(name: &str, reason: &str) {
    skips::record(name, reason);
}

#[path = "skips.rs"]
mod skips;

/// Ends a test that cannot run here.
#[macro_export]
macro_rules! skip {
    ($reason:expr) => {{
        let name = std::thread::current().name().unwrap_or("?").to_owned();
        $crate::common::skipped(&name, $reason);
        return;
    }};
}

/// Where BeakerLib is installed, if it is.
pub fn beakerlib() -> Option<PathBuf> {
    let dir = PathBuf::from(std::env::var_os("BEAKERLIB")?);
    dir.join("beakerlib.sh").exists().then_some(dir)
}

pub fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

/// What a process left behind.
#[derive(Debug)]
pub struct Ended {
    pub status: Option<i32>,
    pub out: String,
    pub err: String,
}

impl Ended {
    fn of(output: &Output) -> Self {
        Self {
            status: output.status.code(),
            out: String::from_utf8_lossy(&output.stdout).into_owned(),
            err: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// It exited with 0 and printed nothing on stderr.
    #[track_caller]
    pub fn ok(self) -> Self {
        assert_eq!((self.status, self.err.as_str()), (Some(0), ""), "{self:#?}");
        self
    }

    #[track_caller]
    pub fn fails(self, status: i32, says: &str) -> Self {
        assert_eq!(self.status, Some(status), "{self:#?}");
        assert!(self.err.contains(says), "{says:?} not in {self:#?}");
        self
    }
}

/// A state directory of this test's own.
pub struct State {
    pub root: tempfile::TempDir,
    pub dir: PathBuf,
}

impl State {
    pub fn new() -> Self {
        let root = tempfile::Builder::new().prefix("rl-cleanup-test-").tempdir().unwrap();
        let dir = root.path().join("state");
        Self { root, dir }
    }

    /// A path outside the state directory.
    pub fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    /// A command with nothing in its environment but what is needed to find things.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new(program);
        command.env_clear();
        command.env("PATH", "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin").env("HOME", "/");
        command.env("BEAKERLIB_DIR", &self.dir).env("RL_CLEANUP", BINARY).env("ROOT", self.root.path());
        command.stdin(Stdio::null()).current_dir(self.root.path());
        command
    }

    /// `rl-cleanup ARGS`.
    pub fn cli<A: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = A>) -> Ended {
        self.run(self.command(BINARY).args(args))
    }

    /// The same with something on standard input.
    pub fn cli_with_input<A: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = A>, input: &[u8]) -> Ended {
        let mut child = self
            .command(BINARY)
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdin = child.stdin.take().unwrap();
        // A program that refuses early does not read to the end.
        let _ = stdin.write_all(input);
        drop(stdin);
        Ended::of(&child.wait_with_output().unwrap())
    }

    pub fn append(&self, text: &str) -> String {
        self.cli(["append", "--print-id", "--", text]).ok().out.trim().to_owned()
    }

    pub fn prepend(&self, text: &str) -> String {
        self.cli(["prepend", "--print-id", "--", text]).ok().out.trim().to_owned()
    }

    /// A bash script that has sourced the shim.
    pub fn shell(&self, script: impl AsRef<[u8]>) -> Ended {
        let file = self.write("test.sh", [b". \"$SHIM\"\n", script.as_ref()].concat());
        self.run(self.command(bash()).arg(file).env("SHIM", shim()))
    }

    /// The final script.
    pub fn cleanup(&self) -> Ended {
        self.run(&mut self.command(self.script()))
    }

    pub fn script(&self) -> PathBuf {
        self.dir.join("cleanup.sh")
    }

    pub fn run(&self, command: &mut Command) -> Ended {
        Ended::of(&command.output().unwrap())
    }

    pub fn write(&self, name: &str, text: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        std::fs::write(&path, text).unwrap();
        path
    }

    pub fn read(&self, name: &str) -> String {
        String::from_utf8_lossy(&std::fs::read(self.dir.join(name)).unwrap()).into_owned()
    }

    /// Both files are there and have no length.
    #[track_caller]
    pub fn is_finished(&self) {
        for name in ["clbuff", "cleanup.sh"] {
            assert_eq!(self.read(name), "", "{name} is not empty");
        }
    }

    /// The texts of the entries, in order.
    pub fn entries(&self) -> Vec<String> {
        let json = self.cli(["list", "--json"]).ok().out;
        let list: serde_json::Value = serde_json::from_str(&json).unwrap();
        list.as_array().unwrap().iter().map(|e| e["text"].as_str().unwrap().to_owned()).collect()
    }

    /// Everything in the directory, so that "nothing is left" can be said exactly.
    pub fn names(&self) -> Vec<String> {
        let mut names: Vec<String> = std::fs::read_dir(&self.dir)
            .unwrap()
            .map(|n| n.unwrap().file_name().to_string_lossy().into_owned())
            .collect();
        names.sort();
        names
    }
}

/// Polls until `ready` answers something; for at most 30 seconds.
#[track_caller]
pub fn wait_for<T>(what: &str, mut ready: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(answer) = ready() {
            return answer;
        }
        assert!(start.elapsed() < Duration::from_secs(30), "timed out waiting for {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

pub fn os(bytes: &[u8]) -> &OsStr {
    OsStr::from_bytes(bytes)
}
