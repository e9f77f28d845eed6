//! Whom to trust, and where: whose files are believed, and a walk along a path that nobody else can bend.
//!
//! A file is as good as the worst directory above it: who may write one of those may put another file
//! in its place between a look and a use. So a path is gone along by descriptor, one directory after
//! the other, and each of them, and each symbolic link, must belong to somebody trusted; a directory
//! that others may write must have the sticky bit, as `/tmp` has. After that the path leads to the same
//! place until somebody trusted changes it. Must not know what the files mean.

use crate::error::{Error, Result, errno_text};
use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, AtFlags, OFlag, openat, readlinkat};
use nix::sys::stat::{FileStat, Mode, SFlag, fstat, fstatat, mkdirat, stat};
use nix::unistd::{Uid, User, getegid, geteuid};
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::{Component, Path, PathBuf};

/// How many symbolic links one path may have (path_resolution(7)).
const LINKS_MAX: u32 = 40;

/// Whom the caller trusts, beyond itself and root.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Trust {
    /// The user whom sudo(8) names, where its variable does not reach this process.
    pub sudo_uid: Option<u32>,
}

/// What to do about directories that are not there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IfMissing {
    /// Make them, mode 0700.
    Make,
    /// Exit status 3.
    Fail,
}

/// Where a path leads: a name, which was no symbolic link, in a directory that is held open.
#[derive(Debug)]
pub struct Place {
    dir: OwnedFd,
    name: OsString,
}

/// Why a walk did not come to its end.
#[derive(Debug)]
pub enum Stop {
    /// The system said no: what was tried, where, and why not.
    System(&'static str, PathBuf, Errno),
    /// This belongs to somebody who is not trusted, or others may change it.
    Untrusted(PathBuf, String),
}

impl From<Stop> for Error {
    fn from(stop: Stop) -> Self {
        match stop {
            Stop::System(verb, path, errno) => Self::os(verb, path, errno),
            Stop::Untrusted(path, why) => Self::untrusted(path, &why),
        }
    }
}

impl Stop {
    /// The cause alone, for a sentence that has named the file already.
    #[must_use]
    pub fn cause(self) -> String {
        match self {
            Self::System(.., errno) => errno_text(errno),
            Self::Untrusted(..) => Error::from(self).to_string(),
        }
    }
}

impl Stop {
    /// As an error about the file at `path`, whatever part of it cannot be passed.
    #[must_use]
    pub fn into_reading(self, path: &Path) -> Error {
        match self {
            Self::System(_, _, errno) => Error::os("read", path, errno),
            stop => stop.into(),
        }
    }
}

impl Trust {
    /// Whether files of `uid` are this user's, root's, or those of the user whom sudo names.
    ///
    /// # Examples
    /// ```
    /// use rl_cleanup::trust::Trust;
    /// assert!(Trust::default().owns(0) && Trust::default().owns(nix::unistd::geteuid().as_raw()));
    /// assert!(Trust { sudo_uid: Some(12345) }.owns(12345));
    /// ```
    #[must_use]
    pub fn owns(self, uid: u32) -> bool {
        uid == 0
            || uid == geteuid().as_raw()
            || self.sudo_uid == Some(uid)
            || std::env::var("SUDO_UID").ok().and_then(|v| v.parse().ok()) == Some(uid)
    }

    /// Refuses what another user has made, or can write.
    ///
    /// # Errors
    /// Half a sentence that says why.
    pub fn check(self, stat: &FileStat) -> std::result::Result<(), String> {
        if !self.owns(stat.st_uid) {
            return Err(belongs(stat));
        }
        check_writers(stat)
    }

    /// The same for a directory that is only passed through. Others may write it if they cannot rename
    /// or remove what is not theirs.
    fn check_way(self, stat: &FileStat) -> std::result::Result<(), String> {
        if !self.may_own_way(stat.st_uid) {
            return Err(belongs(stat));
        }
        if stat.st_mode & Mode::S_ISVTX.bits() != 0 {
            return Ok(());
        }
        check_writers(stat).map_err(|why| format!("{why}, and it has no sticky bit (chmod +t)"))
    }

