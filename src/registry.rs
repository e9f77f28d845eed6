//! Which watchers are alive: one small file a watcher in a directory of mode 0700.
//!
//! A file is believed only if the process it names has the start time it names (proc_pid_stat(5)),
//! so a file left behind by a SIGKILLed watcher is harmless and is swept by the next one.

use crate::bounds;
use crate::error::{Error, Result};
use crate::hook::ClPath;
use crate::trust::{open_own_directory, open_own_file};
use nix::dir::Dir;
use nix::fcntl::{OFlag, openat, renameat};
use nix::sys::stat::Mode;
use nix::unistd::{Pid, UnlinkatFlags, geteuid, unlinkat};
use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

/// A watcher as its file describes it.
///
/// # Examples
/// ```
/// use nix::unistd::Pid;
/// use rl_cleanup::hook::ClPath;
/// use rl_cleanup::registry::{Watcher, start_time};
/// let watcher = Watcher {
///     pid: Pid::this(),
///     start: start_time(Pid::this()).unwrap(),
///     clpath: ClPath::new("/var/tmp/testwatcher-abcdef"),
///     phase: "test".into(),
///     test: None,
///     test_deadline: None,
///     cleanup_deadline: None,
///     harness: "tmt".into(),
///     task: String::new(),
/// };
/// assert_eq!(Watcher::parse(&watcher.render()), Some(watcher.clone()));
/// assert!(watcher.is_alive());
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Watcher {
    /// The process that supervises now: the watcher, or the guard that took over from it.
    pub pid: Pid,
    /// That process's start time, in clock ticks since boot (proc_pid_stat(5), field 22).
    pub start: u64,
    /// Its CLPATH file.
    pub clpath: ClPath,
    /// What it is doing: `test`, `killing`, `cleanup`.
    pub phase: String,
    /// Process group of the test, if one was started.
    pub test: Option<Pid>,
    /// When the test will be killed, in [`crate::hook::boottime_ns`]; `None` for never.
    pub test_deadline: Option<u64>,
    /// When the cleanup will be killed, likewise.
    pub cleanup_deadline: Option<u64>,
    /// The harness found, and its task's id where it has one.
    pub harness: String,
    /// The harness task this watcher belongs to; empty without one.
    pub task: String,
}

/// The registry's directory: `/run/rl-cleanup` for root, else `$XDG_RUNTIME_DIR/rl-cleanup`,
/// else `/tmp/rl-cleanup-UID`.
#[must_use]
pub fn directory() -> PathBuf {
    directory_under(std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from))
}

/// The same for a process that has no environment of its own: `runtime_dir` is its caller's
/// `XDG_RUNTIME_DIR`.
#[must_use]
pub fn directory_under(runtime_dir: Option<PathBuf>) -> PathBuf {
    let uid = geteuid();
    if uid.is_root() {
        return "/run/rl-cleanup".into();
    }
    match runtime_dir.filter(|d| d.is_absolute()) {
        Some(base) => base.join("rl-cleanup"),
        None => format!("/tmp/rl-cleanup-{uid}").into(),
    }
}

/// Start time of a process in clock ticks since boot; `None` if there is no such process.
#[must_use]
pub fn start_time(pid: Pid) -> Option<u64> {
    stat_field(pid, 22)?.parse().ok()
}

/// The parent of a process; `None` if there is no such process.
#[must_use]
pub fn parent(pid: Pid) -> Option<Pid> {
    stat_field(pid, 4)?.parse().ok().map(Pid::from_raw)
}

/// What a file as proc_pid_stat(5) describes it holds; `None` if there is no such process or thread. In
/// one step: [`fs::read`] asks for the size, which is 0 here, and then feels its way, and a busy machine
/// has thousands of them.
#[must_use]
pub fn read_stat(path: impl AsRef<Path>) -> Option<Vec<u8>> {
    let mut line = [0; 4096];
    let length = File::open(path).ok()?.read(&mut line).ok()?;
    Some(line[..length].to_vec())
}

/// A field of proc_pid_stat(5), by its number there; not the first two.
fn stat_field(pid: Pid, number: usize) -> Option<String> {
    let stat = read_stat(format!("/proc/{pid}/stat"))?;
    // The command name stands in parentheses and may itself hold spaces and parentheses.
    let rest = &stat[stat.iter().rposition(|&b| b == b')')? + 1..];
    std::str::from_utf8(rest).ok()?.split_ascii_whitespace().nth(number - 3).map(str::to_owned)
}

