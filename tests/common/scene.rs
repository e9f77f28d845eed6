//! A state directory and a CLPATH file that can be put back as they were, byte for byte, and the calls of
//! the toolkit that are broken off in them: what the tests of crashes and of errors share.
#![allow(
    dead_code,
    missing_docs,
    unreachable_pub,
    clippy::unwrap_used,
    reason = "every test file includes this module and uses its own part of it"
)]

use crate::strace::{self, Fault, Site};
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};

pub const BINARY: &str = env!("CARGO_BIN_EXE_rl-cleanup");
/// Ids of the entries that are there before: first, middle, last.
pub const IDS: [&str; 3] = ["aaaaaa", "bbbbbb", "cccccc"];
/// The id of the entry that a call adds.
const ADDED: &str = "dddddd";
/// The id of the entry that the next call adds.
const NEXT: &str = "eeeeee";

/// What is there before the call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// No state directory; nothing is hooked.
    Fresh,
    /// So many entries, hooked.
    Entries(usize),
    /// Three entries, and a watcher that does not know of them: after a reboot.
    Unhooked,
    /// A cleanup that has run to its end.
    Finished,
}

/// What a call does to the entries that were there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Does {
    /// All of them stay.
    Keep,
    /// These go, and never run again.
    Drop(&'static [&'static str]),
    /// These run.
    Run(&'static [&'static str]),
}

/// One call.
#[derive(Debug, Clone, Copy)]
pub struct Case {
    pub name: &'static str,
    pub start: Start,
    pub args: &'static [&'static str],
    pub does: Does,
}

const fn case(name: &'static str, start: Start, args: &'static [&'static str], does: Does) -> Case {
    Case { name, start, args, does }
}

/// `@new` stands for the text that is added, `@dir`, `@script` for the paths, `@fingerprint` for what the
/// script that is there holds.
pub const CASES: &[Case] = &[
    case("append, fresh", Start::Fresh, &["append", "--id", ADDED, "@new"], Does::Keep),
    case("append", Start::Entries(3), &["append", "--id", ADDED, "@new"], Does::Keep),
    case("append, unhooked", Start::Unhooked, &["append", "--id", ADDED, "@new"], Does::Keep),
    case("append, finished", Start::Finished, &["append", "--id", ADDED, "@new"], Does::Keep),
    case("prepend, fresh", Start::Fresh, &["prepend", "--id", ADDED, "--mark", "@new"], Does::Keep),
    case("prepend", Start::Entries(3), &["prepend", "--id", ADDED, "--print-id", "@new"], Does::Keep),
    case("remove first", Start::Entries(3), &["remove", IDS[0]], Does::Drop(&[IDS[0]])),
    case("remove middle", Start::Entries(3), &["remove", IDS[1]], Does::Drop(&[IDS[1]])),
    case("remove last", Start::Entries(3), &["remove", IDS[2]], Does::Drop(&[IDS[2]])),
    case("remove only", Start::Entries(1), &["remove", IDS[0]], Does::Drop(&[IDS[0]])),
    case("clear", Start::Entries(3), &["clear"], Does::Drop(&IDS)),
    case("rehook, fresh", Start::Fresh, &["rehook"], Does::Keep),
    case("rehook", Start::Unhooked, &["rehook"], Does::Keep),
    case("rehook, hooked", Start::Entries(3), &["rehook"], Does::Keep),
    case("run all", Start::Entries(3), &["run"], Does::Run(&IDS)),
    case("run first", Start::Entries(3), &["run", IDS[0]], Does::Run(&[IDS[0]])),
    case("run middle", Start::Entries(3), &["run", IDS[1]], Does::Run(&[IDS[1]])),
    case("run last", Start::Entries(3), &["run", IDS[2]], Does::Run(&[IDS[2]])),
    case("script prepare", Start::Fresh, &["script", "prepare"], Does::Keep),
    case(
        "script begin",
        Start::Entries(3),
        &["script", "begin", "@script", "@dir", "@fingerprint"],
        Does::Keep,
    ),
    case(
        "script begin, other buffer",
        Start::Entries(3),
        &["script", "begin", "@script", "@dir", "--fingerprint=1"],
        Does::Keep,
    ),
    case(
        "script strike first",
        Start::Entries(3),
        &["script", "strike", "@script", "@dir", "--id", IDS[0], "--next", IDS[1]],
        Does::Drop(&[IDS[0]]),
    ),
    case(
        "script strike last",
        Start::Entries(1),
        &["script", "strike", "@script", "@dir", "--id", IDS[0]],
        Does::Drop(&[IDS[0]]),
    ),
    case(
        "script resume",
        Start::Entries(3),
        &["script", "resume", "@script", "@dir", "--id", IDS[0]],
        Does::Drop(&[IDS[0]]),
    ),
    case("script finish", Start::Finished, &["script", "finish", "@script", "@dir"], Does::Keep),
];

/// All files below a directory, with their modes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tree(BTreeMap<PathBuf, Node>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Node {
    Dir(u32),
    File(u32, Vec<u8>),
}

