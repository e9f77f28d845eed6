//! Buffer and snapshot, made into the final script `cleanup.sh`.
//!
//! The script is generated whole each time. It carries the snapshot's text at places its header
//! names, so that a change of the buffer alone needs no new snapshot and no third file. Pure: must
//! do no I/O.

use super::buffer::{Buffer, Entry, Id, fingerprint, push_number};
use super::snapshot::{Journal, Origin, Snapshot, untouchable_names};
use super::syntax::{quote, quote_into};
use std::collections::BTreeSet;
use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;

/// Makes a clean shell.
const HEAD: &[u8] = include_bytes!("../../shell/final-head.sh");
/// Runs the entries.
const RUN: &[u8] = include_bytes!("../../shell/final-run.sh");
/// What the header's second line starts with; `1` is the format's version.
const HEADER: &[u8] = b"#rl-cleanup: script=1 ";

/// Which entries a script runs, and what for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Purpose {
    /// All of them, at the end of the test.
    Final,
    /// Some of them, now (`rl-cleanup run`): no journal, and the exit status counts.
    Now(Vec<Id>),
}

/// The paths a script works with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Places {
    /// The state directory, absolute.
    pub dir: PathBuf,
    /// The script itself.
    pub script: PathBuf,
    /// The `rl-cleanup` binary.
    pub binary: PathBuf,
}

/// What can be read back from a script.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parsed {
    /// The snapshot it carries.
    pub snapshot: Snapshot,
    /// What it is for.
    pub purpose: Purpose,
}

impl Purpose {
    /// The entries of `buffer` that such a script runs, in order.
    #[must_use]
    pub fn select<'a>(&self, buffer: &'a Buffer) -> Vec<&'a Entry> {
        let Self::Now(ids) = self else { return buffer.entries().iter().collect() };
        // All of thousands may be chosen.
        let wanted: BTreeSet<&Id> = ids.iter().collect();
        buffer.entries().iter().filter(|e| wanted.contains(&e.id)).collect()
    }
}

/// The final script's bytes.
///
/// # Examples
/// ```
/// use rl_cleanup::cleanup::buffer::Buffer;
/// use rl_cleanup::cleanup::script::{Places, Purpose, parse, render};
/// use rl_cleanup::cleanup::snapshot::Snapshot;
///
/// let snapshot = Snapshot::of_environment([("COLOUR".into(), "blue".into())].into_iter(), "/bin/bash".into());
/// let places =
///     Places { dir: "/x".into(), script: "/x/cleanup.sh".into(), binary: "/usr/bin/rl-cleanup".into() };
/// let script = render(&Buffer::parse(b"echo $COLOUR\n"), &snapshot, &Purpose::Final, &places);
/// assert!(script.starts_with(b"#!/bin/bash\n"));
///
/// // The next change of the buffer finds the snapshot in the script.
/// assert_eq!(parse(&script).unwrap().snapshot, snapshot);
/// ```
#[must_use]
pub fn render(buffer: &Buffer, snapshot: &Snapshot, purpose: &Purpose, places: &Places) -> Vec<u8> {
    let entries = purpose.select(buffer);
    let texts: usize = entries.iter().map(|e| e.text.len() + 128).sum();
    let rest = snapshot.settings.len() + snapshot.options.len() + HEAD.len() + RUN.len();
    let mut out = Vec::with_capacity(texts + texts / 4 + rest + 8192);
    let between = [RUN, &render_places(buffer, snapshot, purpose, places)].concat();
    render_header(snapshot, purpose, between.len(), &mut out);
    push(&mut out, &[&snapshot.settings, &between]);
    // Counted in lines, since that is how bash alone can take the script apart again.
    let head_lines = lines(&out) + 1 + lines(&snapshot.options) + 2;
    push(&mut out, &[OPTIONS_MARK, head_lines.to_string().as_bytes(), b"\n"]);
    push(&mut out, &[&snapshot.options]);
    push(&mut out, &[b"\\__rlcx_begin \"$@\"\n\\builtin set --\n"]);
    let mut line = head_lines;
    for (n, entry) in entries.iter().enumerate() {
        // Quoting adds no line.
        line += 3 + lines(&entry.text);
        let next = entries.get(n + 1).map_or(&b"''"[..], |e| e.id.as_bytes());
        push(&mut out, &[b"\\__rlcx_entry ", entry.id.as_bytes(), b" ", next, b" "]);
        push_number(line as u64, &mut out);
        push(&mut out, &[b"\n\\builtin eval -- "]);
        quote_into(&entry.text, &mut out);
        push(&mut out, &[b"\n\\__rlcx_end \"$?\"\n"]);
    }
    push(&mut out, &[b"\\__rlcx_traps\n\\builtin eval -- \"$__rlcx_keep_trap\"\n\\__rlcx_close\n"]);
    out
}

