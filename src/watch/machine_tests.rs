//! Every Phase x Event pair with its rule, and every event sequence up to length 8 against the
//! contract's sentences.

use super::*;
use std::collections::HashSet;

const ZERO: Exit = Exit::Code(0);
const TERM: Exit = Exit::Signal(15);

fn state(phase: Phase) -> State {
    let outcome = match phase {
        Phase::Test => None,
        Phase::Settling => Some(Outcome::Ended(TERM)),
        _ => Some(Outcome::Ended(ZERO)),
    };
    State { phase, outcome, ..State::watching(Reach::Group) }
}

fn to(phase: Phase, actions: &[Action]) -> (Phase, Vec<Action>) {
    (phase, actions.to_vec())
}

/// The state after, and the actions, for an event in a phase.
fn after(phase: Phase, event: Event) -> (Phase, Vec<Action>) {
    let (state, actions) = state(phase).step(event);
    (state.phase, actions)
}

const EVENTS: [Event; 15] = [
    Event::Interrupt,
    Event::Watchdog,
    Event::Terminate,
    Event::Reboot,
    Event::TestDeadline,
    Event::CleanupDeadline,
    Event::TestEnded(ZERO),
    Event::TestEnded(TERM),
    Event::Gone,
    Event::SettleOver,
    Event::GraceOver,
    Event::NothingHooked,
    Event::CannotClean,
    Event::CleanupEnded(ZERO),
    Event::CleanupEnded(Exit::Signal(9)),
];

const PHASES: [Phase; 7] = [
    Phase::Test,
    Phase::Settling,
    Phase::Killing,
    Phase::Cleanup(Grace::Open),
    Phase::Cleanup(Grace::Over),
    Phase::CleanupKilling,
    Phase::Done,
];

use Action::{ArmEwd, ArmSettle, Finish, KillCleanup, KillTest, Say, StartCleanup};
use Notice::{
    CleanupInterrupted, ExternalWatchdog, InterruptNoted, Leaving, LocalWatchdog, RebootAsked,
    TestInterrupted, TimeLimit,
};
use Phase::{Cleanup, CleanupKilling, Done, Killing, Settling, Test};

/// What is written down for a pair; pairs not listed change nothing.
fn rule(phase: Phase, event: Event) -> Option<(Phase, Vec<Action>)> {
    let cleaning = Cleanup(Grace::Open);
    Some(match (phase, event) {
        // A person or the LWD or a limit stops the test: kill at once, then tell.
        (Test, Event::Interrupt) => to(Killing, &[KillTest, Say(TestInterrupted)]),
        (Test, Event::Watchdog) => to(Killing, &[KillTest, Say(LocalWatchdog), ArmEwd]),
        (Test, Event::TestDeadline) => to(Killing, &[KillTest, Say(TimeLimit), ArmEwd]),
        // A test that ended is cleaned up after.
        (Test, Event::TestEnded(exit)) if exit == ZERO => to(cleaning, &[StartCleanup]),
        // One that SIGTERM ended may be the first sign of a shutdown.
        (Test, Event::TestEnded(_)) => to(Settling, &[ArmSettle]),
        // A reboot: the test must not live on, the cleanup waits.
        (Test, Event::Reboot) => to(Killing, &[Say(RebootAsked), KillTest]),
        (Settling, Event::Reboot) => to(Done, &[Say(RebootAsked), Finish]),
        (Killing, Event::Reboot) => to(Killing, &[Say(RebootAsked)]),
        // The shutdown did not come.
        (Settling, Event::SettleOver) => to(cleaning, &[StartCleanup]),
        // Somebody is in a hurry: no more settling.
        (Settling, Event::Interrupt) => to(cleaning, &[Say(InterruptNoted), StartCleanup]),
        (Settling, Event::Watchdog) => to(cleaning, &[Say(LocalWatchdog), ArmEwd, StartCleanup]),
        // SIGTERM at any time: leave, killing nothing, running nothing.
        (Done, Event::Terminate) => return None,
        (_, Event::Terminate) => to(Done, &[Say(Leaving), Finish]),
        // Gone means gone: only then the cleanup.
        (Killing, Event::Gone) => to(cleaning, &[StartCleanup]),
        (Killing, Event::Interrupt) => to(Killing, &[Say(InterruptNoted)]),
        // The first LWD after the test only starts the clock.
        (Killing | Cleanup(_), Event::Watchdog) => to(phase, &[Say(LocalWatchdog), ArmEwd]),
        (Killing, Event::CleanupDeadline) => to(Killing, &[Say(ExternalWatchdog)]),
        // The first half second belongs to the test that has just ended.
        (Cleanup(Grace::Open), Event::Interrupt) => to(phase, &[Say(InterruptNoted)]),
        (Cleanup(Grace::Over), Event::Interrupt) => {
            to(CleanupKilling, &[KillCleanup, Say(CleanupInterrupted)])
        }
        (Cleanup(Grace::Open), Event::GraceOver) => to(Cleanup(Grace::Over), &[]),
        (Cleanup(_), Event::CleanupDeadline) => to(CleanupKilling, &[KillCleanup, Say(ExternalWatchdog)]),
        (Cleanup(_), Event::NothingHooked | Event::CannotClean | Event::CleanupEnded(_)) => {
            to(Done, &[Finish])
        }
        (CleanupKilling, Event::Gone) => to(Done, &[Finish]),
        _ => return None,
    })
}

