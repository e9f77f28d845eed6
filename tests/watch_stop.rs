//! Promise: what SIGTSTP has stopped goes on whole with the watcher at SIGCONT, also what was being born
//! at that moment. The kernel gives a SIGSTOP to a child that is just being forked, and takes it back at a
//! SIGCONT only once the child is there (kernel/signal.c, `prepare_signal` comes before `multiprocess`).

#![allow(clippy::unwrap_used)]

mod watch_common;
use nix::sys::signal::{Signal, kill};
use std::fs;
use std::os::unix::process::CommandExt;
use std::time::{Duration, Instant};
use watch_common::{Arena, assert_no_trace, until};

/// Where a stop is not waited for, nearly each of them meets a fork.
const STOPS: u64 = 40;

#[test]
fn a_child_that_is_being_forked_goes_on_too() {
    let arena = Arena::new();
    // Large, so that a fork takes long: each page's entry is copied.
    arena.hooking_test(
        "printf -v large '%*s' 200000000 ''
         echo $TESTWATCHER_CLPATH > clpath
         while [ ! -e enough ]; do (:); done",
    );
    arena.script("cleanup.sh", "echo cleaned >> log");
    let mut command = arena.watch(&["--quiet", "./test.sh"]);
    // Who starts these tests may be gone: the kernel does not stop an orphaned process group (setpgid(2)).
    command.process_group(0);
    let mut run = arena.start(command);
    until("the test is large", || arena.text("clpath").ends_with('\n'));
    let clpath = arena.text("clpath").trim().to_owned();
    let pid = run.pid();
    for n in 0..STOPS {
        // The moment is drawn, not shaken hands on: that is the point.
        std::thread::sleep(Duration::from_micros(n * 7919 % 20_000));
        kill(pid, Signal::SIGTSTP).unwrap();
        // At once, as a script does and a person cannot.
        spin_until(|| is_stopped(pid.as_raw()));
        kill(pid, Signal::SIGCONT).unwrap();
        spin_until(|| !is_stopped(pid.as_raw()));
    }
    fs::write(arena.path("enough"), "").unwrap();
    let mut stuck = Vec::new();
    // Stops must not be mistaken for a slow end: a process that nobody will ever continue.
    until("an end, or somebody who was left stopped", || {
        stuck = watch_common::started_with(&clpath).into_iter().filter(|p| is_stopped(*p)).collect();
        run.is_over() || !stuck.is_empty()
    });
    assert_eq!(stuck, Vec::<i32>::new(), "left stopped");
    assert_eq!(run.end().status, 0);
    assert_eq!(arena.text("log"), "cleaned\n");
    assert_no_trace(&clpath);
}

/// As `until`, but without giving anybody a moment.
fn spin_until(mut done: impl FnMut() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < watch_common::DEADLINE, "the watcher neither stops nor goes on");
    }
}

/// State `T` (proc_pid_stat(5)).
fn is_stopped(pid: i32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(") ").next().is_some_and(|rest| rest.starts_with('T'))
}
