//! From the CLPATH file to a running cleanup: reads what is hooked, looks whether it may be run, and
//! starts it. Owns the sentences that say why not; decides nothing else.

use super::kernel::Inheritance;
use super::process::{Failure, Launch, Place};
use crate::error::{Cause, Error, errno_text};
use crate::hook::{ClPath, Hooked};
use nix::errno::Errno;
use nix::unistd::{Pid, geteuid};
use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// What came of it.
pub(super) enum Start {
    /// Nothing is hooked, or only a script without entries.
    Nothing,
    /// What is hooked cannot be run; why.
    Cannot(String),
    /// It runs.
    Running {
        /// Its leader.
        pid: Pid,
        /// What a person should know about how it runs.
        remark: Option<String>,
        /// Where its output goes, if it was diverted, and at which byte it begins.
        log: Option<(PathBuf, u64)>,
    },
}

/// Where the cleanup writes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Output {
    /// Where the test did.
    Inherited,
    /// To a log, as the reader of its output is gone or may go.
    Log,
}

/// What the cleanup is started with.
pub(super) struct Run {
    pub(super) env: Vec<(OsString, OsString)>,
    pub(super) inheritance: Inheritance,
    pub(super) descriptors: Vec<(RawFd, RawFd)>,
    pub(super) marker: (PathBuf, RawFd),
}

/// Starts what the CLPATH file names. `prepare` is given the log's descriptor, if one is wanted and to
/// be had.
pub(super) fn start(clpath: &ClPath, output: Output, prepare: impl FnOnce(Option<RawFd>) -> Run) -> Start {
    let script = match clpath.read() {
        Ok(Hooked::Nothing) => return Start::Nothing,
        Ok(Hooked::Script(script)) => script,
        Err(error) => return Start::Cannot(format!("no cleanup: {error}")),
    };
    match check(&script) {
        Ok(Check::Empty) => return Start::Nothing,
        Ok(Check::Usable) => {}
        Err(why) => return Start::Cannot(why),
    }
    let log = if output == Output::Log { open_log(&script, clpath) } else { None };
    let log = log.map(|(file, path)| {
        let from = file.metadata().map_or(0, |meta| meta.len());
        (file, (path, from))
    });
    let run = prepare(log.as_ref().map(|(file, _)| file.as_raw_fd()));
    match run_script(&script, &run) {
        Ok((pid, remark)) => Start::Running { pid, remark, log: log.map(|(_, place)| place) },
        Err(errno) => {
            Start::Cannot(format!("cannot run cleanup '{}': {}", script.display(), errno_text(errno)))
        }
    }
}

enum Check {
    Usable,
    /// `rlJournalStart` made it, and nothing was ever added, or all of it has run.
    Empty,
}

/// A regular, executable file that belongs to this user or root is run; anything else is not.
fn check(script: &Path) -> Result<Check, String> {
    let refuse = |why: &str| Err(format!("cleanup '{}' is not run: {why}", script.display()));
    let meta = match std::fs::metadata(script) {
        Ok(meta) => meta,
        Err(e) => return refuse(&Cause(&e).to_string()),
    };
    if !meta.is_file() {
        return refuse("it is not a regular file");
    }
    if meta.uid() != 0 && meta.uid() != geteuid().as_raw() {
        return refuse(&format!("it belongs to another user (uid {})", meta.uid()));
    }
    if meta.len() == 0 {
        return Ok(Check::Empty);
    }
    if meta.mode() & 0o111 == 0 {
        return refuse("it is not executable");
    }
    Ok(Check::Usable)
}

/// Runs it as it is, or through bash where only that works.
fn run_script(script: &Path, run: &Run) -> Result<(Pid, Option<String>), Errno> {
    let argv = [OsString::from(script)];
    let launch = Launch {
        argv: &argv,
        env: &run.env,
        inheritance: &run.inheritance,
        place: Place::NewGroup,
        descriptors: &run.descriptors,
        marker: Some((&run.marker.0, run.marker.1)),
    };
    let mut tries = 0;
    let why = loop {
        match with_marker(&launch, |launch| launch.start_as(script.as_os_str())) {
            Ok(pid) => return Ok((pid, None)),
            // Still open for writing somewhere (execve(2)); that is mostly over at once.
            Err(Failure(Errno::ETXTBSY)) if tries < 20 => {
                tries += 1;
                std::thread::sleep(Duration::from_millis(5));
            }
            Err(Failure(Errno::ENOEXEC)) => break "it has no #! line",
            Err(Failure(Errno::EACCES)) => break "it may not be executed where it is (noexec?)",
            Err(Failure(Errno::ENOENT | Errno::ENOTDIR | Errno::ELOOP)) => {
                break "the interpreter in its #! line cannot be found";
            }
            Err(Failure(Errno::ETXTBSY)) => break "it is still being written to",
            Err(Failure(errno)) => return Err(errno),
        }
    };
    match with_marker(&launch, |launch| launch.start_by_bash()) {
        Ok(pid) => Ok((pid, Some(format!("cleanup '{}' is run by bash: {why}", script.display())))),
        Err(Failure(errno)) => Err(errno),
    }
}

/// Starts with the marker, or without it where it cannot be made: on a full disk, say. After a start
/// that failed the marker must not tell of one that did not happen.
fn with_marker(
    launch: &Launch<'_>,
    start: impl Fn(&Launch<'_>) -> Result<Pid, Failure>,
) -> Result<Pid, Failure> {
    let first = start(launch);
    if first.is_ok() {
        return first;
    }
    if let Some((path, _)) = launch.marker {
        let _ = std::fs::remove_file(path);
    }
    start(&Launch { marker: None, ..*launch })
}

/// `cleanup.log` beside the script, else in the private directory.
fn logs(script: &Path, clpath: &ClPath) -> [PathBuf; 2] {
    let beside = script.parent().filter(|d| !d.as_os_str().is_empty()).unwrap_or(Path::new("."));
    [beside.to_owned(), clpath.private_dir()].map(|dir| dir.join("cleanup.log"))
}

/// The log that an earlier watcher of this CLPATH file has opened.
pub(super) fn find_log(clpath: &ClPath) -> Option<PathBuf> {
    let Ok(Hooked::Script(script)) = clpath.read() else { return None };
    let is_ours = |path: &PathBuf| {
        std::fs::symlink_metadata(path).is_ok_and(|m| m.is_file() && m.uid() == geteuid().as_raw())
    };
    logs(&script, clpath).into_iter().find(is_ours)
}

fn open_log(script: &Path, clpath: &ClPath) -> Option<(File, PathBuf)> {
    logs(script, clpath).into_iter().find_map(|path| {
        let file = OpenOptions::new()
            .append(true)
            .create(true)
            .mode(0o600)
            .custom_flags((nix::fcntl::OFlag::O_NOFOLLOW | nix::fcntl::OFlag::O_NONBLOCK).bits())
            .open(&path)
            .map_err(|e| Error::io("open", &path, &e))
            .ok()?;
        file.metadata().ok().filter(|m| m.is_file() && m.uid() == geteuid().as_raw())?;
        Some((file, path))
    })
}
