//! Who calls: from options and environment to a state directory, a hook and whom to trust.

use super::args::ShellArgs;
use crate::bounds;
use crate::cleanup::buffer::{Buffer, Id};
use crate::cleanup::script::{self, Parsed, Places};
use crate::cleanup::snapshot::{Origin, Snapshot, Stream};
use crate::cleanup::store::{BUFFER, IfMissing, SCRIPT, Store, Trust};
use crate::error::{Error, Result, Status};
use crate::hook::{ClPath, Hooked};
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::unistd::Pid;
use std::hash::{BuildHasher, Hasher};
use std::io::{ErrorKind, Stdin};
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// The name of standard input in a sentence.
const INPUT: &str = "standard input";

/// What one process that runs this binary has told about itself.
#[derive(Debug)]
pub(super) struct Caller {
    dir: Option<PathBuf>,
    clpath: Option<ClPath>,
    trust: Trust,
}

/// What became of the hook.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Hook {
    /// The watcher will run our final script.
    Ours,
    /// There is no watcher.
    NoWatcher,
    /// The watcher will run another one, which has entries.
    Theirs(PathBuf),
}

/// What a watcher would run at this moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum WillRun {
    /// Our final script.
    Ours,
    /// Nothing: there is no watcher.
    NoWatcher,
    /// Nothing: no script is hooked, or one without entries.
    Nothing,
    /// Another script, which has entries.
    Theirs(PathBuf),
}

impl Caller {
    /// From the environment, or from what the shim passes instead.
    pub(super) fn new(dir: Option<PathBuf>, shell: Option<&ShellArgs>) -> Self {
        let given = |path: PathBuf| Some(path).filter(|p| !p.as_os_str().is_empty());
        // Nonsense names nobody, as it does where the variable is read.
        let sudo_uid = shell.and_then(|s| s.sudo_uid.as_deref()?.to_str()?.parse().ok());
        let from_shell = shell.and_then(|s| s.clpath.clone()).and_then(given).map(ClPath::new);
        Self {
            dir: dir
                .and_then(given)
                .or_else(|| std::env::var_os("BEAKERLIB_DIR").map(PathBuf::from).and_then(given)),
            // A file that is gone belonged to a watcher that has ended. One that cannot be looked at did not.
            clpath: from_shell.or_else(ClPath::from_env).filter(|c| c.path().try_exists().unwrap_or(true)),
            trust: Trust { sudo_uid },
        }
    }

    /// The watcher's file, if there is one.
    pub(super) fn clpath(&self) -> Option<&ClPath> {
        self.clpath.as_ref()
    }

    /// The state directory that was named, if one was.
    pub(super) fn dir(&self) -> Option<&Path> {
        self.dir.as_deref()
    }

    /// Whom it trusts.
    pub(super) fn trust(&self) -> Trust {
        self.trust
    }

    /// Opens the state directory (contract, "Programs").
    pub(super) fn open(&self, if_missing: IfMissing) -> Result<Store> {
        let dir = match (&self.dir, &self.clpath) {
            (Some(dir), _) => dir.clone(),
            (None, Some(clpath)) => clpath.private_dir(),
            (None, None) => return Err(Error::no_state_directory()),
        };
        Store::open(&dir, if_missing, self.trust)
    }

    /// What the watcher would run now; `script` is ours, where there is a state directory.
    pub(super) fn will_run(&self, script: Option<&Path>) -> WillRun {
        match self.clpath.as_ref().map(|clpath| clpath.read_trusting(self.trust)) {
            None | Some(Err(_)) => WillRun::NoWatcher,
            Some(Ok(Hooked::Script(hooked))) if script.is_some_and(|s| same_file(&hooked, s)) => {
                WillRun::Ours
            }
            Some(Ok(Hooked::Script(hooked))) if has_entries(&hooked) => WillRun::Theirs(hooked),
            Some(Ok(_)) => WillRun::Nothing,
        }
    }

    /// Makes the watcher run `script`, unless a script with entries is hooked already. Also answers how
    /// to undo that.
    pub(super) fn hook(&self, script: &Path) -> Result<(Hook, Undo)> {
        let Some(clpath) = &self.clpath else { return Ok((Hook::NoWatcher, Undo::Nothing)) };
        let before = match clpath.read_trusting(self.trust) {
            Ok(hooked) if hooked == Hooked::Script(script.to_owned()) => {
                return Ok((Hook::Ours, Undo::Nothing));
            }
            Ok(hooked) => hooked,
            // Who has put something else in its place has the watcher run that.
            Err(error) if error.status() == Status::Untrusted => return Err(error),
            // Root's watcher, and a test that has become another user: as without a watcher.
            Err(_) if belongs_to_another(clpath) => return Ok((Hook::NoWatcher, Undo::Nothing)),
            Err(error) => return Err(error),
        };
        let state = whose(before.clone(), script);
        if state != Hook::Ours {
            return Ok((state, Undo::Nothing));
        }
        clpath.write(script)?;
        Ok((state, Undo::HookAgain(before)))
    }

    /// Puts back what was hooked, as far as that is possible.
    pub(super) fn undo(&self, undo: &Undo) {
        let (Some(clpath), Undo::HookAgain(before)) = (&self.clpath, undo) else { return };
        let _ = match before {
            Hooked::Nothing => clpath.empty(),
            Hooked::Script(script) => clpath.write(script),
        };
    }
}

/// How to undo a hook.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Undo {
    /// Nothing was written.
    Nothing,
    /// This was hooked before.
    HookAgain(Hooked),
}

