//! The cleanup's output where somebody reads it: into a log file, which this room copies to where it
//! would have gone.
//!
//! A ^C ends `tee` too, and a harness takes its reader away when it pleases; the cleanup's next `echo`
//! into a pipe without a reader would be its last. A file has no reader to lose.

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::unistd::{isatty, write};
use std::fs::{File, OpenOptions};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt};
use std::path::PathBuf;

/// How many pieces of at most PIPE_BUF bytes are copied in one go.
const CHUNKS: usize = 16;

/// A log that is being copied to stdout or stderr.
pub(super) struct Follow {
    log: File,
    path: PathBuf,
    /// 1 or 2.
    to: RawFd,
    /// Where this cleanup's output begins: behind that of an earlier boot's.
    from: u64,
    done: u64,
    /// Where the cleanup has ended.
    end: Option<u64>,
    lost: bool,
}

/// How far a round of copying came.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Progress {
    /// Nothing is left, or nobody to take it.
    Idle,
    /// The reader takes no more for now.
    Stuck,
    /// More may be there.
    More,
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
        let log = OpenOptions::new().read(true).write(true).open(&path).ok()?;
        Some(Self { log, path, to, from, done, end: None, lost: false })
    }

    /// How far it has been copied, and where it began: what a successor has to know.
    pub(super) fn place(&self) -> (u64, u64) {
        (self.from, self.done)
    }

    /// Copies what is there, as far as the reader takes it and no more than a round's worth: whoever
    /// calls has signals to look at, and the cleanup may write faster than this.
    pub(super) fn copy(&mut self) -> Progress {
        let end = self.end.unwrap_or_else(|| self.written());
        for _ in 0..CHUNKS {
            match self.copy_chunk(end) {
                Progress::More => {}
                stopped => return stopped,
            }
        }
        Progress::More
    }

    /// The cleanup has ended: what anybody left behind writes from now on is not waited for.
    pub(super) fn end(&mut self) {
        self.end = Some(self.written());
    }

    /// Answers the log's path if the reader did not get all of it, else removes it.
    pub(super) fn finish(self) -> Option<PathBuf> {
        if self.lost || self.done < self.written() {
            return Some(self.path);
        }
        if self.from == 0 {
            let _ = std::fs::remove_file(&self.path);
        } else {
            let _ = self.log.set_len(self.from);
        }
        None
    }

    /// The log's path.
    pub(super) fn into_path(self) -> PathBuf {
        self.path
    }

    /// The descriptor it is copied to.
    pub(super) fn to(&self) -> BorrowedFd<'static> {
        if self.to == 2 { rustix::stdio::stderr() } else { rustix::stdio::stdout() }
    }

    fn written(&self) -> u64 {
        self.log.metadata().map_or(0, |meta| meta.len())
    }

    /// At most what a pipe that poll(2) calls writable takes without blocking (pipe(7)).
    fn copy_chunk(&mut self, end: u64) -> Progress {
        let mut buffer = [0; libc::PIPE_BUF];
        let wanted = usize::try_from(end.saturating_sub(self.done)).unwrap_or(usize::MAX).min(buffer.len());
        let Ok(n @ 1..) = self.log.read_at(&mut buffer[..wanted], self.done) else { return Progress::Idle };
        let mut fds = [PollFd::new(self.to(), PollFlags::POLLOUT)];
        let ready = matches!(poll(&mut fds, PollTimeout::ZERO), Ok(1));
        let bad = PollFlags::POLLERR | PollFlags::POLLHUP | PollFlags::POLLNVAL;
        self.lost |= ready && fds[0].revents().is_none_or(|r| r.intersects(bad));
        if self.lost {
            return Progress::Idle;
        }
        let taken = if ready { write(self.to(), &buffer[..n]) } else { Ok(0) };
        self.lost = taken.is_err_and(|e| e != Errno::EAGAIN && e != Errno::EINTR);
        // What was not taken is read again.
        match taken.unwrap_or(0) {
            0 => Progress::Stuck,
            taken => {
                self.done += taken as u64;
                Progress::More
            }
        }
    }
}
