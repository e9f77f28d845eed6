//! Lifelines: processes whose death means that the harness has given the test up. Held by pidfd, so
//! that a reused number is never mistaken for them.

use crate::registry::{is_running, start_time};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::unistd::{Pid, getpid, getsid};
use std::fs;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// All lifelines that still hold.
///
/// # Examples
/// ```
/// use nix::unistd::Pid;
/// use rl_cleanup::harness::lifeline::Lifelines;
/// let mut child = std::process::Command::new("sleep").arg("100").spawn().unwrap();
/// let mut lines = Lifelines::of(None, Some(Pid::from_raw(child.id() as i32)));
/// assert!(!lines.one_broke());
/// child.kill().unwrap();
/// child.wait().unwrap();
/// assert!(lines.one_broke());
/// ```
#[derive(Default)]
pub struct Lifelines(Vec<Lifeline>);

struct Lifeline {
    pid: Pid,
    start: u64,
    /// `None` where the kernel has no pidfds (pidfd_open(2), Linux 5.3): then it is looked at.
    fd: Option<OwnedFd>,
}

impl Lifelines {
    /// The session leader, its parent, and `wrapper`. A harness's process is never ours, nor init.
    #[must_use]
    pub fn of(leader: Option<Pid>, wrapper: Option<Pid>) -> Self {
        let parent = leader.and_then(parent);
        let mut pids: Vec<Pid> = [leader, parent, wrapper].into_iter().flatten().collect();
        pids.sort_unstable();
        pids.dedup();
        pids.retain(|pid| pid.as_raw() > 1 && *pid != getpid());
        Self(pids.into_iter().filter_map(Lifeline::hold).collect())
    }

    /// What to poll.
    pub fn fds(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.0.iter().filter_map(|line| line.fd.as_ref()).map(AsFd::as_fd)
    }

    /// Whether one has to be looked at again and again.
    #[must_use]
    pub fn need_looking_at(&self) -> bool {
        self.0.iter().any(|line| line.fd.is_none())
    }

    /// Whether one has broken since the last time.
    pub fn one_broke(&mut self) -> bool {
        let before = self.0.len();
        self.0.retain(Lifeline::holds);
        self.0.len() < before
    }
}

impl Lifeline {
    /// `None` if there is no such process any more.
    fn hold(pid: Pid) -> Option<Self> {
        let start = start_time(pid)?;
        let raw = rustix::process::Pid::from_raw(pid.as_raw())?;
        let fd = rustix::process::pidfd_open(raw, rustix::process::PidfdFlags::empty()).ok();
        // The same process before and after: the descriptor is its.
        (start_time(pid) == Some(start)).then_some(Self { pid, start, fd })
    }

    fn holds(&self) -> bool {
        match &self.fd {
            Some(fd) => {
                let mut fds = [PollFd::new(fd.as_fd(), PollFlags::POLLIN)];
                !matches!(poll(&mut fds, PollTimeout::ZERO), Ok(1))
            }
            None => is_running(self.pid, self.start),
        }
    }
}

/// The leader of this process's session, maybe itself; `None` if it is outside its pid namespace.
#[must_use]
pub fn session_leader() -> Option<Pid> {
    getsid(None).ok().filter(|pid| pid.as_raw() > 0)
}

/// Behind the command name, which may hold anything, and the state (proc_pid_stat(5), field 4).
fn parent(pid: Pid) -> Option<Pid> {
    let stat = fs::read(format!("/proc/{pid}/stat")).ok()?;
    let rest = &stat[stat.iter().rposition(|&b| b == b')')? + 1..];
    std::str::from_utf8(rest).ok()?.split_ascii_whitespace().nth(1)?.parse().ok().map(Pid::from_raw)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    fn held(child: &std::process::Child) -> Lifelines {
        Lifelines::of(None, Some(Pid::from_raw(i32::try_from(child.id()).unwrap())))
    }

    #[test]
    fn a_death_breaks_a_lifeline_once() {
        let mut child = Command::new("sleep").arg("1000").spawn().unwrap();
        let mut lines = held(&child);
        let mut looked_at = held(&child);
        looked_at.0.iter_mut().for_each(|line| line.fd = None);
        assert!(looked_at.need_looking_at());
        assert!(!lines.one_broke() && !looked_at.one_broke());
        child.kill().unwrap();
        // Ended, and not reaped: with WNOWAIT it stays a zombie.
        let pid = rustix::process::Pid::from_child(&child);
        let options = rustix::process::WaitIdOptions::EXITED | rustix::process::WaitIdOptions::NOWAIT;
        rustix::process::waitid(rustix::process::WaitId::Pid(pid), options).unwrap();
        assert!(lines.one_broke() && looked_at.one_broke());
        assert!(!lines.one_broke());
        child.wait().unwrap();
        assert!(held(&child).0.is_empty(), "the dead hold nothing");
    }

    #[test]
    fn neither_init_nor_this_process_is_a_lifeline() {
        assert!(Lifelines::of(Some(getpid()), Some(Pid::from_raw(1))).0.iter().all(|l| l.pid != getpid()));
        assert!(Lifelines::of(None, Some(Pid::from_raw(1))).0.is_empty());
    }
}
