//! Every entry runs, whatever the ones before it did; each is struck once it has run; a finished
//! cleanup never runs again.
#![allow(clippy::unwrap_used, reason = "a test that panics has failed")]

mod common;

use common::{State, wait_for};
use std::os::unix::process::ExitStatusExt;

/// Runs one nasty entry between two others and answers what they have printed.
fn between(nasty: &str) -> (String, String) {
    let state = State::new();
    state.append("echo before; x=1");
    state.append(nasty);
    state.append("echo \"after $x\"");
    let ended = state.cleanup();
    assert_eq!(ended.status, Some(0), "{nasty}: {ended:#?}");
    state.is_finished();
    (ended.out, ended.err)
}

#[test]
fn what_ends_a_shell_ends_one_entry() {
    for nasty in [
        "exit 3",
        "exit",
        "(exit 4)",
        "return 3",
        "set -e; false; echo no",
        "set -u; echo $unset_one; echo no",
        ": ${unset_one:?gone}; echo no",
        "kill $$; echo no",
        "kill -HUP $$; echo no",
        "kill -INT $$; echo no",
        "kill -PIPE $$; echo no",
        "f() { exit 5; }; f; echo no",
        "set -o posix; . /nonexistent/file; echo no",
        "readonly r=1; r=2; echo no",
        "set -eu; trap 'exit 9' ERR; false; echo no",
        "source /nonexistent/file",
        "false",
        "no_such_command_anywhere",
        "eval 'if then'",
        "break; continue 3",
        "sleep 60 & kill -9 $!; wait $!",
        "shift 99; set -- a b",
        "exit 1 | exit 2",
        "unset -f __rlcx_nothing; unalias -a",
        "IFS=0123456789; set -f",
        "shopt -s extdebug failglob nullglob; set -C; set -k",
        "enable -n eval exec exit; exit 3",
        "enable -n alias declare local printf return set shopt trap true umask; exit 3",
    ] {
        let (out, _) = between(nasty);
        assert!(!out.contains("no\n"), "{nasty}: {out}");
        assert!(out.starts_with("before\n") && out.ends_with("after 1\n"), "{nasty}: {out}");
    }
}

#[test]
fn output_is_left_as_it_is() {
    assert_eq!(between("printf x").0, "before\nxafter 1\n");
    let state = State::new();
    state.append("exec >&-");
    state.append("echo lost");
    state.append("exec >\"$ROOT/late\"; echo here");
    let ended = state.cleanup();
    assert_eq!((ended.status, ended.out.as_str()), (Some(0), ""));
    assert_eq!(std::fs::read_to_string(state.path("late")).unwrap(), "here\n");
    state.is_finished();
}

#[test]
fn what_one_entry_sets_the_next_one_sees_even_across_an_exit() {
    let state = State::new();
    state.append("declare -A map=([a]=1); v='x y'; f() { echo \"f $1\"; }; cd /tmp; exit 7");
    state.append("map[b]=2; exit");
    state.append("f \"${map[*]} $v\"; alias ll=echo; shopt -s expand_aliases; exit 2");
    state.append("ll aliased");
    assert_eq!(state.cleanup().ok().out, "f 2 1 x y\naliased\n");
}

#[test]
fn an_exit_trap_of_an_entry_runs_when_all_entries_have_run() {
    let state = State::new();
    state.append("trap 'echo trapped $x' EXIT; trap 'echo usr1' USR1; kill -USR1 $$");
    state.append("x=5; exit 3");
    state.append("echo last; (trap 'echo sub' EXIT)");
    assert_eq!(state.cleanup().ok().out, "usr1\nlast\nsub\ntrapped 5\n");
    state.is_finished();
}

#[test]
fn an_exit_trap_can_be_taken_back() {
    for reset in ["trap - EXIT", "trap EXIT", "trap 0", "trap -- - 0"] {
        let state = State::new();
        state.append("trap 'echo trapped' EXIT");
        state.append(reset);
        assert_eq!(state.cleanup().ok().out, "", "{reset}");
    }
}

#[test]
fn an_exit_trap_that_exits_costs_nothing() {
    let state = State::new();
    state.append("trap 'echo trapped; exit 9' EXIT");
    assert_eq!(state.cleanup().ok().out, "trapped\n");
    state.is_finished();
}

