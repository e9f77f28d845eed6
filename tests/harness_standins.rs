//! Promise: under beah, restraint and tmt the test is dead and its cleanup done, whatever the harness
//! does when time is up. Each row does to the process tree what the real harness does: which process
//! is killed, which descriptor closed, which folder run in which order; a reboot is a marker file.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that panics has failed")]

mod watch_common;
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;
use std::fs;
use std::io::PipeReader;
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use watch_common::{Arena, WATCHER, installed, is_alive, number, until};

/// Held while a script is written or a process started: a descriptor that another row's fork holds
/// for a moment would make a script busy (ETXTBSY), or keep a pipe or a pty open.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

fn one_at_a_time() -> MutexGuard<'static, ()> {
    ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A stand-in beside this file.
fn stand_in(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/harness").join(name)
}

fn pid_of(child: &Child) -> Pid {
    Pid::from_raw(i32::try_from(child.id()).unwrap())
}

fn spawn(command: &mut Command) -> std::io::Result<Child> {
    let _alone = one_at_a_time();
    command.spawn()
}

/// A test that never ends by itself, with a child, and a cleanup that takes `secs` and writes all the
/// time: it fails at the first line that nobody takes.
fn job(arena: &Arena, secs: u32) {
    let _alone = one_at_a_time();
    arena
        .hooking_test("echo $TESTWATCHER_CLPATH > clpath; sleep 1000 & echo $! > child; echo $$ > pid.new; mv pid.new pid; wait");
    arena.script(
        "cleanup.sh",
        &format!(
            "set -e\nfor p in $(cat pid child); do\n\
             grep -qs '^State:.[^ZX]' /proc/$p/status && echo $p >> alive || true\ndone\n\
             echo \"$TESTWATCHER_OUTCOME\" > outcome; touch started\n\
             for ((i = 0; i < {}; i++)); do /bin/echo cleaning $i; sleep 0.1; done\ntouch cleaned",
            secs * 10
        ),
    );
}

/// The test is dead now, was dead before its cleanup began, and the cleanup is done.
fn assert_done(arena: &Arena, when: &str) {
    assert!(arena.exists("cleaned"), "no cleanup {when}");
    assert!(!arena.exists("alive"), "the test lived when its cleanup began");
    assert_dead(arena, when);
}

fn assert_dead(arena: &Arena, when: &str) {
    for name in ["pid", "child"] {
        assert!(!is_alive(number(arena, name)), "the test's {name} lives {when}");
    }
}

/// Nothing of the watcher's is left either.
fn assert_gone(arena: &Arena) {
    let clpath = arena.text("clpath");
    until("the end of watcher and guard", || watch_common::guards_of(clpath.trim()).is_empty());
    watch_common::assert_no_trace(&clpath);
}

/// Whoever reads the test's output, as a process that can be killed.
struct Reader(Child);

impl Reader {
    fn of(arena: &Arena, output: impl Into<std::process::Stdio>) -> Self {
        let file = fs::File::create(arena.path("output")).unwrap();
        Self(
            Command::new("cat")
                .stdin(output)
                .stdout(file)
                .stderr(std::process::Stdio::null())
                .spawn()
                .unwrap(),
        )
    }

    fn go_away(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }

    fn at_end(&mut self) -> bool {
        self.0.try_wait().unwrap().is_some()
    }

    fn await_end(&mut self) {
        until("the end of the output", || self.at_end());
    }
}

/// One pipe for stdout and stderr.
fn piped(command: &mut Command) -> PipeReader {
    let (reader, writer) = std::io::pipe().unwrap();
    command.stdout(writer.try_clone().unwrap()).stderr(writer);
    reader
}

