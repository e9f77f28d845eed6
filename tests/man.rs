//! The man pages say what the programs do: the same options, and every exit status, environment
//! variable and function of the interface.

#![allow(clippy::unwrap_used, reason = "in a test a panic is the answer")]

#[path = "common/stage.rs"]
mod stage;

use std::collections::BTreeSet;
use std::path::PathBuf;

const SUBCOMMANDS: [&str; 12] = [
    "watch",
    "append",
    "prepend",
    "list",
    "show",
    "remove",
    "clear",
    "run",
    "rehook",
    "status",
    "shim",
    "completions",
];

/// What the code compares a name with, or sets for bash alone: no variable of the interface.
const NO_VARIABLES: [&str; 4] = ["FAIL", "FLOCK", "WARN", "TESTWATCHER_"];

/// Variables of bash's own, in our shell code.
const BASHS: [&str; 8] =
    ["BASH", "BASHOPTS", "BASHPID", "BASH_SOURCE", "BASH_SUBSHELL", "IFS", "LC_ALL", "SHELLOPTS"];

fn page(name: &str) -> String {
    std::fs::read_to_string(stage::repository().join("man").join(name)).unwrap()
}

fn help(args: &[&str]) -> String {
    let said = stage::command(env!("CARGO_BIN_EXE_rl-cleanup")).args(args).arg("--help").output().unwrap();
    assert!(said.status.success(), "{args:?}: {}", String::from_utf8_lossy(&said.stderr));
    String::from_utf8(said.stdout).unwrap()
}

/// The options at the start of the lines of a help text: `  -q, --quiet`, `      --dir <DIR>`.
fn options_in_help(args: &[&str]) -> BTreeSet<String> {
    help(args)
        .lines()
        .map(str::trim_start)
        .filter(|line| line.starts_with('-'))
        .flat_map(|line| line.split([' ', ',']).take_while(|w| w.is_empty() || w.starts_with('-')))
        // A lone dash begins a value in the list of possible ones.
        .filter(|word| !word.is_empty() && *word != "-")
        .map(str::to_owned)
        .collect()
}

/// The options that mdoc(7) source names: `Fl -quiet` is `--quiet`, `Fl q` is `-q`. A lone `Fl` is `-`,
/// and `Fl Fl` is the `--` in front of a command.
fn options_in(mdoc: &str) -> BTreeSet<String> {
    let words: Vec<_> = mdoc.split_whitespace().map(|w| w.trim_start_matches('.')).collect();
    words
        .windows(2)
        .filter(|pair| pair[0] == "Fl" && (pair[1].starts_with('-') || pair[1].len() == 1))
        .filter(|pair| pair[1].chars().any(char::is_alphanumeric))
        .map(|pair| format!("-{}", pair[1]))
        .collect()
}

/// The part of the page under the `.Ss` heading that names `subcommand`.
fn part(page: &str, subcommand: &str) -> String {
    let page = page.replace("\n.Sh ", "\n.Ss ");
    let named = |part: &&str| {
        let heading = part.lines().next().unwrap().strip_prefix("rl-cleanup ");
        heading.is_some_and(|names| names.split(", ").any(|n| n == subcommand))
    };
    let Some(part) = page.split("\n.Ss ").find(named) else {
        panic!("no '.Ss rl-cleanup {subcommand}' in the page")
    };
    part.to_owned()
}

/// The tags of the lists in the page: the words of its `.It` lines.
fn tags(page: &str) -> BTreeSet<&str> {
    page.lines().filter_map(|l| l.strip_prefix(".It ")).flat_map(str::split_whitespace).collect()
}

#[test]
fn every_option_of_a_subcommand_is_in_its_part_of_the_page_and_the_other_way_round() {
    let page = page("rl-cleanup.1");
    let everywhere = ["--dir", "--help", "-h"].map(str::to_owned).into_iter().collect::<BTreeSet<_>>();
    for subcommand in SUBCOMMANDS {
        let known = &options_in_help(&[subcommand]) - &everywhere;
        let mut told = options_in(&part(&page, subcommand));
        if subcommand == "prepend" || subcommand == "append" {
            // The option of another command, in the text of --mark.
            told.remove("--to-mark");
        }
        assert_eq!(told, known, "rl-cleanup {subcommand}: the page on the left, --help on the right");
    }
}

