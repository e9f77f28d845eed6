//! Promise: every command in README.md, CONTRIBUTING.md, docs/*.md and `--help` works. It is run here, or `KNOWN` names the
//! test that runs it; a command that neither knows is a failure. Links, anchors and paths lead somewhere.

#![allow(clippy::unwrap_used, reason = "in a test a panic is the answer")]

#[path = "common/stage.rs"]
mod stage;

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

/// A command, or a block of them, in a page.
#[derive(Debug)]
struct Snippet {
    /// `README.md:12`
    place: String,
    /// What stands behind the three backticks; `indented` without them.
    kind: String,
    text: String,
}

/// Who runs a command that cannot be run in a scratch directory: it builds, installs, or takes an hour.
enum How {
    /// This one, below.
    Here(fn(&Snippet)),
    /// The file, and what stands in it: a function, or the command itself.
    There(&'static str, &'static str),
}
use How::{Here, There};

/// Each is the start of a snippet's text.
const KNOWN: &[(&str, How)] = &[
    ("$ make demo\n", There("tests/docs.rs", "fn the_demo_prints_what_the_page_says")),
    ("$ make check\n", There(".ci/run", "for target in check check-harness check-packages")),
    ("make demo", There("tests/docs.rs", "fn the_demo_prints_what_the_page_says")),
    ("make check-harness", There(".ci/run", "for target in check check-harness check-packages")),
    ("make check", There(".ci/run", "for target in check check-harness check-packages")),
    ("make screenshots", There("tests/pictures.rs", "fn the_pictures_show_what_the_programs_print_today")),
    (
        "make && sudo make install",
        There("tests/install.rs", "fn uninstall_leaves_nothing_of_what_install_put_there"),
    ),
    (
        "sudo make uninstall",
        There("tests/install.rs", "fn uninstall_leaves_nothing_of_what_install_put_there"),
    ),
    ("packaging/sources ~/rpmbuild/SOURCES && rpmbuild -bb", There("packaging/check", "rpm_build \"$top\"")),
    ("make && packaging/deb .", There("packaging/check", "packaging/deb \"$scratch/deb\"")),
    ("make torture PART=", There("tests/torture", "tests/torture_$name")),
    (
        "BEAKERLIB=/usr/share/beakerlib make torture PART=differential",
        There("tests/torture", "tests/torture_$name"),
    ),
    ("cargo test --test ", There("tests/run", "cargo test --locked")),
    (
        "RL_CLEANUP_BASH=/path/to/bash cargo test --test roundtrip",
        There("tests/common/mod.rs", "RL_CLEANUP_BASH"),
    ),
    (
        "#!/bin/bash\n. /usr/share/beakerlib/beakerlib.sh || exit 1\n\n",
        There("tests/docs.rs", "fn the_test_before_leaves_its_mount_if_it_is_killed"),
    ),
    (
        "#!/bin/bash\n. /usr/share/beakerlib/beakerlib.sh || exit 1\neval",
        There("tests/docs.rs", "fn the_test_after_leaves_nothing_even_if_it_is_killed"),
    ),
    ("run:\n\tbeakerlib-testwatcher ./runtest.sh\n", Here(makefile)),
    ("test: beakerlib-testwatcher ./runtest.sh\n", Here(metadata_of_tmt)),
    ("[restraint]\nentry_point=", Here(metadata_of_restraint)),
    ("import subprocess\n", There("tests/docs.rs", "fn the_python_of_the_page_is_cleaned_up_after")),
    (
        "rl-cleanup watch --time-limit 10m -- python3 test.py",
        There("tests/docs.rs", "fn the_python_of_the_page_is_cleaned_up_after"),
    ),
    ("make bench", There("tests/bench.rs", "fn a_quick_run_measures_every_part")),
    ("make bench-plots", There("tests/bench.rs", "fn a_run_becomes_tables_in_a_page")),
    ("make", There("packaging/check", "make build")),
];

/// Blocks that are no commands; the output below a command is with it.
const NO_COMMANDS: [&str; 1] = ["text"];

fn pages() -> Vec<String> {
    let docs = fs::read_dir(stage::repository().join("docs")).unwrap();
    let docs = docs.map(|e| format!("docs/{}", e.unwrap().file_name().to_str().unwrap()));
    let mut pages: Vec<_> = docs.filter(|name| name.ends_with(".md")).collect();
    pages.sort();
    pages.extend(["README.md", "CONTRIBUTING.md"].map(str::to_owned));
    pages
}

