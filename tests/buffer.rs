//! The subcommands, their exit statuses, and what a change leaves on disk when it fails, when many
//! happen at once and when the process is killed.
#![allow(clippy::unwrap_used, reason = "a test that panics has failed")]

mod common;

use common::{BINARY, State, is_root};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::process::Stdio;

#[test]
fn help_that_cannot_be_written_is_a_failure() {
    let state = State::new();
    for option in ["--help", "--version"] {
        let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
        let ended = state.command(BINARY).arg(option).stdout(full).stderr(Stdio::piped()).output().unwrap();
        let err = String::from_utf8_lossy(&ended.stderr);
        assert_eq!(
            (ended.status.code(), &*err),
            (Some(1), "rl-cleanup: cannot write 'standard output': No space left on device\n"),
        );
    }
}

#[test]
fn entries_run_in_the_order_of_the_list() {
    let state = State::new();
    state.append("echo 2");
    state.prepend("echo 1");
    state.append("echo 3");
    assert_eq!(state.entries(), ["echo 1", "echo 2", "echo 3"]);
    assert_eq!(state.cleanup().ok().out, "1\n2\n3\n");
}

#[test]
fn text_that_bash_cannot_parse_is_refused_in_bashs_words() {
    let state = State::new();
    state.append("true");
    let before = state.read("clbuff");
    let refused = state.cli(["append", "one\nif true; then\n"]);
    refused.fails(1, "line 3: syntax error: unexpected end of file");
    state.cli(["prepend", "echo )"]).fails(1, "syntax error near unexpected token `)'");
    assert_eq!(state.read("clbuff"), before);
    assert_eq!(state.names(), ["clbuff", "clbuff.lock", "cleanup.sh"]);
}

#[test]
fn text_is_read_in_the_syntax_of_the_shell_that_will_run_it() {
    let state = State::new();
    state.cli(["append", "case x in !(a)) ;; esac"]).fails(1, "syntax error");
    state
        .shell("shopt -s extglob expand_aliases; alias begin='{' end='}'; rlAppendCleanup true")
        .status
        .unwrap();
    state.cli(["append", "case x in !(a)) echo ext;; esac"]).ok();
    state.cli(["append", "begin echo aliased; end"]).ok();
    assert_eq!(state.cleanup().ok().out, "ext\naliased\n");
}

#[test]
fn usage_errors_are_status_2() {
    let state = State::new();
    for args in [
        &["append"][..],
        &["append", "a", "b"],
        &["append", " \n"],
        &["append", ""],
        &["remove"],
        &["remove", "x"],
    ] {
        assert_eq!(state.cli(args).status, Some(2), "{args:?}");
    }
    assert_eq!(state.cli_with_input(["append", "-"], b"").status, Some(2));
    assert_eq!(state.cli_with_input(["append", "-"], b"a\0b").status, Some(2));
    assert!(!state.dir.exists() || state.names() == ["clbuff.lock"]);
}

#[test]
fn no_directory_and_no_buffer_are_status_3() {
    let state = State::new();
    for args in [&["list"][..], &["show"], &["clear"], &["run"]] {
        state.cli(args).fails(3, "no cleanup buffer in");
        let mut nowhere = state.command(BINARY);
        state.run(nowhere.args(args).env_remove("BEAKERLIB_DIR")).fails(3, "set BEAKERLIB_DIR");
    }
    state
        .run(state.command(BINARY).args(["append", "true"]).env_remove("BEAKERLIB_DIR"))
        .fails(3, "no state directory");
    state.cli(["status"]).ok();
}

