//! tmt.
//!
//! At its limit it SIGKILLs the process group of its wrapper, local or at the end of an ssh client,
//! without any word to those inside; on an interrupt it sends SIGTERM to the wrapper alone. Then it
//! waits for the end of its wrapper's output. `tmt-reboot` writes a request file first and SIGTERMs
//! the wrapper then, so the file tells a reboot from an abort.

use super::first_start::{FirstStart, Turn};
use super::{Harness, Limit, Lookup, duration};
use crate::bounds;
use crate::error::{Error, Result};
use nix::unistd::Pid;
use saphyr_parser::{Event, Parser};
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The environment variable that names the margin, in whole seconds.
const MARGIN_VAR: &str = "TESTWATCHER_MARGIN_SECS";
/// How much of a value that makes no sense is shown.
const SHOWN: usize = 40;

/// A test of tmt's.
pub(super) struct Tmt {
    metadata: Option<PathBuf>,
    pidfile: Option<PathBuf>,
    reboot_request: Option<PathBuf>,
    state_dir: Option<PathBuf>,
    margin: Option<OsString>,
    turn: Turn,
    task: String,
}

pub(super) fn is_there(env: Lookup<'_>) -> bool {
    env("TMT_TEST_METADATA").is_some() || env("TMT_TEST_PIDFILE").is_some()
}

impl Tmt {
    pub(super) fn new(env: Lookup<'_>) -> Self {
        let path = |name: &str| env(name).map(PathBuf::from).filter(|path| path.is_absolute());
        let count = |name: &str| env(name).is_some_and(|n| n != "0");
        let again = count("TMT_REBOOT_COUNT") || count("TMT_TEST_RESTART_COUNT");
        Self {
            metadata: path("TMT_TEST_METADATA"),
            pidfile: path("TMT_TEST_PIDFILE"),
            reboot_request: path("TMT_REBOOT_REQUEST"),
            state_dir: path("BEAKERLIB_DIR").or_else(|| path("TMT_TEST_DATA")),
            margin: env(MARGIN_VAR),
            turn: if again { Turn::Later } else { Turn::First },
            task: env("TMT_TEST_ITERATION_ID")
                .or_else(|| env("TMT_TEST_NAME"))
                .map(|id| id.to_string_lossy().into_owned())
                .unwrap_or_default(),
        }
    }

    /// `None` where there is no such file, or no such key in it.
    fn field(&self, name: &str) -> Result<Option<String>> {
        let Some(path) = self.metadata.as_ref().filter(|path| path.exists()) else { return Ok(None) };
        let bytes = bounds::read(path, bounds::METADATA)?;
        Ok(std::str::from_utf8(&bytes).ok().and_then(|text| top_level(text, name)))
    }
}

impl Harness for Tmt {
    fn name(&self) -> &'static str {
        "tmt"
    }

    fn task(&self) -> String {
        self.task.clone()
    }

    /// The file holds `PID REQUESTFILE`. It stands in one place for all tests of a machine, so it
    /// is believed only if it speaks of this test.
    fn wrapper(&self) -> Option<Pid> {
        let text = bounds::read(self.pidfile.as_ref()?, bounds::NOTE).ok()?;
        let (pid, request) = wrapper_and_request(&text)?;
        (request == self.reboot_request.as_ref()?).then_some(pid)
    }

    fn limit(&self) -> Result<Limit> {
        let text = match self.field("duration") {
            Ok(Some(text)) => text,
            Ok(None) => return Ok(Limit::None),
            Err(error) => return Ok(Limit::Unusable(format!("{error}: no time limit of tmt's is kept"))),
        };
        let Some(total) = duration::parse(&text) else {
            let text = shown(&text);
            return Ok(Limit::Unusable(format!(
                "tmt's duration '{text}' is none: no time limit of tmt's is kept"
            )));
        };
        let margin = margin(self.margin.as_deref(), total)?;
        if margin >= total {
            return Ok(Limit::Unusable(format!(
                "tmt's duration of {total} s is too short for a margin of {margin} s: tmt will kill the test, \
                 and its cleanup starts only then"
            )));
        }
        let gone = FirstStart::remembered(self.state_dir.as_deref(), self.turn).age();
        // A millisecond where nothing is left: a timer of 0 would never go off.
        let left = Duration::from_secs(total - margin).saturating_sub(gone).max(Duration::from_millis(1));
        let remark = format!(
            "tmt's limit is {total} s: the test is stopped {margin} s before it, in {} s",
            left.as_secs_f64().round()
        );
        Ok(Limit::In { left, remark })
    }

    fn reboot_requested(&self) -> bool {
        self.reboot_request.as_ref().is_some_and(|file| file.exists())
    }

    fn waits_for_output(&self) -> bool {
        true
    }

    /// A shell test's verdict is its exit status only as long as nothing was reported: a WARN would
    /// make `warn` of a timeout (tmt, `frameworks/shell.py`).
    fn takes_reports(&self) -> bool {
        matches!(self.field("framework"), Ok(Some(name)) if name == "beakerlib")
    }
}

