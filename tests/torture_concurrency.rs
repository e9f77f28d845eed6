//! Many at once: processes that append and prepend, some of them killed, among listers, removers and
//! one that is stopped while it holds the lock.
//!
//! Every entry that was answered with 0 is there once, unless a remover was answered with 0 for it; one
//! whose command was killed is there once or not at all; one whose command failed is not there. Each
//! process's own entries keep its order: what it appended, and in reverse what it prepended.
#![allow(clippy::unwrap_used, reason = "a test that panics has failed")]

mod common;
#[path = "common/torture.rs"]
mod torture;

use common::{BINARY, State, wait_for};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::MetadataExt;
use std::process::{Child, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use torture::{Dice, Part, scale, seed};

/// What its caller knows of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Answer {
    /// Exit status 0.
    Done,
    /// Another one, or a signal: nobody knows.
    Killed,
    /// Exit status 1.
    Refused,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Left,
    Killed,
}

/// All that has been done, from the sides of those who did it.
struct Crowd {
    state: State,
    added: Mutex<BTreeMap<String, Answer>>,
    /// Texts, for each answer that a remover got.
    removed: Mutex<Vec<(String, Answer)>>,
    /// Workers that are not done.
    working: AtomicU64,
    complaints: Mutex<Vec<String>>,
}

/// An entry's text: which worker, which of its entries, which end.
fn text(worker: u64, n: u64, end: &str) -> String {
    format!(": {worker} {n} {end}")
}

fn parse(text: &str) -> (u64, u64, &str) {
    let mut words = text.split(' ').skip(1);
    let mut number = || words.next().unwrap().parse().unwrap();
    let (worker, n) = (number(), number());
    (worker, n, words.next().unwrap())
}

impl Crowd {
    fn complain(&self, about: String) {
        self.complaints.lock().unwrap().push(about);
    }

    /// Runs one command, killed after a while that the dice say.
    fn call(&self, args: &[&str], fate: Fate, dice: &mut Dice) -> Answer {
        let mut child = self
            .state
            .command(BINARY)
            .args(args)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        if fate == Fate::Killed {
            std::thread::sleep(Duration::from_micros(dice.throw(60_000)));
            let _ = child.kill();
        }
        match child.wait().unwrap().code() {
            Some(0) => Answer::Done,
            Some(1) => Answer::Refused,
            None => Answer::Killed,
            other => {
                self.complain(format!("{args:?} ended with {other:?}"));
                Answer::Killed
            }
        }
    }

    fn work(&self, worker: u64, entries: u64, mut dice: Dice) {
        for n in 0..entries {
            let end = ["append", "prepend"][usize::try_from(dice.throw(2)).unwrap()];
            let fate = if dice.throw(12) == 0 { Fate::Killed } else { Fate::Left };
            let text = text(worker, n, end);
            let answer = self.call(&[end, "--", &text], fate, &mut dice);
            self.added.lock().unwrap().insert(text, answer);
        }
        self.working.fetch_sub(1, Ordering::SeqCst);
    }

    fn is_busy(&self) -> bool {
        self.working.load(Ordering::SeqCst) > 0
    }

    /// Ids and texts, as `list` shows them to anybody at any time.
    fn look(&self) -> Vec<(String, String)> {
        let json = self.state.cli(["list", "--json"]);
        if json.status == Some(3) {
            return Vec::new();
        }
        let list: serde_json::Value = serde_json::from_str(&json.ok().out).unwrap();
        let field = |e: &serde_json::Value, f: &str| e[f].as_str().unwrap().to_owned();
        list.as_array().unwrap().iter().map(|e| (field(e, "id"), field(e, "text"))).collect()
    }

    fn list_on(&self) {
        while self.is_busy() {
            for wrong in disorder(&self.look()) {
                self.complain(format!("a list shows {wrong}"));
            }
        }
    }

    fn remove_on(&self, mut dice: Dice) {
        while self.is_busy() {
            let list = self.look();
            if list.is_empty() {
                continue;
            }
            let (id, text) = &list[usize::try_from(dice.throw(list.len() as u64)).unwrap()];
            let fate = if dice.throw(8) == 0 { Fate::Killed } else { Fate::Left };
            let answer = self.call(&["remove", id], fate, &mut dice);
            self.removed.lock().unwrap().push((text.clone(), answer));
        }
    }

    /// Stops a process while it holds the lock, until others wait for it.
    fn stop_a_holder(&self, worker: u64) {
        for n in 0.. {
            if !self.is_busy() {
                return self.complain("nobody was caught holding the lock".into());
            }
            let text = text(worker, n, "append");
            let mut child = self.state.command(BINARY).args(["append", "--", &text]).spawn().unwrap();
            let pid = Pid::from_raw(i32::try_from(child.id()).unwrap());
            let caught = self.catch(&mut child, pid);
            if caught {
                wait_for("others to wait", || (self.locks(pid).1 > 0).then_some(()));
            }
            // Its number is its own as long as nobody has reaped it.
            if child.try_wait().unwrap().is_none() {
                kill(pid, Signal::SIGCONT).unwrap();
            }
            let answer = if child.wait().unwrap().success() { Answer::Done } else { Answer::Killed };
            self.added.lock().unwrap().insert(text.clone(), answer);
            if caught {
                if answer != Answer::Done {
                    self.complain(format!("'{text}' was stopped and did not go on"));
                }
                return;
            }
        }
    }

