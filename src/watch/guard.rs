//! The guard: a process outside the watcher's group and session that outlives its SIGKILL. Owns the
//! line between the two and what the guard concludes when it breaks.
//!
//! The line is a pipe. Its write end is close-on-exec and held by the watcher alone, so the guard
//! reads its end when the watcher is gone and every process it was just starting has executed:
//! whatever the watcher started can then be found by its environment, even if the watcher died
//! before it could say so.

use super::kernel::fork;
use super::machine::{Found, Outcome};
use super::process::{GUARD_NAME, has_in_environment, has_variable, processes};
use crate::hook::{CLPATH_VAR, ClPath, OUTCOME_VAR};
use crate::registry::start_time;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::unistd::{ForkResult, Pid, getpid, getppid, pipe2, read, setsid, write};
use std::ffi::CString;
use std::mem::discriminant;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::time::Duration;

/// How often, and how far apart, somebody who is being born is looked for.
const BIRTH_LOOKS: u8 = 10;
const BIRTH_LOOK: Duration = Duration::from_millis(5);

/// Before the line is read again.
const AFTER_AN_ERROR: Duration = Duration::from_millis(20);

/// The watcher's end.
pub struct Guard {
    pid: Pid,
    line: OwnedFd,
}

/// What the watcher tells, in the order it happens.
///
/// # Examples
/// ```
/// use rl_cleanup::watch::Word;
/// use rl_cleanup::watch::machine::Outcome;
/// let word = Word::Tested(Outcome::Interrupted);
/// assert_eq!(Word::parse(word.render().trim_end()), Some(word));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Word {
    /// The test runs in the group of this leader.
    Test(Pid),
    /// The test is being killed.
    Killing(Outcome),
    /// The test is over; the cleanup comes next.
    Tested(Outcome),
    /// The cleanup runs in the group of this leader.
    Cleanup(Pid),
    /// The cleanup is being killed.
    CleanupKilling,
    /// So many bytes of the cleanup's logs, stdout's and stderr's, have been passed on.
    Copied(u64, u64),
    /// All is over: remove the CLPATH file and its directory, and leave. The watcher has other things
    /// to end meanwhile.
    Sweep,
    /// Leave, and do nothing.
    Leave,
}

/// Who goes on after [`start`].
pub enum Side {
    /// The watcher, with its guard.
    Watcher(Guard),
    /// The guard, with its end of the line.
    Guard(Ears),
}

/// The guard's end of the line.
pub struct Ears {
    line: OwnedFd,
    watcher: Pid,
}

/// Makes a guard: a copy of this process that executes nothing, in a session of its own.
///
/// # Errors
/// No descriptor or process is to be had.
pub fn start(clpath: &ClPath) -> nix::Result<Side> {
    let watcher = getpid();
    let (ears, line) = pipe2(OFlag::O_CLOEXEC)?;
    // Only our end: a guard that somebody has stopped must not stop us when the pipe is full.
    fcntl(&line, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
    match fork()? {
        ForkResult::Parent { child } => Ok(Side::Watcher(Guard { pid: child, line })),
        ForkResult::Child => {
            let _ = setsid();
            let path = clpath.path().as_os_str().as_bytes();
            let suffix = &path[path.len().saturating_sub(6)..];
            if let Ok(name) = CString::new([GUARD_NAME.as_bytes(), suffix].concat()) {
                let _ = nix::sys::prctl::set_name(&name);
            }
            Ok(Side::Guard(Ears { line: ears, watcher }))
        }
    }
}

impl Guard {
    /// The guard's pid: a child of ours, but none of the test's.
    #[must_use]
    pub fn pid(&self) -> Pid {
        self.pid
    }

    /// Tells the guard. One that is dead hears nothing.
    pub fn tell(&self, word: Word) {
        let _ = write(&self.line, word.render().as_bytes());
    }
}

impl Word {
    /// One line of the line.
    #[must_use]
    pub fn render(self) -> String {
        match self {
            Self::Test(pid) => format!("test {pid}\n"),
            Self::Killing(outcome) => format!("killing {}\n", outcome.text()),
            Self::Tested(outcome) => format!("tested {}\n", outcome.text()),
            Self::Cleanup(pid) => format!("cleanup {pid}\n"),
            Self::CleanupKilling => "cleanup-killing\n".into(),
            Self::Copied(from, done) => format!("copied {from}-{done}\n"),
            Self::Sweep => "sweep\n".into(),
            Self::Leave => "leave\n".into(),
        }
    }

    /// Reads one line; `None` if it is no word.
    #[must_use]
    pub fn parse(line: &str) -> Option<Self> {
        let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
        let pid = || rest.parse::<i32>().ok().filter(|p| *p > 0).map(Pid::from_raw);
        match word {
            "test" => Some(Self::Test(pid()?)),
            "killing" => Some(Self::Killing(Outcome::parse(rest)?)),
            "tested" => Some(Self::Tested(Outcome::parse(rest)?)),
            "cleanup" => Some(Self::Cleanup(pid()?)),
            "cleanup-killing" => Some(Self::CleanupKilling),
            "copied" => {
                let (from, done) = rest.split_once('-')?;
                Some(Self::Copied(from.parse().ok()?, done.parse().ok()?))
            }
            "sweep" => Some(Self::Sweep),
            "leave" => Some(Self::Leave),
            _ => None,
        }
    }
}

/// What a guard knows of its watcher's work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Inheriting {
    /// Where the watcher was.
    pub found: Found,
    /// The test's leader.
    pub test: Option<Pid>,
    /// The cleanup's leader.
    pub cleanup: Option<Pid>,
    /// How much of the cleanup's logs, stdout's and stderr's, was passed on.
    pub copied: Option<(u64, u64)>,
}

