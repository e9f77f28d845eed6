//! The drop-in: one executable in a harness's folder of hooks, packaged or installed by a watcher for
//! its own lifetime, and what it does when the harness runs it.
//!
//! It tells the live watchers of its own task that time is up, and returns when they are done, so
//! that the harness goes on (and reboots) only after the cleanup.

use super::{Choice, Harness, found};
use crate::error::{Error, Result};
use crate::registry::{self, Watcher};
use crate::trust::{IfMissing, Trust, walk};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::unistd::Pid;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// `argv[0]` of a drop-in's process, as either binary may be behind it.
pub const HOOK_NAME: &str = "rl-cleanup-harness-hook";
/// The packaged drop-in's name: before restraint's `85_sync_multihost_tasks` and `98_restore`.
pub const PACKAGED: &str = "20_rl-cleanup";
/// The longest a drop-in holds a harness back: the EWD's time.
const PATIENCE: Duration = Duration::from_secs(1500);
/// How often it says that it still waits.
const EVERY: Duration = Duration::from_secs(60);
/// How long a guard may take from its watcher's death to its own entry in the registry.
const SUCCESSION: Duration = Duration::from_millis(500);

/// A drop-in that a watcher has installed for itself; dropping it removes it.
#[derive(Debug)]
pub struct DropIn {
    file: PathBuf,
    /// Directories that were made for it, the innermost first.
    made: Vec<PathBuf>,
}

/// What came of installing one.
#[derive(Debug)]
pub enum Installed {
    /// The harness has no hooks, or the packaged drop-in is there.
    Needless,
    /// This one.
    ForUs(DropIn),
}

impl DropIn {
    /// Installs one for this process, unless the packaged one is there; sweeps those of the dead, and
    /// that of the predecessor, which may be a moment from being dead.
    ///
    /// # Errors
    /// No folder can be written.
    pub fn install(harness: &dyn Harness, predecessor: Option<Pid>) -> Result<Installed> {
        let folders = harness.hook_folders();
        if folders.iter().any(|folder| is_executable(&folder.join(PACKAGED))) {
            return Ok(Installed::Needless);
        }
        let mut failure = None;
        // A folder that is there is one that the harness looks into; only then is one made.
        for may_make in [false, true] {
            for folder in &folders {
                if folder.is_dir() == may_make {
                    continue;
                }
                match Self::install_in(folder, predecessor) {
                    Ok(dropin) => return Ok(Installed::ForUs(dropin)),
                    Err(error) => failure = Some(failure.unwrap_or(error)),
                }
            }
        }
        failure.map_or(Ok(Installed::Needless), Err)
    }

    fn install_in(folder: &Path, predecessor: Option<Pid>) -> Result<Self> {
        check_way(folder)?;
        let made = make_directories(folder).map_err(|e| Error::io("make", folder, &e))?;
        sweep(folder, predecessor);
        let pid = Pid::this();
        let start = registry::start_time(pid).unwrap_or(0);
        let file = folder.join(format!("{PACKAGED}-{pid}-{start}"));
        let written = write_script(folder, &file, pid, start).map_err(|e| Error::io("write", &file, &e));
        match written {
            Ok(()) => Ok(Self { file, made }),
            Err(error) => {
                remove_directories(&made);
                Err(error)
            }
        }
    }
}

/// It goes with its owner, and so do the directories made for it that are empty again.
impl Drop for DropIn {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.file);
        remove_directories(&self.made);
    }
}

/// By temp file and rename, so that no harness ever runs half of it.
fn write_script(folder: &Path, file: &Path, pid: Pid, start: u64) -> std::io::Result<()> {
    let program = std::env::current_exe()?;
    let mut new = tempfile::Builder::new().prefix(".rl-cleanup-").tempfile_in(folder)?;
    let quoted = quote(program.as_os_str());
    let mut text = b"#!/bin/bash\n".to_vec();
    text.extend(
        format!("# Of the test watcher {pid} ({start}) for its lifetime; harmless without it.\n").bytes(),
    );
    text.extend(b"[ -x ".iter().chain(&quoted).chain(b" ] || exit 0\n"));
    text.extend(format!("exec -a {HOOK_NAME} ").bytes().chain(quoted.iter().copied()).chain(*b" \"$@\"\n"));
    new.write_all(&text)?;
    new.as_file().set_permissions(fs::Permissions::from_mode(0o755))?;
    new.persist(file).map_err(|e| e.error)?;
    Ok(())
}

/// For a shell, whatever bytes a path has.
fn quote(word: &OsStr) -> Vec<u8> {
    let mut quoted = vec![b'\''];
    for &byte in word.as_bytes() {
        match byte {
            b'\'' => quoted.extend(br"'\''"),
            _ => quoted.push(byte),
        }
    }
    quoted.push(b'\'');
    quoted
}

