//! Signals and time, as descriptors that a loop can wait on. Owns the signal mask, the signalfd and
//! the timerfd; knows neither tests nor cleanups.
//!
//! Everything the watcher reacts to is blocked from before the first process is started until the
//! end. A signal that is blocked is queued even where it is ignored (kernel/signal.c, `sig_ignored`),
//! so dispositions never change and the test inherits what the watcher was given.

use crate::error::{Error, Result};
use nix::errno::Errno;
use nix::poll::PollTimeout;
use nix::sys::signal::{SigSet, SigmaskHow, Signal, sigprocmask};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};
use std::collections::BTreeMap;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

/// Every signal the watcher reacts to; and the one by which a file size limit would end it in the middle
/// of a write (setrlimit(2)), where an error will do.
const WATCHED: [Signal; 10] = [
    Signal::SIGINT,
    Signal::SIGQUIT,
    Signal::SIGHUP,
    Signal::SIGTERM,
    Signal::SIGCHLD,
    Signal::SIGTSTP,
    Signal::SIGTTIN,
    Signal::SIGTTOU,
    Signal::SIGCONT,
    Signal::SIGXFSZ,
];

/// The blocked signals, read one by one.
pub struct Signals(SignalFd);

impl Signals {
    /// Blocks the signals; also returns the mask from before.
    ///
    /// # Errors
    /// No descriptor is to be had.
    pub fn block() -> Result<(Self, SigSet)> {
        let failed = |e: Errno| Error::os("wait for signals with", "signalfd", e);
        let watched: SigSet = WATCHED.into_iter().collect();
        let mut before = SigSet::empty();
        sigprocmask(SigmaskHow::SIG_BLOCK, Some(&watched), Some(&mut before)).map_err(failed)?;
        let fd =
            SignalFd::with_flags(&watched, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK).map_err(failed)?;
        Ok((Self(fd), before))
    }

    /// The next signal that has arrived; never waits.
    pub fn next(&self) -> Option<Signal> {
        loop {
            match self.0.read_signal() {
                Ok(Some(info)) => {
                    let number = i32::try_from(info.ssi_signo).unwrap_or(0);
                    if let Ok(signal) = Signal::try_from(number) {
                        return Some(signal);
                    }
                }
                Err(Errno::EINTR) => {}
                Ok(None) | Err(_) => return None,
            }
        }
    }
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Sends this process a signal that stays pending until [`stop_by_pending`].
pub fn send_self(signal: Signal) {
    let _ = nix::sys::signal::kill(nix::unistd::Pid::this(), signal);
}

/// Stops this process by the pending `signal`, and returns when it goes on; at once if a SIGCONT has taken
/// that back. In an orphaned process group nobody could continue it, so the kernel does not stop it then
/// (setpgid(2)).
pub fn stop_by_pending(signal: Signal) {
    let only: SigSet = signal.into();
    // With the mask open for it the default action happens, here.
    let _ = sigprocmask(SigmaskHow::SIG_UNBLOCK, Some(&only), None);
    let _ = sigprocmask(SigmaskHow::SIG_BLOCK, Some(&only), None);
}

/// What a timer is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Alarm {
    /// The test's own time limit.
    TestLimit,
    /// The cleanup's end: EWD or `--cleanup-limit`.
    CleanupLimit,
    /// One second after the test's death by SIGTERM.
    Settle,
    /// The cleanup's first half second.
    Grace,
    /// ^Z, and the group has not stopped by itself.
    Stop,
    /// Look again whether the killed ones are gone.
    Look,
    /// Enough waiting for the killed ones.
    Patience,
    /// Whatever the harness needs done again and again.
    Tend,
}

/// All timers on one descriptor, against `CLOCK_BOOTTIME`: time goes on while the machine sleeps.
pub struct Alarms {
    fd: TimerFd,
    due: BTreeMap<Alarm, u64>,
    /// The timer could not be set, and tells nothing.
    deaf: bool,
}

impl Alarms {
    /// No timer is set.
    ///
    /// # Errors
    /// No descriptor is to be had.
    pub fn new() -> Result<Self> {
        let fd = TimerFd::new(ClockId::CLOCK_BOOTTIME, TimerFlags::TFD_CLOEXEC | TimerFlags::TFD_NONBLOCK)
            .map_err(|e| Error::os("keep time with", "timerfd", e))?;
        Ok(Self { fd, due: BTreeMap::new(), deaf: false })
    }

    /// Sets a timer `after` from now; an earlier setting of the same timer is forgotten.
    pub fn set(&mut self, alarm: Alarm, after: Duration) {
        let after = u64::try_from(after.as_nanos()).unwrap_or(u64::MAX);
        self.due.insert(alarm, crate::hook::boottime_ns().saturating_add(after));
        self.rearm();
    }

    /// As [`Alarms::set`], but never later than it is set already.
    pub fn set_at_most(&mut self, alarm: Alarm, after: Duration) {
        let due = self.due.get(&alarm).copied();
        self.set(alarm, after);
        if let Some(due) = due.filter(|due| *due < self.due[&alarm]) {
            self.due.insert(alarm, due);
            self.rearm();
        }
    }

    /// Forgets a timer.
    pub fn cancel(&mut self, alarm: Alarm) {
        if self.due.remove(&alarm).is_some() {
            self.rearm();
        }
    }

    /// Forgets all timers.
    pub fn clear(&mut self) {
        self.due.clear();
        self.rearm();
    }

    /// When it is due, in [`crate::hook::boottime_ns`].
    #[must_use]
    pub fn due_at(&self, alarm: Alarm) -> Option<u64> {
        self.due.get(&alarm).copied()
    }

    /// The timers that are over, earliest first; they are forgotten.
    pub fn over(&mut self) -> Vec<Alarm> {
        let now = crate::hook::boottime_ns();
        let mut over: Vec<(u64, Alarm)> =
            self.due.iter().filter(|(_, due)| **due <= now).map(|(alarm, due)| (*due, *alarm)).collect();
        over.sort_unstable();
        self.due.retain(|_, due| *due > now);
        self.rearm();
        over.into_iter().map(|(_, alarm)| alarm).collect()
    }

    fn rearm(&mut self) {
        let done = match self.due.values().min() {
            None => self.fd.unset(),
            Some(&at) => {
                // An absolute time of 0 would disarm it (timerfd_create(2)).
                let at = TimeSpec::from_duration(Duration::from_nanos(at.max(1)));
                self.fd.set(Expiration::OneShot(at), TimerSetTimeFlags::TFD_TIMER_ABSTIME)
            }
        };
        self.deaf = done.is_err();
    }

    /// How long to wait for the descriptor at most: for ever, unless the timer could not be set.
    #[must_use]
    pub fn patience(&self) -> PollTimeout {
        let Some(due) = self.due.values().min().filter(|_| self.deaf) else { return PollTimeout::NONE };
        let left = due.saturating_sub(crate::hook::boottime_ns()).div_ceil(1_000_000);
        PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX)
    }
}

impl AsFd for Alarms {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}