fn wait_at_most(child: &mut Child, limit: Duration) -> Option<ExitStatus> {
    let start = Instant::now();
    while start.elapsed() < limit {
        if let Some(status) = child.try_wait().unwrap() {
            return Some(status);
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    None
}

/// tmt: a session of its own for the wrapper, the environment of one test.
fn tmt_environment(arena: &Arena, command: &mut Command, duration: &str, margin: Option<u32>) {
    let metadata = format!("name: /t\nduration: {duration}\nframework: shell\n");
    fs::write(arena.path("metadata.yaml"), metadata).unwrap();
    fs::create_dir_all(arena.path("data")).unwrap();
    command
        .env("TMT_TEST_METADATA", arena.path("metadata.yaml"))
        .env("TMT_TEST_DATA", arena.path("data"))
        .env("TMT_TEST_PIDFILE", arena.path("tmt-test.pid"))
        .env("TMT_REBOOT_REQUEST", arena.path("data/reboot-request"))
        .env("TMT_TEST_ITERATION_ID", arena.path(""))
        .env("TMT_REBOOT_COUNT", "0")
        .env_remove("HOME");
    if let Some(margin) = margin {
        command.env("TESTWATCHER_MARGIN_SECS", margin.to_string());
    }
}

struct Tmt<'a> {
    arena: &'a Arena,
    wrapper: Child,
    reader: Reader,
    started: Instant,
}

impl<'a> Tmt<'a> {
    fn local(arena: &'a Arena, duration: &str, margin: Option<u32>) -> Self {
        let alone = one_at_a_time();
        let mut command = arena.command("setsid");
        command.arg(stand_in("tmt-wrapper")).args([WATCHER, "./test.sh"]);
        tmt_environment(arena, &mut command, duration, margin);
        let output = piped(&mut command);
        let started = Instant::now();
        let wrapper = command.spawn().unwrap();
        drop(command);
        let tmt = Self { arena, wrapper, reader: Reader::of(arena, output), started };
        drop(alone);
        arena.await_file("pid");
        tmt
    }

    /// `ssh -tt`: a pty whose other end the client has.
    fn over_ssh(arena: &'a Arena, duration: &str, margin: Option<u32>) -> Self {
        let alone = one_at_a_time();
        let pty = nix::pty::openpty(None, None).unwrap();
        for end in [&pty.master, &pty.slave] {
            fcntl(end, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC)).unwrap();
        }
        let mut command = arena.command("setsid");
        command.arg("--ctty").arg(stand_in("tmt-wrapper")).args([WATCHER, "./test.sh"]);
        tmt_environment(arena, &mut command, duration, margin);
        let slave = |fd: &OwnedFd| fd.try_clone().unwrap();
        command.stdin(slave(&pty.slave)).stdout(slave(&pty.slave)).stderr(pty.slave);
        let started = Instant::now();
        let wrapper = command.spawn().unwrap();
        drop(command);
        let tmt = Self { arena, wrapper, reader: Reader::of(arena, pty.master), started };
        drop(alone);
        arena.await_file("pid");
        tmt
    }

    /// SIGKILL to the wrapper's group, if it is still there then. Answers its status.
    fn strike_at(&mut self, secs: u64) -> i32 {
        let left = Duration::from_secs(secs).saturating_sub(self.started.elapsed());
        let status = wait_at_most(&mut self.wrapper, left).unwrap_or_else(|| {
            killpg(pid_of(&self.wrapper), Signal::SIGKILL).unwrap();
            self.wrapper.wait().unwrap()
        });
        status.code().unwrap_or_else(|| 128 + status.signal().unwrap())
    }

    fn terminate_wrapper(&mut self) {
        kill(pid_of(&self.wrapper), Signal::SIGTERM).unwrap();
        self.wrapper.wait().unwrap();
    }
}