impl Tree {
    pub fn take(root: &Path) -> Self {
        let mut found = BTreeMap::new();
        let mut open = vec![root.to_owned()];
        while let Some(dir) = open.pop() {
            for entry in std::fs::read_dir(&dir).unwrap().flatten() {
                let (path, meta) = (entry.path(), entry.metadata().unwrap());
                let mode = meta.mode() & 0o7777;
                let name = path.strip_prefix(root).unwrap().to_owned();
                if meta.is_dir() {
                    found.insert(name, Node::Dir(mode));
                    open.push(path);
                } else {
                    found.insert(name, Node::File(mode, std::fs::read(&path).unwrap()));
                }
            }
        }
        Self(found)
    }

    pub fn put(&self, root: &Path) {
        for entry in std::fs::read_dir(root).unwrap().flatten() {
            let path = entry.path();
            if path.is_dir() {
                std::fs::remove_dir_all(path).unwrap()
            } else {
                std::fs::remove_file(path).unwrap()
            }
        }
        for (name, node) in &self.0 {
            let path = root.join(name);
            match node {
                Node::Dir(mode) => std::fs::DirBuilder::new().mode(*mode).create(&path).unwrap(),
                Node::File(mode, bytes) => {
                    let mut options = std::fs::OpenOptions::new();
                    let mut file = options.write(true).create_new(true).mode(*mode).open(&path).unwrap();
                    std::io::Write::write_all(&mut file, bytes).unwrap();
                    file.set_permissions(PermissionsExt::from_mode(*mode)).unwrap();
                }
            }
        }
    }

    /// A file's bytes, without what is another one each second.
    pub fn bytes(&self, name: &str) -> Option<Vec<u8>> {
        match self.0.get(Path::new(name))? {
            Node::File(_, bytes) => Some(timeless(bytes)),
            Node::Dir(_) => None,
        }
    }

    /// What is there, but for `ran` and the lock, which say nothing about a state.
    pub fn names(&self) -> Vec<String> {
        let all = self.0.keys().map(|name| name.to_string_lossy().into_owned());
        all.filter(|name| {
            !["ran", "log", "state/clbuff.lock", "testwatcher-abcdef.d/report"].contains(&&**name)
        })
        .collect()
    }

    /// What is there and must not be.
    pub fn strays(&self) -> Vec<String> {
        let known =
            ["state", "state/clbuff", "state/cleanup.sh", "testwatcher-abcdef", "testwatcher-abcdef.d"];
        self.names().into_iter().filter(|name| !known.contains(&&**name)).collect()
    }
}

/// `time=1795420800` is another one each second.
fn timeless(bytes: &[u8]) -> Vec<u8> {
    let text = String::from_utf8_lossy(bytes);
    let mut parts = text.split("time=");
    let mut out = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        out.push_str("time=");
        out.push_str(part.trim_start_matches(|c: char| c.is_ascii_digit()));
    }
    out.into_bytes()
}

/// What a process left behind.
#[derive(Debug, Clone)]
pub struct Ended {
    /// `None`: a signal ended it.
    pub status: Option<i32>,
    pub out: String,
    pub err: String,
}

/// The place.
pub struct Scene {
    home: tempfile::TempDir,
    root: PathBuf,
}

impl Scene {
    #[must_use]
    pub fn new() -> Self {
        let home = tempfile::Builder::new().prefix("rl-cleanup-test-").tempdir().unwrap();
        let root = home.path().join("scene");
        std::fs::create_dir(&root).unwrap();
        Self { home, root }
    }

    pub fn root(&self) -> &Path {
        &self.root
    }

    /// A file beside the scene.
    pub fn beside(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    pub fn state(&self) -> PathBuf {
        self.root.join("state")
    }

    pub fn clpath(&self) -> PathBuf {
        self.root.join("testwatcher-abcdef")
    }

    pub fn script(&self) -> PathBuf {
        self.state().join("cleanup.sh")
    }

    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new(program);
        command.env_clear().env("PATH", "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin").env("HOME", "/");
        command.env("BEAKERLIB_DIR", self.state()).env("TESTWATCHER_CLPATH", self.clpath());
        command.stdin(Stdio::null()).current_dir("/");
        command
    }

