//! `rl-cleanup script`: what a running final script asks for, one call an event.

use super::args::{ScriptArgs, ScriptEvent};
use super::caller::{Caller, busy, busy_sentence, load_buffer, places, read_pipe};
use super::{complain, print, say, shield};
use crate::cleanup::buffer::{Buffer, Entry, fingerprint};
use crate::cleanup::runners::{self, Admission, Nested};
use crate::cleanup::script::{self, Purpose};
use crate::cleanup::snapshot::{Snapshot, Stream};
use crate::cleanup::store::{Content, IfMissing, LOCK_DEADLINE, Locked, SCRIPT, Store};
use crate::error::{Error, Result};
use crate::hook::{Row, boottime_ns};
use crate::registry;
use nix::unistd::Pid;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::time::Duration;

/// The script goes on.
const GO_ON: u8 = 0;
/// The script must execute itself anew: it is another one now.
const CHANGED: u8 = 10;
/// The script has nothing left to do.
const OVER: u8 = 13;
/// Another process runs this buffer's entries.
const BUSY: u8 = 14;
/// How often to look whether it still does.
const LOOK: Duration = Duration::from_millis(50);

/// Answers one event; the number is the exit status.
pub(super) fn dispatch(dir: Option<PathBuf>, args: ScriptArgs) -> Result<u8> {
    shield();
    let caller = Caller::new(dir, Some(&args.shell));
    if args.event == ScriptEvent::Alive {
        return Ok(u8::from(!is_watched(&caller, &args)));
    }
    if args.event == ScriptEvent::Prepare {
        return prepare(&caller);
    }
    let store = caller.open(IfMissing::Fail)?;
    let admitted = match args.event {
        ScriptEvent::Begin => admit(&store, &args)?,
        _ => Some(store.lock(LOCK_DEADLINE)?),
    };
    let Some(locked) = admitted else { return Ok(BUSY) };
    let session = Session { caller, args, store: &store, locked };
    match session.args.event {
        ScriptEvent::Begin => session.begin(),
        ScriptEvent::Strike => session.strike(),
        ScriptEvent::Resume => session.resume(),
        ScriptEvent::Finish | ScriptEvent::Alive | ScriptEvent::Prepare => session.finish(),
    }
}

/// The lock, with the script written down as the one that runs entries; nothing where another does.
/// Under a watcher it waits: the machine is to be in order when the watcher ends.
fn admit<'a>(store: &'a Store, args: &ScriptArgs) -> Result<Option<Locked<'a>>> {
    let mut told = false;
    loop {
        let locked = store.lock(LOCK_DEADLINE)?;
        let Some(pid) = args.pid.map(Pid::from_raw) else { return Ok(Some(locked)) };
        let nested = if args.now { Nested::Allowed } else { Nested::Refused };
        let waits = match runners::enter(&locked, pid, nested) {
            Admission::Granted => return Ok(Some(locked)),
            Admission::Busy(other) if args.patient => other,
            Admission::Busy(other) | Admission::Within(other) => {
                complain(&busy(store, other));
                return Ok(None);
            }
        };
        drop(locked);
        if !told {
            say(&format!("waiting: {}", busy_sentence(waits)));
            told = true;
        }
        std::thread::sleep(LOOK);
    }
}

/// Makes directory and files, so that nobody makes them later under the test's umask. The path is
/// printed even where it is not trusted: the journal goes there all the same.
fn prepare(caller: &Caller) -> Result<u8> {
    let Some(dir) = caller.dir() else {
        let fresh = tempfile::Builder::new()
            .prefix("beakerlib-")
            .tempdir_in(crate::hook::CLPATH_DIR)
            .map_err(|e| Error::io("make", crate::hook::CLPATH_DIR, &e))?;
        let store = Store::open(&fresh.keep(), IfMissing::Make, caller.trust())?;
        make_files(&store)?;
        return print(store.path().as_os_str().as_bytes()).map(|()| GO_ON);
    };
    let path = std::path::absolute(dir).map_err(|e| Error::io("find", dir, &e))?;
    print(path.as_os_str().as_bytes())?;
    make_files(&caller.open(IfMissing::Make)?).map(|()| GO_ON)
}

fn make_files(store: &Store) -> Result<()> {
    let locked = store.lock(LOCK_DEADLINE)?;
    let mut missing = Vec::new();
    for content in [Content::buffer(b""), Content::script(b"")] {
        if store.read(content.name)?.is_none() {
            missing.push(content);
        }
    }
    if missing.is_empty() { Ok(()) } else { locked.replace(&missing) }
}

