//! What a watcher does next: (state, event) -> (state, actions).
//!
//! Pure: no clock, no I/O, no process ids. Time enters as an event. The loop in `super` turns what
//! the kernel says into an [`Event`], calls [`State::step`] and performs the [`Action`]s in order.

/// How the test came to its end. Decided once, never changed.
///
/// # Examples
/// ```
/// use rl_cleanup::watch::machine::{Exit, Outcome};
/// assert_eq!(Outcome::Ended(Exit::Signal(9)).text(), "ended 137");
/// assert_eq!(Outcome::parse("watchdog"), Some(Outcome::Watchdog));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// It ended by itself.
    Ended(Exit),
    /// A person stopped it.
    Interrupted,
    /// The harness's local watchdog (LWD) stopped it.
    Watchdog,
    /// A time limit of our own stopped it.
    Deadline,
    /// Its watcher was killed; the guard stopped it.
    WatcherLost,
}

/// How a process ended (wait(2)).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Exit {
    /// By `exit(3)` with this status.
    Code(u8),
    /// By this signal.
    Signal(u8),
    /// Nobody could tell: it was not our child.
    Unknown,
}

impl Outcome {
    /// As [`crate::hook::OUTCOME_VAR`] tells it to the cleanup.
    #[must_use]
    pub fn text(self) -> String {
        match self {
            Self::Ended(exit) => format!("ended {}", exit.shell_status()),
            Self::Interrupted => "interrupted".into(),
            Self::Watchdog => "watchdog".into(),
            Self::Deadline => "deadline".into(),
            Self::WatcherLost => "watcher-lost".into(),
        }
    }

    /// The other way round.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "interrupted" => Some(Self::Interrupted),
            "watchdog" => Some(Self::Watchdog),
            "deadline" => Some(Self::Deadline),
            "watcher-lost" => Some(Self::WatcherLost),
            _ => Some(Self::Ended(Exit::Code(text.strip_prefix("ended ")?.parse().ok()?))),
        }
    }
}

impl Exit {
    /// As a shell shows it: the status, or 128 + the signal (bash(1), EXIT STATUS).
    #[must_use]
    pub fn shell_status(self) -> u8 {
        match self {
            Self::Code(code) => code,
            Self::Signal(signal) => signal.saturating_add(128),
            Self::Unknown => 125,
        }
    }

    /// Whether SIGTERM ended it, directly or as a shell reports it of a child.
    #[must_use]
    pub fn is_sigterm(self) -> bool {
        self.shell_status() == 128 + 15
    }
}

/// What is going on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Phase {
    /// The test runs.
    Test,
    /// The test was ended by a SIGTERM of somebody else's. If ours follows within a second, the
    /// machine goes down, and there is nothing to clean up now (contract, Watcher, 10).
    Settling,
    /// SIGKILL was sent to the test; members of its group may still hold mounts and locks.
    Killing,
    /// The cleanup runs.
    Cleanup(Grace),
    /// SIGKILL was sent to the cleanup.
    CleanupKilling,
    /// Nothing is left to do.
    Done,
}

/// Whether a ^C is still taken as meant for the test that has just ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Grace {
    /// The cleanup's first half second.
    Open,
    /// Later.
    Over,
}

/// The external watchdog's timer (EWD): 25 of the 30 minutes that a harness leaves after its LWD.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Ewd {
    /// No LWD so far.
    Idle,
    /// The LWD struck; the timer runs.
    Armed,
    /// The timer ran out.
    Struck,
}

/// What became of the cleanup.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Fate {
    /// It has not ended yet.
    Pending,
    /// Nothing was hooked.
    Absent,
    /// What was hooked could not be run.
    Unusable,
    /// It ran to its end.
    Finished(Exit),
    /// It was killed, or never started because time was up.
    Cut,
    /// A reboot was asked for: it waits for the next boot.
    Postponed,
    /// SIGTERM: whatever runs goes on, and whatever does not waits for the next boot.
    LeftAlone,
}

