//! A whole run of a watcher under strace, its guard's take-over under strace, and what must be true after
//! either was disturbed: what the tests of crashes and of errors share.
#![allow(
    dead_code,
    missing_docs,
    unreachable_pub,
    clippy::unwrap_used,
    reason = "every test file includes this module and uses its own part of it"
)]

use crate::strace::{self, Fault, Site};
use crate::watch_common::{Arena, guards_of, is_alive, started_with};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// A disturbed run may have to lose its patience (10 s) more than once, on a busy machine.
const DEADLINE: Duration = Duration::from_secs(90);

/// Whether strace works here; else the reason is counted.
pub fn can_trace(test: &str) -> bool {
    strace::missing().is_none_or(|reason| crate::watch_common::skip(test, reason))
}

/// How the test comes to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Test {
    /// By itself.
    Ends,
    /// It has the watcher interrupted, and would last for ever.
    Interrupted,
    /// It waits for a line in the FIFO `go`.
    Waits,
}

impl Test {
    fn last_line(self) -> &'static str {
        match self {
            Self::Ends => "true",
            // Where the watcher is dead already, that may be init.
            Self::Interrupted => {
                "[ \"$(cat /proc/$PPID/comm)\" = rl-cleanup ] && kill -INT $PPID; exec sleep 1000"
            }
            Self::Waits => "read -r _ <go",
        }
    }
}

/// What a run left behind, once nothing of it moves any more.
#[derive(Debug, Clone)]
pub struct Ending {
    /// As a shell shows it; 137 for a SIGKILL.
    pub status: i32,
    pub stderr: String,
    /// What the cleanup wrote.
    pub log: String,
    /// Whether the test came to hook it.
    pub hooked: bool,
    /// Files of the watcher that are left.
    pub files: Vec<String>,
}

/// Makes the scripts. The cleanup takes a moment, so that it can be found running.
fn set(test: Test) -> Arena {
    let arena = Arena::new();
    let go = Command::new("mkfifo").arg(arena.path("go")).status().unwrap();
    assert!(go.success());
    arena.script(
        "test.sh",
        &format!(
            "echo $TESTWATCHER_CLPATH >clpath.new; mv clpath.new clpath
             echo $PWD/cleanup.sh >$TESTWATCHER_CLPATH; echo x >hooked
             {}",
            test.last_line()
        ),
    );
    arena.script("cleanup.sh", "echo start >>log; sleep 0.02; echo end >>log");
    arena
}

/// The words behind strace's own: a watcher that is quiet but for what goes wrong.
const WATCHER: [&str; 4] = [crate::watch_common::TOOLKIT, "watch", "--quiet", "./test.sh"];

/// One in so many of the calls by which a watcher looks through the processes of the machine: hundreds,
/// all alike.
const LOOKS: usize = 25;

/// The calls of the watcher's own: it blocks its signals first of all.
fn own(sites: Vec<Site>) -> Vec<Site> {
    let first = sites.iter().position(|site| site.call == "signalfd4").unwrap();
    spread(sites.into_iter().skip(first.saturating_sub(1)).collect())
}

fn spread(sites: Vec<Site>) -> Vec<Site> {
    let mut looks = 0;
    let counts = |site: &Site| {
        looks += usize::from(site.line.contains("</proc/") || site.line.contains("\"/proc/"));
        !(site.line.contains("/proc/") && looks % LOOKS != 1)
    };
    let mut counts = counts;
    sites.into_iter().filter(|site| counts(site)).collect()
}

/// Every call of an undisturbed run, from the watcher's first own one on; the first one that happens when
/// a guard is there.
pub fn rehearse(test: Test) -> (Vec<Site>, usize) {
    let arena = set(test);
    let mut command = arena.command("strace");
    strace::trace(&mut command, &arena.path("trace"));
    command.args(WATCHER);
    let mut child = command.spawn().unwrap();
    let status = wait(&arena, &mut child).unwrap();
    let ending = settle(&arena, status, Guarded::Yes).unwrap();
    assert_eq!(ending.log, "start\nend\n", "{ending:?}");
    let sites = own(strace::sites(&arena.text("trace"), |_| true));
    let guarded = sites.iter().position(|site| site.call == "clone").unwrap();
    (sites, guarded + 1)
}

