//! Promise: what the original watcher and BeakerLib's functions do, ours do too, or `docs/compat.md` says
//! what differs and why. One list of behaviours, run on both.
//!
//! `BEAKERLIB` names the original; its watcher is the one beside it, or the one that `WATCHER_ORIGINAL`
//! names. `RL_CLEANUP_SCENARIO=ID,ID` runs these only.

#![allow(clippy::unwrap_used, reason = "in a test a panic is the answer")]
#![allow(unreachable_pub, missing_docs, reason = "the modules below are this test's alone")]

#[path = "differential/compat.rs"]
mod compat;
#[path = "differential/journalling.rs"]
mod journalling;
#[path = "differential/run.rs"]
mod run;
#[path = "differential/scenario.rs"]
mod scenario;
#[path = "differential/stacking.rs"]
mod stacking;
#[path = "common/stage.rs"]
mod stage;
#[path = "common/torture.rs"]
mod torture;
#[path = "differential/watching.rs"]
mod watching;

use compat::{Compat, Row};
use run::{Seen, Site, Subject};
use scenario::{Needs, Scenario};
use std::sync::atomic::{AtomicUsize, Ordering};
use torture::Part;

fn scenarios() -> Vec<Scenario> {
    let only = std::env::var("RL_CLEANUP_SCENARIO").ok();
    let mut all = [watching::all(), stacking::all(), journalling::all()].concat();
    all.retain(|s| only.as_ref().is_none_or(|ids| ids.split(',').any(|id| id == s.id)));
    if !nix::unistd::geteuid().is_root() {
        let before = all.len();
        all.retain(|s| !s.root);
        if all.len() < before {
            stage::skip("differential", "a scenario with another user's files needs root");
        }
    }
    all
}

/// Runs every pair, two at a time.
fn each<T: Sync>(work: &[T], perform: impl Fn(&T) + Sync) {
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while let Some(item) = work.get(next.fetch_add(1, Ordering::Relaxed)) {
                    perform(item);
                }
            });
        }
    });
}

/// The ways in which ours can be run for this scenario.
fn ways(site: &Site, scenario: &Scenario) -> Vec<Subject> {
    let with_beakerlib = torture::is_full() && site.has_beakerlib();
    match scenario.needs {
        Needs::Watcher => vec![Subject::Alone],
        Needs::Functions if with_beakerlib => vec![Subject::Alone, Subject::Plugin],
        Needs::Functions => vec![Subject::Alone],
        Needs::BeakerLib if with_beakerlib => vec![Subject::Sourced, Subject::Plugin],
        Needs::BeakerLib => Vec::new(),
    }
}

#[test]
fn ours_does_what_the_list_says() {
    let site = Site::new();
    let scenarios = scenarios();
    let part = Part::new("differential: list");
    let work: Vec<_> =
        scenarios.iter().flat_map(|s| ways(&site, s).into_iter().map(move |way| (s, way))).collect();
    each(&work, |(scenario, way)| {
        let seen = run::run(&site, scenario, *way);
        part.count(match told(&seen) == told(&expected(scenario)) {
            true => Ok(()),
            false => Err(format!(
                "{} ({way:?}): {} and not {}",
                scenario.id,
                told(&seen),
                told(&expected(scenario))
            )),
        });
    });
    let untried = scenarios.iter().filter(|s| s.needs == Needs::BeakerLib).count();
    if torture::is_full() && !site.has_beakerlib() && untried > 0 {
        stage::skip(
            "ours_does_what_the_list_says",
            "BEAKERLIB names no BeakerLib: its journal is not looked at",
        );
    }
    part.finish();
}

/// What can be compared without being slow: `make check` looks at the watcher only.
fn is_compared(scenario: &Scenario) -> bool {
    torture::is_full() || (scenario.needs == Needs::Watcher && !scenario.original_hangs)
}

#[test]
fn the_original_differs_only_where_compat_md_says_so() {
    let site = Site::new();
    if site.original_watcher().is_none() || !site.has_beakerlib() {
        let test = "the_original_differs_only_where_compat_md_says_so";
        return stage::skip(test, "BEAKERLIB names no BeakerLib with its watcher beside it");
    }
    let compat = Compat::read();
    let part = Part::new("differential: original");
    let scenarios: Vec<_> = scenarios().into_iter().filter(is_compared).collect();
    each(&scenarios, |scenario| {
        let seen = run::run(&site, scenario, Subject::Original);
        part.count(compat.judge(&row(scenario, &seen)));
    });
    part.finish();
}

#[test]
fn compat_md_lists_every_behaviour_once_and_gives_its_reasons() {
    let ids: Vec<_> =
        [watching::all(), stacking::all(), journalling::all()].concat().iter().map(|s| s.id).collect();
    Compat::read().check(&ids);
}

fn expected(scenario: &Scenario) -> Seen {
    scenario.seen.iter().map(|(fact, value)| (*fact, (*value).to_owned())).collect()
}

/// `status 0, ran one two`.
fn told(seen: &Seen) -> String {
    seen.iter().map(|(fact, value)| format!("{} `{value}`", fact.name())).collect::<Vec<_>>().join(", ")
}

/// What the document must say of a scenario in which the original was seen to do this.
fn row(scenario: &Scenario, original: &Seen) -> Row {
    let ours = expected(scenario);
    let differs = |(theirs, ours): &(&(_, String), &(_, String))| theirs.1 != ours.1;
    let (theirs, ours): (Seen, Seen) = original
        .iter()
        .zip(&ours)
        .filter(differs)
        .map(|(theirs, ours)| (theirs.clone(), ours.clone()))
        .unzip();
    let what = scenario.what.to_owned();
    match theirs.is_empty() {
        true => Row { id: scenario.id.into(), what, cells: vec![told(&expected(scenario))] },
        false => Row { id: scenario.id.into(), what, cells: vec![told(&theirs), told(&ours)] },
    }
}
