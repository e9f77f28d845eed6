//! Power loss: whatever of a cleanup's writing has reached the disk, each file is the old or the new
//! one, what had been answered with 0 is there, and the cleanup of the next boot does what is left.
//!
//! strace(1) records what append, prepend, remove, run, rehook and a whole final script do to the
//! state directory. After each of these calls the power is taken to fail, every state that the disk
//! may then be in is built anew, and `rehook` and the final script are run on it.
//!
//! The model is POSIX's, which promises less than any one file system:
//! - A file's data is on the disk up to the last fsync of that file. Of the later writes and changes of
//!   length any may be there without the others, the last one also by half, and the new length may be
//!   there with zeros for data.
//! - A directory's entries are there up to the last fsync of that directory. Of the later creations,
//!   renames and unlinks any may be there without the others; an fsync of a file says nothing about
//!   its name. A rename may leave both names, but never neither. Changes of different names are
//!   independent of each other, so every order of them ends in one of these subsets.
//! - The state directory itself is there once the directory that holds it has been synced.
//! - What a call has not begun to do is not there.
//!
//! Modes and owners are taken to be those of the creation. The file of `TESTWATCHER_CLPATH` belongs
//! to a watcher, which a boot makes anew; it is not part of this.
#![allow(clippy::unwrap_used, reason = "a test that panics has failed")]

mod common;
#[path = "power/disk.rs"]
mod disk;
#[path = "common/torture.rs"]
mod torture;
#[path = "power/trace.rs"]
mod trace;

use common::{BINARY, State};
use disk::{Disk, Remains};
use std::collections::BTreeSet;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::Path;
use std::process::Command;
use std::sync::Mutex;
use torture::{Dice, Part, is_full, scale, seed};
use trace::{CALLS, Op, Reader};

/// The texts of the entries, in order.
type List = Vec<String>;

/// So many states of one story are tried at most.
const STATES: u64 = 250;

/// What a test or a watcher does.
#[derive(Debug, Clone)]
enum Step {
    Prepare,
    Append(String),
    Prepend(String),
    Remove(usize),
    Run(usize),
    Rehook,
    Final,
}

/// A moment at which the power fails.
struct Moment {
    remains: BTreeSet<Remains>,
    /// Which of the lists may be there: those from the last one that was answered, to the one that
    /// was being worked on.
    lists: std::ops::RangeInclusive<usize>,
    after: String,
}

/// All that a run of steps has done, moment by moment.
struct Story {
    state: State,
    reader: Reader,
    disk: Disk,
    dice: Dice,
    lists: Vec<List>,
    moments: Vec<Moment>,
    /// The short form runs one cleanup for each buffer that is found.
    cleaned: Mutex<BTreeSet<List>>,
}

impl Story {
    fn new(seed: u64) -> Self {
        let state = State::new();
        let reader = Reader::new(&state.dir);
        Self {
            state,
            reader,
            disk: Disk::new(),
            dice: Dice::new(seed),
            lists: vec![Vec::new()],
            moments: Vec::new(),
            cleaned: Mutex::default(),
        }
    }

    fn now(&self) -> &List {
        self.lists.last().unwrap()
    }

    fn step(&mut self, step: &Step) {
        let mut after = self.now().clone();
        let first = self.lists.len() - 1;
        let mut command = self.state.command(BINARY);
        match step {
            Step::Prepare => command.args(["script", "prepare"]),
            Step::Append(text) => {
                after.push(text.clone());
                command.args(["append", "--", text])
            }
            Step::Prepend(text) => {
                after.insert(0, text.clone());
                command.args(["prepend", "--", text])
            }
            Step::Remove(n) => {
                after.remove(*n);
                command.args(["remove", &self.id(*n)])
            }
            Step::Run(n) => {
                after.remove(*n);
                command.args(["run", &self.id(*n)])
            }
            Step::Rehook => command.arg("rehook"),
            Step::Final => {
                command = self.state.command(self.state.script());
                // Each entry is struck by itself.
                let all = self.now().clone();
                self.lists.extend((1..all.len()).map(|n| all[n..].to_vec()));
                after.clear();
                &mut command
            }
        };
        self.lists.push(after);
        let ops = self.record(&command, step);
        self.replay(step, &ops, first);
    }