/// Whether the process with this start time is there and has not ended. One that nobody has reaped
/// yet keeps its number, and does nothing any more.
///
/// # Examples
/// ```
/// use nix::unistd::Pid;
/// use rl_cleanup::registry::{is_running, start_time};
/// let start = start_time(Pid::this()).unwrap();
/// assert!(is_running(Pid::this(), start));
/// // The number alone says nothing: it may be another process by now.
/// assert!(!is_running(Pid::this(), start + 1));
/// ```
#[must_use]
pub fn is_running(pid: Pid, start: u64) -> bool {
    let state = || {
        let stat = read_stat(format!("/proc/{pid}/stat"))?;
        stat.get(stat.iter().rposition(|&b| b == b')')? + 2).copied()
    };
    start_time(pid) == Some(start) && !matches!(state(), None | Some(b'Z' | b'X' | b'x'))
}

impl Watcher {
    /// Writes this watcher's file, replacing an earlier one by rename.
    ///
    /// # Errors
    /// The directory cannot be made or written, or is not this user's alone.
    pub fn publish(&self) -> Result<()> {
        let dir = directory();
        match fs::DirBuilder::new().mode(0o700).create(&dir) {
            Err(e) if e.kind() != std::io::ErrorKind::AlreadyExists => {
                return Err(Error::io("make", &dir, &e));
            }
            _ => {}
        }
        let held = open_own_directory(&dir)?;
        let name = file_name(&self.clpath);
        let path = dir.join(name);
        let mut new = tempfile::Builder::new()
            .prefix(".new-")
            .make_in(&dir, |path| {
                let name = path.file_name().unwrap_or_default();
                let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_CLOEXEC;
                Ok(File::from(openat(&held, name, flags, Mode::S_IRUSR | Mode::S_IWUSR)?))
            })
            .map_err(|e| Error::io("write", &path, &e))?;
        new.write_all(&self.render()).map_err(|e| Error::io("write", &path, &e))?;
        let temporary = new.path().file_name().unwrap_or_default().to_owned();
        renameat(&held, &*temporary, &held, name).map_err(|e| Error::os("replace", &path, e))?;
        // The name is gone, so there is nothing left for tempfile to remove.
        let _ = new.into_temp_path().keep();
        Ok(())
    }

    /// The file's bytes.
    #[must_use]
    pub fn render(&self) -> Vec<u8> {
        let mut out = Vec::new();
        let number = |n: Option<u64>| n.map_or(String::new(), |n| n.to_string());
        for (key, value) in [
            ("pid", self.pid.to_string()),
            ("start", self.start.to_string()),
            ("phase", escape(&self.phase)),
            ("test", self.test.map_or(String::new(), |p| p.to_string())),
            ("test_deadline", number(self.test_deadline)),
            ("cleanup_deadline", number(self.cleanup_deadline)),
            ("harness", escape(&self.harness)),
            ("task", escape(&self.task)),
        ] {
            out.extend_from_slice(format!("{key}={value}\n").as_bytes());
        }
        // Last and unterminated: a path may hold any byte, a newline too.
        out.extend_from_slice(b"clpath=");
        out.extend_from_slice(self.clpath.path().as_os_str().as_bytes());
        out
    }

    /// Reads a file; `None` if it is not one of ours.
    #[must_use]
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let mark = b"\nclpath=";
        let at = bytes.windows(mark.len()).position(|w| w == mark)?;
        let clpath = std::ffi::OsString::from_vec(bytes[at + mark.len()..].to_vec());
        let head = std::str::from_utf8(&bytes[..at]).ok()?;
        let field =
            |key: &str| head.split('\n').find_map(|l| l.strip_prefix(key)?.strip_prefix('=')).map(unescape);
        let pid = |key: &str| field(key)?.parse::<i32>().ok().filter(|p| *p > 0).map(Pid::from_raw);
        Some(Self {
            pid: pid("pid")?,
            start: field("start")?.parse().ok()?,
            clpath: ClPath::new(clpath),
            phase: field("phase")?,
            test: pid("test"),
            test_deadline: field("test_deadline")?.parse().ok(),
            cleanup_deadline: field("cleanup_deadline")?.parse().ok(),
            harness: field("harness")?,
            task: field("task")?,
        })
    }

    /// Whether the process named is still the one that wrote the file.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        is_running(self.pid, self.start)
    }
}

