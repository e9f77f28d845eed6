//! Runs a scenario in one of four ways and says what was seen.

use super::scenario::{Fact, Needs, Output, READY, Scenario, Start, Step};
use super::stage;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs::{self, File};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Who runs it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subject {
    /// BeakerLib's watcher and BeakerLib's functions.
    Original,
    /// Ours, the shim alone.
    Alone,
    /// Ours, the shim sourced after BeakerLib.
    Sourced,
    /// Ours, the shim as a plugin of a copy of BeakerLib.
    Plugin,
}

/// A busy machine may take long; what gets here has failed.
const LIMIT: Duration = Duration::from_secs(90);
/// How long the original is watched doing nothing, where it is known to do nothing.
const HANGING: Duration = Duration::from_secs(6);
/// How long the original is given to leave what ours leaves.
const SETTLED: Duration = Duration::from_secs(3);

/// Where things are.
#[derive(Debug)]
pub struct Site {
    beakerlib: Option<PathBuf>,
    plugin: Option<tempfile::TempDir>,
}

impl Site {
    /// Makes the copy of BeakerLib with the shim as its plugin, if there is a BeakerLib.
    pub fn new() -> Self {
        let beakerlib = stage::beakerlib().filter(|dir| dir.join("beakerlib.sh").exists());
        let plugin = beakerlib.as_ref().map(|original| {
            let dir = stage::scratch();
            let copy = dir.path().join("copy");
            let copied = Command::new("cp").arg("-r").args([original, &copy]).status().unwrap();
            assert!(copied.success());
            let plugins = copy.join("plugins");
            fs::create_dir_all(&plugins).unwrap();
            fs::copy(shim(), plugins.join("rl-cleanup.sh")).unwrap();
            dir
        });
        Self { beakerlib, plugin }
    }

    pub fn has_beakerlib(&self) -> bool {
        self.beakerlib.is_some()
    }

    /// The original watcher: the one that a variable names, or the one that belongs to BeakerLib.
    pub fn original_watcher(&self) -> Option<PathBuf> {
        let named = std::env::var_os("WATCHER_ORIGINAL").map(PathBuf::from);
        named
            .or_else(|| Some(self.beakerlib.as_ref()?.join("../../bin/beakerlib-testwatcher")))
            .filter(|w| w.exists())
    }

    fn watcher(&self, subject: Subject) -> PathBuf {
        match subject {
            Subject::Original => self.original_watcher().unwrap(),
            _ => env!("CARGO_BIN_EXE_beakerlib-testwatcher").into(),
        }
    }

    /// What a test sources first.
    fn head(&self, subject: Subject) -> String {
        let shim = format!(". '{}'\n", shim().display());
        let source = |dir: &Path| format!("export BEAKERLIB='{0}'\n. '{0}/beakerlib.sh'\n", dir.display());
        let note = "echo \"${TESTWATCHER_CLPATH-}\" >\"$T/clpath\"\n";
        let functions = match subject {
            Subject::Alone => shim,
            Subject::Original => source(self.beakerlib.as_ref().unwrap()),
            Subject::Sourced => source(self.beakerlib.as_ref().unwrap()) + &shim,
            Subject::Plugin => source(&self.plugin.as_ref().unwrap().path().join("copy")),
        };
        format!("{note}{READY}{functions}")
    }
}

fn shim() -> PathBuf {
    stage::repository().join("shell/rl-cleanup.sh")
}

/// What was seen, in the order in which the scenario lists it.
pub type Seen = Vec<(Fact, String)>;

/// Runs it, and returns what was seen.
pub fn run(site: &Site, scenario: &Scenario, subject: Subject) -> Seen {
    let stage = Stage::new(site, scenario, subject);
    let mut status = String::new();
    for run in 1..=scenario.runs {
        status = stage.once(run);
    }
    let left = stage.left();
    scenario.seen.iter().map(|(fact, _)| (*fact, stage.look(*fact, &status, &left))).collect()
}

struct Stage<'a> {
    dir: tempfile::TempDir,
    scenario: &'a Scenario,
    subject: Subject,
    watcher: PathBuf,
}