fn tmt_local_duration_over(secs: u32) -> String {
    let arena = Arena::new();
    job(&arena, secs);
    let mut tmt = Tmt::local(&arena, "7s", Some(4));
    let status = tmt.strike_at(7);
    tmt.reader.await_end();
    assert_done(&arena, "when tmt goes on");
    // A cleanup longer than the margin is cut off from tmt, which says timeout by itself then.
    assert_eq!(status, if secs == 1 { 124 } else { 137 });
    let said = arena.text("output");
    // What tmt's cat had taken and not passed on when it was killed is lost: a tenth of a second's lines.
    let lost: Vec<u32> = (0..secs * 10).filter(|i| !said.contains(&format!("cleaning {i}\n"))).collect();
    assert!(lost.len() <= if secs == 1 { 0 } else { 3 }, "lines {lost:?} are lost:\n{said}");
    assert_gone(&arena);
    format!("test dead, cleanup done at {:.0} s, wrapper said {status}", tmt.started.elapsed().as_secs_f64())
}

fn tmt_local_without_deadline(secs: u32) -> String {
    let arena = Arena::new();
    job(&arena, secs);
    let mut tmt = Tmt::local(&arena, "3s", None);
    assert_eq!(tmt.strike_at(3), 137);
    tmt.reader.await_end();
    assert_done(&arena, "when tmt goes on");
    assert_eq!(tmt.arena.text("outcome"), "watcher-lost\n");
    assert!(arena.text("output").contains("too short"), "{}", arena.text("output"));
    assert_gone(&arena);
    format!("test dead, cleanup done by the guard at {:.0} s", tmt.started.elapsed().as_secs_f64())
}

fn tmt_local_interrupted(secs: u32) -> String {
    let arena = Arena::new();
    job(&arena, secs);
    let mut tmt = Tmt::local(&arena, "1h", None);
    tmt.terminate_wrapper();
    tmt.reader.await_end();
    assert_done(&arena, "when tmt goes on");
    assert_eq!(arena.text("outcome"), "watchdog\n");
    assert_gone(&arena);
    "test dead, cleanup done, tmt goes on".into()
}

fn tmt_local_interrupted_twice(secs: u32) -> String {
    let arena = Arena::new();
    job(&arena, secs);
    let mut tmt = Tmt::local(&arena, "1h", None);
    tmt.terminate_wrapper();
    arena.await_file("started");
    tmt.reader.go_away();
    arena.await_file("cleaned");
    assert_done(&arena, "after the second ^C");
    assert_gone(&arena);
    let is_log = |name: &str| name.starts_with("cleanup-") && name.ends_with(".log");
    let names = std::fs::read_dir(arena.path(".")).unwrap().flatten().map(|e| e.file_name());
    let name = names.filter_map(|name| name.into_string().ok()).find(|name| is_log(name));
    let log = arena.text(&name.unwrap_or_default());
    assert_eq!(log.lines().count(), secs as usize * 10, "all of it is in the log:\n{log}");
    "test dead, cleanup done, its output in cleanup-XXXXXX.log".into()
}

fn tmt_local_interrupted_twice_at_once(secs: u32) -> String {
    let arena = Arena::new();
    job(&arena, secs);
    let mut tmt = Tmt::local(&arena, "1h", None);
    tmt.reader.go_away();
    tmt.terminate_wrapper();
    arena.await_file("cleaned");
    assert_done(&arena, "after the second ^C");
    assert_gone(&arena);
    "test dead, cleanup done".into()
}

fn tmt_reboot(secs: u32) -> String {
    let arena = Arena::new();
    job(&arena, secs);
    let mut tmt = Tmt::local(&arena, "1h", None);
    let mut reboot = arena.command(stand_in("tmt-reboot"));
    let mut reboot = spawn(reboot.env("TMT_TEST_PIDFILE", arena.path("tmt-test.pid"))).unwrap();
    assert!(reboot.wait().unwrap().success());
    tmt.wrapper.wait().unwrap();
    tmt.reader.await_end();
    assert_dead(&arena, "when tmt reboots");
    assert!(!arena.exists("started"), "the cleanup is for the next boot");
    assert_gone(&arena);
    "test dead, no cleanup now".into()
}

