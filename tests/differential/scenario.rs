//! One behaviour: a test, what is done to it, and what must be seen of it. How it is run is `run.rs`'s.

use nix::sys::signal::Signal;

/// What is there to run it with, at the least.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Needs {
    /// The watcher alone.
    Watcher,
    /// The functions for cleanups: BeakerLib, or the shim alone.
    Functions,
    /// BeakerLib's journal.
    BeakerLib,
}

/// How the test is started.
#[derive(Clone, Copy, Debug)]
pub enum Start {
    /// `WATCHER ./test.sh`.
    Watched,
    /// `./test.sh`.
    Unwatched,
    /// Any command, as `bash -c`; `$WATCHER` is the watcher.
    Shell(&'static str),
}

/// One thing that is done from outside, in order.
#[derive(Clone, Copy, Debug)]
pub enum Step {
    /// Waits for this file in the scenario's directory.
    Await(&'static str),
    /// Sends a signal to what was started.
    Send(Signal),
    /// Makes this file.
    Touch(&'static str),
    /// Sends a signal again and again, until the end.
    Repeat(Signal),
}

/// Where the standard output goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Output {
    File,
    /// A pipe whose reader is gone.
    Dead,
    /// A disk that is full.
    Full,
}

/// One thing that can be seen of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fact {
    /// The exit status, or `hangs`.
    Status,
    /// What test and cleanup wrote to `$T/log`.
    Ran,
    /// Standard output without the watcher's messages.
    Prints,
    /// How many `~` there are on standard output.
    Tildes,
    /// Where the watcher's messages are.
    Messages,
    /// Files and processes of the run that are left.
    Left,
    /// How many lines of complaint the final script's shell printed.
    Noise,
    /// The phases of the journal with their results.
    Phases,
    /// The last overall result of the journal.
    Overall,
    /// Warnings about the missing watcher in the journal.
    Warnings,
}

impl Fact {
    pub fn name(self) -> &'static str {
        match self {
            Self::Status => "status",
            Self::Ran => "ran",
            Self::Prints => "prints",
            Self::Tildes => "bytes",
            Self::Messages => "messages",
            Self::Left => "left",
            Self::Noise => "noise",
            Self::Phases => "phases",
            Self::Overall => "overall",
            Self::Warnings => "warnings",
        }
    }
}

#[derive(Clone, Debug)]
pub struct Scenario {
    pub id: &'static str,
    /// One line for a person: what is looked at.
    pub what: &'static str,
    pub needs: Needs,
    pub start: Start,
    pub test: String,
    pub cleanup: Option<&'static str>,
    pub steps: Vec<Step>,
    pub stdin: Option<&'static str>,
    pub output: Output,
    pub env: Vec<(&'static str, &'static str)>,
    /// How often the test is run in the same directory; `$RUN` counts.
    pub runs: u32,
    /// The original does not come to an end here and is stopped after a few seconds.
    pub original_hangs: bool,
    pub root: bool,
    /// What is to be seen with ours.
    pub seen: Vec<(Fact, &'static str)>,
}

impl Scenario {
    fn new(id: &'static str, what: &'static str, needs: Needs, test: String) -> Self {
        Self {
            id,
            what,
            needs,
            start: Start::Watched,
            test,
            cleanup: None,
            steps: Vec::new(),
            stdin: None,
            output: Output::File,
            env: vec![("TESTWATCHER_EXIT_ZERO", "1")],
            runs: 1,
            original_hangs: false,
            root: false,
            seen: Vec::new(),
        }
    }

    pub fn cleanup(mut self, body: &'static str) -> Self {
        self.cleanup = Some(body);
        self
    }

    pub fn start(mut self, start: Start) -> Self {
        self.start = start;
        self
    }

    pub fn then(mut self, steps: &[Step]) -> Self {
        self.steps.extend_from_slice(steps);
        self
    }

    pub fn stdin(mut self, text: &'static str) -> Self {
        self.stdin = Some(text);
        self
    }

    pub fn output(mut self, output: Output) -> Self {
        self.output = output;
        self
    }

    pub fn env(mut self, name: &'static str, value: &'static str) -> Self {
        self.env.push((name, value));
        self
    }

    /// With the watcher's own exit status, and not the original's eternal 0.
    pub fn own_status(mut self) -> Self {
        self.env.retain(|(name, _)| *name != "TESTWATCHER_EXIT_ZERO");
        self
    }

    pub fn runs(mut self, runs: u32) -> Self {
        self.runs = runs;
        self
    }

    pub fn original_hangs(mut self) -> Self {
        self.original_hangs = true;
        self
    }

    pub fn needs_root(mut self) -> Self {
        self.root = true;
        self
    }

    pub fn needs_beakerlib(mut self) -> Self {
        self.needs = Needs::BeakerLib;
        self
    }

    pub fn sees(mut self, fact: Fact, value: &'static str) -> Self {
        self.seen.push((fact, value));
        self
    }
}

/// Makes the file `ready`, or another, once the watcher sleeps. A signal that comes before its fork(2) has
/// returned finds the original without the number of what it is to kill, and then it never kills it.
pub const READY: &str = "ready() {
  until [[ $(</proc/$PPID/stat) == *') S '* ]]; do sleep 0.01; done
  : >\"$T/${1-ready}\"
}\n";

/// A test of the watcher alone; it may hook `$T/cleanup.sh` by calling `hook`.
pub fn watcher(id: &'static str, what: &'static str, test: &str) -> Scenario {
    let head = format!("{READY}hook() {{ printf '%s\\n' \"$T/cleanup.sh\" >\"$TESTWATCHER_CLPATH\"; }}\n");
    Scenario::new(id, what, Needs::Watcher, format!("{head}{test}"))
}

/// A test that stacks cleanups: `body` runs between rlJournalStart and rlJournalEnd.
pub fn stack(id: &'static str, what: &'static str, body: &str) -> Scenario {
    let test = format!(". \"$T/head.sh\"\nrlJournalStart\n{body}\nrlJournalEnd");
    Scenario::new(id, what, Needs::Functions, test)
}

/// The same, in a test phase.
pub fn journal(id: &'static str, what: &'static str, body: &str) -> Scenario {
    let body = format!("rlPhaseStartTest\n{body}\nrlPhaseEnd");
    stack(id, what, &body).needs_beakerlib()
}

/// The same, whole: it starts and ends the journal itself, or does not.
pub fn whole(id: &'static str, what: &'static str, test: &str) -> Scenario {
    Scenario::new(id, what, Needs::Functions, format!(". \"$T/head.sh\"\n{test}"))
}