fn read(name: &str) -> String {
    fs::read_to_string(stage::repository().join(name)).unwrap_or_else(|e| panic!("{name}: {e}"))
}

/// All blocks in backticks, and each line that is indented by four blanks behind an empty line.
fn snippets(page: &str) -> Vec<Snippet> {
    let text = read(page);
    let mut found = Vec::new();
    let mut block: Option<Snippet> = None;
    let mut indented = false;
    let mut above = "";
    for (n, line) in text.lines().enumerate() {
        let place = || format!("{page}:{}", n + 1);
        if let Some(kind) = line.strip_prefix("```") {
            match block.take() {
                Some(whole) => found.push(whole),
                None => block = Some(Snippet { place: place(), kind: kind.to_owned(), text: String::new() }),
            }
        } else if let Some(block) = &mut block {
            block.text.push_str(line);
            block.text.push('\n');
        } else if let Some(command) = line.strip_prefix("    ").filter(|_| indented || above.is_empty()) {
            let command = command.split("  #").next().unwrap().trim_end().to_owned();
            found.push(Snippet { place: place(), kind: "indented".to_owned(), text: command });
            indented = true;
            above = line;
            continue;
        }
        indented = false;
        above = line;
    }
    assert!(block.is_none(), "{page}: a block has no end");
    found
}

/// 'make check' begins neither 'make check-harness' nor 'make checks', and 'make' alone begins only itself.
fn begins_with(text: &str, start: &str) -> bool {
    let part_of_a_word = |c: char| c.is_alphanumeric() || c == '-';
    let rest = text.strip_prefix(start);
    rest.is_some_and(|rest| match start {
        "make" => rest.is_empty(),
        _ => !(start.ends_with(part_of_a_word) && rest.starts_with(part_of_a_word)),
    })
}

#[test]
fn a_command_is_known_by_its_whole_words() {
    assert!(
        begins_with("make check", "make check") && begins_with("cargo test --test x", "cargo test --test ")
    );
    assert!(!begins_with("make check-harness", "make check") && !begins_with("make checks", "make check"));
    assert!(begins_with("make", "make") && !begins_with("make anything", "make"));
}

#[test]
fn every_command_in_the_pages_is_run_by_some_test() {
    let mut used = BTreeSet::new();
    for page in pages() {
        for snippet in snippets(&page) {
            if NO_COMMANDS.contains(&snippet.kind.as_str()) {
                continue;
            }
            if page == "docs/migration.md" && snippet.kind == "bash" {
                // Every such block of that page.
                assert!(
                    read("tests/docs_migration.rs").contains("fn with_the_shim_alone_every_block_prints")
                );
                continue;
            }
            let known = KNOWN.iter().position(|(start, _)| begins_with(&snippet.text, start));
            let Some(known) = known else {
                panic!("{}: no test is known to run this:\n{}", snippet.place, snippet.text)
            };
            used.insert(known);
            match &KNOWN[known].1 {
                Here(run) => run(&snippet),
                There(file, what) => {
                    assert!(read(file).contains(what), "{}: {file} has no '{what}'", snippet.place);
                }
            }
            make_and_cargo_know_it(&snippet);
        }
    }
    let stale: Vec<_> = (0..KNOWN.len()).filter(|n| !used.contains(n)).map(|n| KNOWN[n].0).collect();
    assert!(stale.is_empty(), "no page has these any more: {stale:#?}");
}

/// The targets, parts and test files that a command names are there.
fn make_and_cargo_know_it(snippet: &Snippet) {
    if snippet.kind == "bash" || snippet.kind == "make" {
        return;
    }
    let commands = snippet.text.lines().filter_map(|line| match snippet.kind.as_str() {
        "console" => line.strip_prefix("$ "),
        _ => Some(line),
    });
    for command in commands.flat_map(|line| line.split("&&")) {
        // Quotes hold a list of parts here, and nothing else.
        let words: Vec<_> =
            command.split(|c: char| c.is_whitespace() || c == '"').filter(|w| !w.is_empty()).collect();
        let words: Vec<_> = words.into_iter().skip_while(|w| *w == "sudo" || w.contains('=')).collect();
        match words.as_slice() {
            ["make", "torture", part, more @ ..] => {
                let first = part.strip_prefix("PART=").unwrap();
                for part in std::iter::once(first).filter(|p| !p.is_empty()).chain(more.iter().copied()) {
                    let file = |ending| stage::repository().join(format!("tests/torture_{part}.{ending}"));
                    assert!(
                        file("rs").exists() || file("sh").exists(),
                        "{}: no part '{part}'",
                        snippet.place
                    );
                }
            }
            ["make", targets @ ..] => are_targets(&snippet.place, targets),
            ["cargo", "test", "--test", file, ..] => {
                let file = stage::repository().join(format!("tests/{file}.rs"));
                assert!(file.exists(), "{}: {} is not there", snippet.place, file.display());
            }
            _ => {}
        }
    }
}

