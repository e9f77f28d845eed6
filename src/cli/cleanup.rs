//! The subcommands that manage the buffer.

use super::args::{AddArgs, Command, ListArgs, RunArgs, ShimArgs, ShowArgs};
use super::caller::{
    Caller, Hook, busy, load_buffer, load_script, parse_stream, places, random_id, read_pipe, read_stdin,
    snapshot_kept, snapshot_without_shell,
};
use super::{OURS_ALONE, completions, print, render, shield};
use crate::cleanup::buffer::{Buffer, Entry, Id, Mark, Place};
use crate::cleanup::runners::{self, Admission, Nested};
use crate::cleanup::script::{self, Purpose};
use crate::cleanup::snapshot::{Snapshot, Stream};
use crate::cleanup::store::{
    BUFFER, Content, IfMissing, LOCK_DEADLINE, Locked, SCRIPT, Store, run_script_name,
};
use crate::cleanup::syntax;
use crate::error::{Error, Result, Status};
use crate::hook::CLPATH_VAR;
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::stat::{Mode, umask};
use nix::unistd::Pid;
use std::ffi::OsString;
use std::fs::File;
use std::io::{Seek, Write};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;
use std::process::{self, Stdio};
use std::time::{SystemTime, UNIX_EPOCH};

/// The shim's text.
const SHIM: &str = include_str!("../../shell/rl-cleanup.sh");

/// Runs one subcommand.
pub(super) fn dispatch(dir: Option<PathBuf>, command: Command) -> Result<u8> {
    let umask_before = shield();
    let done = match command {
        Command::Append(args) => return add(&Caller::new(dir, Some(&args.shell)), &args, Place::End),
        Command::Prepend(args) => return add(&Caller::new(dir, Some(&args.shell)), &args, Place::Front),
        Command::Rehook(args) => rehook(&Caller::new(dir, Some(&args.shell)), args.shell.shell),
        Command::List(args) => list(&Caller::new(dir, None), &args),
        Command::Show(args) => show(&Caller::new(dir, None), &args),
        Command::Remove(args) => remove(&Caller::new(dir, Some(&args.shell)), &args.ids),
        Command::Clear => clear(&Caller::new(dir, None)),
        Command::Run(args) => run(&Caller::new(dir, Some(&args.shell)), &args, umask_before),
        Command::Status(args) => render::status(&Caller::new(dir, None), args.json),
        Command::Shim(args) => shim(&args),
        Command::Completions(args) => completions::completions(&args),
        Command::Watch(_) | Command::Script(_) | Command::HarnessHook { .. } => Ok(()),
    };
    done.map(|()| 0)
}

/// The shim must draw another id.
const TAKEN: u8 = 11;

fn add(caller: &Caller, args: &AddArgs, place: Place) -> Result<u8> {
    let (sent, check) = if args.shell.shell { read_and_check()? } else { (Vec::new(), None) };
    let stream = args.shell.shell.then(|| parse_stream(&sent)).transpose()?;
    let text = match &stream {
        Some(stream) => stream.text.to_vec(),
        None => text_of(args)?,
    };
    if text.trim_ascii().is_empty() {
        return Err(Error::usage("the text of an entry must not be empty"));
    }
    if text.contains(&0) {
        return Err(Error::usage("the text of an entry must not hold a NUL byte: bash cannot keep one"));
    }
    let sent_snapshot = stream.map(|s| s.snapshot());
    let store = caller.open(IfMissing::Make)?;
    match check {
        Some(check) => check.finish()?,
        None => {
            let snapshot = snapshot_or(&store, sent_snapshot.clone())?;
            Check::start(&text, &snapshot)?.finish()?;
        }
    }
    let locked = store.lock(LOCK_DEADLINE)?;
    let mut buffer = load_buffer(&store)?;
    let snapshot = snapshot_or(&store, sent_snapshot)?;
    if args.id.as_ref().is_some_and(|id| buffer.has(id)) {
        return Ok(TAKEN);
    }
    let entry = Entry {
        id: args.id.clone().unwrap_or_else(random_id),
        time: Some(now()),
        mark: if args.mark { Mark::Set } else { Mark::Unset },
        cwd: std::env::current_dir().ok().map(|d| d.into_os_string().into_vec()),
        text,
    };
    let id = buffer.add(entry, place);
    if args.print_id {
        // Before anything changes, as it may fail.
        print(format!("{id}\n").as_bytes())?;
    }
    let (_, undo) = caller.hook(&store.script_path())?;
    save(&store, &locked, &buffer, &snapshot).inspect_err(|_| caller.undo(&undo))?;
    Ok(0)
}

