//! One buffer, one cleanup at a time: a second process that would run the same entries is refused
//! or waits, and one that is dead is in nobody's way.
#![allow(clippy::unwrap_used, reason = "a test that panics has failed")]

mod common;

use common::{BINARY, State, wait_for};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::process::{Child, Stdio};

/// Says in `log` that it runs, and goes on when `gate` is there; not for ever, since a test that failed
/// opens none.
fn slow(name: &str) -> String {
    format!(
        "echo {name} >>\"$ROOT/log\"; for ((n = 0; n < 3000; ++n)); do [[ ! -e $ROOT/gate ]] || break; \
         sleep 0.01; done"
    )
}

fn note(name: &str) -> String {
    format!("echo {name} >>\"$ROOT/log\"")
}

fn log(state: &State) -> String {
    std::fs::read_to_string(state.path("log")).unwrap_or_default()
}

/// A cleanup whose first entry has begun, and waits.
fn started(state: &State) -> Child {
    let child = state.command(state.script()).stdout(Stdio::null()).spawn().unwrap();
    wait_for("the first entry", || log(state).ends_with('\n').then_some(()));
    child
}

fn go_on(state: &State, mut child: Child) {
    state.write("gate", "");
    let ended = wait_for("the cleanup's end", || child.try_wait().unwrap());
    assert!(ended.success(), "{ended:?}");
    state.is_finished();
}

#[test]
fn a_second_one_says_who_is_running_and_runs_nothing() {
    let state = State::new();
    state.append(&slow("one"));
    state.append(&note("two"));
    let first = started(&state);
    let says = format!("another cleanup of this buffer is running (process {})", first.id());
    assert_eq!(state.cleanup().fails(1, &says).out, "");
    state.cli(["run"]).fails(1, &says);
    state.cli(["run", "--dir", state.dir.to_str().unwrap()]).fails(1, &says);
    assert_eq!(log(&state), "one\n");
    // The buffer itself can still be changed.
    state.append(&note("three"));
    go_on(&state, first);
    assert_eq!(log(&state), "one\ntwo\nthree\n");
}

#[test]
fn nor_does_a_cleanup_begin_while_entries_are_run_by_hand() {
    let state = State::new();
    let id = state.append(&slow("one"));
    state.append(&note("two"));
    let mut by_hand = state.command(BINARY).args(["run", &id]).spawn().unwrap();
    wait_for("the entry", || log(&state).ends_with('\n').then_some(()));
    state.cleanup().fails(1, "another cleanup of this buffer is running (process ");
    state.cli(["run"]).fails(1, "another cleanup of this buffer is running (process ");
    // Nor when only the script is left of it, which runs on by itself.
    by_hand.kill().unwrap();
    by_hand.wait().unwrap();
    state.cleanup().fails(1, "another cleanup of this buffer is running (process ");
    assert_eq!(log(&state), "one\n");
    state.write("gate", "");
    wait_for("the end of the run", || (state.entries().len() == 1).then_some(()));
    wait_for("the cleanup", || (state.cleanup().status == Some(0)).then_some(()));
    assert_eq!(log(&state), "one\ntwo\n");
    state.is_finished();
}

#[test]
fn many_at_once_run_each_entry_once() {
    let state = State::new();
    for n in 0..5 {
        state.append(&note(&n.to_string()));
    }
    let start = || state.command(state.script()).stderr(Stdio::null()).spawn().unwrap();
    let mut all: Vec<Child> = (0..8).map(|_| start()).collect();
    for child in &mut all {
        wait_for("each cleanup", || child.try_wait().unwrap());
    }
    assert_eq!(log(&state), "0\n1\n2\n3\n4\n");
    state.is_finished();
}

#[test]
fn whoever_begins_after_it_was_finished_runs_nothing() {
    let state = State::new();
    state.append(&note("one"));
    // As bash has it that opened the script, and was slow.
    let copy = state.write("copy.sh", std::fs::read(state.script()).unwrap());
    state.cleanup().ok();
    state.run(state.command(common::bash()).arg(copy)).ok();
    assert_eq!(log(&state), "one\n");
    state.is_finished();
}