fn are_targets(place: &str, targets: &[&str]) {
    let makefiles: String = ["Makefile", "hooks/install.mk", "packaging/install.mk"].map(read).concat();
    for target in targets.iter().filter(|word| !word.contains('=')) {
        let rule = |line: &str| line.strip_prefix(*target).is_some_and(|rest| rest.starts_with(':'));
        assert!(makefiles.lines().any(rule), "{place}: make has no target '{target}'");
    }
}

// ---------------------------------------------------------------- what is run here

/// A directory with an executable `runtest.sh`, and a Makefile where one is wanted.
fn with_test(text: &str) -> tempfile::TempDir {
    let scratch = stage::scratch();
    write_executable(&scratch.path().join("runtest.sh"), text);
    scratch
}

fn write_executable(path: &Path, text: &str) {
    fs::write(path, text).unwrap();
    fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
}

/// The one snippet of README.md that begins so.
fn readme(kind: &str, start: &str) -> Snippet {
    let mut found: Vec<_> = snippets("README.md");
    found.retain(|s| s.kind == kind && s.text.starts_with(start));
    assert_eq!(found.len(), 1, "{kind}: {start}");
    found.remove(0)
}

fn says(command: &mut std::process::Command) -> (Option<i32>, String) {
    let output = command.output().unwrap();
    let text = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8_lossy(&text).into_owned())
}

/// A line without numbers, ids, and the names of temporary files.
fn lasting(line: &str) -> String {
    let word = |word: &str| {
        if word.len() == 6 && word.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit()) {
            return "ID".to_owned();
        }
        let word = match word.split_once("/demo-") {
            Some((dir, rest)) => format!("{dir}/demo-X{}", rest.get(6..).unwrap_or_default()),
            None => word.to_owned(),
        };
        // Cut short at the width of the terminal, which the numbers in it move.
        let word = if word.ends_with('…') { "…".to_owned() } else { word };
        word.chars().filter(|c| !c.is_ascii_digit()).collect()
    };
    line.split_whitespace().map(word).collect::<Vec<_>>().join(" ")
}

#[test]
fn the_demo_prints_what_the_page_says() {
    let snippet = &readme("console", "$ make demo\n");
    assert!(read("Makefile").contains("examples/demo"), "make demo is another one now");
    let mut demo = stage::command("bash");
    let (status, said) = says(demo.arg(stage::repository().join("examples/demo")));
    assert_eq!(status, Some(0), "{said}");
    if said.contains("This needs root and loop devices") {
        return stage::skip("the_demo_prints_what_the_page_says", "needs root and loop devices");
    }
    let lines = |text: &str| text.lines().map(lasting).filter(|l| !l.is_empty()).collect::<Vec<_>>();
    let (mut shown, mut printed) = (lines(&snippet.text), lines(&said));
    assert_eq!(shown.remove(0), "$ make demo");
    // The watcher's lines go to stderr, which is behind stdout here.
    shown.sort();
    printed.sort();
    assert_eq!(shown, printed, "{}: the page on the left, the demo on the right", snippet.place);
}

/// Why nothing can be mounted here, or the command that has mounts of its own.
fn mounts_of_its_own() -> Option<std::process::Command> {
    for option in ["-m", "-rm"] {
        let probe = [option, "--propagation", "private", "mount", "-t", "tmpfs", "none", "/mnt"];
        if stage::works("unshare", &probe) {
            let mut command = stage::command("unshare");
            command.args([option, "--propagation", "private"]);
            return Some(command);
        }
    }
    None
}