/// A tenth of the duration, at least 5 s, at most 300 s, unless the environment says otherwise.
fn margin(wanted: Option<&std::ffi::OsStr>, total: u64) -> Result<u64> {
    let Some(wanted) = wanted else { return Ok((total / 10).clamp(5, 300)) };
    let text = wanted.to_string_lossy();
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    text.parse().ok().filter(|secs| digits && *secs > 0).ok_or_else(|| {
        Error::usage(format!("{MARGIN_VAR} is '{text}': give a positive number of whole seconds"))
    })
}

/// `PID REQUESTFILE`.
///
/// # Examples
/// ```
/// use nix::unistd::Pid;
/// use rl_cleanup::harness::tmt::wrapper_and_request;
/// use std::path::Path;
/// let (wrapper, request) = wrapper_and_request(b"4711 /run/reboot-request\n").unwrap();
/// assert_eq!((wrapper, request), (Pid::from_raw(4711), Path::new("/run/reboot-request")));
/// ```
#[must_use]
pub fn wrapper_and_request(text: &[u8]) -> Option<(Pid, &Path)> {
    let line = text.strip_suffix(b"\n").unwrap_or(text);
    let space = line.iter().position(|&b| b == b' ')?;
    let pid = std::str::from_utf8(&line[..space]).ok()?.parse().ok().filter(|pid| *pid > 1);
    Some((Pid::from_raw(pid?), Path::new(OsStr::from_bytes(&line[space + 1..]))))
}

/// A value for a person: its start, and nothing that speaks to the terminal.
fn shown(text: &str) -> String {
    let more = if text.chars().nth(SHOWN).is_some() { "…" } else { "" };
    let start = text.chars().take(SHOWN).map(|c| if c.is_control() { '?' } else { c });
    start.chain(more.chars()).collect()
}