/// What the loop saw.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Event {
    /// SIGINT or SIGQUIT (or SIGTERM under `--sigterm interrupt`): a person.
    Interrupt,
    /// SIGHUP, or a harness's lifeline that broke: the LWD.
    Watchdog,
    /// SIGTERM: the machine goes down.
    Terminate,
    /// The harness has asked for a reboot: as SIGTERM, but the test must not live on.
    Reboot,
    /// `--time-limit`, or the harness's own limit less a margin, is over.
    TestDeadline,
    /// The EWD timer, or `--cleanup-limit`, is over.
    CleanupDeadline,
    /// The test's leader ended.
    TestEnded(Exit),
    /// No member of what was killed is left, or the wait for them was long enough.
    Gone,
    /// The second after a test's death by SIGTERM is over.
    SettleOver,
    /// The cleanup's first half second is over.
    GraceOver,
    /// The cleanup was to be started, and nothing is hooked.
    NothingHooked,
    /// The cleanup was to be started, and could not be.
    CannotClean,
    /// The cleanup's leader ended.
    CleanupEnded(Exit),
}

/// What the loop has to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Action {
    /// SIGKILL the test's group (or tree) and answer [`Event::Gone`] when no member is left.
    KillTest,
    /// SIGKILL the cleanup's group and answer [`Event::Gone`] when no member is left.
    KillCleanup,
    /// Start the EWD timer.
    ArmEwd,
    /// Start the one-second timer of [`Phase::Settling`].
    ArmSettle,
    /// Start the cleanup; also its half-second timer and, with `--cleanup-limit`, its deadline.
    StartCleanup,
    /// Tell the person and the harness.
    Say(Notice),
    /// End, with what [`State`] says.
    Finish,
}

/// What there is to tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Notice {
    /// A person interrupted the test.
    TestInterrupted,
    /// The LWD struck.
    LocalWatchdog,
    /// The time limit is over.
    TimeLimit,
    /// The cleanup's time is over.
    ExternalWatchdog,
    /// A person interrupted the cleanup.
    CleanupInterrupted,
    /// An interrupt came too early to be meant for the cleanup, or too late to matter.
    InterruptNoted,
    /// The machine goes down.
    Leaving,
    /// A reboot was asked for: the test is killed, the cleanup waits.
    RebootAsked,
}

/// Everything the machine remembers.
///
/// # Examples
/// ```
/// use rl_cleanup::watch::machine::{Action, Event, Exit, Fate, Notice, Phase, Reach, State};
///
/// let (state, actions) = State::watching(Reach::Group).step(Event::Interrupt);
/// assert_eq!(state.phase, Phase::Killing);
/// assert!(actions.contains(&Action::KillTest) && actions.contains(&Action::Say(Notice::TestInterrupted)));
///
/// let (state, actions) = state.step(Event::Gone);
/// assert_eq!(actions, [Action::StartCleanup]);
/// let (state, actions) = state.step(Event::CleanupEnded(Exit::Code(0)));
/// assert_eq!((state.fate, state.phase), (Fate::Finished(Exit::Code(0)), Phase::Done));
/// assert_eq!(actions, [Action::Finish]);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct State {
    /// What is going on.
    pub phase: Phase,
    /// How the test ended; `None` while it runs.
    pub outcome: Option<Outcome>,
    /// The external watchdog's timer.
    pub ewd: Ewd,
    /// What became of the cleanup.
    pub fate: Fate,
    /// What is killed: only the group, or also what left it.
    pub reach: Reach,
}

/// Mirrors `--kill`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reach {
    /// The test's process group; what a test leaves behind when it ends by itself stays.
    Group,
    /// All descendants, also when the test ends by itself.
    Tree,
}

/// What a guard finds when its watcher is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Found {
    /// The test ran.
    Test,
    /// The test was being killed for this reason.
    Killing(Outcome),
    /// The test was over, and the cleanup had not been started.
    Tested(Outcome),
    /// The cleanup ran.
    Cleanup(Outcome),
    /// The cleanup was being killed.
    CleanupKilling(Outcome),
}

