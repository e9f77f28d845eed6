//! Job control: the terminal lent to whoever wants it, ^Z and `fg`. How a terminal is lent is in [`super::terminal`].

use super::machine::{Event, Phase};
use super::process::Group;
use super::signals::Alarm;
use super::terminal::Heard;
use super::{Watcher, signals};
use nix::poll::PollTimeout;
use nix::sys::signal::Signal;
use std::time::Duration;

/// How long a group that holds the terminal may take to stop by itself at ^Z.
const STOP_BY_ITSELF: Duration = Duration::from_millis(200);
/// How long a stop waits for the last member of the group to have stopped.
const STOPPED: Duration = Duration::from_secs(1);

impl Watcher {
    /// The group that runs now.
    fn current(&self) -> Option<Group> {
        let ward = match self.state.phase {
            Phase::Test => &self.test,
            Phase::Cleanup(_) => &self.cleanup,
            _ => &None,
        };
        ward.as_ref().filter(|w| !w.ended).map(|w| w.group)
    }

    pub(super) fn hear_terminal(&mut self, patience: PollTimeout) {
        let Some(terminal) = &mut self.terminal else { return };
        match terminal.hear(patience) {
            Some(Heard::Interrupt) => self.queue.push_back(Event::Interrupt),
            Some(Heard::Hangup) if !self.inheritance.sighup_ignored || self.ties.is_bound() => {
                self.queue.push_back(self.ties.time_is_up());
            }
            // The group stops by itself, an editor after putting the screen in order, and its leader
            // tells; one that ignores ^Z is stopped when that has not happened for a moment.
            Some(Heard::Stop) => self.alarms.set(Alarm::Stop, STOP_BY_ITSELF),
            Some(Heard::Hangup) | None => {}
        }
    }

    pub(super) fn replace_sentinel(&mut self) {
        let current = self.current();
        let Some(terminal) = &mut self.terminal else { return };
        terminal.sentinel_died();
        if let Some(group) = terminal.lent_to().filter(|g| Some(*g) == current) {
            terminal.lend(group, &self.inheritance);
        }
    }

    /// The leader was stopped.
    pub(super) fn on_stop(&mut self, signal: Signal) {
        let Some(group) = self.current() else { return };
        let Some(terminal) = &mut self.terminal else { return };
        match signal {
            Signal::SIGTTIN | Signal::SIGTTOU => {
                if terminal.lend(group, &self.inheritance) {
                    group.signal(Signal::SIGCONT);
                } else {
                    // A background job that wants the terminal stops as a whole (bash(1), JOB CONTROL).
                    self.suspend(signal);
                }
            }
            Signal::SIGTSTP if terminal.lent_to() == Some(group) => self.suspend(signal),
            // Somebody stopped it on purpose, and will go on with it on purpose.
            _ => {}
        }
    }

    /// Stops everything with us and goes on with everything: ^Z and `fg`.
    ///
    /// make stops sooner than we do, and its shell may send SIGCONT before we have: that takes back a stop
    /// signal that is pending (signal(7)), so ours is, blocked, from as early on as it may be.
    pub(super) fn suspend(&mut self, signal: Signal) {
        self.alarms.cancel(Alarm::Stop);
        let group = self.current();
        // With the terminal lent, the key reached the test's group only; a background job's stop, nobody.
        let key_was_ours =
            signal == Signal::SIGTSTP && self.terminal.as_ref().is_none_or(|t| t.lent_to().is_none());
        if key_was_ours {
            signals::send_self(signal);
        }
        if let Some(group) = group {
            group.stop(STOPPED);
        }
        let lent = self.terminal.as_ref().and_then(|t| t.lent_to().and(t.settings_now()));
        if let Some(terminal) = &mut self.terminal
            && lent.is_some()
        {
            terminal.take_back();
            if let Some(settings) = terminal.settings_at_start() {
                terminal.apply(settings);
            }
        }
        if !key_was_ours {
            // make, and whoever else stands in our group, has to stop too for the shell to see a stopped job.
            Group::of_leader(nix::unistd::getpgrp()).signal(signal);
        }
        signals::stop_by_pending(signal);
        // Going on.
        let Some(group) = group else { return };
        if let Some(terminal) = &mut self.terminal
            && !key_was_ours
            && terminal.lend(group, &self.inheritance)
            && let Some(settings) = lent
        {
            terminal.apply(&settings);
        }
        group.signal(Signal::SIGCONT);
    }
}