fn snapshot_or(store: &Store, sent: Option<Snapshot>) -> Result<Snapshot> {
    sent.map_or_else(|| snapshot_without_shell(store), Ok)
}

/// The entry's text, from the command line or standard input.
fn text_of(args: &AddArgs) -> Result<Vec<u8>> {
    if args.argv {
        return Ok(args.text.iter().map(quote_word).collect::<Vec<_>>().join(&b' '));
    }
    match &args.text[..] {
        [only] if only == "-" => read_stdin(),
        [only] => Ok(only.as_bytes().to_vec()),
        _ => Err(Error::usage("an entry is one text: quote it, or give --argv -- CMD ARG…")),
    }
}

/// shell_escape leaves alone what is one word to bash, be it a keyword or an assignment.
fn quote_word(word: &OsString) -> Vec<u8> {
    let bytes = word.as_bytes();
    match word.to_str() {
        Some(text) if !bytes.contains(&b'=') && !syntax::RESERVED.contains(&bytes) => {
            shell_escape::unix::escape(text.into()).as_bytes().to_vec()
        }
        _ => syntax::quote(bytes),
    }
}

/// Reads what the shell sends, and has the text in front of it checked meanwhile.
fn read_and_check() -> Result<(Vec<u8>, Option<Check>)> {
    let mut check = None;
    let sent = read_pipe(|so_far| {
        if check.is_none()
            && let Some((text, snapshot)) = Stream::parse_syntax(so_far)
        {
            check = Some(Check::start(text, &snapshot)?);
        }
        Ok(())
    })?;
    Ok((sent, check))
}

/// The answer to whether bash can parse a text.
enum Check {
    /// It can; nobody had to be asked.
    Plain,
    /// The bash that will run it is reading it, with the options and aliases it will have then.
    Running { bash: process::Child, lines_before: usize },
}

impl Check {
    fn start(text: &[u8], snapshot: &Snapshot) -> Result<Self> {
        if syntax::is_plain(text) && !snapshot.has_aliases() {
            return Ok(Self::Plain);
        }
        let end: &[u8] = if text.ends_with(b"\n") { b"" } else { b"\n" };
        let head = [&snapshot.syntax()[..], b"\\builtin set -n\n"].concat();
        let cannot = |e: &std::io::Error| Error::io("write", "memory", e);
        // In memory: a full /tmp is no reason to refuse an entry.
        let file = memfd_create("rl-cleanup", MFdFlags::MFD_CLOEXEC).map_err(|e| cannot(&e.into()))?;
        let mut file = File::from(file);
        file.write_all(&[&head, text, end].concat()).and_then(|()| file.rewind()).map_err(|e| cannot(&e))?;
        let bash = process::Command::new(&snapshot.interpreter)
            .args(["--norc", "--noprofile", "-s"])
            .env_clear()
            .stdin(file)
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|e| Error::io("run", &snapshot.interpreter, &e))?;
        Ok(Self::Running { bash, lines_before: head.iter().filter(|&&b| b == b'\n').count() })
    }

    fn finish(self) -> Result<()> {
        let Self::Running { bash, lines_before } = self else { return Ok(()) };
        let name = "bash: ";
        let answer = bash.wait_with_output().map_err(|e| Error::io("run", "bash", &e))?;
        if answer.status.success() {
            return Ok(());
        }
        let said = String::from_utf8_lossy(&answer.stderr).into_owned();
        let said: Vec<String> = said.lines().map(|l| from_line_one(l, name, lines_before)).collect();
        Err(Error::new(Status::Failed, format!("bash cannot parse this entry: {}", said.join("\n"))))
    }
}