/// The page's test, with BeakerLib where it is installed, else with stand-ins. It kills itself with all of its group if
/// it is to be `killed`. Returns what is still mounted or there when the watcher has ended.
fn left_by(snippet: &Snippet, killed: bool) -> Option<String> {
    let mut text = snippet.text.clone();
    let source = ". /usr/share/beakerlib/beakerlib.sh || exit 1\n";
    assert!(text.contains(source), "{}", snippet.place);
    let beakerlib = stage::beakerlib().filter(|dir| dir.join("beakerlib.sh").exists());
    let head = match &beakerlib {
        Some(dir) => format!("export BEAKERLIB='{0}'\n. '{0}/beakerlib.sh' || exit 1\n", dir.display()),
        None => "rlRun() { eval \"$1\"; }; rlAssertExists() { [ -e \"$1\" ]; }
for name in rlJournalStart rlJournalEnd rlPhaseStartSetup rlPhaseStartTest rlPhaseStartCleanup rlPhaseEnd; do
  eval \"$name() { :; }\"
done\n"
            .to_owned(),
    };
    text = text.replace(source, &head);
    if killed {
        let middle = "    rlRun \"touch '$dir/file'\"\n";
        assert!(text.contains(middle), "{}", snippet.place);
        text = text.replace(middle, &format!("{middle}    kill -KILL 0\n"));
    }
    let scratch = with_test(&text);
    fs::create_dir(scratch.path().join("tmp")).unwrap();
    let mut command = mounts_of_its_own()?;
    let script = "beakerlib-testwatcher ./runtest.sh; echo \"status $?\"
        grep -F \" $TMPDIR/\" /proc/self/mounts | sed 's/^/still mounted: /'; ls \"$TMPDIR\" | sed 's/^/still there: /'";
    command.args(["bash", "-c", script]).current_dir(scratch.path()).env("TERM", "dumb");
    command.env("TMPDIR", scratch.path().join("tmp")).env("BEAKERLIB_DIR", scratch.path().join("state"));
    let (_, said) = says(&mut command);
    let status = if killed { "status 137" } else { "status 0" };
    assert!(said.lines().any(|l| l == status), "{}: not {status}:\n{said}", snippet.place);
    // What BeakerLib itself leaves there is not the test's.
    let left = said.lines().filter(|l| l.starts_with("still ")).filter(|l| !l.contains("beakerlib"));
    Some(left.map(|l| format!("{l}\n")).collect())
}

const NO_MOUNT: &str = "needs the right to mount, or user namespaces";

#[test]
fn the_test_before_leaves_its_mount_if_it_is_killed() {
    let snippet = &readme("bash", "#!/bin/bash\n. /usr/share/beakerlib/beakerlib.sh || exit 1\n\n");
    let Some(left) = left_by(snippet, false) else {
        return stage::skip("the_test_before_leaves_its_mount_if_it_is_killed", NO_MOUNT);
    };
    assert_eq!(left, "", "{}: it cleans up if it is not killed", snippet.place);
    let left = left_by(snippet, true).unwrap();
    assert!(left.contains("still mounted: none "), "{}: killed, it leaves its mount: {left}", snippet.place);
}

#[test]
fn the_test_after_leaves_nothing_even_if_it_is_killed() {
    let snippet = &readme("bash", "#!/bin/bash\n. /usr/share/beakerlib/beakerlib.sh || exit 1\neval");
    let Some(left) = left_by(snippet, false) else {
        return stage::skip("the_test_after_leaves_nothing_even_if_it_is_killed", NO_MOUNT);
    };
    assert_eq!(left, "", "{}", snippet.place);
    assert_eq!(left_by(snippet, true).unwrap(), "", "{}: killed, it leaves nothing", snippet.place);
}

fn makefile(snippet: &Snippet) {
    let scratch = with_test("#!/bin/bash\nexit 7\n");
    fs::write(scratch.path().join("Makefile"), &snippet.text).unwrap();
    let (status, said) = says(stage::command("make").arg("run").current_dir(scratch.path()));
    assert!(status == Some(2) && said.contains("Error 7"), "{said}");
}

