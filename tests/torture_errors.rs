//! Promise: whatever a system call answers, the toolkit does the whole of it and says 0, or none of it and
//! says why in one sentence; a watcher never hangs, leaves no orphan, and cleans up or says why not.
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

use scene::{
    BINARY, CASES, Case, Does, Ended, IDS, Rehearsal, Scene, Start, Tree, for_each_case, hold, is_old_or_new,
};
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use strace::{Fault, Site, is_drawn};
use torture::{Part, draw, scale, seed};
use watcher_scene::{
    Ending, Guarded, Test, Watcher, can_trace, disturb, disturb_guard, rehearse, rehearse_guard,
};

/// What a call may answer; the last as on a file system of another machine.
const ERRORS: [&str; 7] = ["ENOSPC", "EIO", "EINTR", "EACCES", "EMFILE", "ENOMEM", "ESTALE"];

#[test]
fn the_toolkit_at_every_call() {
    if !can_trace("the_toolkit_at_every_call") {
        return;
    }
    let part = Part::new("errors: toolkit");
    for_each_case(|scene, case| {
        // Which entry it is makes another buffer, but no other call.
        if !case.name.contains("first") && !case.name.contains("last") {
            fail_each_call(scene, case, &part);
        }
    });
    part.finish();
}

fn fail_each_call(scene: &Scene, case: &Case, part: &Part) {
    let rehearsal = scene.rehearse(case);
    let (every, seed) = (scale(101, 1), seed(u64::from(std::process::id())));
    // A close that fails has closed all the same (close(2)); strace would leave it open, as no kernel does.
    let sites = rehearsal.sites.iter().filter(|site| site.call != "close");
    let all = sites.flat_map(|site| ERRORS.map(|error| (site, Fault::Error(error))));
    let numbered = (0..).zip(all);
    for (_, (site, fault)) in
        numbered.filter(|(n, _)| is_drawn(*n, every, seed.wrapping_add(case.name.len() as u64)))
    {
        rehearsal.before.put(scene.root());
        let outcome = match scene.disturb(case, site, fault) {
            // What cannot be removed now, the next call removes.
            Some(_) if site.call.starts_with("unlink") => scene.is_sound(case, &rehearsal),
            Some(ended) => judge(scene, case, &rehearsal, &ended),
            None => Err("never came there".to_owned()),
        };
        part.count(outcome.map_err(|how| format!("{}, {fault} at {site}: {how}", case.name)));
    }
}

fn judge(scene: &Scene, case: &Case, rehearsal: &Rehearsal, ended: &Ended) -> Result<(), String> {
    hold(ended.status.is_some_and(|s| s < 100), || format!("did not end by itself: {ended:?}"))?;
    let now = Tree::take(scene.root());
    if ended.status == rehearsal.ended.status {
        hold(ended.out == rehearsal.ended.out || case.name.contains("rehook"), || format!("says {ended:?}"))?;
        return same_state(&now, &rehearsal.after).map_err(|how| format!("answers 0, but {how}"));
    }
    is_one_sentence(ended)?;
    if matches!(case.does, Does::Run(_)) || case.args.iter().any(|word| ["strike", "resume"].contains(word)) {
        // What has run is never undone, whatever else fails.
        is_old_or_new(&now, rehearsal)?;
        return scene.is_sound(case, rehearsal);
    }
    same_state(&now, &rehearsal.before).map_err(|how| format!("{ended:?}, but {how}"))?;
    let next = scene.cli(&["append", "true"]);
    hold(next.status == Some(0) && next.err.is_empty(), || format!("the next call: {next:?}"))
}

fn is_one_sentence(ended: &Ended) -> Result<(), String> {
    let good = matches!(ended.status, Some(1..=4))
        && ended.err.starts_with("rl-cleanup: ")
        && ended.err.ends_with('\n')
        && ended.err.lines().count() == 1
        && !ended.err.contains("os error")
        && !ended.err.contains("panicked");
    hold(good, || format!("not one sentence with status 1 to 4: {ended:?}"))
}

