//! Programs under strace(1): which system calls they make, and the n-th of them made to kill or to fail.
//! Owns strace's options and the reading of its log; must not know what a buffer or a watcher is.
#![allow(
    dead_code,
    missing_docs,
    unreachable_pub,
    clippy::unwrap_used,
    reason = "every test file includes this module and uses its own part of it"
)]

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Stdio};

/// One call: `when=` of strace counts the calls of each name by themselves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Site {
    pub call: String,
    pub nth: usize,
    /// The log's line, for a person.
    pub line: String,
}

impl std::fmt::Display for Site {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let line: String = self.line.chars().take(120).collect();
        write!(f, "{} no. {}: {line}", self.call, self.nth)
    }
}

/// What happens at a site.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// SIGKILL in place of the call.
    Kill,
    /// The call is not made and fails so.
    Error(&'static str),
}

impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Kill => write!(f, "signal=SIGKILL"),
            Self::Error(name) => write!(f, "error={name}"),
        }
    }
}

/// Why strace cannot be used here; `None` if it can.
#[must_use]
pub fn missing() -> Option<&'static str> {
    let answer = |args: &[&str]| {
        let command = Command::new("strace").args(args).stdin(Stdio::null()).output();
        command.ok().map(|out| out.status.success())
    };
    match answer(&["-o", "/dev/null", "-e", "trace=write", "-e", "inject=write:error=EIO:when=9", "true"]) {
        None => Some("strace is not installed"),
        Some(false) => Some("strace may not trace here (ptrace is forbidden)"),
        Some(true) => None,
    }
}

/// strace that writes every call of the process into `log`. The program and its words go behind it, on a
/// command whose environment and directory are set.
pub fn trace(strace: &mut Command, log: &Path) {
    strace.args(["-y", "-qq", "-o"]).arg(log);
}

/// strace that lets `fault` happen at `site`, and writes the calls of that name into `log`.
pub fn inject(strace: &mut Command, log: &Path, site: &Site, fault: Fault) {
    let (call, nth) = (&site.call, site.nth);
    strace.args(["-y", "-qq", "-e", "signal=none", "-o"]).arg(log);
    strace.arg("-e").arg(format!("trace={call}"));
    strace.arg("-e").arg(format!("inject={call}:{fault}:when={nth}"));
}

/// Every call of a log whose line `counts`.
pub fn sites(log: &str, counts: impl Fn(&str) -> bool) -> Vec<Site> {
    let mut seen: BTreeMap<String, usize> = BTreeMap::new();
    let mut found = Vec::new();
    for line in log.lines() {
        let name: String = line.chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect();
        // "<... wait4 resumed>", "--- SIGCHLD", "+++ exited".
        if name.is_empty() || !line[name.len()..].starts_with('(') {
            continue;
        }
        let nth = seen.entry(name.clone()).and_modify(|n| *n += 1).or_insert(1);
        if counts(line) {
            found.push(Site { call: name, nth: *nth, line: line.to_owned() });
        }
    }
    found
}

/// Whether the fault has come to pass: a run may take another way and never get there.
#[must_use]
pub fn has_struck(log: &Path, fault: Fault) -> bool {
    let text = String::from_utf8_lossy(&std::fs::read(log).unwrap_or_default()).into_owned();
    match fault {
        Fault::Kill => text.contains("+++ killed by SIGKILL") || text.contains("= ?"),
        Fault::Error(_) => text.contains("(INJECTED)"),
    }
}

/// Which of the sites this run takes: one in `every`, another one with each seed.
#[must_use]
pub fn is_drawn(number: u64, every: u64, seed: u64) -> bool {
    number.wrapping_add(seed).is_multiple_of(every)
}