/// Reads a script back; `None` if it is not one of ours, or carries no snapshot.
#[must_use]
pub fn parse(bytes: &[u8]) -> Option<Parsed> {
    let rest = bytes.strip_prefix(b"#!")?;
    let (interpreter, rest) = split_line(rest)?;
    let (header, body) = split_line(rest)?;
    let fields = std::str::from_utf8(header.strip_prefix(HEADER)?).ok()?;
    let field = |key: &str| fields.split(' ').find_map(|f| f.strip_prefix(key)?.strip_prefix('='));
    let number = |key: &str| field(key)?.parse::<usize>().ok();
    let body = body.get(number("skip")?..)?;
    let settings = body.get(..number("settings")?)?;
    let length = number("options")?;
    // Counted and not looked for: settings and paths may hold any text.
    let behind = body[settings.len()..].get(number("between")?..)?.strip_prefix(OPTIONS_MARK)?;
    let (_, behind) = split_line(behind)?;
    let purpose = match field("only") {
        None => Purpose::Final,
        Some(ids) => Purpose::Now(ids.split(',').filter_map(|id| id.parse().ok()).collect()),
    };
    let snapshot = Snapshot {
        origin: if field("origin")? == "shell" { Origin::Shell } else { Origin::Environment },
        interpreter: OsString::from_vec(interpreter.to_vec()).into(),
        journal: if field("journal")? == "kept" { Journal::Kept } else { Journal::Absent },
        settings: settings.to_vec(),
        options: behind.get(..length)?.to_vec(),
    };
    Some(Parsed { snapshot, purpose })
}

/// What stands in front of the options, on a line whose rest is a number.
const OPTIONS_MARK: &[u8] = b"__rlcx_head_lines=";

/// `between` is the length of what stands between settings and options.
fn render_header(snapshot: &Snapshot, purpose: &Purpose, between: usize, out: &mut Vec<u8>) {
    let origin = match snapshot.origin {
        Origin::Shell => "shell",
        Origin::Environment => "environment",
    };
    let journal = match snapshot.journal {
        Journal::Kept => "kept",
        Journal::Absent => "absent",
    };
    let only = match purpose {
        Purpose::Final => String::new(),
        Purpose::Now(ids) => {
            format!(" only={}", ids.iter().map(Id::as_str).collect::<Vec<_>>().join(","))
        }
    };
    let prologue = [format!("__rlcx_untouchable='{}'\n", untouchable_names()).as_bytes(), HEAD].concat();
    push(out, &[b"#!", snapshot.interpreter.as_os_str().as_bytes(), b"\n", HEADER]);
    let (skip, settings, options) = (prologue.len(), snapshot.settings.len(), snapshot.options.len());
    let header = format!(
        "origin={origin} journal={journal} skip={skip} settings={settings} between={between} \
         options={options}{only}\n"
    );
    push(out, &[header.as_bytes(), &prologue]);
}