/// A harness runs whatever lies in its folder. What we put there, and make for it, goes nowhere that
/// another user can choose.
fn check_way(folder: &Path) -> Result<()> {
    let there = folder.ancestors().find(|dir| dir.is_dir()).unwrap_or(folder);
    walk(&there.join(PACKAGED), Trust::default(), IfMissing::Fail).map(|_| ()).map_err(Error::from)
}

/// The missing ones, the innermost first.
fn make_directories(folder: &Path) -> std::io::Result<Vec<PathBuf>> {
    let missing: Vec<PathBuf> =
        folder.ancestors().take_while(|dir| !dir.exists()).map(Path::to_owned).collect();
    for (done, dir) in missing.iter().rev().enumerate() {
        // Not by the umask alone: whoever may write there has the harness run his own.
        if let Err(error) = fs::DirBuilder::new().mode(0o755).create(dir) {
            remove_directories(&missing[missing.len() - done..]);
            return Err(error);
        }
    }
    Ok(missing)
}

fn remove_directories(made: &[PathBuf]) {
    for dir in made {
        let _ = fs::remove_dir(dir);
    }
}

/// Removes what watchers that were killed have left.
fn sweep(folder: &Path, predecessor: Option<Pid>) {
    let Ok(names) = fs::read_dir(folder) else { return };
    for entry in names.flatten() {
        let name = entry.file_name();
        if let Some((pid, start)) = name.to_str().and_then(bound_to)
            && (Some(pid) == predecessor || !registry::is_running(pid, start))
        {
            let _ = fs::remove_file(entry.path());
        }
    }
}

/// The process that an installed drop-in's name speaks of.
///
/// # Examples
/// ```
/// use nix::unistd::Pid;
/// use rl_cleanup::harness::dropin::bound_to;
/// assert_eq!(bound_to("20_rl-cleanup-4711-98765"), Some((Pid::from_raw(4711), 98765)));
/// assert_eq!(bound_to("20_rl-cleanup"), None, "the packaged one is nobody's");
/// ```
#[must_use]
pub fn bound_to(name: &str) -> Option<(Pid, u64)> {
    let (pid, start) = name.strip_prefix(PACKAGED)?.strip_prefix('-')?.split_once('-')?;
    Some((Pid::from_raw(pid.parse().ok().filter(|pid| *pid > 0)?), start.parse().ok()?))
}

fn is_executable(file: &Path) -> bool {
    fs::metadata(file).is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}

/// A drop-in's whole life, if that is what this process was started as. `None`: it was not.
#[must_use]
pub fn is_run_as(args: &[OsString]) -> Option<u8> {
    (args.first()? == HOOK_NAME).then(|| {
        end_task();
        0
    })
}

/// Tells every watcher of this task that time is up, and waits until none is left. A failure here
/// must not fail the harness: whatever happens, it goes on.
pub fn end_task() {
    let harness = found(Choice::Auto);
    if !super::is_one(&*harness) || harness.task().is_empty() {
        return say("no harness's task: nothing to do");
    }
    let mut left = of_task(&*harness);
    let deadline = Instant::now() + PATIENCE;
    while !left.is_empty() {
        for watcher in &left {
            say(&format!("time is up for the watcher {} ({}); waiting for it", watcher.pid, watcher.phase));
            if !wait_for(watcher, deadline) {
                return say(&format!("waited {} s in vain", PATIENCE.as_secs()));
            }
        }
        left = successors(&*harness);
    }
}

fn of_task(harness: &dyn Harness) -> Vec<Watcher> {
    let task = harness.task();
    registry::live().into_iter().filter(|w| w.harness == harness.name() && w.task == task).collect()
}

