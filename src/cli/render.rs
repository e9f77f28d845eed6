//! What `list`, `status` and `rehook` print, as text and as JSON.

use super::caller::{Caller, Hook, WillRun, load_buffer};
use super::print;
use crate::cleanup::buffer::{Buffer, Entry, Mark};
use crate::cleanup::store::{IfMissing, Store};
use crate::error::{Error, Result, Status};
use crate::hook::boottime_ns;
use crate::registry::{self, Watcher};
use serde_json::{Value, json};
use std::io::IsTerminal;
use std::path::Path;

/// One sentence about what `rehook` has found and done.
pub(super) fn rehooked(store: &Store, buffer: &Buffer, hook: &Hook) -> String {
    let dir = store.path().display();
    let found = match buffer.entries().len() {
        0 => format!("no entries in '{dir}'"),
        1 => format!("1 entry in '{dir}'"),
        n => format!("{n} entries in '{dir}'"),
    };
    match hook {
        Hook::Ours => format!("{found}; the watcher will run its final script"),
        Hook::NoWatcher => format!("{found}; there is no watcher to hook it to"),
        Hook::Theirs(script) => {
            format!("{found}; not hooked: the watcher has '{}', which has entries", script.display())
        }
    }
}

/// The entries in the order they will run.
pub(super) fn list(buffer: &Buffer, as_json: bool, now: u64) -> Result<()> {
    if as_json {
        let entries: Vec<Value> = buffer.entries().iter().map(|e| entry_json(e, now)).collect();
        return print_json(&Value::Array(entries));
    }
    let width = terminal_width();
    let colour = width.is_some() && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty());
    let rows: Vec<Row> = buffer.entries().iter().map(|e| Row::of(e, now)).collect();
    let age = rows.iter().map(|r| r.age.len()).max().unwrap_or(0);
    let mut out = String::new();
    for row in &rows {
        out.push_str(&row.render(age, width, colour));
    }
    print(out.as_bytes())
}

struct Row {
    id: String,
    age: String,
    mark: char,
    text: String,
}

impl Row {
    fn of(entry: &Entry, now: u64) -> Self {
        let more = if entry.text.trim_ascii().contains(&b'\n') { " …" } else { "" };
        Self {
            id: entry.id.to_string(),
            age: entry.time.map_or("?".into(), |t| age(now.saturating_sub(t))),
            mark: if entry.mark == Mark::Set { '*' } else { ' ' },
            text: format!("{}{more}", entry.first_line()),
        }
    }

    /// `abcdef  12m * umount /mnt`. Control characters are gone already, so nothing in an entry can
    /// speak to the terminal.
    fn render(&self, age_width: usize, width: Option<usize>, colour: bool) -> String {
        let fixed = self.id.len() + 1 + age_width + 1 + 2;
        let text: String = match width.map(|w| w.saturating_sub(fixed)) {
            Some(room) if self.text.chars().count() > room => {
                self.text.chars().take(room.saturating_sub(1)).chain(['…']).collect()
            }
            _ => self.text.clone(),
        };
        let (bright, dim, plain) = if colour { ("\x1b[33m", "\x1b[2m", "\x1b[0m") } else { ("", "", "") };
        let Self { id, age, mark, .. } = self;
        let line = format!("{bright}{id}{plain} {dim}{age:>age_width$}{plain} {mark} {text}");
        format!("{}\n", line.trim_end())
    }
}

/// The terminal's width; `None` where standard output is none.
fn terminal_width() -> Option<usize> {
    let out = std::io::stdout();
    if !out.is_terminal() {
        return None;
    }
    let columns = rustix::termios::tcgetwinsize(&out).map_or(0, |size| usize::from(size.ws_col));
    Some(if columns == 0 { 80 } else { columns })
}

/// `45s`, `12m`, `3h`, `2d`.
fn age(seconds: u64) -> String {
    match seconds {
        0..=99 => format!("{seconds}s"),
        100..=5999 => format!("{}m", seconds / 60),
        6000..=172_799 => format!("{}h", seconds / 3600),
        _ => format!("{}d", seconds / 86_400),
    }
}