#[test]
fn an_entry_can_add_and_remove_others() {
    let state = State::new();
    state.append("$RL_CLEANUP prepend 'echo added first; y=2'; x=1");
    state.append("echo then $x $y; $RL_CLEANUP append 'echo added last $x'");
    state.append("$RL_CLEANUP remove $($RL_CLEANUP list | sed -n '/REMOVE/s/ .*//p')");
    state.append("echo never # REMOVE");
    assert_eq!(state.cleanup().ok().out, "added first\nthen 1 2\nadded last 1\n");
    state.is_finished();
}

#[test]
fn an_entry_can_add_another_through_the_shim() {
    let state = State::new();
    state.shell("rlPrependCleanup 'echo one; v=5; rlPrependCleanup \"echo two \\$v\"'; rlAppendCleanup 'echo three $v'")
        .status
        .unwrap();
    assert_eq!(state.cleanup().ok().out, "one\ntwo 5\nthree 5\n");
}

#[test]
fn what_ends_the_shell_past_any_trap_leaves_the_rest_in_the_buffer() {
    for (nasty, left) in [("exec true", 2), ("kill -9 $$", 2), ("exec kill -9 $$", 2)] {
        let state = State::new();
        state.append("echo one");
        state.append(nasty);
        state.append("echo three");
        state.run(&mut state.command(state.script()));
        // It had not come back yet, so it is there still: at least once each.
        assert_eq!(state.entries().len(), left, "{nasty}");
    }
}

#[test]
fn a_cleanup_that_was_killed_goes_on_where_it_was() {
    let state = State::new();
    state.append("echo one >>\"$ROOT/log\"");
    state.append(
        "echo two >>\"$ROOT/log\"; if [[ ! -e $ROOT/second ]]; then >\"$ROOT/second\"; kill -9 $$; fi",
    );
    state.append("echo three >>\"$ROOT/log\"");
    let killed = state.command(state.script()).status().unwrap();
    assert_eq!(killed.signal(), Some(9));
    assert_eq!(state.entries().len(), 2);
    state.cleanup().ok();
    assert_eq!(std::fs::read_to_string(state.path("log")).unwrap(), "one\ntwo\ntwo\nthree\n");
    state.is_finished();
}

#[test]
fn each_entry_is_struck_before_the_next_one_starts() {
    let state = State::new();
    state.append("true");
    state.append("cp \"$BEAKERLIB_DIR/clbuff\" \"$ROOT/during\"; true second");
    state.cleanup().ok();
    let during = std::fs::read_to_string(state.path("during")).unwrap();
    assert_eq!(during.matches("#rl-cleanup: ").count(), 1, "{during}");
    assert!(during.contains("true second"));
}

#[test]
fn a_finished_cleanup_never_runs_again() {
    let state = State::new();
    state.append("echo once");
    assert_eq!(state.cleanup().ok().out, "once\n");
    assert_eq!(state.script().metadata().unwrap().len(), 0);
    for _ in 0..2 {
        state.cli(["rehook"]).ok();
        assert_eq!(state.run(state.command(common::bash()).arg(state.script())).ok().out, "");
    }
    assert_eq!(state.cli(["list"]).ok().out, "");
}

#[test]
fn without_the_binary_every_entry_still_runs_and_none_runs_twice() {
    let state = State::new();
    let copy = state.path("rl-cleanup");
    std::fs::copy(common::BINARY, &copy).unwrap();
    for text in ["echo one", "exit 3", "if", "echo three; exit", "echo four"] {
        if text == "if" {
            // BeakerLib's own function would have taken it.
            let file = state.dir.join("clbuff");
            std::fs::write(&file, [std::fs::read(&file).unwrap(), b"if true; then\n".to_vec()].concat())
                .unwrap();
        } else {
            state.run(state.command(&copy).args(["append", text])).ok();
        }
    }
    std::fs::remove_file(&copy).unwrap();
    let ended = state.run(state.command(state.script()).env_remove("RL_CLEANUP"));
    assert_eq!((ended.status, ended.out.as_str()), (Some(0), "one\nthree\nfour\n"), "{ended:#?}");
    assert!(ended.err.contains("syntax error"), "{ended:#?}");
    state.is_finished();
}

