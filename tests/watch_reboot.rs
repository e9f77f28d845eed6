//! Promise: after a reboot (everything SIGKILLed, a new watcher, the same TESTID) rlJournalStart finds the
//! buffer, hooks it to the new CLPATH, and it is run, once.
#![allow(clippy::unwrap_used)]

mod watch_common;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use watch_common::{Arena, TOOLKIT, guards_of, is_alive, number, until};

#[test]
fn a_buffer_survives_the_reboot_and_runs_under_the_next_watcher() {
    let arena = Arena::new();
    let id = format!("rl-test-{}", std::process::id());
    let state = format!("/var/tmp/beakerlib-{id}");
    arena.script(
        "test.sh",
        "eval \"$($RL_CLEANUP shim)\"; rlJournalStart; echo $TESTWATCHER_CLPATH >> clpaths
         if [ -e rebooted ]; then exit 0; fi
         kept='a value'; rlPrependCleanup 'echo \"$kept $TESTWATCHER_OUTCOME\" >> cleaned'; echo $$ > pid; sleep 1000",
    );
    let start = || {
        let mut command = arena.watcher(&["./test.sh"]);
        command.env("TESTID", &id).env("RL_CLEANUP", TOOLKIT).env("RL_CLEANUP_NO_TRAP", "1");
        arena.start(command)
    };
    let run = start();
    let test = number(&arena, "pid");
    let clpath = arena.text("clpaths").trim().to_owned();
    // The power goes: nobody is left to act for anybody else. Stopped first, so that it is one moment.
    let everybody: Vec<i32> = guards_of(&clpath).into_iter().chain([run.pid().as_raw(), test]).collect();
    for signal in [Signal::SIGSTOP, Signal::SIGKILL] {
        for pid in &everybody {
            kill(Pid::from_raw(*pid), signal).unwrap();
        }
    }
    run.end();
    until("everybody's death", || everybody.iter().all(|pid| !is_alive(*pid)));
    assert!(!arena.exists("cleaned"));
    std::fs::write(arena.path("rebooted"), "").unwrap();
    for (round, cleaned) in [(1, "a value ended 0\n"), (2, "a value ended 0\n")] {
        let ending = start().end();
        assert_eq!(
            (ending.status, arena.text("cleaned").as_str()),
            (0, cleaned),
            "start {round}: {ending:?}"
        );
    }
    let clpaths = arena.text("clpaths");
    let mut clpaths: Vec<&str> = clpaths.lines().collect();
    clpaths.sort_unstable();
    clpaths.dedup();
    assert_eq!(clpaths.len(), 3, "each watcher has a file of its own");
    std::fs::remove_dir_all(state).unwrap();
    std::fs::remove_file(&clpath).unwrap();
    std::fs::remove_dir_all(format!("{clpath}.d")).unwrap();
}
