//! Killing a group, or a tree, and waiting until nobody of it is left. Decides nothing about whom.

use super::guard::{Guard, Word};
use super::machine::{Event, Fate, Reach};
use super::process::{Group, Members, Process};
use super::signals::Alarm;
use super::terminal::Terminal;
use super::{Watcher, process};
use crate::hook::boottime_ns;
use nix::sys::signal::Signal;
use nix::unistd::Pid;
use std::time::Duration;

/// How long the killed ones may take to be gone before the cleanup starts all the same.
const PATIENCE: Duration = Duration::from_secs(10);

/// Waiting for the killed ones to be gone.
pub(super) struct Hunt {
    pub(super) prey: Group,
    pub(super) reach: Reach,
    pub(super) interval: Duration,
}

impl Watcher {
    /// 25 of the 30 minutes between LWD and EWD, or less if the cleanup has a limit of its own.
    pub(super) fn arm_ewd(&mut self) {
        self.alarms.set_at_most(Alarm::CleanupLimit, Duration::from_secs(self.options.ewd.as_secs()));
        if let Some(limit) = self.options.cleanup_limit {
            self.alarms.set_at_most(Alarm::CleanupLimit, Duration::from_secs(limit.as_secs()));
        }
    }

    pub(super) fn kill_test(&mut self) {
        self.alarms.cancel(Alarm::TestLimit);
        let Some(group) = self.test.as_ref().map(|t| t.group) else {
            self.queue.push_back(Event::Gone);
            return;
        };
        group.signal(Signal::SIGKILL);
        match (self.state.fate, self.state.outcome) {
            // The cleanup waits for the next boot, whatever happens to us.
            (Fate::Postponed, _) => self.tell_guard(Word::Leave),
            (_, Some(outcome)) => self.tell_guard(Word::Killing(outcome)),
            (_, None) => {}
        }
        self.account.test_killed(boottime_ns());
        self.hunt(group, self.state.reach);
    }

    pub(super) fn kill_cleanup(&mut self) {
        let Some(group) = self.cleanup.as_ref().map(|c| c.group) else {
            self.queue.push_back(Event::Gone);
            return;
        };
        group.signal(Signal::SIGKILL);
        self.tell_guard(Word::CleanupKilling);
        self.hunt(group, Reach::Group);
    }

    pub(super) fn hunt(&mut self, prey: Group, reach: Reach) {
        let interval = Duration::from_millis(1);
        self.hunt = Some(Hunt { prey, reach, interval });
        self.alarms.set(Alarm::Patience, PATIENCE);
        if reach == Reach::Group && !prey.is_empty() {
            // The killed are still dying, and to look through all of /proc takes longer than that. Most
            // hunts end with SIGCHLD and need no look.
            self.alarms.set(Alarm::Look, interval);
        } else {
            self.look();
        }
    }

    /// Our own helpers, which are children but no part of the test.
    pub(super) fn ours(&self) -> Vec<Pid> {
        let sentinel = self.terminal.as_ref().and_then(Terminal::sentinel);
        self.guard
            .as_ref()
            .map(Guard::pid)
            .into_iter()
            .chain(sentinel)
            .chain(self.ties.reports.pids())
            .collect()
    }

    /// Who is left of the hunted.
    fn prey(&self, hunt: &Hunt) -> Members {
        let group = match hunt.prey.members() {
            Members::Living(members) => members,
            Members::Gone => Vec::new(),
            Members::Unknown => return Members::Unknown,
        };
        let mut left = group;
        if hunt.reach == Reach::Tree && process::has_other_children(&self.ours()) {
            for process in process::descendants(&self.ours()) {
                if left.iter().all(|p| p.pid != process.pid) {
                    left.push(process);
                }
            }
        }
        if left.is_empty() { Members::Gone } else { Members::Living(left) }
    }

    /// Kills again whoever has come in the meantime, and looks again later, ever less often.
    pub(super) fn look(&mut self) {
        let Some(hunt) = &self.hunt else { return };
        match self.prey(hunt) {
            Members::Gone => return self.hunted_down(),
            Members::Living(left) if hunt.reach == Reach::Tree => {
                left.iter().for_each(|p| process::kill_one(p.pid));
            }
            Members::Living(_) | Members::Unknown => hunt.prey.signal(Signal::SIGKILL),
        }
        if let Some(hunt) = &mut self.hunt {
            let interval = hunt.interval;
            hunt.interval = (interval * 2).min(Duration::from_millis(100));
            self.alarms.set(Alarm::Look, interval);
        }
    }

    pub(super) fn hunted_down(&mut self) {
        self.hunt = None;
        self.alarms.cancel(Alarm::Look);
        self.alarms.cancel(Alarm::Patience);
        self.queue.push_back(Event::Gone);
    }

    pub(super) fn lose_patience(&mut self) {
        let Some(hunt) = &self.hunt else { return };
        let secs = PATIENCE.as_secs();
        match self.prey(hunt) {
            Members::Living(left) => {
                self.voice.warn(&format!("still there {secs} s after SIGKILL: {}", list(&left)));
            }
            Members::Unknown => self.voice.warn(&format!("something is still there {secs} s after SIGKILL")),
            Members::Gone => {}
        }
        self.hunted_down();
    }
}

/// Names at most five processes.
pub(super) fn list(processes: &[Process]) -> String {
    let mut names: Vec<String> = processes.iter().take(5).map(Process::to_string).collect();
    if processes.len() > 5 {
        names.push(format!("and {} more", processes.len() - 5));
    }
    names.join(", ")
}
