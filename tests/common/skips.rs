//! The one place that counts why a test did not run.
#![allow(missing_docs)]

use std::io::Write;

/// Prints the reason, and appends it to the file that `RL_CLEANUP_SKIPS` names: in one write, as tests
/// run side by side.
pub fn record(test: &str, reason: &str) {
    println!("skipped: {test}: {reason}");
    if let Some(path) = std::env::var_os("RL_CLEANUP_SKIPS") {
        let file = std::fs::OpenOptions::new().append(true).create(true).open(path);
        let _ = file.and_then(|mut file| file.write_all(format!("{test}: {reason}\n").as_bytes()));
    }
}