#[test]
fn a_killed_one_is_in_nobodys_way() {
    let state = State::new();
    state.append(&slow("one"));
    state.append(&note("two"));
    let mut first = started(&state);
    first.kill().unwrap();
    first.wait().unwrap();
    state.write("gate", "");
    state.cleanup().ok();
    assert_eq!(log(&state), "one\none\ntwo\n");
    state.is_finished();
}

#[test]
fn a_stopped_one_is() {
    let state = State::new();
    state.append(&slow("one"));
    let first = started(&state);
    let pid = Pid::from_raw(i32::try_from(first.id()).unwrap());
    kill(pid, Signal::SIGSTOP).unwrap();
    state.cleanup().fails(1, &format!("(process {pid})"));
    kill(pid, Signal::SIGCONT).unwrap();
    go_on(&state, first);
    assert_eq!(log(&state), "one\n");
}

#[test]
fn entries_of_the_cleanup_run_others_but_not_the_cleanup() {
    let state = State::new();
    let second = state.append(&note("two"));
    state.append(&note("three"));
    state.prepend(&format!(
        "$RL_CLEANUP run {second}; \"$BEAKERLIB_DIR/cleanup.sh\" 2>\"$ROOT/err\"; echo $? >>\"$ROOT/log\""
    ));
    state.prepend("exit 3");
    state.cleanup().ok();
    assert_eq!(log(&state), "two\n1\nthree\n");
    let err = std::fs::read_to_string(state.path("err")).unwrap();
    assert!(err.contains("another cleanup of this buffer is running"), "{err}");
    state.is_finished();
}

#[test]
fn entries_run_by_hand_run_others() {
    let state = State::new();
    let last = state.append(&note("three"));
    let inner = state.append(&format!("$RL_CLEANUP run {last}; {}", note("two")));
    let outer = state.append(&format!("$RL_CLEANUP run {inner}; {}", note("one")));
    state.cli(["run", &outer]).ok();
    assert_eq!(log(&state), "three\ntwo\none\n");
}

#[test]
fn nothing_of_it_is_left_when_all_is_over() {
    let state = State::new();
    state.append("true");
    let id = state.append("true");
    state.cli(["run", &id]).ok();
    assert_eq!(state.read("clbuff.lock"), "");
    state.cleanup().ok();
    assert_eq!(state.read("clbuff.lock"), "");
    assert_eq!(state.names(), ["clbuff", "clbuff.lock", "cleanup.sh"]);
}

/// Somebody has started the script by hand, outside the test's process group, and the test ends.
#[test]
fn the_watchers_cleanup_waits_and_does_what_is_left() {
    let state = State::new();
    let test = state.write(
        "test.sh",
        format!(
            "$RL_CLEANUP append '{}'\n$RL_CLEANUP append '{}'\n\
             setsid \"$BEAKERLIB_DIR/cleanup.sh\" & echo $! >\"$ROOT/pid\"\n\
             until [[ -s $ROOT/log ]]; do sleep 0.01; done\n",
            slow("one").replace('\'', "'\\''"),
            note("two"),
        ),
    );
    let err = state.path("err");
    let mut watcher = state
        .command(BINARY)
        .args(["watch", "--", "bash"])
        .arg(test)
        .stderr(std::fs::File::create(&err).unwrap())
        .spawn()
        .unwrap();
    let said = || std::fs::read_to_string(&err).unwrap();
    wait_for("the watcher's cleanup", || said().contains("waiting: another cleanup").then_some(()));
    assert_eq!(log(&state), "one\n");
    assert!(watcher.try_wait().unwrap().is_none());
    // The other one dies in its first entry, so there is something left.
    let pid: i32 = std::fs::read_to_string(state.path("pid")).unwrap().trim().parse().unwrap();
    kill(Pid::from_raw(-pid), Signal::SIGKILL).unwrap();
    state.write("gate", "");
    let ended = wait_for("the watcher's end", || watcher.try_wait().unwrap());
    assert!(ended.success(), "{ended:?} {}", said());
    assert_eq!(log(&state), "one\none\ntwo\n", "{}", said());
    state.is_finished();
}