#[test]
fn every_pair_follows_its_rule() {
    for phase in PHASES {
        for event in EVENTS {
            let want = rule(phase, event).unwrap_or((phase, vec![]));
            assert_eq!(after(phase, event), want, "{phase:?} x {event:?}");
        }
    }
}

#[test]
fn tree_also_hunts_what_a_test_leaves_that_ended_by_itself() {
    let state = State::watching(Reach::Tree);
    let (state, actions) = state.step(Event::TestEnded(ZERO));
    assert_eq!((state.phase, actions), (Killing, vec![KillTest]));
    assert_eq!(state.outcome, Some(Outcome::Ended(ZERO)));
    assert_eq!(state.step(Event::Gone).1, vec![StartCleanup]);
}

#[test]
fn a_guard_goes_on_from_wherever_its_watcher_was() {
    let lost = Outcome::WatcherLost;
    for (found, phase, outcome, actions) in [
        (Found::Test, Killing, lost, vec![KillTest, ArmEwd]),
        (Found::Killing(Outcome::Interrupted), Killing, Outcome::Interrupted, vec![KillTest, ArmEwd]),
        (Found::Tested(lost), Cleanup(Grace::Open), lost, vec![StartCleanup, ArmEwd]),
        (Found::Cleanup(lost), Cleanup(Grace::Over), lost, vec![ArmEwd]),
        (Found::CleanupKilling(lost), CleanupKilling, lost, vec![KillCleanup, ArmEwd]),
    ] {
        let (state, did) = State::taking_over(found, Reach::Group);
        assert_eq!((state.phase, state.outcome, did), (phase, Some(outcome), actions), "{found:?}");
        assert_eq!(state.ewd, Ewd::Armed);
    }
}

#[test]
fn outcomes_survive_their_text() {
    for outcome in [
        Outcome::Ended(Exit::Code(0)),
        Outcome::Ended(Exit::Code(137)),
        Outcome::Interrupted,
        Outcome::Watchdog,
        Outcome::Deadline,
        Outcome::WatcherLost,
    ] {
        assert_eq!(Outcome::parse(&outcome.text()), Some(outcome));
    }
    assert_eq!(Outcome::Ended(Exit::Signal(9)).text(), "ended 137");
    assert_eq!(Outcome::parse("ended"), None);
    assert_eq!(Outcome::parse("x"), None);
}

/// What an onlooker remembers of a run, to hold the contract's sentences against it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
struct Onlooker {
    terminated: bool,
    rebooting: bool,
    test_over: bool,
    killed_test: bool,
    gone: bool,
    cleanups: u8,
    armed: u8,
    struck: bool,
    interrupts_late: bool,
    grace_over: bool,
    finished: u8,
}