/// Listens until the watcher is gone; `story` is what was so at the fork. `None`: it told us to leave.
#[must_use]
pub fn listen(ears: &Ears, clpath: &ClPath, story: Vec<Word>) -> Option<Inheriting> {
    let (mut text, mut words) = (Vec::new(), story);
    let mut buffer = [0; 512];
    loop {
        match read(&ears.line, &mut buffer) {
            Ok(0) => break,
            Ok(n) => text.extend_from_slice(&buffer[..n]),
            Err(nix::errno::Errno::EINTR) => {}
            // That tells nothing of the watcher; who our parent is, does (getppid(2)).
            Err(_) if getppid() == ears.watcher => std::thread::sleep(AFTER_AN_ERROR),
            Err(_) => break,
        }
        fold(&mut text, &mut words);
        if words.contains(&Word::Sweep) {
            clpath.remove();
            return None;
        }
        if words.contains(&Word::Leave) {
            return None;
        }
    }
    conclude(&words, clpath)
}

/// Takes the whole lines out of `text` and keeps the last word of each kind, in order: a cleanup that
/// talks for hours makes many.
fn fold(text: &mut Vec<u8>, words: &mut Vec<Word>) {
    let Some(end) = text.iter().rposition(|b| *b == b'\n') else { return };
    let lines: Vec<u8> = text.drain(..=end).collect();
    for word in String::from_utf8_lossy(&lines).lines().filter_map(Word::parse) {
        words.retain(|known| discriminant(known) != discriminant(&word));
        words.push(word);
    }
}

/// What the words so far, and the processes that are there, amount to.
fn conclude(words: &[Word], clpath: &ClPath) -> Option<Inheriting> {
    let (mut test, mut cleanup, mut outcome, mut last) = (None, None, Outcome::WatcherLost, None);
    let mut copied = None;
    for word in words {
        match *word {
            Word::Test(pid) => test = Some(pid),
            Word::Cleanup(pid) => cleanup = Some(pid),
            Word::Killing(why) | Word::Tested(why) => outcome = why,
            Word::CleanupKilling => {}
            Word::Copied(from, done) => {
                copied = Some((from, done));
                continue;
            }
            Word::Sweep | Word::Leave => return None,
        }
        last = Some(*word);
    }
    let found = match last {
        // Started, and by now perhaps over: never a second time, whatever was told last.
        None | Some(Word::Test(_) | Word::Killing(_) | Word::Tested(_)) if clpath.has_cleanup_marker() => {
            cleanup = find_leader(clpath, true);
            Found::Cleanup(outcome)
        }
        None => {
            // It died before it could name the test. One that is over by now may have hooked something.
            test = find_leader(clpath, false);
            if test.is_some() { Found::Test } else { Found::Tested(outcome) }
        }
        Some(Word::Test(_)) => Found::Test,
        Some(Word::Killing(_)) => Found::Killing(outcome),
        Some(Word::Tested(_)) => Found::Tested(outcome),
        Some(Word::Cleanup(_)) => Found::Cleanup(outcome),
        Some(Word::CleanupKilling | Word::Copied(..) | Word::Sweep | Word::Leave) => {
            Found::CleanupKilling(outcome)
        }
    };
    Some(Inheriting { found, test, cleanup, copied })
}

