//! What `make install` puts down works from there, and `make uninstall` takes all of it away again.

#![allow(clippy::unwrap_used, reason = "in a test a panic is the answer")]

#[path = "common/stage.rs"]
mod stage;

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Runs make on the programs that this test was built with, and not on a release build.
fn make(target: &str, variables: &[String]) {
    make_from(stage::programs(), target, variables);
}

fn make_from(programs: &Path, target: &str, variables: &[String]) {
    let mut make = stage::command("make");
    make.current_dir(stage::repository()).arg("--no-print-directory").arg(target).args(variables);
    make.env_remove("MAKEFLAGS").env_remove("MAKELEVEL");
    make.arg(format!("TARGET={}", programs.display()));
    for program in ["rl-cleanup", "beakerlib-testwatcher"] {
        // Old enough, whatever the sources' time stamps say: cargo has just built it.
        make.arg("-o").arg(programs.join(program));
    }
    let done = make.output().unwrap();
    assert!(done.status.success(), "make {target}: {}", String::from_utf8_lossy(&done.stderr));
}

/// Variables of make's that keep it within a scratch root: this machine may have a
/// BeakerLib and harnesses of its own.
fn nothing_outside() -> [String; 3] {
    ["BEAKERLIB=", "RESTRAINT_HOOKS=/nowhere/restraint", "BEAH_HOOKS=/nowhere/beah"].map(str::to_owned)
}

/// Every file and directory below `dir`.
fn tree(dir: &Path) -> BTreeSet<PathBuf> {
    let mut found = BTreeSet::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(tree(&path));
        }
        found.insert(path);
    }
    found
}

/// The directories that a system has anyway, and that are not ours to remove.
fn furnish(prefix: &Path) {
    for dir in [
        "bin",
        "share/man/man1",
        "share/man/man7",
        "share/doc",
        "share/bash-completion/completions",
        "share/zsh/site-functions",
        "share/fish/vendor_completions.d",
    ] {
        fs::create_dir_all(prefix.join(dir)).unwrap();
    }
}

fn shim_text() -> Vec<u8> {
    fs::read(stage::repository().join("shell/rl-cleanup.sh")).unwrap()
}

#[test]
fn uninstall_leaves_nothing_of_what_install_put_there() {
    let scratch = stage::scratch();
    let dest = scratch.path().join("a root with spaces");
    furnish(&dest.join("usr/local"));
    fs::create_dir_all(dest.join("usr/share/beakerlib")).unwrap();
    let before = tree(&dest);
    let variables = [format!("DESTDIR={}", dest.display())];

    make("install", &variables);
    let installed = tree(&dest);
    for file in [
        "bin/rl-cleanup",
        "bin/beakerlib-testwatcher",
        "share/rl-cleanup/rl-cleanup.sh",
        "share/man/man1/rl-cleanup.1",
        "share/man/man1/beakerlib-testwatcher.1",
        "share/man/man7/rl-cleanup-shim.7",
        "share/bash-completion/completions/rl-cleanup",
        "share/zsh/site-functions/_rl-cleanup",
        "share/fish/vendor_completions.d/rl-cleanup.fish",
        "share/bash-completion/completions/beakerlib-testwatcher",
        "share/fish/vendor_completions.d/beakerlib-testwatcher.fish",
        "share/beakerlib-libraries/rl-cleanup/cleanup/lib.sh",
        "share/beakerlib-libraries/rl-cleanup/cleanup/main.fmf",
        "share/vim/vimfiles/after/syntax/sh/rl-cleanup.vim",
        "share/vim/vimfiles/after/syntax/beakerlib/rl-cleanup.vim",
        "share/rl-cleanup/dictionary.vim",
        "share/doc/rl-cleanup/README.md",
    ] {
        let path = dest.join("usr/local").join(file);
        assert!(installed.contains(&path), "not installed: {}", path.display());
        assert!(fs::metadata(&path).unwrap().len() > 0, "empty: {}", path.display());
    }

    let plugin = dest.join("usr/share/beakerlib/plugins/rl-cleanup.sh");
    assert!(fs::read_link(&plugin).unwrap().is_relative(), "a package's root is not the machine's");
    assert_eq!(fs::read(&plugin).unwrap(), shim_text());

    make("uninstall", &variables);
    assert_eq!(tree(&dest), before);
    make("uninstall", &variables);
}

