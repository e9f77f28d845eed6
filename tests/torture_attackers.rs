//! Promise: root never runs a byte that another unprivileged user wrote, and writes into no file that
//! such a user has chosen. Places and attacks are crossed in a table, then names are exchanged in a
//! loop while the tool works (docs/security.md).
//!
//! The attacker is a real process of another uid. What a hard link or a device needs root for is made
//! by root in his place: another kernel setting would let him.
#![allow(clippy::unwrap_used)]

mod common;
#[path = "common/torture.rs"]
mod torture;

use common::{Ended, skipped};
use nix::sys::stat::{Mode, SFlag, makedev, mknod};
use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, OnceLock};
use std::time::{Duration, Instant};
use torture::{Part, scale};

/// Who attacks. Nobody has this number, so nothing else of the machine's is his.
const ATTACKER: u32 = 64_001;
/// A user who is no more than he, and is attacked where root cannot be.
const NEIGHBOUR: u32 = 64_002;
/// A hang is a loss too.
const DEADLINE: Duration = Duration::from_secs(60);

/// The toolkit under test; `RL_CLEANUP_UNDER_TEST` names a weaker one, to see that this finds something.
fn toolkit() -> PathBuf {
    std::env::var_os("RL_CLEANUP_UNDER_TEST").unwrap_or_else(|| common::BINARY.into()).into()
}

fn able(test: &str) -> bool {
    if !common::is_root() {
        skipped(test, "needs root, to attack it as somebody else");
    }
    common::is_root()
}

// ---------------------------------------------------------------- the field

/// Where an attack takes place. Only root can make a name in it, but in `ground` everybody can, as in
/// `/var/tmp`.
struct Field {
    root: tempfile::TempDir,
    /// Files of root's on the file system of /var/tmp, where watchers have theirs.
    elsewhere: Mutex<Vec<tempfile::NamedTempFile>>,
}

impl Field {
    fn new() -> Self {
        let root = scratch(ground());
        let field = Self { root, elsewhere: Mutex::default() };
        field.chmod("", 0o755);
        field.make_dir("ground", 0o1777);
        field.make_dir("precious", 0o700);
        for name in ["victim", "precious/clbuff", "precious/cleanup.sh", "precious/clbuff.lock"] {
            fs::write(field.path(name), "precious\n").unwrap();
            field.chmod(name, 0o600);
        }
        field.attack(concat!(
            "printf '#!/bin/bash\n%s\n' \"$BYTES\" >his.sh; chmod 755 his.sh; mkdir his; ",
            "cd his; for n in clbuff clbuff.lock cleanup.sh; do cp ../his.sh $n; done"
        ));
        field
    }

    fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    fn text(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap_or_default()
    }

    fn chmod(&self, name: &str, mode: u32) {
        fs::set_permissions(self.path(name), fs::Permissions::from_mode(mode)).unwrap();
    }

    fn make_dir(&self, name: &str, mode: u32) -> PathBuf {
        fs::create_dir(self.path(name)).unwrap();
        self.chmod(name, mode);
        self.path(name)
    }

    /// A program that everybody may execute. Copied by another process: what this one had open for
    /// writing, another thread's fork may still have when it is executed (ETXTBSY).
    fn install(&self, program: &Path, name: &str) {
        let mut command = Command::new("install");
        command.args(["-m", "755"]).arg(program).arg(self.path(name));
        assert!(command.status().unwrap().success());
    }

    /// What shows that it was run: nobody but root can make that file.
    fn bytes(&self) -> String {
        format!("echo bitten >>'{}'", self.path("canary").display())
    }

    /// A command of the attacker's, in `ground`.
    fn attack(&self, script: &str) {
        let mut command = Command::new("/bin/bash");
        command.args(["-euc", script]).env_clear().env("PATH", "/usr/bin:/bin");
        command.env("BYTES", self.bytes()).env("ROOT", self.root.path());
        command.current_dir(self.path("ground")).uid(ATTACKER).gid(ATTACKER);
        assert!(command.status().unwrap().success(), "the attack failed: {script}");
    }

    /// The tool, or whatever root runs, with nothing but this in its environment.
    fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new(program);
        command.env_clear().env("PATH", "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin").env("HOME", "/");
        command.env("RL", toolkit()).env("RL_CLEANUP", toolkit()).env("ROOT", self.root.path());
        command.current_dir(self.root.path()).stdin(Stdio::null());
        command
    }

    fn tool<A: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = A>) -> Command {
        let mut command = self.command(toolkit());
        command.args(args);
        command
    }

    /// The watcher around a bash script.
    fn watch(&self, script: &str) -> Command {
        self.tool(["watch", "--", "/bin/bash", "-c", script])
    }

    /// A second name of a file of root's; a file system can link only its own.
    fn hard_link(&self, path: &Path) {
        if fs::hard_link(self.path("victim"), path).is_err() {
            let victim = tempfile::NamedTempFile::new_in("/var/tmp").unwrap();
            fs::write(victim.path(), "precious\n").unwrap();
            fs::hard_link(victim.path(), path).unwrap();
            self.elsewhere.lock().unwrap().push(victim);
        }
    }

    /// Whether nothing of the attacker's was run, and nothing of root's was touched.
    fn unharmed(&self) -> Result<(), String> {
        if self.path("canary").exists() {
            return Err("a byte of the attacker's was run".into());
        }
        let names = ["victim", "precious/clbuff", "precious/cleanup.sh", "precious/clbuff.lock"];
        let elsewhere = self.elsewhere.lock().unwrap();
        for path in
            names.map(|n| self.path(n)).into_iter().chain(elsewhere.iter().map(|f| f.path().to_owned()))
        {
            let meta = fs::metadata(&path).map_err(|e| format!("{}: {e}", path.display()))?;
            let text = fs::read_to_string(&path).unwrap_or_default();
            if text != "precious\n" || meta.mode() & 0o7777 != 0o600 || meta.uid() != 0 {
                return Err(format!("{} was changed: {text:?}", path.display()));
            }
        }
        let names = fs::read_dir(self.path("precious")).unwrap().count();
        if names == 3 { Ok(()) } else { Err("something was put into the directory 'precious'".into()) }
    }
}

