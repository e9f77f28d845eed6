//! The state directory: whom to trust in it, its lock, and how its files are replaced.
//!
//! Everything goes through a descriptor of the directory, to which `trust` has found a way that nobody
//! else can bend, and every file is looked at after it was opened, so that nobody can swap a name in
//! between. Must not know what the files mean.

use crate::bounds;
use crate::error::{Error, Result, Status};
pub use crate::trust::{IfMissing, Trust};
use crate::trust::{Stop, is, walk};
use fs2::FileExt;
use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, OFlag, PosixFadviseAdvice, openat, posix_fadvise, renameat};
use nix::sys::stat::{FileStat, Mode, SFlag, fstat};
use nix::unistd::{UnlinkatFlags, fsync, syncfs, unlinkat};
use std::ffi::OsStr;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::Duration;

/// The buffer's name, as BeakerLib has it.
pub const BUFFER: &str = "clbuff";
/// The final script's name, as BeakerLib has it.
pub const SCRIPT: &str = "cleanup.sh";
/// What is locked. Never the buffer itself, which a rename replaces.
const LOCK: &str = "clbuff.lock";
/// Files of ours that are not in place yet. Whoever holds the lock may remove what is left of them.
const TEMPORARY: &str = ".rl-cleanup-";
/// How much of the lock file is ever read.
const NOTE_MAX: usize = 1 << 16;
/// How long to wait for another process's change.
pub const LOCK_DEADLINE: Duration = Duration::from_secs(30);

/// A trusted state directory, held open.
#[derive(Debug)]
pub struct Store {
    path: PathBuf,
    dir: OwnedFd,
    trust: Trust,
}

/// The same, with nobody else changing it.
#[derive(Debug)]
pub struct Locked<'a> {
    store: &'a Store,
    lock: File,
}

/// New content of one file.
#[derive(Debug, Clone, Copy)]
pub struct Content<'a> {
    /// The file's name.
    pub name: &'a str,
    /// Its bytes.
    pub bytes: &'a [u8],
    /// Its mode; never affected by the umask.
    pub mode: u32,
}

impl<'a> Content<'a> {
    /// The buffer.
    #[must_use]
    pub fn buffer(bytes: &'a [u8]) -> Self {
        Self { name: BUFFER, bytes, mode: 0o600 }
    }

    /// The final script.
    #[must_use]
    pub fn script(bytes: &'a [u8]) -> Self {
        Self { name: SCRIPT, bytes, mode: 0o700 }
    }
}

impl Store {
    /// Opens a state directory.
    ///
    /// # Errors
    /// It is missing (exit status 3 with [`IfMissing::Fail`]), or could be another user's work (4).
    ///
    /// # Examples
    /// ```
    /// use rl_cleanup::cleanup::store::{Content, LOCK_DEADLINE, Store};
    /// use rl_cleanup::error::Status;
    /// use rl_cleanup::trust::{IfMissing, Trust};
    ///
    /// # let dir = tempfile::tempdir_in("/var/tmp").unwrap();
    /// # let path = dir.path().join("state");
    /// let missing = Store::open(&path, IfMissing::Fail, Trust::default()).unwrap_err();
    /// assert_eq!(missing.status(), Status::Absent);
    ///
    /// let store = Store::open(&path, IfMissing::Make, Trust::default()).unwrap();
    /// store.lock(LOCK_DEADLINE).unwrap().replace(&[Content::buffer(b"true\n")]).unwrap();
    /// assert_eq!(store.read("clbuff").unwrap().unwrap(), b"true\n");
    /// ```
    pub fn open(path: &Path, if_missing: IfMissing, trust: Trust) -> Result<Self> {
        let path = std::path::absolute(path).map_err(|e| Error::io("find", path, &e))?;
        let place = walk(&path, trust, if_missing).map_err(|stop| match stop {
            Stop::System("open", _, Errno::ENOENT) => Error::no_buffer(&path),
            stop => stop.into(),
        })?;
        let dir = place.open(OFlag::O_RDONLY | OFlag::O_DIRECTORY).map_err(|errno| match errno {
            Errno::ENOENT => Error::no_buffer(&path),
            _ => Error::os("open", &path, errno),
        })?;
        let stat = fstat(&dir).map_err(|e| Error::os("read", &path, e))?;
        trust.check(&stat).map_err(|why| Error::untrusted(&path, &why))?;
        Ok(Self { path, dir, trust })
    }

