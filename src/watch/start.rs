//! What is started, and with what: the CLPATH file, the test, the cleanup. Decides nothing about when.

use super::guard::Word;
use super::machine::{Event, Outcome, Reach};
use super::process::{Launch, Members, Place, Process};
use super::signals::Alarm;
use super::voice::Voice;
use super::{Ward, Watcher, own_failure, process, script};
use crate::error::{Error, Result, errno_text};
use crate::hook::{CLPATH_DIR, CLPATH_PREFIX, CLPATH_VAR, ClPath, OUTCOME_VAR, boottime_ns};
use crate::trust::{IfMissing, Trust, walk};
use nix::errno::Errno;
use nix::unistd::Pid;
use std::ffi::OsString;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::path::PathBuf;
use std::time::Duration;

/// How long a SIGINT is still taken as meant for the test.
const GRACE: Duration = Duration::from_millis(500);

impl Watcher {
    /// Starts the command. `Err`: it could not be; the exit status, with its sentence said.
    pub(super) fn start_test(&mut self) -> std::result::Result<(), u8> {
        if self.ties.is_bound() {
            // A harness's hook must find us from the test's first moment on.
            self.publish();
        }
        let env = self.environment(None);
        let launch = Launch {
            argv: &self.options.command,
            env: &env,
            inheritance: &self.inheritance,
            place: Place::NewGroup,
            descriptors: &[],
            marker: None,
        };
        match launch.start() {
            Ok(pid) => {
                self.tell_guard(Word::Test(pid));
                self.test = Some(Ward::child(pid));
                let own = self.options.time_limit.map(|limit| Duration::from_secs(limit.as_secs()));
                if let Some(limit) = self.ties.test_limit(own, self.voice) {
                    self.alarms.set(Alarm::TestLimit, limit);
                }
                self.tend();
                // While the command is busy with its own start.
                self.make_private_dir();
                self.publish();
                Ok(())
            }
            Err(failure) => {
                let name = self.options.command[0].to_string_lossy().into_owned();
                let (status, why) = cannot_start(failure.0, &self.options.command[0]);
                self.voice.warn(&format!("cannot run '{name}': {why}"));
                Err(status)
            }
        }
    }

    /// The directory for the report, and for entries of a test that has no state directory. A test
    /// that was quicker has made it itself; what anybody else put there is not used.
    fn make_private_dir(&self) {
        let made = self.clpath.make_private_dir();
        if let Err(e) = made
            && !self.clpath.has_private_dir()
        {
            let why = Error::io("make", self.clpath.private_dir(), &e);
            self.voice.warn(&format!("the summary will lack entries: {why}"));
        }
    }

    /// The environment we were given, with the CLPATH file and, for the cleanup, the outcome.
    fn environment(&self, outcome: Option<Outcome>) -> Vec<(OsString, OsString)> {
        let mut env: Vec<_> =
            std::env::vars_os().filter(|(k, _)| k != CLPATH_VAR && k != OUTCOME_VAR).collect();
        env.push((CLPATH_VAR.into(), self.clpath.path().into()));
        if let Some(outcome) = outcome {
            env.push((OUTCOME_VAR.into(), outcome.text().into()));
        }
        env
    }

    pub(super) fn start_cleanup(&mut self) {
        self.alarms.cancel(Alarm::TestLimit);
        self.alarms.cancel(Alarm::Settle);
        let outcome = self.state.outcome.unwrap_or(Outcome::WatcherLost);
        self.tell_guard(Word::Tested(outcome));
        // While the sentinel is still known as ours.
        self.account.left_behind = self.left_behind();
        if let Some(terminal) = &mut self.terminal {
            terminal.forget_group();
        }
        let diversions = self.ties.diversions();
        let launch = |to_logs| self.cleanup_launch(outcome, to_logs);
        let (event, started) = match script::start(&self.clpath, &diversions, launch) {
            script::Start::Nothing => (Some(Event::NothingHooked), None),
            script::Start::Cannot(why) => {
                self.voice.warn(&why);
                (Some(Event::CannotClean), None)
            }
            script::Start::Running { pid, remark, logs } => {
                self.account.started_by_bash = remark.is_some();
                if let Some(remark) = remark {
                    self.voice.warn(&remark);
                }
                self.ties.follow(logs, (0, 0));
                self.account.cleanup_started(boottime_ns());
                (None, Some(pid))
            }
        };
        self.queue.extend(event);
        if let Some(pid) = started {
            self.tell_guard(Word::Cleanup(pid));
            self.tend();
            self.cleanup = Some(Ward::child(pid));
            self.alarms.set(Alarm::Grace, GRACE);
            if let Some(limit) = self.options.cleanup_limit {
                self.alarms.set_at_most(Alarm::CleanupLimit, Duration::from_secs(limit.as_secs()));
            }
        }
    }

