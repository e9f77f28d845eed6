//! The cleanup's output where somebody reads it: into a log file, which this room copies to where it
//! would have gone.
//!
//! A ^C ends `tee` too, and a harness takes its reader away when it pleases; the cleanup's next `echo`
//! into a pipe without a reader would be its last. A file has no reader to lose.

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::unistd::{isatty, write};
use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::PathBuf;

/// How long the end waits for a reader that has stopped reading.
const PATIENCE_MS: u16 = 500;

/// A log that is being copied to stdout or stderr.
pub(super) struct Follow {
    log: File,
    path: PathBuf,
    /// 1 or 2.
    to: RawFd,
    /// Where this cleanup's output begins: behind that of an earlier boot's.
    from: u64,
    done: u64,
    lost: bool,
}

/// Whether a terminal's other end may go as a pipe's may: an ssh client's, under a harness. A person's
/// own is where the cleanup writes directly.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Terminals {
    Lasting,
    Fleeting,
}

/// The standard output descriptors that go by way of a log: those with a reader, as long as it is one.
/// Two different readers get what is theirs directly, as one log could not be told apart again.
pub(super) fn outputs_with_a_reader(terminals: Terminals) -> Vec<RawFd> {
    let (out, err) = (std::io::stdout(), std::io::stderr());
    let reader = |fd: BorrowedFd<'_>| {
        let meta = std::fs::metadata(format!("/proc/self/fd/{}", fd.as_raw_fd())).ok()?;
        let kind = meta.file_type();
        let is_terminal = terminals == Terminals::Fleeting && isatty(fd).unwrap_or(false);
        (kind.is_fifo() || kind.is_socket() || is_terminal).then(|| (meta.dev(), meta.ino()))
    };
    match (reader(out.as_fd()), reader(err.as_fd())) {
        (Some(a), Some(b)) if a == b => vec![1, 2],
        (Some(_), None) => vec![1],
        (None, Some(_)) => vec![2],
        _ => Vec::new(),
    }
}

impl Follow {
    /// Follows `path`, which begins at byte `from` and has been copied up to `done`.
    pub(super) fn open(path: PathBuf, to: RawFd, (from, done): (u64, u64)) -> Option<Self> {
        let mut log = OpenOptions::new().read(true).write(true).open(&path).ok()?;
        log.seek(SeekFrom::Start(done)).ok()?;
        Some(Self { log, path, to, from, done, lost: false })
    }

    /// How far it has been copied, and where it began: what a successor has to know.
    pub(super) fn place(&self) -> (u64, u64) {
        (self.from, self.done)
    }

    /// Copies what is there as far as the reader takes it; true if anything was copied.
    pub(super) fn copy(&mut self) -> bool {
        let before = self.done;
        while !self.lost && self.copy_some(PollTimeout::ZERO) {}
        self.done > before
    }

    /// Copies the rest; answers the log's path if the reader did not get all of it, else removes it.
    pub(super) fn finish(mut self) -> Option<PathBuf> {
        while !self.lost && self.copy_some(PollTimeout::from(PATIENCE_MS)) {}
        let written = self.log.metadata().map_or(0, |meta| meta.len());
        if self.lost || self.done < written {
            return Some(self.path);
        }
        if self.from == 0 {
            let _ = std::fs::remove_file(&self.path);
        } else {
            let _ = self.log.set_len(self.from);
        }
        None
    }

    /// At most what a pipe that poll(2) calls writable takes without blocking (pipe(7)).
    fn copy_some(&mut self, patience: PollTimeout) -> bool {
        let mut buffer = [0; libc::PIPE_BUF];
        let Ok(n @ 1..) = self.log.read(&mut buffer) else { return false };
        let (out, err) = (std::io::stdout(), std::io::stderr());
        let out = if self.to == 2 { err.as_fd() } else { out.as_fd() };
        let mut fds = [PollFd::new(out, PollFlags::POLLOUT)];
        let ready = matches!(poll(&mut fds, patience), Ok(1));
        let bad = PollFlags::POLLERR | PollFlags::POLLHUP | PollFlags::POLLNVAL;
        self.lost = ready && fds[0].revents().is_none_or(|r| r.intersects(bad));
        let taken = if ready && !self.lost { write(out, &buffer[..n]) } else { Ok(0) };
        self.lost |= taken.is_err_and(|e| e != nix::errno::Errno::EAGAIN && e != nix::errno::Errno::EINTR);
        let taken = taken.unwrap_or(0);
        self.done += taken as u64;
        // What was not taken is read again.
        taken == n || (self.log.seek(SeekFrom::Start(self.done)).is_ok() && taken > 0)
    }
}
