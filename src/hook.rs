//! The one file both halves share: the one that `TESTWATCHER_CLPATH` names.
//!
//! Owns reading and writing it, the private directory beside it, and the report in that
//! directory by which a running final script tells the watcher what became of each entry.
//! Must not know what an entry or a process group is.

use crate::bounds;
use crate::error::{Error, Result};
use crate::trust::{IfMissing, Trust, is, open_own_directory, open_own_file, walk};
use nix::fcntl::OFlag;
use nix::sys::stat::{SFlag, fstat};
use nix::time::{ClockId, clock_gettime};
use std::ffi::{OsStr, OsString};
use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// The environment variable that names the file (BeakerLib's testwatcher).
pub const CLPATH_VAR: &str = "TESTWATCHER_CLPATH";
/// What happened to the test, told to the cleanup (contract, Watcher, 11).
pub const OUTCOME_VAR: &str = "TESTWATCHER_OUTCOME";
/// Where watchers make the file. Survives a reboot, unlike `/tmp` on many systems (hier(7)).
pub const CLPATH_DIR: &str = "/var/tmp";
/// The file name's fixed part.
pub const CLPATH_PREFIX: &str = "testwatcher-";
/// How much of the file is ever read: a path is at most `PATH_MAX` (4096) bytes (limits.h(0p)).
const FIRST_LINE_MAX: u64 = 4096 + 64;

/// The file that `TESTWATCHER_CLPATH` names.
///
/// # Examples
/// ```
/// use rl_cleanup::hook::{ClPath, Hooked};
/// # let dir = tempfile::tempdir_in("/var/tmp").unwrap();
/// # let path = dir.path().join("testwatcher-x");
/// std::fs::write(&path, "").unwrap();
/// let clpath = ClPath::new(&path);
/// assert_eq!(clpath.read().unwrap(), Hooked::Nothing);
///
/// let script = dir.path().join("cleanup.sh");
/// clpath.write(&script).unwrap();
/// assert_eq!(clpath.read().unwrap(), Hooked::Script(script));
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClPath(PathBuf);

/// What the file says.
///
/// # Examples
/// ```
/// use rl_cleanup::hook::Hooked;
/// assert_eq!(Hooked::parse(b" /x/cleanup.sh \nmore"), Some(Hooked::Script("/x/cleanup.sh".into())));
/// assert_eq!(Hooked::parse(b"cleanup.sh"), Some(Hooked::Script("./cleanup.sh".into())));
/// assert_eq!(Hooked::parse(b""), Some(Hooked::Nothing));
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Hooked {
    /// No cleanup was hooked: the file is empty.
    Nothing,
    /// This is the final script. Always has a slash, so that it is never looked up in `PATH`.
    Script(PathBuf),
}

impl Hooked {
    /// From the file's first bytes; `None` if its first line has no end.
    #[must_use]
    pub fn parse(text: &[u8]) -> Option<Self> {
        let (line, ended) = match text.iter().position(|&b| b == b'\n') {
            Some(end) => (&text[..end], true),
            None => (text, (text.len() as u64) < FIRST_LINE_MAX),
        };
        let line = ended.then_some(line)?.trim_ascii();
        if line.is_empty() {
            return Some(Self::Nothing);
        }
        let mut script = OsString::from_vec(line.to_vec());
        if !line.contains(&b'/') || line.starts_with(b"-") {
            // Without a slash execvp(3) would run another program of that name from PATH, and an
            // interpreter would take a dash for its options.
            script = [OsStr::new("./"), &script].into_iter().collect();
        }
        Some(Self::Script(script.into()))
    }
}

