//! The watcher: runs the test, stops it when it must, and runs the cleanup it has hooked.
//!
//! This file owns the loop: edge events in, [`machine::State::step`], actions out. What to do is
//! decided in [`machine`] alone; how it is done, in the rooms beside it.

mod account;
mod end;
mod follow;
mod guard;
mod hunt;
mod jobs;
mod kernel;
pub mod machine;
pub mod options;
mod process;
mod reports;
mod script;
mod signals;
mod start;
mod succession;
mod summary;
mod terminal;
mod ties;
mod voice;

pub use guard::Word;
pub use voice::Volume;

use crate::error::{Error, Result, Status};
use crate::hook::{ClPath, boottime_ns};
use crate::registry;
use account::Account;
use guard::Guard;
use kernel::Inheritance;
use machine::{Action, Event, Ewd, Exit, Notice, Phase, Reach, State};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::Signal;
use nix::unistd::Pid;
use options::{KillScope, Options, SigtermPolicy};
use process::{Change, Group};
use signals::{Alarm, Alarms, Signals};
use std::collections::VecDeque;
use std::ffi::OsString;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;
use terminal::Terminal;
use ties::Ties;
use voice::Voice;

/// How long a SIGTERM of ours may follow the test's.
const SETTLE: Duration = Duration::from_secs(1);
/// How often to look where poll(2) fails.
const WITHOUT_POLL: Duration = Duration::from_millis(10);
/// How often a guard that somebody kills is replaced.
const GUARDS: u8 = 5;

/// Watches a command to its end and answers the exit status of the whole.
///
/// # Errors
/// Nothing was started, or the command was not: statuses 125, 126 and 127 are in the `Ok` arm, with
/// their sentence said; an `Err` is the watcher's own failure before there was anything to watch.
pub fn watch(options: Options) -> Result<u8> {
    let (signals, mask) = Signals::block().map_err(own_failure)?;
    let inheritance = Inheritance::caught(mask);
    let voice = Voice::new(options.volume);
    let ties = Ties::of_watcher(&options, voice)?;
    let clpath = start::make_clpath(voice)?;
    let mut watcher = Watcher::new(options, signals, inheritance, clpath)?;
    watcher.ties = ties;
    // Orphans of the test come to us, so that they can be waited for (prctl(2)).
    let _ = nix::sys::prctl::set_child_subreaper(true);
    watcher.start_guard();
    if let Err(answer) = watcher.start_test() {
        watcher.wind_up();
        return Ok(answer);
    }
    Ok(watcher.run())
}

/// A sentinel's whole life, if that is what this process was started as; false if not.
#[must_use]
pub fn was_a_sentinel(args: &[OsString]) -> bool {
    let is_one = args.first().is_some_and(|name| name == terminal::SENTINEL_NAME);
    if is_one {
        terminal::be_sentinel();
    }
    is_one
}

fn own_failure(error: Error) -> Error {
    error.with_status(Status::Watcher)
}

/// A group in our charge: the test's or the cleanup's.
struct Ward {
    group: Group,
    /// For a group that another watcher started: readable when its leader has ended.
    adopted: Option<OwnedFd>,
    ended: bool,
}

impl Ward {
    fn child(leader: Pid) -> Self {
        Self { group: Group::of_leader(leader), adopted: None, ended: false }
    }

    /// `None` if there is no such process any more.
    fn adopted(leader: Pid) -> Option<Self> {
        let pid = rustix::process::Pid::from_raw(leader.as_raw())?;
        let fd = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()).ok()?;
        Some(Self { group: Group::of_leader(leader), adopted: Some(fd), ended: false })
    }
}

struct Watcher {
    options: Options,
    voice: Voice,
    inheritance: Inheritance,
    signals: Signals,
    alarms: Alarms,
    ties: Ties,
    clpath: ClPath,
    terminal: Option<Terminal>,
    guard: Option<Guard>,
    guards_left: u8,
    state: State,
    test: Option<Ward>,
    cleanup: Option<Ward>,
    hunt: Option<hunt::Hunt>,
    queue: VecDeque<Event>,
    account: Account,
}

