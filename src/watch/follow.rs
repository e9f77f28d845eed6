//! The cleanup's output where somebody reads it: into a log file, which this room copies to where it
//! would have gone.
//!
//! A ^C ends `tee` too, and a harness takes its reader away when it pleases; the cleanup's next `echo`
//! into a pipe without a reader would be its last. A file has no reader to lose.

use super::voice;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::unistd::{isatty, write};
use std::fs::File;
use std::os::fd::{BorrowedFd, RawFd};
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt};
use std::path::PathBuf;

/// How many pieces of at most PIPE_BUF bytes are copied in one go.
const CHUNKS: usize = 16;

/// A log that is being copied to stdout or stderr, or was to be.
pub(super) struct Follow {
    log: File,
    path: PathBuf,
    /// 1 or 2.
    to: RawFd,
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

/// Standard output descriptors that lead to one place, and go there by way of a log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Diversion {
    /// 1, 2 or both.
    pub(super) fds: Vec<RawFd>,
    /// Whether somebody reads there.
    pub(super) live: bool,
}

/// An open log.
pub(super) struct Log {
    pub(super) file: File,
    pub(super) path: PathBuf,
    pub(super) diversion: Diversion,
}

/// What a cleanup must not write to directly: what has a reader, as long as it has one, and what has
/// lost it. Two readers get a log each, as one could not be told apart again.
pub(super) fn diversions(terminals: Terminals) -> Vec<Diversion> {
    let dead = voice::dead_outputs();
    let reader = |fd: RawFd| {
        let meta = std::fs::metadata(format!("/proc/self/fd/{fd}")).ok().filter(|_| !dead.contains(&fd))?;
        let kind = meta.file_type();
        let is_terminal = terminals == Terminals::Fleeting && isatty(standard(fd)).unwrap_or(false);
        (kind.is_fifo() || kind.is_socket() || is_terminal).then(|| (meta.dev(), meta.ino()))
    };
    let live = match (reader(1), reader(2)) {
        (Some(a), Some(b)) if a == b => vec![vec![1, 2]],
        (a, b) => [a.map(|_| vec![1]), b.map(|_| vec![2])].into_iter().flatten().collect(),
    };
    let live = live.into_iter().map(|fds| Diversion { fds, live: true });
    let dead = (!dead.is_empty()).then(|| Diversion { fds: dead.clone(), live: false });
    dead.into_iter().chain(live).collect()
}

/// 2 is stderr, anything else stdout.
fn standard(fd: RawFd) -> BorrowedFd<'static> {
    if fd == 2 { rustix::stdio::stderr() } else { rustix::stdio::stdout() }
}

impl Diversion {
    /// Where its log is copied to.
    pub(super) fn to(&self) -> RawFd {
        self.fds.first().copied().unwrap_or(1)
    }
}

impl Follow {
    /// Follows a log of which so much has been copied already.
    pub(super) fn new(log: Log, done: u64) -> Self {
        let (to, lost) = (log.diversion.to(), !log.diversion.live);
        Self { log: log.file, path: log.path, to, done, end: None, lost }
    }

    /// How far it has been copied.
    pub(super) fn done(&self) -> u64 {
        self.done
    }

    /// Whether nobody reads any more.
    pub(super) fn is_lost(&self) -> bool {
        self.lost
    }

    /// Somebody reads again, from where the last one left off.
    pub(super) fn regain(&mut self) {
        self.lost = false;
    }

    /// The descriptor it is copied to.
    pub(super) fn to(&self) -> RawFd {
        self.to
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
        if self.done < self.written() {
            return Some(self.path);
        }
        let _ = std::fs::remove_file(&self.path);
        None
    }

    /// The log's path.
    pub(super) fn into_path(self) -> PathBuf {
        self.path
    }

    /// What it is copied to.
    pub(super) fn output(&self) -> BorrowedFd<'static> {
        standard(self.to)
    }

    fn written(&self) -> u64 {
        self.log.metadata().map_or(0, |meta| meta.len())
    }

    /// At most what a pipe that poll(2) calls writable takes without blocking (pipe(7)).
    fn copy_chunk(&mut self, end: u64) -> Progress {
        if self.lost {
            return Progress::Idle;
        }
        let mut buffer = [0; libc::PIPE_BUF];
        let wanted = usize::try_from(end.saturating_sub(self.done)).unwrap_or(usize::MAX).min(buffer.len());
        let Ok(n @ 1..) = self.log.read_at(&mut buffer[..wanted], self.done) else { return Progress::Idle };
        let mut fds = [PollFd::new(self.output(), PollFlags::POLLOUT)];
        let ready = matches!(poll(&mut fds, PollTimeout::ZERO), Ok(1));
        let bad = PollFlags::POLLERR | PollFlags::POLLHUP | PollFlags::POLLNVAL;
        self.lost |= ready && fds[0].revents().is_none_or(|r| r.intersects(bad));
        if self.lost {
            return Progress::Idle;
        }
        let taken = if ready { write(self.output(), &buffer[..n]) } else { Ok(0) };
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