impl ClPath {
    /// The file at `path`.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self(path.into())
    }

    /// From the environment; empty counts as unset.
    #[must_use]
    pub fn from_env() -> Option<Self> {
        std::env::var_os(CLPATH_VAR).filter(|v| !v.is_empty()).map(|v| Self(v.into()))
    }

    /// The file's own path.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// The private directory beside the file. The watcher makes it (mode 0700) and removes it.
    #[must_use]
    pub fn private_dir(&self) -> PathBuf {
        let mut name = self.0.clone().into_os_string();
        name.push(".d");
        name.into()
    }

    /// Whether the private directory is there, and this user's alone.
    #[must_use]
    pub fn has_private_dir(&self) -> bool {
        let mine = |m: std::fs::Metadata| {
            m.is_dir() && m.uid() == nix::unistd::geteuid().as_raw() && m.mode() & 0o077 == 0
        };
        std::fs::symlink_metadata(self.private_dir()).is_ok_and(mine)
    }

    /// Removes the file and, if it is ours, the private directory with all that is in it.
    pub fn remove(&self) {
        let _ = std::fs::remove_file(&self.0);
        self.remove_empty_dir();
        if self.has_private_dir() {
            let _ = std::fs::remove_dir_all(self.private_dir());
        }
    }

    /// Removes the private directory if there is nothing in it.
    pub fn remove_empty_dir(&self) {
        let _ = std::fs::remove_dir(self.private_dir());
    }

    /// Whether the file or the private directory is still there.
    #[must_use]
    pub fn is_left(&self) -> bool {
        self.0.exists() || self.has_private_dir()
    }

    /// Whether a cleanup has been started.
    #[must_use]
    pub fn has_cleanup_marker(&self) -> bool {
        self.has_private_dir() && self.cleanup_marker().exists()
    }

    /// A file that is there once a cleanup has been started.
    #[must_use]
    pub fn cleanup_marker(&self) -> PathBuf {
        self.private_dir().join("cleanup-started")
    }

    /// Where a running final script reports.
    #[must_use]
    pub fn report(&self) -> Report {
        Report(self.private_dir().join("report"))
    }

    /// Makes the private directory, mode 0700, failing if anything is there already.
    ///
    /// # Errors
    /// Whatever `mkdir(2)` answers.
    pub fn make_private_dir(&self) -> std::io::Result<()> {
        std::fs::DirBuilder::new().mode(0o700).create(self.private_dir())
    }

    /// Reads the first line, as the original watcher does: stripped of white space at both ends.
    ///
    /// The file may have been replaced by rename or written in place; either way this opens the
    /// path anew. Never blocks on a FIFO, never reads more than one path's worth.
    ///
    /// # Errors
    /// The file is gone, is not a regular file, cannot be read, could be another user's work, or its
    /// first line has no end.
    pub fn read(&self) -> Result<Hooked> {
        self.read_trusting(Trust::default())
    }

    /// The same for a process that sudo's variable may not have reached.
    ///
    /// # Errors
    /// As [`ClPath::read`].
    pub fn read_trusting(&self, trust: Trust) -> Result<Hooked> {
        let place = walk(&self.0, trust, IfMissing::Fail).map_err(|stop| stop.into_reading(&self.0))?;
        let file = place
            .open(OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_NOCTTY)
            .map_err(|e| Error::os("read", &self.0, e))?;
        let stat = fstat(&file).map_err(|e| Error::os("read", &self.0, e))?;
        if !is(&stat, SFlag::S_IFREG) {
            return Err(Error::untrusted(&self.0, "it is not a regular file"));
        }
        // Whoever can write it chooses which of root's programs is run as cleanup.
        trust.check(&stat).map_err(|why| Error::untrusted(&self.0, &why))?;
        let mut text = Vec::new();
        File::from(file)
            .take(FIRST_LINE_MAX)
            .read_to_end(&mut text)
            .map_err(|e| Error::io("read", &self.0, &e))?;
        Hooked::parse(&text)
            .ok_or_else(|| Error::untrusted(&self.0, "its first line is longer than any path"))
    }

    /// Makes the file name `script`: a new file of mode 0600, renamed over the old one, so that
    /// a watcher reading at this moment sees the old line or the new one. Where the directory
    /// cannot be written (a test under another user), writes in place.
    ///
    /// # Errors
    /// Neither way works.
    pub fn write(&self, script: &Path) -> Result<()> {
        let mut line = script.as_os_str().as_bytes().to_vec();
        line.push(b'\n');
        let replaced = self.new_file().and_then(|mut new| {
            new.write_all(&line)?;
            new.persist(&self.0).map_err(|e| e.error)
        });
        match replaced {
            Ok(_) => Ok(()),
            Err(_) => self.overwrite(&line).map_err(|e| Error::io("write", &self.0, &e)),
        }
    }

    /// Makes the file name nothing, in place: that needs no room anywhere.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn empty(&self) -> Result<()> {
        self.overwrite(b"").map_err(|e| Error::io("write", &self.0, &e))
    }

    /// Made in the private directory, which the watcher removes with all that is in it; what a writer
    /// has left there that was killed goes now. The original watcher has no such directory.
    fn new_file(&self) -> std::io::Result<tempfile::NamedTempFile> {
        if !self.has_private_dir() {
            let dir = self.0.parent().filter(|d| !d.as_os_str().is_empty()).unwrap_or(Path::new("."));
            return tempfile::Builder::new().prefix(".testwatcher-").tempfile_in(dir);
        }
        let dir = self.private_dir();
        for entry in std::fs::read_dir(&dir)?.flatten() {
            if is_left_by_the_dead(&entry.file_name()) {
                let _ = std::fs::remove_file(entry.path());
            }
        }
        tempfile::Builder::new().prefix(&format!("{NEW}{}-", std::process::id())).tempfile_in(&dir)
    }

    /// Not one byte is lost before it is known whose file that is.
    fn overwrite(&self, line: &[u8]) -> std::io::Result<()> {
        let mut file = OpenOptions::new()
            .write(true)
            .custom_flags((OFlag::O_NONBLOCK | OFlag::O_NOFOLLOW).bits())
            .open(&self.0)?;
        let stat = fstat(&file)?;
        if !is(&stat, SFlag::S_IFREG) || stat.st_nlink > 1 || Trust::default().check(&stat).is_err() {
            return Err(nix::errno::Errno::EPERM.into());
        }
        file.set_len(0)?;
        file.write_all(line)
    }
}