fn tmt_ssh_duration_over(secs: u32) -> String {
    let arena = Arena::new();
    job(&arena, secs);
    let (duration, margin) = (secs + 6, secs + 4);
    let mut tmt = Tmt::over_ssh(&arena, &format!("{duration}s"), Some(margin));
    let limit = Duration::from_secs(duration.into()) - tmt.started.elapsed();
    let status = wait_at_most(&mut tmt.wrapper, limit).expect("the wrapper ends before the client is killed");
    assert_eq!(status.code(), Some(124));
    assert_done(&arena, "before the client is killed");
    assert_gone(&arena);
    format!("cleanup done at {:.0} s of {duration}", tmt.started.elapsed().as_secs_f64())
}

fn tmt_ssh_client_killed(secs: u32) -> String {
    let arena = Arena::new();
    job(&arena, secs);
    let mut tmt = Tmt::over_ssh(&arena, "1h", None);
    tmt.reader.go_away();
    arena.await_file("cleaned");
    assert_done(&arena, "after the hang-up");
    tmt.wrapper.wait().unwrap();
    assert_gone(&arena);
    "test dead, cleanup done".into()
}

fn ssh_without_tty_client_killed(secs: u32) -> String {
    let arena = Arena::new();
    job(&arena, secs);
    let alone = one_at_a_time();
    let mut command = arena.command(stand_in("sshd"));
    command.arg(stand_in("tmt-wrapper")).args([WATCHER, "./test.sh"]);
    tmt_environment(&arena, &mut command, "1h", None);
    let output = piped(&mut command);
    let mut sshd = command.spawn().unwrap();
    drop(command);
    let mut reader = Reader::of(&arena, output);
    drop(alone);
    arena.await_file("pid");
    reader.go_away();
    sshd.kill().unwrap();
    sshd.wait().unwrap();
    arena.await_file("cleaned");
    assert_done(&arena, "after the client's death");
    assert_gone(&arena);
    "test dead, cleanup done".into()
}

/// restraint: P, its session of `make run`, its plugins.
struct Restraint<'a> {
    arena: &'a Arena,
    task: Child,
    reader: Reader,
}

impl<'a> Restraint<'a> {
    fn start(arena: &'a Arena) -> Self {
        let alone = one_at_a_time();
        fs::write(arena.path("Makefile"), format!("run:\n\t{WATCHER} ./test.sh\n")).unwrap();
        for (folder, plugin, marker) in
            [("completed.d", "98_restore", "restore"), ("localwatchdog.d", "99_reboot", "reboot")]
        {
            let folder = arena.path("plugins").join(folder);
            fs::create_dir_all(&folder).unwrap();
            let (marker, cleaned) = (arena.path(marker).display().to_string(), arena.path("cleaned"));
            let body =
                format!("touch {marker}; [ -e {} ] && touch {marker}-after-cleanup", cleaned.display());
            fs::rename(arena.script(plugin, &body), folder.join(plugin)).unwrap();
        }
        let mut command = arena.command(stand_in("restraint-task"));
        Self::environment(arena, &mut command);
        let output = piped(&mut command);
        let task = command.spawn().unwrap();
        drop(command);
        let restraint = Self { arena, task, reader: Reader::of(arena, output) };
        drop(alone);
        arena.await_file("pid");
        restraint
    }

    fn environment(arena: &Arena, command: &mut Command) {
        let id = arena.path("");
        command
            .env("RSTRNT_TASKID", &id)
            .env("TESTID", &id)
            // Of an rhts-style task.
            .env("TASKID", &id)
            .env("RSTRNT_MAXTIME", "1")
            .env("RSTRNT_TASK_PLUGINS_DIR", arena.path("plugins/task_run.d"));
    }

    fn kill_task(&mut self) {
        self.task.kill().unwrap();
        self.task.wait().unwrap();
        self.reader.go_away();
    }

    fn run_plugins(&self, folder: &str) {
        let mut files: Vec<_> =
            fs::read_dir(self.arena.path(folder)).unwrap().map(|e| e.unwrap().path()).collect();
        files.sort();
        for file in files {
            let mut plugin = Command::new(&file);
            plugin
                .current_dir(self.arena.path(folder))
                .env("RSTRNT_LOCALWATCHDOG", "TRUE")
                .env("RSTRNT_NOPLUGINS", "1");
            Self::environment(self.arena, &mut plugin);
            let log = fs::OpenOptions::new()
                .append(true)
                .create(true)
                .open(self.arena.path("plugins.log"))
                .unwrap();
            plugin.stdout(log);
            let _ = spawn(&mut plugin).map(|mut plugin| plugin.wait());
        }
    }
}