fn whose(hooked: Hooked, script: &Path) -> Hook {
    match hooked {
        Hooked::Script(hooked) if !same_file(&hooked, script) && has_entries(&hooked) => Hook::Theirs(hooked),
        _ => Hook::Ours,
    }
}

fn belongs_to_another(clpath: &ClPath) -> bool {
    std::fs::symlink_metadata(clpath.path()).is_ok_and(|m| m.uid() != nix::unistd::geteuid().as_raw())
}

fn same_file(one: &Path, other: &Path) -> bool {
    one == other || one.canonicalize().is_ok_and(|a| other.canonicalize().is_ok_and(|b| a == b))
}

/// A final script without entries has no length. One that cannot be looked at may have some.
fn has_entries(script: &Path) -> bool {
    match std::fs::metadata(script) {
        Ok(meta) => meta.is_file() && meta.len() > 0,
        Err(e) => !matches!(e.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory),
    }
}

/// The buffer, empty where there is none.
pub(super) fn load_buffer(store: &Store) -> Result<Buffer> {
    Ok(Buffer::parse(&store.read(BUFFER)?.unwrap_or_default()))
}

/// The final script that is there now, taken apart.
pub(super) fn load_script(store: &Store) -> Result<Option<Parsed>> {
    Ok(store.read(SCRIPT)?.as_deref().and_then(script::parse))
}

/// The snapshot a change without a shell uses: the one a shell has left, or else the caller's own
/// exported environment.
pub(super) fn snapshot_without_shell(store: &Store) -> Result<Snapshot> {
    match load_script(store)?.map(|s| s.snapshot) {
        Some(snapshot) if snapshot.origin == Origin::Shell => Ok(snapshot),
        _ => Ok(Snapshot::of_environment(std::env::vars_os(), bash())),
    }
}

/// The snapshot that is there, from wherever; only without one the caller's environment.
pub(super) fn snapshot_kept(store: &Store) -> Result<Snapshot> {
    match load_script(store)? {
        Some(script) => Ok(script.snapshot),
        None => snapshot_without_shell(store),
    }
}

/// What the shim has sent.
pub(super) fn parse_stream(bytes: &[u8]) -> Result<Stream<'_>> {
    Stream::parse(bytes)
        .ok_or_else(|| Error::new(Status::Failed, "the shell stopped before it had sent its state"))
}

/// All of standard input.
pub(super) fn read_stdin() -> Result<Vec<u8>> {
    bounds::read_stream(std::io::stdin().lock(), Path::new(INPUT), bounds::INPUT)
}

/// All of what a shell prints into standard input; `look` sees what has come so far.
///
/// Bash writes each variable by itself. Were this process waiting in read(2), each of those writes
/// would wake it, and that costs the shell more than anything else here; so the pipe is made large,
/// and looked at from time to time until its other end is closed.
pub(super) fn read_pipe(mut look: impl FnMut(&[u8]) -> Result<()>) -> Result<Vec<u8>> {
    /// The most that an unprivileged process may ask for (proc_sys_fs(5), pipe-max-size).
    const PIPE: i32 = 1 << 20;
    let input = std::io::stdin();
    // Where it is no pipe, or less is allowed, there is more to wait for, and that is all.
    let _ = fcntl(&input, FcntlArg::F_SETPIPE_SZ(PIPE));
    let _ = fcntl(&input, FcntlArg::F_SETFL(OFlag::O_NONBLOCK));
    // A snapshot of BeakerLib is 200 KB: room for it at once.
    let mut bytes = Vec::with_capacity(1 << 19);
    loop {
        let _ = poll(&mut [PollFd::new(input.as_fd(), PollFlags::empty())], PollTimeout::from(1_u8));
        let ended = read_available(&input, &mut bytes)?;
        look(&bytes)?;
        if ended {
            return Ok(bytes);
        }
    }
}

/// Whether the end has come.
fn read_available(input: &Stdin, bytes: &mut Vec<u8>) -> Result<bool> {
    let mut chunk = [0; 1 << 16];
    loop {
        match nix::unistd::read(input, &mut chunk) {
            Ok(0) => return Ok(true),
            Ok(length) => bytes.extend_from_slice(&chunk[..length]),
            Err(Errno::EAGAIN) => return Ok(false),
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(Error::os("read", INPUT, errno)),
        }
        if bytes.len() as u64 > bounds::INPUT {
            return Err(Error::too_large(INPUT, bounds::INPUT));
        }
    }
}

/// The refusal of a second process that would run the same entries.
pub(super) fn busy(store: &Store, other: Pid) -> Error {
    let dir = store.path().display();
    Error::new(Status::Failed, format!("cannot run entries of '{dir}': {}", busy_sentence(other)))
}

/// Why it is refused.
pub(super) fn busy_sentence(other: Pid) -> String {
    format!("another cleanup of this buffer is running (process {other})")
}

/// Paths for a script called `name` in this directory.
pub(super) fn places(store: &Store, name: &str) -> Places {
    let binary = std::env::current_exe().unwrap_or_else(|_| "rl-cleanup".into());
    Places { dir: store.path().to_owned(), script: store.path().join(name), binary }
}

/// A name nobody else has drawn: std seeds each hasher from the kernel's random numbers.
pub(super) fn random_id() -> Id {
    Id::from_number(std::hash::RandomState::new().build_hasher().finish())
}

/// Where there is no shell to say which bash it is.
fn bash() -> PathBuf {
    let usual = ["/bin/bash", "/usr/bin/bash", "/usr/local/bin/bash"];
    usual.map(PathBuf::from).into_iter().find(|p| p.exists()).unwrap_or_else(|| "/bin/bash".into())
}