fn scratch(dir: &str) -> tempfile::TempDir {
    tempfile::Builder::new().prefix("rl-cleanup-attack-").tempdir_in(dir).unwrap()
}

/// In memory: what is proven here needs no disk, and the tool waits for it at each change.
fn ground() -> &'static str {
    static GROUND: OnceLock<&str> = OnceLock::new();
    GROUND.get_or_init(|| {
        let memory = tempfile::tempdir_in("/dev/shm");
        let executes = memory.is_ok_and(|dir| {
            let program = dir.path().join("true");
            let copied = Command::new("cp").arg("/bin/true").arg(&program).status();
            copied.is_ok_and(|s| s.success()) && Command::new(&program).status().is_ok_and(|s| s.success())
        });
        if executes { "/dev/shm" } else { "/var/tmp" }
    })
}

/// Runs to the end, within the deadline.
fn run(command: &mut Command) -> Result<Ended, String> {
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    end(&mut child)?;
    let output = child.wait_with_output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Ok(Ended { status: output.status.code(), out: text(&output.stdout), err: text(&output.stderr) })
}

fn end(child: &mut Child) -> Result<i32, String> {
    let start = Instant::now();
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return Ok(status.code().unwrap_or(-1));
        }
        if start.elapsed() > DEADLINE {
            let _ = child.kill();
            let _ = child.wait();
            return Err("it hangs".into());
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// A refusal is one sentence, and says what is not trusted.
fn is_refusal(ended: &Ended) -> Result<(), String> {
    let said = ended.err.trim_end();
    match ended.status == Some(4) && said.starts_with("rl-cleanup: will not trust '") && !said.contains('\n')
    {
        true => Ok(()),
        false => Err(format!("not refused: {ended:?}")),
    }
}

// ---------------------------------------------------------------- places and attacks

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Attack {
    /// His own, and empty.
    Empty,
    /// His own, with his bytes in it.
    Bytes,
    /// A symbolic link to something of root's.
    LinkToVictim,
    /// A symbolic link to something of his.
    LinkToHis,
    /// A second name of a file of root's.
    HardLink,
    Fifo,
    Device,
    /// A directory where a file belongs, or the reverse.
    WrongKind,
    /// Root's own, but everybody may write it, and he did.
    WorldWritable,
    /// Root's own, but his group may write it, and he did.
    GroupWritable,
}

const ATTACKS: [Attack; 10] = [
    Attack::Empty,
    Attack::Bytes,
    Attack::LinkToVictim,
    Attack::LinkToHis,
    Attack::HardLink,
    Attack::Fifo,
    Attack::Device,
    Attack::WrongKind,
    Attack::WorldWritable,
    Attack::GroupWritable,
];

impl Attack {
    /// Puts it where a file is expected. Everybody may write the directory at that moment.
    fn on_file(self, field: &Field, path: &Path) {
        let at = path.display();
        match self {
            Self::Empty => field.attack(&format!(": >'{at}'; chmod 755 '{at}'")),
            Self::Bytes => field.attack(&format!("cp his.sh '{at}'; chmod 755 '{at}'")),
            Self::LinkToVictim => field.attack(&format!("ln -s \"$ROOT/victim\" '{at}'")),
            Self::LinkToHis => field.attack(&format!("ln -s \"$ROOT/ground/his.sh\" '{at}'")),
            Self::HardLink => field.hard_link(path),
            Self::WrongKind => field.attack(&format!("mkdir -m 777 '{at}'")),
            Self::WorldWritable | Self::GroupWritable => {
                fs::copy(field.path("ground/his.sh"), path).unwrap();
                self.open_up(path);
            }
            Self::Fifo | Self::Device => self.on_either(field, path),
        }
    }

    /// Puts it where a directory is expected; false if there is no such thing.
    fn on_directory(self, field: &Field, path: &Path) -> bool {
        let at = path.display();
        match self {
            Self::Empty => field.attack(&format!("mkdir -m 755 '{at}'")),
            Self::Bytes => field.attack(&format!("cp -r his '{at}'")),
            Self::LinkToVictim => field.attack(&format!("ln -s \"$ROOT/precious\" '{at}'")),
            Self::LinkToHis => field.attack(&format!("ln -s \"$ROOT/ground/his\" '{at}'")),
            Self::HardLink => return false,
            Self::WrongKind => field.attack(&format!("cp his.sh '{at}'")),
            Self::WorldWritable | Self::GroupWritable => {
                fs::create_dir(path).unwrap();
                self.open_up(path);
                field.attack(&format!("cp his/* '{at}/'"));
            }
            Self::Fifo | Self::Device => self.on_either(field, path),
        }
        true
    }

    fn on_either(self, field: &Field, path: &Path) {
        if self == Self::Fifo {
            field.attack(&format!("mkfifo -m 666 '{}'", path.display()));
        } else {
            mknod(path, SFlag::S_IFCHR, Mode::from_bits_truncate(0o666), makedev(1, 3)).unwrap();
            chown(path, Some(ATTACKER), Some(ATTACKER)).unwrap();
        }
    }

    fn open_up(self, path: &Path) {
        let (mode, group) = if self == Self::WorldWritable { (0o777, 0) } else { (0o775, ATTACKER) };
        chown(path, Some(0), Some(group)).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }
}

/// What the tool does about an attack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Answer {
    /// Exit status 4 and one sentence, from every command that would change something.
    Refuses,
    /// It fails with a sentence, as the kernel's answer comes first.
    Fails,
    /// It works, and root's own cleanup is run.
    Works,
}