    /// Where it is, absolute.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The final script's path.
    #[must_use]
    pub fn script_path(&self) -> PathBuf {
        self.path.join(SCRIPT)
    }

    /// A file's content; `None` if there is no such file.
    ///
    /// # Errors
    /// It cannot be read, is no regular file, is larger than such a file can be, or could be another
    /// user's work (exit status 4).
    pub fn read(&self, name: &str) -> Result<Option<Vec<u8>>> {
        let path = self.path.join(name);
        let Some(file) = self.open_file(name, OFlag::O_RDONLY)? else { return Ok(None) };
        bounds::read_open(&file, &path, bound(name)).map(Some)
    }

    /// Waits until no other process changes the directory.
    ///
    /// # Errors
    /// Another process, which the error names, has held the lock for as long as `deadline`.
    pub fn lock(&self, deadline: Duration) -> Result<Locked<'_>> {
        let path = self.path.join(LOCK);
        let file = match self.open_file(LOCK, OFlag::O_RDWR)? {
            Some(file) => file,
            None => self.make_lock(&path)?,
        };
        if FileExt::try_lock_exclusive(&file).is_err() {
            wait_for_lock(&file, deadline, &path)?;
        }
        let locked = Locked { store: self, lock: file };
        locked.remove_leftovers();
        Ok(locked)
    }

    /// Whoever finds the lock file knows that the directory is there to stay, whoever made it: its name,
    /// in the directory above, has reached the disk before the lock file is made.
    fn make_lock(&self, path: &Path) -> Result<File> {
        for above in self.path.ancestors().skip(1) {
            sync_directory(above).or_else(|errno| match errno {
                // One that this user may pass but not read.
                Errno::EACCES => syncfs(&self.dir).map_err(|e| Error::os("sync", &self.path, e)),
                _ => Err(Error::os("sync", above, errno)),
            })?;
        }
        let made = self.open_file(LOCK, OFlag::O_RDWR | OFlag::O_CREAT)?;
        made.ok_or_else(|| Error::os("open", path, Errno::ENOENT))
    }

    fn open_file(&self, name: &str, flags: OFlag) -> Result<Option<File>> {
        let path = self.path.join(name);
        // O_NONBLOCK: a FIFO of that name must not hang the caller (open(2)).
        let flags = flags | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
        let fd = match openat(&self.dir, name, flags, Mode::S_IRUSR | Mode::S_IWUSR) {
            Ok(fd) => fd,
            Err(Errno::ENOENT) => return Ok(None),
            Err(Errno::ELOOP) => return Err(Error::untrusted(path, "it is a symbolic link")),
            Err(errno) => return Err(Error::os("open", path, errno)),
        };
        let stat = fstat(&fd).map_err(|e| Error::os("read", &path, e))?;
        self.check_file(&stat).map_err(|why| Error::untrusted(path, &why))?;
        Ok(Some(File::from(fd)))
    }

    fn check_file(&self, stat: &FileStat) -> std::result::Result<(), String> {
        if !is(stat, SFlag::S_IFREG) {
            return Err("it is not a regular file".into());
        }
        self.trust.check(stat)?;
        // A log of root's holds what others have said; a link gives it this name, and the bytes a shell.
        match stat.st_nlink > 1 {
            true => Err("it has another name too (hard link)".into()),
            false => Ok(()),
        }
    }
}