fn restraint_watchdog(secs: u32) -> String {
    let arena = Arena::new();
    job(&arena, secs);
    let mut restraint = Restraint::start(&arena);
    restraint.kill_task();
    restraint.run_plugins("plugins/completed.d");
    assert_done(&arena, "when restraint goes on");
    restraint.run_plugins("plugins/localwatchdog.d");
    assert!(arena.exists("restore-after-cleanup") && arena.exists("reboot-after-cleanup"));
    let log = arena.text("plugins.log");
    assert!(log.contains("time is up for the watcher"), "{log}");
    assert_gone(&arena);
    assert_eq!(
        fs::read_dir(arena.path("plugins/completed.d")).unwrap().count(),
        1,
        "only 98_restore is left"
    );
    "cleanup done, then the reboot, hook removed".into()
}

fn restraint_abort(secs: u32) -> String {
    let arena = Arena::new();
    job(&arena, secs);
    let mut restraint = Restraint::start(&arena);
    restraint.kill_task();
    arena.await_file("cleaned");
    assert_done(&arena, "after the abort");
    assert_gone(&arena);
    "test dead, cleanup done".into()
}

/// The rhts runner: `make run` leads a group of its own, its output is a plain file.
struct Beah<'a> {
    arena: &'a Arena,
    make: Child,
}

impl<'a> Beah<'a> {
    fn start(arena: &'a Arena) -> Self {
        let alone = one_at_a_time();
        fs::write(arena.path("Makefile"), format!("run:\n\t{WATCHER} ./test.sh\n")).unwrap();
        let mut command = arena.command("make");
        command.arg("run").process_group(0);
        Self::environment(arena, &mut command);
        let make = command.spawn().unwrap();
        drop(alone);
        arena.await_file("pid");
        Self { arena, make }
    }

    fn environment(arena: &Arena, command: &mut Command) {
        let id = arena.path("");
        command
            .env("TASKID", &id)
            .env("TESTID", &id)
            .env("RHTSDIR", arena.path("rhts"))
            .env("HOME", arena.path("home"));
    }

    /// Both folders, each sorted by name; then, if make is still there, SIGTERM and the reboot.
    fn watchdog(&mut self) {
        for folder in ["home/.rhts/hooks/watchdog", "rhts/hooks/watchdog"] {
            let Ok(entries) = fs::read_dir(self.arena.path(folder)) else { continue };
            let mut files: Vec<_> = entries.map(|e| e.unwrap().path()).collect();
            files.sort();
            for file in files {
                let mut hook = Command::new(&file);
                hook.arg("watchdog").env("TASK_PID", self.make.id().to_string());
                Self::environment(self.arena, &mut hook);
                let _ = spawn(&mut hook).map(|mut hook| hook.wait());
            }
        }
        if wait_at_most(&mut self.make, Duration::from_secs(1)).is_none() {
            killpg(pid_of(&self.make), Signal::SIGTERM).unwrap();
            fs::write(self.arena.path("reboot"), "").unwrap();
        }
    }
}

fn beah_watchdog(secs: u32) -> String {
    let arena = Arena::new();
    fs::create_dir_all(arena.path("rhts/hooks/watchdog")).unwrap();
    job(&arena, secs);
    let mut beah = Beah::start(&arena);
    assert_eq!(fs::read_dir(arena.path("rhts/hooks/watchdog")).unwrap().count(), 1, "one hook");
    beah.watchdog();
    assert_done(&arena, "when the hooks are done");
    assert!(!arena.exists("reboot"), "make is gone: neither kill nor reboot");
    assert_gone(&arena);
    assert_eq!(fs::read_dir(arena.path("rhts/hooks/watchdog")).unwrap().count(), 0, "the hook is left");
    "cleanup done, no reboot, hook removed".into()
}

