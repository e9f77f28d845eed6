//! What beah, restraint and tmt do to a test that runs too long, and what a watcher has to do about it.
//!
//! Owns every fact about a harness: how its environment looks, which folder of hooks it runs, whose
//! death means that time is up, when its own limit strikes, how it asks for a reboot, and how a
//! result is reported to it. Must not know what a watcher does with any of that, and starts nothing.

mod beah;
pub mod dropin;
pub mod duration;
mod first_start;
mod hold;
pub mod lifeline;
mod reboot;
pub mod report;
mod restraint;
pub mod tmt;

pub use hold::held_output;

use crate::error::Result;
use nix::unistd::Pid;
use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

/// `--harness`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Choice {
    /// Look at the environment.
    Auto,
    /// No harness, whatever the environment says.
    None,
    /// beah, Beaker's old harness.
    Beah,
    /// restraint.
    Restraint,
    /// tmt.
    Tmt,
}

/// One harness, as this process's environment shows it. What is not overridden is what a plain
/// shell does: nothing.
pub trait Harness {
    /// `none`, `beah`, `restraint` or `tmt`.
    fn name(&self) -> &'static str;

    /// The task's id, by which a hook finds the watchers of its own task; empty without one.
    fn task(&self) -> String {
        String::new()
    }

    /// Folders whose executables the harness runs when time is up, the best one first.
    fn hook_folders(&self) -> Vec<PathBuf> {
        Vec::new()
    }

    /// A process besides the session leader and its parent whose death means that time is up.
    fn wrapper(&self) -> Option<Pid> {
        None
    }

    /// The harness's own limit of the test, less a margin.
    ///
    /// # Errors
    /// The margin that the environment names is none.
    fn limit(&self) -> Result<Limit> {
        Ok(Limit::None)
    }

    /// Whether the harness was asked for a reboot that it has not begun yet.
    fn reboot_requested(&self) -> bool {
        false
    }

    /// Whether the harness goes on when the last writer of its session leader's output is gone.
    fn waits_for_output(&self) -> bool {
        false
    }

    /// Whether a result of ours is welcome.
    fn takes_reports(&self) -> bool {
        true
    }
}

/// How long the test may run, by the harness's own account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Limit {
    /// The harness says nothing.
    None,
    /// It says something that cannot be used; the sentence tells why.
    Unusable(String),
    /// The test is to be stopped so long from now.
    In {
        /// From now on.
        left: Duration,
        /// The sentence for a person.
        remark: String,
    },
}

/// No harness: whatever dies or is hung up was meant that way, or not meant for us.
struct Nothing;

impl Harness for Nothing {
    fn name(&self) -> &'static str {
        "none"
    }
}

/// Overruled by `--harness none`.
struct Overruled;

impl Harness for Overruled {
    fn name(&self) -> &'static str {
        "none"
    }

    fn takes_reports(&self) -> bool {
        false
    }
}

/// Looks one variable up; empty counts as unset.
type Lookup<'a> = &'a dyn Fn(&str) -> Option<OsString>;

/// The harness that runs this process, or the one that was chosen.
///
/// # Examples
/// ```
/// use rl_cleanup::harness::{Choice, found, is_one};
/// assert_eq!(found(Choice::Restraint).name(), "restraint");
/// assert!(!is_one(&*found(Choice::None)));
/// ```
#[must_use]
pub fn found(choice: Choice) -> Box<dyn Harness> {
    let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
    found_in(choice, &set)
}

fn found_in(choice: Choice, env: Lookup<'_>) -> Box<dyn Harness> {
    match choice {
        Choice::None => Box::new(Overruled),
        Choice::Tmt => Box::new(tmt::Tmt::new(env)),
        Choice::Restraint => Box::new(restraint::Restraint::new(env)),
        Choice::Beah => Box::new(beah::Beah::new(env)),
        // tmt sets variables of restraint's too, and restraint some of beah's: the newest first.
        Choice::Auto if tmt::is_there(env) => Box::new(tmt::Tmt::new(env)),
        Choice::Auto if restraint::is_there(env) => Box::new(restraint::Restraint::new(env)),
        Choice::Auto if beah::is_there(env) => Box::new(beah::Beah::new(env)),
        Choice::Auto => Box::new(Nothing),
    }
}

/// Whether `harness` is one.
#[must_use]
pub fn is_one(harness: &dyn Harness) -> bool {
    harness.name() != "none"
}

/// Whether the machine, or the harness for it, is about to go down.
#[must_use]
pub fn reboot_under_way(harness: &dyn Harness) -> bool {
    harness.reboot_requested() || reboot::machine_goes_down()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(choice: Choice, set: &[(&str, &str)]) -> &'static str {
        let env = |name: &str| set.iter().find(|(n, _)| *n == name).map(|(_, v)| OsString::from(v));
        found_in(choice, &env).name()
    }

    #[test]
    fn each_harness_is_known_by_what_only_it_sets() {
        let auto = |set| name(Choice::Auto, set);
        assert_eq!(auto(&[]), "none");
        assert_eq!(auto(&[("TMT_TEST_METADATA", "/x/metadata.yaml")]), "tmt");
        assert_eq!(auto(&[("TMT_TEST_PIDFILE", "/x/pid"), ("RSTRNT_REBOOTCOUNT", "0")]), "tmt");
        assert_eq!(auto(&[("RSTRNT_TASKID", "7")]), "restraint");
        // An rhts-style task of restraint's has beah's variables too.
        assert_eq!(auto(&[("RSTRNT_TASKID", "7"), ("TASKID", "7"), ("RHTSDIR", "/x")]), "restraint");
        assert_eq!(auto(&[("TASKID", "7"), ("RHTSDIR", "/x")]), "beah");
    }

    #[test]
    fn a_task_id_alone_is_no_harness() {
        if std::path::Path::new("/usr/share/rhts").exists() {
            return;
        }
        assert_eq!(name(Choice::Auto, &[("TASKID", "7"), ("TESTID", "7")]), "none");
        assert_eq!(
            name(Choice::Auto, &[("TASKID", "7"), ("RHTSDIR", "/x"), ("RSTRNT_MAXTIME", "9")]),
            "none"
        );
        assert_eq!(name(Choice::Auto, &[("RHTSDIR", "/x")]), "none");
    }

    #[test]
    fn a_choice_overrules_the_environment() {
        let tmt = [("TMT_TEST_METADATA", "/x")];
        assert_eq!(name(Choice::None, &tmt), "none");
        assert_eq!(name(Choice::Beah, &tmt), "beah");
        assert_eq!(name(Choice::Restraint, &tmt), "restraint");
        assert_eq!(name(Choice::Tmt, &[]), "tmt");
    }
}