#[test]
fn the_page_knows_all_options_and_no_others() {
    let mut known = options_in_help(&[]);
    for subcommand in SUBCOMMANDS {
        known.extend(options_in_help(&[subcommand]));
    }
    assert_eq!(options_in(&page("rl-cleanup.1")), known, "the page on the left, --help on the right");
    assert_eq!(options_in(&page("beakerlib-testwatcher.1")), BTreeSet::new(), "it has no options");
}

#[test]
fn the_page_and_this_test_know_all_subcommands() {
    let text = help(&[]);
    let commands = text.split_once("Commands:\n").unwrap().1;
    let known: BTreeSet<_> = commands
        .lines()
        .take_while(|line| !line.is_empty())
        .filter_map(|line| line.strip_prefix("  ")?.split(' ').next())
        .filter(|name| !name.is_empty())
        .collect();
    assert_eq!(known, BTreeSet::from(SUBCOMMANDS));
}

/// Every file below a directory of the repository whose name ends so.
fn files(dir: &str, ending: &str) -> Vec<(PathBuf, String)> {
    let (mut found, mut open) = (Vec::new(), vec![stage::repository().join(dir)]);
    while let Some(dir) = open.pop() {
        for entry in std::fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                open.push(path);
            } else if path.to_string_lossy().ends_with(ending) {
                let text = std::fs::read_to_string(&path).unwrap();
                found.push((path, text));
            }
        }
    }
    found
}

/// Where names in capitals are bash's.
const BASHS_FILES: [&str; 3] = ["cleanup/snapshot.rs", "cleanup/syntax.rs", "watch/machine_tests.rs"];

/// The code of the programs, without comments and tests, line by line.
fn code() -> Vec<String> {
    let mut lines = Vec::new();
    for (path, text) in files("src", ".rs") {
        if BASHS_FILES.iter().any(|file| path.ends_with(file)) {
            continue;
        }
        let text = text.split("#[cfg(test)]").next().unwrap();
        lines.extend(text.lines().map(|l| l.split("//").next().unwrap().to_owned()));
    }
    lines
}

/// The statuses that the programs' code has a number for: of the toolkit, and of a watcher.
fn statuses_in_code() -> (BTreeSet<String>, BTreeSet<String>) {
    let source = |name: &str| std::fs::read_to_string(stage::repository().join("src").join(name)).unwrap();
    let numbers = |text: &str| -> BTreeSet<String> {
        let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        words.filter(|w| w.parse::<u8>().is_ok()).map(str::to_owned).collect()
    };
    let errors = source("error.rs");
    let of_errors = numbers(errors.split_once("pub enum Status {").unwrap().1.split_once("\n}").unwrap().0);
    let toolkit = of_errors.iter().filter(|s| *s != "125").cloned().chain(["0".into()]).collect();

    let account = source("watch/account.rs");
    let table = account.split_once("pub(super) fn exit_status").unwrap().1;
    let mut watch = numbers(table.split_once("#[cfg(test)]").unwrap().0);
    assert!(watch.contains("128") && watch.contains("15"), "SIGTERM: 128 + 15 in {watch:?}");
    // 0 is the command's own, or what --exit-zero makes of it; 126 and 127 there are bash's.
    for part in ["0", "128", "15"] {
        watch.remove(part);
    }
    watch.extend(["143".to_owned(), "2".to_owned(), "125".to_owned(), "N".to_owned()]);
    (toolkit, watch)
}

