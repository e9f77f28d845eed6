//! What `make install` puts down works from there, and `make uninstall` takes all of it away again.

#![allow(clippy::unwrap_used, reason = "in a test a panic is the answer")]

#[path = "common/stage.rs"]
mod stage;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Runs make on the programs that this test was built with, and not on a release build.
fn make(target: &str, variables: &[String]) {
    let mut make = stage::command("make");
    make.current_dir(stage::repository()).arg("--no-print-directory").arg(target).args(variables);
    make.env_remove("MAKEFLAGS").env_remove("MAKELEVEL");
    make.arg(format!("TARGET={}", stage::programs().display()));
    for program in ["rl-cleanup", "beakerlib-testwatcher"] {
        // Old enough, whatever the sources' time stamps say: cargo has just built it.
        make.arg("-o").arg(stage::programs().join(program));
    }
    let done = make.output().unwrap();
    assert!(done.status.success(), "make {target}: {}", String::from_utf8_lossy(&done.stderr));
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

#[test]
fn uninstall_leaves_nothing_of_what_install_put_there() {
    let scratch = stage::scratch();
    let dest = scratch.path().join("a root with spaces");
    furnish(&dest.join("usr/local"));
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
        "share/doc/rl-cleanup/README.md",
    ] {
        let path = dest.join("usr/local").join(file);
        assert!(installed.contains(&path), "not installed: {}", path.display());
        assert!(fs::metadata(&path).unwrap().len() > 0, "empty: {}", path.display());
    }

    make("uninstall", &variables);
    assert_eq!(tree(&dest), before);
    make("uninstall", &variables);
}

#[test]
fn the_installed_program_finds_its_own_shim() {
    let scratch = stage::scratch();
    let prefix = scratch.path().join("prefix");
    make("install", &[format!("PREFIX={}", prefix.display())]);
    let said = stage::command(prefix.join("bin/rl-cleanup")).args(["shim", "--path"]).output().unwrap();
    assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
    let path = PathBuf::from(String::from_utf8(said.stdout).unwrap().trim_end());
    assert!(path.starts_with(&prefix), "{} is not below {}", path.display(), prefix.display());
    assert_eq!(fs::read(path).unwrap(), fs::read(stage::repository().join("shell/rl-cleanup.sh")).unwrap());
}