/// What a new file is called until it is in place; the writer's pid follows.
const NEW: &str = ".hook-";

fn is_left_by_the_dead(name: &OsStr) -> bool {
    let writer = || name.to_str()?.strip_prefix(NEW)?.split_once('-')?.0.parse::<u32>().ok();
    writer().is_some_and(|pid| !Path::new("/proc").join(pid.to_string()).exists())
}

/// Nanoseconds of the clock that goes on while the machine is suspended (`CLOCK_BOOTTIME`,
/// clock_gettime(2)). 0 where the kernel has none.
#[must_use]
pub fn boottime_ns() -> u64 {
    clock_gettime(ClockId::CLOCK_BOOTTIME).map_or(0, |t| {
        u64::try_from(t.tv_sec()).unwrap_or(0) * 1_000_000_000 + u64::try_from(t.tv_nsec()).unwrap_or(0)
    })
}

/// The file in the private directory to which a running final script appends one row an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report(PathBuf);

/// One event of a running final script. Times are [`boottime_ns`].
///
/// # Examples
/// ```
/// use rl_cleanup::hook::Row;
/// let row = Row::Ran { at: 250, id: "aaaaaa".into(), status: 0, text: "umount /mnt".into() };
/// assert_eq!(row.render(), "ran\t250\taaaaaa\t0\tumount /mnt\n");
/// assert_eq!(Row::parse("ran\t250\taaaaaa\t0\tumount /mnt"), Some(row));
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Row {
    /// The script started, or went on in a new shell.
    Begin {
        /// When.
        at: u64,
    },
    /// This entry is going to run.
    Plan {
        /// The entry's id.
        id: String,
        /// Its first line, as text (lossy).
        text: String,
    },
    /// This entry has run.
    Ran {
        /// When it ended.
        at: u64,
        /// The entry's id.
        id: String,
        /// Its exit status.
        status: u8,
        /// Its first line, as text (lossy).
        text: String,
    },
    /// All entries have run.
    End {
        /// When.
        at: u64,
    },
}

impl Report {
    /// The file's path.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Appends rows in one write; makes the file (mode 0600) if it is not there.
    ///
    /// # Errors
    /// The private directory is gone or belongs to somebody else.
    pub fn append(&self, rows: &[Row]) -> Result<()> {
        let text: String = rows.iter().map(Row::render).collect();
        let dir = open_own_directory(self.0.parent().unwrap_or(Path::new(".")))?;
        let name = self.0.file_name().unwrap_or_default();
        open_own_file(&dir, name, OFlag::O_WRONLY | OFlag::O_APPEND | OFlag::O_CREAT)
            .map_err(std::io::Error::from)
            .and_then(|mut file| file.write_all(text.as_bytes()))
            .map_err(|e| Error::io("write", &self.0, &e))
    }

    /// All rows so far; none if there is no file, or if it is not this user's.
    ///
    /// # Errors
    /// It is larger than any report, or cannot be read.
    pub fn rows(&self) -> Result<Vec<Row>> {
        let opened = OpenOptions::new()
            .read(true)
            .custom_flags((OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK).bits())
            .open(&self.0);
        let Ok(file) = opened else { return Ok(Vec::new()) };
        if !file.metadata().is_ok_and(|m| m.is_file() && Trust::default().owns(m.uid())) {
            return Ok(Vec::new());
        }
        let bytes = bounds::read_open(&file, &self.0, bounds::REPORT)?;
        Ok(String::from_utf8_lossy(&bytes).lines().filter_map(Row::parse).collect())
    }
}

