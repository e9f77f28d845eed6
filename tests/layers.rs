//! Imports run downward (CONTRIBUTING.md): bin -> cli -> {watch, cleanup, harness} -> hook,
//! registry -> error. The two halves do not know each other, and pure rooms do no I/O.
#![allow(clippy::unwrap_used, reason = "a test that panics has failed")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Which rooms a room may name.
fn allowed() -> BTreeMap<&'static str, &'static [&'static str]> {
    BTreeMap::from([
        ("error", &[][..]),
        ("bounds", &["error"]),
        ("hook", &["error", "bounds"]),
        ("registry", &["error", "bounds", "hook"]),
        ("cleanup", &["error", "bounds", "hook", "registry"]),
        ("harness", &["error", "bounds", "hook", "registry"]),
        ("watch", &["error", "bounds", "hook", "registry", "harness"]),
        ("cli", &["error", "bounds", "hook", "registry", "harness", "watch", "cleanup"]),
    ])
}

fn sources(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|e| e == "rs") {
            found.push(path);
        }
    }
}

/// The room of `src/cleanup/store.rs` is `cleanup`.
fn room(path: &Path) -> String {
    let inside = path.strip_prefix(Path::new(env!("CARGO_MANIFEST_DIR")).join("src")).unwrap();
    inside.iter().next().unwrap().to_str().unwrap().trim_end_matches(".rs").to_owned()
}

/// Every room that a file names, with the line number: `use crate::x`, `crate::{x, y}`, `crate::x::f()`.
/// Documentation may name anything.
fn named(text: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    for (n, line) in text.lines().enumerate() {
        let code = line.split("//").next().unwrap_or_default();
        for part in code.split("crate::").skip(1) {
            let names = match part.strip_prefix('{') {
                Some(list) => list.split('}').next().unwrap_or_default(),
                None => part,
            };
            for name in names.split(',') {
                let name: String =
                    name.trim().chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect();
                if !name.is_empty() {
                    found.push((n + 1, name));
                }
                if !part.starts_with('{') {
                    break;
                }
            }
        }
    }
    found
}

#[test]
fn every_import_runs_downward() {
    let allowed = allowed();
    let mut files = Vec::new();
    sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut files);
    let mut wrong = Vec::new();
    for path in files {
        let here = room(&path);
        if here == "bin" || here == "lib" {
            continue;
        }
        let may =
            allowed.get(here.as_str()).unwrap_or_else(|| panic!("room '{here}' is not on the map: add it"));
        for (line, name) in named(&std::fs::read_to_string(&path).unwrap()) {
            let known = allowed.contains_key(name.as_str());
            if known && name != here && !may.contains(&name.as_str()) {
                wrong.push(format!("{}:{line}: '{here}' must not know '{name}'", path.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn pure_rooms_touch_nothing_outside() {
    let forbidden = [
        "std::fs",
        "std::env",
        "std::process",
        "std::time::SystemTime",
        "std::time::Instant",
        "std::io",
        "nix::",
    ];
    let mut wrong = Vec::new();
    for file in [
        "cleanup/buffer.rs",
        "cleanup/snapshot.rs",
        "cleanup/script.rs",
        "cleanup/syntax.rs",
        "watch/machine.rs",
    ] {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("src").join(file);
        // Not every room is built in every branch.
        let Ok(text) = std::fs::read_to_string(&path) else { continue };
        let code = text.split("#[cfg(test)]").next().unwrap_or_default();
        for (n, line) in code.lines().enumerate() {
            let line = line.split("//").next().unwrap_or_default();
            // A signal's name is a value, not an act; to read a slice is no I/O.
            let harmless =
                ["std::os::unix::", "std::io::BufRead", "nix::sys::signal::Signal", "nix::unistd::Pid"];
            let line = harmless.iter().fold(line.to_owned(), |line, h| line.replace(h, ""));
            for name in forbidden.iter().filter(|f| line.contains(**f)) {
                wrong.push(format!("src/{file}:{}: {name}", n + 1));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn both_forms_of_an_import_are_seen() {
    let names = |text: &str| named(text).into_iter().map(|(_, n)| n).collect::<Vec<_>>();
    assert_eq!(names("use crate::{error::Error, watch};"), ["error", "watch"]);
    assert_eq!(names("    crate::hook::boottime_ns() // crate::watch"), ["hook"]);
}