impl Locked<'_> {
    /// Replaces files, in this order. When it returns, the change has reached the disk.
    ///
    /// # Errors
    /// Nothing has changed.
    pub fn replace(&self, contents: &[Content]) -> Result<()> {
        let mut prepared = Vec::new();
        for content in contents {
            let before = self.target(content.name)?;
            prepared.push((content, self.prepare(content)?, before));
        }
        // All are on their way to the disk by now, and what the file system must write down for one
        // holds for the others, too.
        for (content, temporary, _) in &prepared {
            self.settle(content.name, temporary)?;
        }
        let mut replaced = Vec::new();
        let mut done = Ok(());
        for (content, temporary, before) in prepared {
            done = done.and_then(|()| self.put(content.name, temporary));
            if done.is_err() {
                break;
            }
            replaced.push((content, before));
        }
        let done = done.and_then(|()| self.sync());
        if done.is_err() {
            replaced.into_iter().rev().for_each(|(content, before)| self.put_back(content, before));
            let _ = self.sync();
        }
        done
    }

    /// Replaces a file by something shorter; on a full disk, overwrites it in place. An entry that
    /// has run must not run again only because there is no room for a second copy of the rest.
    ///
    /// # Errors
    /// Neither is possible.
    pub fn shrink(&self, content: Content) -> Result<()> {
        let error = match self.replace(&[content]) {
            Ok(()) => return Ok(()),
            Err(error) => error,
        };
        let Some(mut file) = self.store.open_file(content.name, OFlag::O_WRONLY)? else { return Err(error) };
        let overwrite = file
            .write_all(content.bytes)
            .and_then(|()| file.set_len(content.bytes.len() as u64))
            .and_then(|()| file.sync_all());
        overwrite.map_err(|_| error)
    }

    /// Writes a file that is nobody's final script or buffer: a script for `rl-cleanup run`. The
    /// caller removes it with [`Locked::remove`].
    ///
    /// # Errors
    /// It cannot be written.
    pub fn write(&self, content: Content) -> Result<()> {
        let temporary = self.prepare(&content)?;
        self.settle(content.name, &temporary)?;
        self.put(content.name, temporary)
    }

    /// Removes a file; silent where there is none.
    pub fn remove(&self, name: &str) {
        let _ = unlinkat(&self.store.dir, name, UnlinkatFlags::NoRemoveDir);
    }

    /// What the lock file holds; nothing of it is needed to lock.
    #[must_use]
    pub fn note(&self) -> String {
        let mut bytes = vec![0; NOTE_MAX];
        let length = self.lock.read_at(&mut bytes, 0).unwrap_or(0);
        String::from_utf8_lossy(&bytes[..length]).into_owned()
    }

    /// Replaces that. It is about living processes, so it need not reach the disk; and a full disk is
    /// no reason to stop anybody.
    pub fn set_note(&self, text: &str) {
        let _ =
            self.lock.write_all_at(text.as_bytes(), 0).and_then(|()| self.lock.set_len(text.len() as u64));
    }

    /// What is there. A directory or a symbolic link of that name is better found before anything moved.
    fn target(&self, name: &str) -> Result<Option<File>> {
        self.store.open_file(name, OFlag::O_RDONLY)
    }

    fn prepare(&self, content: &Content) -> Result<tempfile::NamedTempFile> {
        let target = self.store.path.join(content.name);
        let cannot = |e: &std::io::Error| Error::io("replace", &target, e);
        if content.bytes.len() as u64 > bound(content.name) {
            return Err(Error::would_be_too_large(&target, bound(content.name)));
        }
        let mode = Mode::from_bits_truncate(content.mode);
        let mut file = tempfile::Builder::new()
            .prefix(TEMPORARY)
            .make_in(&self.store.path, |path| {
                let name = path.file_name().unwrap_or_default();
                let flags =
                    OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
                Ok(File::from(openat(&self.store.dir, name, flags, mode)?))
            })
            .map_err(|e| cannot(&e))?;
        // By descriptor, so that no umask takes a bit away.
        nix::sys::stat::fchmod(file.as_file(), mode).map_err(|e| Error::os("replace", &target, e))?;
        file.write_all(content.bytes).map_err(|e| cannot(&e))?;
        // Starts the writing and waits for nothing (mm/fadvise.c). Only a hint: [`Self::settle`] counts.
        let _ = posix_fadvise(file.as_file(), 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED);
        Ok(file)
    }

    /// Waits until a prepared file has reached the disk; before that it must not be put in place.
    fn settle(&self, name: &str, temporary: &tempfile::NamedTempFile) -> Result<()> {
        let synced = temporary.as_file().sync_all();
        synced.map_err(|e| Error::io("replace", self.store.path.join(name), &e))
    }

    fn put(&self, name: &str, temporary: tempfile::NamedTempFile) -> Result<()> {
        let dir = &self.store.dir;
        let from = temporary.path().file_name().unwrap_or_default().to_owned();
        renameat(dir, &from[..], dir, OsStr::new(name))
            .map_err(|e| Error::os("replace", self.store.path.join(name), e))?;
        // The name is gone, so there is nothing left for tempfile to remove.
        let _ = temporary.into_temp_path().keep();
        Ok(())
    }

    /// The file that was replaced is still to be read as long as it is open.
    fn put_back(&self, content: &Content, before: Option<File>) {
        let Some(mut before) = before else { return self.remove(content.name) };
        let mut bytes = Vec::new();
        if before.read_to_end(&mut bytes).is_ok()
            && let Ok(temporary) = self.prepare(&Content { bytes: &bytes, ..*content })
            && self.settle(content.name, &temporary).is_ok()
        {
            let _ = self.put(content.name, temporary);
        }
    }

    fn sync(&self) -> Result<()> {
        sync_open_directory(&self.store.dir).map_err(|e| Error::os("sync", &self.store.path, e))
    }

    /// Since the lock is held, nobody else is working on these.
    fn remove_leftovers(&self) {
        let Ok(dir) = self.store.dir.try_clone() else { return };
        let Ok(mut names) = Dir::from_fd(dir) else { return };
        let leftovers: Vec<_> = names
            .iter()
            .flatten()
            .map(|entry| entry.file_name().to_owned())
            .filter(|name| is_leftover(name.to_bytes()))
            .collect();
        for name in leftovers {
            let _ = unlinkat(&self.store.dir, &*name, UnlinkatFlags::NoRemoveDir);
        }
    }
}

