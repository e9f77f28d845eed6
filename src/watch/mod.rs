//! The watcher: runs the test, stops it when it must, and runs the cleanup it has hooked.
//!
//! This file owns the loop: edge events in, [`machine::State::step`], actions out. What to do is
//! decided in [`machine`] alone; how it is done, in the rooms beside it.

mod account;
mod follow;
mod guard;
mod kernel;
pub mod machine;
pub mod options;
mod process;
mod reports;
mod script;
mod signals;
mod summary;
mod terminal;
mod ties;
mod voice;

pub use guard::Word;
pub use voice::Volume;

use crate::error::{Error, Result, Status, errno_text};
use crate::hook::{CLPATH_DIR, CLPATH_PREFIX, CLPATH_VAR, ClPath, Hooked, OUTCOME_VAR, boottime_ns};
use crate::registry;
use crate::trust::{IfMissing, Trust, walk};
use account::Account;
use guard::Guard;
use kernel::Inheritance;
use machine::{Action, Event, Ewd, Exit, Fate, Found, Notice, Outcome, Phase, Reach, State};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::Signal;
use nix::unistd::Pid;
use options::{KillScope, Options, SigtermPolicy};
use process::{Change, Group, Launch, Members, Place, Process};
use signals::{Alarm, Alarms, Signals};
use std::collections::VecDeque;
use std::ffi::OsString;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::path::PathBuf;
use std::time::Duration;
use terminal::{Heard, Terminal};
use ties::Ties;
use voice::Voice;

/// How long the killed ones may take to be gone before the cleanup starts all the same.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long a SIGINT is still taken as meant for the test.
const GRACE: Duration = Duration::from_millis(500);
/// How long a SIGTERM of ours may follow the test's.
const SETTLE: Duration = Duration::from_secs(1);
/// How long a group that holds the terminal may take to stop by itself at ^Z.
const STOP_BY_ITSELF: Duration = Duration::from_millis(200);
/// How long a stop waits for the last member of the group to have stopped.
const STOPPED: Duration = Duration::from_secs(1);
/// How long the end waits for the reader of the cleanup's output.
const REST: Duration = Duration::from_secs(2);
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
    let clpath = make_clpath(voice)?;
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

/// Makes the CLPATH file and its private directory where they survive a reboot; elsewhere, and with
/// a warning, where they cannot be made there.
fn make_clpath(voice: Voice) -> Result<ClPath> {
    let mut first_failure = None;
    for dir in [PathBuf::from(CLPATH_DIR), std::env::temp_dir(), "/tmp".into(), "/dev/shm".into()] {
        match make_clpath_in(&dir) {
            Ok(clpath) => {
                if let Some(failure) = first_failure {
                    voice.warn(&format!("{failure}; using '{}' instead", dir.display()));
                }
                return Ok(clpath);
            }
            Err(failure) => {
                first_failure.get_or_insert(failure);
            }
        }
    }
    Err(own_failure(first_failure.unwrap_or_else(Error::no_state_directory)))
}

