//! How a result is reported: which command, with which arguments. Runs nothing.

use super::Harness;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

/// The command BeakerLib reports with; it may hold arguments.
const COMMAND_VAR: &str = "BEAKERLIB_COMMAND_REPORT_RESULT";

/// The words of the command that reports a WARN of this name; `None` if nobody would hear it.
#[must_use]
pub fn warning(harness: &dyn Harness, name: &str) -> Option<Vec<OsString>> {
    if !harness.takes_reports() {
        return None;
    }
    let chosen = std::env::var_os(COMMAND_VAR).unwrap_or_default();
    let in_path = |program: &str| in_path(program, &std::env::var_os("PATH")?);
    words(&chosen, &in_path, name)
}

fn words(chosen: &OsStr, in_path: &dyn Fn(&str) -> Option<PathBuf>, name: &str) -> Option<Vec<OsString>> {
    let chosen = split(chosen);
    let tail = |words: &[&str]| words.iter().map(OsString::from).collect::<Vec<_>>();
    if !chosen.is_empty() {
        return Some([chosen, tail(&[name, "WARN", "/dev/null"])].concat());
    }
    if let Some(program) = in_path("rhts-report-result") {
        return Some([vec![program.into()], tail(&[name, "WARN", "/dev/null"])].concat());
    }
    // Its third word would be a score; the log is an option.
    let program = in_path("rstrnt-report-result")?;
    Some([vec![program.into()], tail(&["--outputfile", "/dev/null", name, "WARN"])].concat())
}

/// At blanks, as BeakerLib's own unquoted `$BEAKERLIB_COMMAND_REPORT_RESULT` is split: quotes and
/// backslashes are ordinary characters.
fn split(command: &OsStr) -> Vec<OsString> {
    command
        .as_bytes()
        .split(u8::is_ascii_whitespace)
        .filter(|word| !word.is_empty())
        .map(|word| OsString::from_vec(word.to_vec()))
        .collect()
}

fn in_path(program: &str, path: &OsStr) -> Option<PathBuf> {
    let executable = |file: &Path| nix::unistd::access(file, nix::unistd::AccessFlags::X_OK).is_ok();
    std::env::split_paths(path).map(|dir| dir.join(program)).find(|file| file.is_file() && executable(file))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words_of(chosen: &str, installed: &[&str]) -> Option<Vec<String>> {
        let in_path = |name: &str| installed.contains(&name).then(|| Path::new("/bin").join(name));
        let words = words(chosen.as_ref(), &in_path, "TESTWATCHER (x)")?;
        Some(words.into_iter().map(|word| word.into_string().unwrap()).collect())
    }

    #[test]
    fn the_first_command_there_is_reports() {
        let all = ["rhts-report-result", "rstrnt-report-result"];
        let own = words_of("my report --to here", &all).unwrap();
        assert_eq!(own, ["my", "report", "--to", "here", "TESTWATCHER (x)", "WARN", "/dev/null"]);
        for empty in ["", "  "] {
            let rhts = words_of(empty, &all).unwrap();
            assert_eq!(rhts, ["/bin/rhts-report-result", "TESTWATCHER (x)", "WARN", "/dev/null"]);
        }
        let rstrnt = words_of("", &all[1..]).unwrap();
        let want = ["/bin/rstrnt-report-result", "--outputfile", "/dev/null", "TESTWATCHER (x)", "WARN"];
        assert_eq!(rstrnt, want);
        assert_eq!(words_of("", &[]), None);
    }
}