    /// Whether the process could be stopped with the lock in its hand.
    fn catch(&self, child: &mut Child, pid: Pid) -> bool {
        while child.try_wait().unwrap().is_none() {
            if self.locks(pid).0 {
                kill(pid, Signal::SIGSTOP).unwrap();
                let stopped = || {
                    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
                    stat.contains(") T").then_some(())
                };
                // It may have been about to end, and be a zombie instead.
                let start = Instant::now();
                while stopped().is_none() && start.elapsed() < Duration::from_secs(5) {
                    std::thread::yield_now();
                }
                return stopped().is_some() && self.locks(pid).0;
            }
        }
        false
    }

    /// Whether this process holds the lock, and how many wait for it (proc_locks(5)).
    fn locks(&self, pid: Pid) -> (bool, usize) {
        let Ok(meta) = std::fs::metadata(self.state.dir.join("clbuff.lock")) else { return (false, 0) };
        let inode = format!(":{}", meta.ino());
        let all = std::fs::read_to_string("/proc/locks").unwrap();
        let (mut holds, mut waiting) = (false, 0);
        for line in all.lines().filter(|l| l.split_ascii_whitespace().any(|f| f.ends_with(&inode))) {
            let fields: Vec<&str> = line.split_ascii_whitespace().collect();
            match fields[1] {
                "->" => waiting += 1,
                _ => holds |= fields[4] == pid.to_string(),
            }
        }
        (holds, waiting)
    }

    /// Compares what is there with what was answered.
    fn judge(&self, part: &Part) {
        let list = self.look();
        let there: BTreeSet<&str> = list.iter().map(|(_, text)| &**text).collect();
        let added = self.added.lock().unwrap();
        let removed = self.removed.lock().unwrap();
        let answers = |text: &str, a: Answer| removed.iter().filter(|(t, r)| t == text && *r == a).count();
        for (text, answer) in &*added {
            let (done, unknown) = (answers(text, Answer::Done), answers(text, Answer::Killed));
            let is_there = there.contains(&**text);
            part.count(match answer {
                _ if done > 1 => Err(format!("'{text}' was removed {done} times")),
                _ if done == 1 && is_there => Err(format!("'{text}' was removed, and is there")),
                Answer::Done if done == 0 && unknown == 0 && !is_there => {
                    Err(format!("'{text}' was answered with 0, and is lost"))
                }
                Answer::Refused if is_there || done > 0 => {
                    Err(format!("'{text}' was answered with 1, and is there"))
                }
                _ => Ok(()),
            });
        }
        for text in there.iter().filter(|t| !added.contains_key(**t)) {
            part.lost(format!("'{text}' was never added"));
        }
        for wrong in disorder(&list).into_iter().chain(self.complaints.lock().unwrap().drain(..)) {
            part.lost(wrong);
        }
        let done = added.values().filter(|a| **a == Answer::Done).count();
        let killed = added.values().filter(|a| **a == Answer::Killed).count();
        let taken = removed.iter().filter(|(_, a)| *a == Answer::Done).count();
        println!("concurrency: {done} added, {killed} killed, {taken} removed, {} left", list.len());
        if done == 0 || killed == 0 || taken == 0 {
            part.lost("too little has happened to say anything");
        }
        self.judge_files(part, &list);
    }

    /// The script holds the same entries, and no file is left of those who were killed.
    fn judge_files(&self, part: &Part, list: &[(String, String)]) {
        let script = self.state.read("cleanup.sh");
        let called = script.lines().filter_map(|l| l.strip_prefix("\\__rlcx_entry ")?.split(' ').next());
        part.count(if called.eq(list.iter().map(|(id, _)| &**id)) {
            Ok(())
        } else {
            Err("buffer and final script hold different entries".into())
        });
        self.state.append(": the next one");
        let names = self.state.names();
        let whole = names == ["clbuff", "clbuff.lock", "cleanup.sh"];
        part.count(if whole { Ok(()) } else { Err(format!("left behind: {names:?}")) });
    }
}

/// What is there twice, or not in the order in which its process has added it. Whatever is prepended
/// stands in front of all that is appended.
fn disorder(list: &[(String, String)]) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut seen = BTreeSet::new();
    let mut last: BTreeMap<(u64, &str), u64> = BTreeMap::new();
    let mut appended = false;
    for (_, text) in list {
        let (worker, n, end) = parse(text);
        if !seen.insert(text) {
            wrong.push(format!("'{text}' twice"));
        }
        let before = last.insert((worker, end), n);
        let in_order = before.is_none_or(|b| if end == "append" { b < n } else { b > n });
        if !in_order || (end == "prepend" && appended) {
            wrong.push(format!("'{text}' in the wrong place"));
        }
        appended |= end == "append";
    }
    wrong
}

#[test]
fn what_was_answered_is_there_once_and_in_order() {
    let part = Part::new("concurrency");
    let seed = seed(1);
    let (workers, entries) = (scale(12, 64), scale(12, 50));
    let crowd = Crowd {
        state: State::new(),
        added: Mutex::default(),
        removed: Mutex::default(),
        working: AtomicU64::new(workers),
        complaints: Mutex::default(),
    };
    std::thread::scope(|scope| {
        let crowd = &crowd;
        for worker in 0..workers {
            scope.spawn(move || crowd.work(worker, entries, Dice::new(seed * 1000 + worker)));
        }
        for n in 0..2 {
            scope.spawn(move || crowd.list_on());
            scope.spawn(move || crowd.remove_on(Dice::new(seed * 1000 + 900 + n)));
        }
        scope.spawn(move || crowd.stop_a_holder(workers));
    });
    crowd.judge(&part);
    part.finish();
}
