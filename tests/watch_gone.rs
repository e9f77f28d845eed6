//! Promise: gone means gone. The cleanup starts when every member of the killed group is gone, so locks
//! are free and mounts are idle; what a test leaves behind that ended by itself is left alone and named.

#![allow(clippy::unwrap_used)]

mod watch_common;
use nix::sys::signal::Signal;
use std::process::Command;
use watch_common::{Arena, is_alive, is_root, number};

const ROUNDS: usize = 200;

/// A background child, and its children, hold a lock and sit in a mount.
#[test]
fn locks_and_mounts_are_free_when_the_cleanup_starts() {
    let root = is_root("locks_and_mounts_are_free_when_the_cleanup_starts: the mounts");
    let arena = Arena::new();
    std::fs::create_dir(arena.path("mnt")).unwrap();
    let mount = if root { "mount -t tmpfs none mnt" } else { "true" };
    let umount = if root { "umount mnt" } else { "true" };
    arena.hooking_test(&format!(
        "{mount}; exec 8>lock; flock 8
         for i in 1 2 3 4; do (cd mnt; exec 7>file.$i; (sleep 1000) & sleep 1000) & done
         touch ready; wait"
    ));
    arena.script(
        "cleanup.sh",
        &format!("flock -n lock true && {umount} && echo free >> free || echo busy >> free"),
    );
    for round in 0..ROUNDS {
        let _ = std::fs::remove_file(arena.path("ready"));
        let run = arena.start(arena.watcher(&["./test.sh"]));
        arena.await_file("ready");
        run.signal(if round % 2 == 0 { Signal::SIGINT } else { Signal::SIGHUP });
        run.end();
    }
    if root {
        let _ = Command::new("umount").args(["-ql"]).arg(arena.path("mnt")).status();
    }
    let free = arena.text("free").lines().filter(|l| *l == "free").count();
    println!("{ROUNDS} tried, {} lost", ROUNDS - free);
    assert_eq!(free, ROUNDS, "{}", arena.text("stderr"));
}

/// What left the group is out of reach of `--kill group` and named; `--kill tree` takes it, and only it.
#[test]
fn tree_takes_what_left_the_group_and_nothing_else() {
    let arena = Arena::new();
    arena.script(
        "test.sh",
        "setsid bash -c 'echo $$ > session; exec sleep 1000' &
         (setsid bash -c '(echo $BASHPID > daemon; exec sleep 1000) & exit' &) 
         sleep 1000 & echo $! > child
         until [ -s session ] && [ -s daemon ]; do sleep 0.01; done
         touch ready; [ -n \"$HANG\" ] && wait; exit 0",
    );
    let bystander = arena.start({
        let mut command = Command::new("sleep");
        command.arg("1000");
        command
    });
    for (tree, hang) in [(true, true), (true, false), (false, true), (false, false)] {
        for name in ["session", "daemon", "child", "ready"] {
            let _ = std::fs::remove_file(arena.path(name));
        }
        let scope = if tree { "tree" } else { "group" };
        let mut command = arena.watch(&["--kill", scope, "./test.sh"]);
        if hang {
            command.env("HANG", "1");
        }
        let run = arena.start(command);
        arena.await_file("ready");
        if hang {
            run.signal(Signal::SIGINT);
        }
        let ending = run.end();
        let (session, daemon, child) =
            (number(&arena, "session"), number(&arena, "daemon"), number(&arena, "child"));
        assert_eq!(ending.status, if hang { 130 } else { 0 });
        let alive = [session, daemon, child].map(is_alive);
        let want = match (tree, hang) {
            (true, _) => [false, false, false],
            (false, true) => [true, true, false],
            // Ended by itself: everything is left alone, and named.
            (false, false) => {
                assert!(ending.stderr.contains("the test left running: "), "{}", ending.stderr);
                assert!(ending.stderr.contains(&format!("{child} (sleep, state S)")), "{}", ending.stderr);
                [true, true, true]
            }
        };
        assert_eq!(alive, want, "tree {tree} hang {hang}: {}", ending.stderr);
        for pid in [session, daemon, child] {
            let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), Signal::SIGKILL);
        }
    }
    assert!(is_alive(bystander.pid().as_raw()));
}

/// 10,000 members die, and are waited for.
#[test]
fn a_test_of_thousands_of_processes_is_gone_at_once() {
    if !watch_common::installed("a_test_of_thousands_of_processes_is_gone_at_once", "pgrep") {
        return;
    }
    let arena = Arena::new();
    arena.hooking_test("for i in {1..10000}; do sleep 1000 & done; touch ready; wait");
    arena.script("cleanup.sh", "pgrep -g $(cat pgid) | wc -l > left");
    arena.script("test2.sh", "echo $$ > pgid; exec ./test.sh");
    let run = arena.start(arena.watcher(&["./test2.sh"]));
    arena.await_file("ready");
    run.signal(Signal::SIGINT);
    let ending = run.end();
    assert_eq!((ending.status, arena.text("left").trim()), (130, "0"), "{ending:?}");
}

/// A member that SIGKILL does not end is waited for, named, and no reason to go without cleanup.
#[test]
fn survivors_are_named_and_the_cleanup_runs_all_the_same() {
    let name = "survivors_are_named_and_the_cleanup_runs_all_the_same";
    let freezer = std::path::Path::new("/sys/fs/cgroup/freezer");
    let cgroup = freezer.join(format!("rl-test-{}", std::process::id()));
    if !is_root(name)
        || (std::fs::create_dir(&cgroup).is_err() && !watch_common::skip(name, "no freezer to be had"))
    {
        return;
    }
    let arena = Arena::new();
    arena.hooking_test(&format!(
        "sleep 1000 & echo $! > frozen; echo $! > {0}/cgroup.procs; echo FROZEN > {0}/freezer.state
         until grep -qx FROZEN {0}/freezer.state; do sleep 0.01; done; touch ready; wait",
        cgroup.display()
    ));
    arena.script("cleanup.sh", "touch cleaned");
    let run = arena.start(arena.watcher(&["./test.sh"]));
    arena.await_file("ready");
    run.signal(Signal::SIGINT);
    let ending = run.end();
    let frozen = number(&arena, "frozen");
    std::fs::write(cgroup.join("freezer.state"), "THAWED").unwrap();
    watch_common::until("the thawed one's death", || !is_alive(frozen));
    watch_common::until("the cgroup to be free", || std::fs::remove_dir(&cgroup).is_ok());
    assert!(arena.exists("cleaned"));
    assert!(
        ending.stderr.contains(&format!("still there 10 s after SIGKILL: {frozen} (sleep, state")),
        "{ending:?}"
    );
}
