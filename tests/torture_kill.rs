//! Promise: a SIGKILL at any system call costs nothing that was acknowledged. The toolkit leaves buffer and
//! final script each old or new as a whole, and the next call goes on from there; a watcher or guard that is
//! killed leaves no orphan, and the cleanup runs exactly once.
#![allow(clippy::unwrap_used, reason = "a test that panics has failed")]

#[path = "common/scene.rs"]
mod scene;
#[path = "common/strace.rs"]
mod strace;
#[path = "common/torture.rs"]
mod torture;
mod watch_common;
#[path = "common/watcher_scene.rs"]
mod watcher_scene;

use scene::{Case, Rehearsal, Scene, Tree, for_each_case, hold, is_old_or_new};
use strace::{Fault, is_drawn};
use torture::{Part, draw, scale, seed};
use watcher_scene::{
    Ending, Guarded, Test, Watcher, can_trace, disturb, disturb_guard, rehearse, rehearse_guard,
};

#[test]
fn the_toolkit_at_every_call() {
    if !can_trace("the_toolkit_at_every_call") {
        return;
    }
    let part = Part::new("kill: toolkit");
    for_each_case(|scene, case| kill_at_each_call(scene, case, &part));
    part.finish();
}

fn kill_at_each_call(scene: &Scene, case: &Case, part: &Part) {
    let rehearsal = scene.rehearse(case);
    let (every, seed) = (scale(17, 1), seed(u64::from(std::process::id())));
    let numbered = (0..).zip(&rehearsal.sites);
    for (_, site) in numbered.filter(|(n, _)| is_drawn(*n, every, seed.wrapping_add(case.name.len() as u64)))
    {
        rehearsal.before.put(scene.root());
        if scene.disturb(case, site, Fault::Kill).is_some() {
            let outcome = judge(scene, case, &rehearsal);
            part.count(outcome.map_err(|how| format!("{}, killed at {site}: {how}", case.name)));
        } else {
            part.count(hold(false, || format!("{}: never came to {site}", case.name)));
        }
    }
}

fn judge(scene: &Scene, case: &Case, rehearsal: &Rehearsal) -> Result<(), String> {
    is_old_or_new(&Tree::take(scene.root()), rehearsal)?;
    scene.is_sound(case, rehearsal)
}

#[test]
fn the_watcher_at_every_call() {
    if !can_trace("the_watcher_at_every_call") {
        return;
    }
    let part = Part::new("kill: watcher");
    for test in [Test::Ends, Test::Interrupted] {
        let (sites, guarded) = rehearse(test);
        draw(sites.len(), scale(19, 1), |n| {
            let guarded = if n < guarded { Guarded::No } else { Guarded::Yes };
            let Some(ending) = disturb(test, &sites[n], Fault::Kill, guarded) else { return };
            let outcome = ending.and_then(|ending| is_cleaned_up(&ending, guarded));
            part.count(outcome.map_err(|how| format!("{test:?}, killed at {}: {how}", sites[n])));
        });
    }
    part.finish();
}

#[test]
fn the_guard_at_every_call() {
    if !can_trace("the_guard_at_every_call") {
        return;
    }
    let part = Part::new("kill: guard");
    for watcher in [Watcher::Killed, Watcher::Ends] {
        // Where both are killed before there is another guard, nobody is left to act.
        let (sites, guarded) = rehearse_guard(watcher);
        let sites = &sites[guarded..];
        draw(sites.len(), scale(19, 1), |n| {
            let Some(ending) = disturb_guard(watcher, &sites[n], Fault::Kill) else { return };
            let outcome = ending.and_then(|ending| is_cleaned_up(&ending, Guarded::Yes));
            part.count(
                outcome.map_err(|how| format!("watcher {watcher:?}, guard killed at {}: {how}", sites[n])),
            );
        });
    }
    part.finish();
}

/// Exactly once if the test had hooked it, and no file is left; before there was a guard, nobody can see
/// to that.
fn is_cleaned_up(ending: &Ending, guarded: Guarded) -> Result<(), String> {
    let ran = ending.log == "start\nend\n" || (!ending.hooked && ending.log.is_empty());
    hold(ran, || format!("the cleanup did not run exactly once: {ending:?}"))?;
    hold(ending.files.is_empty() || guarded == Guarded::No, || format!("files are left: {ending:?}"))
}
