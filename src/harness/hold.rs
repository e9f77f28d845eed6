//! Holding a harness back that waits for the end of its session leader's output.
//!
//! tmt goes on when the last writer of that pipe is gone, without a limit of its own; so whoever
//! keeps it open keeps tmt waiting while the cleanup runs, and can still be heard.

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::unistd::Pid;
use std::fs::{File, OpenOptions};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};

/// The leader's standard output, opened anew and closed on exec; `None` if it is no pipe.
#[must_use]
pub fn held_output(leader: Pid) -> Option<File> {
    let file = OpenOptions::new()
        .write(true)
        // A pipe without a reader would block the open (fifo(7)).
        .custom_flags((OFlag::O_NONBLOCK | OFlag::O_NOCTTY | OFlag::O_CLOEXEC).bits())
        .open(format!("/proc/{leader}/fd/1"))
        .ok()?;
    let is_pipe = file.metadata().is_ok_and(|meta| meta.file_type().is_fifo());
    // Whoever writes there later expects an ordinary pipe.
    let flags = OFlag::from_bits_retain(fcntl(&file, FcntlArg::F_GETFL).ok()?);
    fcntl(&file, FcntlArg::F_SETFL(flags.difference(OFlag::O_NONBLOCK))).ok()?;
    is_pipe.then_some(file)
}
