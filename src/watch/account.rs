//! What happened, kept for the summary and the exit status. Reads no clock: times come in.

use super::machine::{Exit, Fate, Outcome, State};
use super::options::Answer;
use super::process::Process;
use crate::hook::Row;
use std::collections::BTreeMap;
use std::path::PathBuf;

/// Everything the summary tells. Times are [`crate::hook::boottime_ns`].
#[derive(Debug, Clone, Default)]
pub(super) struct Account {
    started: u64,
    exit: Option<Exit>,
    test_over: Option<u64>,
    cleanup_started: Option<u64>,
    finished: u64,
    rows: Vec<Row>,
    test_known: bool,
    taken_over: bool,
    /// Whether the cleanup could not be executed as it is.
    pub(super) started_by_bash: bool,
    /// What a test that ended by itself left running.
    pub(super) left_behind: Vec<Process>,
    /// Where the cleanup's output can be read that did not get where the test's did.
    pub(super) logs: Vec<PathBuf>,
    /// SIGTERM came when all was done but the passing on of output.
    pub(super) terminated: bool,
    /// The private state directory, if entries are left in it.
    pub(super) kept: Option<PathBuf>,
}

/// One row of the summary.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct EntryRow {
    pub(super) id: String,
    pub(super) status: Option<u8>,
    pub(super) nanos: u64,
    pub(super) text: String,
}

impl Account {
    pub(super) fn new(now: u64) -> Self {
        Self { started: now, ..Self::default() }
    }

    /// The watcher was killed: nobody knows when the test started.
    pub(super) fn watcher_lost(&mut self) {
        self.taken_over = true;
        self.test_known = true;
    }

    pub(super) fn test_ended(&mut self, exit: Exit, now: u64) {
        self.exit = Some(exit);
        self.test_over.get_or_insert(now);
        self.test_known = true;
    }

    pub(super) fn test_killed(&mut self, now: u64) {
        self.test_over.get_or_insert(now);
        self.test_known = true;
    }

    pub(super) fn cleanup_started(&mut self, now: u64) {
        self.cleanup_started = Some(now);
    }

    pub(super) fn finished(&mut self, now: u64, rows: Vec<Row>) {
        self.finished = now;
        self.rows = rows;
    }

    /// Whether there was a test at all.
    pub(super) fn has_test(&self) -> bool {
        self.test_known
    }

    /// Whether a cleanup was started, by us or by the watcher we took over from.
    pub(super) fn has_cleanup(&self) -> bool {
        self.cleanup_started.is_some() || self.taken_over
    }

    /// Nanoseconds from the start to the test's end or kill.
    pub(super) fn test_nanos(&self) -> u64 {
        self.test_over.unwrap_or(self.finished).saturating_sub(self.started)
    }

    /// Nanoseconds from the cleanup's start to the end of everything.
    pub(super) fn cleanup_nanos(&self) -> Option<u64> {
        self.cleanup_started.map(|start| self.finished.saturating_sub(start))
    }

    /// One row an entry: those that have run, in order, then those that have not.
    pub(super) fn entries(&self) -> Vec<EntryRow> {
        let mut ran: Vec<EntryRow> = Vec::new();
        // In order, and found by id: for each of thousands, all of them would be looked at.
        let mut planned: BTreeMap<usize, EntryRow> = BTreeMap::new();
        let mut places: BTreeMap<&str, usize> = BTreeMap::new();
        let mut since = self.cleanup_started.unwrap_or(0);
        for (place, row) in self.rows.iter().enumerate() {
            match row {
                // Going on in a new shell: what follows is the whole of what is left.
                Row::Begin { at } => {
                    since = *at;
                    planned.clear();
                }
                Row::Plan { id, text } => {
                    let entry = EntryRow { id: id.clone(), status: None, nanos: 0, text: text.clone() };
                    if let Some(earlier) = places.insert(id, place) {
                        planned.remove(&earlier);
                    }
                    planned.insert(place, entry);
                }
                Row::Ran { at, id, status, text } => {
                    let nanos = at.saturating_sub(since);
                    since = *at;
                    if let Some(place) = places.get(id.as_str()) {
                        planned.remove(place);
                    }
                    ran.push(EntryRow { id: id.clone(), status: Some(*status), nanos, text: text.clone() });
                }
                Row::End { .. } => planned.clear(),
            }
        }
        ran.extend(planned.into_values());
        ran
    }

    fn has_end(&self) -> bool {
        self.rows.iter().any(|r| matches!(r, Row::End { .. }))
    }

    /// Whether a final script of ours began and did not come to its end.
    pub(super) fn broke_off(&self) -> bool {
        self.rows.iter().any(|r| matches!(r, Row::Begin { .. })) && !self.has_end()
    }

    /// Whether an entry, or a cleanup that is not ours, failed.
    fn an_entry_failed(&self, exit: Exit) -> bool {
        let statuses = || self.entries().into_iter().filter_map(|e| e.status);
        match statuses().next() {
            Some(_) => statuses().any(|s| s != 0),
            None => exit != Exit::Code(0),
        }
    }
}