/// The group leader that was started with our CLPATH: the cleanup if it was told an outcome, else
/// the test. The oldest one, as it may have started groups of its own.
///
/// The kernel closes the line in the middle of execve(2) and shows the new environment only at its
/// end, so somebody who is just being born is looked for a few times.
fn find_leader(clpath: &ClPath, told_outcome: bool) -> Option<Pid> {
    for _ in 0..BIRTH_LOOKS {
        let found = processes()
            .filter(|p| p.pid == p.group && has_in_environment(p.pid, CLPATH_VAR, clpath.path().as_os_str()))
            .filter(|p| has_variable(p.pid, OUTCOME_VAR) == told_outcome)
            .min_by_key(|p| start_time(p.pid));
        if let Some(leader) = found {
            return Some(leader.pid);
        }
        std::thread::sleep(BIRTH_LOOK);
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::watch::machine::Exit;

    fn concluded(words: &[Word]) -> Option<Inheriting> {
        conclude(words, &ClPath::new("/nonexistent/testwatcher-none"))
    }

    #[test]
    fn words_survive_the_line() {
        let pid = Pid::from_raw(12);
        for word in [
            Word::Test(pid),
            Word::Killing(Outcome::Interrupted),
            Word::Killing(Outcome::Watchdog),
            Word::Killing(Outcome::Deadline),
            Word::Killing(Outcome::WatcherLost),
            Word::Tested(Outcome::Ended(Exit::Code(3))),
            Word::Cleanup(pid),
            Word::CleanupKilling,
            Word::Copied(7, 4096),
            Word::Leave,
        ] {
            assert_eq!(Word::parse(word.render().trim_end()), Some(word));
        }
        for bad in ["", "test", "test -1", "test x", "tested", "nothing"] {
            assert_eq!(Word::parse(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn of_many_words_the_last_of_each_kind_is_kept() {
        let (mut text, mut words) = (Vec::new(), Vec::new());
        let pid = Pid::from_raw(12);
        text.extend_from_slice(Word::Cleanup(pid).render().as_bytes());
        for done in 0..1000 {
            // A line may come in two pieces.
            let line = Word::Copied(done, 0).render();
            let (start, rest) = line.split_at(4);
            text.extend_from_slice(start.as_bytes());
            fold(&mut text, &mut words);
            text.extend_from_slice(rest.as_bytes());
            fold(&mut text, &mut words);
        }
        assert_eq!(words, [Word::Cleanup(pid), Word::Copied(999, 0)]);
        assert!(text.is_empty());
    }

    #[test]
    fn a_guard_goes_on_where_the_watcher_was() {
        let (test, cleanup) = (Pid::from_raw(7), Pid::from_raw(8));
        let ended = Outcome::Ended(Exit::Code(0));
        for (words, found) in [
            (vec![], Found::Tested(Outcome::WatcherLost)),
            (vec![Word::Test(test)], Found::Test),
            (
                vec![Word::Test(test), Word::Killing(Outcome::Interrupted)],
                Found::Killing(Outcome::Interrupted),
            ),
            (vec![Word::Test(test), Word::Tested(ended)], Found::Tested(ended)),
            (vec![Word::Test(test), Word::Tested(ended), Word::Cleanup(cleanup)], Found::Cleanup(ended)),
            (
                vec![Word::Test(test), Word::Tested(ended), Word::Cleanup(cleanup), Word::CleanupKilling],
                Found::CleanupKilling(ended),
            ),
        ] {
            assert_eq!(concluded(&words).unwrap().found, found, "{words:?}");
        }
        assert_eq!(concluded(&[Word::Test(test), Word::Leave]), None);
    }
}