/// All that root does with a state directory, in this order.
const COMMANDS: [&[&str]; 7] = [
    &["append", "true"],
    &["prepend", "if true; then true; fi"],
    &["rehook"],
    &["list"],
    &["show", "--script"],
    &["run"],
    &["clear"],
];

/// Root uses the directory in every way there is, under a watcher and without one.
fn use_directory(part: &Part, field: &Field, dir: &Path, answer: Answer, what: &str) {
    for args in COMMANDS {
        // The short form leaves out what takes the same way as another one.
        if !torture::is_full() && matches!(args[0], "prepend" | "show" | "clear") {
            continue;
        }
        let changes = matches!(args[0], "append" | "prepend" | "rehook");
        let outcome = run(field.tool(args).env("BEAKERLIB_DIR", dir)).and_then(|ended| {
            field.unharmed()?;
            if ended.status == Some(4) {
                is_refusal(&ended)?;
            }
            match answer {
                Answer::Refuses if changes => is_refusal(&ended),
                Answer::Fails if changes && ended.status == Some(0) => Err(format!("it worked: {ended:?}")),
                Answer::Works if changes && ended.status != Some(0) => Err(format!("it failed: {ended:?}")),
                _ => Ok(()),
            }
        });
        part.count(outcome.map_err(|how| format!("{what}: {}: {how}", args[0])));
    }
    part.count(
        watch_directory(field, dir, answer == Answer::Works).map_err(|how| format!("{what}: watch: {how}")),
    );
}

/// A test that adds an entry, and one that hooks the script by hand, as BeakerLib itself does.
fn watch_directory(field: &Field, dir: &Path, works: bool) -> Result<(), String> {
    let _ = fs::remove_file(field.path("cleaned"));
    let adds = "\"$RL\" append 'echo cleaned >>\"$ROOT/cleaned\"'";
    run(field.watch(adds).env("BEAKERLIB_DIR", dir))?;
    field.unharmed()?;
    if works && field.text("cleaned") != "cleaned\n" {
        return Err("root's own cleanup was not run".into());
    }
    let hooks = "echo \"$BEAKERLIB_DIR/cleanup.sh\" >\"$TESTWATCHER_CLPATH\"";
    run(field.watch(hooks).env("BEAKERLIB_DIR", dir))?;
    field.unharmed()
}

/// A state directory of root's that others could write for a while.
fn with_open_directory(field: &Field, plant: impl FnOnce(&Path)) -> PathBuf {
    let dir = field.make_dir("state", 0o777);
    plant(&dir);
    field.chmod("state", 0o700);
    dir
}

fn the_state_directory_itself(part: &Part) {
    for attack in ATTACKS {
        let field = Field::new();
        let dir = field.path("ground/beakerlib-4711");
        if !attack.on_directory(&field, &dir) {
            continue;
        }
        let answer = match attack {
            Attack::Fifo | Attack::Device | Attack::WrongKind => Answer::Fails,
            _ => Answer::Refuses,
        };
        use_directory(part, &field, &dir, answer, &format!("state directory, {attack:?}"));
    }
}

fn the_files_in_it(part: &Part) {
    for name in ["clbuff", "cleanup.sh", "clbuff.lock", ".rl-cleanup-aaaaaa", "run-4194999.sh"] {
        for attack in ATTACKS {
            let field = Field::new();
            let dir = with_open_directory(&field, |dir| attack.on_file(&field, &dir.join(name)));
            let answer = match (name, attack) {
                // Of a killed process, it seems; a directory of that name hurts nobody.
                (".rl-cleanup-aaaaaa" | "run-4194999.sh", _) => Answer::Works,
                ("clbuff.lock", Attack::WrongKind) => Answer::Fails,
                _ => Answer::Refuses,
            };
            use_directory(part, &field, &dir, answer, &format!("{name}, {attack:?}"));
        }
    }
}

/// Which of the directories above belongs to somebody else, or may be changed by him.
fn the_directories_above(part: &Part) {
    for below in ["state", "a/b/state"] {
        for attack in [Attack::Bytes, Attack::LinkToHis, Attack::WorldWritable, Attack::GroupWritable] {
            for there in [true, false] {
                // Half of them are as good as the other half; torture does them all.
                if !torture::is_full() && there != (below == "state") {
                    continue;
                }
                let field = Field::new();
                let above = field.path("ground/above");
                attack.on_directory(&field, &above);
                let dir = above.join(below);
                if there {
                    // Root's own, and trusted as such.
                    fs::create_dir_all(&dir).unwrap();
                    fs::set_permissions(&dir, fs::Permissions::from_mode(0o700)).unwrap();
                }
                let what = format!("directory above {below} ({there}), {attack:?}");
                use_directory(part, &field, &dir, Answer::Refuses, &what);
                part.count(match there || !dir.exists() {
                    true => Ok(()),
                    false => Err(format!("{what}: a directory was made there")),
                });
            }
        }
    }
}