/// Guards that took over from watchers which were killed while we waited.
fn successors(harness: &dyn Harness) -> Vec<Watcher> {
    let until = Instant::now() + SUCCESSION;
    loop {
        let left = of_task(harness);
        if !left.is_empty() || Instant::now() >= until {
            return left;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// SIGHUPs it and waits; false if the deadline came first.
fn wait_for(watcher: &Watcher, deadline: Instant) -> bool {
    let fd = pidfd(watcher);
    hang_up(watcher, fd.as_ref());
    let begun = Instant::now();
    let mut next_word = begun + EVERY;
    while watcher.is_alive() {
        let now = Instant::now();
        if now >= deadline {
            return false;
        }
        if now >= next_word {
            next_word += EVERY;
            let phase = phase_now(watcher);
            let minutes = begun.elapsed().as_secs() / 60;
            say(&format!("still waiting for the watcher {} ({phase}), {minutes} min so far", watcher.pid));
        }
        if sleep_until_end(fd.as_ref(), next_word.min(deadline) - now) {
            return true;
        }
    }
    true
}

fn phase_now(watcher: &Watcher) -> String {
    registry::find(&watcher.clpath).map_or_else(|| watcher.phase.clone(), |now| now.phase)
}

/// A descriptor of exactly that process, not of a later one with its number.
fn pidfd(watcher: &Watcher) -> Option<OwnedFd> {
    let pid = rustix::process::Pid::from_raw(watcher.pid.as_raw())?;
    let fd = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()).ok()?;
    watcher.is_alive().then_some(fd)
}

fn hang_up(watcher: &Watcher, fd: Option<&OwnedFd>) {
    match fd {
        Some(fd) => {
            let _ = rustix::process::pidfd_send_signal(fd, rustix::process::Signal::HUP);
        }
        // A kernel without pidfds; the registry has just vouched for the number.
        None if watcher.is_alive() => {
            let _ = nix::sys::signal::kill(watcher.pid, nix::sys::signal::Signal::SIGHUP);
        }
        None => {}
    }
}

/// True if the process has ended; may return early.
fn sleep_until_end(fd: Option<&OwnedFd>, at_most: Duration) -> bool {
    let Some(fd) = fd else {
        std::thread::sleep(at_most.min(Duration::from_secs(1)));
        return false;
    };
    let mut fds = [PollFd::new(fd.as_fd(), PollFlags::POLLIN)];
    // Rounded up, or the last millisecond would be a busy loop.
    let wait = PollTimeout::try_from(at_most + Duration::from_millis(1)).unwrap_or(PollTimeout::MAX);
    matches!(poll(&mut fds, wait), Ok(1))
}

/// To the harness's log; one that nobody reads any more is no reason to stop.
fn say(line: &str) {
    let _ = writeln!(std::io::stdout(), "rl-cleanup: {line}");
}

/// One sentence for the watcher's warning.
#[must_use]
pub fn why_not(harness: &dyn Harness, error: &Error) -> String {
    format!("no hook for {}'s watchdog ({error}): the test is stopped without it", harness.name())
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Fake(Vec<PathBuf>);

    impl Harness for Fake {
        fn name(&self) -> &'static str {
            "beah"
        }
        fn hook_folders(&self) -> Vec<PathBuf> {
            self.0.clone()
        }
    }

    fn names(dir: &Path) -> Vec<String> {
        fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect()
    }

    #[test]
    fn one_is_installed_bound_to_this_process_and_removed() {
        let dir = tempfile::tempdir().unwrap();
        let Installed::ForUs(dropin) = DropIn::install(&Fake(vec![dir.path().into()]), None).unwrap() else {
            panic!("needless")
        };
        let [name] = &names(dir.path())[..] else { panic!("{:?}", names(dir.path())) };
        assert_eq!(bound_to(name), Some((Pid::this(), registry::start_time(Pid::this()).unwrap())));
        assert!(is_executable(&dir.path().join(name)));
        drop(dropin);
        assert!(names(dir.path()).is_empty());
    }

    #[test]
    fn the_packaged_one_is_enough() {
        let dir = tempfile::tempdir().unwrap();
        let packaged = dir.path().join(PACKAGED);
        fs::write(&packaged, "").unwrap();
        let fake = Fake(vec![dir.path().into()]);
        let Installed::ForUs(dropin) = DropIn::install(&fake, None).unwrap() else {
            panic!("not executable")
        };
        drop(dropin);
        fs::set_permissions(&packaged, fs::Permissions::from_mode(0o755)).unwrap();
        assert!(matches!(DropIn::install(&fake, None), Ok(Installed::Needless)));
        assert!(matches!(DropIn::install(&Fake(vec![]), None), Ok(Installed::Needless)));
    }

    #[test]
    fn those_of_the_dead_are_swept_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let mine = format!("{PACKAGED}-{}-{}", Pid::this(), registry::start_time(Pid::this()).unwrap());
        let keep = [mine.as_str(), "20_rl-cleanup-x-1", "98_restore", "20_rl-cleanup-backup"];
        let parent = registry::start_time(Pid::parent()).unwrap();
        let predecessor = format!("{PACKAGED}-{}-{parent}", Pid::parent());
        let gone = ["20_rl-cleanup-1-999999999999", "20_rl-cleanup-2147483646-5", &predecessor];
        for name in keep.iter().chain(&gone) {
            fs::write(dir.path().join(name), "").unwrap();
        }
        sweep(dir.path(), Some(Pid::parent()));
        let mut left = names(dir.path());
        left.sort();
        let mut want = keep.map(str::to_owned);
        want.sort();
        assert_eq!(left, want);
    }

    #[test]
    fn the_first_folder_that_can_be_written_serves() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("file"), "").unwrap();
        let (bad, good) = (dir.path().join("file/hooks"), dir.path().join("a/b/c"));
        let Installed::ForUs(dropin) = DropIn::install(&Fake(vec![bad.clone(), good.clone()]), None).unwrap()
        else {
            panic!("needless")
        };
        assert_eq!(names(&good).len(), 1);
        drop(dropin);
        assert!(!dir.path().join("a").exists(), "what was made is removed");
        let error = DropIn::install(&Fake(vec![bad]), None).unwrap_err();
        assert!(error.to_string().contains("cannot make"), "{error}");
    }

    #[test]
    fn a_path_with_odd_bytes_survives_the_script() {
        assert_eq!(quote(OsStr::new("/a b/it's")), br"'/a b/it'\''s'");
    }
}
