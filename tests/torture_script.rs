//! The final script among entries that do to a shell whatever can be done to one, killed in the middle
//! and started again until it is done.
//!
//! Every entry runs, in order. None runs twice, unless the kill fell between its start and its strike.
//! What one sets the later ones see, as long as the same process goes on; and what it had when a shell
//! was last handed over is there after a kill, too.
#![allow(clippy::unwrap_used, reason = "a test that panics has failed")]

mod common;
#[path = "common/torture.rs"]
mod torture;

use common::State;
use nix::errno::Errno;
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use std::os::unix::process::CommandExt;
use std::process::{Child, ExitStatus};
use std::sync::Mutex;
use std::time::{Duration, Instant};
use torture::{Dice, Part, scale, seed};

/// What an entry does after it has said its number. `@` is that number; `$D` is a directory of the
/// test's own, in which a file keeps what must not happen twice from doing so: what ends bash past any
/// trap would end it again at each start.
const DEEDS: &[&str] = &[
    "true",
    "false",
    "exit @",
    "return 3",
    "set -e; false",
    "set -eu; trap 'exit 9' ERR; false",
    "set -u; : $never_set",
    ": ${never_set:?gone}",
    "(exit 4)",
    "eval 'if then'",
    "eval 'case x in'; exit",
    "[[ -e $D/@ ]] || { : >$D/@; exec true; }",
    "[[ -e $D/@ ]] || { : >$D/@; kill -9 $$; }",
    "[[ -e $D/@ ]] || { : >$D/@; exec kill -9 $$; }",
    "kill $$",
    "kill -HUP $$",
    "readonly r@=1; r@=2",
    "no_such_command_anywhere",
    "unset -v PATH HOME PWD",
    "unset -f trap rlAppendCleanup; unalias -a",
    "enable -n echo printf test read",
    "enable -n eval exec exit; exit 3",
    "exit() { :; }; eval() { :; }; exec() { :; }; printf() { :; }",
    "trap() { :; }; unset() { :; }; set() { :; }; declare() { :; }",
    "__rlc_x() { :; }; __rlcx() { :; }; rl-cleanup() { false; }; cat() { false; }",
    "alias exit=true eval=true builtin=false; shopt -s expand_aliases",
    // And no exit behind it: in POSIX mode, which another entry may have set, that ends bash for good.
    "trap 'echo trapped' EXIT",
    "trap '' TERM INT; trap 'false' DEBUG",
    "[[ -e $D/@ ]] || { : >$D/@; shopt -s extdebug; trap 'false' DEBUG; }",
    "trap 'exit 3' ERR; false",
    "trap 'return 3' DEBUG; trap ': 3' RETURN",
    "set -o posix; . /nonexistent/file",
    "set -o posix; set -e; false",
    "IFS=0123456789abcdef; set -f",
    "set -k; set -a; set -C; set -vx",
    "shopt -s failglob nullglob dotglob extglob lastpipe",
    "[[ -e $D/@ ]] || { : >$D/@; set -n; }",
    "exec 3>&1 4</dev/null; exec >&- 2>&-",
    "exec <&-; umask 777; cd /",
    "ulimit -n 12",
    "sleep 0.01 & disown",
    // Shorter than the patience below: a kill may fall between the two.
    "sleep 20 & kill -9 $!; wait $!",
    "cat <<'EOF'\nquo'te $(no) \\\nEOF",
    "cat <<EOF\nnever ended",
    "if true; then\n  exit 5\nfi",
    "while true; do break 9; done; continue; shift 99",
    "LC_ALL=C.UTF-8 LANG=xx; TZ=; BASH_ENV=/x ENV=/x; PS4='$(exit 1)'",
    "f@() { local -r x=1; exit \"$x\"; }; f@",
    "coproc { cat; }; exit",
    "$RL append ': later @' && $RL remove $($RL list | sed -n '/later @$/s/ .*//p')",
    "$RL prepend 'LOG x@'",
    "$RL append 'LOG x@'; exit 1",
    "$RL run $($RL append --print-id 'LOG x@; exit 7')",
    "$RL remove $($RL list | sed -n '/VICTIM/s/ .*//p')",
];

/// In how many ways a cleanup is interrupted.
#[derive(Debug, Clone, Copy)]
enum Blow {
    /// The script's bash alone: what it has started goes on for a while.
    Shell,
    /// All of it, as a watcher does.
    Group,
}

/// One cleanup, from its entries to its end.
struct Round {
    state: State,
    deeds: Vec<String>,
    dice: Dice,
    kills: u64,
}

/// One line of the log.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Line {
    /// This entry has begun, and saw that these had run.
    Began(usize, Vec<usize>),
    /// An entry that another one had added has run.
    Extra(String),
    /// The script was killed.
    Killed,
}

