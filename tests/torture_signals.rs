//! Promise: whatever signals come, and whenever, a run ends, cleans up exactly once unless SIGTERM came,
//! and leaves no process and no file. `RL_CLEANUP_FUZZ` sets the number of runs, `RL_CLEANUP_SEED` the
//! first seed.

#![allow(clippy::unwrap_used)]

#[path = "common/torture.rs"]
mod torture;
mod watch_common;
use nix::sys::signal::{Signal, kill};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use torture::{Dice, Part, is_full, scale, seed};
use watch_common::{Arena, assert_no_trace, until};

const SIGNALS: [Signal; 11] = [
    Signal::SIGINT,
    Signal::SIGINT,
    Signal::SIGQUIT,
    Signal::SIGHUP,
    Signal::SIGHUP,
    Signal::SIGTERM,
    Signal::SIGTSTP,
    Signal::SIGCHLD,
    Signal::SIGWINCH,
    Signal::SIGPIPE,
    Signal::SIGKILL,
];

#[derive(Clone, Copy, PartialEq)]
enum Came {
    /// The watcher was gone before the test said a word.
    Nothing,
    /// SIGTERM: left to a reboot.
    LeftAlone,
    /// Cleaned up.
    CleanedUp,
}

/// One run.
fn one_run(seed: u64) -> Came {
    let mut dice = Dice::new(seed);
    let arena = Arena::new();
    arena.script(
        "test.sh",
        "echo $TESTWATCHER_CLPATH > clpath; echo $PWD/cleanup.sh > $TESTWATCHER_CLPATH; echo x > hooked
         (exec sleep 0.02) & sleep 0.01",
    );
    arena.script(
        "cleanup.sh",
        "echo start >> log; exec 9>>lock; flock -n 9 || echo twice >> log; sleep 0.005; echo end >> log",
    );
    let run = arena.start(arena.watch(&["--quiet", "./test.sh"]));
    let pid = run.pid();
    let mut sent = Vec::new();
    for _ in 0..=dice.throw(4) {
        // The moment is the dice's, not a handshake's: that is the point.
        std::thread::sleep(Duration::from_micros(dice.throw(40_000)));
        let signal = SIGNALS[usize::try_from(dice.throw(SIGNALS.len() as u64)).unwrap()];
        // A watcher that is killed while it has stopped everything: the kernel sends SIGHUP to the
        // groups that are orphaned by that (setpgid(2)), and a cleanup may die of it.
        if signal == Signal::SIGKILL && sent.contains(&Signal::SIGTSTP) {
            continue;
        }
        if kill(pid, signal).is_ok() {
            sent.push(signal);
        }
    }
    // What was stopped goes on, also if it stops only after the first time it is told.
    let ending = run.end_by_repeating(Signal::SIGCONT);
    let what = format!("RL_CLEANUP_SEED={seed} {sent:?} {ending:?}");
    let clpath = arena.text("clpath").trim().to_owned();
    if clpath.is_empty() {
        // It was killed before the test said a word; then there is nothing to clean up after.
        assert!(!arena.exists("log"), "{what}");
        return Came::Nothing;
    }
    if ending.status == 137 && !sent.contains(&Signal::SIGTERM) {
        until(&format!("the guard's work: {what}"), || !std::path::Path::new(&clpath).exists());
    }
    until(&format!("the guard's end: {what}"), || watch_common::guards_of(&clpath).is_empty());
    let log = arena.text("log");
    let left_alone = sent.contains(&Signal::SIGTERM) && std::path::Path::new(&clpath).exists();
    if left_alone {
        assert!(log.is_empty() || log == "start\n" || log == "start\nend\n", "{log} {what}");
        let _ = std::fs::remove_file(&clpath);
        let _ = std::fs::remove_dir_all(format!("{clpath}.d"));
    } else {
        let due = arena.exists("hooked");
        assert!(log == "start\nend\n" || (!due && log.is_empty()), "{log:?} {what}");
        until(&format!("no trace: {what}"), || watch_common::started_with(&clpath).is_empty());
        assert_no_trace(&clpath);
    }
    if left_alone { Came::LeftAlone } else { Came::CleanedUp }
}

/// A watcher that was killed or terminated before its test said a word leaves files that no test knows
/// the name of: those made since then, of nobody who is alive.
fn sweep(since: std::time::SystemTime) {
    let live = rl_cleanup::registry::live();
    for entry in std::fs::read_dir("/var/tmp").unwrap().flatten() {
        let path = entry.path();
        let name = entry.file_name().to_string_lossy().into_owned();
        let stem = path.to_str().unwrap().trim_end_matches(".d").to_owned();
        let young = entry.metadata().and_then(|m| m.modified()).is_ok_and(|made| made >= since);
        let alive = live.iter().any(|w| w.clpath.path().to_str() == Some(&stem));
        if name.starts_with("testwatcher-") && young && !alive && watch_common::guards_of(&stem).is_empty() {
            let _ = std::fs::remove_file(&path).or_else(|_| std::fs::remove_dir_all(&path));
        }
    }
}

/// How long the short form goes on where nobody has said how many runs there are to be.
const SHORT: Duration = Duration::from_secs(12);

#[test]
fn random_signals_at_random_moments() {
    let part = Part::new("signals");
    let asked: Option<u64> = std::env::var("RL_CLEANUP_FUZZ").ok().and_then(|v| v.parse().ok());
    let runs = asked.unwrap_or_else(|| scale(400, 2000));
    let (first, begun) = (seed(1), Instant::now());
    let over = || asked.is_none() && !is_full() && begun.elapsed() > SHORT;
    let started = std::time::SystemTime::now();
    let (next, seen) = (AtomicU64::new(0), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                loop {
                    let n = next.fetch_add(1, Ordering::Relaxed);
                    if n >= runs || over() {
                        return;
                    }
                    part.tried();
                    // A run that fails is told by its panic; the others go on.
                    match catch_unwind(AssertUnwindSafe(|| one_run(first + n))) {
                        Ok(came) => seen.lock().unwrap().push(came),
                        Err(_) => part.lost(format!("RL_CLEANUP_FUZZ=1 RL_CLEANUP_SEED={}", first + n)),
                    }
                }
            });
        }
    });
    sweep(started);
    let seen = seen.into_inner().unwrap();
    let count = |what: Came| seen.iter().filter(|came| **came == what).count();
    let (cleaned, left) = (count(Came::CleanedUp), count(Came::LeftAlone));
    println!(
        "torture: signals: {cleaned} cleaned up, {left} left to a reboot, the rest over before the test"
    );
    part.finish();
    assert!(cleaned * 10 > seen.len(), "the dice must fall into the run, not in front of it");
}