/// The name of `rl-cleanup run`'s script is known as soon as the process is.
fn the_script_of_run(part: &Part) {
    for attack in ATTACKS {
        let field = Field::new();
        let dir = field.path("state");
        run(field.tool(["append", "true"]).env("BEAKERLIB_DIR", &dir)).unwrap();
        let waits =
            "echo $$ >pid.new; mv pid.new pid; until [ -e go ]; do sleep 0.01; done; exec \"$RL\" run";
        let mut command = field.command("/bin/bash");
        command.args(["-c", waits]).env("BEAKERLIB_DIR", &dir).stderr(Stdio::null());
        let mut child = command.spawn().unwrap();
        common::wait_for("the pid", || field.path("pid").exists().then_some(()));
        let name = format!("run-{}.sh", field.text("pid").trim());
        field.chmod("state", 0o777);
        attack.on_file(&field, &dir.join(name));
        field.chmod("state", 0o700);
        fs::write(field.path("go"), "").unwrap();
        let outcome = end(&mut child).and_then(|_| field.unharmed());
        part.count(outcome.map_err(|how| format!("run-PID.sh, {attack:?}: {how}")));
    }
}

// ---------------------------------------------------------------- the watcher's files

/// Starts a watcher whose test runs `script` and then waits; plants; lets it go on. The exit status.
fn plant_meanwhile(
    field: &Field,
    script: &str,
    output: Stdio,
    plant: impl FnOnce(&Path),
) -> Result<i32, String> {
    let waits =
        "echo \"$TESTWATCHER_CLPATH\" >ready.new; mv ready.new ready; until [ -e go ]; do sleep 0.01; done";
    let mut command = field.watch(&format!("{script}\n{waits}"));
    command.env("BEAKERLIB_DIR", field.path("state"));
    let mut child = command.stdout(output).stderr(Stdio::null()).spawn().unwrap();
    drop(child.stdout.take());
    let clpath = common::wait_for("the test", || {
        Some(PathBuf::from(field.text("ready").trim())).filter(|p| !p.as_os_str().is_empty())
    });
    common::wait_for("the private directory", || private(&clpath).exists().then_some(()));
    plant(&clpath);
    fs::write(field.path("go"), "").unwrap();
    let ended = end(&mut child);
    for left in [clpath.clone(), private(&clpath)] {
        let _ = fs::remove_file(&left);
        let _ = fs::remove_dir_all(&left);
    }
    ended
}

fn private(clpath: &Path) -> PathBuf {
    let mut path = clpath.to_owned().into_os_string();
    path.push(".d");
    path.into()
}

/// The cleanup says something, too: where nobody listens, that goes into a log.
const ADDS: &str = "\"$RL\" append 'echo cleaned >>\"$ROOT/cleaned\"; echo cleaned'";

/// A cleaner of old files has taken root's away, and the attacker has put his in its place.
fn the_clpath_file(part: &Part) {
    for attack in ATTACKS {
        let field = Field::new();
        // A program of root's, but it is the attacker who would have it run.
        fs::write(field.path("rootprog"), format!("#!/bin/bash\n{}\n", field.bytes())).unwrap();
        field.chmod("rootprog", 0o755);
        let names = format!("{}\n", field.path("rootprog").display());
        field.attack(&format!("printf %s '{names}' >his.sh"));
        let ended = plant_meanwhile(&field, ADDS, Stdio::null(), |clpath| {
            fs::remove_file(clpath).unwrap();
            attack.on_file(&field, clpath);
        });
        let outcome = ended.and_then(|_| field.unharmed());
        part.count(outcome.map_err(|how| format!("CLPATH of a watcher, {attack:?}: {how}")));

        let clpath = field.path("ground/testwatcher-AbCdEf");
        attack.on_file(&field, &clpath);
        for args in [["append", "true"], ["prepend", "true"]] {
            let mut command = field.tool(args);
            command.env("BEAKERLIB_DIR", field.path("state")).env("TESTWATCHER_CLPATH", &clpath);
            let outcome = run(&mut command).and_then(|ended| {
                field.unharmed()?;
                // What the second name of a file of root's says, root has said; it is replaced.
                if attack == Attack::HardLink { Ok(()) } else { is_refusal(&ended) }
            });
            part.count(outcome.map_err(|how| format!("CLPATH, {attack:?}: {}: {how}", args[0])));
        }
    }
}

fn the_private_directory(part: &Part) {
    for attack in ATTACKS {
        let field = Field::new();
        let mut possible = true;
        let ended = plant_meanwhile(&field, ADDS, Stdio::null(), |clpath| {
            fs::remove_dir_all(private(clpath)).unwrap();
            possible = attack.on_directory(&field, &private(clpath));
        });
        if !possible {
            continue;
        }
        let outcome = ended.and_then(|_| cleaned(&field));
        part.count(outcome.map_err(|how| format!("private directory of a watcher, {attack:?}: {how}")));

        let clpath = field.path("ground/testwatcher-AbCdEf");
        fs::write(&clpath, "").unwrap();
        attack.on_directory(&field, &private(&clpath));
        let ended = run(field.tool(["append", "true"]).env("TESTWATCHER_CLPATH", &clpath));
        let outcome = ended.and_then(|ended| {
            field.unharmed()?;
            match attack {
                Attack::Fifo | Attack::Device | Attack::WrongKind => Ok(()),
                _ => is_refusal(&ended),
            }
        });
        part.count(outcome.map_err(|how| format!("private directory, {attack:?}: append: {how}")));
    }
}

