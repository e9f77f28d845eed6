//! The controlling terminal: lending it to a group that wants it, taking it back, stopping and going
//! on with everything, and hearing ^C whoever holds it. Decides nothing about tests.
//!
//! The terminal stays with the watcher's own group until a test asks for it, which the kernel tells
//! by stopping the test with SIGTTIN or SIGTTOU (termios(3)). From then on ^C and ^Z go to the
//! test's group only, so a sentinel of ours joins that group and passes them on.

use super::kernel::Inheritance;
use super::process::{Group, Launch, Place, kill_one, own_program};
use super::signals::Signals;
use nix::fcntl::{OFlag, open};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::stat::Mode;
use nix::sys::termios::{SetArg, Termios, tcgetattr, tcsetattr};
use nix::unistd::{Pid, getpgrp, pipe2, read, tcgetpgrp, tcsetpgrp, write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

/// `argv[0]` of a sentinel.
pub const SENTINEL_NAME: &str = "rl-cleanup-sentinel";
/// What a sentinel heard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Heard {
    /// ^C or ^\.
    Interrupt,
    /// ^Z.
    Stop,
    /// The terminal is gone.
    Hangup,
}

/// The controlling terminal of this process.
pub struct Terminal {
    tty: OwnedFd,
    /// The settings when it was first lent, to be put back at the end. A terminal that was never lent
    /// is somebody else's business: a pager's in the same pipeline, say.
    settings: Option<Termios>,
    lent: Option<Group>,
    sentinel: Option<Sentinel>,
}

struct Sentinel {
    pid: Pid,
    /// `None` once it is dead and not yet reaped.
    ears: Option<OwnedFd>,
}

impl Terminal {
    /// `None` without a controlling terminal (tty(4)).
    #[must_use]
    pub fn open() -> Option<Self> {
        let tty = open("/dev/tty", OFlag::O_RDWR | OFlag::O_CLOEXEC | OFlag::O_NOCTTY, Mode::empty()).ok()?;
        Some(Self { tty, settings: None, lent: None, sentinel: None })
    }

    /// Whether the watcher's own group holds the terminal.
    #[must_use]
    pub fn is_ours(&self) -> bool {
        tcgetpgrp(&self.tty).is_ok_and(|holder| holder == getpgrp())
    }

    /// The group that holds the terminal by our leave.
    #[must_use]
    pub fn lent_to(&self) -> Option<Group> {
        self.lent
    }

    /// Hands the terminal to `group`; false if it is not ours to give.
    pub fn lend(&mut self, group: Group, inheritance: &Inheritance) -> bool {
        if !self.is_ours() && self.lent != Some(group) {
            return false;
        }
        if self.settings.is_none() {
            self.settings = self.settings_now();
        }
        // First the sentinel: no key may find the group alone.
        if self.sentinel.is_none() {
            self.sentinel = Sentinel::start(group, inheritance);
        }
        // SIGTTOU is blocked, so this works from the background too (tcsetpgrp(3)).
        if tcsetpgrp(&self.tty, group.leader()).is_err() {
            return false;
        }
        self.lent = Some(group);
        true
    }

    /// Takes the terminal back from whom it was lent to, unless somebody else has it by now.
    pub fn take_back(&mut self) {
        if let Some(group) = self.lent.take()
            && tcgetpgrp(&self.tty).is_ok_and(|holder| holder == group.leader())
        {
            let _ = tcsetpgrp(&self.tty, getpgrp());
        }
    }

    /// The group is over: no terminal, no sentinel.
    pub fn forget_group(&mut self) {
        self.take_back();
        if let Some(sentinel) = self.sentinel.take() {
            kill_one(sentinel.pid);
        }
    }

    /// Puts the settings back as they were, if the terminal is ours.
    pub fn restore(&mut self) {
        self.forget_group();
        if let Some(before) = self.settings.take()
            && self.is_ours()
            && tcgetattr(&self.tty).is_ok_and(|now| now != before)
        {
            // Not TCSADRAIN, which waits for a console that somebody has stopped.
            let _ = tcsetattr(&self.tty, SetArg::TCSANOW, &before);
        }
    }

