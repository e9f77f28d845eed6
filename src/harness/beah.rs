//! beah, Beaker's old harness, and the rhts test runner it uses.
//!
//! At its limit the runner executes every hook of two folders, one by one and without a limit of its
//! own, before it kills anything; it neither kills nor reboots if `make run` has gone by then.

use super::{Harness, Lookup};
use std::path::{Path, PathBuf};

const RHTS_DIR: &str = "/usr/share/rhts";

/// A task of beah's.
pub(super) struct Beah {
    task: String,
    rhts: PathBuf,
    home: Option<PathBuf>,
}

/// `TASKID` is set by restraint for rhts-style tasks too, and by people; so it takes the runner's
/// own directory besides, and nothing of restraint's.
pub(super) fn is_there(env: Lookup<'_>) -> bool {
    let restraint = ["RSTRNT_TASKID", "RSTRNT_MAXTIME", "RSTRNT_TASKNAME", "RSTRNT_RECIPEID"];
    env("TASKID").is_some()
        && (env("RHTSDIR").is_some() || Path::new(RHTS_DIR).is_dir())
        && restraint.iter().all(|name| env(name).is_none())
}

impl Beah {
    pub(super) fn new(env: Lookup<'_>) -> Self {
        Self {
            task: env("TASKID").map(|id| id.to_string_lossy().into_owned()).unwrap_or_default(),
            rhts: env("RHTSDIR").map_or_else(|| RHTS_DIR.into(), PathBuf::from),
            home: env("HOME").map(PathBuf::from).filter(|home| home.is_absolute()),
        }
    }
}

impl Harness for Beah {
    fn name(&self) -> &'static str {
        "beah"
    }

    fn task(&self) -> String {
        self.task.clone()
    }

    /// The runner's own folder first: a test may have changed `HOME`.
    fn hook_folders(&self) -> Vec<PathBuf> {
        let home = self.home.as_ref().map(|home| home.join(".rhts/hooks/watchdog"));
        [self.rhts.join("hooks/watchdog")].into_iter().chain(home).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ffi::OsString;

    #[test]
    fn the_runner_looks_in_two_folders() {
        let env = |name: &str| match name {
            "TASKID" => Some(OsString::from("12")),
            "RHTSDIR" => Some("/opt/rhts".into()),
            "HOME" => Some("/home/me".into()),
            _ => None,
        };
        let beah = Beah::new(&env);
        assert_eq!(beah.task(), "12");
        let want = ["/opt/rhts/hooks/watchdog", "/home/me/.rhts/hooks/watchdog"].map(PathBuf::from);
        assert_eq!(beah.hook_folders(), want);
    }
}