#[test]
fn every_exit_status_in_the_code_is_in_the_pages_and_no_others() {
    let (toolkit, watch) = statuses_in_code();
    let listed = |text: &str| -> BTreeSet<String> {
        tags(text).into_iter().filter(|t| *t != "Ar").map(str::to_owned).collect()
    };
    let section = |name: &str| {
        let page = page(name);
        let from = page.split_once("\n.Sh EXIT STATUS").unwrap().1;
        from.split_once("\n.Sh ").unwrap().0.to_owned()
    };
    let page_of_both = section("rl-cleanup.1");
    let (of_watch, of_others) = page_of_both.split_once("Of all other commands").unwrap();
    assert_eq!(listed(of_watch), watch, "watch: rl-cleanup(1) on the left, the code on the right");
    assert_eq!(listed(of_others), toolkit, "the others: rl-cleanup(1) on the left, the code on the right");
    assert_eq!(listed(&section("beakerlib-testwatcher.1")), watch, "beakerlib-testwatcher(1) on the left");

    let said = |args: &[&str]| -> BTreeSet<String> {
        let text = help(args);
        let table = text.split_once("Exit status:\n").unwrap().1.to_owned();
        // One status or two, then two blanks, in each row that is not the rest of another.
        let rows = table.lines().take_while(|l| l.starts_with("  ")).filter(|l| !l.starts_with("   "));
        let words = rows.flat_map(|l| l.trim().split("  ").next().unwrap().split(", ").map(str::to_owned));
        words.map(|w| w.replace("CMD's own", "N")).collect()
    };
    assert_eq!(said(&["watch"]), watch, "watch: --help on the left, the code on the right");
    for subcommand in SUBCOMMANDS.iter().filter(|name| **name != "watch") {
        assert_eq!(said(&[subcommand]), toolkit, "{subcommand}: --help on the left, the code on the right");
    }
}

/// `TMT_TEST_NAME` is one of `TMT_*`.
fn family(name: &str) -> String {
    let families = ["TMT_", "RSTRNT_"].iter().find(|f| name.starts_with(**f));
    families.map_or_else(|| name.to_owned(), |f| format!("{f}*"))
}

