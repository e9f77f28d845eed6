//! Behaviours that only BeakerLib's journal shows.

use super::scenario::Fact::{Overall, Phases, Ran, Status, Warnings};
use super::scenario::Start::Unwatched;
use super::scenario::Step::{Await, Send};
use super::scenario::{Scenario, journal, whole};
use nix::sys::signal::Signal::{SIGHUP, SIGINT};

pub fn all() -> Vec<Scenario> {
    let hung = "rlJournalStart; rlPhaseStartTest; rlCleanupAppend 'rlRun true'; ready; sleep 1000";
    vec![
        journal("journal-pass", "the phases of a test that passes", "rlRun true; rlCleanupAppend 'rlRun true'")
            .sees(Phases, "PASS Test, PASS Cleanup").sees(Overall, "PASS, PASS"),
        journal("journal-fail", "of one that fails", "rlRun false; rlCleanupAppend 'rlRun true'")
            .sees(Phases, "FAIL Test, PASS Cleanup").sees(Overall, "FAIL, FAIL"),
        journal("journal-warn", "of one whose cleanup fails", "rlRun true; rlCleanupAppend 'rlRun false'")
            .sees(Phases, "PASS Test, WARN Cleanup").sees(Overall, "PASS, WARN"),
        journal("journal-no-cleanup", "of one that stacks no cleanup", "rlRun true").sees(Phases, "PASS Test").sees(Overall, "PASS"),
        journal("journal-log", "the journal of a watched test warns of nothing", "rlCleanupAppend true; rlCleanupAppend true")
            .sees(Warnings, "0 outside, 0 executing"),
        journal("journal-unwatched", "the phases without a watcher", "rlRun true; rlCleanupAppend 'rlRun true'")
            .start(Unwatched).sees(Phases, "PASS Test, PASS Cleanup").sees(Overall, "PASS"),
        journal("warnings-one", "the warnings about one append without a watcher", "rlCleanupAppend true")
            .start(Unwatched).sees(Warnings, "1 outside, 1 executing"),
        journal("warnings-two", "the warnings about two appends without a watcher", "rlCleanupAppend true; rlCleanupAppend true")
            .start(Unwatched).sees(Warnings, "1 outside, 1 executing"),
        whole("journal-interrupted", "the result of a test that was interrupted", hung).needs_beakerlib()
            .then(&[Await("ready"), Send(SIGINT)]).sees(Overall, "WARN"),
        whole("journal-timed-out", "the result of a test that a watchdog stopped", hung).needs_beakerlib()
            .then(&[Await("ready"), Send(SIGHUP)]).sees(Overall, "WARN"),
        whole("journal-failed-assert", "the result of a stopped test with a failed assert",
            "rlJournalStart; rlPhaseStartTest; rlCleanupAppend 'rlRun true'; rlRun false; rlCleanupAppend true; ready; sleep 1000").needs_beakerlib()
            .then(&[Await("ready"), Send(SIGHUP)]).sees(Overall, "FAIL"),
        whole("journal-end-status", "what rlJournalEnd returns under a watcher", "rlJournalStart; rlCleanupAppend false; rlJournalEnd; echo $? >>$T/log")
            .needs_beakerlib().sees(Ran, "0").sees(Status, "0"),
        journal("entry-ends-journal", "an entry that calls rlJournalEnd", "rlCleanupAppend 'rlJournalEnd'; rlCleanupAppend 'echo next >>$T/log'")
            .sees(Ran, "next"),
        journal("entry-dies", "an entry that calls rlDie", "rlCleanupAppend 'rlDie enough'; rlCleanupAppend 'echo next >>$T/log'").sees(Ran, "next"),
        journal("function-echo", "a function of the test's called echo", "echo() { builtin echo \"mine: $*\"; }; rlCleanupAppend 'builtin echo ran >>$T/log'")
            .original_hangs().sees(Ran, "ran"),
    ]
}