/// How large a file may be: what could not be read again is not written either.
fn bound(name: &str) -> u64 {
    if name == BUFFER { bounds::BUFFER } else { bounds::SCRIPT }
}

/// The script of `rl-cleanup run`, while the process `pid` runs it.
#[must_use]
pub fn run_script_name(pid: u32) -> String {
    format!("run-{pid}.sh")
}

fn is_leftover(name: &[u8]) -> bool {
    let runner = || {
        let pid = name.strip_prefix(b"run-")?.strip_suffix(b".sh")?;
        std::str::from_utf8(pid).ok()?.parse::<u32>().ok()
    };
    let is_gone = |pid: u32| !Path::new("/proc").join(pid.to_string()).exists();
    name.starts_with(TEMPORARY.as_bytes()) || runner().is_some_and(is_gone)
}

fn sync_directory(path: &Path) -> nix::Result<()> {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    sync_open_directory(&openat(AT_FDCWD, path, flags, Mode::empty())?)
}

fn sync_open_directory(dir: &OwnedFd) -> nix::Result<()> {
    match fsync(dir) {
        // Not every file system can sync a directory (fsync(2)).
        Err(Errno::EINVAL | Errno::EROFS) => Ok(()),
        synced => synced,
    }
}

/// flock(2) has no deadline of its own, so another thread waits, and is left behind if it must.
fn wait_for_lock(file: &File, deadline: Duration, path: &Path) -> Result<()> {
    let cannot = |e: &std::io::Error| Error::io("lock", path, e);
    let waiting = file.try_clone().map_err(|e| cannot(&e))?;
    let (tell, hear) = mpsc::channel();
    std::thread::spawn(move || {
        let _ = tell.send(FileExt::lock_exclusive(&waiting));
    });
    match hear.recv_timeout(deadline) {
        Ok(answer) => answer.map_err(|e| cannot(&e)),
        Err(_) => Err(Error::new(
            Status::Failed,
            format!(
                "cannot lock '{}': {} has held it for {} seconds",
                path.display(),
                lock_holder(file).map_or("another process".to_owned(), |pid| format!("process {pid}")),
                deadline.as_secs()
            ),
        )),
    }
}

