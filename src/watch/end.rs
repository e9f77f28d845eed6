//! The last things: terminal, output, harness, files, guard, summary, exit status.

use super::guard::Word;
use super::machine::{Event, Fate};
use super::options::SigtermPolicy;
use super::process::Change;
use super::signals::Alarm;
use super::{Watcher, account, process, summary};
use crate::hook::boottime_ns;
use crate::registry;
use nix::poll::{PollFd, PollFlags, poll};
use nix::sys::signal::Signal;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::time::Duration;

/// How long the end waits for the reader of the cleanup's output.
const REST: Duration = Duration::from_secs(2);

impl Watcher {
    /// The last things: terminal, files, guard, summary, exit status.
    pub(super) fn wind_up(&mut self) -> u8 {
        let leaving = self.state.fate == Fate::LeftAlone;
        // Where no cleanup was started, nobody reported.
        let reported = self.account.has_cleanup() && self.clpath.has_private_dir();
        let rows = if reported { self.clpath.report().rows() } else { Ok(Vec::new()) };
        let rows = rows.unwrap_or_else(|error| {
            self.voice.warn(&format!("{error}: what became of each entry is not known"));
            Vec::new()
        });
        self.account.finished(boottime_ns(), rows);
        if let Some(terminal) = &mut self.terminal
            && !leaving
        {
            terminal.restore();
        }
        self.end_ties();
        let swept = !leaving && self.end_files();
        registry::withdraw(&self.clpath);
        if !self.voice.is_quiet() && self.account.has_test() {
            summary::lines(&self.state, &self.account).iter().for_each(|line| self.voice.note(line));
        }
        self.await_guard();
        if swept && self.clpath.is_left() {
            // There was no guard, or somebody has killed it, perhaps in the middle of its work.
            self.clpath.remove();
        }
        account::exit_status(&self.state, &self.account, self.options.answer)
    }

    /// The last of the cleanup's output, then what is on its way to the harness: each report has its
    /// ten seconds, unless somebody wants us gone.
    fn end_ties(&mut self) {
        self.account.logs = self.end_output();
        self.ties.untie();
        if self.state.fate == Fate::LeftAlone {
            self.ties.reports.kill();
        }
        while self.ties.reports.any() {
            self.tend();
            let mut fds =
                [self.signals.as_fd(), self.alarms.as_fd()].map(|fd| PollFd::new(fd, PollFlags::POLLIN));
            let _ = poll(&mut fds, self.alarms.patience());
            self.alarms.over();
            while let Some(signal) = self.signals.next() {
                match signal {
                    Signal::SIGCHLD => self.reap(),
                    Signal::SIGINT | Signal::SIGQUIT | Signal::SIGTERM => self.ties.reports.kill(),
                    _ => {}
                }
            }
        }
    }

    /// Passes on what the cleanup has written so far as it ended, in the time there is for that; a
    /// signal ends it. The logs that are still needed.
    fn end_output(&mut self) -> Vec<PathBuf> {
        if self.state.fate == Fate::LeftAlone {
            return self.ties.leave_output();
        }
        self.ties.end_output();
        let deadline = boottime_ns().saturating_add(u64::try_from(REST.as_nanos()).unwrap_or(u64::MAX));
        // What came with the cleanup's end, nobody has looked at.
        self.account.terminated = self.queue.contains(&Event::Terminate);
        let mut wanted_gone = self.account.terminated || self.queue.contains(&Event::Interrupt);
        while !wanted_gone && self.ties.copy_rest(self.signals.as_fd(), deadline) {
            while let Some(signal) = self.signals.next() {
                match signal {
                    Signal::SIGCHLD => self.reap(),
                    Signal::SIGTERM if self.options.sigterm == SigtermPolicy::Exit => {
                        self.account.terminated = true;
                        wanted_gone = true;
                    }
                    Signal::SIGINT | Signal::SIGQUIT | Signal::SIGTERM => wanted_gone = true,
                    _ => {}
                }
            }
        }
        self.ties.finish_output()
    }

    /// Has the CLPATH file and its directory removed, the latter unless a person is sent there. The
    /// guard does that while we end other things, and even if we are killed meanwhile. Whether both go.
    fn end_files(&mut self) -> bool {
        let dir = self.clpath.private_dir();
        let ours = self.clpath.has_private_dir();
        let left = ours && std::fs::metadata(dir.join("clbuff")).is_ok_and(|m| m.len() > 0);
        let has_log = self.account.logs.iter().any(|log| log.starts_with(&dir));
        if !left && !has_log {
            self.tell_guard(Word::Sweep);
            // What takes longest of it, while the guard wakes up.
            self.clpath.remove_empty_dir();
            return true;
        }
        let _ = std::fs::remove_file(self.clpath.path());
        self.account.kept = left.then_some(dir);
        self.tell_guard(Word::Leave);
        false
    }

    /// The guard leaves before we do, so that nobody who waits for our output waits for it.
    fn await_guard(&mut self) {
        let Some(guard) = self.guard.take() else { return };
        let pid = guard.pid();
        self.alarms.set(Alarm::Patience, Duration::from_secs(1));
        loop {
            // Before looking, so that no SIGCHLD that comes in between is taken away unheard.
            while self.signals.next().is_some() {}
            while let Some((reaped, change)) = process::reap() {
                if reaped == pid && matches!(change, Change::Ended(_)) {
                    return;
                }
            }
            let mut fds =
                [self.signals.as_fd(), self.alarms.as_fd()].map(|fd| PollFd::new(fd, PollFlags::POLLIN));
            let _ = poll(&mut fds, self.alarms.patience());
            if self.alarms.over().contains(&Alarm::Patience) {
                // Stopped by somebody: a dead guard is as good as one that left.
                process::kill_one(pid);
                return;
            }
        }
    }
}
