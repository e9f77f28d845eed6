//! Every failure a person can meet: its sentence and its exit status.
//!
//! A room that fails returns [`Error`]; nobody else writes failure text, and no bare
//! [`std::io::Error`] crosses a room.

use std::fmt;
use std::io;
use std::path::Path;

/// Exit statuses of every subcommand but `watch` (contract, "Buffer").
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Status {
    /// The change was not made, and nothing is different from before.
    Failed = 1,
    /// The command line cannot be understood.
    Usage = 2,
    /// There is no state directory, or no buffer in it.
    Absent = 3,
    /// A file or directory could have been written by somebody else.
    Untrusted = 4,
    /// `watch` only: the watcher itself could not do its work.
    Watcher = 125,
}

/// One failure: one sentence without the program's name and without a full stop.
#[derive(Debug)]
pub struct Error {
    status: Status,
    sentence: String,
}

/// The result of everything in this crate that can fail.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// A failure with its own words.
    pub fn new(status: Status, sentence: impl Into<String>) -> Self {
        Self { status, sentence: sentence.into() }
    }

    /// `cannot VERB 'PATH': CAUSE`, exit status 1.
    ///
    /// # Examples
    /// ```
    /// use rl_cleanup::error::Error;
    /// let full = std::io::Error::from_raw_os_error(28); // ENOSPC, errno(3)
    /// let error = Error::io("replace", "/x/clbuff", &full);
    /// assert_eq!(error.to_string(), "cannot replace '/x/clbuff': No space left on device");
    /// ```
    pub fn io(verb: &str, path: impl AsRef<Path>, cause: &io::Error) -> Self {
        Self::new(Status::Failed, format!("cannot {verb} '{}': {}", path.as_ref().display(), Cause(cause)))
    }

    /// As [`Error::io`], from an errno of a system call that std does not wrap.
    pub fn os(verb: &str, path: impl AsRef<Path>, cause: nix::errno::Errno) -> Self {
        Self::io(verb, path, &io::Error::from(cause))
    }

    /// More is there than is ever read: exit status 1. `most` is in bytes.
    ///
    /// # Examples
    /// ```
    /// use rl_cleanup::error::Error;
    /// assert_eq!(
    ///     Error::too_large("/x/clbuff", 64 << 20).to_string(),
    ///     "cannot read '/x/clbuff': it is larger than 64 MiB"
    /// );
    /// ```
    pub fn too_large(path: impl AsRef<Path>, most: u64) -> Self {
        let (path, most) = (path.as_ref().display(), size(most));
        Self::new(Status::Failed, format!("cannot read '{path}': it is larger than {most}"))
    }

    /// More would be there than could be read again: exit status 1.
    pub fn would_be_too_large(path: impl AsRef<Path>, most: u64) -> Self {
        let (path, most) = (path.as_ref().display(), size(most));
        Self::new(Status::Failed, format!("cannot replace '{path}': it would be larger than {most}"))
    }

    /// Exit status 2, with the given sentence.
    pub fn usage(sentence: impl Into<String>) -> Self {
        Self::new(Status::Usage, sentence)
    }

    /// No `--dir`, no `BEAKERLIB_DIR`, no watcher: exit status 3 and what to do about it.
    #[must_use]
    pub fn no_state_directory() -> Self {
        Self::new(
            Status::Absent,
            "no state directory: set BEAKERLIB_DIR, give --dir, or run under 'rl-cleanup watch'",
        )
    }

    /// The state directory holds no buffer: exit status 3.
    #[must_use]
    pub fn no_buffer(dir: &Path) -> Self {
        Self::new(
            Status::Absent,
            format!("no cleanup buffer in '{}': nothing was prepended or appended there", dir.display()),
        )
    }

    /// `PATH` could be somebody else's work: exit status 4.
    pub fn untrusted(path: impl AsRef<Path>, why: &str) -> Self {
        Self::new(Status::Untrusted, format!("will not trust '{}': {why}", path.as_ref().display()))
    }

    /// The process exit status that goes with the sentence.
    #[must_use]
    pub fn status(&self) -> Status {
        self.status
    }

    /// The same sentence under another exit status.
    #[must_use]
    pub fn with_status(mut self, status: Status) -> Self {
        self.status = status;
        self
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.sentence)
    }
}

impl std::error::Error for Error {}

/// A bound for a person: whole MiB or KiB where it is one.
fn size(bytes: u64) -> String {
    match bytes {
        n if n >= 1 << 20 && n % (1 << 20) == 0 => format!("{} MiB", n >> 20),
        n if n >= 1 << 10 && n % (1 << 10) == 0 => format!("{} KiB", n >> 10),
        n => format!("{n} bytes"),
    }
}

/// The C library's words for an errno (strerror(3)); nix has shorter ones of its own.
#[must_use]
pub fn errno_text(errno: nix::errno::Errno) -> String {
    Cause(&io::Error::from(errno)).to_string()
}

/// An `io::Error` without the "(os error 28)" that std puts behind it.
pub struct Cause<'a>(pub &'a io::Error);

impl fmt::Display for Cause<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = self.0.to_string();
        match text.find(" (os error ") {
            Some(end) => f.write_str(&text[..end]),
            None => f.write_str(&text),
        }
    }
}