/// Who sees to the rest when the watcher does not end by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Guarded {
    /// Nobody: there was no guard yet.
    No,
    /// The guard, which may be so young that it has no name yet.
    Yes,
}

/// A run with a fault at one of the watcher's calls; `None` if it never got there.
pub fn disturb(test: Test, site: &Site, fault: Fault, guarded: Guarded) -> Option<Result<Ending, String>> {
    let arena = set(test);
    let mut command = arena.command("strace");
    strace::inject(&mut command, &arena.path("trace"), site, fault);
    command.args(WATCHER);
    let mut child = command.spawn().unwrap();
    let ending = wait(&arena, &mut child).and_then(|status| settle(&arena, status, guarded));
    (ending.is_err() || strace::has_struck(&arena.path("trace"), fault)).then_some(ending)
}

/// A run in a shell that has set a limit. Test and cleanup have it too, so they need little.
pub fn limited(limit: &str) -> Result<Ending, String> {
    let arena = set(Test::Ends);
    let mut command = arena.command("bash");
    command.args(["-c", &format!("{limit}; exec \"$0\" \"$@\"")]).args(WATCHER);
    let mut child = command.spawn().unwrap();
    let status = wait(&arena, &mut child)?;
    settle(&arena, status, Guarded::Yes)
}

/// Waits for the end; kills what hangs, with everything that it traces.
fn wait(arena: &Arena, child: &mut Child) -> Result<i32, String> {
    let start = Instant::now();
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return Ok(status.code().unwrap_or_else(|| 128 + status.signal().unwrap()));
        }
        if start.elapsed() > DEADLINE {
            let who = kill_all(arena);
            let _ = child.wait();
            return Err(format!("hangs: {who}"));
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Kills everything that was started in this arena; who that was, and what each of them waited in.
fn kill_all(arena: &Arena) -> String {
    let home = arena.path("x");
    let home = home.parent().unwrap();
    let mut who = Vec::new();
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        if std::fs::read_link(entry.path().join("cwd")).is_ok_and(|cwd| cwd == home) {
            let text = |name: &str| std::fs::read_to_string(entry.path().join(name)).unwrap_or_default();
            who.push(format!("{} in {} as {}", text("comm").trim(), text("wchan"), text("stat")));
            let pid = entry.file_name().to_string_lossy().parse().unwrap();
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
    }
    who.join(" | ")
}

/// Waits until nothing of the run is alive, and tells what is left of it.
fn settle(arena: &Arena, status: i32, guarded: Guarded) -> Result<Ending, String> {
    let start = Instant::now();
    let Some(clpath) = clpath_of(arena) else {
        let (log, hooked) = (arena.text("log"), arena.exists("hooked"));
        return Ok(Ending { status, stderr: arena.text("stderr"), log, hooked, files: Vec::new() });
    };
    let left = || {
        let both = [clpath.clone(), format!("{clpath}.d")];
        both.into_iter().filter(|path| Path::new(path).exists()).collect::<Vec<_>>()
    };
    loop {
        let alive = [guards_of(&clpath), started_with(&clpath)].concat();
        // The guard's last act is to remove the files.
        let is_due = guarded == Guarded::Yes && status > 128 && !left().is_empty();
        if alive.is_empty() && (!is_due || start.elapsed() > DEADLINE) {
            break;
        }
        if start.elapsed() > DEADLINE {
            return Err(format!("orphans {alive:?}: {}", kill_all(arena)));
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    let files = left();
    for path in &files {
        let _ = std::fs::remove_file(path).or_else(|_| std::fs::remove_dir_all(path));
    }
    let (log, hooked) = (arena.text("log"), arena.exists("hooked"));
    Ok(Ending { status, stderr: arena.text("stderr"), log, hooked, files })
}

/// From the test, or from the trace where it said nothing.
fn clpath_of(arena: &Arena) -> Option<String> {
    let told = arena.text("clpath").trim().to_owned();
    if !told.is_empty() {
        return Some(told);
    }
    let trace = arena.text("trace");
    let at = trace.find("/var/tmp/testwatcher-")?;
    trace.get(at..at + "/var/tmp/testwatcher-XXXXXX".len()).map(str::to_owned)
}

/// What becomes of the watcher while its guard is under strace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Watcher {
    /// It is killed while the test runs: the guard takes over.
    Killed,
    /// It comes to its end: the guard sweeps.
    Ends,
}

/// strace at a guard: it ends with that.
struct Tracer(Child);

impl Drop for Tracer {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A run whose guard strace has taken hold of while the test waited.
fn with_guard(
    watcher: Watcher,
    options: impl FnOnce(&mut Command, &Path),
) -> Result<(Arena, Ending), String> {
    let arena = set(Test::Waits);
    let mut command = arena.command(WATCHER[0]);
    let mut child = command.args(&WATCHER[1..]).spawn().unwrap();
    arena.await_file("hooked");
    let clpath = arena.text("clpath").trim().to_owned();
    crate::watch_common::until("the guard's name", || !guards_of(&clpath).is_empty());
    let guard = guards_of(&clpath)[0];
    let mut command = Command::new("strace");
    options(&mut command, &arena.path("trace"));
    command.arg("-p").arg(guard.to_string());
    let quiet = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut tracer = Tracer(quiet.spawn().unwrap());
    crate::watch_common::until("strace at the guard", || {
        let status = std::fs::read_to_string(format!("/proc/{guard}/status")).unwrap_or_default();
        // The call that it waits in may be the one at which it is killed.
        !is_alive(guard)
            || status.lines().any(|l| l.strip_prefix("TracerPid:").is_some_and(|pid| pid.trim() != "0"))
    });
    match watcher {
        Watcher::Killed => child.kill().unwrap(),
        Watcher::Ends => {
            let _ = std::fs::write(arena.path("go"), "\n");
        }
    }
    let status = wait(&arena, &mut child)?;
    let ending = settle(&arena, status, Guarded::Yes);
    let start = Instant::now();
    while is_alive(guard) && start.elapsed() < DEADLINE {
        std::thread::sleep(Duration::from_millis(2));
    }
    if !is_alive(guard) {
        // Its log is whole then.
        let _ = tracer.0.wait();
    }
    Ok((arena, ending?))
}

/// Every call of a guard, from the read on in which it waits for its watcher's end; and the first one
/// after which somebody else sees to the rest. When the watcher is dead too, that is its own guard.
pub fn rehearse_guard(watcher: Watcher) -> (Vec<Site>, usize) {
    let (arena, ending) = with_guard(watcher, strace::trace).unwrap();
    assert_eq!(ending.log, "start\nend\n", "{ending:?}");
    let sites = spread(strace::sites(&arena.text("trace"), |_| true));
    let guarded = match watcher {
        Watcher::Killed => sites.iter().position(|site| site.call == "clone").unwrap() + 1,
        Watcher::Ends => 0,
    };
    (sites, guarded)
}

/// The same with a fault at one of its calls; `None` if it never got there.
pub fn disturb_guard(watcher: Watcher, site: &Site, fault: Fault) -> Option<Result<Ending, String>> {
    match with_guard(watcher, |command, log| strace::inject(command, log, site, fault)) {
        Ok((arena, ending)) => strace::has_struck(&arena.path("trace"), fault).then_some(Ok(ending)),
        Err(how) => Some(Err(how)),
    }
}