/// What bash would take for a keyword or an assignment is a command and an argument here.
#[test]
fn argv_words_mean_nothing_to_bash() {
    let state = State::new();
    let path = std::env::join_paths([state.root.path(), "/usr/bin".as_ref(), "/bin".as_ref()]).unwrap();
    let cli = |args: &[&str]| state.run(state.command(BINARY).args(args).env("PATH", &path)).ok().out;
    for name in ["time", "if", "in", "a=b"] {
        let program = state.write(name, "#!/bin/sh\necho \"${0##*/} $*\"\n");
        std::fs::set_permissions(&program, PermissionsExt::from_mode(0o755)).unwrap();
        cli(&["append", "--argv", "--", name, "-f", "x=1"]);
    }
    assert_eq!(cli(&["run"]), "time -f x=1\nif -f x=1\nin -f x=1\na=b -f x=1\n");

    // With 'set -k' any word with an equals sign is an assignment.
    state.shell("set -k; rlAppendCleanup true");
    state.cli(["append", "--argv", "--", "echo", "x=1"]).ok();
    assert_eq!(state.cli(["run"]).ok().out, "x=1\n");
}

#[test]
fn entries_that_run_now_have_the_environment_they_were_added_in() {
    let state = State::new();
    state.run(state.command(BINARY).args(["append", "echo ${A-none} ${B-none}"]).env("A", "1")).ok();
    assert_eq!(state.run(state.command(BINARY).arg("run").env("B", "2")).ok().out, "1 none\n");
}

/// As where the variable reaches the program itself.
#[test]
fn nonsense_as_sudos_user_names_nobody() {
    for nonsense in ["abc", "-1", "99999999999"] {
        let state = State::new();
        let added = state.shell(format!("export SUDO_UID={nonsense}; rlAppendCleanup 'echo ran'"));
        assert_eq!(added.status, Some(0), "{added:#?}");
        let ended = state.run(state.command(state.script()).env("SUDO_UID", nonsense)).ok();
        assert_eq!(ended.out, "ran\n");
        state.is_finished();
    }
}

#[test]
fn entries_that_run_now_have_the_callers_umask() {
    let state = State::new();
    state.append("umask");
    let script = "umask 0026; exec \"$RL_CLEANUP\" run";
    assert_eq!(state.shell(script).ok().out, "0026\n");
}

#[test]
fn argv_quotes_each_word() {
    let state = State::new();
    state.cli(["append", "--argv", "--", "printf", "<%s>", "a b", "it's", "$HOME", "*", "", "-n", "\n"]).ok();
    assert_eq!(state.cleanup().ok().out, "<a b><it's><$HOME><*><><-n><\n>");
}

#[test]
fn entries_can_be_taken_back() {
    let state = State::new();
    let one = state.append("echo 1");
    let two = state.append("echo 2");
    state.append("echo 3");
    state.cli(["remove", &one, "zzzzzz"]).fails(1, "there is no entry 'zzzzzz'");
    assert_eq!(state.entries().len(), 3);
    state.cli(["remove", &two, &one]).ok();
    assert_eq!(state.cleanup().ok().out, "3\n");
    state.append("echo 4");
    state.cli(["clear"]).ok();
    state.is_finished();
}

#[test]
fn changes_without_a_shell_keep_the_shells_snapshot() {
    let state = State::new();
    state.shell("v='from the shell'; f() { echo \"f $v\"; }; rlAppendCleanup f; first=$rlCleanupID; rlAppendCleanup 'f 2'");
    state.run(state.command(BINARY).args(["append", "f; echo $ONLY_HERE"]).env("ONLY_HERE", "child")).ok();
    let first = state.cli(["list"]).ok().out[..6].to_owned();
    state.cli(["remove", &first]).ok();
    state.cli(["rehook"]).ok();
    assert_eq!(state.cleanup().ok().out, "f from the shell\nf from the shell\n\n");
}

#[test]
fn without_a_shell_the_callers_exported_environment_is_the_snapshot() {
    let state = State::new();
    let mut add = state.command(BINARY);
    add.args(["append", "echo \"$A\"; f; echo ${STALE-none}"]);
    add.env("A", "it's\n$(id) \"x\"").env("BASH_FUNC_f%%", "() { echo \"f $A\" | head -1\n}");
    state.run(&mut add).ok();
    let ended = state.run(state.command(state.script()).env("STALE", "stale").env("A", "other")).ok();
    assert_eq!(ended.out, "it's\n$(id) \"x\"\nf it's\nnone\n");
}