impl Row {
    /// One line of the file. Of a long text only its start.
    #[must_use]
    pub fn render(&self) -> String {
        let plain = |c: char| if matches!(c, '\n' | '\t' | '\r') { ' ' } else { c };
        let line = |text: &str| text.chars().take(bounds::ROW_TEXT).map(plain).collect::<String>();
        match self {
            Self::Begin { at } => format!("begin\t{at}\n"),
            Self::Plan { id, text } => format!("plan\t{id}\t{}\n", line(text)),
            Self::Ran { at, id, status, text } => format!("ran\t{at}\t{id}\t{status}\t{}\n", line(text)),
            Self::End { at } => format!("end\t{at}\n"),
        }
    }

    /// Reads one line; `None` if it is none of ours.
    #[must_use]
    pub fn parse(line: &str) -> Option<Self> {
        let mut fields = line.split('\t');
        let row = match fields.next()? {
            "begin" => Self::Begin { at: fields.next()?.parse().ok()? },
            "plan" => Self::Plan { id: fields.next()?.into(), text: fields.next()?.into() },
            "ran" => Self::Ran {
                at: fields.next()?.parse().ok()?,
                id: fields.next()?.into(),
                status: fields.next()?.parse().ok()?,
                text: fields.next()?.into(),
            },
            "end" => Self::End { at: fields.next()?.parse().ok()? },
            _ => return None,
        };
        Some(row)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(text: &[u8]) -> (tempfile::TempDir, ClPath) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("testwatcher-x");
        std::fs::write(&path, text).unwrap();
        (dir, ClPath::new(path))
    }

    #[test]
    fn only_the_first_line_counts_and_is_stripped() {
        for (text, want) in [
            (&b"/a/b\n"[..], "/a/b"),
            (b"/a/b", "/a/b"),
            (b"  /a/b \r\nsecond\n", "/a/b"),
            (b"cleanup.sh\n", "./cleanup.sh"),
            (b"./cleanup.sh\n", "./cleanup.sh"),
            (b"-d/cleanup.sh\n", "./-d/cleanup.sh"),
        ] {
            let (_dir, clpath) = file(text);
            assert_eq!(clpath.read().unwrap(), Hooked::Script(want.into()), "{text:?}");
        }
        for text in [&b""[..], b"\n", b"  \n/second\n"] {
            let (_dir, clpath) = file(text);
            assert_eq!(clpath.read().unwrap(), Hooked::Nothing, "{text:?}");
        }
    }

    #[test]
    fn a_path_need_not_be_utf8() {
        let (_dir, clpath) = file(b"/a/\xff\n");
        assert_eq!(clpath.read().unwrap(), Hooked::Script(OsString::from_vec(b"/a/\xff".to_vec()).into()));
    }

    #[test]
    fn an_endless_line_a_fifo_and_a_directory_are_refused_without_hanging() {
        let (dir, clpath) = file(&vec![b'x'; 1 << 20]);
        assert!(clpath.read().unwrap_err().to_string().contains("longer than any path"));
        let fifo = dir.path().join("fifo");
        nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert!(ClPath::new(fifo).read().unwrap_err().to_string().contains("not a regular file"));
        assert!(ClPath::new(dir.path()).read().is_err());
    }

    #[test]
    fn writing_replaces_the_file_whole_and_leaves_nothing_else() {
        let (dir, clpath) = file(b"old\n");
        clpath.write(Path::new("/x/cleanup.sh")).unwrap();
        assert_eq!(clpath.read().unwrap(), Hooked::Script("/x/cleanup.sh".into()));
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn report_rows_survive_the_file() {
        let (_dir, clpath) = file(b"");
        clpath.make_private_dir().unwrap();
        let rows = vec![
            Row::Begin { at: 5 },
            Row::Plan { id: "a1".into(), text: "umount /mnt".into() },
            Row::Ran { at: 9, id: "a1".into(), status: 32, text: "umount /mnt".into() },
            Row::End { at: 10 },
        ];
        clpath.report().append(&rows[..1]).unwrap();
        clpath.report().append(&rows[1..]).unwrap();
        assert_eq!(clpath.report().rows().unwrap(), rows);
    }
}
