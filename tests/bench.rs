//! The benchmarks' own machinery: medians, turns, goals, tables and pictures of a small run; and a quick
//! run of every part. What they measure is not judged here.
#![allow(clippy::unwrap_used, reason = "in a test a panic is the answer")]

#[path = "common/stage.rs"]
mod stage;

use std::path::Path;
use std::process::{Command, Output};

/// A run that never was: one goal met, one missed, a bar too long for the picture, a name to be escaped.
const FIXTURE: &str = r#"{
 "when": "2001-02-03", "scheduling": "ordinary", "quick": false, "seconds": 7,
 "machine": {"processor": "A <small> one", "virtual": true, "disk": "ext4"},
 "tables": [
  {"name": "start", "title": "Start-up", "key": "command", "columns": ["whole process", "over bare", "ours / this"],
   "rows": [
    {"case": "the bare command", "figures": {"whole process": {"value": 900.4, "unit": "us"}}},
    {"case": "beakerlib-testwatcher true", "figures": {"over bare": {"value": 2000, "unit": "us"}}},
    {"case": "timeout 100 true", "figures": {
     "over bare": {"value": 1000, "unit": "us"},
     "ours / this": {"value": 2.0, "unit": "x", "sense": "at most", "limit": 1.5, "met": false}}},
    {"case": "BeakerLib's (Python) true", "figures": {"over bare": {"value": 90000, "unit": "us"}}}]},
  {"name": "size", "title": "Size", "key": "what", "columns": ["size"],
   "rows": [{"case": "both", "figures": {
    "size": {"value": 2700000, "unit": "bytes", "sense": "below", "limit": 3145728, "met": true}}}]}],
 "skipped": [{"what": "tini", "why": "not installed"}]
}"#;

fn bench(file: &str) -> Command {
    let mut command = Command::new("python3");
    command.arg(stage::repository().join("benches").join(file)).env_remove("BEAKERLIB");
    command
}

/// Whether there is a Python; the test that asks is skipped if not.
fn has_python(test: &str) -> bool {
    let there = stage::works("python3", &["--version"]);
    if !there {
        stage::skip(test, "python3 is not installed");
    }
    there
}

fn said(output: &Output) -> String {
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{out}{err}");
    out.into_owned()
}

/// What a few lines of Python print that know the benchmarks' modules.
fn python(code: &str) -> String {
    let benches = stage::repository().join("benches");
    let mut command = Command::new("python3");
    command.args(["-B", "-c", code]).env("PYTHONPATH", benches);
    said(&command.output().unwrap()).trim_end().to_owned()
}

#[test]
fn the_middle_counts_and_everybody_takes_turns() {
    if !has_python("the_middle_counts_and_everybody_takes_turns") {
        return;
    }
    let medians = "from stopwatch import median\nprint(median([9, 1, 5]), median([1, 9, 2, 4]), median([7]))";
    assert_eq!(python(medians), "5 3.0 7");
    let turns = "from stopwatch import in_turns\norder = []\n\
        def note(name):\n    return lambda: order.append(name) or len(order)\n\
        got = in_turns(6, {'a': note('a'), 'b': note('b'), 'slow': (note('s'), 2)})\n\
        print(''.join(order), got['slow'], len(got['a']))";
    // The slow one is there in two rounds of six, the first and the one behind the middle.
    assert_eq!(python(turns), "absabababsabab [3, 10] 6");
}

#[test]
fn a_goal_is_met_or_missed() {
    if !has_python("a_goal_is_met_or_missed") {
        return;
    }
    let code = "from figures import figure\n\
        for value, goal in ((3, ('below', 3)), (3, ('at most', 3)), (2.9, ('below', 3)), (3, ('at least', 4))):\n    \
        print(figure(value, 'x', goal=goal)['met'], end=' ')";
    assert_eq!(python(code), "False True True False");
    let code = "from figures import show\n\
        print([show(*f) for f in ((999.6, 'us'), (1234, 'us'), (2.5e6, 'us'), (41.7, 'x'), (1.234, 'x'))])";
    assert_eq!(python(code), "['1000 us', '1.23 ms', '2.50 s', '42', '1.23']");
}