#[test]
fn some_entries_can_be_run_now() {
    let state = State::new();
    state.append("echo 4");
    let three = state.append("echo 3; exit 5");
    state.cli(["prepend", "--mark", "--", "echo 2; x=5"]).ok();
    state.prepend("echo 1; exit");
    state.cli(["run", &three]).fails(1, "at least one of the entries failed");
    assert_eq!(state.entries(), ["echo 1; exit", "echo 2; x=5", "echo 4"]);
    assert_eq!(state.cli(["run", "--to-mark"]).ok().out, "1\n2\n");
    assert_eq!(state.entries(), ["echo 4"]);
    state.cli(["run", "--to-mark"]).fails(1, "no entry is marked");
    state.cli(["run", "zzzzzz"]).fails(1, "there is no entry");
    assert_eq!(state.names(), ["clbuff", "clbuff.lock", "cleanup.sh"]);
    assert_eq!(state.cli(["run"]).ok().out, "4\n");
    state.is_finished();
}

#[test]
fn what_run_could_not_run_stays_and_is_said() {
    let state = State::new();
    state.append("exec true");
    state.append("echo 2");
    state.cli(["run"]).fails(1, "did not run: they stay in the buffer");
    assert_eq!(state.entries().len(), 2);
}

#[test]
fn the_list_as_json_and_as_text() {
    let state = State::new();
    state.cli(["append", "--mark", "--", "echo one\necho two"]).ok();
    let json: serde_json::Value = serde_json::from_str(&state.cli(["list", "--json"]).ok().out).unwrap();
    let entry = &json[0];
    assert_eq!(entry["text"], "echo one\necho two");
    assert_eq!(entry["mark"], true);
    assert!(entry["time"].as_u64().unwrap() > 1_700_000_000);
    assert_eq!(entry["id"].as_str().unwrap().len(), 6);
    assert!(entry["cwd"].as_str().unwrap().starts_with('/'));
    let text = state.cli(["list"]).ok().out;
    assert!(text.ends_with("s * echo one …\n"), "{text:?}");
    assert!(!text.contains('\x1b'));
    // Nothing in an entry speaks to the terminal.
    state.append("printf '\x1b[31m'");
    assert!(!state.cli(["list"]).ok().out.contains('\x1b'));
}

#[test]
fn show_prints_the_files_as_they_are() {
    let state = State::new();
    state.append("echo one");
    assert_eq!(state.cli(["show"]).ok().out, state.read("clbuff"));
    assert_eq!(state.cli(["show", "--script"]).ok().out, state.read("cleanup.sh"));
}

#[test]
fn files_are_private_whatever_the_umask() {
    for umask in ["0", "022", "0177", "0777"] {
        let state = State::new();
        let ended = state.shell(format!("umask {umask}; rlAppendCleanup 'umask; echo ok' || exit 9"));
        assert_eq!(ended.status, Some(0), "{umask}: {ended:#?}");
        let mode = |path: &std::path::Path| path.metadata().unwrap().mode() & 0o7777;
        assert_eq!(mode(&state.dir), 0o700);
        assert_eq!(mode(&state.dir.join("clbuff")), 0o600);
        assert_eq!(mode(&state.script()), 0o700);
        let out = state.cleanup().ok().out;
        assert_eq!(out, format!("{umask:0>4}\nok\n"));
    }
}