impl Watcher {
    fn new(options: Options, signals: Signals, inheritance: Inheritance, clpath: ClPath) -> Result<Self> {
        let reach = match options.kill {
            KillScope::Group => Reach::Group,
            KillScope::Tree => Reach::Tree,
        };
        Ok(Self {
            voice: Voice::new(options.volume),
            alarms: Alarms::new().map_err(own_failure)?,
            ties: Ties::none(),
            terminal: Terminal::open(),
            state: State::watching(reach),
            account: Account::new(boottime_ns()),
            guard: None,
            guards_left: GUARDS,
            test: None,
            cleanup: None,
            hunt: None,
            queue: VecDeque::new(),
            options,
            inheritance,
            signals,
            clpath,
        })
    }

    /// Tells `rl-cleanup status`, and harness hooks, what is going on.
    fn publish(&self) {
        let phase = match self.state.phase {
            Phase::Test => "test",
            Phase::Settling | Phase::Killing => "killing",
            Phase::Cleanup(_) | Phase::CleanupKilling | Phase::Done => "cleanup",
        };
        let entry = self.registry_entry(phase);
        if let Err(error) = entry.publish() {
            self.voice.note(&format!("not listed in 'rl-cleanup status': {error}"));
        }
    }

    fn registry_entry(&self, phase: &str) -> registry::Watcher {
        let pid = Pid::this();
        registry::Watcher {
            pid,
            start: registry::start_time(pid).unwrap_or(0),
            clpath: self.clpath.clone(),
            phase: phase.to_owned(),
            test: self.test.as_ref().map(|t| t.group.leader()),
            test_deadline: self.alarms.due_at(Alarm::TestLimit),
            cleanup_deadline: self.alarms.due_at(Alarm::CleanupLimit),
            harness: self.ties.name(),
            task: self.ties.task(),
        }
    }

    fn run(&mut self) -> u8 {
        while self.state.phase != Phase::Done {
            match self.queue.pop_front() {
                Some(event) => self.feed(event),
                None => self.wait(),
            }
        }
        self.wind_up()
    }

    fn feed(&mut self, event: Event) {
        let before = (self.state.phase, self.state.ewd);
        let (state, actions) = self.state.step(event);
        self.state = state;
        for action in actions {
            self.perform(action);
        }
        // What is over as soon as it began is nobody's news.
        let changed = before != (self.state.phase, self.state.ewd);
        if changed && self.queue.is_empty() && self.state.phase != Phase::Done {
            self.publish();
        }
    }

    /// Waits until something happens, and queues what it means.
    fn wait(&mut self) {
        let readable = {
            let mut fds: Vec<BorrowedFd<'_>> = vec![self.signals.as_fd(), self.alarms.as_fd()];
            fds.extend(self.terminal.as_ref().and_then(Terminal::ears));
            fds.extend(self.ties.fds());
            let wards = [&self.test, &self.cleanup].into_iter().flatten().filter(|w| !w.ended);
            fds.extend(wards.filter_map(|w| w.adopted.as_ref()).map(AsFd::as_fd));
            let mut fds: Vec<PollFd<'_>> =
                fds.into_iter().map(|fd| PollFd::new(fd, PollFlags::POLLIN)).collect();
            poll(&mut fds, self.alarms.patience())
        };
        if readable.is_err_and(|e| e != Errno::EINTR) {
            // No memory (poll(2)). Everything below looks without waiting, so it can be done now and then.
            std::thread::sleep(WITHOUT_POLL);
        }
        self.hear_terminal(PollTimeout::ZERO);
        let signals: Vec<Signal> = std::iter::from_fn(|| self.signals.next()).collect();
        if signals.contains(&Signal::SIGTERM) && self.options.sigterm == SigtermPolicy::Exit {
            // Whatever came with it, and systemd sends SIGHUP too: the machine goes down.
            self.queue.push_front(Event::Terminate);
            return;
        }
        signals.into_iter().for_each(|signal| self.on_signal(signal));
        self.look_at_adopted();
        self.queue.extend(self.ties.look());
        for alarm in self.alarms.over() {
            self.on_alarm(alarm);
        }
    }