/// Root's own cleanup was run, and nothing else.
fn cleaned(field: &Field) -> Result<(), String> {
    field.unharmed()?;
    match field.text("cleaned").as_str() {
        "cleaned\n" => Ok(()),
        other => Err(format!("root's own cleanup was not run once: {other:?}")),
    }
}

/// Report, marker and logs, where others could write their directory for a while.
fn the_files_of_a_cleanup(part: &Part) {
    for (name, beside) in [
        ("report", false),
        ("cleanup-started", false),
        ("cleanup-XXXXXX.log", false),
        ("cleanup-XXXXXX.log", true),
    ] {
        for attack in ATTACKS {
            let field = Field::new();
            // Nobody reads the output, so the cleanup has a log.
            let ended = plant_meanwhile(&field, ADDS, Stdio::piped(), |clpath| {
                let text = clpath.display().to_string();
                let name = name.replace("XXXXXX", &text[text.len() - 6..]);
                let dir = if beside { field.path("state") } else { private(clpath) };
                fs::set_permissions(&dir, fs::Permissions::from_mode(0o777)).unwrap();
                attack.on_file(&field, &dir.join(name));
                fs::set_permissions(&dir, fs::Permissions::from_mode(0o700)).unwrap();
            });
            let outcome = ended.and_then(|_| cleaned(&field));
            part.count(outcome.map_err(|how| format!("{name}, {attack:?}: {how}")));
        }
    }
}

// ---------------------------------------------------------------- harnesses and the list of watchers

/// A hook goes nowhere that somebody else has chosen, and others cannot add theirs beside it.
fn the_harness_hook(part: &Part) {
    let looks =
        "ls -d plugins/completed.d/20_rl-cleanup* >there 2>/dev/null; stat -c %a plugins/completed.d >mode";
    let watch = |field: &Field, plugins: &Path| {
        let mut command = field.command("/bin/bash");
        command.args(["-c", &format!("umask 000; exec \"$RL\" watch -- /bin/bash -c '{looks}'")]);
        command.env("RSTRNT_TASKID", "1").env("RSTRNT_TASK_PLUGINS_DIR", plugins.join("task_run.d"));
        command.current_dir(plugins.parent().unwrap());
        run(&mut command)
    };
    for attack in ATTACKS {
        let field = Field::new();
        if attack.on_directory(&field, &field.path("ground/plugins")) {
            let outcome = watch(&field, &field.path("ground/plugins")).and_then(|_| field.unharmed());
            part.count(outcome.map_err(|how| format!("hook folder, {attack:?}: {how}")));
            let hooked = !field.text("ground/there").is_empty();
            part.count(if hooked {
                Err(format!("hook folder, {attack:?}: it was hooked there"))
            } else {
                Ok(())
            });
        }
    }
    let field = Field::new();
    fs::create_dir_all(field.path("root/plugins")).unwrap();
    watch(&field, &field.path("root/plugins")).unwrap();
    let (there, mode) = (field.text("root/there"), field.text("root/mode"));
    part.count(match (there.is_empty(), mode.trim()) {
        (false, "755") => Ok(()),
        _ => Err(format!("hook folder made under umask 000: {there:?}, mode {mode:?}")),
    });
}

/// tmt's one limit counts from the first start, which nobody else may put in the past.
fn the_first_start(part: &Part) {
    for attack in ATTACKS {
        let field = Field::new();
        fs::write(field.path("metadata.yaml"), "name: /t\nduration: 1h\n").unwrap();
        let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
        field.attack(&format!("printf '%s 0 0\n' '{}' >his.sh", boot.trim()));
        // Long ago: on this boot's clock, the machine's start, and an hour is over, or it was before this one.
        field.attack("sed -i 's/^[^ ]*/before/' his.sh");
        let dir =
            with_open_directory(&field, |dir| attack.on_file(&field, &dir.join(".rl-cleanup-first-start")));
        let mut command = field.watch("\"$RL\" append true && sleep 0.1 && echo whole >whole");
        command.env("BEAKERLIB_DIR", dir).env("TMT_REBOOT_COUNT", "1").env("TMT_TEST_NAME", "/t");
        command.env("TMT_TEST_METADATA", field.path("metadata.yaml"));
        let outcome = run(&mut command).and_then(|ended| {
            field.unharmed()?;
            if field.text("whole") == "whole\n" {
                Ok(())
            } else {
                Err(format!("the test was cut short: {ended:?}"))
            }
        });
        part.count(outcome.map_err(|how| format!("first start, {attack:?}: {how}")));
    }
}