    fn id(&self, n: usize) -> String {
        let json = self.state.cli(["list", "--json"]).ok().out;
        let list: serde_json::Value = serde_json::from_str(&json).unwrap();
        list[n]["id"].as_str().unwrap().to_owned()
    }

    fn record(&mut self, command: &Command, step: &Step) -> Vec<Op> {
        let file = self.state.path("trace");
        let mut traced = self.state.command("strace");
        traced.args(["-f", "-y", "-xx", "-s", "10000000", "-e", "signal=none", "-e", CALLS, "-o"]);
        traced.arg(&file).arg(command.get_program()).args(command.get_args());
        let ended = self.state.run(&mut traced);
        // The entry that is run may be one that fails.
        let failed = matches!(step, Step::Run(_)) && ended.err.contains("one of the entries failed");
        assert!(ended.status == Some(0) || failed, "{ended:#?}");
        self.reader.read(&std::fs::read_to_string(file).unwrap())
    }

    /// Lets the power fail after each operation. An entry may be gone once it has begun, and must be
    /// once the next one has.
    fn replay(&mut self, step: &Step, ops: &[Op], first: usize) {
        let last = self.lists.len() - 1;
        let runs = matches!(step, Step::Final | Step::Run(_));
        let (mut floor, mut ceiling) = (first, if runs { first } else { last });
        for (n, op) in ops.iter().enumerate() {
            self.disk.apply(op);
            if matches!(op, Op::Printed(_)) {
                (floor, ceiling) = (ceiling, ceiling + 1);
            }
            if n + 1 == ops.len() {
                floor = last;
            }
            let remains = self.disk.remains(&mut self.dice);
            let after = format!("{step:?}, call {} of {}: {op:.60?}", n + 1, ops.len());
            self.moments.push(Moment { remains, lists: floor..=ceiling, after });
        }
        assert_eq!(ceiling, last, "not every entry has said that it ran: {step:?} {ops:?}");
    }

    /// The power fails at this moment, and this is left.
    fn check(&self, moment: &Moment, remains: &Remains) -> Result<(), String> {
        let state = State::new();
        if let Some(files) = remains {
            std::fs::DirBuilder::new().mode(0o700).create(&state.dir).unwrap();
            for (name, content) in files {
                self.is_whole(name, content)?;
                put(&state.dir.join(name), content);
            }
        }
        let rehooked = state.cli(["rehook"]);
        if rehooked.status != Some(0) {
            return Err(format!("rehook: {rehooked:?}"));
        }
        let entries = state.entries();
        let allowed = &self.lists[moment.lists.clone()];
        if !allowed.contains(&entries) {
            return Err(format!("the buffer is {entries:?}, and not one of {allowed:?}"));
        }
        if state.names() != ["clbuff", "clbuff.lock", "cleanup.sh"] {
            return Err(format!("left behind: {:?}", state.names()));
        }
        if !is_full() && !self.cleaned.lock().unwrap().insert(entries.clone()) {
            return Ok(());
        }
        let cleanup = state.run(state.command(common::bash()).arg(state.script()));
        let ran: Vec<&str> = cleanup.out.lines().filter(|l| l.starts_with("ran ")).collect();
        let wanted: Vec<&str> = entries.iter().map(|e| says(e)).collect();
        if cleanup.status != Some(0) || ran != wanted {
            return Err(format!("the cleanup of {wanted:?}: {cleanup:?}"));
        }
        match ["clbuff", "cleanup.sh"].iter().find(|name| !state.read(name).is_empty()) {
            Some(name) => Err(format!("'{name}' is not empty after the cleanup")),
            None => Ok(()),
        }
    }

    /// Buffer and script are old or new. The lock file may hold anything.
    fn is_whole(&self, name: &str, content: &[u8]) -> Result<(), String> {
        let counts = ["clbuff", "cleanup.sh"].contains(&name);
        if counts && !self.disk.has_been(name, content) {
            return Err(format!("'{name}' is neither old nor new: {} bytes", content.len()));
        }
        Ok(())
    }
}

fn put(path: &Path, content: &[u8]) {
    let mode = if path.extension().is_some_and(|e| e == "sh") { 0o700 } else { 0o600 };
    std::fs::write(path, content).unwrap();
    std::fs::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
}

