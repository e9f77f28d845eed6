//! Processes and groups: start, kill, reap, look who is left. Owns every `kill`, `wait` and
//! `posix_spawn`; decides nothing.

use super::kernel::Inheritance;
use super::machine::Exit;
use crate::registry::read_stat;
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::spawn::{PosixSpawnAttr, PosixSpawnFileActions, PosixSpawnFlags, posix_spawnp};
use nix::sys::signal::{Signal, kill, killpg};
use nix::sys::stat::Mode;
use nix::unistd::{AccessFlags, Pid, access};
use std::ffi::{CString, OsStr, OsString};
use std::fs;
use std::os::fd::RawFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// A guard's name for ps(1) and pkill(1), which must not find it under the watcher's. The CLPATH's
/// random part follows, as far as there is room (prctl(2): 15 bytes).
pub const GUARD_NAME: &str = "tw-guard-";

/// A process group, named by its leader's pid. Keeps the minus sign of `kill(2)` in one place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Group(Pid);

impl Group {
    /// The group that `leader` leads.
    #[must_use]
    pub fn of_leader(leader: Pid) -> Self {
        Self(leader)
    }

    /// The leader's pid, which is also the group's number.
    #[must_use]
    pub fn leader(self) -> Pid {
        self.0
    }

    /// Sends a signal to every member. A group without members is no error.
    pub fn signal(self, signal: Signal) {
        // EPERM means that every member changed its user; there is nothing more to try.
        let _ = killpg(self.0, signal);
    }

    /// Stops every member, and waits until all of them have stopped, for at most `limit`: one that hangs
    /// in the kernel may take as long as it likes.
    ///
    /// Going on sooner would leave a child behind that is just being forked. The kernel notes the SIGSTOP
    /// for it, but forgets to take that back at a SIGCONT, which is ignored by default and so dropped before
    /// anybody looks at forks under way (kernel/signal.c: `prepare_signal`, `multiprocess`). Who has stopped
    /// forks nothing.
    pub fn stop(self, limit: Duration) {
        self.signal(Signal::SIGSTOP);
        let deadline = Instant::now() + limit;
        let mut pause = Duration::from_millis(1);
        // Where there is no /proc, nobody can tell.
        while let Members::Living(members) = self.members() {
            if members.iter().all(Process::runs_no_more) || Instant::now() >= deadline {
                return;
            }
            std::thread::sleep(pause);
            pause = (pause * 2).min(Duration::from_millis(20));
        }
    }

    /// Whether the group has no member at all, not even an unreaped one.
    #[must_use]
    pub fn is_empty(self) -> bool {
        killpg(self.0, None) == Err(Errno::ESRCH)
    }

    /// The living members. Zombies hold neither mounts nor locks, so they do not count: whoever
    /// has to reap them may never do so.
    #[must_use]
    pub fn members(self) -> Members {
        if self.is_empty() {
            return Members::Gone;
        }
        let mut any = false;
        let living: Vec<Process> =
            processes().inspect(|_| any = true).filter(|p| p.group == self.0 && p.is_living()).collect();
        match (any, living.is_empty()) {
            (false, _) => Members::Unknown,
            (true, true) => Members::Gone,
            (true, false) => Members::Living(living),
        }
    }
}

/// Who is left of a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Members {
    /// Nobody.
    Gone,
    /// These.
    Living(Vec<Process>),
    /// Somebody, but there is no `/proc` to say who, or whether it is only a zombie.
    Unknown,
}

/// One process, as `/proc/PID/stat` shows it (proc_pid_stat(5)).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Process {
    /// Its pid.
    pub pid: Pid,
    /// Its command name, 15 bytes at most.
    pub name: String,
    /// Its state: `R`, `S`, `D`, `T`, `Z`…
    pub state: char,
    /// Its parent.
    pub parent: Pid,
    /// Its process group.
    pub group: Pid,
    /// How many threads it has.
    threads: u32,
}