    /// In a container `/` may belong to a user who has no number in it; the kernel shows all of those as
    /// one, the overflow uid (user_namespaces(7)). Whoever has `/` has everything, trusted or not.
    fn may_own_way(self, uid: u32) -> bool {
        self.owns(uid) || stat("/").is_ok_and(|root| root.st_uid == uid) || is_nobody_here(uid)
    }
}

/// Refuses what users other than its owner can write.
///
/// # Errors
/// Half a sentence that says why.
pub fn check_writers(stat: &FileStat) -> std::result::Result<(), String> {
    if stat.st_mode & Mode::S_IWOTH.bits() != 0 {
        return Err("every user may write it".into());
    }
    if stat.st_mode & Mode::S_IWGRP.bits() != 0 && !is_primary_group(stat) {
        return Err("a group may write it that is not its owner's own".into());
    }
    Ok(())
}

/// Where each user has a group of the same name, umask 002 is ordinary.
fn is_primary_group(stat: &FileStat) -> bool {
    let of_owner = || User::from_uid(Uid::from_raw(stat.st_uid)).ok().flatten().map(|u| u.gid.as_raw());
    (stat.st_uid == geteuid().as_raw() && stat.st_gid == getegid().as_raw())
        || of_owner() == Some(stat.st_gid)
}

fn belongs(stat: &FileStat) -> String {
    format!("{} belongs to {}", if is(stat, SFlag::S_IFLNK) { "the symbolic link" } else { "it" }, {
        match User::from_uid(Uid::from_raw(stat.st_uid)) {
            Ok(Some(user)) => format!("user {}", user.name),
            _ => format!("uid {}", stat.st_uid),
        }
    })
}

/// Whether this is a file of that kind.
#[must_use]
pub fn is(stat: &FileStat, kind: SFlag) -> bool {
    stat.st_mode & SFlag::S_IFMT.bits() == kind.bits()
}

/// The overflow uid, where no user of this namespace has that number.
fn is_nobody_here(uid: u32) -> bool {
    let number = |text: &str| text.trim().parse::<u32>().ok();
    let overflow = std::fs::read_to_string("/proc/sys/kernel/overflowuid").ok().and_then(|t| number(&t));
    let Ok(map) = std::fs::read_to_string("/proc/self/uid_map") else { return false };
    let is_mapped = map.lines().any(|line| {
        let mut fields = line.split_ascii_whitespace().filter_map(number);
        let (first, length) = (fields.next(), fields.nth(1));
        first.zip(length).is_some_and(|(first, length)| uid >= first && uid - first < length)
    });
    overflow == Some(uid) && !is_mapped
}

impl Place {
    /// Opens what stands there, if it still is no symbolic link. The caller looks at it with `fstat`.
    ///
    /// # Errors
    /// What `openat(2)` answers.
    pub fn open(&self, flags: OFlag) -> nix::Result<OwnedFd> {
        let flags = flags | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        openat(&self.dir, &*self.name, flags, Mode::S_IRUSR | Mode::S_IWUSR)
    }