    fn cleanup_launch(&self, outcome: Outcome, descriptors: Vec<(RawFd, RawFd)>) -> script::Run {
        // A watcher that was killed early has left none to its guard.
        let _ = self.clpath.make_private_dir();
        // The guard's proof, should we be killed between this start and the word to it.
        let marker = self
            .clpath
            .has_private_dir()
            .then(|| (self.clpath.cleanup_marker(), self.alarms.as_fd().as_raw_fd()));
        script::Run {
            env: self.environment(Some(outcome)),
            inheritance: self.inheritance,
            descriptors,
            marker,
        }
    }

    /// Who is left of a test that ended by itself; nobody is asked where nobody can be.
    fn left_behind(&self) -> Vec<Process> {
        let Some(test) = &self.test else { return Vec::new() };
        let (ended, ours) = (matches!(self.state.outcome, Some(Outcome::Ended(_))), self.ours());
        let alone = test.group.is_empty() && !process::has_other_children(&ours);
        if !ended || self.state.reach == Reach::Tree || alone {
            return Vec::new();
        }
        let mut left = process::descendants(&ours);
        if let Members::Living(members) = test.group.members() {
            let known: Vec<Pid> = left.iter().map(|p| p.pid).chain(ours).collect();
            left.extend(members.into_iter().filter(|m| !known.contains(&m.pid)));
        }
        left
    }
}

/// Makes the CLPATH file and its private directory where they survive a reboot; elsewhere, and with
/// a warning, where they cannot be made there.
pub(super) fn make_clpath(voice: Voice) -> Result<ClPath> {
    let mut first_failure = None;
    for dir in [PathBuf::from(CLPATH_DIR), std::env::temp_dir(), "/tmp".into(), "/dev/shm".into()] {
        match make_clpath_in(&dir) {
            Ok(clpath) => {
                if let Some(failure) = first_failure {
                    voice.warn(&format!("{failure}; using '{}' instead", dir.display()));
                }
                return Ok(clpath);
            }
            Err(failure) => {
                first_failure.get_or_insert(failure);
            }
        }
    }
    Err(own_failure(first_failure.unwrap_or_else(Error::no_state_directory)))
}

fn make_clpath_in(dir: &std::path::Path) -> Result<ClPath> {
    let failed = |e: std::io::Error| Error::io("make a file in", dir, &e);
    if dir != std::path::Path::new(CLPATH_DIR) {
        // TMPDIR may lead anywhere. Under the usual one, the file is looked at when it is read.
        walk(&dir.join(CLPATH_PREFIX), Trust::default(), IfMissing::Fail)?;
    }
    let file =
        tempfile::Builder::new().prefix(CLPATH_PREFIX).rand_bytes(6).tempfile_in(dir).map_err(failed)?;
    let (_, path) = file.keep().map_err(|e| failed(e.error))?;
    Ok(ClPath::new(path))
}

/// Why a command did not start, as execvp(3) and timeout(1) tell it apart.
fn cannot_start(errno: Errno, command: &std::ffi::OsStr) -> (u8, String) {
    match errno {
        Errno::ENOENT if process::find_program(command).is_some_and(|p| p.exists()) => {
            (127, "the interpreter that its first line names does not exist".into())
        }
        // Who asks the drop-in for help, or puts an option behind the command's two dashes.
        Errno::ENOENT if command.as_encoded_bytes().starts_with(b"-") => {
            (127, "command not found: options are for 'rl-cleanup watch', in front of the command".into())
        }
        Errno::ENOENT => (127, "command not found".into()),
        // No process or memory to be had: that is not the command's fault.
        Errno::EAGAIN | Errno::ENOMEM => (125, errno_text(errno)),
        _ => (126, errno_text(errno)),
    }
}
