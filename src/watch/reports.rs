//! WARN results on their way to the harness: children of their own that nobody waits for while there
//! is anything else to do. Each has ten seconds; `rstrnt-report-result` is known to hang for ever.

use super::kernel::Inheritance;
use super::process::{Group, Launch, Place};
use crate::harness::{Harness, report};
use crate::hook::boottime_ns;
use nix::sys::signal::Signal;
use nix::unistd::Pid;
use std::fs::OpenOptions;
use std::os::fd::AsRawFd;
use std::time::Duration;

/// How long one report may take.
const LIMIT: Duration = Duration::from_secs(10);

/// The reports under way.
#[derive(Default)]
pub(super) struct Reports(Vec<(Group, u64)>);

impl Reports {
    /// Sends one off. Its output goes nowhere: stdout belongs to the test, and may be dead.
    pub(super) fn send(&mut self, harness: &dyn Harness, name: &str, inheritance: &Inheritance) {
        let Some(argv) = report::warning(harness, name) else { return };
        let Ok(null) = OpenOptions::new().read(true).write(true).open("/dev/null") else { return };
        let null = null.as_raw_fd();
        let env: Vec<_> = std::env::vars_os().collect();
        let launch = Launch {
            argv: &argv,
            env: &env,
            inheritance,
            place: Place::NewGroup,
            descriptors: &[(null, 0), (null, 1), (null, 2)],
            marker: None,
        };
        if let Ok(pid) = launch.start() {
            let limit = u64::try_from(LIMIT.as_nanos()).unwrap_or(u64::MAX);
            self.0.push((Group::of_leader(pid), boottime_ns().saturating_add(limit)));
        }
    }

    /// Their leaders, which are children of ours but none of the test's.
    pub(super) fn pids(&self) -> impl Iterator<Item = Pid> {
        self.0.iter().map(|(group, _)| group.leader())
    }

    /// Whether `pid` was one; its children end with it.
    pub(super) fn ended(&mut self, pid: Pid) -> bool {
        let Some(at) = self.0.iter().position(|(group, _)| group.leader() == pid) else { return false };
        self.0.remove(at).0.signal(Signal::SIGKILL);
        true
    }

    /// Kills those whose time is over; when the next one's will be.
    pub(super) fn limit(&mut self, now: u64) -> Option<Duration> {
        for (group, _) in self.0.iter().filter(|(_, due)| *due <= now) {
            group.signal(Signal::SIGKILL);
        }
        let next = self.0.iter().map(|(_, due)| *due).filter(|due| *due > now).min()?;
        Some(Duration::from_nanos(next - now))
    }

    /// Whether any is under way.
    pub(super) fn any(&self) -> bool {
        !self.0.is_empty()
    }

    /// Ends them all at once.
    pub(super) fn kill(&mut self) {
        self.0.drain(..).for_each(|(group, _)| group.signal(Signal::SIGKILL));
    }
}