#[test]
fn a_run_becomes_tables_in_a_page() {
    if !has_python("a_run_becomes_tables_in_a_page") {
        return;
    }
    let scratch = stage::scratch();
    let (results, page) = (scratch.path().join("results.json"), scratch.path().join("page.md"));
    std::fs::write(&results, FIXTURE).unwrap();
    let old = "# Kept\n<!-- bench:start -->\nold\n<!-- bench:end -->\nkept, too\n\
        <!-- bench:verdict -->\n<!-- bench:end -->\n<!-- bench:nothing -->\n<!-- bench:end -->\n";
    std::fs::write(&page, old).unwrap();
    let write = || said(&bench("page").arg(&results).arg(&page).output().unwrap());
    write();
    let new = std::fs::read_to_string(&page).unwrap();
    for line in [
        "# Kept",
        "kept, too",
        "| command | whole process | over bare | ours / this |",
        "| the bare command | 900 us | - | - |",
        "| timeout 100 true | - | 1.00 ms | **2.00 (at most 1.5) MISSED** |",
        "| Size: both, size | below 3,145,728 bytes | 2,700,000 bytes | met |",
        "| Start-up: timeout 100 true, ours / this | at most 1.5 | 2.00 | **missed** |",
        "| tini | | skipped | not installed |",
        "Not measured in this run.",
    ] {
        assert!(new.lines().any(|l| l == line), "no line '{line}' in:\n{new}");
    }
    assert!(!new.contains("old"));
    write();
    assert_eq!(std::fs::read_to_string(&page).unwrap(), new, "the second time changes nothing");
    std::fs::write(&page, "no marks\n").unwrap();
    assert!(!bench("page").arg(&results).arg(&page).output().unwrap().status.success());
}

#[test]
fn a_run_becomes_pictures() {
    if !has_python("a_run_becomes_pictures") {
        return;
    }
    let scratch = stage::scratch();
    let results = scratch.path().join("results.json");
    std::fs::write(&results, FIXTURE).unwrap();
    let drawn = said(&bench("plots").arg(&results).arg(scratch.path()).output().unwrap());
    assert_eq!(drawn.lines().count(), 1, "of what was not measured there is no picture: {drawn}");
    let picture = scratch.path().join("bench-start.svg");
    let parse = format!(
        "import xml.dom.minidom as m\nd = m.parse({:?})\n\
         print([(r.getAttribute('class'), r.getAttribute('width')) for r in d.getElementsByTagName('rect')])\n\
         print(len(d.getElementsByTagName('line')))",
        picture.to_str().unwrap()
    );
    // Ours is twice as long as timeout's; the original's goes on: two cuts and the axis.
    let bars = "[('paper', '760'), ('ours', '312.0'), ('other', '156.0'), ('theirs', '390.0')]\n3";
    assert_eq!(python(&parse), bars);
    let text = std::fs::read_to_string(&picture).unwrap();
    assert!(text.contains("A &lt;small&gt; one") && text.contains("90.00 ms"), "{text}");
    assert!(text.contains("prefers-color-scheme: dark"));
}

#[test]
fn a_quick_run_measures_every_part() {
    if !has_python("a_quick_run_measures_every_part") {
        return;
    }
    let scratch = stage::scratch();
    let mut run = bench("run");
    run.arg(stage::programs()).env("BENCH_QUICK", "1").env("BENCH_OUT", scratch.path());
    let printed = said(&run.output().unwrap());
    assert!(printed.contains("BeakerLib's own functions: BEAKERLIB names no BeakerLib"), "{printed}");
    let count = "import csv, json, sys\n\
        r = json.load(open('results.json')); rows = list(csv.DictReader(open('results.csv')))\n\
        print(*[t['name'] for t in r['tables'] if t['name'] != 'hyperfine'])\n\
        print(len(rows) == sum(len(w['figures']) for t in r['tables'] for w in t['rows']))\n\
        print(all(float(w['value']) == float(w['value']) for w in rows), r['quick'])";
    let mut command = Command::new("python3");
    let counted = said(&command.args(["-c", count]).current_dir(scratch.path()).output().unwrap());
    let tables = "append entries variables command cleanup start signals memory size";
    assert_eq!(counted, format!("{tables}\nTrue\nTrue True\n"));
}

#[test]
fn without_programs_it_says_what_to_do() {
    if !has_python("without_programs_it_says_what_to_do") {
        return;
    }
    let scratch = stage::scratch();
    let output = bench("run").arg(scratch.path()).env("BENCH_OUT", scratch.path()).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("run 'make build' first"));
    assert!(!Path::new(&scratch.path().join("results.json")).exists());
}