/// Bash's message, as it would be if the file held the entry alone and had no name.
fn from_line_one(message: &str, name: &str, lines_before: usize) -> String {
    // The name is argv[0], which may be a path.
    let message = message.split_once(name).map_or(message, |(_, rest)| rest);
    let numbered = || {
        let (number, rest) = message.strip_prefix("line ")?.split_once(':')?;
        let number: usize = number.parse().ok()?;
        Some(format!("line {}:{rest}", number.checked_sub(lines_before)?))
    };
    numbered().unwrap_or_else(|| message.to_owned())
}

/// Replaces buffer and final script.
fn save(store: &Store, locked: &Locked, buffer: &Buffer, snapshot: &Snapshot) -> Result<()> {
    let script = match buffer.is_empty() {
        true => Vec::new(),
        false => script::render(buffer, snapshot, &Purpose::Final, &places(store, SCRIPT)),
    };
    locked.replace(&[Content::buffer(&buffer.render()), Content::script(&script)])
}

/// With `shell`, the first line of the answer is a word for the shim, and the state that the shell
/// sends is used where there are entries and no shell's state.
fn rehook(caller: &Caller, shell: bool) -> Result<()> {
    let sent = if shell { read_pipe(|_| Ok(()))? } else { Vec::new() };
    let stream = Stream::parse(&sent);
    let store = caller.open(IfMissing::Make)?;
    let locked = store.lock(LOCK_DEADLINE)?;
    let buffer = load_buffer(&store)?;
    let there = load_script(&store)?.map(|s| s.snapshot);
    let snapshot = match (there, stream) {
        (Some(snapshot), None) => snapshot,
        (Some(snapshot), Some(_)) if snapshot.origin == crate::cleanup::snapshot::Origin::Shell => snapshot,
        (_, Some(stream)) => stream.snapshot(),
        (None, None) => snapshot_without_shell(&store)?,
    };
    let (hook, undo) = caller.hook(&store.script_path())?;
    save(&store, &locked, &buffer, &snapshot).inspect_err(|_| caller.undo(&undo))?;
    let word = match &hook {
        Hook::Ours => "hooked",
        Hook::NoWatcher => "alone",
        Hook::Theirs(_) => "theirs",
    };
    let sentence = render::rehooked(&store, &buffer, &hook);
    print(if shell { format!("{word}\n{sentence}\n") } else { format!("{sentence}\n") }.as_bytes())
}

fn list(caller: &Caller, args: &ListArgs) -> Result<()> {
    let store = caller.open(IfMissing::Fail)?;
    let buffer = existing_buffer(&store)?;
    render::list(&buffer, args.json, now())
}

fn show(caller: &Caller, args: &ShowArgs) -> Result<()> {
    let store = caller.open(IfMissing::Fail)?;
    let name = if args.script { SCRIPT } else { BUFFER };
    let bytes = store.read(name)?.ok_or_else(|| Error::no_buffer(store.path()))?;
    print(&bytes)
}

/// A directory without the file is as good as none.
fn existing_buffer(store: &Store) -> Result<Buffer> {
    let bytes = store.read(BUFFER)?.ok_or_else(|| Error::no_buffer(store.path()))?;
    Ok(Buffer::parse(&bytes))
}

fn remove(caller: &Caller, ids: &[Id]) -> Result<()> {
    let store = caller.open(IfMissing::Fail)?;
    let locked = store.lock(LOCK_DEADLINE)?;
    let mut buffer = existing_buffer(&store)?;
    for id in known_ids(&buffer, ids)? {
        buffer.remove(&id);
    }
    let snapshot = snapshot_kept(&store)?;
    save(&store, &locked, &buffer, &snapshot)
}

fn clear(caller: &Caller) -> Result<()> {
    let store = caller.open(IfMissing::Fail)?;
    let locked = store.lock(LOCK_DEADLINE)?;
    let mut buffer = existing_buffer(&store)?;
    buffer.clear();
    let snapshot = snapshot_kept(&store)?;
    save(&store, &locked, &buffer, &snapshot)
}