#[test]
fn text_that_bash_cannot_parse_and_upstream_let_in_takes_nothing_down() {
    let state = State::new();
    state.append("echo one");
    let file = state.dir.join("clbuff");
    let ours = std::fs::read(&file).unwrap();
    std::fs::write(&file, [b"if true; then\n".to_vec(), ours].concat()).unwrap();
    state.append("echo two");
    let ended = state.cleanup();
    assert_eq!((ended.status, ended.out.as_str()), (Some(0), "one\ntwo\n"), "{ended:#?}");
    state.is_finished();
}

#[test]
fn an_entry_of_a_megabyte_runs() {
    let state = State::new();
    let text = format!("x='{}'; echo ${{#x}}", "y".repeat(1 << 20));
    state.cli_with_input(["append", "-"], text.as_bytes()).ok();
    assert_eq!(state.cleanup().ok().out, "1048576\n");
    // Nor does the text itself end up in a variable that 'set -a' would export.
    let state = State::new();
    state.shell(format!("set -a; rlAppendCleanup '/bin/true && echo ok; : {}'", "z".repeat(200_000)));
    assert_eq!(state.cleanup().ok().out, "ok\n");
}

#[test]
fn text_is_taken_byte_for_byte() {
    for text in [
        &b"-n"[..],
        b"-e",
        b"--",
        b"\\\\",
        b"   echo",
        b"echo x\n\n",
        b"cat <<EOF\nx\nEOF",
        b"cat <<EOF\nx\nEOF\n",
        b"'a'\\''b'",
        b"# only a comment",
        b"echo \xff\xfe",
        b"echo \x01\x7f\x1b",
        b"--mark",
        b"$'\\n'",
        b"-",
        b"#rl-cleanup: id=aaaaaa bytes=1",
        b"cat <<EOF\nunterminated",
    ] {
        let state = State::new();
        state.cli_with_input(["append", "-"], text).ok();
        let want = [text, b"\n"].concat();
        let file = std::fs::read(state.dir.join("clbuff")).unwrap();
        let first_line = file.iter().position(|&b| b == b'\n').unwrap() + 1;
        assert_eq!(common::os(&file[first_line..]), common::os(&want));
        if text != b"-" {
            state.run(state.command(common::BINARY).arg("append").arg("--").arg(common::os(text)));
            let file = std::fs::read(state.dir.join("clbuff")).unwrap();
            assert_eq!(file.windows(want.len()).filter(|w| *w == want).count(), 2, "{text:?}");
        }
    }
}

#[test]
fn the_report_says_what_became_of_each_entry() {
    use rl_cleanup::hook::{ClPath, Row};
    let state = State::new();
    let clpath = ClPath::new(state.write("testwatcher-x", ""));
    clpath.make_private_dir().unwrap();
    let add = |text: &str| {
        state
            .run(
                state.command(common::BINARY).args(["append", text]).env("TESTWATCHER_CLPATH", clpath.path()),
            )
            .ok()
    };
    add("true one");
    add("exit 3");
    assert_eq!(std::fs::read_to_string(clpath.path()).unwrap(), format!("{}\n", state.script().display()));
    state.run(state.command(state.script()).env("TESTWATCHER_CLPATH", clpath.path())).ok();
    let rows: Vec<String> = clpath
        .report()
        .rows()
        .unwrap()
        .into_iter()
        .map(|row| match row {
            Row::Begin { .. } => "begin".into(),
            Row::Plan { text, .. } => format!("plan {text}"),
            Row::Ran { status, text, .. } => format!("ran {text}: {status}"),
            Row::End { .. } => "end".into(),
        })
        .collect();
    assert_eq!(
        rows,
        ["begin", "plan true one", "plan exit 3", "ran true one: 0", "ran exit 3: 3", "begin", "end"]
    );
}

#[test]
fn two_cleanups_at_once_end_with_an_empty_buffer() {
    let state = State::new();
    for n in 0..5 {
        state.append(&format!("echo {n}"));
    }
    let mut first = state.command(state.script()).stdout(std::process::Stdio::null()).spawn().unwrap();
    let mut second = state.command(state.script()).stdout(std::process::Stdio::null()).spawn().unwrap();
    wait_for("both cleanups", || Some((first.try_wait().unwrap()?, second.try_wait().unwrap()?)));
    state.is_finished();
}
