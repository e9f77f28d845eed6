//! Promise: every block of bash in `docs/migration.md` runs and prints what the block below it says, with
//! the shim alone and with BeakerLib, with and without a watcher.

#![allow(clippy::unwrap_used, reason = "in a test a panic is the answer")]

#[path = "common/stage.rs"]
mod stage;

use std::path::PathBuf;

/// What a test sources first.
enum With {
    ShimAlone,
    BeakerLib(PathBuf),
}

/// The page's blocks of bash, each with the lines that it must print.
fn blocks() -> Vec<(String, Vec<String>)> {
    let page = std::fs::read_to_string(stage::repository().join("docs/migration.md")).unwrap();
    let mut found = Vec::new();
    for part in page.split("\n```bash\n").skip(1) {
        let (code, rest) = part.split_once("\n```\n").unwrap();
        let printed = rest.strip_prefix("\n```text\n").unwrap_or_else(|| panic!("no output below:\n{code}"));
        let (printed, _) = printed.split_once("\n```\n").unwrap();
        found.push((code.to_owned(), printed.lines().map(str::to_owned).collect()));
    }
    found
}

/// Runs a block in front of the watcher or without one, and returns its output.
fn run(code: &str, with: &With, watched: bool) -> String {
    let scratch = stage::scratch();
    let shim = "eval \"$(rl-cleanup shim)\"\n";
    let head = match with {
        With::ShimAlone => shim.to_owned(),
        With::BeakerLib(dir) => {
            format!("export BEAKERLIB='{0}'\n. '{0}/beakerlib.sh'\n{shim}", dir.display())
        }
    };
    let test = scratch.path().join("runtest.sh");
    std::fs::write(&test, format!("{head}{code}\n")).unwrap();
    let mut command = stage::command(if watched { "beakerlib-testwatcher" } else { "bash" });
    if watched {
        command.arg("bash");
    }
    command.arg(&test).current_dir(scratch.path()).env("BEAKERLIB_DIR", scratch.path().join("state"));
    command.env("TERM", "dumb").env("BEAKERLIB_JOURNAL", "0");
    let mut run = stage::Running::start(command, scratch.path().join("output"));
    let status = run.exit_status();
    assert_eq!(status, 0, "{}\n{code}", run.output());
    run.output()
}

/// The lines of the output that are in the page, in their order, and only those.
fn check(with: &With) {
    let blocks = blocks();
    assert!(blocks.len() >= 4, "docs/migration.md has lost its blocks");
    let everything: Vec<&String> = blocks.iter().flat_map(|(_, printed)| printed).collect();
    for (code, printed) in &blocks {
        for watched in [true, false] {
            let output = run(code, with, watched);
            assert!(!output.lines().any(|line| line == "never printed"), "{output}\n{code}");
            let seen: Vec<&str> =
                output.lines().filter(|line| everything.iter().any(|known| known == line)).collect();
            assert_eq!(&seen, printed, "watched: {watched}\n{output}\n{code}");
        }
    }
}

#[test]
fn with_the_shim_alone_every_block_prints_what_the_page_says() {
    check(&With::ShimAlone);
}

#[test]
fn with_beakerlib_every_block_prints_what_the_page_says() {
    match stage::beakerlib().filter(|dir| dir.join("beakerlib.sh").exists()) {
        Some(dir) => check(&With::BeakerLib(dir)),
        None => stage::skip(
            "with_beakerlib_every_block_prints_what_the_page_says",
            "BEAKERLIB names no BeakerLib",
        ),
    }
}