/// The plan that `make check-harness` has the real tmt run has the same keys.
fn metadata_of_tmt(snippet: &Snippet) {
    assert!(read("tests/harness/check.py").contains("tmt"));
    let plan = read("examples/tmt/tests.fmf");
    for line in snippet.text.lines() {
        let (key, value) = line.split_once(": ").unwrap();
        let has = |l: &str| l.trim_start().strip_prefix(key).is_some_and(|rest| rest.starts_with(": "));
        assert!(plan.lines().any(has), "{}: examples/tmt/tests.fmf has no '{key}'", snippet.place);
        assert!(key != "duration" || rl_cleanup::harness::duration::parse(value).is_some(), "{value}");
    }
}

/// As the stand-in of restraint has it: the watcher in front of the test.
fn metadata_of_restraint(snippet: &Snippet) {
    let entry = snippet.text.lines().find_map(|l| l.strip_prefix("entry_point=")).unwrap();
    let scratch = with_test("#!/bin/bash\nexit 7\n");
    let mut bash = stage::command("bash");
    bash.args(["-c", entry]).current_dir(scratch.path()).env("RSTRNT_TASKID", "7").env("TESTID", "docs-7");
    // No hook of its own in this machine's folders.
    bash.env("RSTRNT_TASK_PLUGINS_DIR", scratch.path().join("plugins/task_run.d"));
    let (status, said) = says(&mut bash);
    assert_eq!(status, Some(7), "{said}");
}

/// As the page has it run: what it has made is gone afterwards.
#[test]
fn the_python_of_the_page_is_cleaned_up_after() {
    if !stage::works("python3", &["--version"]) {
        return stage::skip("the_python_of_the_page_is_cleaned_up_after", "needs python3");
    }
    let (code, command) =
        (readme("python", "import subprocess\n").text, readme("sh", "rl-cleanup watch").text);
    let scratch = stage::scratch();
    let test = format!(
        "import os\nwork = 'a dir; with $odd name'\nos.mkdir(work)\nwork = os.path.abspath(work)\n{code}print(os.listdir('.'))\n"
    );
    fs::write(scratch.path().join("test.py"), test).unwrap();
    let mut bash = stage::command("bash");
    let (status, said) = says(bash.args(["-c", &command]).current_dir(scratch.path()));
    assert!(status == Some(0) && said.contains("a dir; with $odd name"), "{said}");
    assert!(!scratch.path().join("a dir; with $odd name").exists(), "{said}");
}

// ---------------------------------------------------------------- help

#[test]
fn every_example_in_the_help_works() {
    let help = |args: &[&str]| says(stage::command("rl-cleanup").args(args).arg("--help")).1;
    // 'shim --path' is for what is installed.
    let installed = stage::scratch();
    let place = |name: &str| installed.path().join(name);
    for dir in ["bin", "share/rl-cleanup"] {
        fs::create_dir_all(place(dir)).unwrap();
    }
    fs::copy(env!("CARGO_BIN_EXE_rl-cleanup"), place("bin/rl-cleanup")).unwrap();
    let shim = stage::repository().join("shell/rl-cleanup.sh");
    fs::copy(shim, place("share/rl-cleanup/rl-cleanup.sh")).unwrap();
    let path = format!("{}:{}", place("bin").display(), std::env::var("PATH").unwrap());

    let mut subcommands = vec![vec![]];
    let commands = help(&[]);
    let commands = commands.split_once("Commands:\n").unwrap().1;
    let names = commands.lines().take_while(|l| !l.is_empty()).map(|l| l.split_whitespace().next().unwrap());
    subcommands.extend(names.map(|name| vec![name]));
    for args in subcommands {
        let text = help(&args);
        let examples = text.split_once("Examples:\n").unwrap_or_else(|| panic!("{args:?} has none")).1;
        let examples: Vec<_> = examples.lines().map_while(|l| l.strip_prefix("  ")).collect();
        assert!(!examples.is_empty(), "{args:?}");

        let scratch = with_test("#!/bin/bash\nexit 0\n");
        for name in ["test.py", "cleanup.sh"] {
            write_executable(&scratch.path().join(name), "#!/usr/bin/env python3\npass\n");
        }
        let state = scratch.path().join("state");
        let script = format!(
            "set -eu; dir='/a/dir'; rl-cleanup append true; rl-cleanup prepend --mark true\n{}\n",
            examples.join("\n").replace("/var/tmp/beakerlib-J1-T2", state.to_str().unwrap())
        );
        let script = script.replace("-- python3 test.py", "-- python3 ./test.py");
        let mut bash = stage::command("bash");
        bash.args(["-c", &script]).current_dir(scratch.path()).env("BEAKERLIB_DIR", &state);
        bash.env("PATH", &path).env_remove("RL_CLEANUP");
        let (status, said) = says(&mut bash);
        assert_eq!(status, Some(0), "{args:?}\n{script}\n{said}");
    }
}