impl Round {
    fn new(seed: u64) -> Self {
        let mut dice = Dice::new(seed);
        let state = State::new();
        std::fs::create_dir(state.path("d")).unwrap();
        let count = 4 + dice.throw(6);
        let mut deeds: Vec<String> = (0..count)
            .map(|_| DEEDS[usize::try_from(dice.throw(DEEDS.len() as u64)).unwrap()].to_owned())
            .collect();
        if dice.throw(8) == 0 {
            // More than one argument of execve(2) may hold.
            deeds.push(format!("x='{}'; [[ ${{#x}} -eq 140000 ]] || LOG xshort", "y".repeat(140_000)));
        }
        Self { state, deeds, dice, kills: 0 }
    }

    /// Through no builtin and no PATH, as both may be gone; and whole, as kills are about.
    fn entry(&self, n: usize) -> String {
        let log = self.state.path("log");
        let say = |what: &str| format!("/bin/cat >>'{}' <<<\"{what}\"", log.display());
        let deed = self.deeds[n]
            .replace("$RL", common::BINARY)
            .replace("$D", self.state.path("d").to_str().unwrap())
            .replace('@', &n.to_string());
        let deed = replace_log(&deed, &log.display().to_string());
        format!("{}; seen=\"${{seen-}} {n}\"\n{deed}", say(&format!("began {n}:${{seen-}}")))
    }

    fn fill(&mut self) {
        let by_shell = self.dice.throw(2) == 0;
        let mut script = String::new();
        for n in 0..self.deeds.len() {
            let file = self.state.write(&format!("entry{n}"), self.entry(n));
            if by_shell {
                script += &format!("rlAppendCleanup \"$(cat '{}'; echo .)\"\n", file.display());
            } else {
                self.state.cli_with_input(["append", "-"], &std::fs::read(file).unwrap()).ok();
            }
        }
        if by_shell {
            // The point keeps the command substitution from taking newlines away.
            let script = script.replace("echo .)\"", "echo)\"");
            let ended = self.state.shell(format!("RL_CLEANUP_NO_TRAP=1\n{script}"));
            assert_eq!(ended.status, Some(0), "{ended:#?}");
        }
        self.state.append(": VICTIM");
    }

    fn log(&self) -> Vec<Line> {
        let text = std::fs::read_to_string(self.state.path("log")).unwrap_or_default();
        text.lines().filter_map(parse).collect()
    }

    fn killed(&mut self) {
        use std::io::Write;
        self.kills += 1;
        let mut file =
            std::fs::OpenOptions::new().append(true).create(true).open(self.state.path("log")).unwrap();
        file.write_all(b"killed\n").unwrap();
    }

    /// Starts the script again and again, and kills it now and then, until it is done.
    fn run(&mut self) -> Result<(), String> {
        for _ in 0..40 {
            let lines = self.log().len();
            let file = std::fs::File::create(self.state.path("output")).unwrap();
            let mut child = self
                .state
                .command(self.state.script())
                .process_group(0)
                .stdout(file.try_clone().unwrap())
                .stderr(file)
                .spawn()
                .map_err(|e| {
                    format!("it cannot be started: {e}, with this buffer: {}", self.state.read("clbuff"))
                })?;
            if self.dice.throw(2) == 0 {
                self.strike_down(&mut child, lines)?;
            }
            wait(&mut child).ok_or_else(|| format!("it hangs: {}", self.output()))?;
            empty_group(&child)?;
            if self.is_done() {
                return Ok(());
            }
            // What was ended past any trap, an entry's exec or kill -9 among it, is a kill too.
            self.killed();
            if self.dice.throw(2) == 0 {
                self.state.cli(["rehook"]).ok();
                // Where only the emptying of the script was left to do.
                if self.is_done() {
                    return Ok(());
                }
            }
        }
        Err(format!("not done after 40 starts: {}", self.output()))
    }

    fn is_done(&self) -> bool {
        ["clbuff", "cleanup.sh"].iter().all(|name| self.state.read(name).is_empty())
    }

    fn output(&self) -> String {
        let text = std::fs::read(self.state.path("output")).unwrap_or_default();
        String::from_utf8_lossy(&text[text.len().saturating_sub(2000)..]).into_owned()
    }