    fn on_signal(&mut self, signal: Signal) {
        match signal {
            Signal::SIGINT | Signal::SIGQUIT => self.queue.push_back(Event::Interrupt),
            // nohup: as if it had never come. A harness that says so means it.
            Signal::SIGHUP if self.inheritance.sighup_ignored && !self.ties.is_bound() => {}
            Signal::SIGHUP => self.queue.push_back(self.ties.time_is_up()),
            Signal::SIGTERM => self.queue.push_back(match self.options.sigterm {
                SigtermPolicy::Exit => Event::Terminate,
                SigtermPolicy::Interrupt => Event::Interrupt,
            }),
            Signal::SIGCHLD => self.reap(),
            Signal::SIGTSTP => self.suspend(Signal::SIGTSTP),
            _ => {}
        }
    }

    fn on_alarm(&mut self, alarm: Alarm) {
        match alarm {
            Alarm::TestLimit => self.queue.push_back(Event::TestDeadline),
            Alarm::CleanupLimit => self.queue.push_back(Event::CleanupDeadline),
            Alarm::Settle => self.queue.push_back(self.ties.settled()),
            Alarm::Grace => self.queue.push_back(Event::GraceOver),
            Alarm::Stop => self.suspend(Signal::SIGTSTP),
            Alarm::Look => self.look(),
            Alarm::Patience => self.lose_patience(),
            Alarm::Tend => self.tend(),
        }
    }

    fn reap(&mut self) {
        while let Some((pid, change)) = process::reap() {
            let leads = |ward: &Option<Ward>| ward.as_ref().is_some_and(|w| w.group.leader() == pid);
            if self.guard.as_ref().is_some_and(|g| g.pid() == pid) {
                if matches!(change, Change::Ended(_)) {
                    self.replace_guard();
                }
            } else if self.terminal.as_ref().is_some_and(|t| t.sentinel() == Some(pid)) {
                if matches!(change, Change::Ended(_)) {
                    self.replace_sentinel();
                }
            } else if matches!(change, Change::Ended(_)) && self.ties.reports.ended(pid) {
                // Nobody waits for what the harness made of it.
            } else if leads(&self.test) {
                self.on_test_change(change);
            } else if leads(&self.cleanup) {
                self.on_cleanup_change(change);
            }
            // Anybody else is an orphan of the test that has come to us; now it is gone.
        }
        if self.hunt.as_ref().is_some_and(|h| h.reach == Reach::Group && h.prey.is_empty()) {
            self.hunted_down();
        }
    }

    fn on_test_change(&mut self, change: Change) {
        match change {
            Change::Ended(exit) => {
                // With the terminal lent, a ^C reaches the test before it reaches us. One that we have heard
                // already has us kill the test, which may die of the ^C all the same.
                let by_key = matches!(exit, Exit::Signal(2 | 3));
                let unheard = self.state.phase == Phase::Test;
                if unheard && self.terminal.as_ref().is_some_and(|t| t.lent_to().is_some()) {
                    self.hear_terminal(PollTimeout::from(20u8));
                    if by_key && self.queue.is_empty() {
                        self.queue.push_back(Event::Interrupt);
                    }
                }
                if let Some(test) = &mut self.test {
                    test.ended = true;
                }
                self.account.test_ended(exit, boottime_ns());
                // It may have asked for a reboot and gone, sooner than anybody could stop it.
                self.queue.extend(self.ties.reboot_requested().then_some(Event::Reboot));
                self.queue.push_back(Event::TestEnded(exit));
            }
            Change::Stopped(signal) => self.on_stop(signal),
            Change::Continued => {}
        }
    }