/// Root's list is in /run, where nobody else can make a name; that of others is where somebody can.
fn the_list_of_watchers(part: &Part) {
    for attack in ATTACKS {
        let field = Field::new();
        field.install(&toolkit(), "rl-cleanup");
        let home = field.make_dir("home", 0o700);
        chown(&home, Some(NEIGHBOUR), Some(NEIGHBOUR)).unwrap();
        field.attack("mkdir -m 777 runtime; cp his.sh his/testwatcher-AbCdEf");
        let (list, default) =
            (field.path("ground/runtime/rl-cleanup"), format!("/tmp/rl-cleanup-{NEIGHBOUR}"));
        let _ = fs::remove_dir_all(&default);
        if attack == Attack::HardLink {
            continue;
        }
        for place in [&list, Path::new(&default)] {
            if attack == Attack::LinkToVictim {
                // What the neighbour alone may write, as a list should be.
                field.attack(&format!("ln -s \"$ROOT/home\" '{}'", place.display()));
            } else {
                attack.on_directory(&field, place);
            }
        }
        for runtime_dir in [Some("ground/runtime"), None] {
            let script = "$ROOT/rl-cleanup append \"echo cleaned >>cleaned\"; $ROOT/rl-cleanup status; \
                          find . \"$ROOT/ground\" $LIST -name \"${TESTWATCHER_CLPATH##*/}\" >listed 2>/dev/null";
            let mut command = field.command(field.path("rl-cleanup"));
            command.args(["watch", "--", "/bin/bash", "-c", script]).current_dir(&home);
            command.env("BEAKERLIB_DIR", home.join("state")).env("LIST", format!("{default}/"));
            command.uid(NEIGHBOUR).gid(NEIGHBOUR);
            runtime_dir.map(|dir| command.env("XDG_RUNTIME_DIR", field.path(dir)));
            let outcome = run(&mut command).and_then(|ended| {
                field.unharmed()?;
                let listed = fs::read_to_string(home.join("listed")).unwrap_or_default();
                match fs::remove_file(home.join("cleaned")).is_ok() && listed.is_empty() {
                    true => Ok(()),
                    false => Err(format!("it does not work, or is listed at {listed:?}: {ended:?}")),
                }
            });
            part.count(
                outcome.map_err(|how| format!("list of watchers, {attack:?}, {runtime_dir:?}: {how}")),
            );
        }
        let _ = fs::remove_file(&default);
        let _ = fs::remove_dir_all(&default);
    }
}

#[test]
fn what_is_planted_in_every_place_is_neither_run_nor_written() {
    if !able("what_is_planted_in_every_place_is_neither_run_nor_written") {
        return;
    }
    let part = Part::new("attackers: planted");
    std::thread::scope(|scope| {
        scope.spawn(|| {
            the_files_in_it(&part);
            the_script_of_run(&part);
        });
        scope.spawn(|| {
            the_state_directory_itself(&part);
            the_directories_above(&part);
            the_clpath_file(&part);
        });
        scope.spawn(|| {
            the_private_directory(&part);
            the_files_of_a_cleanup(&part);
            the_harness_hook(&part);
            the_first_start(&part);
            the_list_of_watchers(&part);
        });
    });
    part.finish();
}

// ---------------------------------------------------------------- exchanged between check and use

/// The attacker's loop: this very program, copied where he can execute it, as another user.
#[test]
fn attackers_own_process() {
    let Some(orders) = std::env::var_os("RL_CLEANUP_ATTACKER") else { return };
    let orders = orders.into_string().unwrap();
    let words: Vec<&str> = orders.split('\t').collect();
    loop {
        // What fails now succeeds the next time.
        match words[..] {
            ["exchange", one, other, spare] => {
                for (from, to) in [(one, spare), (other, one), (spare, other)] {
                    let _ = fs::rename(from, to);
                }
            }
            ["flicker", path, target] => {
                let _ = fs::create_dir(path);
                let _ = fs::remove_dir(path);
                let _ = symlink(target, path);
                let _ = fs::remove_file(path);
            }
            ["write", path, text] => {
                let _ = fs::write(path, text);
                let _ = fs::remove_file(path);
            }
            _ => panic!("{orders}"),
        }
    }
}

/// Ended when dropped.
struct Loop(Child);