fn make_clpath_in(dir: &std::path::Path) -> Result<ClPath> {
    let failed = |e: std::io::Error| Error::io("make a file in", dir, &e);
    if dir != std::path::Path::new(CLPATH_DIR) {
        // TMPDIR may lead anywhere. Under the usual one, the file is looked at when it is read.
        walk(&dir.join(CLPATH_PREFIX), Trust::default(), IfMissing::Fail)?;
    }
    let file =
        tempfile::Builder::new().prefix(CLPATH_PREFIX).rand_bytes(6).tempfile_in(dir).map_err(failed)?;
    let (_, path) = file.keep().map_err(|e| failed(e.error))?;
    Ok(ClPath::new(path))
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

/// Waiting for the killed ones to be gone.
struct Hunt {
    prey: Group,
    reach: Reach,
    interval: Duration,
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
    hunt: Option<Hunt>,
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

    /// From now on a SIGKILL of this process is noticed.
    fn start_guard(&mut self) {
        match guard::start(&self.clpath) {
            Ok(guard::Side::Watcher(guard)) => self.guard = Some(guard),
            Ok(guard::Side::Guard(ears)) => self.become_guard(&ears),
            Err(errno) => {
                self.guard = None;
                let why = errno_text(errno);
                self.voice.warn(&format!("no guard ({why}): if this watcher is killed, no cleanup will run"));
            }
        }
    }

    /// The copy's way: waits for the watcher's end, takes over if it has to, and never returns.
    fn become_guard(&mut self, ears: &guard::Ears) -> ! {
        let story = self.story();
        // What belongs to the watcher alone: its guard's line, its terminal, its children.
        self.guard = None;
        self.terminal = None;
        self.queue.clear();
        let ties = self.ties.of_guard();
        let status = match guard::listen(ears, &self.clpath, story) {
            None => 0,
            Some(found) => {
                self.inherit(ties);
                self.take_over(found)
            }
        };
        std::process::exit(i32::from(status))
    }

    /// Makes this a watcher for what the one before has left. Nothing here can fail for want of a descriptor
    /// or of memory: the signalfd tells each process of its own signals (signalfd(2)), and the timer, which
    /// the two have in common, was the other's alone until its death.
    fn inherit(&mut self, ties: Ties) {
        let _ = nix::sys::prctl::set_child_subreaper(true);
        self.alarms.clear();
        self.ties = ties;
        self.state = State::watching(self.state.reach);
        self.account = Account::new(boottime_ns());
        (self.test, self.cleanup, self.hunt) = (None, None, None);
        self.guards_left = GUARDS;
        self.start_guard();
    }

    fn tell_guard(&self, word: Word) {
        if let Some(guard) = &self.guard {
            guard.tell(word);
        }
    }

    /// Somebody killed the guard: another one, told everything that matters.
    fn replace_guard(&mut self) {
        self.guard = None;
        // After a request for a reboot it was told to leave.
        let done = self.state.phase == Phase::Done || self.state.fate == Fate::Postponed;
        if self.guards_left == 0 || done {
            return;
        }
        self.guards_left -= 1;
        self.start_guard();
        self.brief_guard();
    }

    /// Tells a new guard where we are.
    fn brief_guard(&self) {
        self.story().into_iter().for_each(|word| self.tell_guard(word));
    }

    /// Where we are, in a guard's words.
    fn story(&self) -> Vec<Word> {
        let mut story: Vec<Word> = self.test.iter().map(|t| Word::Test(t.group.leader())).collect();
        let outcome = self.state.outcome.unwrap_or(Outcome::WatcherLost);
        match self.state.phase {
            Phase::Test | Phase::Done => {}
            Phase::Killing => story.push(Word::Killing(outcome)),
            Phase::Settling => story.push(Word::Tested(outcome)),
            Phase::Cleanup(_) | Phase::CleanupKilling => {
                story.push(Word::Tested(outcome));
                story.extend(self.cleanup.iter().map(|c| Word::Cleanup(c.group.leader())));
                story.extend(self.ties.place().map(|(from, done)| Word::Copied(from, done)));
                if self.state.phase == Phase::CleanupKilling {
                    story.push(Word::CleanupKilling);
                }
            }
        }
        story
    }

    /// Starts the command. `Err`: it could not be; the exit status, with its sentence said.
    fn start_test(&mut self) -> std::result::Result<(), u8> {
        if self.ties.is_bound() {
            // A harness's hook must find us from the test's first moment on.
            self.publish();
        }
        let env = self.environment(None);
        let launch = Launch {
            argv: &self.options.command,
            env: &env,
            inheritance: &self.inheritance,
            place: Place::NewGroup,
            descriptors: &[],
            marker: None,
        };
        match launch.start() {
            Ok(pid) => {
                self.tell_guard(Word::Test(pid));
                self.test = Some(Ward::child(pid));
                let own = self.options.time_limit.map(|limit| Duration::from_secs(limit.as_secs()));
                if let Some(limit) = self.ties.test_limit(own, self.voice) {
                    self.alarms.set(Alarm::TestLimit, limit);
                }
                self.tend();
                // While the command is busy with its own start.
                self.make_private_dir();
                self.publish();
                Ok(())
            }
            Err(failure) => {
                let name = self.options.command[0].to_string_lossy().into_owned();
                let (status, why) = cannot_start(failure.0, &self.options.command[0]);
                self.voice.warn(&format!("cannot run '{name}': {why}"));
                Err(status)
            }
        }
    }

    /// The directory for the report, and for entries of a test that has no state directory. A test
    /// that was quicker has made it itself; what anybody else put there is not used.
    fn make_private_dir(&self) {
        let made = self.clpath.make_private_dir();
        if let Err(e) = made
            && !self.clpath.has_private_dir()
        {
            let why = Error::io("make", self.clpath.private_dir(), &e);
            self.voice.warn(&format!("the summary will lack entries: {why}"));
        }
    }

    /// The environment we were given, with the CLPATH file and, for the cleanup, the outcome.
    fn environment(&self, outcome: Option<Outcome>) -> Vec<(OsString, OsString)> {
        let mut env: Vec<_> =
            std::env::vars_os().filter(|(k, _)| k != CLPATH_VAR && k != OUTCOME_VAR).collect();
        env.push((CLPATH_VAR.into(), self.clpath.path().into()));
        if let Some(outcome) = outcome {
            env.push((OUTCOME_VAR.into(), outcome.text().into()));
        }
        env
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

    /// The guard's way in: adopts what is there and goes on.
    fn take_over(&mut self, found: guard::Inheriting) -> u8 {
        self.test = found.test.and_then(Ward::adopted);
        self.cleanup = found.cleanup.and_then(Ward::adopted);
        if let (None, Some(leader)) = (&self.test, found.test) {
            // The leader is gone; members of its group may be left.
            self.test = Some(Ward { ended: true, ..Ward::child(leader) });
        }
        // Killed before it started anything: nothing to say, only to sweep.
        let nothing_started = found.test.is_none()
            && matches!(found.found, Found::Tested(Outcome::WatcherLost))
            && self.clpath.read().is_ok_and(|hooked| hooked == Hooked::Nothing);
        let cleanup_over = self.cleanup.is_none() && matches!(found.found, Found::Cleanup(_));
        self.ties.take_over();
        let (state, actions) = match found.found {
            Found::Cleanup(_) | Found::CleanupKilling(_) => State::taking_over(found.found, self.state.reach),
            _ if self.ties.reboots() => State::watching(self.state.reach).step(Event::Reboot),
            _ => State::taking_over(found.found, self.state.reach),
        };
        self.state = state;
        if nothing_started {
            return self.wind_up();
        }
        self.account.watcher_lost();
        self.voice.warn("the watcher was killed; its guard goes on");
        self.brief_guard();
        self.publish();
        if matches!(found.found, Found::Cleanup(_) | Found::CleanupKilling(_)) {
            self.ties.follow(script::find_logs(&self.clpath), found.copied.unwrap_or_default());
        }
        self.tend();
        for action in actions {
            self.perform(action);
        }
        if cleanup_over {
            self.queue.push_back(Event::CleanupEnded(Exit::Unknown));
        }
        self.run()
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
                // With the terminal lent, a ^C reaches the test before it reaches us.
                let by_key = matches!(exit, Exit::Signal(2 | 3));
                if self.terminal.as_ref().is_some_and(|t| t.lent_to().is_some()) {
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

    /// 25 of the 30 minutes between LWD and EWD, or less if the cleanup has a limit of its own.
    fn arm_ewd(&mut self) {
        self.alarms.set_at_most(Alarm::CleanupLimit, Duration::from_secs(self.options.ewd.as_secs()));
        if let Some(limit) = self.options.cleanup_limit {
            self.alarms.set_at_most(Alarm::CleanupLimit, Duration::from_secs(limit.as_secs()));
        }
    }

    fn kill_test(&mut self) {
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

    fn kill_cleanup(&mut self) {
        let Some(group) = self.cleanup.as_ref().map(|c| c.group) else {
            self.queue.push_back(Event::Gone);
            return;
        };
        group.signal(Signal::SIGKILL);
        self.tell_guard(Word::CleanupKilling);
        self.hunt(group, Reach::Group);
    }

    fn hunt(&mut self, prey: Group, reach: Reach) {
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
    fn ours(&self) -> Vec<Pid> {
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
    fn look(&mut self) {
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

    fn hunted_down(&mut self) {
        self.hunt = None;
        self.alarms.cancel(Alarm::Look);
        self.alarms.cancel(Alarm::Patience);
        self.queue.push_back(Event::Gone);
    }

    fn lose_patience(&mut self) {
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

    fn start_cleanup(&mut self) {
        self.alarms.cancel(Alarm::TestLimit);
        self.alarms.cancel(Alarm::Settle);
        let outcome = self.state.outcome.unwrap_or(Outcome::WatcherLost);
        self.tell_guard(Word::Tested(outcome));
        // While the sentinel is still known as ours.
        self.account.left_behind = self.left_behind();
        if let Some(terminal) = &mut self.terminal {
            terminal.forget_group();
        }
        let diversions = self.ties.diversions();
        let launch = |to_logs| self.cleanup_launch(outcome, to_logs);
        let (event, started) = match script::start(&self.clpath, &diversions, launch) {
            script::Start::Nothing => (Some(Event::NothingHooked), None),
            script::Start::Cannot(why) => {
                self.voice.warn(&why);
                (Some(Event::CannotClean), None)
            }
            script::Start::Running { pid, remark, logs } => {
                self.account.started_by_bash = remark.is_some();
                if let Some(remark) = remark {
                    self.voice.warn(&remark);
                }
                self.ties.follow(logs, (0, 0));
                self.account.cleanup_started(boottime_ns());
                (None, Some(pid))
            }
        };
        self.queue.extend(event);
        if let Some(pid) = started {
            self.tell_guard(Word::Cleanup(pid));
            self.tend();
            self.cleanup = Some(Ward::child(pid));
            self.alarms.set(Alarm::Grace, GRACE);
            if let Some(limit) = self.options.cleanup_limit {
                self.alarms.set_at_most(Alarm::CleanupLimit, Duration::from_secs(limit.as_secs()));
            }
        }
    }

    fn cleanup_launch(&self, outcome: Outcome, descriptors: Vec<(RawFd, RawFd)>) -> script::Run {
        // A watcher that was killed early has left none to its guard.
        let _ = self.clpath.make_private_dir();
        // The guard's proof, should we be killed between this start and the word to it.
        let marker = self
            .clpath
            .has_private_dir()
            .then(|| (self.clpath.cleanup_marker(), self.alarms.as_fd().as_raw_fd()));
        script::Run {
            env: self.environment(Some(outcome)),
            inheritance: self.inheritance,
            descriptors,
            marker,
        }
    }

    /// Who is left of a test that ended by itself; nobody is asked where nobody can be.
    fn left_behind(&self) -> Vec<Process> {
        let Some(test) = &self.test else { return Vec::new() };
        let (ended, ours) = (matches!(self.state.outcome, Some(Outcome::Ended(_))), self.ours());
        let alone = test.group.is_empty() && !process::has_other_children(&ours);
        if !ended || self.state.reach == Reach::Tree || alone {
            return Vec::new();
        }
        let mut left = process::descendants(&ours);
        if let Members::Living(members) = test.group.members() {
            let known: Vec<Pid> = left.iter().map(|p| p.pid).chain(ours).collect();
            left.extend(members.into_iter().filter(|m| !known.contains(&m.pid)));
        }
        left
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

    /// The group that runs now.
    fn current(&self) -> Option<Group> {
        let ward = match self.state.phase {
            Phase::Test => &self.test,
            Phase::Cleanup(_) => &self.cleanup,
            _ => &None,
        };
        ward.as_ref().filter(|w| !w.ended).map(|w| w.group)
    }

    fn hear_terminal(&mut self, patience: PollTimeout) {
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

    fn replace_sentinel(&mut self) {
        let current = self.current();
        let Some(terminal) = &mut self.terminal else { return };
        terminal.sentinel_died();
        if let Some(group) = terminal.lent_to().filter(|g| Some(*g) == current) {
            terminal.lend(group, &self.inheritance);
        }
    }

    /// The leader was stopped.
    fn on_stop(&mut self, signal: Signal) {
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
    fn suspend(&mut self, signal: Signal) {
        self.alarms.cancel(Alarm::Stop);
        let group = self.current();
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
        if lent.is_some() || signal != Signal::SIGTSTP {
            // The key reached the test's group only, or none at all: make, and whoever else stands
            // in our group, has to stop too for the shell to see a stopped job.
            Group::of_leader(nix::unistd::getpgrp()).signal(signal);
        }
        signals::stop_self(signal);
        // Going on.
        let Some(group) = group else { return };
        if let Some(terminal) = &mut self.terminal
            && (lent.is_some() || signal != Signal::SIGTSTP)
            && terminal.lend(group, &self.inheritance)
            && let Some(settings) = lent
        {
            terminal.apply(&settings);
        }
        group.signal(Signal::SIGCONT);
    }

    /// The last things: terminal, files, guard, summary, exit status.
    fn wind_up(&mut self) -> u8 {
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

/// Names at most five processes.
fn list(processes: &[Process]) -> String {
    let mut names: Vec<String> = processes.iter().take(5).map(Process::to_string).collect();
    if processes.len() > 5 {
        names.push(format!("and {} more", processes.len() - 5));
    }
    names.join(", ")
}

/// Why a command did not start, as execvp(3) and timeout(1) tell it apart.
fn cannot_start(errno: Errno, command: &std::ffi::OsStr) -> (u8, String) {
    match errno {
        Errno::ENOENT if process::find_program(command).is_some_and(|p| p.exists()) => {
            (127, "the interpreter that its first line names does not exist".into())
        }
        // Who asks the drop-in for help, or puts an option behind the command's two dashes.
        Errno::ENOENT if command.as_encoded_bytes().starts_with(b"-") => {
            (127, "command not found: options are for 'rl-cleanup watch', in front of the command".into())
        }
        Errno::ENOENT => (127, "command not found".into()),
        // No process or memory to be had: that is not the command's fault.
        Errno::EAGAIN | Errno::ENOMEM => (125, errno_text(errno)),
        _ => (126, errno_text(errno)),
    }
}

/// Whether an EWD has struck; for the summary.
pub(crate) fn time_was_up(state: &State) -> bool {
    state.ewd == Ewd::Struck
}