#[test]
fn what_could_be_anothers_work_is_refused_with_status_4() {
    let state = State::new();
    state.append("true");
    let mode = |name: &str, mode| {
        std::fs::set_permissions(state.dir.join(name), PermissionsExt::from_mode(mode)).unwrap();
    };
    mode("", 0o777);
    state.cli(["list"]).fails(4, "every user may write it");
    state.cli(["append", "true"]).fails(4, "every user may write it");
    mode("", 0o700);
    mode("clbuff", 0o666);
    state.cli(["append", "true"]).fails(4, "clbuff");
    mode("clbuff", 0o600);
    mode("cleanup.sh", 0o702);
    state.cli(["append", "true"]).fails(4, "cleanup.sh");
    mode("cleanup.sh", 0o700);
    std::fs::remove_file(state.dir.join("clbuff")).unwrap();
    symlink("/etc/passwd", state.dir.join("clbuff")).unwrap();
    state.cli(["list"]).fails(4, "symbolic link");
    state.cli(["append", "true"]).fails(4, "symbolic link");
    assert!(state.dir.join("clbuff").is_symlink());
}

#[test]
fn an_ordinary_group_writable_directory_is_fine() {
    let state = State::new();
    std::fs::create_dir(&state.dir).unwrap();
    std::fs::set_permissions(&state.dir, PermissionsExt::from_mode(0o775)).unwrap();
    state.append("true");
    let link = state.path("link");
    symlink(&state.dir, &link).unwrap();
    state.run(state.command(BINARY).args(["append", "true"]).env("BEAKERLIB_DIR", &link)).ok();
    assert_eq!(state.entries().len(), 2);
}

#[test]
fn another_users_directory_is_refused_unless_sudo_names_him() {
    if !is_root() {
        skip!("needs root");
    }
    let state = State::new();
    std::fs::create_dir(&state.dir).unwrap();
    std::os::unix::fs::chown(&state.dir, Some(4711), Some(4711)).unwrap();
    state.cli(["append", "true"]).fails(4, "it belongs to uid 4711");
    state.run(state.command(BINARY).args(["append", "true"]).env("SUDO_UID", "4711")).ok();
    // The shim tells it too, although the binary has no environment there.
    let ended = state.shell("SUDO_UID=4711 rlAppendCleanup true && echo fine");
    assert_eq!(ended.out, "fine\n", "{ended:#?}");
    let link = state.path("link");
    symlink(&state.dir, &link).unwrap();
    std::os::unix::fs::lchown(&link, Some(4712), Some(4712)).unwrap();
    let refused =
        state.run(state.command(BINARY).arg("list").env("BEAKERLIB_DIR", &link).env("SUDO_UID", "4711"));
    refused.fails(4, "the symbolic link belongs to uid 4712");
}

#[test]
fn many_at_once_lose_nothing() {
    let state = State::new();
    let children: Vec<_> = (0..60)
        .map(|n| {
            let place = if n % 2 == 0 { "append" } else { "prepend" };
            let text = format!("echo {n}");
            state.command(BINARY).args([place, &text]).stderr(Stdio::piped()).spawn().unwrap()
        })
        .collect();
    for child in children {
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{output:?}");
    }
    let mut lines: Vec<u32> = state.cleanup().ok().out.lines().map(|l| l.parse().unwrap()).collect();
    lines.sort_unstable();
    assert_eq!(lines, (0..60).collect::<Vec<_>>());
}

#[test]
fn a_full_disk_changes_nothing_and_says_so() {
    let state = State::new();
    state.append("echo one");
    let (buffer, script) = (state.read("clbuff"), state.read("cleanup.sh"));
    // A file size limit is a disk that fills up in the middle of a file.
    let ended = state.shell("ulimit -f 1; rlAppendCleanup 'echo two'; echo rc=$?");
    assert_eq!(ended.out, "rc=1\n", "{ended:#?}");
    assert!(ended.err.contains("cannot replace"), "{ended:#?}");
    assert_eq!((state.read("clbuff"), state.read("cleanup.sh")), (buffer, script));
    assert_eq!(state.names(), ["clbuff", "clbuff.lock", "cleanup.sh"]);
}