/// A watcher of ours is registered; the original's has a CLPATH file and no directory beside it.
fn is_watched(caller: &Caller, args: &ScriptArgs) -> bool {
    let Some(clpath) = caller.clpath() else { return false };
    let runtime_dir =
        args.shell.runtime_dir.clone().or_else(|| std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from));
    let registered = registry::live_in(&registry::directory_under(runtime_dir));
    registered.iter().any(|w| w.clpath == *clpath) || !clpath.private_dir().exists()
}

struct Session<'a> {
    caller: Caller,
    args: ScriptArgs,
    store: &'a Store,
    locked: Locked<'a>,
}

impl Session<'_> {
    fn begin(&self) -> Result<u8> {
        let buffer = load_buffer(self.store)?;
        let Some(parsed) = self.load()? else {
            // Another process has finished this cleanup after this one was started.
            return Ok(if buffer.is_empty() { OVER } else { GO_ON });
        };
        let entries = parsed.purpose.select(&buffer);
        if self.args.fingerprint != Some(fingerprint(&entries)) {
            self.write(&buffer, &parsed.snapshot, &parsed.purpose)?;
            return Ok(CHANGED);
        }
        let mut rows = vec![Row::Begin { at: boottime_ns() }];
        rows.extend(entries.iter().map(|e| Row::Plan { id: e.id.to_string(), text: e.first_line() }));
        self.report(&rows);
        Ok(GO_ON)
    }

    fn strike(&self) -> Result<u8> {
        let buffer = self.strike_entry()?;
        let purpose =
            if self.args.now { self.load()?.map_or(Purpose::Final, |p| p.purpose) } else { Purpose::Final };
        let next = purpose.select(&buffer).first().map(|e| e.id.clone());
        Ok(if next == self.args.next { GO_ON } else { CHANGED })
    }

    fn resume(&self) -> Result<u8> {
        // A state that cannot be read is no reason to leave the other entries undone.
        let sent = read_pipe(|_| Ok(()))?;
        let state = Stream::parse(&sent).map(|s| s.snapshot());
        let buffer = self.strike_entry()?;
        // Somebody else has finished this cleanup meanwhile.
        let Some(parsed) = self.load()? else { return Ok(OVER) };
        self.write(&buffer, &state.unwrap_or(parsed.snapshot), &parsed.purpose)?;
        Ok(GO_ON)
    }

    fn finish(&self) -> Result<u8> {
        let buffer = load_buffer(self.store)?;
        if self.args.now {
            self.leave();
            return Ok(GO_ON);
        }
        if !buffer.is_empty() {
            return Ok(CHANGED);
        }
        self.locked.shrink(Content::buffer(b""))?;
        self.locked.shrink(Content::script(b""))?;
        self.report(&[Row::End { at: boottime_ns() }]);
        self.leave();
        Ok(GO_ON)
    }

    fn leave(&self) {
        if let Some(pid) = self.args.pid {
            runners::leave(&self.locked, Pid::from_raw(pid));
        }
    }

    /// Takes the entry that has run out of the buffer, and out of it alone: the script is executed
    /// by line, and compared with the buffer when it starts the next time.
    fn strike_entry(&self) -> Result<Buffer> {
        let mut buffer = load_buffer(self.store)?;
        if let Some(entry) = self.args.id.as_ref().and_then(|id| buffer.remove(id)) {
            self.locked.shrink(Content::buffer(&buffer.render()))?;
            self.report(&[self.ran(&entry)]);
        }
        Ok(buffer)
    }

    fn ran(&self, entry: &Entry) -> Row {
        let id = entry.id.to_string();
        Row::Ran { at: boottime_ns(), id, status: self.args.status, text: entry.first_line() }
    }

    fn script_name(&self) -> &str {
        let path = self.args.script.as_deref();
        path.and_then(|p| p.file_name()?.to_str()).unwrap_or(SCRIPT)
    }

    fn load(&self) -> Result<Option<script::Parsed>> {
        Ok(self.store.read(self.script_name())?.as_deref().and_then(script::parse))
    }

    fn write(&self, buffer: &Buffer, snapshot: &Snapshot, purpose: &Purpose) -> Result<()> {
        let name = self.script_name();
        let bytes = script::render(buffer, snapshot, purpose, &places(self.store, name));
        self.locked.replace(&[Content { name, ..Content::script(&bytes) }])
    }

    /// A report that cannot be written is no reason to stop a cleanup.
    fn report(&self, rows: &[Row]) {
        if let Some(clpath) = self.caller.clpath().filter(|_| !self.args.now) {
            let _ = clpath.report().append(rows);
        }
    }
}
