//! The shim alone, without BeakerLib: what a test sees of it, and what it sees of the test.
#![allow(clippy::unwrap_used, reason = "a test that panics has failed")]

mod common;

use common::{BINARY, State, shim};

/// `[[ … ]]` at the end of a script makes its exit status the test's verdict.
#[track_caller]
fn holds(state: &State, script: &str) -> common::Ended {
    let ended = state.shell(script);
    assert_eq!(ended.status, Some(0), "{ended:#?}");
    ended
}

#[test]
fn all_four_names_add_an_entry_and_say_its_id() {
    let state = State::new();
    holds(
        &state,
        "rlAppendCleanup 'echo 3'; a=$rlCleanupID; rlCleanupAppend 'echo 4'; rlPrependCleanup 'echo 2'
         rlCleanupPrepend 'echo 1'; [[ ${#a} == 6 && $a != \"$rlCleanupID\" ]]; rc=$?; trap - EXIT; exit $rc",
    );
    assert_eq!(state.entries(), ["echo 1", "echo 2", "echo 3", "echo 4"]);
}

#[test]
fn one_text_and_only_one() {
    let state = State::new();
    let ended = state.shell("trap : EXIT; rlAppendCleanup; echo $?; rlAppendCleanup a b; echo $?; rlAppendCleanup ''; echo $?; rlAppendCleanup 'if'; echo $?; echo \"<$rlCleanupID>\"");
    assert_eq!(ended.out, "1\n1\n1\n1\n<>\n");
    for says in [
        "rlAppendCleanup: not enough arguments",
        "one text expected, got 2 arguments: quote it",
        "must not be empty",
        "syntax error",
    ] {
        assert!(ended.err.contains(says), "{says}: {ended:#?}");
    }
    assert!(!state.dir.join("clbuff").exists());
}

#[test]
fn text_with_new_syntax_is_read_by_the_tests_own_shell() {
    let state = State::new();
    holds(
        &state,
        "shopt -s extglob expand_aliases; alias begin='{' end='}'\n rlAppendCleanup 'begin case x in !(y)) echo ok;; esac; end'; rc=$?; trap - EXIT; exit $rc",
    );
    assert_eq!(state.cleanup().ok().out, "ok\n");
}

#[test]
fn reading_the_text_never_runs_it() {
    let state = State::new();
    let text = "touch \"$ROOT/ran\"; exit 3\n`touch \"$ROOT/ran\"`";
    for flags in ["", "-i"] {
        let file =
            state.write("t.sh", format!(". \"$SHIM\"; trap : EXIT; rlAppendCleanup '{text}'; echo $?"));
        let mut bash = state.command(common::bash());
        if !flags.is_empty() {
            bash.args(["--norc", flags]);
        }
        let ended = state.run(bash.arg(file).env("SHIM", shim()));
        assert!(ended.out.ends_with("0\n"), "{ended:#?}");
        assert!(!state.path("ran").exists(), "{flags}");
    }
    // An interactive shell reads what is typed, too, and its syntax errors come from the binary.
    let mut bash = state.command(common::bash());
    let ended = state.run(
        bash.args(["--norc", "-ic", ". \"$SHIM\"; trap : EXIT; rlAppendCleanup 'if'; echo $?"])
            .env("SHIM", shim()),
    );
    assert!(ended.out.ends_with("1\n") && ended.err.contains("bash cannot parse this entry"), "{ended:#?}");
}

#[test]
fn it_works_under_every_option_a_test_may_set() {
    for options in [
        "set -e",
        "set -u",
        "set -f",
        "set -eu -o pipefail",
        "set -C",
        "set -a",
        "set -k",
        "set -E -T",
        "set -x",
        "set -o posix",
        "set -v",
        "set -m",
        "shopt -s lastpipe",
        "IFS=abcdefgh/0123456789",
        "unset IFS",
        "IFS=",
        "set -T; trap 'echo debug' DEBUG",
        "set -E; trap 'echo err' ERR",
        "shopt -s extdebug",
        "LC_ALL=C",
        "exec <&-",
        "exec 3>&1 4>&1 5>&1",
    ] {
        let state = State::new();
        let script = format!(
            "{options}\nd=$BEAKERLIB_DIR\nrlJournalStart\n[[ $d == \"$BEAKERLIB_DIR\" ]] || exit 9\nv='a b'\nrlPrependCleanup 'echo \"$v\"'\nrlAppendCleanup 'echo two'\nrlCleanupMark\nrlCleanupRemove $rlCleanupID\necho alive >\"$ROOT/alive\"\nrlJournalEnd\n"
        );
        let ended = state.shell(&script);
        assert!(state.path("alive").exists(), "{options}: {ended:#?}");
        assert_eq!(ended.status, Some(0), "{options}: {ended:#?}");
        assert!(ended.out.contains("a b\n") && ended.out.contains("two\n"), "{options}: {ended:#?}");
        state.is_finished();
    }
}

#[test]
fn sourcing_it_under_set_e_or_twice_is_harmless() {
    let state = State::new();
    holds(
        &state,
        "set -eu; . \"$SHIM\"; unset IFS; . \"$SHIM\"; rlJournalStart; rlAppendCleanup 'echo once'; rlJournalEnd",
    );
    state.is_finished();
    // As the README says.
    let ended = state.run(state.command(common::bash()).args(["-euc", "eval \"$($RL_CLEANUP shim)\"; rlJournalStart; rlAppendCleanup 'echo evaluated'; rlJournalEnd"]).env_remove("SHIM"));
    assert_eq!(ended.out, "evaluated\n", "{ended:#?}");
}

#[test]
fn functions_of_the_tests_with_the_names_of_builtins_and_programs_do_not_matter() {
    let state = State::new();
    let names = "cat mv rm chmod echo printf declare command [ test read local export unset set shopt eval type trap typeset alias exec exit return umask readonly mapfile shift true false cd compgen source . : rl-cleanup sed env bash break wait kill";
    let script = format!(
        "rlJournalStart\nfor n in {names}; do builtin eval \"function $n {{ hijacked=1; builtin return 3; }}\"; done\n\
         PATH=\nrlAppendCleanup 'builtin echo one >>\"$ROOT/log\"; exit'\nrlPrependCleanup 'builtin exit 4'\n\
         rlAppendCleanup 'builtin echo \"two ${{hijacked-}}\" >>\"$ROOT/log\"'\nunset -f nothing\nrlJournalEnd\nbuiltin exit 0"
    );
    let ended = state.shell(script);
    assert_eq!(std::fs::read_to_string(state.path("log")).unwrap_or_default(), "one\ntwo 1\n", "{ended:#?}");
    state.is_finished();
}

#[test]
fn an_exported_value_too_long_for_any_program_is_no_obstacle() {
    let state = State::new();
    let ended = state.shell(
        "rlJournalStart; export big=$(printf '%*s' 300000 x); rlAppendCleanup 'builtin echo ${#big} >\"$ROOT/log\"'; rc=$?; trap - EXIT; builtin exit $rc",
    );
    assert_eq!(ended.status, Some(0), "{ended:#?}");
    let ended = state.cleanup();
    assert_eq!(std::fs::read_to_string(state.path("log")).unwrap(), "300000\n", "{ended:#?}");
    state.is_finished();
}

#[test]
fn a_hostile_loader_variable_does_not_reach_the_binary() {
    let state = State::new();
    holds(
        &state,
        "rlJournalStart; export LD_PRELOAD=/nonexistent.so; rlAppendCleanup 'echo ok' 2>\"$ROOT/err\"; rc=$?; trap - EXIT; exit $rc",
    );
    let said = std::fs::read_to_string(state.path("err")).unwrap();
    assert!(!said.contains("cannot be preloaded"), "{said}");
}

#[test]
fn the_tests_random_numbers_and_matches_stay_the_same() {
    let draw = |add: &str| {
        let state = State::new();
        let script = format!(
            "trap : EXIT; RANDOM=42; [[ abc =~ b ]]; rlJournalStart; {add}; echo $RANDOM $RANDOM \"${{BASH_REMATCH[0]}}\" $OPTIND \"${{REPLY-}}\""
        );
        state.shell(script).out
    };
    assert_eq!(draw("rlAppendCleanup true; rlPrependCleanup true"), draw(":"));
}

#[test]
fn without_a_watcher_it_warns_in_beakerlibs_words_once_a_journal() {
    let state = State::new();
    let ended =
        state.shell("rlJournalStart; rlCleanupAppend 'echo 1'; rlCleanupAppend 'echo 2'; rlJournalEnd");
    let warnings: Vec<&str> = ended.err.lines().collect();
    assert_eq!(
        warnings,
        [
            "rlCleanupAppend: Running outside of the test watcher",
            "rlCleanupAppend: Check your 'run' target in the test Makefile",
            "rlCleanupAppend: Cleanup will be executed only if rlJournalEnd is called properly",
            "rlJournalEnd: Not running in test watcher and rlCleanup* functions were used",
            "rlJournalEnd: Executing prepared cleanup",
        ]
    );
    assert_eq!(ended.out, "1\n2\n");
}

#[test]
fn rl_journal_start_chooses_the_directory_as_beakerlib_does() {
    let state = State::new();
    let in_shell = |setup: &str| {
        let script = format!(
            "unset BEAKERLIB_DIR TESTID; {setup}; rlJournalStart; echo \"$BEAKERLIB_DIR $__INTERNAL_CLEANUP_FINAL $__INTERNAL_CLEANUP_BUFF\"; env | grep -c '^BEAKERLIB_DIR=\\|^__INTERNAL_CLEANUP_'; stat -c %a \"$BEAKERLIB_DIR\"; rm -r \"$BEAKERLIB_DIR\""
        );
        state.shell(script).out
    };
    let given = state.path("given/deep");
    let given = given.display();
    assert_eq!(
        in_shell(&format!("BEAKERLIB_DIR={given}")),
        format!("{given} {given}/cleanup.sh {given}/clbuff\n3\n700\n")
    );
    let id = format!("rl-cleanup-test-{}", std::process::id());
    assert!(in_shell(&format!("umask 0; TESTID={id}")).starts_with(&format!("/var/tmp/beakerlib-{id} ")));
    let fresh = in_shell(":");
    assert!(fresh.starts_with("/var/tmp/beakerlib-") && fresh.ends_with("\n3\n700\n"), "{fresh}");
    assert_ne!(fresh, in_shell(":"));
}

#[test]
fn a_directory_that_is_not_trusted_gets_no_entries_and_nothing_in_it_is_run() {
    use std::os::unix::fs::PermissionsExt;
    let state = State::new();
    std::fs::create_dir(&state.dir).unwrap();
    std::fs::write(state.script(), "#!/bin/bash\necho foreign\n").unwrap();
    std::fs::set_permissions(state.script(), PermissionsExt::from_mode(0o755)).unwrap();
    std::fs::set_permissions(&state.dir, PermissionsExt::from_mode(0o777)).unwrap();
    let ended = state.shell("rlJournalStart; rlAppendCleanup true; echo rc=$?; rlJournalEnd");
    assert_eq!(ended.out, "rc=1\n", "{ended:#?}");
    assert!(ended.err.contains("will not trust"), "{ended:#?}");
}

#[test]
fn a_cleanup_survives_a_reboot_runs_once_and_never_again() {
    let state = State::new();
    // The machine goes down in the middle of the test.
    state.shell("rlJournalStart; v=kept; rlAppendCleanup 'echo \"$v\"'; kill -9 $$");
    assert_eq!(state.entries().len(), 1);
    let clpath = state.write("testwatcher-x", "");
    let second = |script: &str| {
        let file = state.write("second.sh", format!(". \"$SHIM\"\n{script}"));
        let mut bash = state.command(common::bash());
        state.run(bash.arg(file).env("SHIM", shim()).env("TESTWATCHER_CLPATH", &clpath))
    };
    let ended = second("rlJournalStart; echo $__INTERNAL_TESTWATCHER_ACTIVE");
    assert_eq!((ended.status, ended.out.as_str()), (Some(0), "true\n"), "{ended:#?}");
    assert!(ended.err.contains("rlJournalStart: 1 entry in"), "{ended:#?}");
    assert_eq!(std::fs::read_to_string(&clpath).unwrap(), format!("{}\n", state.script().display()));
    assert_eq!(state.cleanup().ok().out, "kept\n");
    // The third start finds nothing.
    let ended = state.shell("rlJournalStart; rlJournalEnd; exit 7");
    assert_eq!((ended.status, ended.out.as_str(), ended.err.as_str()), (Some(7), "", ""), "{ended:#?}");
    state.is_finished();
}

#[test]
fn rl_journal_end_leaves_the_cleanup_to_a_live_watcher_and_takes_it_from_a_dead_one() {
    let state = State::new();
    let clpath = state.write("testwatcher-x", "");
    let run = |script: &str| {
        let file = state.write(
            "t.sh",
            format!(". \"$SHIM\"; rlJournalStart; rlAppendCleanup 'echo ran'; {script}; rlJournalEnd"),
        );
        let mut bash = state.command(common::bash());
        state.run(bash.arg(file).env("SHIM", shim()).env("TESTWATCHER_CLPATH", &clpath))
    };
    // The original watcher: a file, and nothing beside it.
    let ended = run(":").ok();
    assert_eq!(ended.out, "");
    // One of ours that was SIGKILLed, guard and all: its directory is there and nobody is registered.
    let ended = run("mkdir \"$TESTWATCHER_CLPATH.d\"");
    assert_eq!(ended.out, "ran\nran\n", "{ended:#?}");
    state.is_finished();
    // One that has ended, and taken its file along.
    let ended = run("rm -r \"$TESTWATCHER_CLPATH\" \"$TESTWATCHER_CLPATH.d\"");
    assert_eq!(ended.out, "ran\n", "{ended:#?}");
    state.is_finished();
}

#[test]
fn a_nested_test_does_not_take_the_hook_and_behaves_as_without_a_watcher() {
    let (outer, inner) = (State::new(), State::new());
    let clpath = outer.write("testwatcher-x", "");
    let nested = inner.write("nested.sh", format!(". \"$SHIM\"; export BEAKERLIB_DIR={}; rlJournalStart; rlAppendCleanup 'echo inner'; rlJournalEnd", inner.dir.display()));
    let script = format!(
        ". \"$SHIM\"; rlJournalStart; rlAppendCleanup 'echo outer'; bash {}; rlJournalEnd",
        nested.display()
    );
    let file = outer.write("outer.sh", script);
    let ended = outer
        .run(outer.command(common::bash()).arg(file).env("SHIM", shim()).env("TESTWATCHER_CLPATH", &clpath));
    assert_eq!(ended.out, "inner\n", "{ended:#?}");
    assert!(ended.err.contains("not hooked: the watcher has"), "{ended:#?}");
    assert_eq!(std::fs::read_to_string(&clpath).unwrap(), format!("{}\n", outer.script().display()));
    assert_eq!(outer.cleanup().ok().out, "outer\n");
}

#[test]
fn a_test_that_crashes_is_cleaned_up_by_an_exit_trap_of_the_shims() {
    for crash in ["exit 7", "set -e; (exit 7)", "(exit 7); exit"] {
        let state = State::new();
        let ended = state.shell(format!("rlJournalStart; rlAppendCleanup 'echo ran'; {crash}"));
        assert_eq!((ended.status, ended.out.as_str()), (Some(7), "ran\n"), "{crash}: {ended:#?}");
        state.is_finished();
    }
}

#[test]
fn the_exit_trap_is_set_only_where_the_test_has_none_and_can_be_turned_off() {
    for (setup, later, out, left) in [
        ("trap 'echo mine' EXIT", "", "mine\n", 1),
        ("", "trap 'echo mine' EXIT", "mine\n", 1),
        ("", "trap 'echo mine; rlCleanupOnExit' EXIT", "mine\nran\n", 0),
        ("RL_CLEANUP_NO_TRAP=1", "", "", 1),
        ("", "(exit)", "ran\n", 0),
        ("", "rlJournalEnd", "ran\n", 0),
        ("TESTWATCHER_CLPATH=$ROOT/clpath; : >$TESTWATCHER_CLPATH", "", "", 1),
    ] {
        let state = State::new();
        let ended =
            state.shell(format!("{setup}\nrlJournalStart; rlAppendCleanup 'echo ran'\n{later}\nexit 5"));
        assert_eq!((ended.status, ended.out.as_str()), (Some(5), out), "{setup} {later}: {ended:#?}");
        assert_eq!(state.entries().len(), left, "{setup} {later}");
    }
}

#[test]
fn two_dashes_end_the_options_of_the_shims_functions() {
    let state = State::new();
    let ended = holds(
        &state,
        "trap : EXIT; rlJournalStart; rlAppendCleanup 'echo one'; rlCleanupRun -- $rlCleanupID
         rlAppendCleanup 'echo two'; rlCleanupRemove -- $rlCleanupID; rlCleanupList | wc -l",
    );
    assert_eq!(ended.out, "one\n0\n");
}

#[test]
fn entries_can_be_listed_removed_marked_and_run_from_the_test() {
    let state = State::new();
    let ended = holds(
        &state,
        "trap : EXIT; rlJournalStart; rlAppendCleanup 'echo base'; rlCleanupMark; v=now; rlPrependCleanup 'echo \"$v\"; v=changed'
         rlPrependCleanup 'echo dropped'; rlCleanupRemove $rlCleanupID; rlCleanupList | wc -l
         v=fresh; rlCleanupRun --to-mark; rlCleanupList | wc -l; echo \"$v\"
         rlAppendCleanup 'echo single'; rlCleanupRun $rlCleanupID; rlCleanupRun zzzzzz || echo none",
    );
    assert_eq!(ended.out, "3\nfresh\n1\nfresh\nsingle\nnone\n");
    assert_eq!(state.entries(), ["echo base"]);
}

#[test]
fn the_shims_functions_work_within_the_cleanup() {
    let state = State::new();
    holds(
        &state,
        "trap : EXIT; rlJournalStart; rlAppendCleanup 'echo one; rlAppendCleanup \"echo three\"; rlCleanupList | wc -l'; rlAppendCleanup 'rlJournalEnd; echo two; rlJournalStart'",
    );
    let ended = state.cleanup();
    assert_eq!(
        (ended.status, ended.out.as_str(), ended.err.as_str()),
        (Some(0), "one\n3\ntwo\nthree\n", ""),
        "{ended:#?}"
    );
}

#[test]
fn without_the_binary_it_says_so_once_and_defines_nothing() {
    let state = State::new();
    let file = state.write("t.sh", "rlCleanupAppend() { echo theirs; }\nrlJournalStart() { echo started; }\n. \"$SHIM\"\nrlJournalStart; rlCleanupAppend x");
    let copy = state.path("rl-cleanup.sh");
    std::fs::copy(shim(), &copy).unwrap();
    let ended = state.run(
        state
            .command(common::bash())
            .arg(file)
            .env("SHIM", &copy)
            .env_remove("RL_CLEANUP")
            .env("PATH", "/bin:/usr/bin"),
    );
    assert_eq!((ended.status, ended.out.as_str()), (Some(0), "started\ntheirs\n"), "{ended:#?}");
    assert_eq!(ended.err.lines().count(), 1, "{ended:#?}");
}

#[test]
fn the_binary_is_found_beside_the_shim_in_path_or_by_name() {
    let state = State::new();
    for dir in ["prefix/bin", "prefix/share/rl-cleanup", "path"] {
        std::fs::create_dir_all(state.path(dir)).unwrap();
    }
    std::fs::copy(BINARY, state.path("prefix/bin/rl-cleanup")).unwrap();
    std::fs::copy(shim(), state.path("prefix/share/rl-cleanup/rl-cleanup.sh")).unwrap();
    let file = state.write(
        "t.sh",
        ". \"$SHIM\"\ntrap : EXIT; rlJournalStart; rlAppendCleanup true && echo \"$__rlc_bin\"",
    );
    let mut bash = state.command(common::bash());
    let ended = state.run(
        bash.arg(&file)
            .env("SHIM", state.path("prefix/share/rl-cleanup/rl-cleanup.sh"))
            .env_remove("RL_CLEANUP"),
    );
    assert!(ended.out.ends_with("/../../bin/rl-cleanup\n"), "{ended:#?}");
    std::fs::copy(shim(), state.path("alone.sh")).unwrap();
    let mut bash = state.command(common::bash());
    bash.arg(&file).env("SHIM", state.path("alone.sh")).env_remove("RL_CLEANUP");
    let path = format!("{}:/bin:/usr/bin", state.path("prefix/bin").display());
    let ended = state.run(bash.env("PATH", path));
    assert_eq!(ended.out, format!("{}\n", state.path("prefix/bin/rl-cleanup").display()), "{ended:#?}");
}

#[test]
fn a_locale_that_is_not_installed_makes_no_noise() {
    let state = State::new();
    state.shell("trap : EXIT; rlJournalStart; LC_ALL=xx_XX.UTF-8 LANG=yy_YY; export LC_ALL LANG; rlAppendCleanup 'echo $LC_ALL $LANG'");
    let ended = state.run(state.command(state.script()).env("LC_ALL", "zz_ZZ").env("LANG", "zz_ZZ"));
    // Bash itself complains about what it was started with; nothing more must come.
    assert!(!ended.err.contains("xx_XX") && !ended.err.contains("yy_YY"), "{ended:#?}");
    assert_eq!(ended.out, "xx_XX.UTF-8 yy_YY\n");
}
