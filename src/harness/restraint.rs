//! restraint.
//!
//! At its limit it SIGKILLs one process, the parent of the task's session leader, closes its end of
//! the output, and runs the plugins of `completed.d`, then those of `localwatchdog.d`, the last of
//! which reboots: one by one, without a limit but the external watchdog. An abort kills that
//! parent and the plugin runner, and calls nobody. `rstrnt-adjust-watchdog` moves the limit, so
//! `RSTRNT_MAXTIME` is none.

use super::{Harness, Lookup};
use std::path::PathBuf;

const PLUGINS: &str = "/usr/share/restraint/plugins";

/// A task of restraint's.
pub(super) struct Restraint {
    task: String,
    plugins: PathBuf,
}

pub(super) fn is_there(env: Lookup<'_>) -> bool {
    env("RSTRNT_TASKID").is_some()
}

impl Restraint {
    pub(super) fn new(env: Lookup<'_>) -> Self {
        // run_task_plugins exports it to the task: its own directory's task_run.d.
        let of_task = env("RSTRNT_TASK_PLUGINS_DIR").map(PathBuf::from);
        let plugins = of_task.as_deref().and_then(|dir| dir.parent()).filter(|dir| dir.is_absolute());
        Self {
            task: env("RSTRNT_TASKID").map(|id| id.to_string_lossy().into_owned()).unwrap_or_default(),
            plugins: plugins.map_or_else(|| PLUGINS.into(), PathBuf::from),
        }
    }
}

impl Harness for Restraint {
    fn name(&self) -> &'static str {
        "restraint"
    }

    fn task(&self) -> String {
        self.task.clone()
    }

    fn hook_folders(&self) -> Vec<PathBuf> {
        vec![self.plugins.join("completed.d")]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ffi::OsString;

    #[test]
    fn completed_d_stands_beside_the_folder_the_task_was_started_through() {
        let folder = |dir: &'static str| {
            let env = move |name: &str| match name {
                "RSTRNT_TASKID" => Some(OsString::from("3")),
                "RSTRNT_TASK_PLUGINS_DIR" => Some(OsString::from(dir)).filter(|d| !d.is_empty()),
                _ => None,
            };
            Restraint::new(&env).hook_folders()
        };
        let default = vec![PathBuf::from("/usr/share/restraint/plugins/completed.d")];
        assert_eq!(folder("/opt/r/plugins/task_run.d"), [PathBuf::from("/opt/r/plugins/completed.d")]);
        assert_eq!(folder(""), default);
        assert_eq!(folder("./task_run.d"), default);
    }
}