fn beah_read_only(secs: u32) -> String {
    let arena = Arena::new();
    // Nobody, root neither, can make a directory in a file.
    fs::write(arena.path("rhts"), "").unwrap();
    fs::write(arena.path("home"), "").unwrap();
    job(&arena, secs);
    let alone = one_at_a_time();
    arena.script("test.sh", "echo $PWD/cleanup.sh > $TESTWATCHER_CLPATH; echo $TESTWATCHER_CLPATH > clpath; echo $$ | tee pid.new > child; mv pid.new pid");
    drop(alone);
    let mut beah = Beah::start(&arena);
    let status = beah.make.wait().unwrap();
    assert!(status.success());
    assert_done(&arena, "at the end");
    let said = arena.text("stderr");
    assert_eq!(said.matches("no hook for beah's watchdog").count(), 1, "{said}");
    assert_gone(&arena);
    "one warning, test and cleanup ran".into()
}

type RowFn = fn(u32) -> String;

const ROWS: [(&str, &str, RowFn); 13] = [
    ("tmt local, duration over", "test dead, cleanup done before tmt goes on", tmt_local_duration_over),
    (
        "tmt local, duration too short for a margin",
        "test dead, cleanup done before tmt goes on",
        tmt_local_without_deadline,
    ),
    ("tmt local, ^C or SIGTERM to tmt", "stopped at once, cleanup, tmt ends", tmt_local_interrupted),
    ("tmt local, ^C twice", "test dead, cleanup runs", tmt_local_interrupted_twice),
    ("tmt local, ^C twice at once", "test dead, cleanup runs", tmt_local_interrupted_twice_at_once),
    ("tmt-reboot", "test dead, cleanup waits", tmt_reboot),
    ("tmt over ssh, duration over", "cleanup done before the client is killed", tmt_ssh_duration_over),
    ("tmt over ssh, client killed", "test dead, cleanup runs", tmt_ssh_client_killed),
    ("ssh without a tty, client killed", "test dead, cleanup runs", ssh_without_tty_client_killed),
    ("restraint, local watchdog", "cleanup done, then the reboot", restraint_watchdog),
    ("restraint abort", "test dead, cleanup runs", restraint_abort),
    ("rhts runner (beah)", "works, hook removed afterwards", beah_watchdog),
    ("rhts runner, /usr read-only", "a warning, and the test runs", beah_read_only),
];

/// Every row at once: most of their time is the cleanup's.
#[test]
fn every_row_of_the_table_for_a_short_and_a_long_cleanup() {
    if !["setsid", "make", "cat"].iter().all(|p| installed("every_row_of_the_table", p)) {
        return;
    }
    let mut failed = 0;
    let running: Vec<_> = ROWS
        .iter()
        .flat_map(|row| [1, 15].map(|secs| (row, secs, std::thread::spawn(move || row.2(secs)))))
        .collect();
    for ((name, must, _), secs, thread) in running {
        let seen = match thread.join() {
            Ok(seen) => seen,
            Err(panic) => {
                failed += 1;
                let text = panic.downcast_ref::<String>().cloned();
                format!(
                    "FAILED: {}",
                    text.or(panic.downcast_ref::<&str>().map(|s| (*s).into())).unwrap_or_default()
                )
            }
        };
        println!("{name:<42} | {secs:>2} s | {must:<43} | {seen}");
    }
    assert_eq!(failed, 0, "{failed} rows are not as they must be");
}

/// The stand-ins are executed by name.
#[test]
fn the_stand_ins_are_executable() {
    for name in ["tmt-wrapper", "tmt-reboot", "restraint-task", "sshd", "../../hooks/20_rl-cleanup"] {
        assert!(fs::metadata(stand_in(name)).unwrap().permissions().mode() & 0o111 != 0, "{name}");
    }
}
