//! Promise: every exit status of the contract's table comes out of a real run, the same from
//! `beakerlib-testwatcher` and from `rl-cleanup watch`.

#![allow(clippy::unwrap_used)]

mod watch_common;
use nix::sys::signal::Signal::{SIGHUP, SIGINT, SIGQUIT, SIGTERM};
use std::process::Command;
use watch_common::{Arena, Ending};

/// Both programs, one after the other.
fn both(arena: &Arena, args: &[&str], check: impl Fn(&Ending)) {
    check(&arena.run(arena.watcher(args)));
    check(&arena.run(arena.watch(&[&["--"], args].concat())));
}

#[test]
fn the_commands_own_status() {
    let arena = Arena::new();
    for (script, status) in [
        ("exit 0", 0),
        ("exit 1", 1),
        ("exit 77", 77),
        ("exit 255", 255),
        ("kill -9 $$", 137),
        ("kill -35 $$", 163),
    ] {
        both(&arena, &["bash", "-c", script], |e| assert_eq!(e.status, status, "{script}: {e:?}"));
    }
}

/// A test that SIGTERM ended is settled for a second, and then its status is its own.
#[test]
fn a_test_that_sigterm_ended_keeps_its_status() {
    let arena = Arena::new();
    arena.hooking_test("kill -TERM $$");
    arena.script("cleanup.sh", "echo $TESTWATCHER_OUTCOME > outcome");
    let ending = arena.run(arena.watcher(&["./test.sh"]));
    assert_eq!((ending.status, arena.text("outcome").trim()), (143, "ended 143"));
}

#[test]
fn interrupted_is_130_and_timed_out_is_124() {
    for (signal, status) in [(SIGINT, 130), (SIGQUIT, 130), (SIGHUP, 124)] {
        for toolkit in [false, true] {
            let arena = Arena::new();
            let args = ["bash", "-c", "touch ready; exec sleep 1000"];
            let run = arena.start(if toolkit { arena.watch(&args) } else { arena.watcher(&args) });
            arena.await_file("ready");
            run.signal(signal);
            let ending = run.end();
            assert_eq!(ending.status, status, "{signal} {ending:?}");
        }
    }
    let arena = Arena::new();
    let ending = arena.run(arena.watch(&["--time-limit", "1", "--", "sleep", "1000"]));
    assert_eq!(ending.status, 124, "{ending:?}");
}

#[test]
fn a_cleanup_that_did_not_do_its_work_is_121_after_a_0() {
    // Could not be run.
    let arena = Arena::new();
    arena.hooking_test("exit $STATUS");
    let with = |status: &str, command: Command| {
        let mut command = command;
        command.env("STATUS", status);
        arena.run(command).status
    };
    assert_eq!(with("0", arena.watcher(&["./test.sh"])), 121);
    assert_eq!(with("5", arena.watcher(&["./test.sh"])), 5);
    // Killed.
    arena.script("cleanup.sh", "kill -9 $$");
    assert_eq!(with("0", arena.watcher(&["./test.sh"])), 121);
    assert_eq!(with("5", arena.watcher(&["./test.sh"])), 5);
    // Failed: only --strict minds.
    arena.script("cleanup.sh", "exit 3");
    assert_eq!(with("0", arena.watcher(&["./test.sh"])), 0);
    assert_eq!(with("0", arena.watch(&["--strict", "--", "./test.sh"])), 121);
    assert_eq!(with("5", arena.watch(&["--strict", "--", "./test.sh"])), 5);
    // Ran out of its own limit.
    arena.script("cleanup.sh", "exec sleep 1000");
    assert_eq!(with("0", arena.watch(&["--cleanup-limit", "1s", "--", "./test.sh"])), 121);
}

#[test]
fn not_found_not_executable_usage_and_own_failure() {
    let arena = Arena::new();
    std::fs::write(arena.path("plain"), "x").unwrap();
    both(&arena, &["no-such-command"], |e| {
        assert_eq!(e.status, 127, "{e:?}");
        assert_eq!(e.stderr, "TESTWATCHER: cannot run 'no-such-command': command not found\n");
    });
    let ending = arena.run(arena.watcher(&["--help"]));
    assert!(ending.status == 127 && ending.stderr.contains("'rl-cleanup watch'"), "{ending:?}");
    both(&arena, &["./plain"], |e| assert_eq!(e.status, 126, "{e:?}"));
    both(&arena, &["/"], |e| assert_eq!(e.status, 126, "{e:?}"));
    let ending = arena.run(arena.watcher::<&str>(&[]));
    assert_eq!(ending.status, 2, "{ending:?}");
    assert_eq!(ending.stderr.lines().count(), 1, "{ending:?}");
    assert_eq!(arena.run(arena.watch::<&str>(&[])).status, 2);
    assert_eq!(arena.run(arena.watch(&["--time-limit", "0", "true"])).status, 2);
    assert_eq!(arena.run(arena.watch(&["--no-such-option", "true"])).status, 2);
    let mut command = arena.command(watch_common::TOOLKIT);
    command.args(["--dir", "/tmp", "watch", "true"]);
    assert_eq!(arena.run(command).status, 2);
    // Options end where the command begins.
    let ending = arena.run(arena.watch(&["echo", "--quiet", "--", "-x"]));
    assert_eq!((ending.status, ending.stdout.as_str()), (0, "--quiet -- -x\n"));
    // No descriptor is left for the watcher itself.
    let mut command = arena.command("bash");
    command.args(["-c", "ulimit -n 4; exec \"$0\" true", watch_common::WATCHER]);
    let ending = arena.run(command);
    assert_eq!(ending.status, 125, "{ending:?}");
    assert_eq!(ending.stderr.lines().count(), 1, "{ending:?}");
}