    /// Looks at what stands there.
    ///
    /// # Errors
    /// What `fstatat(2)` answers.
    pub fn look(&self) -> nix::Result<FileStat> {
        fstatat(&self.dir, &*self.name, AtFlags::AT_SYMLINK_NOFOLLOW)
    }
}

/// Goes along `path`. A relative one begins in the working directory, whatever lies above that.
///
/// # Errors
/// A directory or a symbolic link on the way is missing, or is not to be trusted. Whether the last name
/// exists, and what it is, is left to the caller, unless it had to be made.
///
/// # Examples
/// ```
/// use rl_cleanup::trust::{IfMissing, Stop, Trust, walk};
/// use std::os::unix::fs::PermissionsExt;
///
/// # let dir = tempfile::tempdir_in("/var/tmp").unwrap();
/// let place = walk(&dir.path().join("file"), Trust::default(), IfMissing::Fail).unwrap();
/// assert!(place.look().is_err(), "the way is good, the file is not there");
///
/// std::fs::set_permissions(dir.path(), PermissionsExt::from_mode(0o777)).unwrap();
/// let stop = walk(&dir.path().join("file"), Trust::default(), IfMissing::Fail).unwrap_err();
/// assert!(matches!(stop, Stop::Untrusted(..)), "anybody could put another file there");
/// ```
pub fn walk(path: &Path, trust: Trust, if_missing: IfMissing) -> std::result::Result<Place, Stop> {
    let mut walk = Walk::begin(if path.is_absolute() { "/" } else { "." }, trust, if_missing)?;
    walk.put_in_front(path);
    walk.go()
}

/// A directory of this user alone, mode 0700, opened without following a symbolic link.
///
/// # Errors
/// It is missing, or is anything else.
pub fn open_own_directory(path: &Path) -> Result<OwnedFd> {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let refused = || Error::untrusted(path, "it is not a directory of this user alone (mode 0700)");
    let dir = openat(AT_FDCWD, path, flags, Mode::empty()).map_err(|errno| match errno {
        Errno::ENOTDIR | Errno::ELOOP | Errno::EACCES => refused(),
        _ => Error::os("open", path, errno),
    })?;
    let stat = fstat(&dir).map_err(|e| Error::os("read", path, e))?;
    match stat.st_uid == geteuid().as_raw() && stat.st_mode & 0o077 == 0 {
        true => Ok(dir),
        false => Err(refused()),
    }
}

/// Opens a regular file of this user's that has no second name, for reading or writing in place:
/// through a hard link it would be another file that is written.
///
/// # Errors
/// It is missing, or is anything else.
pub fn open_own_file(dir: &OwnedFd, name: &OsStr, flags: OFlag) -> nix::Result<File> {
    // O_NONBLOCK: a FIFO of that name must not hang the caller (open(2)).
    let flags = flags | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
    let fd = openat(dir, name, flags, Mode::S_IRUSR | Mode::S_IWUSR)?;
    let stat = fstat(&fd)?;
    let is_own = is(&stat, SFlag::S_IFREG) && stat.st_uid == geteuid().as_raw() && stat.st_nlink <= 1;
    if is_own { Ok(File::from(fd)) } else { Err(Errno::EPERM) }
}

struct Walk {
    at: OwnedFd,
    /// Where that is, for the sentences.
    seen: PathBuf,
    /// What is still to go, the next name last.
    rest: Vec<OsString>,
    links: u32,
    trust: Trust,
    if_missing: IfMissing,
}

/// O_PATH: passing through needs no right to read, as a home of mode 0711 shows. O_DIRECTORY: it also
/// has an automount happen.
const ENTER: OFlag = OFlag::O_PATH.union(OFlag::O_DIRECTORY).union(OFlag::O_NOFOLLOW).union(OFlag::O_CLOEXEC);

impl Walk {
    fn begin(from: &str, trust: Trust, if_missing: IfMissing) -> std::result::Result<Self, Stop> {
        let at = openat(AT_FDCWD, from, ENTER, Mode::empty())
            .map_err(|errno| Stop::System("open", from.into(), errno))?;
        let mut walk = Self { at, seen: PathBuf::new(), rest: Vec::new(), links: 0, trust, if_missing };
        walk.look_around(OsStr::new(from))?;
        Ok(walk)
    }

    /// Whether the directory just entered by this name is one that others cannot change.
    fn look_around(&mut self, name: &OsStr) -> std::result::Result<(), Stop> {
        self.seen.push(name);
        let stat = fstat(&self.at).map_err(|errno| Stop::System("read", self.seen.clone(), errno))?;
        self.trust.check_way(&stat).map_err(|why| Stop::Untrusted(self.seen.clone(), why))
    }

    fn put_in_front(&mut self, path: &Path) {
        let names = path.components().filter_map(|component| match component {
            Component::Normal(name) => Some(name.to_owned()),
            Component::ParentDir => Some("..".into()),
            _ => None,
        });
        let names: Vec<_> = names.collect();
        self.rest.extend(names.into_iter().rev());
    }

    fn go(mut self) -> std::result::Result<Place, Stop> {
        while let Some(name) = self.rest.pop() {
            if !self.rest.is_empty() {
                self.enter(&name)?;
                continue;
            }
            match fstatat(&self.at, &*name, AtFlags::AT_SYMLINK_NOFOLLOW) {
                Ok(stat) if is(&stat, SFlag::S_IFLNK) => self.follow(&name)?,
                Err(Errno::ENOENT) if self.if_missing == IfMissing::Make => {
                    self.make(&name)?;
                    return Ok(Place { dir: self.at, name });
                }
                Ok(_) | Err(Errno::ENOENT) => return Ok(Place { dir: self.at, name }),
                Err(errno) => return Err(self.stopped("open", &name, errno)),
            }
        }
        Ok(Place { dir: self.at, name: ".".into() })
    }

    fn enter(&mut self, name: &OsStr) -> std::result::Result<(), Stop> {
        let mut opened = openat(&self.at, name, ENTER, Mode::empty());
        if matches!(opened, Err(Errno::ENOENT)) && self.if_missing == IfMissing::Make {
            self.make(name)?;
            opened = openat(&self.at, name, ENTER, Mode::empty());
        }
        match opened {
            Ok(dir) => {
                self.at = dir;
                self.look_around(name)
            }
            // What O_DIRECTORY says to a link that is not to be followed, too.
            Err(Errno::ENOTDIR | Errno::ELOOP) => self.follow(name),
            Err(errno) => Err(self.stopped("open", name, errno)),
        }
    }

