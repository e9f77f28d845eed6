//! Promise: whatever stands in a file that is read, or comes through a pipe, costs bounded memory and
//! time, ends in a sentence, and loses nothing; and what was written is what is read.
//!
//! `fuzz/` looks for what nobody thought of; here stands what somebody did.
#![allow(clippy::unwrap_used, reason = "a test that panics has failed")]

mod common;
#[path = "common/torture.rs"]
mod torture;

use common::{BINARY, State, os};
use nix::sys::resource::{UsageWho, getrusage};
use nix::time::{ClockId, clock_gettime};
use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestError, TestRng, TestRunner};
use rl_cleanup::bounds;
use rl_cleanup::cleanup::buffer::{Buffer, Entry, Id, Mark, Place};
use rl_cleanup::cleanup::script::{self, Places, Purpose};
use rl_cleanup::cleanup::snapshot::{Journal, Origin, Snapshot, Stream};
use rl_cleanup::cleanup::syntax::{self, Value};
use rl_cleanup::harness::{duration, tmt};
use rl_cleanup::hook::{ClPath, Hooked, Row};
use rl_cleanup::registry::Watcher;
use rl_cleanup::watch::Word;
use rl_cleanup::watch::machine::{Exit, Outcome};
use rl_cleanup::watch::options::Duration as Given;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::Read;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use torture::{Part, scale, seed};

const GIB: u64 = 1 << 30;
/// What a process may map: its bound twice (a growing vector doubles), and itself.
const MEMORY_KIB: u64 = 256 << 10;
/// Much less where a file says itself that it is too large.
const LITTLE_KIB: u64 = 96 << 10;
/// A machine may be as busy as it likes.
const DEADLINE: Duration = Duration::from_secs(120);

/// Does its share and counts it.
type Piece = fn(&Part);
/// Parses, and says nothing.
type Parser = fn(&[u8]);

// ---------------------------------------------------------------- round trips

/// Tries a property with as many values as this run is to have.
fn property<S: Strategy>(part: &Part, name: &str, values: S, holds: impl Fn(S::Value) -> bool) {
    let cases = u32::try_from(scale(200, 4000)).unwrap();
    let config = Config { cases, failure_persistence: None, ..Config::default() };
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed(6).to_le_bytes());
    let mut runner = TestRunner::new_with_rng(config, TestRng::from_seed(RngAlgorithm::ChaCha, &bytes));
    let outcome = runner.run(&values, |value| {
        part.tried();
        prop_assert!(holds(value));
        Ok(())
    });
    match outcome {
        Ok(()) => {}
        Err(TestError::Fail(why, value)) => part.lost(format!("{name}: {value:?}: {why}")),
        Err(TestError::Abort(why)) => part.lost(format!("{name}: {why}")),
    }
}

fn bytes(most: usize) -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(any::<u8>(), 0..most)
}

/// Bytes that look like what the parsers look for.
fn lookalike(most: usize) -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        bytes(6),
        Just(b"#rl-cleanup: id=aaaaaa bytes=3".to_vec()),
        Just(b"\n".to_vec()),
        Just(b"rl-cleanup-stream-2".to_vec()),
        Just(b"__rlcx_head_lines=4\n".to_vec()),
        Just(b"clpath=".to_vec()),
        Just(b"declare -ax a=([0]=\"".to_vec()),
        Just(b"f () \n{ \n    :\n}\n".to_vec()),
    ];
    prop::collection::vec(piece, 0..most).prop_map(|pieces| pieces.concat())
}

fn without(byte: u8, values: impl Strategy<Value = Vec<u8>>) -> impl Strategy<Value = Vec<u8>> {
    values.prop_map(move |v| v.into_iter().filter(|b| *b != byte).collect())
}

fn entry(number: u64, text: &[u8]) -> Entry {
    let mark = if number.is_multiple_of(3) { Mark::Set } else { Mark::Unset };
    let cwd = (!number.is_multiple_of(4)).then(|| text.to_vec());
    Entry { id: Id::from_number(number), time: Some(number), mark, cwd, text: text.to_vec() }
}

fn buffer_of(entries: &[(u64, Vec<u8>)]) -> Buffer {
    let mut buffer = Buffer::default();
    for (number, text) in entries {
        let place = if number % 2 == 0 { Place::Front } else { Place::End };
        buffer.add(entry(*number, text), place);
    }
    buffer
}

fn entries() -> impl Strategy<Value = Vec<(u64, Vec<u8>)>> {
    // Few numbers: the same id comes twice.
    prop::collection::vec((0_u64..12, lookalike(6)), 0..8)
}