/// The documented shape of one entry. Bytes that are not UTF-8 are replaced.
fn entry_json(entry: &Entry, now: u64) -> Value {
    json!({
        "id": entry.id.as_str(),
        "time": entry.time,
        "age": entry.time.map(|t| now.saturating_sub(t)),
        "cwd": entry.cwd.as_deref().map(String::from_utf8_lossy),
        "mark": entry.mark == Mark::Set,
        "text": String::from_utf8_lossy(&entry.text),
    })
}

/// State directory, entries, hook and live watchers.
pub(super) fn status(caller: &Caller, as_json: bool) -> Result<()> {
    let opened = caller.open(IfMissing::Fail);
    let store = match &opened {
        Ok(store) => Some(store),
        // No directory is an answer here, not a failure.
        Err(error) if error.status() == Status::Absent => None,
        Err(_) => return opened.map(|_| ()),
    };
    let entries = store.map(load_buffer).transpose()?.map(|b| b.entries().len());
    let will_run = caller.will_run(store.map(Store::script_path).as_deref());
    registry::sweep();
    let watchers = registry::live();
    if as_json {
        let watchers: Vec<Value> = watchers.iter().map(watcher_json).collect();
        return print_json(&json!({
            "directory": store.map(|s| s.path().to_string_lossy()),
            "entries": entries,
            "hooked": will_run == WillRun::Ours,
            "watchers": watchers,
        }));
    }
    let mut out = String::new();
    let mut line = |key: &str, value: &str| out.push_str(&format!("{key:<12} {value}\n"));
    line("directory:", &store.map_or("none".into(), |s| s.path().display().to_string()));
    line("entries:", &entries.map_or("none".into(), |n| n.to_string()));
    line("hooked:", &hooked_text(&will_run));
    if watchers.is_empty() {
        line("watchers:", "none");
    }
    for watcher in &watchers {
        line("watcher:", &watcher_text(watcher));
    }
    print(out.as_bytes())
}

fn hooked_text(will_run: &WillRun) -> String {
    match will_run {
        WillRun::Ours => "yes".into(),
        WillRun::Theirs(script) => format!("no, the watcher has '{}'", script.display()),
        WillRun::Nothing => "no".into(),
        WillRun::NoWatcher => "no watcher here".into(),
    }
}

fn watcher_text(watcher: &Watcher) -> String {
    let left = |deadline: Option<u64>| {
        deadline.map_or("no deadline".into(), |d| {
            format!("{} left", age(d.saturating_sub(boottime_ns()) / 1_000_000_000))
        })
    };
    let harness = if watcher.harness.is_empty() { "none" } else { &watcher.harness };
    format!(
        "process {}, {}, test {}, cleanup {}, harness {harness}, {}",
        watcher.pid,
        watcher.phase,
        left(watcher.test_deadline),
        left(watcher.cleanup_deadline),
        watcher.clpath.path().display()
    )
}

fn watcher_json(watcher: &Watcher) -> Value {
    let left = |deadline: Option<u64>| deadline.map(|d| d.saturating_sub(boottime_ns()) / 1_000_000_000);
    json!({
        "pid": watcher.pid.as_raw(),
        "phase": watcher.phase,
        "clpath": path_text(watcher.clpath.path()),
        "test": watcher.test.map(nix::unistd::Pid::as_raw),
        "test_seconds_left": left(watcher.test_deadline),
        "cleanup_seconds_left": left(watcher.cleanup_deadline),
        "harness": watcher.harness,
        "task": watcher.task,
    })
}

fn path_text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

fn print_json(value: &Value) -> Result<()> {
    let text = serde_json::to_string_pretty(value)
        .map_err(|e| Error::new(Status::Failed, format!("cannot write JSON: {e}")))?;
    print(format!("{text}\n").as_bytes())
}