impl Onlooker {
    /// Looks at one step. Panics where a sentence of the contract is broken.
    fn sees(mut self, before: State, event: Event, (state, actions): &Step) -> Self {
        let shown = || format!("{before:?} x {event:?} -> {state:?} {actions:?}");
        let in_cleanup = matches!(before.phase, Cleanup(_));
        match event {
            Event::Terminate if before.phase != Done => self.terminated = true,
            Event::Reboot if matches!(before.phase, Test | Settling | Killing) => self.rebooting = true,
            Event::TestEnded(_) if before.phase == Test => self.test_over = true,
            Event::Gone if before.phase == Killing => self.gone = true,
            Event::CleanupDeadline if matches!(before.phase, Killing | Cleanup(_)) => self.struck = true,
            Event::GraceOver if in_cleanup => self.grace_over = true,
            Event::Interrupt if in_cleanup && self.grace_over => self.interrupts_late = true,
            _ => {}
        }
        for action in actions {
            match action {
                // 5. SIGTERM at any time: kills nothing, runs nothing.
                KillTest | KillCleanup | StartCleanup => assert!(!self.terminated, "{}", shown()),
                ArmEwd | ArmSettle | Say(_) | Finish => {}
            }
            match action {
                KillTest => self.killed_test = true,
                StartCleanup => {
                    self.cleanups += 1;
                    // 2. No cleanup until every member is gone, or the test ended by itself.
                    assert!(self.gone || (self.test_over && !self.killed_test), "{}", shown());
                    // 10. A reboot under way: no cleanup now.
                    assert!(!self.rebooting, "{}", shown());
                    // The EWD kills the cleanup; it starts none.
                    assert!(!self.struck, "{}", shown());
                }
                KillCleanup => {
                    // 4. Only a late interrupt, or the EWD, kills it.
                    assert!(self.interrupts_late || self.struck, "{}", shown());
                }
                ArmEwd => self.armed += 1,
                Finish => self.finished += 1,
                ArmSettle | Say(_) => {}
            }
        }
        // The cleanup is started once at most; the EWD is armed by the first LWD only.
        assert!(self.cleanups <= 1 && self.armed <= 1 && self.finished <= 1, "{}", shown());
        // The outcome, once known, stays.
        assert!(before.outcome.is_none() || before.outcome == state.outcome, "{}", shown());
        // Done means finished, and the other way round; nothing follows it.
        assert_eq!(state.phase == Done, self.finished == 1, "{}", shown());
        // Ending is either with a cleanup, or for a stated reason without one.
        if state.phase == Done && self.cleanups == 0 {
            assert!(self.terminated || self.rebooting || self.struck, "{}", shown());
            assert_ne!(state.fate, Fate::Pending, "{}", shown());
        }
        self
    }
}

#[test]
fn every_event_sequence_up_to_length_8_keeps_the_contract() {
    for reach in [Reach::Group, Reach::Tree] {
        let mut frontier = HashSet::from([(State::watching(reach), Onlooker::default())]);
        let mut walked: u64 = 0;
        for _ in 0..8 {
            // Sequences that lead to the same state and the same memories go on alike.
            let mut next = HashSet::new();
            for (state, onlooker) in &frontier {
                for event in EVENTS {
                    let step = state.step(event);
                    next.insert((step.0, onlooker.sees(*state, event, &step)));
                    walked += 1;
                }
            }
            frontier = next;
        }
        println!("{reach:?}: {walked} steps, {} endings of length 8", frontier.len());
        assert!(walked > 1000);
    }
}

#[test]
fn every_run_can_come_to_its_end() {
    // From every state that can be reached, some event sequence leads to Done: nothing hangs.
    let ways_out = [
        Event::TestEnded(ZERO),
        Event::SettleOver,
        Event::Gone,
        Event::NothingHooked,
        Event::CleanupEnded(ZERO),
    ];
    for phase in PHASES {
        for ewd in [Ewd::Idle, Ewd::Armed, Ewd::Struck] {
            let mut state = State { ewd, ..state(phase) };
            for _ in 0..6 {
                for event in ways_out {
                    state = state.step(event).0;
                }
            }
            assert_eq!(state.phase, Done, "from {phase:?}");
        }
    }
}