/// The scalar that a key of the outermost mapping has, as it is written.
///
/// # Examples
/// ```
/// use rl_cleanup::harness::tmt::top_level;
/// let metadata = "name: /tests/one\nrequire:\n  - duration: 1h\nduration: 30m\n";
/// assert_eq!(top_level(metadata, "duration").as_deref(), Some("30m"));
/// ```
#[must_use]
pub fn top_level(text: &str, key: &str) -> Option<String> {
    let (mut depth, mut is_key, mut wanted) = (0_u32, true, false);
    for event in Parser::new_from_str(text) {
        match event.ok()?.0 {
            Event::MappingStart(..) | Event::SequenceStart(..) => {
                // The document's own mapping comes in no place of a pair.
                if depth == 1 {
                    is_key = !is_key;
                    wanted = false;
                }
                depth += 1;
            }
            Event::MappingEnd | Event::SequenceEnd => depth = depth.checked_sub(1)?,
            Event::Scalar(value, ..) if depth == 1 => {
                if !is_key && wanted {
                    return Some(value.into_owned());
                }
                wanted = is_key && value == key;
                is_key = !is_key;
            }
            Event::Alias(_) if depth == 1 => {
                is_key = !is_key;
                wanted = false;
            }
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    const METADATA: &str = "\
name: /tests/one
summary: 'What: it does'
require: [a, {duration: 9h}]
environment:
  duration: 8h
framework: beakerlib
duration: 10s
link: null
";

    fn tmt(files: &tempfile::TempDir, more: &[(&str, &str)]) -> Tmt {
        let path = |name: &str| files.path().join(name).into_os_string();
        let env = |name: &str| match name {
            "TMT_TEST_METADATA" => Some(path("metadata.yaml")),
            "TMT_TEST_PIDFILE" => Some(path("pid")),
            "TMT_REBOOT_REQUEST" => Some(path("request")),
            "TMT_TEST_DATA" => Some(files.path().into()),
            _ => more.iter().find(|(n, _)| *n == name).map(|(_, v)| v.into()),
        };
        Tmt::new(&env)
    }

    #[test]
    fn only_the_outermost_key_counts() {
        assert_eq!(top_level(METADATA, "duration").as_deref(), Some("10s"));
        assert_eq!(top_level(METADATA, "framework").as_deref(), Some("beakerlib"));
        assert_eq!(top_level("duration: 5\n", "duration").as_deref(), Some("5"));
        for text in [
            "",
            "a: duration\n",
            "- duration: 5\n",
            "a: [b\nduration: 5\n",
            "duration: [5]\n",
            "x: {duration: 1}",
        ] {
            assert_eq!(top_level(text, "duration"), None, "{text}");
        }
    }

    #[test]
    fn the_margin_holds_a_cleanup() {
        for (total, want) in [(10, 5), (60, 6), (300, 30), (3600, 300), (86_400, 300)] {
            assert_eq!(margin(None, total).unwrap(), want);
        }
        assert_eq!(margin(Some("7".as_ref()), 3600).unwrap(), 7);
        for bad in ["0", "-1", "1s", " 5", "+5", "x"] {
            assert_eq!(
                margin(Some(bad.as_ref()), 60).unwrap_err().status(),
                crate::error::Status::Usage,
                "{bad}"
            );
        }
    }

    #[test]
    fn a_limit_is_the_duration_less_the_margin() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(tmt(&dir, &[]).limit().unwrap(), Limit::None);
        let limit = |text: &str| {
            fs::write(dir.path().join("metadata.yaml"), text).unwrap();
            tmt(&dir, &[]).limit().unwrap()
        };
        let Limit::In { left, .. } = limit("duration: 1h\n") else { panic!("no limit") };
        assert!(left <= Duration::from_secs(3300) && left > Duration::from_secs(3200), "{left:?}");
        let Limit::Unusable(why) = limit("duration: 5s\n") else { panic!("a limit") };
        assert!(why.contains("too short"), "{why}");
        let Limit::Unusable(why) = limit("duration: soon\n") else { panic!("a limit") };
        assert!(why.contains("'soon'"), "{why}");
        assert_eq!(limit("name: x\n"), Limit::None);
        assert_eq!(limit("duration: {\n"), Limit::None);
    }

    #[test]
    fn the_wrapper_is_believed_only_for_this_test() {
        let dir = tempfile::tempdir().unwrap();
        let request = dir.path().join("request");
        let wrapper = |text: String| {
            fs::write(dir.path().join("pid"), text).unwrap();
            tmt(&dir, &[]).wrapper()
        };
        assert_eq!(wrapper(format!("77 {}\n", request.display())), Some(Pid::from_raw(77)));
        assert_eq!(wrapper("77 /another/request\n".into()), None);
        for text in ["", "77\n", "x y\n", "1 "] {
            assert_eq!(
                wrapper(format!("{text}{}", if text == "1 " { request.to_str().unwrap() } else { "" })),
                None
            );
        }
    }

    #[test]
    fn a_request_file_is_a_reboot() {
        let dir = tempfile::tempdir().unwrap();
        assert!(!tmt(&dir, &[]).reboot_requested());
        fs::write(dir.path().join("request"), "{}").unwrap();
        assert!(tmt(&dir, &[]).reboot_requested());
    }

    #[test]
    fn only_a_beakerlib_test_takes_reports() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("metadata.yaml"), METADATA).unwrap();
        assert!(tmt(&dir, &[]).takes_reports());
        fs::write(dir.path().join("metadata.yaml"), "framework: shell\n").unwrap();
        assert!(!tmt(&dir, &[]).takes_reports());
    }
}