impl Process {
    /// A zombie of ours will be reaped in a moment, and whoever counts processes should not see it. A
    /// zombie with more than one thread is a process whose main thread has ended; the others run on.
    fn is_living(&self) -> bool {
        !matches!(self.state, 'Z' | 'X' | 'x') || self.threads > 1 || self.parent == Pid::this()
    }

    /// Whether it is stopped or over, with all its threads.
    fn runs_no_more(&self) -> bool {
        let rests = |state: char| matches!(state, 'T' | 't' | 'Z' | 'X' | 'x');
        rests(self.state) && (self.threads == 1 || self.thread_states().all(rests))
    }

    fn thread_states(&self) -> impl Iterator<Item = char> {
        let threads = fs::read_dir(format!("/proc/{}/task", self.pid)).into_iter().flatten().flatten();
        threads
            .filter_map(|thread| Self::parse(self.pid, &read_stat(thread.path().join("stat"))?))
            .map(|thread| thread.state)
    }

    fn read(pid: Pid) -> Option<Self> {
        Self::parse(pid, &read_stat(format!("/proc/{pid}/stat"))?)
    }

    fn parse(pid: Pid, stat: &[u8]) -> Option<Self> {
        let open = stat.iter().position(|&b| b == b'(')?;
        let close = stat.iter().rposition(|&b| b == b')')?;
        let mut rest = std::str::from_utf8(stat.get(close + 2..)?).ok()?.split(' ');
        Some(Self {
            pid,
            name: String::from_utf8_lossy(&stat[open + 1..close]).into_owned(),
            state: rest.next()?.chars().next()?,
            parent: Pid::from_raw(rest.next()?.parse().ok()?),
            group: Pid::from_raw(rest.next()?.parse().ok()?),
            // Field 20; 17 stand before it from the state on, and 3 are taken.
            threads: rest.nth(14)?.parse().ok()?,
        })
    }
}

impl std::fmt::Display for Process {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let name: String = self.name.chars().map(|c| if c.is_control() { '?' } else { c }).collect();
        write!(f, "{} ({name}, state {})", self.pid, self.state)
    }
}

/// Every process there is; none where there is no `/proc`.
pub fn processes() -> impl Iterator<Item = Process> {
    fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| Some(Pid::from_raw(entry.file_name().to_str()?.parse().ok()?)))
        .filter_map(Process::read)
}

/// The living descendants of this process, but for those in `ours`. As this process is a
/// subreaper (prctl(2)), a daemon that forked twice is still among them; a service that another
/// manager started is not.
#[must_use]
pub fn descendants(ours: &[Pid]) -> Vec<Process> {
    // The guard of a watcher within the test has that one's cleanup to do.
    let is_guard = |p: &Process| p.name.starts_with(GUARD_NAME);
    let mut rest: Vec<Process> = processes().filter(|p| !ours.contains(&p.pid) && !is_guard(p)).collect();
    let mut family = vec![Pid::this()];
    let mut found = Vec::new();
    loop {
        let (children, others): (Vec<_>, Vec<_>) = rest.into_iter().partition(|p| family.contains(&p.parent));
        if children.is_empty() {
            break;
        }
        family = children.iter().map(|p| p.pid).collect();
        found.extend(children.into_iter().filter(Process::is_living));
        rest = others;
    }
    found
}

/// Whether this process has a child that is not in `ours`. Cheap where the kernel lists children.
#[must_use]
pub fn has_other_children(ours: &[Pid]) -> bool {
    let me = Pid::this();
    match fs::read_to_string(format!("/proc/{me}/task/{me}/children")) {
        Ok(list) => list
            .split_ascii_whitespace()
            .filter_map(|p| p.parse().ok())
            .any(|p| !ours.contains(&Pid::from_raw(p))),
        Err(_) => processes().any(|p| p.parent == me && !ours.contains(&p.pid)),
    }
}

/// Sends SIGKILL to one process.
pub fn kill_one(pid: Pid) {
    let _ = kill(pid, Signal::SIGKILL);
}

/// What happened to one child.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// It ended.
    Ended(Exit),
    /// It was stopped by this signal.
    Stopped(Signal),
    /// It goes on.
    Continued,
}

