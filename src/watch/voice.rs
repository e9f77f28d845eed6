//! What the watcher says: one line each on stderr, `TESTWATCHER: …`. Owns the rule that nothing said
//! may ever hold up a decision: where nobody reads, lines are dropped.

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::io::{IsTerminal, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};

/// How much is said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Volume {
    /// Everything.
    Normal,
    /// Errors only.
    Quiet,
}

/// Says things.
#[derive(Debug, Clone, Copy)]
pub struct Voice {
    volume: Volume,
}

impl Voice {
    /// A voice of this volume.
    #[must_use]
    pub fn new(volume: Volume) -> Self {
        Self { volume }
    }

    /// What a person would like to know.
    pub fn note(self, line: &str) {
        if self.volume == Volume::Normal {
            emit(line);
        }
    }

    /// What a person has to know.
    pub fn warn(self, line: &str) {
        emit(line);
    }

    /// Whether notes are said.
    #[must_use]
    pub fn is_quiet(self) -> bool {
        self.volume == Volume::Quiet
    }
}

/// Whether to colour: stderr is a terminal, and NO_COLOR (no-color.org) is unset or empty.
#[must_use]
pub fn colour_wanted() -> bool {
    std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty())
}

fn emit(line: &str) {
    let mut text = String::with_capacity(line.len() + 16);
    for part in line.lines() {
        text.push_str("TESTWATCHER: ");
        text.extend(part.chars().map(|c| if c.is_control() && c != '\x1b' { '?' } else { c }));
        text.push('\n');
    }
    let stderr = std::io::stderr();
    // A pipe that poll(2) calls writable takes PIPE_BUF bytes without blocking (pipe(7)).
    for chunk in text.as_bytes().chunks(libc::PIPE_BUF) {
        if !is_writable(stderr.as_fd()) {
            return;
        }
        if stderr.lock().write_all(chunk).is_err() {
            return;
        }
    }
}

fn is_writable(fd: BorrowedFd<'_>) -> bool {
    let mut fds = [PollFd::new(fd, PollFlags::POLLOUT)];
    // A reader that is merely slow gets a moment; one that is stuck costs no more than this.
    matches!(poll(&mut fds, PollTimeout::from(20u8)), Ok(1))
        && fds[0].revents().is_some_and(|r| {
            r.contains(PollFlags::POLLOUT) && !r.intersects(PollFlags::POLLERR | PollFlags::POLLHUP)
        })
}

/// The standard output descriptors whose other end is gone: a pipe without a reader, a terminal
/// that was hung up. Whoever writes there dies of SIGPIPE or gets EIO.
#[must_use]
pub fn dead_outputs() -> Vec<RawFd> {
    let (out, err) = (std::io::stdout(), std::io::stderr());
    [out.as_fd(), err.as_fd()].into_iter().filter(|fd| is_dead(*fd)).map(|fd| fd.as_raw_fd()).collect()
}

fn is_dead(fd: BorrowedFd<'_>) -> bool {
    let mut fds = [PollFd::new(fd, PollFlags::POLLOUT)];
    let _ = poll(&mut fds, PollTimeout::ZERO);
    fds[0]
        .revents()
        .is_some_and(|r| r.intersects(PollFlags::POLLERR | PollFlags::POLLHUP | PollFlags::POLLNVAL))
}
