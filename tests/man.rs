//! The man pages say what the programs do: the same options, and every exit status, environment
//! variable and function of the interface.

#![allow(clippy::unwrap_used, reason = "in a test a panic is the answer")]

#[path = "common/stage.rs"]
mod stage;

use std::collections::BTreeSet;

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

const WATCH_STATUSES: [&str; 7] = ["130", "124", "121", "127", "126", "125", "2"];
const TOOL_STATUSES: [&str; 5] = ["0", "1", "2", "3", "4"];

const WATCHER_VARIABLES: [&str; 10] = [
    "TESTWATCHER_CLPATH",
    "TESTWATCHER_OUTCOME",
    "TESTWATCHER_EWD_SECS",
    "TESTWATCHER_EXIT_ZERO",
    "TASKID",
    "RSTRNT_*",
    "RHTSDIR",
    "TMT_*",
    "BEAKERLIB_COMMAND_REPORT_RESULT",
    "NO_COLOR",
];
const SHIM_VARIABLES: [&str; 5] =
    ["BEAKERLIB_DIR", "BEAKERLIB", "TESTID", "RL_CLEANUP", "RL_CLEANUP_NO_TRAP"];

const FUNCTIONS: [&str; 10] = [
    "rlPrependCleanup",
    "rlAppendCleanup",
    "rlCleanupPrepend",
    "rlCleanupAppend",
    "rlJournalStart",
    "rlJournalEnd",
    "rlCleanupRemove",
    "rlCleanupRun",
    "rlCleanupMark",
    "rlCleanupList",
];

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

#[test]
fn every_exit_status_is_in_the_pages() {
    let statuses = |name: &str| page(name).split_once("\n.Sh EXIT STATUS").unwrap().1.to_owned();
    let toolkit = statuses("rl-cleanup.1");
    let (watch, others) = toolkit.split_once("Of all other commands").unwrap();
    let watcher = statuses("beakerlib-testwatcher.1");
    for status in WATCH_STATUSES {
        assert!(tags(watch).contains(status), "{status} of watch in rl-cleanup(1)");
        assert!(tags(&watcher).contains(status), "{status} in beakerlib-testwatcher(1)");
        // The table in --help has 127, 126 and 2, 125 in a row of two.
        let row = help(&["watch"]).lines().any(|l| l.split([' ', ',']).take(6).any(|w| w == status));
        assert!(row, "{status} in rl-cleanup watch --help");
    }
    for status in TOOL_STATUSES {
        assert!(tags(others).contains(status), "{status} of the others in rl-cleanup(1)");
    }
}

#[test]
fn every_environment_variable_is_in_the_pages() {
    let environment = |name: &str| {
        let page = page(name);
        let from = page.split_once("\n.Sh ENVIRONMENT").unwrap().1;
        from.split_once("\n.Sh ").unwrap().0.to_owned()
    };
    let (toolkit, watcher, shim) = (
        environment("rl-cleanup.1"),
        environment("beakerlib-testwatcher.1"),
        environment("rl-cleanup-shim.7"),
    );
    for variable in WATCHER_VARIABLES {
        assert!(tags(&toolkit).contains(variable), "{variable} in rl-cleanup(1)");
        assert!(tags(&watcher).contains(variable), "{variable} in beakerlib-testwatcher(1)");
    }
    for variable in SHIM_VARIABLES {
        assert!(tags(&toolkit).contains(variable), "{variable} in rl-cleanup(1)");
        assert!(tags(&shim).contains(variable), "{variable} in rl-cleanup-shim(7)");
    }
}

#[test]
fn every_function_is_in_the_shims_page_and_in_the_shim() {
    let page = page("rl-cleanup-shim.7");
    let shim = std::fs::read_to_string(stage::repository().join("shell/rl-cleanup.sh")).unwrap();
    for function in FUNCTIONS {
        assert!(tags(&page).contains(function), "{function} in rl-cleanup-shim(7)");
        assert!(shim.contains(function), "{function} in the shim");
    }
}

/// The words of ours in a file that has nothing but words and comments of vim's.
fn words(text: &str) -> BTreeSet<&str> {
    let code = text.lines().filter(|line| !line.starts_with('"') && !line.contains("Variable"));
    code.flat_map(str::split_whitespace).filter(|w| w.starts_with("rl") && !w.contains("Function")).collect()
}

#[test]
fn every_function_is_in_vims_files_and_no_others() {
    // The journal's are BeakerLib's to colour.
    let ours: BTreeSet<_> = FUNCTIONS.into_iter().filter(|f| !f.starts_with("rlJournal")).collect();
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