    fn make(&self, name: &OsStr) -> std::result::Result<(), Stop> {
        match mkdirat(&self.at, name, Mode::S_IRWXU) {
            Ok(()) | Err(Errno::EEXIST) => Ok(()),
            Err(errno) => Err(self.stopped("make", name, errno)),
        }
    }

    /// A symbolic link is as good as the one who made it.
    fn follow(&mut self, name: &OsStr) -> std::result::Result<(), Stop> {
        let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let failed = |errno| self.stopped("open", name, errno);
        let link = openat(&self.at, name, flags, Mode::empty()).map_err(failed)?;
        let stat = fstat(&link).map_err(failed)?;
        if !is(&stat, SFlag::S_IFLNK) {
            return Err(failed(Errno::ENOTDIR));
        }
        if !self.trust.may_own_way(stat.st_uid) {
            return Err(Stop::Untrusted(self.seen.join(name), belongs(&stat)));
        }
        if self.links == LINKS_MAX {
            return Err(failed(Errno::ELOOP));
        }
        let target = PathBuf::from(readlinkat(&link, "").map_err(failed)?);
        self.links += 1;
        if target.is_absolute() {
            let top = Self::begin("/", self.trust, self.if_missing)?;
            (self.at, self.seen) = (top.at, top.seen);
        }
        self.put_in_front(&target);
        Ok(())
    }

    fn stopped(&self, verb: &'static str, name: &OsStr, errno: Errno) -> Stop {
        Stop::System(verb, self.seen.join(name), errno)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt, symlink};

    fn stat_of(path: &Path) -> std::result::Result<FileStat, String> {
        let place = walk(path, Trust::default(), IfMissing::Fail).map_err(Stop::cause)?;
        place.look().map_err(errno_text)
    }

    #[test]
    fn a_walk_ends_where_the_kernels_own_does() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        std::fs::create_dir_all(at("a/b")).unwrap();
        std::fs::write(at("a/b/file"), "x").unwrap();
        symlink("b/../b/./file", at("a/link")).unwrap();
        symlink(at("a"), at("absolute")).unwrap();
        symlink("/", at("top")).unwrap();
        for name in
            ["a/b/file", "a//b/../b/file", "a/link", "absolute/link", "absolute/b/", "a/..", "top", "top/tmp"]
        {
            let kernel = nix::sys::stat::stat(&at(name)).unwrap();
            let ours = stat_of(&at(name)).unwrap();
            assert_eq!((ours.st_dev, ours.st_ino), (kernel.st_dev, kernel.st_ino), "{name}");
        }
        assert_eq!(stat_of(Path::new("/")).unwrap().st_ino, nix::sys::stat::stat("/").unwrap().st_ino);
        assert_eq!(stat_of(Path::new("src/lib.rs")).unwrap().st_mode & SFlag::S_IFMT.bits(), 0o100_000);
    }

    #[test]
    fn what_leads_nowhere_has_the_kernels_cause() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        std::fs::write(at("file"), "x").unwrap();
        symlink("round", at("round")).unwrap();
        symlink("nowhere", at("dangling")).unwrap();
        for (name, cause) in [
            ("none/x", "No such file or directory"),
            ("none", "No such file or directory"),
            ("dangling", "No such file or directory"),
            ("file/x", "Not a directory"),
            ("round", "Too many levels of symbolic links"),
            ("round/x", "Too many levels of symbolic links"),
        ] {
            assert_eq!(stat_of(&at(name)).unwrap_err(), cause, "{name}");
        }
    }

    #[test]
    fn a_directory_that_others_may_write_needs_the_sticky_bit() {
        let dir = tempfile::tempdir().unwrap();
        let open = dir.path().join("open");
        std::fs::create_dir(&open).unwrap();
        for (mode, passes) in [(0o777, false), (0o1777, true), (0o775, true), (0o755, true), (0o773, false)] {
            std::fs::set_permissions(&open, PermissionsExt::from_mode(mode)).unwrap();
            let walked = walk(&open.join("x"), Trust::default(), IfMissing::Fail);
            assert_eq!(walked.is_ok(), passes, "{mode:o}");
            if let Err(stop) = walked {
                assert!(stop.cause().contains("sticky bit"));
            }
        }
    }

    #[test]
    fn what_is_missing_is_made_for_this_user_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a/b");
        walk(&path, Trust::default(), IfMissing::Make).unwrap();
        for made in [path.as_path(), path.parent().unwrap()] {
            assert_eq!(std::fs::metadata(made).unwrap().permissions().mode() & 0o7777, 0o700);
        }
    }
}