    /// The settings now, to be put back after a stop.
    #[must_use]
    pub fn settings_now(&self) -> Option<Termios> {
        tcgetattr(&self.tty).ok()
    }

    /// Puts settings in place.
    pub fn apply(&self, settings: &Termios) {
        let _ = tcsetattr(&self.tty, SetArg::TCSANOW, settings);
    }

    /// The settings when it was first lent.
    #[must_use]
    pub fn settings_at_start(&self) -> Option<&Termios> {
        self.settings.as_ref()
    }

    /// The sentinel's pid, which is a child of ours but none of the test's.
    #[must_use]
    pub fn sentinel(&self) -> Option<Pid> {
        self.sentinel.as_ref().map(|s| s.pid)
    }

    /// The sentinel was reaped: killed with its group, or by somebody.
    pub fn sentinel_died(&mut self) {
        self.sentinel = None;
    }

    /// What to poll for [`Terminal::hear`].
    #[must_use]
    pub fn ears(&self) -> Option<BorrowedFd<'_>> {
        self.sentinel.as_ref()?.ears.as_ref().map(AsFd::as_fd)
    }

    /// What the sentinel has heard, waiting at most `patience`.
    pub fn hear(&mut self, patience: PollTimeout) -> Option<Heard> {
        let sentinel = self.sentinel.as_mut()?;
        let ears = sentinel.ears.as_ref()?;
        let mut fds = [PollFd::new(ears.as_fd(), PollFlags::POLLIN)];
        if !matches!(poll(&mut fds, patience), Ok(1)) {
            return None;
        }
        let mut byte = [0];
        match read(ears, &mut byte) {
            Ok(1) if byte[0] == b'z' => Some(Heard::Stop),
            Ok(1) if byte[0] == b'h' => Some(Heard::Hangup),
            Ok(1) => Some(Heard::Interrupt),
            // Dead; SIGCHLD will say so, and have it replaced.
            _ => {
                sentinel.ears = None;
                None
            }
        }
    }
}

impl Sentinel {
    fn start(group: Group, inheritance: &Inheritance) -> Option<Self> {
        let (ears, mouth) = pipe2(OFlag::O_CLOEXEC).ok()?;
        let argv = [SENTINEL_NAME.into()];
        // Born with everything blocked: a key pressed in this moment waits for it, and no signal that
        // the test sends to its own group ends it.
        let inheritance = Inheritance { mask: SigSet::all(), ..*inheritance };
        let launch = Launch {
            argv: &argv,
            env: &[],
            inheritance: &inheritance,
            place: Place::Join(group),
            // Its standard output, the one descriptor that safe code can use by number.
            descriptors: &[(mouth.as_raw_fd(), 1)],
            marker: None,
        };
        let pid = launch.start_as(&own_program()?).ok()?;
        Some(Self { pid, ears: Some(ears) })
    }
}

/// A sentinel's whole life: passes ^C, ^\\ and ^Z on until its watcher is gone or it is killed.
pub fn be_sentinel() {
    let Ok((signals, _)) = Signals::block() else { return };
    let mouth = std::io::stdout();
    loop {
        let mut fds =
            [PollFd::new(signals.as_fd(), PollFlags::POLLIN), PollFd::new(mouth.as_fd(), PollFlags::empty())];
        let _ = poll(&mut fds, PollTimeout::NONE);
        // Its only reader is the watcher.
        if fds[1].revents().is_some_and(|r| r.intersects(PollFlags::POLLERR | PollFlags::POLLHUP)) {
            return;
        }
        while let Some(signal) = signals.next() {
            let word = match signal {
                Signal::SIGINT | Signal::SIGQUIT => b"i",
                Signal::SIGTSTP => b"z",
                Signal::SIGHUP => b"h",
                _ => continue,
            };
            let _ = write(&mouth, word);
        }
    }
}