    pub fn run(&self, command: &mut Command) -> Ended {
        let output = command.output().unwrap();
        Ended {
            status: output.status.code(),
            out: String::from_utf8_lossy(&output.stdout).into_owned(),
            err: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    pub fn cli(&self, args: &[&str]) -> Ended {
        self.run(self.command(BINARY).args(args))
    }

    /// The text of the entry `id`.
    pub fn text(&self, id: &str) -> String {
        format!("echo {id} >>{}/ran", self.root.display())
    }

    /// Makes what is there before a call.
    pub fn start(&self, start: Start) -> Tree {
        Tree(BTreeMap::new()).put(&self.root);
        std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(self.clpath()).unwrap();
        let mut private = self.clpath().into_os_string();
        private.push(".d");
        std::fs::DirBuilder::new().mode(0o700).create(private).unwrap();
        let count = match start {
            Start::Fresh => 0,
            Start::Entries(count) => count,
            Start::Unhooked | Start::Finished => 3,
        };
        for id in &IDS[..count] {
            let ended = self.cli(&["append", "--id", id, &self.text(id)]);
            assert_eq!(ended.status, Some(0), "{ended:?}");
        }
        match start {
            Start::Fresh | Start::Entries(_) => {}
            Start::Unhooked => std::fs::write(self.clpath(), "").unwrap(),
            Start::Finished => {
                assert_eq!(self.cleanup().status, Some(0));
                std::fs::remove_file(self.root.join("ran")).unwrap();
            }
        }
        Tree::take(&self.root)
    }

    /// The words of a call.
    fn words(&self, case: &Case) -> Vec<String> {
        let word = |word: &str| match word {
            "@new" => self.text(ADDED),
            "@dir" => format!("--dir={}", self.state().display()),
            "@script" => format!("--script={}", self.script().display()),
            "@fingerprint" => format!("--fingerprint={}", self.fingerprint()),
            word => word.to_owned(),
        };
        case.args.iter().map(|w| word(w)).collect()
    }

    fn fingerprint(&self) -> String {
        let script = std::fs::read_to_string(self.script()).unwrap();
        let line = script.lines().find_map(|l| l.strip_prefix("__rlcx_fingerprint=")).unwrap();
        line.trim_matches('\'').to_owned()
    }

    /// Makes the call undisturbed, under strace: its sites, how it ended, and what is there then.
    pub fn rehearse(&self, case: &Case) -> Rehearsal {
        let before = self.start(case.start);
        let log = self.beside("trace");
        let mut command = self.command("strace");
        strace::trace(&mut command, &log);
        command.arg(BINARY).args(self.words(case));
        let ended = self.run(&mut command);
        let root = self.root.to_string_lossy().into_owned();
        let text = String::from_utf8_lossy(&std::fs::read(&log).unwrap()).into_owned();
        // Its own words on the command line are no touch.
        let sites = strace::sites(&text, |line| line.contains(&root) && !line.starts_with("exec"));
        assert!(sites.len() > 10, "{}: few calls touch {root}:\n{text}", case.name);
        Rehearsal { before, after: Tree::take(&self.root), ended, sites }
    }

    /// The same without strace: no sites.
    pub fn undisturbed(&self, case: &Case) -> Rehearsal {
        let before = self.start(case.start);
        // By a shell, as it adds to the environment.
        let ended = self.call(case);
        Rehearsal { before, after: Tree::take(&self.root), ended, sites: Vec::new() }
    }

    /// Makes the call in a shell that has set a limit.
    pub fn limited(&self, case: &Case, limit: &str) -> Ended {
        let mut command = self.command("timeout");
        command.args(["-s", "KILL", "60", "bash", "-c", &format!("{limit}; exec \"$0\" \"$@\""), BINARY]);
        self.run(command.args(self.words(case)))
    }

    /// Makes the call.
    pub fn call(&self, case: &Case) -> Ended {
        self.limited(case, ":")
    }

    /// Makes the call with a fault at a site; `None` if it never got there.
    pub fn disturb(&self, case: &Case, site: &Site, fault: Fault) -> Option<Ended> {
        let log = self.beside("trace");
        let _ = std::fs::remove_file(&log);
        let mut command = self.command("timeout");
        // A call that hangs is lost, and must not hang the rest.
        command.args(["-s", "KILL", "60", "strace"]);
        strace::inject(&mut command, &log, site, fault);
        command.arg(BINARY).args(self.words(case));
        let ended = self.run(&mut command);
        strace::has_struck(&log, fault).then_some(ended)
    }

    /// The final script, as a watcher runs it.
    pub fn cleanup(&self) -> Ended {
        self.run(&mut self.command(self.script()))
    }

    /// The entries that ran, in order.
    pub fn ran(&self) -> Vec<String> {
        let text = std::fs::read_to_string(self.root.join("ran")).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    /// The entries in the buffer.
    pub fn entries(&self) -> Vec<String> {
        let text = std::fs::read_to_string(self.state().join("clbuff")).unwrap_or_default();
        text.lines().filter_map(|l| Some(l.strip_prefix("echo ")?.split(' ').next()?.to_owned())).collect()
    }

    pub fn is_hooked(&self) -> bool {
        let line = std::fs::read_to_string(self.clpath()).unwrap_or_default();
        Path::new(line.trim_end()) == self.script()
    }
}

/// A call undisturbed.
pub struct Rehearsal {
    pub before: Tree,
    pub after: Tree,
    pub ended: Ended,
    pub sites: Vec<Site>,
}

/// Fails with a sentence.
pub fn hold(what: bool, sentence: impl FnOnce() -> String) -> Result<(), String> {
    if what { Ok(()) } else { Err(sentence()) }
}

/// Each file is the old or the new one, whole.
pub fn is_old_or_new(now: &Tree, rehearsal: &Rehearsal) -> Result<(), String> {
    for name in ["state/clbuff", "state/cleanup.sh", "testwatcher-abcdef"] {
        let bytes = now.bytes(name);
        let known = [rehearsal.before.bytes(name), rehearsal.after.bytes(name)];
        // 'prepare' makes both empty, one after the other.
        hold(known.contains(&bytes), || {
            format!("{name} is neither the old nor the new one: {}", shown(&bytes))
        })?;
    }
    Ok(())
}

pub fn shown(bytes: &Option<Vec<u8>>) -> String {
    match bytes {
        None => "gone".to_owned(),
        Some(bytes) => format!("{:?}", String::from_utf8_lossy(bytes).chars().take(300).collect::<String>()),
    }
}

impl Scene {
    /// Whether what is there makes sense as a whole: every entry that was there before the call has run or
    /// will run, in the order of the buffer, none twice; the next call succeeds and tidies up.
    pub fn is_sound(&self, case: &Case, rehearsal: &Rehearsal) -> Result<(), String> {
        let left = Tree::take(&self.root);
        let (ran, entries) = (self.ran(), self.entries());
        let old: &[&str] = match case.start {
            Start::Fresh | Start::Finished => &[],
            Start::Entries(count) => &IDS[..count],
            Start::Unhooked => &IDS,
        };
        for id in old {
            let (has_run, will_run) = (ran.iter().any(|r| r == id), entries.iter().any(|e| e == id));
            let good = match case.does {
                Does::Keep => will_run && !has_run,
                Does::Drop(ids) => !has_run && (will_run || ids.contains(id)),
                Does::Run(ids) => (has_run != will_run) && (will_run || ids.contains(id)),
            };
            hold(good, || format!("entry {id}: ran {ran:?}, in the buffer {entries:?}"))?;
        }
        self.watcher_runs(&ran, &entries, old)?;
        left.put(&self.root);
        self.next_call_succeeds(&ran, &entries, rehearsal)
    }

    /// As the watcher would at once.
    fn watcher_runs(&self, ran: &[String], entries: &[String], old: &[&str]) -> Result<(), String> {
        if std::fs::metadata(self.script()).is_ok_and(|m| m.len() > 0) {
            let ended = self.cleanup();
            let all = [ran, entries].concat();
            hold(self.ran() == all, || {
                format!("the final script ran {:?}, not {all:?}: {ended:?}", self.ran())
            })?;
            hold(self.entries().is_empty(), || format!("{:?} stay behind the final script", self.entries()))
        } else {
            let promised = entries.iter().any(|e| old.contains(&&**e));
            hold(!promised, || format!("{entries:?} are in the buffer, and the final script is empty"))
        }
    }

    fn next_call_succeeds(&self, ran: &[String], entries: &[String], _: &Rehearsal) -> Result<(), String> {
        let next = self.cli(&["append", "--id", NEXT, &self.text(NEXT)]);
        hold(next.status == Some(0) && next.err.is_empty(), || format!("the next call: {next:?}"))?;
        let strays = Tree::take(&self.root).strays();
        hold(strays.is_empty(), || format!("the next call leaves {strays:?}"))?;
        hold(self.is_hooked(), || "not hooked after the next call".to_owned())?;
        let ended = self.cleanup();
        let all = [ran, entries, &[NEXT.to_owned()]].concat();
        hold(self.ran() == all, || {
            format!("after the next call {:?} ran, not {all:?}: {ended:?}", self.ran())
        })
    }
}

/// Does `each` for every case, on two threads, each with a scene of its own.
pub fn for_each_case(each: impl Fn(&Scene, &Case) + Sync) {
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                let scene = Scene::new();
                while let Some(case) = CASES.get(next.fetch_add(1, Ordering::Relaxed)) {
                    each(&scene, case);
                }
            });
        }
    });
}