#[test]
fn a_bad_ewd_is_a_usage_error_and_no_test_runs() {
    let arena = Arena::new();
    for bad in ["0", "-5", "", "1.5", "x", " 7", "99999999999999999999"] {
        let mut command = arena.watcher(&["touch", "ran"]);
        command.env("TESTWATCHER_EWD_SECS", bad);
        let ending = arena.run(command);
        assert_eq!((ending.status, ending.stderr.lines().count()), (2, 1), "{bad:?} {ending:?}");
    }
    assert!(!arena.exists("ran"));
}

#[test]
fn exit_zero_is_0_but_for_what_never_started() {
    let arena = Arena::new();
    let zero = |mut command: Command| {
        command.env("TESTWATCHER_EXIT_ZERO", "1");
        arena.run(command).status
    };
    assert_eq!(zero(arena.watcher(&["false"])), 0);
    assert_eq!(zero(arena.watcher(&["no-such-command"])), 127);
    assert_eq!(zero(arena.watcher::<&str>(&[])), 2);
    assert_eq!(arena.run(arena.watch(&["--exit-zero", "--", "false"])).status, 0);
    assert_eq!(arena.run(arena.watch(&["--exit-zero", "--time-limit", "1", "sleep", "1000"])).status, 0);
    arena.hooking_test("");
    assert_eq!(zero(arena.watcher(&["./test.sh"])), 0, "the hooked cleanup does not exist");
    let mut command = arena.watcher(&["false"]);
    command.env("TESTWATCHER_EXIT_ZERO", "0");
    assert_eq!(arena.run(command).status, 1, "only 1 means yes");
}

/// SIGTERM presumes a reboot: the watcher exits at once and leaves test, buffer and CLPATH alone.
#[test]
fn sigterm_leaves_everything_as_it_is() {
    let arena = Arena::new();
    arena.hooking_test("echo $TESTWATCHER_CLPATH > clpath; echo $$ > pid; exec sleep 1000");
    arena.script("cleanup.sh", "touch cleaned");
    let run = arena.start(arena.watcher(&["./test.sh"]));
    let test = watch_common::number(&arena, "pid");
    run.signal(SIGTERM);
    let ending = run.end();
    assert_eq!(ending.status, 143, "{ending:?}");
    assert!(watch_common::is_alive(test), "the test lives on");
    assert!(!arena.exists("cleaned"));
    let clpath = arena.text("clpath").trim().to_owned();
    let hooked = std::fs::read_to_string(&clpath).unwrap();
    assert_eq!(hooked.trim(), arena.path("cleanup.sh").to_str().unwrap());
    watch_common::until("the guard's end", || watch_common::guards_of(&clpath).is_empty());
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(test), nix::sys::signal::SIGKILL).unwrap();
    std::fs::remove_file(&clpath).unwrap();
    std::fs::remove_dir_all(format!("{clpath}.d")).unwrap();
}

/// systemd sends SIGHUP right behind SIGTERM: it is SIGTERM that counts, whichever is read first.
#[test]
fn sigterm_counts_whatever_comes_with_it() {
    use nix::sys::signal::Signal::{SIGCONT, SIGSTOP};
    let arena = Arena::new();
    arena.hooking_test("echo $TESTWATCHER_CLPATH > clpath; echo $$ > pid; exec sleep 1000");
    arena.script("cleanup.sh", "touch cleaned");
    let run = arena.start(arena.watcher(&["./test.sh"]));
    let test = watch_common::number(&arena, "pid");
    run.signal(SIGSTOP).signal(SIGTERM).signal(SIGHUP).signal(SIGINT).signal(SIGCONT);
    let ending = run.end();
    assert_eq!(ending.status, 143, "{ending:?}");
    assert!(watch_common::is_alive(test) && !arena.exists("cleaned"), "{ending:?}");
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(test), nix::sys::signal::SIGKILL).unwrap();
    let clpath = arena.text("clpath").trim().to_owned();
    std::fs::remove_file(&clpath).unwrap();
    std::fs::remove_dir_all(format!("{clpath}.d")).unwrap();
}

#[test]
fn sigterm_can_be_made_a_persons_interrupt() {
    let arena = Arena::new();
    arena.hooking_test("touch ready; exec sleep 1000");
    arena.script("cleanup.sh", "echo $TESTWATCHER_OUTCOME > outcome");
    let run = arena.start(arena.watch(&["--sigterm", "interrupt", "./test.sh"]));
    arena.await_file("ready");
    run.signal(SIGTERM);
    assert_eq!((run.end().status, arena.text("outcome").trim()), (130, "interrupted"));
}

/// What happened is told to the cleanup.
#[test]
fn the_cleanup_knows_the_outcome() {
    for (signal, want) in [(None, "ended 3"), (Some(SIGINT), "interrupted"), (Some(SIGHUP), "watchdog")] {
        let arena = Arena::new();
        let hang = if signal.is_some() { "exec sleep 1000" } else { "exit 3" };
        arena.hooking_test(&format!("touch ready; {hang}"));
        arena.script("cleanup.sh", "echo $TESTWATCHER_OUTCOME > outcome");
        let run = arena.start(arena.watcher(&["./test.sh"]));
        arena.await_file("ready");
        if let Some(signal) = signal {
            run.signal(signal);
        }
        run.end();
        assert_eq!(arena.text("outcome").trim(), want);
    }
    let arena = Arena::new();
    arena.hooking_test("exec sleep 1000");
    arena.script("cleanup.sh", "echo $TESTWATCHER_OUTCOME > outcome");
    arena.run(arena.watch(&["--time-limit", "1", "./test.sh"]));
    assert_eq!(arena.text("outcome").trim(), "deadline");
}