/// The next child that changed, without waiting; `None` when all news is read. SIGCHLD coalesces
/// (signal(7)), so call it until it says so.
pub fn reap() -> Option<(Pid, Change)> {
    // rustix, as nix answers EINVAL for a child that a real-time signal ended, and drops its pid.
    use rustix::process::{WaitOptions, wait};
    let options = WaitOptions::NOHANG | WaitOptions::UNTRACED | WaitOptions::CONTINUED;
    let (pid, status) = rustix::io::retry_on_intr(|| wait(options)).ok().flatten()?;
    let byte = |n: i32| u8::try_from(n).unwrap_or(u8::MAX);
    let change = if let Some(code) = status.exit_status() {
        Change::Ended(Exit::Code(byte(code)))
    } else if let Some(signal) = status.terminating_signal() {
        Change::Ended(Exit::Signal(byte(signal)))
    } else if let Some(signal) = status.stopping_signal() {
        Change::Stopped(Signal::try_from(signal).unwrap_or(Signal::SIGSTOP))
    } else {
        Change::Continued
    };
    Some((Pid::from_raw(pid.as_raw_pid()), change))
}

/// How to start a process.
pub struct Launch<'a> {
    /// The program and its arguments.
    pub argv: &'a [OsString],
    /// The whole environment.
    pub env: &'a [(OsString, OsString)],
    /// Mask and dispositions for it.
    pub inheritance: &'a Inheritance,
    /// Which process group it goes to.
    pub place: Place,
    /// Descriptors to put in place: (ours, its number).
    pub descriptors: &'a [(RawFd, RawFd)],
    /// A file that the new process makes before it executes the program: proof that it was started,
    /// for somebody who cannot ask us any more. The number is a close-on-exec descriptor of ours
    /// that it may use for that.
    pub marker: Option<(&'a Path, RawFd)>,
}

/// Where a new process goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// It leads a new process group.
    NewGroup,
    /// It joins an existing group of this session.
    Join(Group),
}

/// Why a process did not start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Failure(pub Errno);