/// A new state and what to do, in order.
pub type Step = (State, Vec<Action>);

impl State {
    /// The test has just been started.
    #[must_use]
    pub fn watching(reach: Reach) -> Self {
        Self { phase: Phase::Test, outcome: None, ewd: Ewd::Idle, fate: Fate::Pending, reach }
    }

    /// A guard takes over: its watcher was killed. The cleanup gets the EWD's time, as at an LWD.
    #[must_use]
    pub fn taking_over(found: Found, reach: Reach) -> Step {
        let state = Self::watching(reach);
        let step = match found {
            Found::Test => {
                let outcome = Some(Outcome::WatcherLost);
                (Self { phase: Phase::Killing, outcome, ..state }, vec![Action::KillTest])
            }
            Found::Killing(outcome) => {
                (Self { phase: Phase::Killing, outcome: Some(outcome), ..state }, vec![Action::KillTest])
            }
            Found::Tested(outcome) => Self { outcome: Some(outcome), ..state }.start_cleanup(),
            Found::Cleanup(outcome) => {
                let phase = Phase::Cleanup(Grace::Over);
                (Self { phase, outcome: Some(outcome), ..state }, vec![])
            }
            Found::CleanupKilling(outcome) => {
                let phase = Phase::CleanupKilling;
                (Self { phase, outcome: Some(outcome), ..state }, vec![Action::KillCleanup])
            }
        };
        step.then(Self::arm_ewd)
    }

    /// What follows from `event`. An event that means nothing in this phase changes nothing.
    #[must_use]
    pub fn step(self, event: Event) -> Step {
        match self.phase {
            Phase::Test => self.in_test(event),
            Phase::Settling => self.in_settling(event),
            Phase::Killing => self.in_killing(event),
            Phase::Cleanup(grace) => self.in_cleanup(grace, event),
            Phase::CleanupKilling => self.in_cleanup_killing(event),
            Phase::Done => (self, vec![]),
        }
    }

    fn in_test(self, event: Event) -> Step {
        match event {
            Event::Interrupt => self.kill_test(Outcome::Interrupted, Notice::TestInterrupted),
            Event::Watchdog => self.kill_test(Outcome::Watchdog, Notice::LocalWatchdog).then(Self::arm_ewd),
            // An own LWD: the same, under another name.
            Event::TestDeadline => self.kill_test(Outcome::Deadline, Notice::TimeLimit).then(Self::arm_ewd),
            Event::Terminate => self.leave(),
            Event::Reboot => {
                let state = Self { phase: Phase::Killing, fate: Fate::Postponed, ..self };
                (state, vec![Action::Say(Notice::RebootAsked), Action::KillTest])
            }
            Event::TestEnded(exit) => {
                let state = Self { outcome: Some(Outcome::Ended(exit)), ..self };
                if exit.is_sigterm() {
                    (Self { phase: Phase::Settling, ..state }, vec![Action::ArmSettle])
                } else {
                    state.after_test()
                }
            }
            _ => (self, vec![]),
        }
    }

    fn in_settling(self, event: Event) -> Step {
        match event {
            Event::Terminate => self.leave(),
            Event::Reboot => {
                let state = Self { phase: Phase::Done, fate: Fate::Postponed, ..self };
                (state, vec![Action::Say(Notice::RebootAsked), Action::Finish])
            }
            Event::SettleOver => self.after_test(),
            Event::Interrupt => (self, vec![Action::Say(Notice::InterruptNoted)]).then(Self::after_test),
            Event::Watchdog => {
                (self, vec![Action::Say(Notice::LocalWatchdog)]).then(Self::arm_ewd).then(Self::after_test)
            }
            _ => (self, vec![]),
        }
    }

