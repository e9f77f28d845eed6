//! The shim with a real BeakerLib, named by `BEAKERLIB`: sourced after it and as its plugin; the
//! journal stays right; BeakerLib's own tests of these functions pass.
#![allow(clippy::unwrap_used, reason = "a test that panics has failed")]

mod common;

use common::{Ended, State, beakerlib, shim};
use std::path::{Path, PathBuf};
use std::process::Command;

/// A copy of BeakerLib with the shim as a plugin, as a user would install it.
fn with_plugin(state: &State, beakerlib: &Path) -> PathBuf {
    let copy = state.path("beakerlib");
    assert!(Command::new("cp").args(["-r", "--"]).args([beakerlib, &copy]).status().unwrap().success());
    std::fs::create_dir_all(copy.join("plugins")).unwrap();
    std::fs::copy(shim(), copy.join("plugins/rl-cleanup.sh")).unwrap();
    copy
}

/// Both ways in: the lines a test starts with.
fn ways_in(state: &State, beakerlib: &Path) -> [(&'static str, String); 2] {
    let plugin = with_plugin(state, beakerlib);
    [
        ("sourced", format!(". {}/beakerlib.sh\n. {}\n", beakerlib.display(), shim().display())),
        ("plugin", format!("export BEAKERLIB={0}\n. {0}/beakerlib.sh\n", plugin.display())),
    ]
}

fn run(state: &State, script: &str, clpath: Option<&Path>) -> Ended {
    let file = state.write("test.sh", script);
    let mut bash = state.command(common::bash());
    // BeakerLib's own programs lie beside it.
    let path = std::env::var("PATH").unwrap_or_default();
    bash.arg(file).env("PATH", path).env("TERM", "dumb");
    if let Some(clpath) = clpath {
        bash.env("TESTWATCHER_CLPATH", clpath);
    }
    state.run(&mut bash)
}

/// The journal's phases in order, as `NAME RESULT`.
fn phases(state: &State) -> Vec<String> {
    state
        .read("journal.txt")
        .lines()
        .filter_map(|l| l.split_once("RESULT: ").map(|(_, r)| r.trim().to_owned()))
        .map(|r| r.replace(['(', ')'], ""))
        .collect()
}

#[track_caller]
fn results(state: &State, expected: &[&str]) {
    let text = state.read("TestResults");
    for line in expected {
        assert!(text.contains(line), "{line} not in {text}");
    }
}

#[test]
fn without_a_watcher_rl_journal_end_runs_the_cleanup_and_the_journal_is_whole() {
    let Some(beakerlib) = beakerlib() else { skip!("BEAKERLIB names no BeakerLib") };
    let all = State::new();
    for (way, head) in ways_in(&all, &beakerlib) {
        let state = State::new();
        let script = format!(
            "{head}rlJournalStart; rlPhaseStartTest; v=kept; rlAppendCleanup 'rlRun \"echo $v\"'; rlPrependCleanup 'exit 3'
             rlCleanupAppend 'rlRun false'; rlPhaseEnd; rlJournalEnd; echo \"rc=$?\""
        );
        let ended = run(&state, &script, None);
        assert!(ended.out.contains("\nkept\n") || ended.out.contains("kept"), "{way}: {ended:#?}");
        assert!(ended.out.ends_with("rc=0\n"), "{way}: its status is the journal's: {ended:#?}");
        assert_eq!(phases(&state), ["PASS Test", "WARN Cleanup", "WARN unknown"], "{way}");
        results(&state, &["STATE=complete", "PHASES_PASSED=1", "PHASES_FAILED=1"]);
        let journal = state.read("journal.txt");
        for warning in [
            "rlAppendCleanup: Running outside of the test watcher",
            "rlAppendCleanup: Check your 'run' target in the test Makefile",
            "rlAppendCleanup: Cleanup will be executed only if rlJournalEnd is called properly",
            "rlJournalEnd: Not running in test watcher and rlCleanup* functions were used",
            "rlJournalEnd: Executing prepared cleanup",
        ] {
            assert_eq!(journal.matches(warning).count(), 1, "{way}: {warning}");
        }
        state.is_finished();
    }
}

#[test]
fn under_a_watcher_the_cleanup_writes_its_phase_behind_the_tests() {
    let Some(beakerlib) = beakerlib() else { skip!("BEAKERLIB names no BeakerLib") };
    let all = State::new();
    for (way, head) in ways_in(&all, &beakerlib) {
        let state = State::new();
        let clpath = state.write("testwatcher-x", "");
        let script = format!(
            "{head}rlJournalStart; rlPhaseStartTest; rlAppendCleanup 'rlRun true'; rlPhaseEnd; rlJournalEnd; echo \"rc=$?\""
        );
        let ended = run(&state, &script, Some(&clpath));
        assert!(ended.out.ends_with("rc=0\n") && !ended.err.contains("outside"), "{way}: {ended:#?}");
        assert_eq!(std::fs::read_to_string(&clpath).unwrap(), format!("{}\n", state.script().display()));
        assert_eq!(phases(&state), ["PASS Test", "PASS unknown"], "{way}");
        let mut cleanup = state.command(state.script());
        let ended =
            state.run(cleanup.env("TESTWATCHER_CLPATH", &clpath).env("TESTWATCHER_OUTCOME", "ended 0"));
        assert_eq!(ended.status, Some(0), "{way}: {ended:#?}");
        assert_eq!(phases(&state)[2..], ["PASS Cleanup", "PASS unknown"], "{way}");
        results(&state, &["STATE=complete", "RESULT_STRING=PASS", "PHASES_PASSED=2"]);
        state.is_finished();
    }
}

#[test]
fn a_test_that_was_cut_short_never_reads_pass() {
    let Some(beakerlib) = beakerlib() else { skip!("BEAKERLIB names no BeakerLib") };
    let all = State::new();
    let (_, head) = &ways_in(&all, &beakerlib)[0];
    for (assert, outcome, expected) in [
        ("true", "interrupted", ["PASS Test", "WARN Cleanup", "WARN unknown"]),
        ("true", "watchdog", ["PASS Test", "WARN Cleanup", "WARN unknown"]),
        ("false", "deadline", ["FAIL Test", "WARN Cleanup", "FAIL unknown"]),
        ("false", "ended 137", ["FAIL Test", "PASS Cleanup", "FAIL unknown"]),
    ] {
        let state = State::new();
        let clpath = state.write("testwatcher-x", "");
        let script = format!(
            "{head}rlJournalStart; rlPhaseStartTest; rlAppendCleanup 'rlRun true'; rlRun {assert}; kill -9 $$"
        );
        run(&state, &script, Some(&clpath));
        let mut cleanup = state.command(state.script());
        let ended = state.run(cleanup.env("TESTWATCHER_CLPATH", &clpath).env("TESTWATCHER_OUTCOME", outcome));
        assert_eq!(phases(&state), expected, "{outcome}: {ended:#?}");
        results(&state, &["STATE=complete"]);
    }
}

#[test]
fn an_entry_that_ends_journal_phase_or_test_costs_nothing() {
    let Some(beakerlib) = beakerlib() else { skip!("BEAKERLIB names no BeakerLib") };
    let all = State::new();
    let (_, head) = &ways_in(&all, &beakerlib)[0];
    for nasty in [
        "rlJournalEnd",
        "rlDie 'no more'",
        "rlPhaseEnd",
        "rlPhaseEnd; rlPhaseStartTest Extra",
        "exit 3",
        "unset -f rlJournalEnd rlPhaseEnd",
    ] {
        let state = State::new();
        let clpath = state.write("testwatcher-x", "");
        let script = format!(
            "{head}rlJournalStart; rlPhaseStartTest; rlAppendCleanup {}; rlAppendCleanup 'echo last >\"$ROOT/last\"'; rlPhaseEnd",
            String::from_utf8(rl_cleanup::cleanup::syntax::quote(nasty.as_bytes())).unwrap()
        );
        run(&state, &script, Some(&clpath));
        let ended = state.run(state.command(state.script()).env("TESTWATCHER_CLPATH", &clpath));
        assert!(state.path("last").exists(), "{nasty}: {ended:#?}");
        state.is_finished();
        if !nasty.starts_with("unset") {
            results(&state, &["STATE=complete"]);
        }
    }
}

#[test]
fn entries_that_no_shell_has_made_do_not_leave_the_journal_open() {
    let Some(beakerlib) = beakerlib() else { skip!("BEAKERLIB names no BeakerLib") };
    let all = State::new();
    let (_, head) = &ways_in(&all, &beakerlib)[0];
    let state = State::new();
    let script = format!(
        "{head}rlJournalStart; rlPhaseStartTest; $RL_CLEANUP append 'rlRun true'; rlPhaseEnd; rlJournalEnd"
    );
    let ended = run(&state, &script, None);
    assert_eq!(phases(&state), ["PASS Test", "PASS Cleanup", "PASS unknown"], "{ended:#?}");
    results(&state, &["STATE=complete"]);
}

#[test]
fn a_nested_test_leaves_the_hook_to_the_outer_one() {
    let Some(beakerlib) = beakerlib() else { skip!("BEAKERLIB names no BeakerLib") };
    let state = State::new();
    let inner = State::new();
    let (_, head) = &ways_in(&state, &beakerlib)[0];
    let clpath = state.write("testwatcher-x", "");
    let nested = inner.write(
        "nested.sh",
        format!("{head}export BEAKERLIB_DIR={}\nrlJournalStart; rlPhaseStartTest; rlAppendCleanup 'echo inner'; rlPhaseEnd; rlJournalEnd\n", inner.dir.display()),
    );
    let script = format!("{head}rlJournalStart; rlAppendCleanup 'echo outer'; bash {}", nested.display());
    let ended = run(&state, &script, Some(&clpath));
    assert!(ended.out.contains("inner\n"), "{ended:#?}");
    assert_eq!(std::fs::read_to_string(&clpath).unwrap(), format!("{}\n", state.script().display()));
    assert_eq!(state.entries(), ["echo outer"]);
}

#[test]
fn without_the_binary_beakerlibs_own_functions_stay() {
    let Some(beakerlib) = beakerlib() else { skip!("BEAKERLIB names no BeakerLib") };
    let state = State::new();
    let plugin = with_plugin(&state, &beakerlib);
    let dirs = std::env::var("PATH").unwrap_or_default();
    let path: Vec<&str> = dirs.split(':').filter(|d| !Path::new(d).join("rl-cleanup").exists()).collect();
    let path = path.join(":");
    let script = format!(
        "export BEAKERLIB={0}; unset RL_CLEANUP; . {0}/beakerlib.sh; rlJournalStart; rlCleanupAppend 'echo theirs'; rlJournalEnd",
        plugin.display()
    );
    let file = state.write("test.sh", script);
    let ended = state.run(state.command(common::bash()).arg(file).env("PATH", path).env("TERM", "dumb"));
    assert!(ended.out.contains("theirs\n"), "{ended:#?}");
    assert_eq!(ended.err.matches("'rl-cleanup' was not found").count(), 1, "{ended:#?}");
}

/// BeakerLib's source tree, where its tests are, named by a variable.
fn source_tree() -> Option<PathBuf> {
    let found = std::env::var_os("BEAKERLIB_SOURCE").map(PathBuf::from)?;
    found.join("src/test/infrastructureTest.sh").exists().then_some(found)
}

#[test]
fn beakerlibs_own_unit_tests_of_these_functions_pass_with_the_shim_as_plugin() {
    let Some(source) = source_tree() else { skip!("BEAKERLIB_SOURCE names no BeakerLib source tree") };
    if Command::new("xmllint").arg("--version").output().is_err() {
        skip!("BeakerLib's suite reads its journal with xmllint, which is not installed");
    }
    let state = State::new();
    let copy = state.path("source");
    assert!(Command::new("cp").args(["-r", "--"]).args([&source, &copy]).status().unwrap().success());
    std::fs::create_dir_all(copy.join("src/plugins")).unwrap();
    std::fs::copy(shim(), copy.join("src/plugins/rl-cleanup.sh")).unwrap();
    let mut suite = state.command("./test.sh");
    suite.args(["infrastructureTest.sh", "test_rlCleanupAppend", "test_rlCleanupPrepend"]);
    suite.current_dir(copy.join("src/test")).env("PATH", std::env::var("PATH").unwrap_or_default());
    let ended = state.run(&mut suite);
    assert_eq!(ended.status, Some(0), "{ended:#?}");
    assert_eq!(ended.out.matches("finished: 5 passed, 0 failed, 0 skipped").count(), 2, "{ended:#?}");
}