fn is_variable(word: &str) -> bool {
    word.len() > 1
        && word.starts_with(|c: char| c.is_ascii_uppercase())
        && word.chars().all(|c| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_')
}

/// The environment variables that the programs ask for or set: string literals in capitals. Those behind
/// `value_name` stand for arguments.
fn variables_of_the_programs() -> BTreeSet<String> {
    let lines = code().into_iter().filter(|line| !line.contains("value_name"));
    let mut found = BTreeSet::new();
    for line in lines {
        found.extend(line.split('"').skip(1).step_by(2).filter(|w| is_variable(w)).map(family));
        if line.contains("temp_dir()") {
            // std's own name for it.
            found.insert("TMPDIR".to_owned());
        }
    }
    found.into_iter().filter(|name| !NO_VARIABLES.contains(&name.as_str())).collect()
}

/// The environment variables that our shell code uses, and those that only a Makefile reads.
fn variables_of_the_shell() -> BTreeSet<String> {
    let mut found: BTreeSet<_> = ["BEAKERLIB".to_owned()].into();
    let makefile = std::fs::read_to_string(stage::repository().join("packaging/install.mk")).unwrap();
    assert!(makefile.contains("BEAKERLIB ?= "));
    // Completions run in a person's shell, not in a test's.
    let not_completions = |(path, _): &(PathBuf, String)| !path.to_string_lossy().contains("/completions/");
    for (_, text) in files("shell", ".sh").into_iter().filter(not_completions) {
        for part in text.split('$').skip(1) {
            let part = part.trim_start_matches(['{', '#', '!']);
            let name: String = part.chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect();
            if is_variable(&name) && !BASHS.contains(&name.as_str()) {
                found.insert(name);
            }
        }
        if text.contains("type -P rl-cleanup") {
            found.insert("PATH".to_owned());
        }
    }
    found
}

/// The variables in a page's section ENVIRONMENT.
fn variables_in(name: &str) -> BTreeSet<String> {
    let page = page(name);
    let from = page.split_once("\n.Sh ENVIRONMENT").unwrap().1;
    let section = from.split_once("\n.Sh ").unwrap().0;
    let items = section.lines().filter_map(|l| l.strip_prefix(".It Ev "));
    items.flat_map(|l| l.split(" , Ev ").map(str::trim).map(str::to_owned).collect::<Vec<_>>()).collect()
}

#[test]
fn every_environment_variable_in_the_code_is_in_its_page_and_no_others() {
    let (programs, shell) = (variables_of_the_programs(), variables_of_the_shell());
    let all: BTreeSet<_> = programs.union(&shell).cloned().collect();
    assert_eq!(variables_in("rl-cleanup.1"), all, "rl-cleanup(1) on the left, the code on the right");
    let watcher = variables_in("beakerlib-testwatcher.1");
    assert_eq!(watcher, programs, "beakerlib-testwatcher(1) on the left, the programs' code on the right");
    let shim = variables_in("rl-cleanup-shim.7");
    assert_eq!(shim, shell, "rl-cleanup-shim(7) on the left, the shell code on the right");
}

/// The functions of the shim that a test calls: `  rlX() {` or `rlX() {`.
fn functions() -> BTreeSet<String> {
    let shim = std::fs::read_to_string(stage::repository().join("shell/rl-cleanup.sh")).unwrap();
    let names = shim.lines().filter_map(|l| l.trim_start().split_once("() {")).map(|(name, _)| name);
    names.filter(|n| n.starts_with("rl")).map(str::to_owned).collect()
}

#[test]
fn every_function_of_the_shim_is_in_its_page_and_no_others() {
    let page = page("rl-cleanup-shim.7");
    let section = page.split_once("\n.Sh FUNCTIONS").unwrap().1.split_once("\n.Ss ").unwrap().0;
    let listed: BTreeSet<_> =
        tags(section).into_iter().filter(|tag| tag.starts_with("rl")).map(str::to_owned).collect();
    assert!(listed.len() > 8, "{listed:?}");
    assert_eq!(listed, functions(), "rl-cleanup-shim(7) on the left, the shim on the right");
}

#[test]
fn every_file_that_the_code_names_is_in_the_page() {
    let page = page("rl-cleanup.1");
    let section = page.split_once("\n.Sh FILES").unwrap().1.split_once("\n.Sh ").unwrap().0;
    for (file, constant) in [
        ("cleanup/store.rs", "BUFFER"),
        ("cleanup/store.rs", "SCRIPT"),
        ("cleanup/store.rs", "LOCK"),
        ("hook.rs", "CLPATH_DIR"),
        ("hook.rs", "CLPATH_PREFIX"),
        ("harness/first_start.rs", "FILE"),
    ] {
        let text = std::fs::read_to_string(stage::repository().join("src").join(file)).unwrap();
        let from = text.split_once(&format!("const {constant}: &str = \"")).unwrap().1;
        let name = from.split_once('"').unwrap().0;
        assert!(section.contains(name), "{name}, {constant} of {file}, is not in FILES of rl-cleanup(1)");
    }
}

#[test]
fn the_short_help_is_short_and_the_long_one_has_examples() {
    let said = |args: &[&str], option: &str| {
        let said = stage::command(env!("CARGO_BIN_EXE_rl-cleanup")).args(args).arg(option).output().unwrap();
        String::from_utf8(said.stdout).unwrap()
    };
    for args in SUBCOMMANDS.iter().map(|name| vec![*name]).chain([vec![]]) {
        let (short, long) = (said(&args, "-h"), said(&args, "--help"));
        assert!(short.lines().count() < long.lines().count(), "{args:?}\n{short}\n{long}");
        let example = long.split_once("Examples:\n").unwrap_or_else(|| panic!("{args:?} has no examples")).1;
        let name = args.first().copied().unwrap_or("list");
        let first: Vec<_> = example.lines().take_while(|l| l.starts_with("  ")).collect();
        // 'append' and 'prepend' have the same ones.
        let name = if name == "append" { "pend" } else { name };
        assert!(first.iter().any(|l| l.contains("rl-cleanup") && l.contains(name)), "{args:?}\n{long}");
        assert!(long.contains("See rl-cleanup(1)"), "{args:?}\n{long}");
    }
}

#[test]
fn what_is_wrong_with_a_command_line_names_the_next_step() {
    for (args, next) in [
        (&["wach", "true"][..], "'watch'"),
        (&["watch", "--harnes", "none", "true"], "'--harness'"),
        (&["watch", "--time-limit", "soon", "true"], "'1h 30m'"),
        (&["completions", "tcsh"], "bash, zsh, fish"),
        (&["remove", "no-id"], "'rl-cleanup list'"),
        (&["append"], "'--help'"),
        (&["prepend", "two", "words"], "--argv -- CMD"),
        (&["list"], "set BEAKERLIB_DIR, give --dir, or run under 'rl-cleanup watch'"),
    ] {
        let said = stage::command(env!("CARGO_BIN_EXE_rl-cleanup")).args(args).output().unwrap();
        let text = String::from_utf8_lossy(&said.stderr);
        assert!(!said.status.success() && said.stdout.is_empty(), "{args:?}");
        assert!(text.starts_with("rl-cleanup: ") && text.contains(next), "{args:?}: {text}");
    }
    let open_to_all = stage::scratch();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o777);
    std::fs::set_permissions(open_to_all.path(), mode).unwrap();
    let mut list = stage::command(env!("CARGO_BIN_EXE_rl-cleanup"));
    let said = list.args(["list", "--dir"]).arg(open_to_all.path()).output().unwrap();
    let text = String::from_utf8_lossy(&said.stderr);
    assert!(text.ends_with("every user may write it (see SECURITY in rl-cleanup(1))\n"), "{text}");
    assert!(page("rl-cleanup.1").contains("\n.Sh SECURITY\n"));
}