impl Loop {
    fn start(field: &Field, orders: &[&str]) -> Self {
        let program = field.path("attacker");
        if !program.exists() {
            field.install(&std::env::current_exe().unwrap(), "attacker");
        }
        let mut command = Command::new(program);
        command.args(["--exact", "attackers_own_process", "--nocapture"]).env_clear();
        command.env("RL_CLEANUP_ATTACKER", orders.join("\t")).uid(ATTACKER).gid(ATTACKER);
        Self(
            command
                .current_dir(field.path("ground"))
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .unwrap(),
        )
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The directory of the final script is exchanged for the attacker's, whose directory they are in.
fn exchanged_directories(part: &Part) {
    let field = Field::new();
    field.attack("mkdir -m 777 above; cp -r his above/evil");
    let state = field.path("ground/above/state");
    fs::create_dir(&state).unwrap();
    let script = "#!/bin/bash\necho cleaned\n";
    fs::write(state.join("cleanup.sh"), script).unwrap();
    for (path, mode) in [(state.join("cleanup.sh"), 0o700), (state.clone(), 0o700)] {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }
    let name = |name: &str| field.path("ground/above").join(name).display().to_string();
    let _loop = Loop::start(&field, &["exchange", &name("state"), &name("evil"), &name("spare")]);
    let hooks = "echo \"$BEAKERLIB_DIR/cleanup.sh\" >\"$TESTWATCHER_CLPATH\"";
    for n in 0..scale(40, 2000) {
        let outcome = run(field.watch(hooks).env("BEAKERLIB_DIR", &state)).and_then(|_| field.unharmed());
        part.count(outcome.map_err(|how| format!("exchanged directory, watch {n}: {how}")));
        let ended = run(field.tool(["append", "true"]).env("BEAKERLIB_DIR", &state));
        let outcome = ended.and_then(|ended| field.unharmed().and_then(|()| is_refusal(&ended)));
        part.count(outcome.map_err(|how| format!("exchanged directory, append {n}: {how}")));
        if field.path("canary").exists() {
            break;
        }
    }
}

/// In a directory like /var/tmp, the name of a state directory is now nothing, now a directory of the
/// attacker's, now a link of his to one of root's.
fn flickering_name(part: &Part) {
    let field = Field::new();
    let dir = field.path("ground/beakerlib-4711");
    let precious = field.path("precious");
    let orders = [&dir, &precious].map(|p| p.display().to_string());
    let attacker = Loop::start(&field, &["flicker", &orders[0], &orders[1]]);
    for n in 0..scale(100, 10_000) {
        let outcome = run(field.tool(["append", "true"]).env("BEAKERLIB_DIR", &dir)).and_then(|ended| {
            field.unharmed()?;
            match ended.status {
                // Root was first, and what root has made stays root's.
                Some(0) => {
                    let mine = fs::symlink_metadata(&dir).is_ok_and(|m| m.is_dir() && m.uid() == 0);
                    let _ = fs::remove_dir_all(&dir);
                    if mine { Ok(()) } else { Err("it went elsewhere".to_owned()) }
                }
                Some(1 | 3 | 4) => Ok(()),
                _ => Err(format!("{ended:?}")),
            }
        });
        part.count(outcome.map_err(|how| format!("flickering name, append {n}: {how}")));
    }
    drop(attacker);
}

/// The CLPATH file is gone, and the attacker writes his own there again and again.
fn flickering_clpath(part: &Part) {
    for n in 0..scale(4, 300) {
        let field = Field::new();
        fs::write(field.path("rootprog"), format!("#!/bin/bash\n{}\n", field.bytes())).unwrap();
        field.chmod("rootprog", 0o755);
        let text = format!("{}\n", field.path("rootprog").display());
        let mut attacker = None;
        let ended = plant_meanwhile(&field, ADDS, Stdio::null(), |clpath| {
            fs::remove_file(clpath).unwrap();
            attacker = Some(Loop::start(&field, &["write", &clpath.display().to_string(), &text]));
            common::wait_for("the attacker", || clpath.exists().then_some(()));
        });
        drop(attacker);
        let outcome = ended.and_then(|_| field.unharmed());
        part.count(outcome.map_err(|how| format!("flickering CLPATH {n}: {how}")));
    }
}

#[test]
fn what_is_exchanged_between_check_and_use_is_neither_run_nor_written() {
    if !able("what_is_exchanged_between_check_and_use_is_neither_run_nor_written") {
        return;
    }
    let part = Part::new("attackers: races");
    exchanged_directories(&part);
    flickering_name(&part);
    flickering_clpath(&part);
    part.finish();
}

// ---------------------------------------------------------------- the environment

/// Variables that have bash, or the loader, run something.
fn hostile_variables(field: &Field) -> Vec<(String, String)> {
    let bytes = field.bytes();
    let mut all: Vec<(String, String)> = [
        ("BASH_ENV", field.path("ground/his.sh").display().to_string()),
        ("ENV", field.path("ground/his.sh").display().to_string()),
        ("SHELLOPTS", "xtrace:verbose".to_owned()),
        ("PS4", format!("$({bytes})")),
        ("PROMPT_COMMAND", bytes.clone()),
        ("IFS", "/ \t".to_owned()),
        ("TMPDIR", field.path("ground/his").display().to_string()),
        ("CDPATH", field.path("ground").display().to_string()),
        ("BASHOPTS", "extdebug".to_owned()),
        ("POSIXLY_CORRECT", "1".to_owned()),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .into();
    for name in ["builtin", "set", "shopt", "alias", "unset", "eval", "printf", "trap", "true", "exec"] {
        all.push((format!("BASH_FUNC_{name}%%"), format!("() {{ {bytes}; }}")));
    }
    all
}

/// Reading, checking and keeping an entry runs nothing of the caller's environment, and makes no file
/// in TMPDIR. A snapshot holds no function that the environment alone has brought.
#[test]
fn a_hostile_environment_runs_nothing_while_entries_are_checked() {
    if !able("a_hostile_environment_runs_nothing_while_entries_are_checked") {
        return;
    }
    let part = Part::new("attackers: environment");
    let field = Field::new();
    let all = hostile_variables(&field);
    let mut sets: Vec<&[(String, String)]> = all.iter().map(std::slice::from_ref).collect();
    sets.push(&all);
    let before = fs::read_dir(field.path("ground/his")).unwrap().count();
    for (n, variables) in sets.into_iter().enumerate() {
        let dir = field.path(&format!("state{n}"));
        let checked = "case x in x) echo cleaned >>\"$ROOT/cleaned\" ;; esac";
        for args in
            [&["append", checked][..], &["prepend", "(true)"], &["rehook"], &["list"], &["show"], &["status"]]
        {
            let mut command = field.tool(args);
            command.env("BEAKERLIB_DIR", &dir).envs(variables.iter().map(|(k, v)| (k, v)));
            let outcome = run(&mut command).and_then(|ended| {
                field.unharmed()?;
                if fs::read_dir(field.path("ground/his")).unwrap().count() != before {
                    return Err("a file was left in TMPDIR".into());
                }
                if ended.status == Some(0) && ended.err.is_empty() {
                    Ok(())
                } else {
                    Err(format!("{ended:?}"))
                }
            });
            // One is not to be blamed for another.
            let _ = fs::remove_file(field.path("canary"));
            let names: Vec<_> = variables.iter().map(|(name, _)| name).collect();
            part.count(outcome.map_err(|how| format!("{names:?}: {}: {how}", args[0])));
        }
    }
    part.finish();
}

/// Where /var/tmp cannot be written, no directory of another user's serves instead.
#[test]
fn tmpdir_of_another_user_is_not_used() {
    let test = "tmpdir_of_another_user_is_not_used";
    if !able(test) {
        return;
    }
    let field = Field::new();
    // The field may be in /var/tmp itself, so this is in /tmp.
    let his = scratch("/tmp");
    chown(his.path(), Some(ATTACKER), Some(ATTACKER)).unwrap();
    let inner = "mount -t tmpfs none /mnt && cp \"$RL\" /mnt/rl && mount -t tmpfs -o ro none /var/tmp || exit 99\n\
                 cd /; exec /mnt/rl watch -- /bin/bash -c 'echo \"at $TESTWATCHER_CLPATH\"'";
    let mut command = field.command("unshare");
    command.args(["--mount", "--propagation", "private", "/bin/bash", "-c", inner]).env("TMPDIR", his.path());
    let Ok(Ended { status: Some(0), out, err }) = run(&mut command) else {
        return skipped(test, "no mount namespace to be had");
    };
    assert!(out.starts_with("at /tmp/testwatcher-"), "{out}{err}");
    assert!(fs::read_dir(his.path()).unwrap().next().is_none());
}

/// The name of BeakerLib's own directory can be guessed, and BeakerLib sources a file in it.
#[test]
fn beakerlib_does_not_work_in_a_directory_that_another_user_was_first_to_make() {
    let test = "beakerlib_does_not_work_in_a_directory_that_another_user_was_first_to_make";
    if !able(test) {
        return;
    }
    let Some(beakerlib) = common::beakerlib() else { return skipped(test, "BEAKERLIB is not set") };
    let field = Field::new();
    let id = format!("attack-{}", std::process::id());
    let guessed = format!("/var/tmp/beakerlib-{id}");
    field.attack(&format!("mkdir -m 755 {guessed}; cp his.sh {guessed}/PersistentData; cp his/* {guessed}/"));
    let script = ". \"$BEAKERLIB/beakerlib.sh\"; . \"$SHIM\"\nrlJournalStart\necho \"at $BEAKERLIB_DIR\"\n\
                  rlPhaseStartTest; rlPrependCleanup 'echo cleaned >>\"$ROOT/cleaned\"'; rlPhaseEnd\nrlJournalEnd";
    let mut command = field.watch(script);
    command.env("PATH", std::env::var_os("PATH").unwrap()).env("TESTID", &id);
    command.env("BEAKERLIB", beakerlib).env("SHIM", common::shim());
    let ended = run(&mut command);
    fs::remove_dir_all(&guessed).unwrap();
    let ended = ended.unwrap();
    let at = ended.out.lines().find_map(|l| l.strip_prefix("at ")).unwrap_or_default().to_owned();
    let outcome = cleaned(&field);
    if at.starts_with("/var/tmp/beakerlib-") {
        fs::remove_dir_all(&at).unwrap();
    }
    assert_eq!(outcome, Ok(()), "{ended:#?}");
    assert_ne!(at, guessed);
    assert!(ended.err.contains(&format!("will not trust '{guessed}'")), "{ended:#?}");
}

// ---------------------------------------------------------------- what is ordinary

/// None of this is an attack, and none of it is refused.
#[test]
fn ordinary_places_are_not_refused() {
    if !able("ordinary_places_are_not_refused") {
        return;
    }
    let field = Field::new();
    let works = |dir: &Path, sudo: Option<u32>| {
        let mut command = field.tool(["append", "true"]);
        command.env("BEAKERLIB_DIR", dir);
        sudo.map(|uid| command.env("SUDO_UID", uid.to_string()));
        run(&mut command).unwrap().ok();
        watch_directory(&field, dir, sudo.is_none()).unwrap();
    };
    // In a sticky directory; below a link that root has made, also one in a sticky directory.
    works(&field.path("ground/mine"), None);
    field.make_dir("run", 0o755);
    symlink("run", field.path("var-run")).unwrap();
    symlink("../run", field.path("ground/link")).unwrap();
    works(&field.path("var-run/a/state"), None);
    works(&field.path("ground/link/../run/b/state"), None);
    // Root's group is root's own: umask 002.
    field.make_dir("group", 0o775);
    works(&field.path("group/state"), None);
    // A user's directory, under sudo.
    field.attack("mkdir -m 775 home");
    let home = field.path("ground/home/state");
    run(field.tool(["append", "true"]).env("BEAKERLIB_DIR", &home)).unwrap().fails(4, "belongs to");
    // His group is not known to be his own; under umask 022 there is nothing to ask.
    field.attack("chmod 755 home");
    works(&home, Some(ATTACKER));
}

/// Where `/` belongs to a user without a number in this namespace, as in a container without root.
#[test]
fn a_root_directory_of_an_unmapped_user_is_not_refused() {
    let test = "a_root_directory_of_an_unmapped_user_is_not_refused";
    if !able(test) {
        return;
    }
    let field = Field::new();
    field.install(&toolkit(), "rl-cleanup");
    let home = field.make_dir("home", 0o700);
    chown(&home, Some(NEIGHBOUR), Some(NEIGHBOUR)).unwrap();
    let script = "[ \"$(stat -c %u /)\" = \"$(cat /proc/sys/kernel/overflowuid)\" ] || exit 99\n\
                  exec \"$ROOT/rl-cleanup\" watch -- /bin/bash -c '\"$ROOT/rl-cleanup\" append \"echo cleaned >>cleaned\"'";
    let mut command = field.command("unshare");
    command.args(["--user", "--map-root-user", "/bin/bash", "-c", script]).current_dir(&home);
    command.env("BEAKERLIB_DIR", home.join("state")).uid(NEIGHBOUR).gid(NEIGHBOUR);
    let ended = run(&mut command).unwrap();
    if ended.err.contains("unshare") || ended.status == Some(99) {
        return skipped(test, "no user namespace to be had");
    }
    assert_eq!(fs::read_to_string(home.join("cleaned")).unwrap_or_default(), "cleaned\n", "{ended:#?}");
}
