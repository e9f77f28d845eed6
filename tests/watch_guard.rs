//! Promise: a SIGKILL of the watcher, of its group or of its session neither orphans the test nor costs
//! the cleanup; no order of kills hangs, or runs a cleanup twice at once.

#![allow(clippy::unwrap_used)]

mod watch_common;
use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;
use std::os::unix::process::CommandExt;
use watch_common::{Arena, assert_no_trace, guards_of, is_alive, number, until};

fn send_kill(pid: i32) {
    let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
}

/// A test that hangs, with a child that left for a group of its own shell's making stays in its group.
fn hanging(arena: &Arena) {
    arena
        .hooking_test("sleep 1000 & echo $! > child; echo $TESTWATCHER_CLPATH > clpath; echo $$ > pid; wait");
    arena.script("cleanup.sh", "echo $TESTWATCHER_OUTCOME >> cleaned");
}

fn cleaned_after(arena: &Arena) {
    let clpath = arena.text("clpath").trim().to_owned();
    until("the guard's end", || guards_of(&clpath).is_empty());
    assert_eq!(arena.text("cleaned"), "watcher-lost\n", "{}", arena.text("stderr"));
    assert!(!is_alive(number(arena, "pid")) && !is_alive(number(arena, "child")));
    assert_no_trace(&clpath);
}

#[test]
fn a_killed_watcher_is_survived() {
    let arena = Arena::new();
    hanging(&arena);
    let run = arena.start(arena.watcher(&["./test.sh"]));
    number(&arena, "pid");
    run.signal(Signal::SIGKILL);
    assert_eq!(run.end().status, 137);
    cleaned_after(&arena);
}

#[test]
fn a_killed_process_group_is_survived() {
    let arena = Arena::new();
    hanging(&arena);
    let mut command = arena.watcher(&["./test.sh"]);
    command.process_group(0);
    let run = arena.start(command);
    number(&arena, "pid");
    killpg(run.pid(), Signal::SIGKILL).unwrap();
    run.end();
    cleaned_after(&arena);
}

#[test]
fn a_killed_session_is_survived() {
    if !watch_common::installed("a_killed_session_is_survived", "setsid") {
        return;
    }
    let arena = Arena::new();
    hanging(&arena);
    let mut command = arena.command("setsid");
    command.args(["--wait", watch_common::WATCHER, "./test.sh"]);
    let run = arena.start(command);
    let test = number(&arena, "pid");
    let field = |pid: i32, n: usize| -> Option<i32> {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        stat.rsplit(") ").next()?.split(' ').nth(n)?.parse().ok()
    };
    let session = field(test, 3).unwrap();
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let pid = entry.file_name().to_str().and_then(|n| n.parse().ok()).unwrap_or(0);
        if pid > 1 && field(pid, 3) == Some(session) {
            send_kill(pid);
        }
    }
    run.end();
    cleaned_after(&arena);
}

/// A watcher may be killed before it has made the private directory. Its guard leaves its proof of having
/// started a cleanup all the same: else its own guard, should it be killed too, would start a second one.
#[test]
fn a_guard_leaves_its_proof_where_its_watcher_has_left_no_directory() {
    let arena = Arena::new();
    hanging(&arena);
    arena.script("cleanup.sh", "ls $TESTWATCHER_CLPATH.d >> proof; echo $TESTWATCHER_OUTCOME >> cleaned");
    let run = arena.start(arena.watcher(&["./test.sh"]));
    number(&arena, "pid");
    let dir = format!("{}.d", arena.text("clpath").trim());
    until("the private directory", || std::fs::remove_dir(&dir).is_ok());
    run.signal(Signal::SIGKILL);
    assert_eq!(run.end().status, 137);
    cleaned_after(&arena);
    assert_eq!(arena.text("proof"), "cleanup-started\n");
}