// ---------------------------------------------------------------- links and paths

/// What GitHub makes of a heading: small letters, no punctuation, dashes for blanks.
fn anchor(heading: &str) -> String {
    let kept = heading.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
    kept.collect::<String>().to_lowercase().replace(' ', "-")
}

fn anchors(page: &str) -> BTreeSet<String> {
    let mut in_block = false;
    let mut found = BTreeSet::new();
    for line in page.lines() {
        in_block ^= line.starts_with("```");
        if !in_block
            && let Some(heading) =
                line.trim_start_matches('#').strip_prefix(' ').filter(|_| line.starts_with('#'))
        {
            found.insert(anchor(heading.trim()));
        }
    }
    found
}

/// The pages without what stands in blocks, and in backticks where `spans` is false.
fn prose(page: &str) -> String {
    let mut in_block = false;
    let outside = page.lines().filter(|line| {
        let fence = line.starts_with("```");
        in_block ^= fence;
        !in_block && !fence
    });
    outside.map(|l| format!("{l}\n")).collect()
}

/// What stands between single backticks.
fn spans(page: &str) -> Vec<String> {
    prose(page).split('`').skip(1).step_by(2).map(|s| s.replace('\n', " ")).collect()
}

#[test]
fn links_and_anchors_lead_somewhere() {
    let mut links = 0;
    for page in pages().into_iter().chain(["CHANGELOG.md".to_owned()]) {
        let text = read(&page);
        let prose = prose(&text);
        for part in prose.split("](").skip(1) {
            let target = part.split_once(')').unwrap().0;
            links += 1;
            if target.starts_with("https://") {
                continue;
            }
            let (file, anchor) = target.split_once('#').unwrap_or((target, ""));
            let here = stage::repository().join(&page);
            let path = if file.is_empty() { here } else { here.parent().unwrap().join(file) };
            assert!(path.exists(), "{page}: the link {target} leads nowhere");
            if !anchor.is_empty() {
                let known = anchors(&fs::read_to_string(&path).unwrap());
                assert!(known.contains(anchor), "{page}: {target} is not among {known:?}");
            }
        }
    }
    assert!(links > 20, "{links} links found");
}

#[test]
fn anchors_are_made_as_on_the_web() {
    assert_eq!(anchor("Beside BeakerLib's own watcher"), "beside-beakerlibs-own-watcher");
    let page = "# A b\n```\n# no heading\n```\n## What's `new`?\n";
    assert_eq!(anchors(page), BTreeSet::from(["a-b".to_owned(), "whats-new".to_owned()]));
}

#[test]
fn paths_targets_and_subcommands_in_the_prose_exist() {
    let ours = ["src/", "tests/", "docs/", "examples/", "shell/", "man/", "packaging/", "fuzz/", "benches/"];
    let said = says(stage::command("rl-cleanup").arg("--help")).1;
    for page in pages() {
        for span in spans(&read(&page)) {
            let words: Vec<_> = span.split_whitespace().collect();
            match words.as_slice() {
                [path] if ours.iter().any(|dir| path.starts_with(dir)) => {
                    let path = path.split([':', '*']).next().unwrap();
                    // `src/harness/NAME.rs` is a form; of `tests/torture_*` the directory must be there.
                    let place = stage::repository().join(path);
                    let exists = place.exists()
                        || path.contains("NAME")
                        || span.contains('*') && place.parent().unwrap().is_dir();
                    assert!(exists, "{page}: `{span}` is not there");
                }
                ["make", targets @ ..] if !span.contains('…') && targets.first() != Some(&"run") => {
                    let targets: Vec<_> = targets.iter().copied().filter(|w| !w.contains('=')).collect();
                    are_targets(&page, &targets);
                }
                ["rl-cleanup", subcommand, ..] if subcommand.chars().all(|c| c.is_ascii_lowercase()) => {
                    let known = said.contains(&format!("\n  {subcommand} ")) || *subcommand == "script";
                    assert!(known, "{page}: `{span}`: there is no such subcommand");
                }
                _ => {}
            }
        }
    }
}
