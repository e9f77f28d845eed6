//! Promise: what is linked into the programs is what was meant to be, from where it was meant to come
//! from, and with one unsafe block at most.
//!
//! `deny.toml` says what may come in. `make check` asks `cargo deny` where it is installed; `make torture`
//! installs it if it can.
#![allow(clippy::unwrap_used, reason = "a test that panics has failed")]

#[path = "common/skips.rs"]
mod skips;
#[path = "common/torture.rs"]
mod torture;

use serde_json::Value;
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use torture::{Part, is_full};

/// What the programs use, and what for. A name that comes in or goes is a decision, and is made here too.
const DEPENDENCIES: [(&str, &str); 10] = [
    ("clap", "command lines"),
    ("clap_complete", "completion scripts"),
    ("fs2", "the lock on a state directory"),
    ("libc", "numbers of the kernel's that no other crate names"),
    ("nix", "system calls"),
    ("rustix", "pidfds, and the terminal"),
    ("saphyr-parser", "tmt's metadata"),
    ("serde_json", "list and status as JSON"),
    ("shell-escape", "words of a command in an entry"),
    ("tempfile", "new files that are renamed over old ones"),
];

fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn text(name: &str) -> String {
    fs::read_to_string(repository().join(name)).unwrap()
}

fn sources(dir: &Path, found: &mut Vec<PathBuf>) {
    for path in fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()) {
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|e| e == "rs") {
            found.push(path);
        }
    }
}

/// Blocks, functions and implementations that are unsafe, and places where the lint against them is off.
fn unsafe_code(text: &str) -> (usize, usize) {
    let code: Vec<&str> = text.lines().map(|l| l.split("//").next().unwrap_or_default()).collect();
    let count = |words: &[&str]| code.iter().filter(|l| words.iter().any(|w| l.contains(w))).count();
    (
        count(&["unsafe {", "unsafe fn ", "unsafe impl ", "unsafe extern ", "unsafe trait "]),
        count(&["expect(unsafe_code", "allow(unsafe_code"]),
    )
}

fn one_unsafe_block(part: &Part) {
    let mut files = Vec::new();
    sources(&repository().join("src"), &mut files);
    let counts: Vec<_> = files.iter().map(|f| unsafe_code(&fs::read_to_string(f).unwrap())).collect();
    let blocks: usize = counts.iter().map(|c| c.0).sum();
    let lifted: usize = counts.iter().map(|c| c.1).sum();
    println!(
        "torture: supply: {blocks} unsafe block, the lint is off in {lifted} place, in {} files",
        files.len()
    );
    part.count(match (blocks, lifted) {
        (0..=1, 0..=1) => Ok(()),
        _ => Err(format!("{blocks} unsafe blocks, and the lint is off in {lifted} places")),
    });
    let denied = text("Cargo.toml").lines().any(|l| l == "unsafe_code = \"deny\"");
    part.count(denied.then_some(()).ok_or_else(|| "nothing denies unsafe code".into()));
    assert_eq!(unsafe_code("unsafe { a }\n// unsafe { b }\n#[allow(unsafe_code)]\n"), (1, 1));
}

/// `[[package]]` by `[[package]]`: name and source, `None` for what lies in the repository.
fn locked(lock: &str) -> Vec<(String, Option<String>)> {
    let field = |piece: &str, key: &str| {
        let line = piece.lines().find_map(|l| l.strip_prefix(key)?.strip_prefix(" = "))?;
        Some(line.trim_matches('"').to_owned())
    };
    let pieces = lock.split("[[package]]").skip(1);
    pieces.map(|piece| (field(piece, "name").unwrap(), field(piece, "source"))).collect()
}

fn only_crates_io(part: &Part) {
    for (file, ours) in
        [("Cargo.lock", &["rl-cleanup"][..]), ("fuzz/Cargo.lock", &["rl-cleanup", "rl-cleanup-fuzz"])]
    {
        let lock = text(file);
        let packages = locked(&lock);
        println!("torture: supply: {file} names {} packages", packages.len());
        for (name, source) in &packages {
            part.count(match source.as_deref() {
                Some("registry+https://github.com/rust-lang/crates.io-index") => Ok(()),
                None if ours.contains(&name.as_str()) => Ok(()),
                other => Err(format!("{file}: {name} comes from {other:?}")),
            });
        }
        let sums = lock.lines().filter(|l| l.starts_with("checksum = ")).count();
        let complete = sums == packages.len() - ours.len();
        part.count(complete.then_some(()).ok_or_else(|| format!("{file}: {sums} checksums")));
    }
}

