//! The cleanup's output under a harness: into a log file, which this room copies to where it would
//! have gone.
//!
//! A harness takes the reader away when it pleases, and the cleanup's next `echo` into a pipe without
//! a reader would be its last. A file has no reader to lose.

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::unistd::{isatty, write};
use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom};
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::PathBuf;

/// How long the end waits for a reader that has stopped reading.
const PATIENCE_MS: u16 = 500;

/// A log that is being copied to stdout.
pub(super) struct Follow {
    log: File,
    path: PathBuf,
    /// Where this cleanup's output begins: behind that of an earlier boot's.
    from: u64,
    done: u64,
    lost: bool,
}

/// The descriptors whose output goes by way of a log: both, if they are one pipe, socket or terminal.
/// A regular file loses no reader, and two different ones are no harness's.
pub(super) fn outputs_with_one_reader() -> Vec<RawFd> {
    let (out, err) = (std::io::stdout(), std::io::stderr());
    let same = |a: &std::fs::Metadata, b: &std::fs::Metadata| (a.dev(), a.ino()) == (b.dev(), b.ino());
    let meta = |fd: RawFd| std::fs::metadata(format!("/proc/self/fd/{fd}")).ok();
    let (Some(a), Some(b)) = (meta(out.as_raw_fd()), meta(err.as_raw_fd())) else { return Vec::new() };
    let has_reader = a.file_type().is_fifo() || a.file_type().is_socket() || isatty(&out).unwrap_or(false);
    if has_reader && same(&a, &b) { vec![out.as_raw_fd(), err.as_raw_fd()] } else { Vec::new() }
}

impl Follow {
    /// Follows `path` from byte `from` on, of which the first `done` bytes are copied already.
    pub(super) fn open(path: PathBuf, from: u64, done: u64) -> Option<Self> {
        let mut log = OpenOptions::new().read(true).write(true).open(&path).ok()?;
        log.seek(SeekFrom::Start(done)).ok()?;
        Some(Self { log, path, from, done, lost: false })
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
        let out = std::io::stdout();
        let mut fds = [PollFd::new(out.as_fd(), PollFlags::POLLOUT)];
        let ready = matches!(poll(&mut fds, patience), Ok(1));
        let bad = PollFlags::POLLERR | PollFlags::POLLHUP | PollFlags::POLLNVAL;
        self.lost = ready && fds[0].revents().is_none_or(|r| r.intersects(bad));
        let taken = if ready && !self.lost { write(&out, &buffer[..n]) } else { Ok(0) };
        self.lost |= taken.is_err_and(|e| e != nix::errno::Errno::EAGAIN && e != nix::errno::Errno::EINTR);
        let taken = taken.unwrap_or(0);
        self.done += taken as u64;
        // What was not taken is read again.
        taken == n || (self.log.seek(SeekFrom::Start(self.done)).is_ok() && taken > 0)
    }
}