#[test]
fn the_installed_program_finds_its_own_shim() {
    let scratch = stage::scratch();
    let prefix = scratch.path().join("prefix");
    let variables = [&[format!("PREFIX={}", prefix.display())], &nothing_outside()[..]].concat();
    make("install", &variables);
    let said = stage::command(prefix.join("bin/rl-cleanup")).args(["shim", "--path"]).output().unwrap();
    assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
    let path = PathBuf::from(String::from_utf8(said.stdout).unwrap().trim_end());
    assert!(path.starts_with(&prefix), "{} is not below {}", path.display(), prefix.display());
    assert_eq!(fs::read(path).unwrap(), shim_text());
}

#[test]
fn the_installed_pages_have_what_they_link_to() {
    let scratch = stage::scratch();
    let prefix = scratch.path().join("prefix");
    make("install", &[&[format!("PREFIX={}", prefix.display())], &nothing_outside()[..]].concat());
    let doc = prefix.join("share/doc/rl-cleanup");
    let readme = fs::read_to_string(doc.join("README.md")).unwrap();
    let links: Vec<_> = readme.split("](").skip(1).map(|part| part.split(')').next().unwrap()).collect();
    assert!(links.len() > 10, "{links:?}");
    // What is not in the sources either is for tests/docs.rs to say.
    for link in links.into_iter().filter(|link| stage::repository().join(link).exists()) {
        assert!(doc.join(link).exists(), "{link} is not installed");
    }
}

#[test]
fn one_file_can_be_both_programs() {
    let scratch = stage::scratch();
    let (built, prefix) = (scratch.path().join("built"), scratch.path().join("prefix"));
    fs::create_dir(&built).unwrap();
    fs::copy(env!("CARGO_BIN_EXE_rl-cleanup"), built.join("rl-cleanup")).unwrap();
    symlink("rl-cleanup", built.join("beakerlib-testwatcher")).unwrap();
    let variables = [&[format!("PREFIX={}", prefix.display())], &nothing_outside()[..]].concat();
    make_from(&built, "install", &variables);

    let watcher = prefix.join("bin/beakerlib-testwatcher");
    assert_eq!(fs::read_link(&watcher).unwrap(), Path::new("rl-cleanup"));
    symlink("rl-cleanup", prefix.join("bin/testwatcher.py")).unwrap();
    for name in [watcher, prefix.join("bin/testwatcher.py")] {
        let ended = stage::command(&name).args(["sh", "-c", "exit 7", "--help"]).output().unwrap();
        let said = String::from_utf8_lossy(&ended.stderr).into_owned();
        assert_eq!(ended.status.code(), Some(7), "{}: {said}", name.display());
        // No option of its own: each word belongs to the command.
        assert_eq!(stage::command(&name).arg("--version").status().unwrap().code(), Some(127));
        assert_eq!(stage::command(&name).status().unwrap().code(), Some(2));
    }
    let toolkit = stage::command(prefix.join("bin/rl-cleanup")).arg("--version").output().unwrap();
    assert!(toolkit.stdout.starts_with(b"rl-cleanup "));
}

#[test]
fn a_plugin_that_is_not_ours_stays() {
    let scratch = stage::scratch();
    let plugins = scratch.path().join("usr/share/beakerlib/plugins");
    let plugin = plugins.join("rl-cleanup.sh");
    fs::create_dir_all(&plugins).unwrap();
    let variables = [format!("DESTDIR={}", scratch.path().display())];

    fs::write(&plugin, "a copy that somebody has changed").unwrap();
    make("install", &variables);
    make("uninstall", &variables);
    assert_eq!(fs::read_to_string(&plugin).unwrap(), "a copy that somebody has changed");

    fs::remove_file(&plugin).unwrap();
    symlink("/opt/theirs.sh", &plugin).unwrap();
    make("install", &variables);
    make("uninstall", &variables);
    assert_eq!(fs::read_link(&plugin).unwrap(), Path::new("/opt/theirs.sh"));

    // One of ours, from another prefix, is replaced.
    fs::remove_file(&plugin).unwrap();
    symlink("/opt/share/rl-cleanup/rl-cleanup.sh", &plugin).unwrap();
    make("install", &variables);
    assert_eq!(fs::read(&plugin).unwrap(), shim_text());
    make("uninstall", &variables);
    assert!(!plugins.exists(), "BeakerLib complains about an empty one");
}

/// An installed tree with a copy of the real BeakerLib in it, where packages have it.
struct Root {
    scratch: tempfile::TempDir,
    usr: PathBuf,
}

