//! Promise: the pictures in `docs/pictures` are drawn by `draw.py` there (`make screenshots`), show what the
//! programs print today, and need nothing from outside.

#![allow(clippy::unwrap_used, reason = "in a test a panic is the answer")]

#[path = "common/stage.rs"]
mod stage;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

const PICTURES: [&str; 2] = ["session.svg", "timeline.svg"];

fn pictures() -> PathBuf {
    stage::repository().join("docs/pictures")
}

fn read(dir: &Path, name: &str) -> String {
    std::fs::read_to_string(dir.join(name)).unwrap()
}

/// What the picture says, in its order, without what is another one in each run: ids, processes, times and the
/// names of temporary directories.
fn says(svg: &str) -> Vec<String> {
    let texts = svg.split("<text ").skip(1).map(|part| {
        let (_, text) = part.split_once('>').unwrap();
        text.split_once("</text>").unwrap().0
    });
    texts.map(|text| text.split_whitespace().map(lasting).collect::<Vec<_>>().join(" ")).collect()
}

/// A word without what is another one in each run.
fn lasting(word: &str) -> String {
    if word.len() == 6 && word.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit()) {
        return "ID".to_owned();
    }
    let word = match word.split_once("/tmp.") {
        Some((dir, rest)) => format!("{dir}/tmp.X{}", rest.trim_start_matches(|c: char| c.is_alphanumeric())),
        None => word.to_owned(),
    };
    let mut out = String::new();
    for c in word.chars() {
        match c {
            '0'..='9' if out.ends_with('0') => {}
            '0'..='9' => out.push('0'),
            _ => out.push(c),
        }
    }
    out
}

#[test]
fn the_pictures_show_what_the_programs_print_today() {
    let test = "the_pictures_show_what_the_programs_print_today";
    if !stage::works("python3", &["--version"]) {
        return stage::skip(test, "needs python3");
    }
    let scratch = stage::scratch();
    let drawn =
        stage::command("python3").arg(pictures().join("draw.py")).arg(scratch.path()).output().unwrap();
    assert!(drawn.status.success(), "{}", String::from_utf8_lossy(&drawn.stderr));

    let [old, new] = [pictures(), scratch.path().to_owned()].map(|dir| says(&read(&dir, "session.svg")));
    assert!(new.iter().any(|line| line.contains("entries, all ok")), "{new:#?}");
    assert_eq!(old, new, "run 'make screenshots': the committed session on the left, today's on the right");
    // How many ticks its axes have depends on how long the run took.
    let [old, new] = [pictures(), scratch.path().to_owned()]
        .map(|dir| says(&read(&dir, "timeline.svg")).into_iter().collect::<BTreeSet<_>>());
    assert_eq!(old, new, "run 'make screenshots': the committed timeline on the left, today's on the right");
}

#[test]
fn the_pictures_are_well_formed_need_nothing_from_outside_and_are_in_the_readme() {
    let readme = read(stage::repository(), "README.md");
    for name in PICTURES {
        assert!(readme.contains(&format!("](docs/pictures/{name})")), "{name} is not in README.md");
        let svg = read(&pictures(), name).replace("http://www.w3.org/2000/svg", "");
        for reference in ["http", "href", "url(", "@import", "@font-face", "<image", "<script"] {
            assert!(!svg.contains(reference), "{name} has '{reference}'");
        }
        assert!(svg.contains("@media (prefers-color-scheme: dark)"), "{name} has no colours for the dark");
    }
    let test = "the_pictures_are_well_formed_need_nothing_from_outside_and_are_in_the_readme";
    if !stage::works("python3", &["--version"]) {
        return stage::skip(test, "needs python3 to parse XML");
    }
    let parse = "import sys, xml.etree.ElementTree as x; [x.parse(f) for f in sys.argv[1:]]";
    let mut python = stage::command("python3");
    python.args(["-c", parse]).args(PICTURES.map(|name| pictures().join(name)));
    let parsed = python.output().unwrap();
    assert!(parsed.status.success(), "{}", String::from_utf8_lossy(&parsed.stderr));
}