fn buffers(part: &Part) {
    property(part, "a buffer survives its file", entries(), |entries| {
        let buffer = buffer_of(&entries);
        Buffer::parse(&buffer.render()) == buffer
    });
    property(part, "taking entries away leaves the others", (entries(), any::<u64>()), |(entries, taken)| {
        let mut buffer = buffer_of(&entries);
        let mut left = buffer.entries().to_vec();
        left.retain(|e| e.text.len() as u64 % 3 != taken % 3);
        for id in buffer.entries().iter().map(|e| e.id.clone()).collect::<Vec<_>>() {
            if !left.iter().any(|e| e.id == id) {
                buffer.remove(&id);
            }
        }
        buffer.entries() == left && Buffer::parse(&buffer.render()) == buffer
    });
    // What BeakerLib's own functions add in front and behind.
    let foreign = "[a-z $\"]{1,20}\n";
    property(
        part,
        "foreign text is kept in its place",
        (foreign, entries(), foreign),
        |(front, ours, end)| {
            let buffer = buffer_of(&ours);
            let file = [front.as_bytes(), &buffer.render(), end.as_bytes()].concat();
            let read = Buffer::parse(&file);
            let texts = || read.entries().iter().map(|e| &e.text[..]);
            let blank = |text: &str| text.trim().is_empty();
            let mut want: Vec<&[u8]> = buffer.entries().iter().map(|e| &e.text[..]).collect();
            let (first, last) = (front.trim_end_matches('\n'), end.trim_end_matches('\n'));
            if want.is_empty() {
                return texts().map(<[u8]>::len).sum::<usize>() > 0 || blank(&front) && blank(&end);
            }
            if !blank(&front) {
                want.insert(0, first.as_bytes());
            }
            if !blank(&end) {
                want.push(last.as_bytes());
            }
            texts().eq(want)
        },
    );
}

fn snapshots(part: &Part) {
    let sections = prop::collection::vec(without(0, lookalike(8)), 8);
    property(part, "a stream cut short is none", (sections, any::<usize>()), |(sections, cut)| {
        let whole = [b"\0rl-cleanup-stream-2\0", &sections.join(&0)[..], b"\0end\0"].concat();
        // A section that ends like the stream's first one hides what stands in front of it.
        let hidden = sections.iter().any(|s| s.ends_with(b"rl-cleanup-stream-2"));
        let cut = &whole[..cut % whole.len()];
        let found = Stream::parse(&whole);
        (hidden || found.is_some_and(|s| s.text == sections[0])) && Stream::parse(cut).is_none()
    });
    let paths = (without(0, lookalike(4)), without(0, lookalike(4)));
    property(
        part,
        "a snapshot survives the final script",
        (lookalike(8), lookalike(8), entries(), paths, any::<bool>()),
        |(settings, options, entries, (dir, binary), flag)| {
            let (origin, journal) = match flag {
                true => (Origin::Shell, Journal::Kept),
                false => (Origin::Environment, Journal::Absent),
            };
            let snapshot = Snapshot { origin, interpreter: "/bin/bash".into(), journal, settings, options };
            let path = |bytes: &Vec<u8>| PathBuf::from(OsString::from_vec(bytes.clone()));
            let places = Places { dir: path(&dir), script: path(&dir), binary: path(&binary) };
            let buffer = buffer_of(&entries);
            let purpose = match flag {
                true => Purpose::Final,
                false => Purpose::Now(buffer.entries().iter().map(|e| e.id.clone()).collect()),
            };
            let text = script::render(&buffer, &snapshot, &purpose, &places);
            script::parse(&text) == Some(script::Parsed { snapshot, purpose })
        },
    );
    property(part, "our quotes are read back", without(0, lookalike(8)), |text| {
        text.first() == Some(&b'(') || Value::parse(&syntax::quote(&text)) == Some(Value::Scalar(text))
    });
}