#[test]
fn a_kill_at_any_moment_leaves_the_old_state_or_the_new_one() {
    let state = State::new();
    state.append("echo start");
    let mut acknowledged = 0;
    for n in 0..40_u64 {
        let text = format!("echo {n} # {}", "x".repeat(50_000));
        let file = state.write("text", &text);
        let stdin = std::fs::File::open(file).unwrap();
        let mut child = state.command(BINARY).args(["append", "-"]).stdin(stdin).spawn().unwrap();
        // Not a wait for anything: the moment of the kill is what is tried out.
        std::thread::sleep(std::time::Duration::from_micros(n * 300));
        child.kill().unwrap();
        acknowledged += usize::from(child.wait().unwrap().success());
        let entries = state.entries();
        assert!(entries.len() > acknowledged, "{n}: {} entries, {acknowledged} acknowledged", entries.len());
        assert!(entries.iter().all(|e| e == "echo start" || e.ends_with("xxxx")));
    }
    state.append("echo end");
    assert_eq!(state.names(), ["clbuff", "clbuff.lock", "cleanup.sh"]);
    assert!(state.cleanup().ok().out.ends_with("end\n"));
}

#[test]
fn what_beakerlib_wrote_is_taken_over() {
    let state = State::new();
    std::fs::create_dir(&state.dir).unwrap();
    std::fs::write(state.dir.join("clbuff"), "echo one\necho two\n").unwrap();
    std::fs::write(state.dir.join("cleanup.sh"), "#!/bin/bash\nrlJournalStart\n").unwrap();
    assert_eq!(state.entries(), ["echo one\necho two"]);
    assert!(state.cli(["rehook"]).ok().out.starts_with("1 entry in "));
    state.append("echo three");
    assert_eq!(state.cleanup().ok().out, "one\ntwo\nthree\n");
}

#[test]
fn a_watchers_private_directory_serves_where_no_other_is_named() {
    let state = State::new();
    let clpath = state.write("testwatcher-x", "");
    let in_watcher = |args: &[&str]| {
        let mut command = state.command(BINARY);
        state.run(command.args(args).env_remove("BEAKERLIB_DIR").env("TESTWATCHER_CLPATH", &clpath))
    };
    in_watcher(&["append", "echo one"]).ok();
    let script = state.path("testwatcher-x.d/cleanup.sh");
    assert_eq!(std::fs::read_to_string(&clpath).unwrap(), format!("{}\n", script.display()));
    assert_eq!(state.run(&mut state.command(script)).ok().out, "one\n");
    // A watcher that has ended has taken its file with it.
    std::fs::remove_file(&clpath).unwrap();
    in_watcher(&["append", "true"]).fails(3, "no state directory");
}

#[test]
fn a_script_with_entries_keeps_the_hook() {
    let (first, second) = (State::new(), State::new());
    let clpath = first.write("testwatcher-x", "");
    let run = |state: &State, args: &[&str]| {
        state.run(state.command(BINARY).args(args).env("TESTWATCHER_CLPATH", &clpath)).ok().out
    };
    assert!(run(&first, &["rehook"]).contains("the watcher will run"));
    // Nothing would be lost: the first has no entries.
    assert!(run(&second, &["rehook"]).contains("the watcher will run"));
    run(&second, &["append", "true"]);
    assert!(run(&first, &["rehook"]).contains("not hooked: the watcher has"));
    assert_eq!(std::fs::read_to_string(&clpath).unwrap(), format!("{}\n", second.script().display()));
    run(&second, &["clear"]);
    assert!(run(&first, &["rehook"]).contains("the watcher will run"));
}

#[test]
fn completions_and_the_shim_are_printed() {
    let state = State::new();
    for shell in ["bash", "zsh", "fish"] {
        assert!(state.cli(["completions", shell]).ok().out.contains("rl-cleanup"));
    }
    assert!(state.cli(["shim"]).ok().out.contains("rlPrependCleanup()"));
}