/// The process that holds the lock, from proc_locks(5).
fn lock_holder(file: &File) -> Option<u32> {
    let stat = fstat(file.as_fd()).ok()?;
    let device = stat.st_dev;
    let wanted = format!(
        "{:02x}:{:02x}:{}",
        nix::sys::stat::major(device),
        nix::sys::stat::minor(device),
        stat.st_ino
    );
    let locks = std::fs::read_to_string("/proc/locks").ok()?;
    locks.lines().find_map(|line| {
        let fields: Vec<&str> = line.split_ascii_whitespace().collect();
        // "1: FLOCK ADVISORY WRITE 4711 08:01:1234 0 EOF"; a waiting one has "->" in second place.
        (fields.get(1) == Some(&"FLOCK") && fields.get(5) == Some(&wanted.as_str()))
            .then(|| fields[4].parse().ok())
            .flatten()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::unistd::geteuid;
    use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

    fn store() -> (tempfile::TempDir, Store) {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("state"), IfMissing::Make, Trust::default()).unwrap();
        (dir, store)
    }

    fn names(store: &Store) -> Vec<String> {
        let mut names: Vec<String> = std::fs::read_dir(store.path())
            .unwrap()
            .map(|n| n.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    fn status(result: Result<impl std::fmt::Debug>) -> Status {
        result.unwrap_err().status()
    }

    #[test]
    fn files_are_this_users_alone_and_nothing_else_is_left() {
        let (_dir, store) = store();
        let locked = store.lock(LOCK_DEADLINE).unwrap();
        locked.replace(&[Content::buffer(b"a"), Content::script(b"b")]).unwrap();
        assert_eq!(names(&store), ["clbuff", "clbuff.lock", "cleanup.sh"]);
        let mode = |name: &str| std::fs::metadata(store.path().join(name)).unwrap().mode() & 0o7777;
        assert_eq!((mode(BUFFER), mode(SCRIPT)), (0o600, 0o700));
        assert_eq!(std::fs::metadata(store.path()).unwrap().mode() & 0o7777, 0o700);
        assert_eq!(store.read(BUFFER).unwrap().unwrap(), b"a");
    }

    #[test]
    fn a_failure_of_the_second_file_takes_the_first_one_back() {
        let (_dir, store) = store();
        let locked = store.lock(LOCK_DEADLINE).unwrap();
        locked.replace(&[Content::buffer(b"old")]).unwrap();
        std::fs::create_dir(store.script_path()).unwrap();
        assert!(locked.replace(&[Content::buffer(b"new"), Content::script(b"x")]).is_err());
        assert_eq!(store.read(BUFFER).unwrap().unwrap(), b"old");
        assert_eq!(names(&store), ["clbuff", "clbuff.lock", "cleanup.sh"]);
    }

    #[test]
    fn leftovers_of_a_killed_process_are_swept() {
        let (_dir, store) = store();
        let mine = run_script_name(std::process::id());
        for name in [".rl-cleanup-dead", "run-4194999.sh", "run-x.sh", &mine] {
            std::fs::write(store.path().join(name), "x").unwrap();
        }
        drop(store.lock(LOCK_DEADLINE).unwrap());
        assert_eq!(names(&store), ["clbuff.lock", &mine, "run-x.sh"]);
    }

    #[test]
    fn a_lock_that_is_never_given_back_ends_in_an_error_that_names_its_holder() {
        let (_dir, store) = store();
        let _held = store.lock(LOCK_DEADLINE).unwrap();
        let error = store.lock(Duration::from_millis(50)).unwrap_err();
        assert_eq!(error.status(), Status::Failed);
        assert!(error.to_string().contains(&format!("process {}", std::process::id())), "{error}");
    }

    #[test]
    fn what_others_may_write_is_not_trusted() {
        for (mode, trusted) in [(0o700, true), (0o755, true), (0o775, true), (0o777, false), (0o1777, false)]
        {
            let (_dir, store) = store();
            std::fs::set_permissions(store.path(), PermissionsExt::from_mode(mode)).unwrap();
            let again = Store::open(store.path(), IfMissing::Fail, Trust::default());
            assert_eq!(again.is_ok(), trusted, "{mode:o}");
            let locked = store.lock(LOCK_DEADLINE).unwrap();
            locked.replace(&[Content::buffer(b"a")]).unwrap();
            std::fs::set_permissions(store.path().join(BUFFER), PermissionsExt::from_mode(mode & 0o777))
                .unwrap();
            assert_eq!(store.read(BUFFER).is_ok(), trusted, "{mode:o}");
        }
    }

    #[test]
    fn links_fifos_and_directories_are_no_files_of_ours() {
        let (dir, store) = store();
        std::fs::write(dir.path().join("target"), "x").unwrap();
        symlink(dir.path().join("target"), store.path().join(BUFFER)).unwrap();
        assert_eq!(status(store.read(BUFFER)), Status::Untrusted);
        nix::unistd::mkfifo(&store.path().join("fifo"), Mode::S_IRWXU).unwrap();
        assert_eq!(status(store.read("fifo")), Status::Untrusted);
    }

    #[test]
    fn no_directory_is_status_3() {
        let (dir, _store) = store();
        let missing = Store::open(&dir.path().join("none"), IfMissing::Fail, Trust::default());
        assert_eq!(status(missing), Status::Absent);
    }

    #[test]
    fn another_users_directory_is_refused_unless_sudo_names_him() {
        if !geteuid().is_root() {
            return;
        }
        let (_dir, store) = store();
        std::os::unix::fs::chown(store.path(), Some(4711), Some(4711)).unwrap();
        let refused = Store::open(store.path(), IfMissing::Fail, Trust::default());
        assert_eq!(status(refused), Status::Untrusted);
        Store::open(store.path(), IfMissing::Fail, Trust { sudo_uid: Some(4711) }).unwrap();
    }
}