fn render_places(buffer: &Buffer, snapshot: &Snapshot, purpose: &Purpose, places: &Places) -> Vec<u8> {
    let mut out = Vec::new();
    for (name, value) in [
        ("bash", snapshot.interpreter.as_os_str().as_bytes()),
        ("dir", places.dir.as_os_str().as_bytes()),
        ("self", places.script.as_os_str().as_bytes()),
        ("bin", places.binary.as_os_str().as_bytes()),
        ("fingerprint", fingerprint(&purpose.select(buffer)).to_string().as_bytes()),
        ("journal", if snapshot.journal == Journal::Kept && *purpose == Purpose::Final { b"1" } else { b"" }),
        ("counts", if *purpose == Purpose::Final { b"" } else { b"1" }),
    ] {
        push(&mut out, &[b"__rlcx_", name.as_bytes(), b"=", &quote(value), b"\n"]);
    }
    push(&mut out, &[b"__INTERNAL_CLEANUP_FROM_JOURNALEND=1\n"]);
    out
}

fn push(out: &mut Vec<u8>, parts: &[&[u8]]) {
    for part in parts {
        out.extend_from_slice(part);
    }
}

fn lines(bytes: &[u8]) -> usize {
    bytes.iter().filter(|&&b| b == b'\n').count()
}

fn split_line(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = bytes.iter().position(|&b| b == b'\n')?;
    Some((&bytes[..end], &bytes[end + 1..]))
}

#[cfg(test)]
mod tests {
    use super::super::buffer::{Mark, Place};
    use super::*;

    fn buffer(texts: &[&[u8]]) -> Buffer {
        let mut buffer = Buffer::default();
        for (n, text) in texts.iter().enumerate() {
            let id = Id::from_number(n as u64);
            buffer
                .add(Entry { id, time: None, mark: Mark::Unset, cwd: None, text: text.to_vec() }, Place::End);
        }
        buffer
    }

    fn snapshot() -> Snapshot {
        Snapshot {
            origin: Origin::Shell,
            interpreter: "/bin/bash".into(),
            journal: Journal::Kept,
            settings: b"declare -- a=\"\n__rlcx_head_lines=1\n\"\n".to_vec(),
            options: b"\\builtin set +o posix\n".to_vec(),
        }
    }

    fn places() -> Places {
        Places { dir: "/d'x".into(), script: "/d'x/cleanup.sh".into(), binary: "/b".into() }
    }

    #[test]
    fn the_snapshot_can_be_read_back() {
        for purpose in [Purpose::Final, Purpose::Now(vec![Id::from_number(1), Id::from_number(0)])] {
            let bytes = render(&buffer(&[b"one", b"two"]), &snapshot(), &purpose, &places());
            assert_eq!(parse(&bytes), Some(Parsed { snapshot: snapshot(), purpose }));
        }
        let odd = Places { dir: "/d\n__rlcx_head_lines=1\n".into(), ..places() };
        let bytes = render(&buffer(&[b"one"]), &snapshot(), &Purpose::Final, &odd);
        assert_eq!(parse(&bytes).unwrap().snapshot, snapshot(), "a path that looks like our own line");
        for other in [&b""[..], b"#!/bin/bash\necho\n", b"#!/bin/bash\n#rl-cleanup: script=1 skip=9\n"] {
            assert_eq!(parse(other), None);
        }
    }

    #[test]
    fn each_entry_knows_the_line_behind_it() {
        let bytes = render(&buffer(&[b"a\nb'\n", b"c"]), &snapshot(), &Purpose::Final, &places());
        let text = String::from_utf8(bytes).unwrap();
        let all: Vec<&str> = text.lines().collect();
        let behind: Vec<usize> = all
            .iter()
            .filter(|l| l.starts_with("\\__rlcx_entry "))
            .map(|l| l.rsplit(' ').next().unwrap().parse().unwrap())
            .collect();
        assert!(all[behind[0]].starts_with("\\__rlcx_entry "), "{}", all[behind[0]]);
        assert_eq!(all[behind[1]], "\\__rlcx_traps");
        let head: usize =
            text.rsplit("__rlcx_head_lines=").next().unwrap().lines().next().unwrap().parse().unwrap();
        assert_eq!(all[head - 1], "\\builtin set --");
    }
}
