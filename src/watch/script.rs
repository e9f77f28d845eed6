//! From the CLPATH file to a running cleanup: reads what is hooked, looks whether it may be run, and
//! starts it. Owns the sentences that say why not; decides nothing else.

use super::follow::{Diversion, Log};
use super::kernel::Inheritance;
use super::process::{Failure, Launch, Place};
use crate::error::errno_text;
use crate::hook::{CLPATH_PREFIX, ClPath, Hooked};
use crate::trust::{IfMissing, Stop, Trust, check_writers, is, walk};
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::stat::{Mode, SFlag};
use nix::unistd::{Pid, geteuid};
use std::ffi::OsString;
use std::fs::{File, Metadata, OpenOptions};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Bytes that a file system must have left for a log where there is a choice.
const ROOM: u64 = 1 << 20;

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
        /// Where its output goes, as far as it was diverted.
        logs: Vec<Log>,
    },
}

/// What the cleanup is started with.
pub(super) struct Run {
    pub(super) env: Vec<(OsString, OsString)>,
    pub(super) inheritance: Inheritance,
    pub(super) descriptors: Vec<(RawFd, RawFd)>,
    pub(super) marker: Option<(PathBuf, RawFd)>,
}

/// Starts what the CLPATH file names. `prepare` is told which descriptor of ours a diverted one becomes.
pub(super) fn start(
    clpath: &ClPath,
    diversions: &[Diversion],
    prepare: impl FnOnce(Vec<(RawFd, RawFd)>) -> Run,
) -> Start {
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
    let logs: Vec<Log> = diversions.iter().filter_map(|d| open_log(&script, clpath, d)).collect();
    let to_logs = logs.iter().flat_map(|log| log.diversion.fds.iter().map(|fd| (log.file.as_raw_fd(), *fd)));
    let run = prepare(to_logs.collect());
    match run_script(&script, &run) {
        Ok((pid, remark)) => Start::Running { pid, remark, logs },
        Err(errno) => {
            logs.iter().for_each(|log| drop(std::fs::remove_file(&log.path)));
            Start::Cannot(format!("cannot run cleanup '{}': {}", script.display(), errno_text(errno)))
        }
    }
}

enum Check {
    Usable,
    /// `rlJournalStart` made it, and nothing was ever added, or all of it has run.
    Empty,
}

/// A regular, executable file that belongs to this user or root is run, if nobody else can write it or
/// put another one in its place; anything else is not.
fn check(script: &Path) -> Result<Check, String> {
    let refuse = |why: &str| Err(format!("cleanup '{}' is not run: {why}", script.display()));
    let looked = walk(script, Trust::default(), IfMissing::Fail)
        .map_err(Stop::cause)
        .and_then(|place| place.look().map_err(errno_text));
    let stat = match looked {
        Ok(stat) => stat,
        Err(why) => return refuse(&why),
    };
    if !is(&stat, SFlag::S_IFREG) {
        return refuse("it is not a regular file");
    }
    if stat.st_uid != 0 && stat.st_uid != geteuid().as_raw() {
        return refuse(&format!("it belongs to another user (uid {})", stat.st_uid));
    }
    if stat.st_size == 0 {
        return Ok(Check::Empty);
    }
    if let Err(why) = check_writers(&stat) {
        return refuse(&why);
    }
    if stat.st_mode & (Mode::S_IXUSR | Mode::S_IXGRP | Mode::S_IXOTH).bits() == 0 {
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
        marker: run.marker.as_ref().map(|(path, fd)| (path.as_path(), *fd)),
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

/// `cleanup-XXXXXX.log`, with the CLPATH file's own six characters, beside the script, else in the
/// private directory: a name that no other run, and nobody's own file, has. Where only stderr goes
/// there, `cleanup-XXXXXX.err.log`.
fn logs(script: &Path, clpath: &ClPath, to: RawFd) -> [PathBuf; 2] {
    let beside = script.parent().filter(|d| !d.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let name = clpath.path().file_name().unwrap_or_default().to_string_lossy();
    let own = name.strip_prefix(CLPATH_PREFIX).unwrap_or(&name);
    let suffix = if to == 2 { "err.log" } else { "log" };
    [beside.to_owned(), clpath.private_dir()].map(|dir| dir.join(format!("cleanup-{own}.{suffix}")))
}

fn is_ours(meta: &Metadata) -> bool {
    meta.is_file() && meta.uid() == geteuid().as_raw() && meta.nlink() == 1
}

/// The logs that an earlier watcher of this CLPATH file has opened.
pub(super) fn find_logs(clpath: &ClPath) -> Vec<Log> {
    let Ok(Hooked::Script(script)) = clpath.read() else { return Vec::new() };
    let dead = super::voice::dead_outputs();
    let open = |path: PathBuf| {
        let flags = (OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK).bits();
        let file = OpenOptions::new().read(true).custom_flags(flags).open(&path).ok()?;
        file.metadata().is_ok_and(|meta| is_ours(&meta)).then_some((file, path))
    };
    let find = |to| {
        let (file, path) = logs(&script, clpath, to).into_iter().find_map(open)?;
        Some(Log { file, path, diversion: Diversion { fds: vec![to], live: !dead.contains(&to) } })
    };
    [1, 2].into_iter().filter_map(find).collect()
}

/// Makes the log. A reader that may go is better than a disk that is full; nobody at all is not.
fn open_log(script: &Path, clpath: &ClPath, diversion: &Diversion) -> Option<Log> {
    logs(script, clpath, diversion.to()).into_iter().find_map(|path| {
        let file = create(&path)?;
        if diversion.live && !has_room(&file) {
            let _ = std::fs::remove_file(&path);
            return None;
        }
        Some(Log { file, path, diversion: diversion.clone() })
    })
}

fn create(path: &Path) -> Option<File> {
    // What a watcher that was killed just here has left.
    if std::fs::symlink_metadata(path).is_ok_and(|meta| is_ours(&meta) && meta.len() == 0) {
        let _ = std::fs::remove_file(path);
    }
    let flags = OFlag::O_NOFOLLOW.bits();
    OpenOptions::new()
        .read(true)
        .append(true)
        .create_new(true)
        .mode(0o600)
        .custom_flags(flags)
        .open(path)
        .ok()
}

fn has_room(file: &File) -> bool {
    // A file system that does not count its blocks says 0 of 0.
    nix::sys::statvfs::fstatvfs(file).map_or(true, |vfs| {
        vfs.blocks() == 0 || vfs.blocks_available().saturating_mul(vfs.fragment_size()) >= ROOM
    })
}