/// All of them, or none and an error that names the first unknown one.
fn known_ids(buffer: &Buffer, ids: &[Id]) -> Result<Vec<Id>> {
    let known = |id: &Id| match buffer.has(id) {
        true => Ok(id.clone()),
        false => {
            Err(Error::new(Status::Failed, format!("there is no entry '{id}': 'rl-cleanup list' shows them")))
        }
    };
    ids.iter().map(known).collect()
}

/// `umask_before` is the caller's: a snapshot that no shell has made leaves it as it is.
fn run(caller: &Caller, args: &RunArgs, umask_before: Mode) -> Result<()> {
    let sent = if args.shell.shell { read_pipe(|_| Ok(()))? } else { Vec::new() };
    let stream = args.shell.shell.then(|| parse_stream(&sent)).transpose()?;
    let store = caller.open(IfMissing::Fail)?;
    let name = run_script_name(process::id());
    let (purpose, snapshot) = {
        let locked = store.lock(LOCK_DEADLINE)?;
        let buffer = existing_buffer(&store)?;
        let purpose = Purpose::Now(chosen(&buffer, args)?);
        match runners::enter(&locked, Pid::this(), Nested::Allowed) {
            Admission::Granted => {}
            Admission::Busy(other) | Admission::Within(other) => return Err(busy(&store, other)),
        }
        let snapshot = stream.map_or_else(|| snapshot_kept(&store), |s| Ok(s.snapshot()))?;
        let bytes = script::render(&buffer, &snapshot, &purpose, &places(&store, &name));
        locked.write(Content { name: &name, ..Content::script(&bytes) })?;
        (purpose, snapshot)
    };
    let mut command = process::Command::new(&snapshot.interpreter);
    command.arg(store.path().join(&name));
    if let Some(clpath) = caller.clpath() {
        command.env(CLPATH_VAR, clpath.path());
    }
    umask(umask_before);
    let started = command.spawn();
    umask(OURS_ALONE);
    let ended = started.and_then(|mut script| script.wait());
    let ended = ended.map_err(|e| Error::io("run", &snapshot.interpreter, &e));
    let locked = store.lock(LOCK_DEADLINE)?;
    locked.remove(&name);
    runners::leave(&locked, Pid::this());
    let buffer = load_buffer(&store)?;
    save(&store, &locked, &buffer, &load_script(&store)?.map_or(snapshot, |s| s.snapshot))?;
    let left = purpose.select(&buffer).len();
    match ended? {
        _ if left > 0 => Err(Error::new(
            Status::Failed,
            format!("{left} of the entries did not run: they stay in the buffer"),
        )),
        status if status.success() => Ok(()),
        _ => Err(Error::new(Status::Failed, "at least one of the entries failed; all have been removed")),
    }
}

fn chosen(buffer: &Buffer, args: &RunArgs) -> Result<Vec<Id>> {
    let entries = buffer.entries();
    if args.to_mark {
        let marked = entries.iter().position(|e| e.mark == Mark::Set);
        let marked = marked
            .ok_or_else(|| Error::new(Status::Failed, "no entry is marked: 'prepend --mark' sets a mark"))?;
        return Ok(entries[..=marked].iter().map(|e| e.id.clone()).collect());
    }
    if args.ids.is_empty() {
        return Ok(entries.iter().map(|e| e.id.clone()).collect());
    }
    known_ids(buffer, &args.ids)
}

fn shim(args: &ShimArgs) -> Result<()> {
    let binary = std::env::current_exe().map_err(|e| Error::io("find", "rl-cleanup", &e))?;
    if !args.path {
        let baked = [b"__rlc_baked=", &syntax::quote(binary.as_os_str().as_bytes())[..], b"\n"].concat();
        return print(&[&baked, SHIM.as_bytes()].concat());
    }
    let installed =
        binary.parent().and_then(|d| d.parent()).map(|prefix| prefix.join("share/rl-cleanup/rl-cleanup.sh"));
    match installed.filter(|p| p.exists()) {
        Some(path) => print(&[path.as_os_str().as_bytes(), b"\n"].concat()),
        None => Err(Error::new(Status::Failed, "the shim is not installed: use eval \"$(rl-cleanup shim)\"")),
    }
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs())
}