    /// Kills it a while after so many more entries have begun.
    fn strike_down(&mut self, child: &mut Child, lines: usize) -> Result<(), String> {
        let more = usize::try_from(self.dice.throw(4)).unwrap();
        let start = Instant::now();
        while self.log().len() < lines + more && child.try_wait().unwrap().is_none() {
            if start.elapsed() > Duration::from_secs(60) {
                return Err(format!("it hangs: {}", self.output()));
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        std::thread::sleep(Duration::from_micros(self.dice.throw(30_000)));
        match if self.dice.throw(2) == 0 { Blow::Shell } else { Blow::Group } {
            Blow::Shell => drop(child.kill()),
            Blow::Group => drop(killpg(group(child), Signal::SIGKILL)),
        }
        Ok(())
    }

    /// Compares the log with what was promised.
    fn judge(&self, part: &Part) -> Result<(), String> {
        let lines = self.log();
        let mut last: Option<usize> = None;
        let mut this_life: Vec<usize> = Vec::new();
        let mut after_kill = false;
        for line in &lines {
            match line {
                Line::Killed => {
                    this_life.clear();
                    after_kill = true;
                }
                Line::Extra(_) => {}
                Line::Began(n, seen) => {
                    part.tried();
                    let next = last.map_or(0, |l| l + 1);
                    if *n != next && !(Some(*n) == last && after_kill) {
                        return Err(format!("entry {n} came where {next} was due: {lines:?}"));
                    }
                    if let Some(lost) = this_life.iter().find(|n| !seen.contains(n)) {
                        return Err(format!("entry {n} did not see what {lost} had set: {lines:?}"));
                    }
                    (last, after_kill) = (Some(*n), false);
                    this_life.push(*n);
                }
            }
        }
        if last != Some(self.deeds.len() - 1) {
            return Err(format!("not every entry has run: {lines:?}"));
        }
        self.judge_extras(&lines)
    }

    /// Each that an entry has added has run; more than once only if a kill may have had it added or
    /// run again.
    fn judge_extras(&self, lines: &[Line]) -> Result<(), String> {
        for (n, deed) in self.deeds.iter().enumerate().filter(|(_, d)| d.contains("LOG x@")) {
            let name = format!("x{n}");
            let ran = lines.iter().filter(|l| **l == Line::Extra(name.clone())).count() as u64;
            if ran == 0 || ran > 1 + 2 * self.kills {
                return Err(format!("what '{deed}' has added ran {ran} times: {lines:?}"));
            }
        }
        match lines.iter().find(|l| **l == Line::Extra("xshort".into())) {
            Some(_) => Err("a long text was cut short".into()),
            None => Ok(()),
        }
    }
}

/// `LOG word` says a word in the log.
fn replace_log(deed: &str, log: &str) -> String {
    let mut out = String::new();
    let mut rest = deed;
    while let Some((before, after)) = rest.split_once("LOG ") {
        let end = after.find(|c: char| !c.is_ascii_alphanumeric()).unwrap_or(after.len());
        out += before;
        out += &format!("/bin/cat >>{log} <<<{}", &after[..end]);
        rest = &after[end..];
    }
    out + rest
}

fn parse(line: &str) -> Option<Line> {
    if line == "killed" {
        return Some(Line::Killed);
    }
    match line.strip_prefix("began ").and_then(|r| r.split_once(':')) {
        None => Some(Line::Extra(line.to_owned())),
        Some((n, seen)) => {
            let seen = seen.split_ascii_whitespace().filter_map(|n| n.parse().ok()).collect();
            Some(Line::Began(n.parse().ok()?, seen))
        }
    }
}

fn group(child: &Child) -> Pid {
    Pid::from_raw(i32::try_from(child.id()).unwrap())
}

fn wait(child: &mut Child) -> Option<ExitStatus> {
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(120) {
        if let Some(status) = child.try_wait().unwrap() {
            return Some(status);
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    let _ = killpg(group(child), Signal::SIGKILL);
    None
}

/// A killed shell's last commands may be at work still, as a killed watcher's guard would see.
fn empty_group(child: &Child) -> Result<(), String> {
    let start = Instant::now();
    while killpg(group(child), None) != Err(Errno::ESRCH) {
        if start.elapsed() > Duration::from_secs(60) {
            let _ = killpg(group(child), Signal::SIGKILL);
            return Err("something is left running".into());
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}

fn play(part: &Part, seed: u64) -> u64 {
    let mut round = Round::new(seed);
    round.fill();
    if let Err(how) = round.run().and_then(|()| round.judge(part)) {
        let deeds: Vec<String> = round.deeds.iter().map(|d| d.chars().take(70).collect()).collect();
        part.lost(format!("seed {seed}, {deeds:?}: {how}"));
    }
    round.kills
}

#[test]
fn every_entry_runs_in_order_whatever_the_others_and_the_world_do() {
    let part = Part::new("script");
    let first = seed(1);
    let left = Mutex::new((first..first + scale(10, 250)).collect::<Vec<_>>());
    let kills = Mutex::new(0);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                loop {
                    let Some(seed) = left.lock().unwrap().pop() else { return };
                    let killed = play(&part, seed);
                    *kills.lock().unwrap() += killed;
                }
            });
        }
    });
    let kills = kills.into_inner().unwrap();
    println!("script: {kills} times killed and resumed");
    assert!(kills > 0, "nothing was killed");
    part.finish();
}