/// The words of ours in a file that has nothing but words and comments of vim's.
fn words(text: &str) -> BTreeSet<&str> {
    let code = text.lines().filter(|line| !line.starts_with('"') && !line.contains("Variable"));
    code.flat_map(str::split_whitespace).filter(|w| w.starts_with("rl") && !w.contains("Function")).collect()
}

#[test]
fn every_function_is_in_vims_files_and_no_others() {
    // The journal's are BeakerLib's to colour.
    let functions = functions();
    let ours: BTreeSet<_> =
        functions.iter().map(String::as_str).filter(|f| !f.starts_with("rlJournal")).collect();
    let read =
        |name: &str| std::fs::read_to_string(stage::repository().join("shell/vim").join(name)).unwrap();
    let mut dictionary = ours.clone();
    dictionary.insert("rlCleanupID");
    assert_eq!(words(&read("dictionary.vim")), dictionary);
    let syntax = read("rl-cleanup.vim");
    let keywords: String =
        syntax.lines().filter(|l| l.starts_with("syn keyword")).map(|l| l.to_owned() + "\n").collect();
    assert_eq!(words(&keywords), ours);
}

/// Prints what vim takes each of the functions for.
const VIM: &str = r#"for l in range(1, line("$"))
    let c = match(getline(l), "rl[A-Z]")
    call writefile([synIDattr(synID(l, c + 1, 1), "name")], $OUT, "a")
endfor
qa!
"#;

#[test]
fn vim_colours_the_functions() {
    let test = "vim_colours_the_functions";
    let version = stage::command("vim").arg("--version").output().map(|o| o.stdout).unwrap_or_default();
    let version = String::from_utf8_lossy(&version).into_owned();
    if !version.contains("+syntax") || !version.contains("+eval") {
        return stage::skip(test, "there is no vim with syntax and eval");
    }
    let scratch = stage::scratch();
    let place = |name: &str| scratch.path().join(name);
    std::fs::create_dir_all(place("after/syntax/sh")).unwrap();
    let syntax = stage::repository().join("shell/vim/rl-cleanup.vim");
    std::fs::copy(syntax, place("after/syntax/sh/rl-cleanup.vim")).unwrap();
    std::fs::write(place("ask.vim"), VIM).unwrap();
    std::fs::write(
        place("test"),
        "rlAppendCleanup x\nif x; then rlCleanupMark; fi\nfor i in x; do rlCleanupRun; done\nrlRun x\n",
    )
    .unwrap();
    let mut vim = stage::command("vim");
    vim.args(["-es", "-u", "NONE", "-i", "NONE", "--cmd"]);
    vim.arg(format!("set nocp rtp=$VIMRUNTIME,{}", place("after").display()));
    vim.args(["-c", "syntax on", "-c", "set ft=sh", "-S"]).arg(place("ask.vim")).arg(place("test"));
    let _ = vim.env("OUT", place("out")).env("TERM", "dumb").status().unwrap();
    let seen = std::fs::read_to_string(place("out")).unwrap();
    assert_eq!(seen, "rlCleanupFunction\nrlCleanupFunction\nrlCleanupFunction\n\n");
}