    fn on_cleanup_change(&mut self, change: Change) {
        match change {
            Change::Ended(exit) => {
                if let Some(cleanup) = &mut self.cleanup {
                    cleanup.ended = true;
                }
                self.queue.push_back(Event::CleanupEnded(exit));
            }
            Change::Stopped(signal) => self.on_stop(signal),
            Change::Continued => {}
        }
    }

    /// What another watcher started is no child of ours: its pidfd tells when it has ended.
    fn look_at_adopted(&mut self) {
        let ended = |ward: &mut Option<Ward>| -> bool {
            let Some(ward) = ward else { return false };
            let Some(fd) = ward.adopted.as_ref().filter(|_| !ward.ended) else { return false };
            let mut fds = [PollFd::new(fd.as_fd(), PollFlags::POLLIN)];
            ward.ended = matches!(poll(&mut fds, PollTimeout::ZERO), Ok(1));
            ward.ended
        };
        if ended(&mut self.test) {
            self.queue.push_back(Event::TestEnded(Exit::Unknown));
        }
        if ended(&mut self.cleanup) {
            self.queue.push_back(Event::CleanupEnded(Exit::Unknown));
        }
    }

    fn perform(&mut self, action: Action) {
        match action {
            Action::KillTest => self.kill_test(),
            Action::KillCleanup => self.kill_cleanup(),
            Action::ArmEwd => self.arm_ewd(),
            Action::ArmSettle => self.alarms.set(Alarm::Settle, SETTLE),
            Action::StartCleanup => self.start_cleanup(),
            Action::Say(notice) => self.say(notice),
            Action::Finish => {}
        }
    }

    fn say(&mut self, notice: Notice) {
        if notice == Notice::Leaving {
            // First of all: should a SIGKILL follow, the guard must not take it for an accident.
            self.tell_guard(Word::Leave);
        }
        let line = match notice {
            Notice::TestInterrupted => "interrupted: the test is killed, its cleanup comes next".to_owned(),
            Notice::LocalWatchdog if self.state.phase == Phase::Killing => {
                "time is up (local watchdog): the test is killed, its cleanup comes next".to_owned()
            }
            Notice::LocalWatchdog => {
                let left =
                    self.options.cleanup_limit.map_or(self.options.ewd, |own| own.min(self.options.ewd));
                format!("time is up (local watchdog): the cleanup has at most {left} left")
            }
            Notice::TimeLimit => "time limit over: the test is killed, its cleanup comes next".to_owned(),
            Notice::ExternalWatchdog => "the cleanup's time is over: it is killed".to_owned(),
            Notice::CleanupInterrupted => "interrupted again: the cleanup is killed".to_owned(),
            Notice::InterruptNoted => {
                "interrupt noted: it is taken as meant for the test, which is over".to_owned()
            }
            Notice::Leaving => "SIGTERM: leaving test and cleanup as they are, for the next boot".to_owned(),
            Notice::RebootAsked => "a reboot was asked for: the cleanup waits for the next boot".to_owned(),
        };
        self.voice.note(&line);
        self.ties.report(notice, &self.inheritance);
        self.tend();
    }

    /// Copies output, looks at what has no descriptor, ends reports that hang; comes back in time.
    fn tend(&mut self) {
        if let Some(again) = self.ties.tend() {
            self.alarms.set_at_most(Alarm::Tend, again);
        }
        if let Some((from, done)) = self.ties.news_of_place() {
            self.tell_guard(Word::Copied(from, done));
        }
        self.queue.extend(self.ties.look());
    }
}

/// Whether an EWD has struck; for the summary.
pub(crate) fn time_was_up(state: &State) -> bool {
    state.ewd == Ewd::Struck
}