impl Launch<'_> {
    /// Starts it. The group is set by the child before it executes anything, so it exists when
    /// this returns (posix_spawn(3)).
    ///
    /// # Errors
    /// What `execve(2)` or `clone(2)` answered. Memory for a copy of this process is never needed:
    /// posix_spawn shares it until exec.
    pub fn start(&self) -> Result<Pid, Failure> {
        match self.spawn(self.argv) {
            // As execvp(3) and every shell: text without a #! line is for the shell.
            Err(Failure(Errno::ENOEXEC)) => {
                let script = find_program(&self.argv[0]).unwrap_or_else(|| PathBuf::from(&self.argv[0]));
                // Which sh must not take for options.
                let here = if script.as_os_str().as_bytes().starts_with(b"-") { "." } else { "" };
                let script = Path::new(here).join(script);
                let mut argv: Vec<OsString> = vec!["/bin/sh".into(), script.into()];
                argv.extend_from_slice(&self.argv[1..]);
                self.spawn(&argv)
            }
            result => result,
        }
    }

    /// Starts `program` under the name `argv[0]`.
    ///
    /// # Errors
    /// As [`Launch::start`].
    pub fn start_as(&self, program: &OsStr) -> Result<Pid, Failure> {
        self.spawn_file(program, self.argv)
    }

    /// Starts it through bash, for a script that cannot be executed by itself.
    ///
    /// # Errors
    /// As [`Launch::start`].
    pub fn start_by_bash(&self) -> Result<Pid, Failure> {
        let mut argv: Vec<OsString> = vec!["/bin/bash".into()];
        argv.extend_from_slice(self.argv);
        self.spawn(&argv)
    }

    fn spawn(&self, argv: &[OsString]) -> Result<Pid, Failure> {
        self.spawn_file(&argv[0], argv)
    }

    fn spawn_file(&self, file: &OsStr, argv: &[OsString]) -> Result<Pid, Failure> {
        let c_string = |bytes: Vec<u8>| CString::new(bytes).map_err(|_| Failure(Errno::EINVAL));
        let file = c_string(file.as_bytes().to_vec())?;
        let args: Vec<CString> =
            argv.iter().map(|a| c_string(a.as_bytes().to_vec())).collect::<Result<_, _>>()?;
        let env: Vec<CString> = self
            .env
            .iter()
            .map(|(k, v)| c_string([k.as_bytes(), b"=", v.as_bytes()].concat()))
            .collect::<Result<_, _>>()?;
        let attributes = self.attributes().map_err(Failure)?;
        let mut actions = PosixSpawnFileActions::init().map_err(Failure)?;
        for (from, to) in self.descriptors {
            actions.add_dup2(*from, *to).map_err(Failure)?;
        }
        if let Some((path, fd)) = self.marker {
            // O_NONBLOCK: whatever stands there, this must not wait with the memory shared.
            let flags =
                OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_WRONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK;
            actions.add_open(fd, path, flags, Mode::S_IRUSR | Mode::S_IWUSR).map_err(Failure)?;
            actions.add_close(fd).map_err(Failure)?;
        }
        for closed in self.inheritance.closed_descriptors() {
            if self.descriptors.iter().all(|(_, to)| *to != closed) {
                actions.add_close(closed).map_err(Failure)?;
            }
        }
        loop {
            match posix_spawnp(&file, &actions, &attributes, &args, &env) {
                Err(Errno::EINTR) => {}
                result => return result.map_err(Failure),
            }
        }
    }

    fn attributes(&self) -> nix::Result<PosixSpawnAttr> {
        let mut attributes = PosixSpawnAttr::init()?;
        let place = match self.place {
            Place::NewGroup => PosixSpawnFlags::POSIX_SPAWN_SETPGROUP,
            Place::Join(group) => {
                attributes.set_pgroup(group.leader())?;
                PosixSpawnFlags::POSIX_SPAWN_SETPGROUP
            }
        };
        attributes.set_sigmask(&self.inheritance.mask)?;
        attributes.set_sigdefault(&self.inheritance.defaults())?;
        attributes.set_flags(
            place | PosixSpawnFlags::POSIX_SPAWN_SETSIGMASK | PosixSpawnFlags::POSIX_SPAWN_SETSIGDEF,
        )?;
        Ok(attributes)
    }
}

/// Where `PATH` has the program; the name itself if it has a slash. What may not be executed is passed
/// over, as execvp(3) does.
#[must_use]
pub fn find_program(name: &OsStr) -> Option<PathBuf> {
    if name.as_bytes().contains(&b'/') {
        return Some(name.into());
    }
    let path = std::env::var_os("PATH").unwrap_or_else(|| "/bin:/usr/bin".into());
    std::env::split_paths(&path)
        .map(|dir| dir.join(name))
        .find(|file| file.is_file() && access(file, AccessFlags::X_OK).is_ok())
}

/// Whether a process was started with this variable in its environment (proc_pid_environ(5)).
#[must_use]
pub fn has_in_environment(pid: Pid, name: &str, value: &OsStr) -> bool {
    let Ok(environ) = fs::read(format!("/proc/{pid}/environ")) else { return false };
    let wanted = [name.as_bytes(), b"=", value.as_bytes()].concat();
    environ.split(|&b| b == 0).any(|item| item == wanted.as_slice())
}

/// Whether a process has this variable at all.
#[must_use]
pub fn has_variable(pid: Pid, name: &str) -> bool {
    let Ok(environ) = fs::read(format!("/proc/{pid}/environ")) else { return false };
    let start = format!("{name}=");
    environ.split(|&b| b == 0).any(|item| item.starts_with(start.as_bytes()))
}

/// This program's own file, to start a guard from. `/proc` first: it works for a deleted or
/// renamed file too.
#[must_use]
pub fn own_program() -> Option<OsString> {
    if Path::new("/proc/self/exe").exists() {
        return Some("/proc/self/exe".into());
    }
    let name = std::env::args_os().next()?;
    find_program(&name).map(|p| OsString::from_vec(p.into_os_string().into_vec()))
}
