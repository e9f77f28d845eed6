//! What ties a watcher to its harness: lifelines, hook, deadline, results, the cleanup's output. The
//! loop's only way into [`crate::harness`]; decides nothing about the test.

use super::follow::{self, Diversion, Follow, Log, Progress, Terminals};
use super::kernel::Inheritance;
use super::machine::{Event, Notice};
use super::options::{HarnessDeadline, Options};
use super::reports::Reports;
use super::voice::{self, Voice};
use crate::error::Result;
use crate::harness::dropin::{self, DropIn, Installed};
use crate::harness::lifeline::{Lifelines, session_leader};
use crate::harness::{self, Choice, Harness, Limit};
use crate::hook::boottime_ns;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::unistd::Pid;
use std::fs::File;
use std::os::fd::{BorrowedFd, RawFd};
use std::path::PathBuf;
use std::time::Duration;

/// How often the cleanup's output is copied on.
const COPY: Duration = Duration::from_millis(100);
/// The same where the reader has just taken a part of what is there.
const CATCH_UP: Duration = Duration::from_millis(5);
/// How often a lifeline is looked at that the kernel does not tell of.
const LOOK: Duration = Duration::from_secs(1);

pub(super) struct Ties {
    harness: Box<dyn Harness>,
    choice: Choice,
    leader: Option<Pid>,
    /// A guard's watcher.
    predecessor: Option<Pid>,
    limit: Limit,
    lifelines: Lifelines,
    dropin: Option<DropIn>,
    held: Option<File>,
    pub(super) reports: Reports,
    follows: Vec<Follow>,
    told: Option<(u64, u64)>,
}

impl Ties {
    /// No harness.
    pub(super) fn none() -> Self {
        Self::new(Choice::None, None)
    }

    /// A watcher's, before it has started anything.
    ///
    /// # Errors
    /// The environment holds a number that is none.
    pub(super) fn of_watcher(options: &Options, voice: Voice) -> Result<Self> {
        let mut ties = Self::new(options.harness, session_leader());
        if !ties.is_bound() {
            return Ok(ties);
        }
        ties.lifelines = Lifelines::of(ties.leader, ties.harness.wrapper());
        if options.harness_deadline == HarnessDeadline::Keep {
            ties.limit = ties.harness.limit()?;
        }
        if let Err(error) = ties.install_hook() {
            voice.warn(&dropin::why_not(&*ties.harness, &error));
        }
        Ok(ties)
    }

    /// A guard's, at its start: it holds the harness back from now on, and does the rest when it takes
    /// over. The hook is still its watcher's.
    pub(super) fn of_guard(&mut self) -> Self {
        let mut ties = Self::new(self.choice, self.leader);
        ties.predecessor = Some(Pid::parent());
        if ties.harness.waits_for_output() {
            // A guard's guard has it already, and the leader may be gone.
            ties.held = self.held.take().or_else(|| ties.leader.and_then(harness::held_output));
        }
        ties
    }

    fn new(choice: Choice, leader: Option<Pid>) -> Self {
        Self {
            harness: harness::found(choice),
            choice,
            leader,
            predecessor: None,
            limit: Limit::None,
            lifelines: Lifelines::default(),
            dropin: None,
            held: None,
            reports: Reports::default(),
            follows: Vec::new(),
            told: None,
        }
    }

    /// Whether there is a harness at all.
    pub(super) fn is_bound(&self) -> bool {
        harness::is_one(&*self.harness)
    }

    pub(super) fn name(&self) -> String {
        self.harness.name().to_owned()
    }

    pub(super) fn task(&self) -> String {
        self.harness.task()
    }

    fn install_hook(&mut self) -> Result<()> {
        if let Installed::ForUs(dropin) = DropIn::install(&*self.harness, self.predecessor)? {
            self.dropin = Some(dropin);
        }
        Ok(())
    }

    /// A guard's first acts: its own hook instead of the dead watcher's, and somebody to talk to. The
    /// harness killed whoever passed our output on, but the pipe behind them is in our hand.
    pub(super) fn take_over(&mut self) {
        if self.is_bound() {
            let _ = self.install_hook();
        }
        self.regain_outputs();
    }

    /// Puts what the harness reads in the place of outputs that are dead, and answers whether one is
    /// alive again for it. The reader that was killed with the watcher may die a moment after it.
    fn regain_outputs(&mut self) -> bool {
        let Some(held) = &self.held else { return false };
        let dead = voice::dead_outputs();
        for fd in &dead {
            let _ = if *fd == 1 { nix::unistd::dup2_stdout(held) } else { nix::unistd::dup2_stderr(held) };
        }
        let still = voice::dead_outputs();
        let regained = |fd: RawFd| dead.contains(&fd) && !still.contains(&fd);
        self.follows.iter_mut().filter(|f| regained(f.to())).for_each(Follow::regain);
        dead.iter().any(|fd| regained(*fd))
    }

    /// How long the test may run, by `--time-limit` and by the harness.
    pub(super) fn test_limit(&self, own: Option<Duration>, voice: Voice) -> Option<Duration> {
        let harness = match &self.limit {
            Limit::None => None,
            Limit::Unusable(why) => {
                voice.warn(why);
                None
            }
            Limit::In { left, remark } => {
                voice.note(remark);
                Some(*left)
            }
        };
        own.into_iter().chain(harness).min()
    }

    /// What to poll.
    pub(super) fn fds(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.lifelines.fds()
    }

