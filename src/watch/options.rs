//! What a watcher was asked to do, as typed values.

use super::voice::Volume;
use crate::error::{Error, Result};
pub use crate::harness::Choice as HarnessChoice;
use std::ffi::OsString;
use std::fmt;
use std::str::FromStr;

/// A span of whole seconds, at least one: `90`, `90s`, `10m`, `1h 30m`, `2d`.
///
/// # Examples
/// ```
/// use rl_cleanup::watch::options::Duration;
/// let limit: Duration = "1h 30m".parse().unwrap();
/// assert_eq!((limit.as_secs(), limit.to_string()), (5400, "1 h 30 min".into()));
/// assert!("0".parse::<Duration>().is_err());
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Duration(u64);

impl Duration {
    /// In seconds.
    #[must_use]
    pub fn as_secs(self) -> u64 {
        self.0
    }

    /// From whole seconds; `None` for 0.
    #[must_use]
    pub fn from_secs(secs: u64) -> Option<Self> {
        (secs > 0).then_some(Self(secs))
    }
}

impl fmt::Display for Duration {
    /// `45 s`, `25 min`, `1 h 30 min`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts = [(self.0 / 3600, "h"), (self.0 % 3600 / 60, "min"), (self.0 % 60, "s")];
        let shown: Vec<String> =
            parts.iter().filter(|(n, _)| *n > 0).map(|(n, unit)| format!("{n} {unit}")).collect();
        f.write_str(&shown.join(" "))
    }
}

impl FromStr for Duration {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        let bad = || format!("'{text}' is no duration: give 90, 90s, 10m or '1h 30m'");
        let mut total: u64 = 0;
        let mut rest = text.trim();
        if rest.is_empty() {
            return Err(bad());
        }
        while !rest.is_empty() {
            let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
            let number: u64 = rest[..digits].parse().map_err(|_| bad())?;
            let unit = rest[digits..].chars().next();
            let (factor, taken) = match unit {
                None => (1, 0),
                Some(c) if c.is_ascii_whitespace() => (1, 0),
                Some('s') => (1, 1),
                Some('m') => (60, 1),
                Some('h') => (3600, 1),
                Some('d') => (86_400, 1),
                Some(_) => return Err(bad()),
            };
            total = number.checked_mul(factor).and_then(|n| total.checked_add(n)).ok_or_else(bad)?;
            rest = rest[digits + taken..].trim_start();
        }
        // A century: beyond it timer arithmetic in nanoseconds would overflow 64 bits.
        if total > 100 * 366 * 86_400 {
            return Err(bad());
        }
        Self::from_secs(total).ok_or_else(|| format!("'{text}' is no duration: it must be at least 1 second"))
    }
}

/// `--kill`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum KillScope {
    /// The test's process group.
    Group,
    /// The group, and every descendant that left it.
    Tree,
}

/// `--sigterm`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum SigtermPolicy {
    /// The machine goes down: leave everything as it is.
    Exit,
    /// As a person's ^C.
    Interrupt,
}

/// Everything a watcher was asked to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// The test and its arguments.
    pub command: Vec<OsString>,
    /// `--time-limit`.
    pub time_limit: Option<Duration>,
    /// `--cleanup-limit`.
    pub cleanup_limit: Option<Duration>,
    /// `TESTWATCHER_EWD_SECS`.
    pub ewd: Duration,
    /// `--harness`.
    pub harness: HarnessChoice,
    /// `--no-deadline`: whether the harness's own limit counts.
    pub harness_deadline: HarnessDeadline,
    /// `--kill`.
    pub kill: KillScope,
    /// `--sigterm`.
    pub sigterm: SigtermPolicy,
    /// `--strict`, `--exit-zero`, `TESTWATCHER_EXIT_ZERO`.
    pub answer: Answer,
    /// `--quiet`.
    pub volume: Volume,
}

/// Whether the harness's own time limit is one of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HarnessDeadline {
    /// It is.
    Keep,
    /// `--no-deadline`.
    Ignore,
}

/// What the exit status is to say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// What the test said, or what stopped it.
    Plain,
    /// Also that an entry of the cleanup failed.
    Strict,
    /// Always 0, as the original.
    Zero,
}

impl Options {
    /// The plain drop-in: no option given.
    ///
    /// # Errors
    /// `TESTWATCHER_EWD_SECS` is not a positive number of whole seconds.
    pub fn from_environment(command: Vec<OsString>) -> Result<Self> {
        let zero = std::env::var_os("TESTWATCHER_EXIT_ZERO").is_some_and(|v| v == "1");
        Ok(Self {
            command,
            time_limit: None,
            cleanup_limit: None,
            ewd: ewd_from_environment()?,
            harness: HarnessChoice::Auto,
            harness_deadline: HarnessDeadline::Keep,
            kill: KillScope::Group,
            sigterm: SigtermPolicy::Exit,
            answer: if zero { Answer::Zero } else { Answer::Plain },
            volume: Volume::Normal,
        })
    }
}

/// `TESTWATCHER_EWD_SECS`, 1500 if unset (beakerlib-testwatcher(1)).
fn ewd_from_environment() -> Result<Duration> {
    let Some(text) = std::env::var_os("TESTWATCHER_EWD_SECS") else { return Ok(Duration(1500)) };
    let shown = text.to_string_lossy();
    let digits = !shown.is_empty() && shown.bytes().all(|b| b.is_ascii_digit());
    let secs = if digits { shown.parse::<Duration>().ok() } else { None };
    secs.ok_or_else(|| {
        Error::usage(format!("TESTWATCHER_EWD_SECS is '{shown}': give a positive number of whole seconds"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_sums_of_seconds_minutes_hours_days() {
        for (text, secs) in [
            ("90", 90),
            ("90s", 90),
            ("10m", 600),
            ("1h 30m", 5400),
            ("1h30m", 5400),
            (" 2d ", 172_800),
            ("1m 5", 65),
        ] {
            assert_eq!(text.parse::<Duration>().unwrap().as_secs(), secs, "{text}");
        }
        for text in ["", " ", "0", "0s", "-1", "1x", "m", "1.5h", "99999999999999999999", "999999999d", "1 h"]
        {
            assert!(text.parse::<Duration>().is_err(), "{text}");
        }
    }
}