fn small_files(part: &Part) {
    let names = ("(?s).{0,12}", "(?s).{0,12}", "(?s).{0,12}");
    property(
        part,
        "a watcher survives its file",
        (1..i32::MAX, any::<u64>(), names, lookalike(5), any::<Option<u64>>()),
        |(pid, start, (phase, harness, task), path, deadline)| {
            let watcher = Watcher {
                pid: nix::unistd::Pid::from_raw(pid),
                start,
                clpath: ClPath::new(OsString::from_vec(path)),
                phase,
                test: (start % 2 == 0).then(|| nix::unistd::Pid::from_raw(pid)),
                test_deadline: deadline,
                cleanup_deadline: deadline.map(|d| d / 2),
                harness,
                task,
            };
            Watcher::parse(&watcher.render()) == Some(watcher)
        },
    );
    property(
        part,
        "a row survives the report",
        (any::<u64>(), "(?s).{0,200}", any::<u8>()),
        |(at, text, n)| {
            let id = Id::from_number(at).to_string();
            let kept: String = text
                .chars()
                .take(bounds::ROW_TEXT)
                .map(|c| if matches!(c, '\n' | '\r' | '\t') { ' ' } else { c })
                .collect();
            let ran = |text: String| Row::Ran { at, id: id.clone(), status: n, text };
            let plan = |text: String| Row::Plan { id: id.clone(), text };
            Row::parse(ran(text.clone()).render().trim_end_matches('\n')) == Some(ran(kept.clone()))
                && Row::parse(plan(text.clone()).render().trim_end_matches('\n')) == Some(plan(kept))
        },
    );
    property(part, "a word survives the line to the guard", (any::<u64>(), 1..i32::MAX), |(n, pid)| {
        let pid = nix::unistd::Pid::from_raw(pid);
        let outcome = Outcome::Ended(Exit::Code(n.to_le_bytes()[0]));
        [
            Word::Test(pid),
            Word::Cleanup(pid),
            Word::Killing(outcome),
            Word::Tested(outcome),
            Word::Copied(n, n / 2),
            Word::Sweep,
        ]
        .into_iter()
        .all(|word| Word::parse(word.render().trim_end_matches('\n')) == Some(word))
    });
    property(part, "a path survives the CLPATH file", "/[^\n\r\t \u{b}\u{c}]{0,80}", |path| {
        Hooked::parse(format!("{path}\nmore\n").as_bytes()) == Some(Hooked::Script(path.into()))
    });
    property(part, "a CLPATH file of any bytes is a path or nothing", lookalike(8), |text| {
        let first = text.split(|&b| b == b'\n').next().unwrap_or_default().trim_ascii();
        match Hooked::parse(&text) {
            Some(Hooked::Script(path)) => !first.is_empty() && path.as_os_str().len() >= first.len(),
            Some(Hooked::Nothing) => first.is_empty(),
            None => false,
        }
    });
}

fn durations(part: &Part) {
    let times = prop::collection::vec((0_u64..5000, 0_usize..5), 1..5);
    property(part, "a duration is the sum of its parts", times, |times| {
        let units = [("s", 1), ("m", 60), ("h", 3600), ("d", 86_400), ("", 1)];
        let words: Vec<String> = times.iter().map(|(n, u)| format!("{n}{}", units[*u].0)).collect();
        let text = words.join(" ");
        let sum: u64 = times.iter().map(|(n, u)| n * units[*u].1).sum();
        // Nothing at all is the default to tmt, and a mistake to us.
        let tmts = if sum == 0 { 300 } else { sum };
        text.parse::<Given>().ok().map(Given::as_secs) == Some(sum).filter(|s| *s > 0)
            && duration::parse(&text) == Some(tmts)
            && duration::parse(&format!("{text} *2")) == Some(2 * tmts)
    });
    property(part, "any text is a duration or not", "[ 0-9smhd*.\u{2003}x-]{0,20}", |text| {
        let ours = text.parse::<Given>().ok().map(Given::as_secs);
        let tmts = duration::parse(&text);
        ours.is_none() || tmts.is_none() || ours == tmts
    });
    let before =
        prop::collection::vec("[a-c]: (1|'x y'|\\[a, \\{duration: 9h\\}\\]|\\{duration: 8h\\})", 0..4);
    property(part, "only the outermost duration counts", (before.clone(), before), |(front, behind)| {
        let number = |lines: &[String], tag: &str| -> String {
            lines.iter().enumerate().map(|(n, l)| format!("{tag}{n}{l}\n")).collect()
        };
        let (front, behind) = (number(&front, "f"), number(&behind, "b"));
        let with = format!("{front}duration: 1h 5m\n{behind}");
        tmt::top_level(&with, "duration").as_deref() == Some("1h 5m")
            && tmt::top_level(&format!("{front}{behind}x: 1\n"), "duration").is_none()
    });
}

// ---------------------------------------------------------------- time

fn cpu() -> Duration {
    Duration::from(clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).unwrap())
}