/// What cargo knows of the packages that are linked on Linux.
fn metadata() -> Result<Value, String> {
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["metadata", "--locked", "--offline", "--format-version", "1"]);
    cargo.args(["--filter-platform", "x86_64-unknown-linux-gnu"]).current_dir(repository());
    let answer = cargo.output().map_err(|e| e.to_string())?;
    serde_json::from_slice(&answer.stdout).map_err(|_| String::from_utf8_lossy(&answer.stderr).into_owned())
}

/// `1.88` and `1.88.0` are the same.
fn version(text: &str) -> Vec<u32> {
    let mut parts: Vec<u32> = text.split('.').map(|n| n.parse().unwrap()).collect();
    parts.resize(3, 0);
    parts
}

fn dependencies_are_the_meant_ones(part: &Part) {
    let metadata = match metadata() {
        Ok(metadata) => metadata,
        Err(why) => return part.lost(format!("cargo metadata: {why}")),
    };
    let packages = metadata["packages"].as_array().unwrap();
    let ours = packages.iter().find(|p| p["name"] == "rl-cleanup").unwrap();
    let direct: BTreeSet<&str> = ours["dependencies"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|d| d["kind"].is_null())
        .map(|d| d["name"].as_str().unwrap())
        .collect();
    let meant: BTreeSet<&str> = DEPENDENCIES.iter().map(|d| d.0).collect();
    part.count(if direct == meant { Ok(()) } else { Err(format!("{direct:?} is not {meant:?}")) });
    let promised = ours["rust_version"].as_str().unwrap();
    // Edition 2024 came with 1.85 (the Rust release notes).
    let new_enough = version(promised) >= version("1.85");
    part.count(
        new_enough.then_some(()).ok_or_else(|| format!("rust-version {promised} has no edition 2024")),
    );
    for package in packages {
        let needs = package["rust_version"].as_str().unwrap_or("1.0");
        part.count(match version(needs) <= version(promised) {
            true => Ok(()),
            false => Err(format!("{} needs Rust {needs}; we promise {promised}", package["name"])),
        });
    }
}

/// `cargo deny`, or why there is none.
fn deny() -> Result<(), String> {
    let works =
        || Command::new(env!("CARGO")).args(["deny", "--version"]).output().is_ok_and(|o| o.status.success());
    if works() {
        return Ok(());
    }
    if !is_full() {
        return Err("cargo-deny is not installed (cargo install --locked cargo-deny)".into());
    }
    println!("torture: supply: installing cargo-deny, which takes minutes");
    let install = Command::new(env!("CARGO")).args(["install", "--quiet", "--locked", "cargo-deny"]).status();
    match install.is_ok_and(|s| s.success()) && works() {
        true => Ok(()),
        false => Err("cargo-deny is not installed, and cannot be".into()),
    }
}

fn what_cargo_deny_says(part: &Part) {
    if let Err(why) = deny() {
        return skips::record("what_cargo_deny_says", &why);
    }
    for check in ["bans", "licenses", "sources", "advisories"] {
        let mut cargo = Command::new(env!("CARGO"));
        cargo.args(["deny", "--locked", "check", check]).current_dir(repository());
        let answer = cargo.output().unwrap();
        let said = String::from_utf8_lossy(&answer.stderr).into_owned();
        if check == "advisories" && said.contains("failed to fetch advisory database") {
            skips::record("what_cargo_deny_says", "the database of advisories cannot be reached");
            continue;
        }
        part.count(if answer.status.success() {
            Ok(())
        } else {
            Err(format!("cargo deny check {check}: {said}"))
        });
    }
}

#[test]
fn only_what_was_meant_is_linked() {
    let part = Part::new("supply");
    one_unsafe_block(&part);
    only_crates_io(&part);
    dependencies_are_the_meant_ones(&part);
    what_cargo_deny_says(&part);
    part.finish();
}
