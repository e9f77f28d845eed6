//! The examples put the machine back, whether they end by themselves or are stopped by a person
//! (SIGINT) or a harness's watchdog (SIGHUP), with the shim alone and with a real BeakerLib.

#![allow(clippy::unwrap_used, reason = "in a test a panic is the answer")]

#[path = "common/stage.rs"]
mod stage;

use nix::sys::signal::Signal;
use stage::Running;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// How the test's run comes to its end.
#[derive(Clone, Copy, PartialEq)]
enum End {
    ByItself,
    Signal(Signal),
}
use End::{ByItself, Signal as By};

/// What the test is written with.
#[derive(Clone, Copy, PartialEq)]
enum With {
    ShimAlone,
    BeakerLib,
}
use With::{BeakerLib, ShimAlone};

impl End {
    /// The watcher's exit status: the test's own, a person's interrupt, a watchdog's.
    fn exit_status(self) -> i32 {
        match self {
            ByItself => 0,
            By(Signal::SIGINT) => 130,
            By(_) => 124,
        }
    }
}

/// One run of one example under the watcher.
struct Scene {
    dir: tempfile::TempDir,
    with: With,
    end: End,
}

impl Scene {
    fn state(&self) -> PathBuf {
        self.dir.path().join("state")
    }

    fn ready(&self) -> PathBuf {
        self.dir.path().join("ready")
    }

    /// The program, set up for this run. `program` starts the watcher.
    fn command(&self, program: impl AsRef<Path>, example: &str) -> Command {
        let mut command = stage::command(program);
        command
            .current_dir(stage::repository().join("examples").join(example))
            .env("BEAKERLIB_DIR", self.state())
            .env("EXAMPLE_READY", self.ready());
        if self.end != ByItself {
            command.env("EXAMPLE_HANG", "1");
        }
        if self.with == BeakerLib {
            command.env("BEAKERLIB", stage::beakerlib().unwrap());
        }
        command
    }

    fn start(&self, command: Command) -> Running {
        Running::start(command, self.dir.path().join("output"))
    }

    /// Brings the run to its end, and checks its status and the journal.
    fn finish(&self, run: &mut Running) {
        if let By(signal) = self.end {
            run.signal(signal);
        }
        let status = run.exit_status();
        assert_eq!(status, self.end.exit_status(), "{}", run.output());
        if self.with == BeakerLib {
            self.check_journal(run);
        }
    }

    /// A test that was cut short never reads PASS, and either way the journal is complete.
    fn check_journal(&self, run: &Running) {
        let journal = fs::read_to_string(self.state().join("journal.txt")).unwrap();
        let results: Vec<_> =
            journal.lines().filter_map(|l| l.split_once("OVERALL RESULT: ")).map(|(_, r)| r).collect();
        assert!(!results.is_empty(), "the journal has no result\n{journal}\n{}", run.output());
        // BeakerLib makes WARN, and not FAIL, of what fails in a cleanup phase.
        let passed = |result: &&&str| result.starts_with("PASS");
        let passes = results.iter().filter(passed).count();
        let want = if self.end == ByItself { results.len() } else { 0 };
        assert_eq!(passes, want, "results {results:?}\n{journal}\n{}", run.output());
        let saved = fs::read_to_string(self.state().join("TestResults")).unwrap();
        assert!(saved.lines().any(|l| l == "TESTRESULT_STATE=complete"), "{saved}");
    }
}

/// A scene, or `None` after saying why there can be none here.
fn scene(test: &str, with: With, end: End) -> Option<Scene> {
    if with == BeakerLib && stage::beakerlib().is_none() {
        stage::skip(test, "BEAKERLIB is not set");
        return None;
    }
    Some(Scene { dir: stage::scratch(), with, end })
}

fn mounted(dir: &str) -> bool {
    fs::read_to_string("/proc/self/mounts").unwrap().contains(&format!(" {dir}/mnt "))
}

fn attached(dir: &str) -> bool {
    let found = stage::command("losetup").args(["-j", &format!("{dir}/disk")]).output().unwrap();
    assert!(found.status.success());
    !found.stdout.is_empty()
}

/// Takes a mount and a loop device away that a failed test has left.
struct Salvage(String);