/// No text may keep a parser busy: what grows with the square would take minutes here, and hours where it
/// is as large as it may be. Processor time, as the machine may be busy, and an unoptimised build.
fn linear(part: &Part) {
    let size = usize::try_from(scale(1 << 17, 1 << 20)).unwrap();
    let full = |piece: &[u8]| piece.repeat(size / piece.len());
    let texts: Vec<Vec<u8>> = [
        &b"#rl-cleanup: id=aaaaaa bytes=0\n\n"[..],
        b"#rl-cleanup: id=aaaaaa bytes=99999999\n",
        b"#rl-cleanup: ",
        b"#rl-cleanup: id=aaaaaa bytes=0 ",
        b"\n",
        b"r",
        b"rl-cleanup-stream-",
        b"rl-cleanup-stream-2\0",
        b"\0",
        b"declare -ax a=([0]=\"x\" )\n",
        b"declare -- a=\"",
        b"([0]=",
        b"$'",
        b"\\",
        b"'",
        b"f () \n",
        b"declare -fx f\n",
        b"alias a='",
        b"[",
        b"{",
        b"a: ",
        b"- ",
        b"? ",
        b"&a ",
        b"!a ",
        b"a: {b: ",
        b"'a' : ",
        b"\"\\x61",
        b"duration: 1\n",
        b"  ",
        b"1h ",
        b"*1",
        b"plan\taaaaaa\tx\n",
    ]
    .into_iter()
    .map(full)
    .collect();
    let parsers: [(&str, Parser); 8] = [
        ("buffer", |t| drop(Buffer::parse(t).render())),
        ("stream", |t| drop((Stream::parse(t), Stream::parse_syntax(t)))),
        ("snapshot", |t| {
            for place in 4..7 {
                let mut sections = [&b""[..]; 8];
                let quiet: Vec<u8> = t.iter().copied().filter(|b| *b != 0).collect();
                sections[place + 1] = &quiet;
                let whole = [b"rl-cleanup-stream-2\0", &sections.join(&0)[..], b"\0end\0"].concat();
                drop(Stream::parse(&whole).map(|s| s.snapshot()));
            }
        }),
        ("syntax", |t| drop((syntax::commands(t).len(), syntax::is_plain(t), Value::parse(t)))),
        ("script", |t| drop(script::parse(t))),
        ("registry", |t| drop(Watcher::parse(&t[..t.len().min(bounds::REGISTRY as usize)]))),
        ("metadata", |t| {
            let cut = &t[..t.len().min(bounds::METADATA as usize)];
            drop(std::str::from_utf8(cut).map(|text| tmt::top_level(text, "duration")));
        }),
        ("duration", |t| {
            let text = String::from_utf8_lossy(t);
            drop((text.parse::<Given>(), duration::parse(&text)));
        }),
    ];
    for text in &texts {
        for (name, parse) in parsers {
            let before = cpu();
            parse(text);
            let took = cpu() - before;
            let shown = String::from_utf8_lossy(&text[..text.len().min(20)]).into_owned();
            let limit = Duration::from_secs(scale(5, 20));
            part.count(match took < limit {
                true => Ok(()),
                false => Err(format!("{name}: {size} bytes of {shown:?} took {took:?}")),
            });
        }
    }
}

// ---------------------------------------------------------------- whole programs

struct Ended {
    status: Option<i32>,
    err: String,
}

/// Runs a command under a bound of memory, with a deadline.
fn run(command: &mut Command, kib: u64, input: Option<&Path>) -> Result<Ended, String> {
    let mut bounded = Command::new("bash");
    bounded.args(["-c", &format!("ulimit -v {kib} && exec \"$@\""), "-"]);
    bounded.arg(command.get_program()).args(command.get_args()).env_clear();
    bounded.envs(command.get_envs().filter_map(|(n, v)| Some((n, v?))));
    if let Some(dir) = command.get_current_dir() {
        bounded.current_dir(dir);
    }
    let input = input.map_or(Stdio::null(), |path| File::open(path).unwrap().into());
    let mut child = bounded
        .stdin(input)
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|e| e.to_string())?;
    let start = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        if start.elapsed() > DEADLINE {
            let _ = child.kill();
            let _ = child.wait();
            return Err(format!("hangs: {command:?}"));
        }
        std::thread::sleep(Duration::from_millis(2));
    };
    let mut err = Vec::new();
    child.stderr.take().unwrap().take(1 << 20).read_to_end(&mut err).unwrap();
    Ok(Ended { status: status.code(), err: String::from_utf8_lossy(&err).into_owned() })
}

/// It ends with this status and one sentence that says this.
fn says(ended: Result<Ended, String>, status: i32, what: &str) -> Result<(), String> {
    let Ended { status: ended, err } = ended?;
    let one = err.lines().count() == 1 && err.len() < 1000;
    match ended == Some(status) && one && err.contains(what) {
        true => Ok(()),
        false => Err(format!("wanted {status} and one line with {what:?}, got {ended:?} and {err:?}")),
    }
}

/// A file without content that has this length all the same.
fn sparse(path: &Path, length: u64) {
    File::create(path).unwrap().set_len(length).unwrap();
    fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
}

fn fifo(path: &Path) {
    nix::unistd::mkfifo(path, nix::sys::stat::Mode::S_IRWXU).unwrap();
}

const CHANGES: [&[&str]; 8] = [
    &["append", "true"],
    &["prepend", "true"],
    &["list"],
    &["remove", "aaaaaa"],
    &["clear"],
    &["run"],
    &["rehook"],
    &["status"],
];

