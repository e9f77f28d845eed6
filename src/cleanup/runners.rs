//! Who runs entries of a buffer now: a final script, `rl-cleanup run`.
//!
//! Two at once would run an entry twice, so each one that starts is written down in the lock file,
//! one line a process, while the lock is held. A process counts as long as it is there with the
//! start time that it had, in this boot: whoever was killed, or ran before a reboot, is in nobody's
//! way. This is not a lock on a descriptor: bash cannot open one that the entries' own background
//! processes would not hold on to. Where `/proc` does not show a process, it does not count.

use super::store::Locked;
use crate::registry::{is_running, parent, start_time};
use nix::unistd::Pid;

/// What a runner within another one, started by an entry, may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Nested {
    /// It runs: it was told which entries (`rl-cleanup run`), or picks some.
    Allowed,
    /// It would start with the entry that has started it: a final script.
    Refused,
}

/// Whether a runner may start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Admission {
    /// It may, and is written down.
    Granted,
    /// This process runs entries, and will be done some time.
    Busy(Pid),
    /// This one does too, and waits for the very process that asks.
    Within(Pid),
}

/// One line of the file.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Runner {
    pid: Pid,
    /// In clock ticks since boot (proc_pid_stat(5)).
    start: u64,
    /// Pids and start times begin anew with each boot (proc_sys_kernel(5)).
    boot: String,
}

/// Writes down that `pid` runs entries, unless another process does. Done again, it changes nothing.
///
/// # Examples
/// ```
/// use nix::unistd::Pid;
/// use rl_cleanup::cleanup::runners::{Admission, Nested, enter, leave};
/// use rl_cleanup::cleanup::store::{LOCK_DEADLINE, Store};
/// use rl_cleanup::trust::{IfMissing, Trust};
///
/// # let dir = tempfile::tempdir_in("/var/tmp").unwrap();
/// let store = Store::open(&dir.path().join("state"), IfMissing::Make, Trust::default()).unwrap();
/// let locked = store.lock(LOCK_DEADLINE).unwrap();
/// assert_eq!(enter(&locked, Pid::this(), Nested::Refused), Admission::Granted);
/// // The parent, where it has its entries run by this process, is told from a stranger.
/// assert_eq!(enter(&locked, Pid::from_raw(1), Nested::Refused), Admission::Busy(Pid::this()));
/// leave(&locked, Pid::this());
/// ```
#[must_use]
pub fn enter(locked: &Locked, pid: Pid, nested: Nested) -> Admission {
    let boot = boot_id();
    let mut running = living(locked, &boot);
    for other in running.iter().map(|r| r.pid).filter(|other| *other != pid) {
        match (is_ancestor(other, pid), nested) {
            (true, Nested::Allowed) => {}
            (true, Nested::Refused) => return Admission::Within(other),
            (false, _) => return Admission::Busy(other),
        }
    }
    if let Some(start) = start_time(pid)
        && !running.iter().any(|r| r.pid == pid)
    {
        running.push(Runner { pid, start, boot });
        locked.set_note(&render(&running));
    }
    Admission::Granted
}

/// Takes it back.
pub fn leave(locked: &Locked, pid: Pid) {
    let mut running = living(locked, &boot_id());
    running.retain(|r| r.pid != pid);
    locked.set_note(&render(&running));
}

fn living(locked: &Locked, boot: &str) -> Vec<Runner> {
    let is_living = |r: &Runner| r.boot == boot && is_running(r.pid, r.start);
    locked.note().lines().filter_map(parse).filter(is_living).collect()
}

fn render(runners: &[Runner]) -> String {
    runners.iter().map(|r| format!("running {} {} {}\n", r.pid, r.start, r.boot)).collect()
}

/// What a crash has left of a line is no line.
fn parse(line: &str) -> Option<Runner> {
    let mut fields = line.strip_prefix("running ")?.split(' ');
    let pid = fields.next()?.parse().ok().filter(|pid| *pid > 0).map(Pid::from_raw)?;
    Some(Runner { pid, start: fields.next()?.parse().ok()?, boot: fields.next()?.to_owned() })
}

fn boot_id() -> String {
    let id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    id.trim_ascii().to_owned()
}

fn is_ancestor(other: Pid, pid: Pid) -> bool {
    // Bounded, since pids may change hands while this looks at them.
    std::iter::successors(parent(pid), |p| parent(*p)).take(4096).any(|p| p == other)
}

#[cfg(test)]
mod tests {
    use super::super::store::{IfMissing, LOCK_DEADLINE, Store, Trust};
    use super::*;

    fn note(text: &str, ask: impl FnOnce(&Locked) -> Admission) -> (Admission, String) {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("state"), IfMissing::Make, Trust::default()).unwrap();
        let locked = store.lock(LOCK_DEADLINE).unwrap();
        locked.set_note(text);
        (ask(&locked), locked.note())
    }

    fn line(pid: Pid, later: u64) -> String {
        render(&[Runner { pid, start: start_time(pid).unwrap() + later, boot: boot_id() }])
    }

    #[test]
    fn whoever_is_dead_or_from_another_boot_or_garbled_is_in_nobodys_way() {
        let me = Pid::this();
        // Its parent lives, and is no descendant of anybody who asks here.
        let other = Pid::parent();
        let alive = line(other, 0);
        let asked_by = |pid: Pid| move |l: &Locked| enter(l, pid, Nested::Refused);
        assert_eq!(note(&alive, asked_by(me)), (Admission::Within(other), alive.clone()));
        assert_eq!(note(&alive, asked_by(Pid::from_raw(1))), (Admission::Busy(other), alive.clone()));
        for harmless in [
            String::new(),
            line(other, 1),
            alive.replace(&boot_id(), "another-boot"),
            format!("running {} 5 {}\n", i32::MAX, boot_id()),
            alive[..alive.len() / 2].to_owned(),
            "\0".repeat(100),
        ] {
            assert_eq!(note(&harmless, asked_by(me)), (Admission::Granted, line(me, 0)), "{harmless:?}");
        }
    }

    #[test]
    fn to_enter_again_changes_nothing_and_to_leave_takes_back_one_line() {
        let both = line(Pid::parent(), 0) + &line(Pid::this(), 0);
        let again = note(&both, |l| enter(l, Pid::this(), Nested::Allowed));
        assert_eq!(again, (Admission::Granted, both.clone()));
        let left = note(&both, |l| {
            leave(l, Pid::this());
            Admission::Granted
        });
        assert_eq!(left.1, line(Pid::parent(), 0));
    }
}