/// A task's name may hold anything, and a hook must find its watcher by it.
fn escape(text: &str) -> String {
    text.replace('\\', "\\\\").replace('\n', "\\n")
}

fn unescape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text.chars();
    while let Some(c) = rest.next() {
        out.extend(match c {
            '\\' => rest.next().map(|escaped| if escaped == 'n' { '\n' } else { escaped }),
            plain => Some(plain),
        });
    }
    out
}

/// Removes the file of the watcher with this CLPATH file; silent where there is none.
pub fn withdraw(clpath: &ClPath) {
    if let Ok(dir) = open_own_directory(&directory()) {
        let _ = unlinkat(&dir, file_name(clpath), UnlinkatFlags::NoRemoveDir);
    }
}

/// Named after the CLPATH file, so that a guard that takes over replaces its watcher's file.
fn file_name(clpath: &ClPath) -> &OsStr {
    clpath.path().file_name().unwrap_or_default()
}

/// Every watcher of this user that is alive, sorted by pid.
#[must_use]
pub fn live() -> Vec<Watcher> {
    live_in(&directory())
}

/// The same, in a registry directory that is known already.
#[must_use]
pub fn live_in(dir: &Path) -> Vec<Watcher> {
    let Ok(dir) = open_own_directory(dir) else { return Vec::new() };
    // Only looked at: a guard that takes over renames its own file over its watcher's, and
    // somebody who removed what he took for a dead one's would remove that.
    let found = names(&dir).into_iter().filter_map(|name| Watcher::parse(&read(&dir, &name)?.0));
    let mut found: Vec<Watcher> = found.filter(Watcher::is_alive).collect();
    found.sort_by_key(|w| w.pid);
    found
}

fn names(dir: &OwnedFd) -> Vec<OsString> {
    let Ok(mut dir) = dir.try_clone().map_err(|_| ()).and_then(|fd| Dir::from_fd(fd).map_err(|_| ())) else {
        return Vec::new();
    };
    let names = dir.iter().flatten().map(|entry| OsStr::from_bytes(entry.file_name().to_bytes()).to_owned());
    names.filter(|name| name != "." && name != "..").collect()
}

/// A watcher's file, and how long ago it was written.
fn read(dir: &OwnedFd, name: &OsStr) -> Option<(Vec<u8>, std::time::Duration)> {
    let file = open_own_file(dir, name, OFlag::O_RDONLY).ok()?;
    let age = file.metadata().and_then(|meta| meta.modified()).ok()?.elapsed().unwrap_or_default();
    // What is larger than any watcher's is nobody's.
    Some((bounds::read_open(&file, Path::new(name), bounds::REGISTRY).unwrap_or_default(), age))
}

/// How long a dead watcher's file is left for a guard that may be taking over.
const TAKEOVER: std::time::Duration = std::time::Duration::from_secs(60);

/// Removes the files of watchers that died without a successor.
pub fn sweep() {
    let Ok(dir) = open_own_directory(&directory()) else { return };
    for name in names(&dir) {
        let Some((bytes, age)) = read(&dir, &name) else { continue };
        if age > TAKEOVER && !Watcher::parse(&bytes).is_some_and(|w| w.is_alive()) {
            let _ = unlinkat(&dir, &*name, UnlinkatFlags::NoRemoveDir);
        }
    }
}

/// The live watcher whose CLPATH file is `clpath`.
#[must_use]
pub fn find(clpath: &ClPath) -> Option<Watcher> {
    live().into_iter().find(|w| w.clpath == *clpath)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_watcher_survives_its_file() {
        let watcher = Watcher {
            pid: Pid::this(),
            start: start_time(Pid::this()).unwrap(),
            clpath: ClPath::new(std::ffi::OsString::from_vec(b"/var/tmp/testwatcher-\xff\nx".to_vec())),
            phase: "test".into(),
            test: Some(Pid::from_raw(77)),
            test_deadline: None,
            cleanup_deadline: Some(12),
            harness: "tmt".into(),
            task: "a=b\\n\n\r".into(),
        };
        assert_eq!(Watcher::parse(&watcher.render()).unwrap(), watcher);
        assert!(watcher.is_alive());
        assert!(!Watcher { start: 1, ..watcher }.is_alive(), "same pid, other process");
    }

    #[test]
    fn torn_files_are_nobody() {
        for text in [&b""[..], b"pid=1", b"pid=x\nclpath=/a", b"pid=-1\nstart=2\nclpath="] {
            assert_eq!(Watcher::parse(text), None);
        }
    }
}
