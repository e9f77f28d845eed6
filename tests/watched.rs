//! Both halves together: a test that uses the shim, under the watcher.
#![allow(clippy::unwrap_used, reason = "a test that panics has failed")]

mod common;

use common::{BINARY, Ended, State, shim};
use std::process::{Command, Stdio};

/// Runs a test under the watcher. `$HANG` in it waits for good, once it has interrupted the watcher.
fn watched(state: &State, script: &str) -> Ended {
    let script = script.replace("$HANG", "kill -INT $PPID; exec sleep 600");
    let file = state.write("test.sh", format!(". \"$SHIM\"\n{script}\n"));
    let mut watch = state.command(BINARY);
    watch.args(["watch", "--harness", "none", "--", "/bin/bash"]).arg(file).env("SHIM", shim());
    state.run(&mut watch)
}

const ENTRIES: &str =
    "rlJournalStart; v='a value'; rlAppendCleanup 'echo \"$v\"'; rlPrependCleanup 'exit 3'\n";

#[test]
fn the_cleanup_runs_when_the_test_has_ended_and_when_it_is_interrupted() {
    for (end, status) in [("rlJournalEnd", 0), ("exit 7", 7), ("$HANG", 130), ("kill -9 $$", 137)] {
        let state = State::new();
        let ended = watched(&state, &format!("{ENTRIES}{end}"));
        assert_eq!((ended.status, ended.out.as_str()), (Some(status), "a value\n"), "{end}: {ended:#?}");
        assert!(ended.err.contains("2 entries, 1 failed"), "{end}: {ended:#?}");
        assert!(!ended.err.contains("outside of the test watcher"), "{end}: {ended:#?}");
        state.is_finished();
    }
}

#[test]
fn a_live_watcher_is_told_from_a_dead_one() {
    let state = State::new();
    // rlJournalEnd would run it at once if it took the watcher for dead.
    let ended = watched(&state, &format!("{ENTRIES}rlJournalEnd; echo ended"));
    assert_eq!(ended.out, "ended\na value\n", "{ended:#?}");
}

#[test]
fn what_ends_the_cleanups_shell_is_status_121_and_the_rest_is_named_and_kept() {
    let state = State::new();
    let ended =
        watched(&state, &format!("{ENTRIES}rlAppendCleanup 'exec true'; rlAppendCleanup 'echo unreached'"));
    assert_eq!((ended.status, ended.out.as_str()), (Some(121), "a value\n"), "{ended:#?}");
    assert!(ended.err.contains("exec true") && ended.err.contains("echo unreached"), "{ended:#?}");
    assert_eq!(state.entries(), ["exec true", "echo unreached"]);
}

#[test]
fn a_killed_watcher_leaves_what_the_next_start_runs() {
    let state = State::new();
    let clpath = state.write("testwatcher-gone", "");
    // The machine went down: watcher, guard and test at once.
    let script = format!(". \"$SHIM\"\n{ENTRIES}kill -9 $$");
    let file = state.write("first.sh", script);
    state.run(state.command("/bin/bash").arg(file).env("SHIM", shim()).env("TESTWATCHER_CLPATH", &clpath));
    assert_eq!(state.entries().len(), 2);
    let ended = watched(&state, "rlJournalStart");
    assert_eq!((ended.status, ended.out.as_str()), (Some(0), "a value\n"), "{ended:#?}");
    let ended = watched(&state, "rlJournalStart; rlJournalEnd");
    assert_eq!((ended.status, ended.out.as_str()), (Some(0), ""), "{ended:#?}");
}

#[test]
fn any_language_can_stack_without_a_directory_of_its_own() {
    let state = State::new();
    let script = state.write("any.sh", "#!/bin/sh\n$RL_CLEANUP append 'echo last'\n$RL_CLEANUP prepend 'echo first'\n$RL_CLEANUP list | wc -l\n");
    let mut watch = state.command(BINARY);
    watch.args(["watch", "--harness", "none", "--", "/bin/sh"]).arg(script).env_remove("BEAKERLIB_DIR");
    let ended = state.run(&mut watch);
    assert_eq!((ended.status, ended.out.as_str()), (Some(0), "2\nfirst\nlast\n"), "{ended:#?}");
}

#[test]
fn status_names_the_watcher_and_the_hook() {
    let state = State::new();
    let ended = watched(&state, &format!("{ENTRIES}$RL_CLEANUP status; $RL_CLEANUP status --json"));
    assert!(ended.out.contains("hooked:      yes\n"), "{ended:#?}");
    let json = &ended.out[ended.out.find('{').unwrap()..ended.out.rfind('}').unwrap() + 1];
    let status: serde_json::Value = serde_json::from_str(json).unwrap();
    assert_eq!((&status["entries"], &status["hooked"]), (&2.into(), &true.into()));
    let phases: Vec<&str> =
        status["watchers"].as_array().unwrap().iter().filter_map(|w| w["phase"].as_str()).collect();
    assert!(phases.contains(&"test"), "{status}");
}

/// Entries that were there before the watcher are not run until somebody hooks them.
#[test]
fn status_tells_a_script_that_is_not_hooked() {
    let state = State::new();
    let ask = format!("'{BINARY}' status; '{BINARY}' status --json");
    let asked = |command: &str| {
        let mut watch = state.command(BINARY);
        watch.args(["watch", "--harness", "none", "--quiet", "--", "/bin/sh", "-c", command]);
        state.run(&mut watch).ok().out
    };
    let without_a_directory = asked(&ask);
    state.append("echo ran");
    let with_entries = asked(&ask);
    let other = state.write("other.sh", "");
    let with_an_empty_script = asked(&format!("echo '{}' >\"$TESTWATCHER_CLPATH\"; {ask}", other.display()));
    for said in [without_a_directory, with_entries, with_an_empty_script] {
        assert!(said.contains("hooked:      no\n") && said.contains("\"hooked\": false"), "{said}");
        assert!(!said.contains("ran"), "{said}");
    }
    let hooked = asked(&format!("'{BINARY}' rehook; {ask}"));
    assert!(hooked.contains("hooked:      yes\n") && hooked.ends_with("\nran\n"), "{hooked}");
}

#[test]
fn the_list_in_a_terminal_is_cut_coloured_and_left_plain_on_request() {
    let has_script = Command::new("script").arg("--version").stdout(Stdio::null()).status();
    if has_script.is_err() {
        skip!("script(1) is not installed");
    }
    let state = State::new();
    state.append(&format!("echo {}", "long ".repeat(60)));
    let in_terminal = |extra: &str| {
        let command = format!("stty cols 60; {extra} {BINARY} list");
        state.run(state.command("script").args(["-qec", &command, "/dev/null"])).out
    };
    let coloured = in_terminal("");
    assert!(coloured.contains("\x1b[33m") && coloured.contains('…'), "{coloured:?}");
    let plain = in_terminal("NO_COLOR=1");
    assert!(!plain.contains('\x1b'), "{plain:?}");
    assert_eq!(plain.trim_end().chars().count(), 60, "{plain:?}");
}