/// The same files, and nothing else; an empty state directory is no state.
fn same_state(now: &Tree, wanted: &Tree) -> Result<(), String> {
    for name in ["state/clbuff", "state/cleanup.sh", "testwatcher-abcdef"] {
        let (is, should) = (now.bytes(name), wanted.bytes(name));
        hold(is == should, || format!("{name} is {}, not {}", scene::shown(&is), scene::shown(&should)))?;
    }
    let strays = now.strays();
    hold(strays.is_empty(), || format!("{strays:?} are left"))
}

/// Not where strace would do what no kernel does: some calls cannot fail, or do their work all the same. A
/// signal mask that is not saved would be put back as garbage by the C library; a wait that fails does so
/// by EINTR, or for want of children (wait(2)).
fn can_fail(site: &Site, error: &str) -> bool {
    let never = ["close", "exit_group", "rt_sigreturn", "munmap", "rt_sigprocmask"];
    !never.contains(&&*site.call) && (site.call != "wait4" || error == "EINTR")
}

#[test]
fn the_watcher_at_every_call() {
    if !can_trace("the_watcher_at_every_call") {
        return;
    }
    let part = Part::new("errors: watcher");
    for test in [Test::Ends, Test::Interrupted] {
        let (sites, guarded) = rehearse(test);
        draw(sites.len() * ERRORS.len(), scale(151, 1), |n| {
            let (at, error) = (n / ERRORS.len(), ERRORS[n % ERRORS.len()]);
            let (site, fault) = (&sites[at], Fault::Error(error));
            let guarded = if at < guarded { Guarded::No } else { Guarded::Yes };
            let wanted = Some(site).filter(|site| can_fail(site, error));
            let Some(ending) = wanted.and_then(|site| disturb(test, site, fault, guarded)) else { return };
            let outcome = ending.and_then(|ending| is_cleaned_up_or_says_why(&ending, site));
            part.count(outcome.map_err(|how| format!("{test:?}, {fault} at {site}: {how}")));
        });
    }
    part.finish();
}

#[test]
fn the_guard_at_every_call() {
    if !can_trace("the_guard_at_every_call") {
        return;
    }
    let part = Part::new("errors: guard");
    for watcher in [Watcher::Killed, Watcher::Ends] {
        let (sites, _) = rehearse_guard(watcher);
        draw(sites.len() * ERRORS.len(), scale(151, 1), |n| {
            let (site, error) = (&sites[n / ERRORS.len()], ERRORS[n % ERRORS.len()]);
            let fault = Fault::Error(error);
            let wanted = Some(site).filter(|site| can_fail(site, error));
            let Some(ending) = wanted.and_then(|site| disturb_guard(watcher, site, fault)) else { return };
            let outcome = ending.and_then(|ending| is_cleaned_up_or_says_why(&ending, site));
            part.count(
                outcome.map_err(|how| format!("watcher {watcher:?}, {fault} at {site} of the guard: {how}")),
            );
        });
    }
    part.finish();
}

fn is_cleaned_up_or_says_why(ending: &Ending, site: &Site) -> Result<(), String> {
    hold(!ending.stderr.contains("panicked"), || format!("a panic: {ending:?}"))?;
    let says_why = ending.stderr.contains("TESTWATCHER: ") || ending.stderr.contains("rl-cleanup: ");
    let ran = ending.log == "start\nend\n";
    hold(ran || (says_why && ending.status != 0), || format!("no cleanup, and no reason: {ending:?}"))?;
    let removal = ["unlink", "unlinkat", "rmdir"].contains(&&*site.call);
    hold(ending.files.is_empty() || removal, || format!("files are left: {ending:?}"))
}

/// Unmounts, also after a failure.
struct Mount(PathBuf);