impl Drop for Salvage {
    fn drop(&mut self) {
        if mounted(&self.0) {
            let _ = stage::works("umount", &["-l", &format!("{}/mnt", self.0)]);
        }
        let script = r#"for d in $(losetup -j "$1" | cut -d: -f1); do losetup -d "$d"; done"#;
        let _ = stage::works("bash", &["-c", script, "salvage", &format!("{}/disk", self.0)]);
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Why no file system can be mounted from a file here.
fn no_mount() -> Option<&'static str> {
    let probe = r#"PATH=$PATH:/usr/sbin:/sbin
        file=$(mktemp) && truncate -s 1M "$file" && device=$(losetup -f --show "$file") && losetup -d "$device"
        status=$?; rm -f "$file"; exit "$status""#;
    if !nix::unistd::geteuid().is_root() {
        Some("needs root")
    } else if !stage::works("bash", &["-c", "PATH=$PATH:/usr/sbin:/sbin; command -v mkfs.ext3"]) {
        Some("needs mkfs.ext3")
    } else if !stage::works("unshare", &["-m", "true"]) || !stage::works("bash", &["-c", probe]) {
        Some("needs loop devices and the right to mount")
    } else {
        None
    }
}

fn extreme(test: &str, with: With, end: End) {
    if let Some(reason) = no_mount() {
        return stage::skip(test, reason);
    }
    let Some(scene) = scene(test, with, end) else { return };
    let mut command = scene.command(env!("CARGO_BIN_EXE_beakerlib-testwatcher"), "extreme");
    command.arg("./runtest.sh");
    let mut run = scene.start(command);
    let line = run.line_in(&scene.ready());
    let dir = line.split(' ').next().unwrap().to_owned();
    let _salvage = Salvage(dir.clone());
    if end != ByItself {
        assert!(mounted(&dir) && attached(&dir), "in the middle it is mounted:\n{}", run.output());
    }

    scene.finish(&mut run);
    assert!(!mounted(&dir), "still mounted:\n{}", run.output());
    // The kernel detaches when the last one who has the device open, udev for one, closes it.
    assert!(stage::soon(|| !attached(&dir)), "still attached:\n{}", run.output());
    assert!(!Path::new(&dir).exists(), "still there: {dir}\n{}", run.output());
}

const HOSTS: &[u8] = b"127.0.0.1 localhost\n# a tab\tand no newline at the end\n::1 localhost";

fn less_extreme(test: &str, with: With, end: End) {
    if !stage::works("python3", &["--version"]) {
        return stage::skip(test, "needs python3");
    }
    if with == BeakerLib && !nix::unistd::geteuid().is_root() {
        return stage::skip(test, "rlFileBackup needs root: it gives every directory its owner");
    }
    let Some(scene) = scene(test, with, end) else { return };
    let hosts = scene.dir.path().join("hosts");
    fs::write(&hosts, HOSTS).unwrap();
    let machines_own = fs::read("/etc/hosts").unwrap_or_default();

    let watcher = env!("CARGO_BIN_EXE_beakerlib-testwatcher");
    let may_unshare = nix::unistd::geteuid().is_root() && stage::works("unshare", &["-m", "true"]);
    let command = if may_unshare {
        // /etc/hosts it is, but in a mount namespace where that is our copy.
        let script = r#"mount --bind "$1" /etc/hosts && shift && exec "$@""#;
        let mut command = scene.command("unshare", "less-extreme");
        command.args(["-m", "--propagation", "private", "bash", "-c", script, "bash"]);
        command.arg(&hosts).args([watcher, "./runtest.sh"]);
        command
    } else {
        let mut command = scene.command(watcher, "less-extreme");
        command.arg("./runtest.sh").env("EXAMPLE_HOSTS", &hosts);
        command
    };
    let mut run = scene.start(command);
    let line = run.line_in(&scene.ready());
    let (work, listener) = line.split_once(' ').unwrap();
    if end != ByItself {
        assert_ne!(fs::read(&hosts).unwrap(), HOSTS, "in the middle it has one more line");
    }

    scene.finish(&mut run);
    let now = fs::read(&hosts).unwrap();
    assert_eq!(String::from_utf8_lossy(&now), String::from_utf8_lossy(HOSTS), "{}", run.output());
    assert!(!Path::new(work).exists(), "still there: {work}\n{}", run.output());
    assert!(!Path::new("/proc").join(listener).exists(), "still running: {listener}\n{}", run.output());
    assert_eq!(fs::read("/etc/hosts").unwrap_or_default(), machines_own, "the machine's own file");
}

fn python(test: &str, end: End) {
    if !stage::works("python3", &["--version"]) {
        return stage::skip(test, "needs python3");
    }
    let Some(scene) = scene(test, ShimAlone, end) else { return };
    let mut command = scene.command(env!("CARGO_BIN_EXE_rl-cleanup"), "python");
    // No state directory is set up: the watcher gives its own.
    command.env_remove("BEAKERLIB_DIR").args(["watch", "--", "python3", "stack.py"]);
    let mut run = scene.start(command);
    let line = run.line_in(&scene.ready());
    // 'a directory with spaces abc' PID
    let (work, server) = line.rsplit_once(' ').unwrap();
    let work = work.trim_matches('\'');
    if end != ByItself {
        assert!(Path::new(work).is_dir(), "{line}");
    }

    scene.finish(&mut run);
    assert!(!Path::new(work).exists(), "still there: {work}\n{}", run.output());
    let process = Path::new("/proc").join(server);
    // Its parent is gone, so it is for somebody else to reap it.
    let running = || fs::read_to_string(process.join("stat")).is_ok_and(|s| !s.contains(") Z "));
    assert!(stage::soon(|| !running()), "still running: {server}\n{}", run.output());
}

/// Every entry is prepended before the change that it undoes, so the middle is no special moment.
#[test]
fn extreme_interrupted_at_any_moment_leaves_nothing() {
    let test = "extreme_interrupted_at_any_moment_leaves_nothing";
    if let Some(reason) = no_mount() {
        return stage::skip(test, reason);
    }
    for step in 0..25 {
        let Some(scene) = scene(test, ShimAlone, By(Signal::SIGINT)) else { return };
        let dir = scene.state().join("extreme").to_str().unwrap().to_owned();
        let mut command = scene.command(env!("CARGO_BIN_EXE_beakerlib-testwatcher"), "extreme");
        command.arg("./runtest.sh");
        let mut run = scene.start(command);
        let _salvage = Salvage(dir.clone());
        // Waits for nothing: the moments are spread over the time that the test takes to its middle.
        std::thread::sleep(Duration::from_millis(step * 30));
        scene.finish(&mut run);
        assert!(!mounted(&dir), "still mounted:\n{}", run.output());
        assert!(stage::soon(|| !attached(&dir)), "still attached:\n{}", run.output());
        assert!(!Path::new(&dir).exists(), "still there: {dir}\n{}", run.output());
    }
}

macro_rules! runs {
    ($($name:ident: $example:ident($($arg:expr),+);)+) => { $(
        #[test]
        fn $name() {
            $example(stringify!($name), $($arg),+);
        }
    )+ };
}

runs! {
    extreme_alone_ends_by_itself: extreme(ShimAlone, ByItself);
    extreme_alone_is_interrupted_by_a_person: extreme(ShimAlone, By(Signal::SIGINT));
    extreme_alone_is_stopped_by_the_watchdog: extreme(ShimAlone, By(Signal::SIGHUP));
    extreme_under_beakerlib_ends_by_itself: extreme(BeakerLib, ByItself);
    extreme_under_beakerlib_is_interrupted_by_a_person: extreme(BeakerLib, By(Signal::SIGINT));
    extreme_under_beakerlib_is_stopped_by_the_watchdog: extreme(BeakerLib, By(Signal::SIGHUP));
    less_extreme_alone_ends_by_itself: less_extreme(ShimAlone, ByItself);
    less_extreme_alone_is_interrupted_by_a_person: less_extreme(ShimAlone, By(Signal::SIGINT));
    less_extreme_alone_is_stopped_by_the_watchdog: less_extreme(ShimAlone, By(Signal::SIGHUP));
    less_extreme_under_beakerlib_ends_by_itself: less_extreme(BeakerLib, ByItself);
    less_extreme_under_beakerlib_is_interrupted_by_a_person: less_extreme(BeakerLib, By(Signal::SIGINT));
    less_extreme_under_beakerlib_is_stopped_by_the_watchdog: less_extreme(BeakerLib, By(Signal::SIGHUP));
    python_ends_by_itself: python(ByItself);
    python_is_interrupted_by_a_person: python(By(Signal::SIGINT));
    python_is_stopped_by_the_watchdog: python(By(Signal::SIGHUP));
}
