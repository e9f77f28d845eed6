//! What a watcher was asked to do, as typed values.

use std::str::FromStr;

/// A span of whole seconds, at least one: `90`, `90s`, `10m`, `1h 30m`, `2d`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
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

impl FromStr for Duration {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
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

/// `--harness`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum HarnessChoice {
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