/// The exit table of the contract.
#[must_use]
pub(super) fn exit_status(state: &State, account: &Account, answer: Answer) -> u8 {
    let status = match state.outcome {
        _ if account.terminated || matches!(state.fate, Fate::Postponed | Fate::LeftAlone) => {
            return 128 + 15;
        }
        Some(Outcome::Interrupted) => 130,
        Some(Outcome::Watchdog | Outcome::Deadline | Outcome::WatcherLost) => 124,
        Some(Outcome::Ended(exit)) if exit.shell_status() != 0 => exit.shell_status(),
        Some(Outcome::Ended(_)) => cleanup_status(state.fate, account, answer),
        None => 125,
    };
    if answer == Answer::Zero { 0 } else { status }
}

/// What the cleanup adds to a test that ended with 0.
fn cleanup_status(fate: Fate, account: &Account, answer: Answer) -> u8 {
    match fate {
        Fate::Cut | Fate::Unusable => 121,
        Fate::Finished(Exit::Signal(_)) => 121,
        Fate::Finished(_) if account.broke_off() => 121,
        // What bash cannot run either has not been run.
        Fate::Finished(Exit::Code(126 | 127)) if account.started_by_bash && account.rows.is_empty() => 121,
        Fate::Finished(exit) if answer == Answer::Strict && account.an_entry_failed(exit) => 121,
        Fate::Finished(_) | Fate::Absent | Fate::Pending | Fate::Postponed | Fate::LeftAlone => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::super::machine::{Reach, State};
    use super::*;

    fn state(outcome: Outcome, fate: Fate) -> State {
        State { outcome: Some(outcome), fate, ..State::watching(Reach::Group) }
    }

    fn with_rows(rows: Vec<Row>) -> Account {
        let mut account = Account::new(0);
        account.cleanup_started(100);
        account.finished(1000, rows);
        account
    }

    fn ran(at: u64, id: &str, status: u8) -> Row {
        Row::Ran { at, id: id.into(), status, text: String::new() }
    }

    #[test]
    fn the_exit_table() {
        let zero = Outcome::Ended(Exit::Code(0));
        let clean = Fate::Finished(Exit::Code(0));
        let account = with_rows(vec![]);
        for (outcome, fate, want) in [
            (zero, Fate::Absent, 0),
            (zero, clean, 0),
            (zero, Fate::Finished(Exit::Code(3)), 0),
            (zero, Fate::Cut, 121),
            (zero, Fate::Unusable, 121),
            (zero, Fate::Finished(Exit::Signal(9)), 121),
            (Outcome::Ended(Exit::Code(7)), clean, 7),
            (Outcome::Ended(Exit::Code(7)), Fate::Cut, 7),
            (Outcome::Ended(Exit::Signal(9)), clean, 137),
            (Outcome::Interrupted, clean, 130),
            (Outcome::Interrupted, Fate::Cut, 130),
            (Outcome::Watchdog, clean, 124),
            (Outcome::Deadline, Fate::Unusable, 124),
            (zero, Fate::Postponed, 143),
            (Outcome::Interrupted, Fate::LeftAlone, 143),
        ] {
            let state = state(outcome, fate);
            assert_eq!(exit_status(&state, &account, Answer::Plain), want, "{outcome:?} {fate:?}");
            let with_zero = if want == 143 { 143 } else { 0 };
            assert_eq!(exit_status(&state, &account, Answer::Zero), with_zero, "{outcome:?} {fate:?}");
        }
    }

    #[test]
    fn strict_looks_at_entries_and_else_at_the_script() {
        let zero = Outcome::Ended(Exit::Code(0));
        let good = with_rows(vec![Row::Begin { at: 1 }, ran(2, "a", 0), Row::End { at: 3 }]);
        let bad = with_rows(vec![Row::Begin { at: 1 }, ran(2, "a", 0), ran(3, "b", 1), Row::End { at: 4 }]);
        let foreign = with_rows(vec![]);
        for (account, exit, want) in [(&good, 5, 0), (&bad, 0, 121), (&foreign, 0, 0), (&foreign, 1, 121)] {
            let state = state(zero, Fate::Finished(Exit::Code(exit)));
            assert_eq!(exit_status(&state, account, Answer::Strict), want);
            assert_eq!(exit_status(&state, account, Answer::Plain), 0);
        }
    }

    #[test]
    fn a_script_that_broke_off_is_told_from_one_that_ended() {
        let plan = |id: &str| Row::Plan { id: id.into(), text: format!("text {id}") };
        let broken = with_rows(vec![Row::Begin { at: 200 }, plan("a"), plan("b"), ran(250, "a", 4)]);
        let state = state(Outcome::Ended(Exit::Code(0)), Fate::Finished(Exit::Code(0)));
        assert_eq!(exit_status(&state, &broken, Answer::Plain), 121);
        let entries = broken.entries();
        assert_eq!((entries[0].status, entries[0].nanos), (Some(4), 50));
        assert_eq!((entries[1].status, entries[1].text.as_str()), (None, "text b"));
        // The next shell's plan replaces it: an entry may have been taken back meanwhile.
        let rows = vec![
            Row::Begin { at: 200 },
            plan("a"),
            plan("b"),
            ran(250, "a", 4),
            Row::Begin { at: 300 },
            plan("c"),
        ];
        let ids: Vec<String> = with_rows(rows).entries().into_iter().map(|e| e.id).collect();
        assert_eq!(ids, ["a", "c"]);
    }
}
