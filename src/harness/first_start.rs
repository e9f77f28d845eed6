//! When a test was started for the first time: kept in its state directory, as tmt's one limit goes
//! on over restarts and reboots of the test while the metadata keep the full figure.

use crate::hook::boottime_ns;
use crate::registry::start_time;
use crate::trust::{IfMissing, Place, Trust, is, walk};
use nix::fcntl::OFlag;
use nix::sys::stat::{SFlag, fstat};
use nix::unistd::{Pid, SysconfVar, getsid, sysconf};
use std::fs;
use std::fs::File;
use std::io::{Read, Write};
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The file's name in the state directory.
const FILE: &str = ".rl-cleanup-first-start";
/// A harness starts its wrapper moments before the test; a session older than that is no measure.
const SESSION_AGE_MAX: Duration = Duration::from_secs(60);

/// Whether the test was restarted, or the machine rebooted under it, by the harness's own count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Turn {
    /// This is the first start; what an earlier run left in the directory means nothing.
    First,
    /// There was one before.
    Later,
}

/// One moment, on the clock of one boot and on that of the wall.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct FirstStart {
    boot: String,
    boottime_ns: u64,
    wall_secs: u64,
}

impl FirstStart {
    /// This test's first start; now, and written down, if it is this one. A directory that cannot be
    /// written costs only the memory.
    pub(super) fn remembered(dir: Option<&Path>, turn: Turn) -> Self {
        let known = match turn {
            Turn::First => None,
            Turn::Later => dir.and_then(Self::read),
        };
        known.unwrap_or_else(|| {
            let now = Self::of_session();
            if let Some(dir) = dir {
                now.write(dir);
            }
            now
        })
    }

    /// How long ago it was. Over a reboot only the wall clock goes on; one that went back says 0.
    pub(super) fn age(&self) -> Duration {
        if self.boot == boot_id() {
            Duration::from_nanos(boottime_ns().saturating_sub(self.boottime_ns))
        } else {
            Duration::from_secs(wall_secs().saturating_sub(self.wall_secs))
        }
    }

    /// The session leader is the harness's wrapper, which started when its limit did.
    fn of_session() -> Self {
        let age = getsid(None).ok().and_then(process_age).filter(|age| *age <= SESSION_AGE_MAX);
        let age = age.unwrap_or_default();
        let nanos = u64::try_from(age.as_nanos()).unwrap_or(0);
        Self {
            boot: boot_id(),
            boottime_ns: boottime_ns().saturating_sub(nanos),
            wall_secs: wall_secs().saturating_sub(age.as_secs()),
        }
    }

    fn read(dir: &Path) -> Option<Self> {
        let file = place(dir)?.open(OFlag::O_RDONLY | OFlag::O_NONBLOCK).ok()?;
        let stat = fstat(&file).ok()?;
        if !is(&stat, SFlag::S_IFREG) || Trust::default().check(&stat).is_err() {
            return None;
        }
        let mut text = String::new();
        File::from(file).take(4096).read_to_string(&mut text).ok()?;
        let mut fields = text.split_ascii_whitespace();
        Some(Self {
            boot: fields.next()?.to_owned(),
            boottime_ns: fields.next()?.parse().ok()?,
            wall_secs: fields.next()?.parse().ok()?,
        })
    }

    fn write(&self, dir: &Path) {
        if place(dir).is_none() {
            return;
        }
        let Ok(mut new) = tempfile::Builder::new().prefix(".rl-cleanup-").tempfile_in(dir) else { return };
        let text = format!("{} {} {}\n", self.boot, self.boottime_ns, self.wall_secs);
        if new.write_all(text.as_bytes()).is_ok() {
            let _ = new.persist(dir.join(FILE));
        }
    }
}

/// Where the file stands, if nobody else can have it stand elsewhere.
fn place(dir: &Path) -> Option<Place> {
    walk(&dir.join(FILE), Trust::default(), IfMissing::Fail).ok()
}

/// How long a process has been there (proc_pid_stat(5), field 22: in clock ticks).
fn process_age(pid: Pid) -> Option<Duration> {
    let ticks = u64::try_from(sysconf(SysconfVar::CLK_TCK).ok()??).ok().filter(|t| *t > 0)?;
    let start = start_time(pid)?.checked_mul(1_000_000_000 / ticks)?;
    boottime_ns().checked_sub(start).map(Duration::from_nanos)
}

/// One number a boot (random(4)); empty where there is none.
fn boot_id() -> String {
    fs::read_to_string("/proc/sys/kernel/random/boot_id").map(|id| id.trim().to_owned()).unwrap_or_default()
}

fn wall_secs() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_later_turn_goes_on_counting_and_a_first_one_begins() {
        let dir = tempfile::tempdir().unwrap();
        let earlier = FirstStart {
            boot: boot_id(),
            boottime_ns: boottime_ns() - 5_000_000_000,
            wall_secs: wall_secs() - 5,
        };
        earlier.write(dir.path());
        let later = FirstStart::remembered(Some(dir.path()), Turn::Later);
        assert_eq!(later, earlier);
        assert!(later.age() >= Duration::from_secs(5));
        let first = FirstStart::remembered(Some(dir.path()), Turn::First);
        assert_ne!(first, earlier);
        assert_eq!(FirstStart::read(dir.path()), Some(first));
    }

    #[test]
    fn over_a_reboot_the_wall_clock_counts() {
        let before = FirstStart { boot: "another".into(), boottime_ns: 1, wall_secs: wall_secs() - 100 };
        assert!(before.age() >= Duration::from_secs(100) && before.age() < Duration::from_secs(160));
        let ahead = FirstStart { wall_secs: wall_secs() + 100, ..before };
        assert_eq!(ahead.age(), Duration::ZERO);
    }

    #[test]
    fn a_torn_file_and_a_missing_directory_are_a_first_start() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(FILE), "half").unwrap();
        assert!(FirstStart::remembered(Some(dir.path()), Turn::Later).age() <= SESSION_AGE_MAX);
        assert!(FirstStart::remembered(None, Turn::Later).age() <= SESSION_AGE_MAX);
        assert!(
            FirstStart::remembered(Some(Path::new("/nonexistent")), Turn::First).age() <= SESSION_AGE_MAX
        );
    }
}