    /// What a lifeline that has broken means; `None` if all hold.
    pub(super) fn look(&mut self) -> Option<Event> {
        self.lifelines.one_broke().then(|| self.time_is_up())
    }

    /// What a SIGHUP or a broken lifeline means: a reboot looks the same at first.
    pub(super) fn time_is_up(&self) -> Event {
        if self.is_bound() && self.reboots() { Event::Reboot } else { Event::Watchdog }
    }

    /// Whether a reboot is under way.
    pub(super) fn reboots(&self) -> bool {
        harness::reboot_under_way(&*self.harness)
    }

    /// What the second after a test's death by SIGTERM has shown.
    pub(super) fn settled(&self) -> Event {
        if self.reboots() { Event::Reboot } else { Event::SettleOver }
    }

    /// Whether the harness was asked for a reboot that the test may have ended for.
    pub(super) fn reboot_requested(&self) -> bool {
        self.harness.reboot_requested()
    }

    /// Tells the harness, if there is a way to.
    pub(super) fn report(&mut self, notice: Notice, inheritance: &Inheritance) {
        let part = match notice {
            Notice::TestInterrupted => "test interrupt",
            Notice::LocalWatchdog | Notice::TimeLimit => "local watchdog",
            Notice::ExternalWatchdog => "external watchdog",
            Notice::CleanupInterrupted => "cleanup interrupt",
            Notice::InterruptNoted | Notice::Leaving | Notice::RebootAsked => return,
        };
        self.reports.send(&*self.harness, &format!("TESTWATCHER ({part})"), inheritance);
    }

    /// What a cleanup must not write to directly.
    pub(super) fn diversions(&self) -> Vec<Diversion> {
        follow::diversions(self.terminals())
    }

    fn terminals(&self) -> Terminals {
        if self.is_bound() { Terminals::Fleeting } else { Terminals::Lasting }
    }

    /// Passes the logs on, of which so much has been passed on already: stdout's and stderr's.
    pub(super) fn follow(&mut self, logs: Vec<Log>, done: (u64, u64)) {
        let done_of = |log: &Log| if log.diversion.to() == 2 { done.1 } else { done.0 };
        self.follows =
            logs.into_iter().map(|log| (done_of(&log), log)).map(|(n, log)| Follow::new(log, n)).collect();
    }

    /// Where a successor would have to go on, if that is news.
    pub(super) fn news_of_place(&mut self) -> Option<(u64, u64)> {
        let place = self.place()?;
        (self.told.replace(place) != Some(place)).then_some(place)
    }

    /// Where a successor would have to go on: how much of stdout's log, and of stderr's, is passed on.
    pub(super) fn place(&self) -> Option<(u64, u64)> {
        let done = |to| self.follows.iter().find(|f| f.to() == to).map_or(0, Follow::done);
        (!self.follows.is_empty()).then(|| (done(1), done(2)))
    }

    /// What is to be done again and again; when to come back.
    pub(super) fn tend(&mut self) -> Option<Duration> {
        let copy = self.follows.iter_mut().filter(|follow| !follow.is_lost()).map(|follow| {
            let before = follow.done();
            match follow.copy() {
                Progress::More => Duration::ZERO,
                Progress::Stuck if follow.done() != before => CATCH_UP,
                Progress::Stuck | Progress::Idle => COPY,
            }
        });
        let mut copy = copy.min();
        if self.follows.iter().any(Follow::is_lost) && self.regain_outputs() {
            copy = Some(Duration::ZERO);
        }
        let look = self.lifelines.need_looking_at().then_some(LOOK);
        let report = self.reports.limit(boottime_ns());
        [copy, look, report].into_iter().flatten().min()
    }

    /// The cleanup has ended, and with it its output.
    pub(super) fn end_output(&mut self) {
        self.follows.iter_mut().for_each(Follow::end);
    }

    /// Copies on, and waits for a slow reader, `wake` or `deadline` ([`boottime_ns`]); false when nothing
    /// is left to wait for.
    pub(super) fn copy_rest(&mut self, wake: BorrowedFd<'_>, deadline: u64) -> bool {
        let left = Duration::from_nanos(deadline.saturating_sub(boottime_ns()));
        let progress: Vec<Progress> = self.follows.iter_mut().map(Follow::copy).collect();
        if left.is_zero() || progress.iter().all(|p| *p == Progress::Idle) {
            return false;
        }
        if !progress.contains(&Progress::More) {
            let stuck = self.follows.iter().zip(&progress).filter(|(_, p)| **p == Progress::Stuck);
            let mut fds: Vec<PollFd<'_>> =
                stuck.map(|(follow, _)| PollFd::new(follow.output(), PollFlags::POLLOUT)).collect();
            fds.push(PollFd::new(wake, PollFlags::POLLIN));
            let _ = poll(&mut fds, PollTimeout::try_from(left).unwrap_or(PollTimeout::ZERO));
        }
        true
    }

    /// The cleanup goes on without us: its logs.
    pub(super) fn leave_output(&mut self) -> Vec<PathBuf> {
        self.follows.drain(..).map(Follow::into_path).collect()
    }

    /// The cleanup's output is over; the logs of which not all was read.
    pub(super) fn finish_output(&mut self) -> Vec<PathBuf> {
        self.follows.drain(..).filter_map(Follow::finish).collect()
    }

    /// Leaves nothing with the harness.
    pub(super) fn untie(&mut self) {
        self.dropin = None;
    }
}