    fn in_killing(self, event: Event) -> Step {
        match event {
            Event::Terminate => self.leave(),
            Event::Reboot => (Self { fate: Fate::Postponed, ..self }, vec![Action::Say(Notice::RebootAsked)]),
            Event::Interrupt => (self, vec![Action::Say(Notice::InterruptNoted)]),
            Event::Watchdog => self.late_watchdog(),
            Event::CleanupDeadline => {
                (Self { ewd: Ewd::Struck, ..self }, vec![Action::Say(Notice::ExternalWatchdog)])
            }
            Event::Gone if self.fate == Fate::Postponed => self.finish(Fate::Postponed),
            Event::Gone if self.ewd == Ewd::Struck => self.finish(Fate::Cut),
            Event::Gone => self.start_cleanup(),
            _ => (self, vec![]),
        }
    }

    fn in_cleanup(self, grace: Grace, event: Event) -> Step {
        match event {
            Event::Terminate => self.leave(),
            Event::Interrupt if grace == Grace::Open => (self, vec![Action::Say(Notice::InterruptNoted)]),
            Event::Interrupt => self.kill_cleanup(Notice::CleanupInterrupted),
            Event::CleanupDeadline => {
                Self { ewd: Ewd::Struck, ..self }.kill_cleanup(Notice::ExternalWatchdog)
            }
            Event::Watchdog => self.late_watchdog(),
            Event::GraceOver => (Self { phase: Phase::Cleanup(Grace::Over), ..self }, vec![]),
            Event::NothingHooked => self.finish(Fate::Absent),
            Event::CannotClean => self.finish(Fate::Unusable),
            Event::CleanupEnded(exit) => self.finish(Fate::Finished(exit)),
            _ => (self, vec![]),
        }
    }

    fn in_cleanup_killing(self, event: Event) -> Step {
        match event {
            Event::Terminate => self.leave(),
            Event::Gone => self.finish(Fate::Cut),
            _ => (self, vec![]),
        }
    }

    fn kill_test(self, outcome: Outcome, notice: Notice) -> Step {
        let state = Self { phase: Phase::Killing, outcome: Some(outcome), ..self };
        // The kill comes first: telling somebody can take time.
        (state, vec![Action::KillTest, Action::Say(notice)])
    }

    /// The test is over by itself; what it left behind is killed only on demand.
    fn after_test(self) -> Step {
        match self.reach {
            Reach::Group => self.start_cleanup(),
            Reach::Tree => (Self { phase: Phase::Killing, ..self }, vec![Action::KillTest]),
        }
    }

    fn start_cleanup(self) -> Step {
        (Self { phase: Phase::Cleanup(Grace::Open), ..self }, vec![Action::StartCleanup])
    }

    fn kill_cleanup(self, notice: Notice) -> Step {
        (Self { phase: Phase::CleanupKilling, ..self }, vec![Action::KillCleanup, Action::Say(notice)])
    }

    /// The first LWD after the test only starts the clock; later ones change nothing.
    fn late_watchdog(self) -> Step {
        match self.ewd {
            Ewd::Idle => (self, vec![Action::Say(Notice::LocalWatchdog)]).then(Self::arm_ewd),
            Ewd::Armed | Ewd::Struck => (self, vec![]),
        }
    }

    fn arm_ewd(self) -> Step {
        match self.ewd {
            Ewd::Idle => (Self { ewd: Ewd::Armed, ..self }, vec![Action::ArmEwd]),
            Ewd::Armed | Ewd::Struck => (self, vec![]),
        }
    }

    fn leave(self) -> Step {
        let state = Self { phase: Phase::Done, fate: Fate::LeftAlone, ..self };
        (state, vec![Action::Say(Notice::Leaving), Action::Finish])
    }

    fn finish(self, fate: Fate) -> Step {
        (Self { phase: Phase::Done, fate, ..self }, vec![Action::Finish])
    }
}

/// One step after the other.
trait Then {
    fn then(self, next: impl FnOnce(State) -> Step) -> Step;
}

impl Then for Step {
    fn then(self, next: impl FnOnce(State) -> Step) -> Step {
        let (state, mut actions) = self;
        let (state, more) = next(state);
        actions.extend(more);
        (state, actions)
    }
}

#[cfg(test)]
#[path = "machine_tests.rs"]
mod tests;