fn huge_files(part: &Part) {
    let state = State::new();
    state.append("echo kept");
    let (buffer, final_script) = (state.dir.join("clbuff"), state.script());
    let kept = [fs::read(&buffer).unwrap(), fs::read(&final_script).unwrap()];
    for (file, name, limit) in [(&buffer, "clbuff", "64 MiB"), (&final_script, "cleanup.sh", "256 MiB")] {
        sparse(file, GIB);
        for args in CHANGES {
            if name == "cleanup.sh" && matches!(args[0], "list" | "status") {
                continue;
            }
            let ended = run(state.command(BINARY).args(args), LITTLE_KIB, None);
            let what = format!("{name}': it is larger than {limit}");
            // 'run' needs no script, and 'remove' finds no such entry before it needs one.
            let what = match (name, args[0]) {
                ("cleanup.sh", "remove") => "there is no entry",
                _ => &what,
            };
            part.count(says(ended, 1, what).map_err(|how| format!("{args:?} on a huge {name}: {how}")));
            let length = fs::metadata(file).unwrap().len();
            part.count((length == GIB).then_some(()).ok_or(format!("{args:?} has changed a huge {name}")));
        }
        let left = state.names();
        let expected = left == ["clbuff", "clbuff.lock", "cleanup.sh"];
        part.count(expected.then_some(()).ok_or(format!("left behind: {left:?}")));
        fs::write(&buffer, &kept[0]).unwrap();
        fs::write(&final_script, &kept[1]).unwrap();
        fs::set_permissions(&final_script, std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
    }
    part.count(match state.cleanup().out == "kept\n" {
        true => Ok(()),
        false => Err("the entry does not run any more".into()),
    });
}

/// Who cannot be read again is not written.
fn full_buffer(part: &Part) {
    let state = State::new();
    state.append("true");
    // One entry that fills the file but for a few bytes.
    let length = usize::try_from(bounds::BUFFER).unwrap() - 100;
    let full =
        [format!("#rl-cleanup: id=aaaaaa bytes={length}\n").as_bytes(), &b"#".repeat(length), b"\n"].concat();
    assert!(full.len() as u64 <= bounds::BUFFER);
    fs::write(state.dir.join("clbuff"), &full).unwrap();
    let ended = run(state.command(BINARY).args(["append", "true"]), 2 * MEMORY_KIB, None);
    part.count(says(ended, 1, "clbuff': it would be larger than 64 MiB"));
    let same = fs::read(state.dir.join("clbuff")).unwrap() == full;
    part.count(same.then_some(()).ok_or_else(|| "a refused append has changed the buffer".into()));
    let left = state.names();
    let clean = left == ["clbuff", "clbuff.lock", "cleanup.sh"];
    part.count(clean.then_some(()).ok_or(format!("left behind: {left:?}")));
}

/// What the bounds must leave room for.
fn large_but_meant(part: &Part) {
    let state = State::new();
    let mebi = format!(": '{}'\n", "x".repeat(1_000_000));
    let added = state.cli_with_input(["append", "-"], mebi.as_bytes());
    part.count(if added.status == Some(0) { Ok(()) } else { Err(format!("1 MB: {}", added.err)) });
    let mut buffer = Buffer::parse(&fs::read(state.dir.join("clbuff")).unwrap());
    for n in 0..10_000 {
        buffer.add(entry(n, format!("echo {n}").as_bytes()), Place::End);
    }
    fs::write(state.dir.join("clbuff"), buffer.render()).unwrap();
    let hooked = state.cli(["rehook"]);
    part.count(match hooked.status == Some(0) && hooked.out.starts_with("10001 entries") {
        true => Ok(()),
        false => Err(format!("10,000 entries: {hooked:?}")),
    });
}

/// A pipe without end.
fn endless_input(part: &Part) {
    let state = State::new();
    state.append("echo kept");
    let before = fs::read(state.dir.join("clbuff")).unwrap();
    let shells: [&[&str]; 4] =
        [&["append", "-"], &["append", "--shell"], &["prepend", "--shell"], &["run", "--shell"]];
    for args in shells {
        let mut command = state.command("bash");
        let line = format!("yes endless | '{BINARY}' {}; exit ${{PIPESTATUS[1]}}", args.join(" "));
        let ended = run(command.args(["-c", &line]), MEMORY_KIB, None);
        let outcome = says(ended, 1, "cannot read 'standard input': it is larger than 64 MiB");
        part.count(outcome.map_err(|how| format!("{args:?}: {how}")));
    }
    let ended = run(state.command(BINARY).args(["append", "-"]), MEMORY_KIB, Some(Path::new("/dev/zero")));
    part.count(says(ended, 1, "it is larger than 64 MiB"));
    let same = fs::read(state.dir.join("clbuff")).unwrap() == before;
    part.count(same.then_some(()).ok_or_else(|| "endless input has changed the buffer".into()));
}

fn odd_clpath(part: &Part) {
    let state = State::new();
    let (pipe, endless, dir) = (state.path("pipe"), state.path("endless"), state.path("directory"));
    fifo(&pipe);
    sparse(&endless, GIB);
    fs::create_dir(&dir).unwrap();
    let odd = [&pipe, &endless, &dir, Path::new("/dev/zero"), Path::new("/dev/null")];
    for (n, clpath) in odd.iter().enumerate() {
        let mut command = state.command(BINARY);
        command.args(["append", &format!("echo {n}")]).env("TESTWATCHER_CLPATH", clpath);
        // Acknowledged, it would be an entry that no watcher ever runs.
        let outcome = says(run(&mut command, LITTLE_KIB, None), 4, "will not trust");
        part.count(outcome.map_err(|how| format!("{}: {how}", clpath.display())));
    }
    let unchanged = !state.dir.join("clbuff").exists();
    part.count(unchanged.then_some(()).ok_or_else(|| "what was refused is in the buffer".into()));
    use std::os::unix::fs::FileTypeExt;
    let device = fs::metadata("/dev/null").unwrap().file_type().is_char_device();
    part.count(device.then_some(()).ok_or_else(|| "/dev/null has been replaced".into()));
}

/// A watched test that leaves something odd in the place of a file of its watcher's.
fn odd_places(part: &Part) {
    let huge = "rm \"$TESTWATCHER_CLPATH\"; truncate -s 1G \"$TESTWATCHER_CLPATH\"";
    let pipe = "rm \"$TESTWATCHER_CLPATH\"; mkfifo \"$TESTWATCHER_CLPATH\"";
    let device = "ln -sf /dev/zero \"$TESTWATCHER_CLPATH\"";
    let nul = "printf '/a\\0b\\n' >\"$TESTWATCHER_CLPATH\"";
    // Written by the cleanup of a watched test: the watcher reads it at its end.
    let report = "printf '#!/bin/sh\\ntruncate -s 1G \"$TESTWATCHER_CLPATH.d/report\"\\n' >c.sh; chmod +x c.sh; \
                  echo $PWD/c.sh >\"$TESTWATCHER_CLPATH\"";
    for (what, test, status, sentence) in [
        ("a huge CLPATH", huge, 121, "its first line is longer than any path"),
        ("a FIFO as CLPATH", pipe, 121, "it is not a regular file"),
        ("a device as CLPATH", device, 121, "it is not a regular file"),
        ("a NUL in CLPATH", nul, 121, "/a"),
        ("a huge report", report, 0, "report': it is larger than 64 MiB"),
    ] {
        let state = State::new();
        let test = state.write("test.sh", test);
        let mut command = state.command(BINARY);
        command.args(["watch", "--", "bash"]).arg(test).env_remove("BEAKERLIB_DIR");
        let outcome = run(&mut command, MEMORY_KIB, None).and_then(|ended| {
            match ended.status == Some(status) && ended.err.contains(sentence) {
                true => Ok(()),
                false => Err(format!("{:?} {}", ended.status, ended.err)),
            }
        });
        part.count(outcome.map_err(|how| format!("{what}: {how}")));
    }
}

fn odd_metadata(part: &Part) {
    let state = State::new();
    let path = |name: &str| state.path(name);
    sparse(&path("huge"), GIB);
    fifo(&path("pipe"));
    state.write("endless", [b"duration: ", &b"9".repeat(1 << 20)[..]].concat());
    state.write("painted", "duration: \"\\e[2J\\a9\"\n");
    state.write("long", format!("duration: {}\n", "x".repeat(1 << 19)));
    for (name, sentence) in [
        ("huge", "huge': it is larger than 1 MiB: no time limit of tmt's is kept"),
        ("pipe", "pipe': it is not a regular file: no time limit"),
        ("/dev/zero", "/dev/zero': it is not a regular file: no time limit"),
        ("endless", "endless': it is larger than 1 MiB: no time limit"),
        ("painted", "tmt's duration '?[2J?9' is none"),
        ("long", "xxx…' is none"),
    ] {
        let mut command = state.command(BINARY);
        command.args(["watch", "--quiet", "--", "true"]).env_remove("BEAKERLIB_DIR");
        let file = if name.starts_with('/') { name.into() } else { path(name) };
        command.env("TMT_TEST_METADATA", file).env("TMT_TEST_PIDFILE", path("pipe"));
        let outcome = run(&mut command, MEMORY_KIB, None).and_then(|ended| {
            let told: Vec<&str> = ended.err.lines().filter(|l| l.contains(sentence)).collect();
            let short = ended.err.len() < 2000 && !ended.err.contains('\x1b');
            match ended.status == Some(0) && told.len() == 1 && short {
                true => Ok(()),
                false => Err(format!("{:?} {}", ended.status, &ended.err[..ended.err.len().min(2000)])),
            }
        });
        part.count(outcome.map_err(|how| format!("metadata {name}: {how}")));
    }
}

/// The registry of whoever runs this; root's is one for the whole machine, so he gets a `/run` of his own.
fn odd_registry(part: &Part) {
    let state = State::new();
    let root = common::is_root();
    let unshared = ["-m", "--propagation", "private", "mount", "-t", "tmpfs", "none", "/run"];
    let may = || Command::new("unshare").args(unshared).output().is_ok_and(|o| o.status.success());
    if root && !may() {
        return common::skipped("odd_registry", "no mount namespace can be had (unshare -m)");
    }
    let dir = if root { PathBuf::from("/run/rl-cleanup") } else { state.path("run/rl-cleanup") };
    let plant = format!(
        "mkdir -p -m 700 '{0}' && mkfifo '{0}/testwatcher-fifo00' && truncate -s 1G '{0}/testwatcher-huge00' &&
         ln -s /dev/zero '{0}/testwatcher-zero00' && mkdir '{0}/testwatcher-dir000' &&
         printf 'pid=1\\nstart=' >'{0}/testwatcher-torn00' && touch -h -d '-1 hour' '{0}'/*",
        dir.display()
    );
    for args in [&["status"][..], &["watch", "--quiet", "--", "true"], &["harness-hook", "x"]] {
        let line = format!("{plant} && exec '{BINARY}' {}", args.join(" "));
        let line = if root {
            format!("mount -t tmpfs none /run && {line}")
        } else {
            format!("rm -rf '{}'; {line}", dir.display())
        };
        let mut command = state.command(if root { "unshare" } else { "bash" });
        if root {
            command.args(["-m", "--propagation", "private", "bash"]);
        }
        command.args(["-c", &line]).env("XDG_RUNTIME_DIR", state.path("run"));
        command.env("RSTRNT_TASKID", "7").env_remove("BEAKERLIB_DIR");
        let outcome = run(&mut command, MEMORY_KIB, None).and_then(|ended| match ended.status {
            Some(0) => Ok(()),
            other => Err(format!("{other:?} {}", ended.err)),
        });
        part.count(outcome.map_err(|how| format!("{args:?} beside an odd registry: {how}")));
    }
}

/// A harness gives its hook whatever it likes.
fn hook_arguments(part: &Part) {
    let state = State::new();
    let mut dice = torture::Dice::new(seed(7));
    for _ in 0..scale(20, 500) {
        let words: Vec<Vec<u8>> = (0..dice.throw(4))
            .map(|_| (0..dice.throw(40)).map(|_| u8::try_from(dice.throw(255)).unwrap() + 1).collect())
            .collect();
        let mut hook = Command::new("bash");
        hook.env_clear().current_dir(state.root.path()).args(["-c", "exec -a \"$0\" \"$@\""]);
        match dice.throw(2) {
            0 => hook.args(["rl-cleanup-harness-hook", BINARY]),
            _ => hook.args([BINARY, BINARY, "harness-hook", "--"]),
        };
        hook.args(words.iter().map(|w| os(w)));
        let outcome = run(&mut hook, LITTLE_KIB, None).and_then(|ended| match ended.status {
            Some(0) if ended.err.is_empty() => Ok(()),
            other => Err(format!("{other:?} {}", ended.err)),
        });
        part.count(outcome.map_err(|how| format!("hook {words:?}: {how}")));
    }
}

#[test]
fn nothing_that_is_read_costs_more_than_it_may() {
    let part = Part::new("parsers");
    let pieces: [(&str, Piece); 14] = [
        ("buffers", buffers),
        ("snapshots", snapshots),
        ("small files", small_files),
        ("durations", durations),
        ("time", linear),
        ("huge files", huge_files),
        ("a full buffer", full_buffer),
        ("large entries", large_but_meant),
        ("endless input", endless_input),
        ("odd CLPATH files", odd_clpath),
        ("odd files of a watcher's", odd_places),
        ("odd metadata", odd_metadata),
        ("an odd registry", odd_registry),
        ("hook arguments", hook_arguments),
    ];
    for (name, piece) in pieces {
        let before = Instant::now();
        piece(&part);
        println!("torture: parsers: {name}: {:.1} s", before.elapsed().as_secs_f64());
    }
    let peak = getrusage(UsageWho::RUSAGE_CHILDREN).unwrap().max_rss();
    println!("torture: parsers: the largest child had {} MiB of memory", peak >> 10);
    part.finish();
}

/// What the man page says of the bounds is what they are.
#[test]
fn the_man_page_names_every_bound() {
    let page = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/man/rl-cleanup.1")).unwrap();
    let limits = page.split(".Sh LIMITS").nth(1).unwrap().split(".Sh ").next().unwrap();
    let named: Vec<&str> = limits.lines().filter_map(|l| l.strip_prefix(".It ")).collect();
    let size = |bytes: u64| match bytes >> 20 {
        0 => format!("{} KiB", bytes >> 10),
        n => format!("{n} MiB"),
    };
    let bounds = [
        bounds::BUFFER,
        bounds::SCRIPT,
        bounds::INPUT,
        bounds::REPORT,
        bounds::REGISTRY,
        bounds::METADATA,
        bounds::NOTE,
    ];
    let mut want: Vec<String> = bounds.into_iter().map(size).collect();
    want.push("4 KiB".into());
    assert_eq!(named, want);
    assert!(limits.contains(&format!("first {} characters", bounds::ROW_TEXT)));
}

// ---------------------------------------------------------------- tmt's own word for it

/// Reads texts of durations and of values; answers what tmt takes the ones for, and how it writes the others.
const TMT: &str = r"
import json, sys, tmt.utils
texts, values = json.load(sys.stdin)
def secs(text):
    try:
        return tmt.utils.duration_to_seconds(text, '5m')
    except tmt.utils.SpecificationError:
        return None
metadata = lambda v: {'name': '/x', 'require': [v, {'duration': '9h'}], 'duration': v, 'environment': {'duration': v}}
json.dump([[secs(t) for t in texts], [tmt.utils.to_yaml(metadata(v)) for v in values]], sys.stdout)
";

/// A Python with tmt: the one that `make check-harness` makes, or the machine's own.
fn python_with_tmt() -> Option<PathBuf> {
    let target = Path::new(BINARY).ancestors().nth(2).unwrap();
    let pythons = [target.join("tmt-venv/bin/python"), "python3".into()];
    let has_tmt = |python: &PathBuf| {
        let asked = Command::new(python).args(["-c", "import tmt.utils; tmt.utils.to_yaml"]).output();
        asked.is_ok_and(|o| o.status.success())
    };
    pythons.into_iter().find(has_tmt)
}

/// What tmt and we make of the same text.
fn ask_tmt(python: &Path, texts: &[String], values: &[String]) -> (Vec<Option<f64>>, Vec<String>) {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("texts");
    fs::write(&file, serde_json::to_vec(&(texts, values)).unwrap()).unwrap();
    let answer = Command::new(python).args(["-c", TMT]).stdin(File::open(file).unwrap()).output().unwrap();
    assert!(answer.status.success(), "{}", String::from_utf8_lossy(&answer.stderr));
    let answer: serde_json::Value = serde_json::from_slice(&answer.stdout).unwrap();
    let secs = answer[0].as_array().unwrap().iter().map(serde_json::Value::as_f64).collect();
    (secs, answer[1].as_array().unwrap().iter().map(|v| v.as_str().unwrap().to_owned()).collect())
}

fn drawn(dice: &mut torture::Dice, pieces: &[&str], most: u64) -> String {
    let count = dice.throw(most) + 1;
    let piece = |dice: &mut torture::Dice| pieces[usize::try_from(dice.throw(pieces.len() as u64)).unwrap()];
    (0..count).map(|_| piece(dice)).collect()
}

/// tmt refuses and takes what we refuse and take, as the same number of seconds; and what it writes into
/// its metadata is what we find there.
#[test]
fn tmt_reads_the_same() {
    let Some(python) = python_with_tmt() else { skip!("no Python here has tmt (pip install tmt)") };
    let part = Part::new("parsers-tmt");
    let mut dice = torture::Dice::new(seed(8));
    let many = scale(3000, 60_000);
    let grammar =
        ["1", "2", "30", "007", "5m", "1h", "3s", "1d", " ", " ", "*", "*2", "*1.5", "\t", "m", ".", "-"];
    let texts: Vec<String> = (0..many).map(|_| drawn(&mut dice, &grammar, 6)).collect();
    let odd = [
        "a", "5m", " ", "'", "\"", ":", ": ", "#", " #", "\n", "-", "- ", "\\", "{", "[", "&", "*", "é",
        "\t", "%", "|", ">", "!", "1", "~", "no",
    ];
    let values: Vec<String> = (0..many / 10).map(|_| drawn(&mut dice, &odd, 40)).collect();
    let (secs, yaml) = ask_tmt(&python, &texts, &values);
    let taken = secs.iter().flatten().count();
    assert!(taken * 10 > texts.len(), "tmt takes only {taken} of {many} texts");
    for (text, secs) in texts.iter().zip(secs) {
        // Beyond 2^53 seconds nobody waits.
        let tmts = secs.filter(|s| *s < 9e15);
        let ours = duration::parse(text);
        #[expect(clippy::cast_precision_loss, reason = "below 2^53")]
        let same = ours.map(|s| s as f64) == tmts;
        part.count(if same { Ok(()) } else { Err(format!("{text:?}: {ours:?}, and tmt's {secs:?}")) });
    }
    for (value, yaml) in values.iter().zip(yaml) {
        let found = tmt::top_level(&yaml, "duration");
        part.count(match found.as_ref() == Some(value) {
            true => Ok(()),
            false => Err(format!("{value:?} is written as {yaml:?} and read as {found:?}")),
        });
    }
    part.finish();
}
