//! BeakerLib's own suite for its watcher, run on ours.
//!
//! The suite is not ours to ship: `BEAKERLIB_SOURCE` names a source tree of BeakerLib, from which it is
//! copied for the time of the run.

#![allow(clippy::unwrap_used, reason = "in a test a panic is the answer")]

#[path = "common/stage.rs"]
mod stage;

use std::fs;
use std::path::PathBuf;

#[test]
fn the_suite_of_the_original_reports_no_failure() {
    let test = "the_suite_of_the_original_reports_no_failure";
    let Some(source) = std::env::var_os("BEAKERLIB_SOURCE").filter(|v| !v.is_empty()) else {
        return stage::skip(test, "BEAKERLIB_SOURCE is not set");
    };
    if !stage::works("pkill", &["--version"]) {
        return stage::skip(test, "needs pkill");
    }
    let suite = PathBuf::from(source).join("src/test/testwatcher.sh");

    let scratch = stage::scratch();
    let (tests, python) = (scratch.path().join("src/test"), scratch.path().join("src/python"));
    fs::create_dir_all(&tests).unwrap();
    fs::create_dir_all(&python).unwrap();
    fs::copy(suite, tests.join("testwatcher.sh")).unwrap();
    // It takes a lone copy under that name to a directory of its own.
    fs::copy(env!("CARGO_BIN_EXE_beakerlib-testwatcher"), python.join("testwatcher.py")).unwrap();

    let mut bash = stage::command("bash");
    bash.arg("./testwatcher.sh").current_dir(&tests);
    let mut run = stage::Running::start(bash, scratch.path().join("output"));
    let status = run.exit_status();
    let output = run.output();
    assert!(output.lines().any(|l| l == "FAILED: 0") && status == 0, "exit status {status}\n{output}");
}