/// A guard costs nothing to see: silent in a normal run, one process, gone with the watcher.
#[test]
fn a_guard_is_silent_and_leaves_with_its_watcher() {
    let arena = Arena::new();
    hanging(&arena);
    arena.script("test.sh", "echo $TESTWATCHER_CLPATH > clpath; read x < gate");
    nix::unistd::mkfifo(&arena.path("gate"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    let run = arena.start(arena.watch(&["--quiet", "./test.sh"]));
    until("the clpath", || arena.text("clpath").ends_with('\n'));
    let clpath = arena.text("clpath").trim().to_owned();
    until("one guard", || guards_of(&clpath).len() == 1);
    std::fs::write(arena.path("gate"), "go\n").unwrap();
    let ending = run.end();
    assert_eq!((ending.status, ending.stderr.as_str()), (0, ""));
    assert_no_trace(&clpath);
}

/// SIGTERM to everything is a reboot: no kill by us, no cleanup.
#[test]
fn sigterm_to_everything_runs_nothing() {
    let arena = Arena::new();
    arena.hooking_test("trap '' TERM; echo $TESTWATCHER_CLPATH > clpath; echo $$ > pid; exec sleep 1000");
    arena.script("cleanup.sh", "touch cleaned");
    let run = arena.start(arena.watcher(&["./test.sh"]));
    let test = number(&arena, "pid");
    let clpath = arena.text("clpath").trim().to_owned();
    for pid in guards_of(&clpath).into_iter().chain([test, run.pid().as_raw()]) {
        kill(Pid::from_raw(pid), Signal::SIGTERM).unwrap();
    }
    run.end();
    until("the guard's end", || guards_of(&clpath).is_empty());
    assert!(is_alive(test) && !arena.exists("cleaned"));
    send_kill(test);
    std::fs::remove_file(&clpath).unwrap();
    std::fs::remove_dir_all(format!("{clpath}.d")).unwrap();
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Actor {
    Watcher,
    Guard,
    Test,
    Cleanup,
}

fn orders() -> Vec<Vec<Actor>> {
    use Actor::{Cleanup, Guard, Test, Watcher};
    let mut orders = vec![vec![]];
    for _ in 0..4 {
        orders = orders
            .into_iter()
            .flat_map(|order: Vec<Actor>| {
                [Watcher, Guard, Test, Cleanup]
                    .into_iter()
                    .filter(|a| !order.contains(a))
                    .map(|a| [order.clone(), vec![a]].concat())
                    .collect::<Vec<_>>()
            })
            .collect();
    }
    orders
}

/// The oldest guard: the one that acts once the watcher is gone.
fn oldest_guard(clpath: &str) -> Option<i32> {
    let start = |pid: &i32| rl_cleanup::registry::start_time(Pid::from_raw(*pid));
    guards_of(clpath).into_iter().min_by_key(start)
}

/// Whether the next kill waits until somebody has noticed the last one.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Pace {
    Noticed,
    AtOnce,
}

fn kill_in_order(order: &[Actor], pace: Pace) {
    println!("{order:?} {pace:?}");
    let arena = Arena::new();
    arena.script(
        "test.sh",
        "echo $PWD/cleanup.sh > $TESTWATCHER_CLPATH; echo $TESTWATCHER_CLPATH > clpath; echo $$ > test.pid
         read x < gate",
    );
    arena.script(
        "cleanup.sh",
        "exec 9>>lock; flock -n 9 || echo twice at once >> log
         echo start >> log; echo $$ > cleanup.pid; read x < hold; echo end >> log",
    );
    for fifo in ["gate", "hold"] {
        nix::unistd::mkfifo(&arena.path(fifo), nix::sys::stat::Mode::S_IRWXU).unwrap();
    }
    let run = arena.start(arena.watcher(&["./test.sh"]));
    let test = number(&arena, "test.pid");
    let clpath = arena.text("clpath").trim().to_owned();
    for actor in order {
        // All is over, and the files go at this moment: a kill of the watcher now, with its guard
        // dead, leaves nobody to finish that.
        if pace == Pace::Noticed && !std::path::Path::new(&clpath).exists() {
            until("the watcher's end", || !is_alive(run.pid().as_raw()));
            break;
        }
        match actor {
            Actor::Watcher => {
                let guards = guards_of(&clpath).len();
                send_kill(run.pid().as_raw());
                if pace == Pace::Noticed && guards > 0 {
                    // The guard goes on, and has a guard of its own.
                    until("the guard's guard", || guards_of(&clpath).len() != 1);
                }
            }
            Actor::Guard => {
                // A killed guard is replaced; where all is over already, there is none.
                if let Some(guard) = oldest_guard(&clpath) {
                    send_kill(guard);
                    until("the guard's death", || !is_alive(guard));
                    if pace == Pace::Noticed {
                        // Replaced, or succeeded by its own; or all is over.
                        until("another guard", || {
                            oldest_guard(&clpath).is_some_and(|g| g != guard)
                                || !std::path::Path::new(&clpath).exists()
                        });
                    }
                }
            }
            Actor::Test => send_kill(test),
            Actor::Cleanup => {
                if is_alive(test) && !arena.exists("cleanup.pid") && order[0] == Actor::Cleanup {
                    // It comes only after the test.
                    std::fs::write(arena.path("gate"), "go\n").unwrap();
                }
                if order.iter().take_while(|a| **a != Actor::Cleanup).all(|a| *a == Actor::Guard)
                    && is_alive(test)
                {
                    send_kill(test);
                }
                if pace == Pace::AtOnce && !cleanup_comes(&arena, &clpath, &run) {
                    continue;
                }
                let cleanup = number(&arena, "cleanup.pid");
                send_kill(cleanup);
                until("the cleanup's death", || !is_alive(cleanup));
            }
        }
    }
    drop(run);
    until("everybody's end", || {
        // A guard that came to it so late that it found no cleanup starts another one.
        if pace == Pace::AtOnce {
            arena.text("cleanup.pid").trim().parse().into_iter().for_each(send_kill);
        }
        guards_of(&clpath).is_empty()
    });
    let log = arena.text("log");
    match pace {
        Pace::Noticed => {
            assert_eq!(log, "start\n", "{order:?}: {}", arena.text("stderr"));
            assert!(!is_alive(test), "{order:?}");
            assert_no_trace(&clpath);
        }
        // Watcher and guard killed in the same moment: nobody is left to act, so the test lives on.
        Pace::AtOnce => {
            assert!(["", "start\n", "start\nstart\n"].contains(&log.as_str()), "{order:?}: {log}");
            send_kill(test);
            let _ = std::fs::remove_file(&clpath);
            let _ = std::fs::remove_dir_all(format!("{clpath}.d"));
        }
    }
}

/// Whether somebody is left who starts a cleanup, or it has been started.
fn cleanup_comes(arena: &Arena, clpath: &str, run: &watch_common::Run<'_>) -> bool {
    let mut comes = false;
    until("a cleanup, or nobody to start one", || {
        comes = arena.exists("cleanup.pid");
        comes || (guards_of(clpath).is_empty() && !is_alive(run.pid().as_raw()))
    });
    comes
}

#[test]
fn every_order_of_kills_ends_with_one_cleanup() {
    let orders = orders();
    assert_eq!(orders.len(), 24);
    for order in &orders {
        kill_in_order(order, Pace::Noticed);
        kill_in_order(order, Pace::AtOnce);
    }
    println!("{} orders tried at two paces, 0 lost", orders.len());
}

/// A watcher inside a watched test dies with it, and its guard runs its cleanup too, whatever the outer
/// one's reach.
#[test]
fn a_nested_watcher_is_cleaned_up_after_as_well() {
    for scope in ["group", "tree"] {
        nested(scope);
    }
}

fn nested(scope: &str) {
    let arena = Arena::new();
    arena.script(
        "inner.sh",
        "echo $PWD/inner-cleanup.sh > $TESTWATCHER_CLPATH; echo $TESTWATCHER_CLPATH > inner.clpath
        echo $$ > inner.pid; exec sleep 1000",
    );
    arena.script("inner-cleanup.sh", "echo $TESTWATCHER_OUTCOME >> inner.cleaned");
    arena.hooking_test(&format!("{} ./inner.sh", watch_common::WATCHER));
    arena.script("cleanup.sh", "echo $TESTWATCHER_OUTCOME >> outer.cleaned");
    let run = arena.start(arena.watch(&["--kill", scope, "./test.sh"]));
    let inner = number(&arena, "inner.pid");
    run.signal(Signal::SIGINT);
    assert_eq!(run.end().status, 130);
    let clpath = arena.text("inner.clpath").trim().to_owned();
    until("the inner guard's end", || guards_of(&clpath).is_empty());
    assert_eq!(
        (arena.text("outer.cleaned"), arena.text("inner.cleaned")),
        ("interrupted\n".into(), "watcher-lost\n".into())
    );
    assert!(!is_alive(inner));
    assert_no_trace(&clpath);
}
