//! The one door to what safe Rust does not offer: fork(2), and what the watcher was given by whoever
//! started it, caught before anything could change it. The crate's only unsafe code.
//!
//! A child inherits ignored dispositions and the signal mask (signal(7)); the test must get
//! exactly those the watcher got. Rust's runtime ignores SIGPIPE before `main`, and a SIGCHLD that
//! was ignored would make the kernel reap children behind our back (wait(2)), so both are looked at
//! before the runtime starts.

use nix::errno::Errno;
use nix::sys::signal::{SigSet, Signal};
use nix::unistd::ForkResult;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU8, Ordering};

/// Bit set of what was ignored at the start; written once, before `main`.
static IGNORED: AtomicU8 = AtomicU8::new(0);
const PIPE: u8 = 1;
const HUP: u8 = 2;
const CHLD: u8 = 4;
/// The runtime opens /dev/null where a standard descriptor was closed: bits 3 to 5.
const CLOSED: [u8; 3] = [8, 16, 32];

/// The C library's own signals, as far as they were at their default. posix_spawn(3) makes the child
/// ignore them unless it is told to put them back.
static INTERNAL: OnceLock<SigSet> = OnceLock::new();

/// What the test is to inherit.
#[derive(Debug, Clone, Copy)]
pub struct Inheritance {
    /// The signal mask.
    pub mask: SigSet,
    /// Whether SIGPIPE was ignored.
    pub sigpipe_ignored: bool,
    /// Whether SIGHUP was ignored (nohup(1)).
    pub sighup_ignored: bool,
}

impl Inheritance {
    /// What this process was started with; `mask` is what `sigprocmask(2)` said before we blocked.
    #[must_use]
    pub fn caught(mask: SigSet) -> Self {
        let ignored = IGNORED.load(Ordering::Relaxed);
        Self { mask, sigpipe_ignored: ignored & PIPE != 0, sighup_ignored: ignored & HUP != 0 }
    }

    /// The signals that a child must get at their default.
    #[must_use]
    pub fn defaults(&self) -> SigSet {
        let mut set = INTERNAL.get().copied().unwrap_or_else(SigSet::empty);
        if !self.sigpipe_ignored {
            set.add(Signal::SIGPIPE);
        }
        set
    }

    /// The standard descriptors that were closed, and must be closed in the test too.
    pub fn closed_descriptors(&self) -> impl Iterator<Item = i32> + use<> {
        let ignored = IGNORED.load(Ordering::Relaxed);
        (0..).zip(CLOSED).filter(move |(_, bit)| ignored & bit != 0).map(|(fd, _)| fd)
    }
}

/// Makes a second process out of this one (fork(2)).
///
/// # Errors
/// No process is to be had (`EAGAIN`, `ENOMEM`).
pub fn fork() -> nix::Result<ForkResult> {
    let mut forked = Err(Errno::EAGAIN);
    door::enter(door::Call::Fork(&mut forked));
    forked
}

#[expect(unsafe_code, reason = "fork(2), and dispositions that are gone once Rust's runtime has started")]
mod door {
    use super::{CHLD, CLOSED, ForkResult, HUP, IGNORED, INTERNAL, Ordering, PIPE};
    use nix::sys::signal::SigSet;

    pub(super) enum Call<'a> {
        /// Look at descriptors and dispositions, before `main`.
        Catch,
        /// Fork.
        Fork(&'a mut nix::Result<ForkResult>),
    }

    #[used]
    #[unsafe(link_section = ".init_array")]
    static BEFORE_MAIN: extern "C" fn() = before_main;

    extern "C" fn before_main() {
        enter(Call::Catch);
    }

    /// The signals that the C library keeps for itself, first and last (nptl(7)); musl has one more.
    const KEPT: (u32, u32) = (32, if cfg!(target_env = "musl") { 34 } else { 33 });

    pub(super) fn enter(call: Call<'_>) {
        // SAFETY: `Fork`: the watcher never starts a thread, so its copy may do all that it may
        // (fork(2)). `Catch`: fcntl(2) with numbers only; sigaction(2) and rt_sigaction(2) with valid
        // pointers to zeroed structures, the latter larger than any kernel's, called while the
        // process has one thread; zeroed means SIG_DFL, an empty mask and no flags. `sigset_t` is a
        // plain bit array on Linux, so every pattern of it is valid. Storing to a static needs no
        // runtime.
        unsafe {
            if let Call::Fork(answer) = call {
                *answer = nix::unistd::fork();
                return;
            }
            for (fd, bit) in (0..).zip(CLOSED) {
                if libc::fcntl(fd, libc::F_GETFD) == -1 {
                    IGNORED.fetch_or(bit, Ordering::Relaxed);
                }
            }
            let default: libc::sigaction = std::mem::zeroed();
            for (signal, bit) in [(libc::SIGPIPE, PIPE), (libc::SIGHUP, HUP), (libc::SIGCHLD, CHLD)] {
                let mut old: libc::sigaction = std::mem::zeroed();
                if libc::sigaction(signal, std::ptr::null(), &raw mut old) == 0
                    && old.sa_sigaction == libc::SIG_IGN
                {
                    IGNORED.fetch_or(bit, Ordering::Relaxed);
                    // Default for the test too: nothing safe can ignore it again between fork and
                    // exec, and no program is known to want that.
                    if signal == libc::SIGCHLD {
                        libc::sigaction(signal, &raw const default, std::ptr::null_mut());
                    }
                }
            }
            // sigaction(3) does not look at these; their handler is the kernel structure's first word.
            let mut kept: u64 = 0;
            for signal in KEPT.0..=KEPT.1 {
                let mut old = [0usize; 16];
                let asked = libc::syscall(
                    libc::SYS_rt_sigaction,
                    signal,
                    std::ptr::null::<usize>(),
                    old.as_mut_ptr(),
                    8,
                );
                if asked == 0 && old[0] == libc::SIG_DFL {
                    kept |= 1 << (signal - 1);
                }
            }
            let mut set: libc::sigset_t = std::mem::zeroed();
            (&raw mut set).cast::<u64>().write_unaligned(kept);
            let _ = INTERNAL.set(SigSet::from_sigset_t_unchecked(set));
        }
    }
}