impl Mount {
    /// `None` where that is not allowed.
    fn new(dir: &Path, args: &[&str]) -> Option<Self> {
        let status = Command::new("mount").args(args).arg(dir).stderr(Stdio::null()).status();
        status.is_ok_and(|s| s.success()).then(|| Self(dir.to_owned()))
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[test]
fn for_real() {
    let part = Part::new("errors: for real");
    for (what, outcome) in [("a full disk", full_disk(&part)), ("a read-only directory", read_only(&part))] {
        if outcome.is_none() {
            watch_common::skip("for_real", &format!("{what}: needs the right to mount"));
        }
    }
    limits(&part);
    removed_directory(&part);
    unwritable_output(&part);
    limited_watcher(&part);
    part.finish();
}

/// A file system of 64 KiB, until nothing fits any more; then the cleanup.
fn full_disk(part: &Part) -> Option<()> {
    let scene = Scene::new();
    scene.start(Start::Fresh);
    std::fs::create_dir(scene.state()).unwrap();
    let _mount = Mount::new(&scene.state(), &["-t", "tmpfs", "-o", "size=64k,mode=0700", "none"])?;
    let (mut acknowledged, mut refused) = (Vec::new(), 0);
    for n in 0..60 {
        let text = format!("echo {n} >>{}/ran\n# {}", scene.root().display(), "x".repeat(800));
        let before = Tree::take(scene.root());
        let ended = scene.cli(&[if n % 3 == 0 { "prepend" } else { "append" }, &text]);
        match ended.status {
            Some(0) if n % 3 == 0 => acknowledged.insert(0, n.to_string()),
            Some(0) => acknowledged.push(n.to_string()),
            _ => {
                refused += 1;
                let same = same_state(&Tree::take(scene.root()), &before);
                part.count(is_one_sentence(&ended).and(same).map_err(|how| format!("full disk: {how}")));
            }
        }
    }
    part.count(hold(refused > 10 && acknowledged.len() > 5, || {
        format!("{acknowledged:?}, {refused} refused")
    }));
    // Not one byte more.
    let filled =
        std::fs::File::create(scene.state().join("junk")).and_then(|mut f| f.write_all(&[0; 1 << 17]));
    part.count(hold(filled.is_err(), || "the disk takes more than it has".to_owned()));
    let ended = scene.cleanup();
    part.count(hold(scene.ran() == acknowledged && scene.entries().is_empty(), || {
        format!(
            "on a full disk {:?} ran, not {acknowledged:?}; left {:?}: {ended:?}",
            scene.ran(),
            scene.entries()
        )
    }));
    Some(())
}

fn read_only(part: &Part) -> Option<()> {
    let scene = Scene::new();
    scene.start(Start::Entries(3));
    let state = scene.state();
    let _mount = Mount::new(&state, &["--bind", state.to_str().unwrap()])?;
    let read_only = Command::new("mount").args(["-o", "remount,bind,ro"]).arg(&state).status().unwrap();
    assert!(read_only.success());
    let before = Tree::take(scene.root());
    for case in CASES.iter().filter(|c| c.start == Start::Entries(3) && c.args[0] != "script") {
        let ended = scene.call(case);
        let same = same_state(&Tree::take(scene.root()), &before);
        let outcome = is_one_sentence(&ended).and(same);
        part.count(outcome.map_err(|how| format!("{}, read-only: {how}", case.name)));
    }
    let listed = scene.cli(&["list"]);
    part.count(hold(listed.status == Some(0), || format!("list, read-only: {listed:?}")));
    let ended = scene.cleanup();
    part.count(hold(scene.ran() == IDS, || format!("read-only: {:?} ran: {ended:?}", scene.ran())));
    Some(())
}

/// No file may be longer, or none be opened: for each call at each limit.
fn limits(part: &Part) {
    let sizes = [0, 1, 8, 12].iter().skip(scale(2, 0) as usize).map(|n| format!("ulimit -f {n}"));
    let files = (scale(7, 4)..=scale(7, 16)).map(|n| format!("ulimit -n {n}"));
    let scene = Scene::new();
    for limit in sizes.into_iter().chain(files) {
        let mut shell = scene.command("bash");
        let starts = scene.run(shell.args(["-c", &format!("{limit}; \"$0\" --version"), BINARY]));
        let drawn =
            (0..).zip(CASES).filter(|(n, _)| is_drawn(*n, scale(3, 1), seed(u64::from(std::process::id()))));
        let drawn = drawn.map(|(_, case)| case);
        for case in drawn.filter(|c| starts.status == Some(0) && c.args[0] != "script") {
            let rehearsal = scene.undisturbed(case);
            rehearsal.before.put(scene.root());
            let ended = scene.limited(case, &limit);
            // What it starts has the same limit, and may fail by it.
            let fell = matches!(case.does, Does::Run(_)) && ended.status == Some(1);
            let outcome = if fell {
                Tree::take(scene.root()).put(scene.root());
                hold(ended.err.contains("rl-cleanup: "), || format!("{ended:?}"))
            } else {
                judge(&scene, case, &rehearsal, &ended)
            };
            part.count(outcome.map_err(|how| format!("{}, {limit}: {how}", case.name)));
        }
    }
}

/// The directory is removed while a call waits for its lock, and while a cleanup runs.
fn removed_directory(part: &Part) {
    let scene = Scene::new();
    for case in CASES.iter().filter(|c| c.start == Start::Entries(3) && c.args[0] != "script") {
        scene.start(case.start);
        let lock = std::fs::File::open(scene.state().join("clbuff.lock")).unwrap();
        fs2::FileExt::lock_exclusive(&lock).unwrap();
        let ended = std::thread::scope(|scope| {
            let call = scope.spawn(|| scene.call(case));
            watch_common::until("a call that waits for the lock", || waits_for_lock(&scene));
            std::fs::remove_dir_all(scene.state()).unwrap();
            drop(lock);
            call.join().unwrap()
        });
        let nothing = hold(!scene.state().exists(), || "the directory is there again".to_owned());
        let outcome = is_one_sentence(&ended).and(nothing);
        part.count(outcome.map_err(|how| format!("{}, its directory removed: {how}", case.name)));
    }
    scene.start(Start::Entries(3));
    let removal = format!("echo first >>{}/ran; rm -rf {}", scene.root().display(), scene.state().display());
    assert_eq!(scene.cli(&["prepend", &removal]).status, Some(0));
    let ended = scene.cleanup();
    let wanted = [&["first"][..], &IDS].concat();
    part.count(hold(scene.ran() == wanted, || {
        format!("directory removed: {:?} ran: {ended:?}", scene.ran())
    }));
}

/// proc_locks(5): a waiter's line has an arrow.
fn waits_for_lock(scene: &Scene) -> bool {
    let inode = std::fs::metadata(scene.state().join("clbuff.lock")).unwrap().ino();
    let locks = std::fs::read_to_string("/proc/locks").unwrap();
    locks.lines().any(|line| line.contains("-> FLOCK") && line.contains(&format!(":{inode} ")))
}

/// An id that nobody could be told is no entry.
fn unwritable_output(part: &Part) {
    let scene = Scene::new();
    let before = scene.start(Start::Entries(3));
    let mut shell = scene.command("bash");
    let call = "exec \"$0\" append --print-id true >/dev/full";
    let ended = scene.run(shell.args(["-c", call, BINARY]));
    let same = same_state(&Tree::take(scene.root()), &before);
    part.count(is_one_sentence(&ended).and(same).map_err(|how| format!("--print-id >/dev/full: {how}")));
}

/// A watcher with few descriptors, and one that may write no file.
fn limited_watcher(part: &Part) {
    let files = (scale(9, 4)..=scale(10, 24)).map(|n| format!("ulimit -n {n}"));
    for limit in files.chain(["ulimit -f 0".to_owned()]) {
        let outcome = watcher_scene::limited(&limit);
        let outcome = outcome.and_then(|ending| {
            // A test that may write no file hooks nothing, and no reason can be written either.
            let says_why = ending.status != 0 && (ending.stderr.contains(": ") || !ending.hooked);
            let ran = ending.log == "start\nend\n" && !ending.stderr.contains("panicked");
            hold((ran || says_why) && ending.files.is_empty(), || format!("{ending:?}"))
        });
        part.count(outcome.map_err(|how| format!("watcher, {limit}: {how}")));
    }
}