impl<'a> Stage<'a> {
    fn new(site: &Site, scenario: &'a Scenario, subject: Subject) -> Self {
        let stage = Self { dir: stage::scratch(), scenario, subject, watcher: site.watcher(subject) };
        let note = "#!/bin/bash\necho \"${TESTWATCHER_CLPATH-}\" >\"$T/clpath\"\n";
        if scenario.needs == Needs::Watcher {
            stage.script("test.sh", &format!("{note}{}\n", scenario.test));
        } else {
            fs::write(stage.path("head.sh"), site.head(subject)).unwrap();
            stage.script("test.sh", &format!("#!/bin/bash\n{}\n", scenario.test));
        }
        if let Some(body) = scenario.cleanup {
            stage.script("cleanup.sh", body);
        }
        stage
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn text(&self, name: &str) -> String {
        fs::read(self.path(name)).map(|b| String::from_utf8_lossy(&b).into_owned()).unwrap_or_default()
    }

    /// An executable file, put there by another process: what this one had open for writing, the fork of
    /// another thread may still have when it is executed (ETXTBSY).
    fn script(&self, name: &str, text: &str) {
        let new = self.path(&format!("{name}.new"));
        fs::write(&new, text).unwrap();
        let copied = Command::new("install").arg("-m755").arg(&new).arg(self.path(name)).status().unwrap();
        assert!(copied.success());
        fs::remove_file(new).unwrap();
    }

    fn command(&self, run: u32) -> Command {
        let mut command = Command::new("env");
        // Under nohup or in a background job these are ignored, and so they would be below.
        command.arg("--default-signal=HUP,INT,QUIT").env_clear();
        match self.scenario.start {
            Start::Watched => command.arg(&self.watcher).arg("./test.sh"),
            Start::Unwatched => command.arg("./test.sh"),
            Start::Shell(text) => command.args(["bash", "-c", text]),
        };
        let system = std::env::var("PATH").unwrap_or_default();
        command
            .env("PATH", format!("{system}:/usr/bin:/bin:/usr/sbin:/sbin"))
            .env("HOME", "/")
            .env("TERM", "dumb")
            .env("T", self.dir.path())
            .env("RUN", run.to_string())
            .env("WATCHER", &self.watcher)
            .env("BEAKERLIB_DIR", self.path("state"))
            .env("BEAKERLIB_JOURNAL", "0")
            .current_dir(self.dir.path());
        if self.subject != Subject::Original {
            command.env("RL_CLEANUP", env!("CARGO_BIN_EXE_rl-cleanup"));
        }
        for (name, value) in &self.scenario.env {
            command.env(name, value.replace("$T", &self.dir.path().to_string_lossy()));
        }
        command
    }

    /// One run to its end; its exit status as a shell has it.
    fn once(&self, run: u32) -> String {
        let mut command = self.command(run);
        command.stderr(File::options().append(true).create(true).open(self.path("stderr")).unwrap());
        command.stdout(match self.scenario.output {
            Output::File => File::options().append(true).create(true).open(self.path("stdout")).unwrap(),
            Output::Full => File::options().write(true).open("/dev/full").unwrap(),
            Output::Dead => File::from(nix::unistd::pipe().unwrap().1),
        });
        match self.scenario.stdin {
            None => command.stdin(Stdio::null()),
            Some(text) => {
                fs::write(self.path("stdin"), text).unwrap();
                let mut cat =
                    Command::new("cat").arg(self.path("stdin")).stdout(Stdio::piped()).spawn().unwrap();
                let pipe = cat.stdout.take().unwrap();
                let _ = cat.wait();
                command.stdin(pipe)
            }
        };
        let mut child = command.spawn().unwrap();
        let limit = match self.subject {
            Subject::Original if self.scenario.original_hangs => HANGING,
            _ => LIMIT,
        };
        let end = Instant::now() + limit;
        if run == 1 {
            for step in &self.scenario.steps {
                self.perform(*step, &mut child, end);
            }
        }
        match until(end, || child.try_wait().unwrap()) {
            Some(status) => status.code().unwrap_or_else(|| 128 + status.signal().unwrap()).to_string(),
            None => {
                for pid in self.processes() {
                    let _ = kill(pid, Signal::SIGKILL);
                }
                let _ = child.kill();
                let _ = child.wait();
                "hangs".into()
            }
        }
    }

    fn perform(&self, step: Step, child: &mut Child, end: Instant) {
        let pid = Pid::from_raw(i32::try_from(child.id()).unwrap());
        match step {
            Step::Await(name) => {
                until(end, || {
                    (self.path(name).exists() || child.try_wait().unwrap().is_some()).then_some(())
                });
            }
            Step::Touch(name) => fs::write(self.path(name), "").unwrap(),
            // It may have ended already, which its facts tell.
            Step::Send(signal) if child.try_wait().unwrap().is_none() => kill(pid, signal).unwrap(),
            Step::Send(_) => {}
            Step::Repeat(signal) => {
                until(end, || {
                    let ended = child.try_wait().unwrap().is_some();
                    if !ended {
                        let _ = kill(pid, signal);
                        std::thread::sleep(Duration::from_millis(20));
                    }
                    ended.then_some(())
                });
            }
        }
    }

    /// The living processes of this run: those with its directory in their environment.
    fn processes(&self) -> Vec<Pid> {
        let mark = [b"T=".as_slice(), self.dir.path().as_os_str().as_encoded_bytes()].concat();
        let mut found = Vec::new();
        for entry in fs::read_dir("/proc").unwrap().flatten() {
            let Some(pid) = entry.file_name().to_str().and_then(|n| n.parse().ok()) else { continue };
            let environ = fs::read(entry.path().join("environ")).unwrap_or_default();
            if environ.split(|b| *b == 0).any(|v| v == mark) {
                found.push(Pid::from_raw(pid));
            }
        }
        found
    }

    /// Names what stays, once that is what is expected or the time for it is over; then removes it.
    fn left(&self) -> String {
        let expected = self.scenario.seen.iter().find(|(fact, _)| *fact == Fact::Left).map(|(_, what)| *what);
        let limit = match self.subject {
            Subject::Original => SETTLED,
            _ => LIMIT,
        };
        let as_expected = || expected.is_none_or(|what| what == self.staying()).then_some(());
        until(Instant::now() + limit, as_expected);
        let left = self.staying();
        for pid in self.processes() {
            let _ = kill(pid, Signal::SIGKILL);
        }
        for (path, _) in self.clpath_files() {
            let _ = fs::remove_file(&path);
            let _ = fs::remove_dir_all(&path);
        }
        left
    }

    /// The processes, by name, and the files of the watcher that are there now.
    fn staying(&self) -> String {
        let comm =
            |pid| fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default().trim().to_owned();
        let mut names: Vec<String> = self.processes().into_iter().map(comm).collect();
        names.sort();
        names.dedup();
        names.extend(self.clpath_files().into_iter().map(|(_, name)| name.to_owned()));
        if names.is_empty() { "nothing".into() } else { names.join(", ") }
    }

    fn clpath_files(&self) -> Vec<(String, &'static str)> {
        let clpath = self.text("clpath").trim().to_owned();
        // Only what a watcher made, and not a name that the scenario invented.
        if !clpath.starts_with("/var/tmp/testwatcher-") {
            return Vec::new();
        }
        let mut files = vec![(clpath.clone(), "CLPATH"), (format!("{clpath}.d"), "CLPATH.d")];
        files.retain(|(path, _)| Path::new(path).exists());
        files
    }

    fn look(&self, fact: Fact, status: &str, left: &str) -> String {
        let own = |line: &&str| line.starts_with("TESTWATCHER");
        let joined = |text: &str| {
            let words: Vec<&str> = text.split_whitespace().collect();
            if words.is_empty() { "nothing".to_owned() } else { words.join(" ") }
        };
        match fact {
            Fact::Status => status.to_owned(),
            Fact::Left => left.to_owned(),
            Fact::Ran => joined(&self.text("log").replace(&*self.dir.path().to_string_lossy(), "$T")),
            Fact::Prints => {
                joined(&self.text("stdout").lines().filter(|l| !own(l)).collect::<Vec<_>>().join("\n"))
            }
            Fact::Tildes => {
                let bytes = fs::read(self.path("stdout")).unwrap();
                bytes.iter().filter(|b| **b == b'~').count().to_string()
            }
            Fact::Messages => {
                let found = ["stdout", "stderr"].map(|f| self.text(f).lines().any(|l| own(&l)));
                match found {
                    [true, true] => "on both",
                    [true, false] => "on stdout",
                    [false, true] => "on stderr",
                    [false, false] => "none",
                }
                .to_owned()
            }
            Fact::Noise => {
                let noise = |l: &&str| l.contains("cleanup.sh: line ");
                (self.text("stderr") + &self.text("stdout")).lines().filter(noise).count().to_string()
            }
            Fact::Phases => self.results(|line| match line.contains("OVERALL") {
                true => None,
                false => Some(line.split_once("RESULT: ")?.1),
            }),
            Fact::Overall => self.results(|line| Some(line.split_once("OVERALL RESULT: ")?.1)),
            Fact::Warnings => {
                let journal = self.text("state/journal.txt");
                let count = |words: &str| journal.lines().filter(|l| l.contains(words)).count();
                format!(
                    "{} outside, {} executing",
                    count("Running outside of the test watcher"),
                    count("Executing prepared cleanup")
                )
            }
        }
    }

    /// What the journal's result lines say, without the test's name, which nobody has given.
    fn results(&self, pick: fn(&str) -> Option<&str>) -> String {
        let journal = self.text("state/journal.txt");
        let found: Vec<String> = journal
            .lines()
            .filter_map(|line| {
                Some(pick(line)?.replace(['(', ')'], "").replace("unknown", "").trim().to_owned())
            })
            .collect();
        if found.is_empty() { "nothing".into() } else { found.join(", ") }
    }
}

/// Polls until something is found, or the time is over.
fn until<T>(end: Instant, mut probe: impl FnMut() -> Option<T>) -> Option<T> {
    loop {
        if let Some(found) = probe() {
            return Some(found);
        }
        if Instant::now() > end {
            return None;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}