/// An entry that says its name, and then ends in one way or another.
fn entry(n: usize, how: u64) -> String {
    let end = ["", "; exit 3", "; set -eu; false", "; cat <<'EOF'\n'\nEOF\n"];
    match how {
        4 => format!("echo 'ran {n}'; : {}", "x".repeat(70_000)),
        how => format!("echo 'ran {n}'{}", end[usize::try_from(how).unwrap()]),
    }
}

/// What it says.
fn says(entry: &str) -> &str {
    entry.split('\'').nth(1).unwrap()
}

/// Every command, on an empty buffer and on a full one, first, middle and last.
fn every_command() -> Vec<Step> {
    let add = |n, how| Step::Append(entry(n, how));
    vec![
        add(0, 0),
        add(1, 1),
        Step::Prepend(entry(2, 3)),
        Step::Remove(1),
        add(3, 2),
        Step::Rehook,
        Step::Run(1),
        Step::Prepend(entry(4, 0)),
        Step::Final,
        add(5, 0),
    ]
}

fn drawn(dice: &mut Dice) -> Vec<Step> {
    let mut steps = if dice.throw(2) == 0 { vec![Step::Prepare] } else { Vec::new() };
    let mut entries = 0;
    for n in 0..9 {
        let any = |dice: &mut Dice| usize::try_from(dice.throw(entries)).unwrap();
        let step = match dice.throw(10) {
            0 | 1 if entries > 0 => Step::Remove(any(dice)),
            2 if entries > 0 => Step::Run(any(dice)),
            3 => Step::Rehook,
            4 if entries > 0 => Step::Final,
            5 | 6 => Step::Prepend(entry(n, dice.throw(5))),
            _ => Step::Append(entry(n, dice.throw(5))),
        };
        entries = match step {
            Step::Append(_) | Step::Prepend(_) => entries + 1,
            Step::Final => 0,
            Step::Rehook | Step::Prepare => entries,
            Step::Remove(_) | Step::Run(_) => entries - 1,
        };
        steps.push(step);
    }
    if entries > 0 {
        steps.push(Step::Final);
    }
    steps
}

/// States that differ, each with the first moment it may be there at under the same promise. In the
/// short form, two that differ only in files that nobody names any more are one. Where there are too
/// many, some of them are drawn by lot.
fn distinct<'a>(story: &'a Story, dice: &mut Dice) -> Vec<(&'a Moment, &'a Remains)> {
    let mut seen = BTreeSet::new();
    let mut all = Vec::new();
    for moment in &story.moments {
        for remains in &moment.remains {
            let mut key = remains.clone();
            if let (false, Some(files)) = (is_full(), &mut key) {
                let temporary = files.keys().any(|n| n.starts_with(".rl-cleanup-"));
                files.retain(|name, _| !name.starts_with('.') && !name.contains("lock"));
                if temporary {
                    files.insert(".".into(), Vec::new());
                }
            }
            if seen.insert((key, *moment.lists.start(), *moment.lists.end())) {
                all.push((moment, remains));
            }
        }
    }
    let possible = all.len();
    while all.len() as u64 > STATES {
        all.swap_remove(usize::try_from(dice.throw(all.len() as u64)).unwrap());
    }
    println!("power: {} of {possible} states", all.len());
    all
}

fn check_all(part: &Part, story: &Story, name: &str) {
    let left = Mutex::new(distinct(story, &mut Dice::new(seed(1))));
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                loop {
                    let Some((moment, remains)) = left.lock().unwrap().pop() else { return };
                    part.count(story.check(moment, remains).map_err(|e| {
                        let files = remains.as_ref().map(|f| f.keys().collect::<Vec<_>>());
                        format!("{name}, after {}, with {files:?} on the disk: {e}", moment.after)
                    }));
                }
            });
        }
    });
}

#[test]
fn whatever_has_reached_the_disk_the_next_boot_cleans_up() {
    let works = Command::new("strace").args(["-o", "/dev/null", "true"]).status();
    if !works.is_ok_and(|s| s.success()) {
        skip!("power: no strace(1) that may trace here");
    }
    let part = Part::new("power");
    let seed = seed(1);
    let mut stories = vec![("every command".to_owned(), every_command())];
    for n in 0..scale(0, 6) {
        stories.push((format!("seed {}", seed + n), drawn(&mut Dice::new(seed + n))));
    }
    for (name, steps) in stories {
        let mut story = Story::new(seed);
        for step in &steps {
            story.step(step);
        }
        check_all(&part, &story, &name);
    }
    part.finish();
}