impl Root {
    fn install(beakerlib: &Path, variables: &[String]) -> Self {
        let scratch = stage::scratch();
        let usr = scratch.path().join("root/usr");
        fs::create_dir_all(usr.join("share")).unwrap();
        let copied =
            Command::new("cp").args(["-r", "--"]).arg(beakerlib).arg(usr.join("share/beakerlib")).status();
        assert!(copied.unwrap().success());
        let place = [format!("DESTDIR={}", usr.parent().unwrap().display()), "PREFIX=/usr".to_owned()];
        make("install", &[&place[..], variables].concat());
        Self { scratch, usr }
    }

    /// Writes a test and runs it under the installed watcher, found by `PATH`.
    fn watch(&self, lines: &str) -> (std::process::ExitStatus, String) {
        let test = self.scratch.path().join("test.sh");
        fs::write(&test, format!(". \"$BEAKERLIB/beakerlib.sh\" || exit 1\n{lines}")).unwrap();
        let mut env = stage::command("env");
        env.arg("beakerlib-testwatcher").arg("bash").arg(test).current_dir(self.scratch.path());
        let path = std::env::var("PATH").unwrap();
        env.env("PATH", format!("{}:{path}", self.usr.join("bin").display()));
        env.env("BEAKERLIB", self.usr.join("share/beakerlib")).env_remove("RL_CLEANUP");
        env.env("BEAKERLIB_LIBRARY_PATH", self.usr.join("share/beakerlib-libraries"));
        env.env("TERM", "dumb").env("OUT", self.scratch.path()).env("TMPDIR", self.scratch.path());
        let ended = env.output().unwrap();
        let text = [ended.stdout, ended.stderr].concat();
        (ended.status, String::from_utf8_lossy(&text).into_owned())
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.scratch.path().join(name)).unwrap_or_default()
    }
}

const TEST: &str = r#"
    rlJournalStart
      rlPhaseStartTest
        IMPORT
        kept=kept
        rlRun "rlAppendCleanup 'echo \"$kept\" >>\"$OUT/order\"'"
        rlCleanupPrepend 'echo first >>"$OUT/order"'
        rlRun "rlCleanupList | grep first"
        declare -f rlCleanupRun >"$OUT/function"
        ps -o args= -p "$PPID" >"$OUT/watcher"
      rlPhaseEnd
    rlJournalEnd
"#;

fn passes(root: &Root, import: &str) {
    let (status, said) = root.watch(&TEST.replace("IMPORT", import));
    assert_eq!(root.read("order"), "first\nkept\n", "{said}");
    assert_eq!(status.code(), Some(0), "{said}");
    assert!(root.read("function").contains("__rlc_send"), "the shim was not loaded: {said}");
    assert!(root.read("watcher").starts_with("beakerlib-testwatcher "), "{}", root.read("watcher"));
}

#[test]
fn an_installed_tree_works_when_path_and_beakerlib_point_into_it() {
    let test = "an_installed_tree_works_when_path_and_beakerlib_point_into_it";
    let Some(beakerlib) = stage::beakerlib() else { return stage::skip(test, "BEAKERLIB is not set") };
    passes(&Root::install(&beakerlib, &[]), "");
}

#[test]
fn the_shim_is_a_library_of_beakerlibs_too() {
    let test = "the_shim_is_a_library_of_beakerlibs_too";
    let Some(beakerlib) = stage::beakerlib() else { return stage::skip(test, "BEAKERLIB is not set") };
    let import = "rlRun 'rlImport rl-cleanup/cleanup'";
    // With the plugin there, and with the library alone.
    passes(&Root::install(&beakerlib, &[]), import);
    let alone = Root::install(&beakerlib, &["BEAKERLIB=".to_owned()]);
    passes(&alone, import);
    // From the sources, with the shim that is there.
    fs::remove_file(alone.scratch.path().join("order")).unwrap();
    let shell = stage::repository().join("shell");
    passes(
        &alone,
        &format!("BEAKERLIB_LIBRARY_PATH='{}'; rlRun 'rlImport library/cleanup'", shell.display()),
    );
    // The file alone: the program carries the shim.
    fs::remove_file(alone.scratch.path().join("order")).unwrap();
    fs::remove_file(alone.usr.join("share/rl-cleanup/rl-cleanup.sh")).unwrap();
    passes(&alone, import);
    // Nothing at all.
    fs::remove_file(alone.usr.join("bin/rl-cleanup")).unwrap();
    let hidden = "RL_CLEANUP=/nowhere/rl-cleanup";
    let (_, said) =
        alone.watch(&format!("{hidden}; rlJournalStart; rlImport rl-cleanup/cleanup && touch \"$OUT/in\""));
    assert!(said.contains("nor the program 'rl-cleanup' was found"), "{said}");
    assert!(!alone.scratch.path().join("in").exists(), "{said}");
}
