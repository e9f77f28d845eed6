//! Promise: what ties a watcher to its harness holds under a harness, and only there; and nothing that
//! a harness's programs do can hold up a kill or a cleanup.

#![allow(clippy::unwrap_used, reason = "a test that panics has failed")]

mod watch_common;
use nix::sys::signal::{
    Signal::{SIGCONT, SIGHUP, SIGINT, SIGKILL, SIGSTOP, SIGTERM},
    kill,
};
use nix::unistd::Pid;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};
use watch_common::{Arena, TOOLKIT, WATCHER, guards_of, is_alive, number, started_with, until};

/// A test that never ends by itself and says where its watcher is; a cleanup that leaves a mark.
fn hanging(arena: &Arena) {
    arena.hooking_test(
        "echo $TESTWATCHER_CLPATH > clpath; echo $PPID > watcher; echo $$ > pid; exec sleep 1000",
    );
    arena.script("cleanup.sh", "echo \"$TESTWATCHER_OUTCOME\" > cleaned");
}

/// restraint's variables, with a folder of hooks.
fn restraint(arena: &Arena, command: &mut Command) {
    fs::create_dir_all(arena.path("plugins/completed.d")).unwrap();
    command
        .env("RSTRNT_TASKID", arena.path("task"))
        .env("RSTRNT_TASK_PLUGINS_DIR", arena.path("plugins/task_run.d"));
}

fn tmt(arena: &Arena, command: &mut Command, duration: &str) {
    fs::write(arena.path("metadata.yaml"), format!("duration: {duration}\nframework: beakerlib\n")).unwrap();
    command
        .env("TMT_TEST_METADATA", arena.path("metadata.yaml"))
        .env("TMT_TEST_DATA", arena.path(""))
        .env("TMT_REBOOT_REQUEST", arena.path("reboot-request"));
}

fn hooks(arena: &Arena) -> Vec<String> {
    let folder = fs::read_dir(arena.path("plugins/completed.d")).unwrap();
    folder.map(|e| e.unwrap().file_name().into_string().unwrap()).collect()
}

fn nohup(arena: &Arena, args: &[&str]) -> Command {
    let mut command = arena.command("nohup");
    command.args(args);
    command
}

#[test]
fn a_hangup_that_nohup_ignores_counts_under_a_harness() {
    let arena = Arena::new();
    hanging(&arena);
    let mut command = nohup(&arena, &[WATCHER, "./test.sh"]);
    restraint(&arena, &mut command);
    let run = arena.start(command);
    number(&arena, "pid");
    run.signal(SIGHUP);
    let ending = run.end();
    assert_eq!(ending.status, 124, "{ending:?}");
    assert_eq!(arena.text("cleaned"), "watchdog\n");
}

#[test]
fn a_hangup_that_nohup_ignores_stays_ignored_without_one() {
    let arena = Arena::new();
    hanging(&arena);
    let run = arena.start(nohup(&arena, &[WATCHER, "./test.sh"]));
    let pid = number(&arena, "pid");
    // The interrupt is queued behind the hang-up, so the outcome tells which of them counted.
    run.signal(SIGSTOP).signal(SIGHUP).signal(SIGINT).signal(SIGCONT);
    let ending = run.end();
    assert_eq!((ending.status, arena.text("cleaned").as_str()), (130, "interrupted\n"), "{ending:?}");
    assert!(!is_alive(pid));
}

/// setsid, nohup and disown must work: without a harness nobody's death means anything.
#[test]
fn without_a_harness_no_death_means_anything() {
    for choice in ["auto", "none"] {
        let arena = Arena::new();
        arena.hooking_test("echo $PPID > watcher; echo $$ > pid; read x < gate; echo $x > got");
        arena.script("cleanup.sh", "echo \"$TESTWATCHER_OUTCOME\" > cleaned");
        nix::unistd::mkfifo(&arena.path("gate"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        let mut command = arena.command("bash");
        command.args([
            "-c",
            "setsid \"$@\" & wait",
            "bash",
            TOOLKIT,
            "watch",
            "--harness",
            choice,
            "./test.sh",
        ]);
        if choice == "none" {
            restraint(&arena, &mut command);
        }
        let mut parent = command.spawn().unwrap();
        let (pid, watcher) = (number(&arena, "pid"), number(&arena, "watcher"));
        parent.kill().unwrap();
        parent.wait().unwrap();
        fs::write(arena.path("gate"), "lives\n").unwrap();
        until("the watcher's end", || !is_alive(watcher));
        assert_eq!(
            (arena.text("got").as_str(), arena.text("cleaned").as_str()),
            ("lives\n", "ended 0\n"),
            "{choice}"
        );
        assert!(!is_alive(pid));
    }
}

/// The watcher may lead its session itself; then its parent is what restraint kills.
#[test]
fn under_a_harness_the_session_leader_s_parent_counts() {
    let arena = Arena::new();
    hanging(&arena);
    let mut command = arena.command("bash");
    command.args(["-c", "setsid \"$@\" & wait", "bash", WATCHER, "./test.sh"]);
    restraint(&arena, &mut command);
    let mut parent = command.spawn().unwrap();
    let (pid, watcher) = (number(&arena, "pid"), number(&arena, "watcher"));
    parent.kill().unwrap();
    parent.wait().unwrap();
    until("the watcher's end", || !is_alive(watcher));
    assert_eq!(arena.text("cleaned"), "watchdog\n");
    assert!(!is_alive(pid));
}

/// Reports in the order they were made: name, result and log of each.
const REPORTER: &str = "printf '%s|' \"$@\" >> reports; echo >> reports";

#[test]
fn what_happens_is_reported_with_the_command_s_own_arguments() {
    let arena = Arena::new();
    hanging(&arena);
    let reporter = arena.script("report", REPORTER);
    arena.script("cleanup.sh", "touch started; exec sleep 1000");
    let mut command = arena.watcher(&["./test.sh"]);
    command.env("BEAKERLIB_COMMAND_REPORT_RESULT", format!("{} --to 'x", reporter.display()));
    let run = arena.start(command);
    number(&arena, "pid");
    run.signal(SIGINT);
    arena.await_file("started");
    interrupt_cleanup(&arena, &run);
    run.end();
    let reports = arena.text("reports");
    let line = |part: &str| format!("--to|'x|TESTWATCHER ({part})|WARN|/dev/null|\n");
    assert_eq!(reports, line("test interrupt") + &line("cleanup interrupt"));
}

/// One SIGINT after the other, each only when the one before was answered: in its first half second the
/// cleanup goes on, and one too many would end the reports.
fn interrupt_cleanup(arena: &Arena, run: &watch_common::Run<'_>) {
    for noted in 1.. {
        run.signal(SIGINT);
        let answered = || arena.text("stderr").matches("interrupt noted").count() == noted;
        let killed = || arena.text("stderr").contains("interrupted again");
        until("an answer to SIGINT", || answered() || killed());
        if killed() {
            return;
        }
    }
}

#[test]
fn both_watchdogs_are_reported_by_whatever_is_installed() {
    for (program, ahead, behind) in [
        ("rhts-report-result", "", "|WARN|/dev/null|\n"),
        ("rstrnt-report-result", "--outputfile|/dev/null|", "|WARN|\n"),
    ] {
        let arena = Arena::new();
        hanging(&arena);
        fs::create_dir(arena.path("bin")).unwrap();
        fs::rename(arena.script(program, REPORTER), arena.path("bin").join(program)).unwrap();
        arena.script("cleanup.sh", "exec sleep 1000");
        let mut command = arena.watcher(&["./test.sh"]);
        let path = std::env::var("PATH").unwrap();
        command
            .env("PATH", format!("{}:{path}", arena.path("bin").display()))
            .env("TESTWATCHER_EWD_SECS", "1");
        let run = arena.start(command);
        number(&arena, "pid");
        run.signal(SIGHUP);
        run.end();
        let line = |part: &str| format!("{ahead}TESTWATCHER ({part}){behind}");
        assert_eq!(arena.text("reports"), line("local watchdog") + &line("external watchdog"), "{program}");
    }
}

/// `rstrnt-report-result` is known to hang: the cleanup does not wait for it, the end at most 10 s,
/// and then its children go with it.
#[test]
fn a_report_that_hangs_holds_up_nothing() {
    let arena = Arena::new();
    hanging(&arena);
    arena.script("report", "sleep 1000 & echo $! > hung; wait");
    arena.script("cleanup.sh", "until [ -s hung ]; do :; done; kill -0 $(cat hung) && touch cleaned");
    let mut command = arena.watcher(&["./test.sh"]);
    command.env("BEAKERLIB_COMMAND_REPORT_RESULT", "./report");
    let start = Instant::now();
    let run = arena.start(command);
    number(&arena, "pid");
    run.signal(SIGINT);
    arena.await_file("cleaned");
    let hung = number(&arena, "hung");
    let ending = run.end();
    assert_eq!(ending.status, 130);
    assert!(start.elapsed() < Duration::from_secs(40), "{:?}", start.elapsed());
    until("the end of the report's child", || !is_alive(hung));
}

#[test]
fn a_person_who_has_enough_need_not_wait_for_reports() {
    let arena = Arena::new();
    hanging(&arena);
    arena.script("report", "echo $$ > hung; exec sleep 1000");
    let mut command = arena.watcher(&["./test.sh"]);
    command.env("BEAKERLIB_COMMAND_REPORT_RESULT", "./report");
    let run = arena.start(command);
    number(&arena, "pid");
    run.signal(SIGINT);
    arena.await_file("cleaned");
    let hung = number(&arena, "hung");
    run.end_by_repeating(SIGINT);
    until("the report's end", || !is_alive(hung));
}

#[test]
fn with_no_harness_by_choice_nothing_is_reported() {
    let arena = Arena::new();
    hanging(&arena);
    arena.script("report", REPORTER);
    let mut command = arena.watch(&["--harness", "none", "./test.sh"]);
    command.env("BEAKERLIB_COMMAND_REPORT_RESULT", "./report");
    let run = arena.start(command);
    number(&arena, "pid");
    run.signal(SIGINT);
    run.end();
    assert!(!arena.exists("reports"));
}

/// The hook lives as long as somebody watches, whoever that is, and not longer.
#[test]
fn the_hook_is_the_guards_after_the_watcher_and_nobodys_after_the_guard() {
    let arena = Arena::new();
    hanging(&arena);
    arena.script("cleanup.sh", "touch started; read x < gate");
    nix::unistd::mkfifo(&arena.path("gate"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    let mut command = arena.watcher(&["./test.sh"]);
    restraint(&arena, &mut command);
    let stale = arena.path("plugins/completed.d/20_rl-cleanup-1-999999999999");
    fs::write(&stale, "").unwrap();
    let run = arena.start(command);
    number(&arena, "pid");
    let of_watcher = hooks(&arena);
    assert_eq!(of_watcher.len(), 1, "a stale hook was replaced: {of_watcher:?}");
    assert!(of_watcher[0].starts_with(&format!("20_rl-cleanup-{}-", run.pid())), "{of_watcher:?}");
    kill(run.pid(), SIGKILL).unwrap();
    arena.await_file("started");
    let of_guard = hooks(&arena);
    assert!(of_guard.len() == 1 && of_guard != of_watcher, "{of_guard:?}");
    fs::write(arena.path("gate"), "\n").unwrap();
    let clpath = arena.text("clpath");
    until("the guard's end", || guards_of(clpath.trim()).is_empty());
    assert_eq!(hooks(&arena), Vec::<String>::new());
    run.end();
}

/// A hook ends the watchers of its own task, and comes back when they are done.
#[test]
fn a_hook_ends_only_the_watchers_of_its_own_task() {
    let (mine, other) = (Arena::new(), Arena::new());
    let watchers = [&mine, &other].map(|arena| {
        hanging(arena);
        let mut command = arena.watcher(&["./test.sh"]);
        restraint(arena, &mut command);
        let run = arena.start(command);
        number(arena, "pid");
        run
    });
    // The test runs before its watcher is listed.
    until("the watcher's entry", || status(&mine).contains(&mine.path("task").display().to_string()));
    let mut hook = mine.command(TOOLKIT);
    hook.args(["harness-hook", "watchdog"]);
    restraint(&mine, &mut hook);
    assert!(hook.status().unwrap().success());
    assert_eq!(mine.text("cleaned"), "watchdog\n", "it comes back when the cleanup is done");
    assert!(mine.text("stdout").contains("time is up for the watcher"), "{}", mine.text("stdout"));
    assert!(is_alive(number(&other, "pid")));
    let [mine, other] = watchers;
    assert_eq!(mine.end().status, 124);
    other.signal(SIGINT);
    other.end();
}

fn status(arena: &Arena) -> String {
    let mut command = arena.command(TOOLKIT);
    command.args(["--dir", ".", "status", "--json"]).stdout(std::process::Stdio::piped());
    String::from_utf8_lossy(&command.output().unwrap().stdout).into_owned()
}

/// The packaged drop-in makes a temporary one needless, and does the same.
#[test]
fn the_packaged_hook_is_enough() {
    let arena = Arena::new();
    hanging(&arena);
    let packaged = arena.path("plugins/completed.d/20_rl-cleanup");
    let mut command = arena.watcher(&["./test.sh"]);
    restraint(&arena, &mut command);
    fs::copy(Path::new(env!("CARGO_MANIFEST_DIR")).join("hooks/20_rl-cleanup"), &packaged).unwrap();
    let run = arena.start(command);
    number(&arena, "pid");
    assert_eq!(hooks(&arena), ["20_rl-cleanup"]);
    until("the watcher's entry", || status(&arena).contains(&arena.path("task").display().to_string()));
    let mut hook = arena.command(&packaged);
    restraint(&arena, &mut hook);
    let bin = Path::new(TOOLKIT).parent().unwrap().display().to_string();
    hook.env("PATH", format!("{bin}:{}", std::env::var("PATH").unwrap()));
    assert!(hook.status().unwrap().success());
    assert_eq!(arena.text("cleaned"), "watchdog\n");
    assert_eq!(run.end().status, 124);
    assert_eq!(hooks(&arena), ["20_rl-cleanup"], "what was packaged stays");
}

/// A deadline of tmt's; `--no-deadline` and a shorter `--time-limit` overrule it.
#[test]
fn the_smaller_limit_counts_unless_tmt_s_is_ignored() {
    let run = |args: &[&str], duration: &str| {
        let arena = Arena::new();
        hanging(&arena);
        let mut command = arena.watch(&[args, &["./test.sh"]].concat());
        tmt(&arena, &mut command, duration);
        command.env("TESTWATCHER_MARGIN_SECS", "5");
        let ending = arena.run(command);
        assert_eq!((ending.status, arena.text("cleaned").as_str()), (124, "deadline\n"), "{ending:?}");
        ending.stderr
    };
    assert!(run(&[], "6s").contains("tmt's limit is 6 s: the test is stopped 5 s before it"));
    assert!(run(&["--time-limit", "1s"], "1h").contains("tmt's limit"));
    assert!(!run(&["--time-limit", "1s", "--no-deadline"], "1s").contains("tmt's"));
    assert!(run(&["--time-limit", "1s"], "4s").contains("too short for a margin of 5 s"));
}

#[test]
fn a_margin_that_is_none_is_a_usage_error() {
    let arena = Arena::new();
    let mut command = arena.watcher(&["true"]);
    tmt(&arena, &mut command, "1h");
    command.env("TESTWATCHER_MARGIN_SECS", "soon");
    let ending = arena.run(command);
    assert_eq!(ending.status, 2, "{ending:?}");
    assert!(ending.stderr.contains("TESTWATCHER_MARGIN_SECS is 'soon'"), "{ending:?}");
}

/// One budget spans restarts and reboots of the same test.
#[test]
fn a_restarted_test_has_only_what_is_left() {
    let arena = Arena::new();
    arena.script("test.sh", "exit 0");
    let run = |count: &str, back: u64| {
        let mut command = arena.watcher(&["./test.sh"]);
        tmt(&arena, &mut command, "1h");
        command.env("TMT_REBOOT_COUNT", count).env("TESTWATCHER_MARGIN_SECS", "100");
        if back > 0 {
            let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
            fs::write(arena.path(".rl-cleanup-first-start"), format!("another-boot 1 {}\n", now - back))
                .unwrap();
        }
        let said = arena.run(command).stderr;
        let secs = said.split("before it, in ").nth(1).and_then(|t| t.split(' ').next()).unwrap();
        secs.parse::<u64>().unwrap()
    };
    assert!((3400..=3500).contains(&run("0", 0)), "a first start");
    assert!((2400..=2500).contains(&run("1", 1000)), "after a reboot");
    assert!((3400..=3500).contains(&run("0", 1000)), "what an earlier run left means nothing");
}

/// The test asked for a reboot and went, sooner than anybody could stop it.
#[test]
fn a_test_that_ended_for_a_reboot_is_not_cleaned_up() {
    let arena = Arena::new();
    arena.hooking_test("echo $TESTWATCHER_CLPATH > clpath; echo '{}' > reboot-request");
    arena.script("cleanup.sh", "touch cleaned");
    let mut command = arena.watcher(&["./test.sh"]);
    tmt(&arena, &mut command, "1h");
    let ending = arena.run(command);
    assert!(!arena.exists("cleaned"), "{ending:?}");
    assert!(ending.stderr.contains("a reboot was asked for"), "{ending:?}");
    watch_common::assert_no_trace(&arena.text("clpath"));
}

/// The guard, too, asks first whether a reboot is under way.
#[test]
fn a_guard_does_not_clean_up_before_a_reboot() {
    let arena = Arena::new();
    hanging(&arena);
    let mut command = arena.watcher(&["./test.sh"]);
    tmt(&arena, &mut command, "1h");
    let run = arena.start(command);
    let pid = number(&arena, "pid");
    fs::write(arena.path("reboot-request"), "{}").unwrap();
    kill(run.pid(), SIGKILL).unwrap();
    until("the test's end", || !is_alive(pid));
    let clpath = arena.text("clpath");
    until("the guard's end", || guards_of(clpath.trim()).is_empty());
    assert!(!arena.exists("cleaned"));
    assert_eq!(started_with(clpath.trim()), Vec::<i32>::new());
    run.end();
}

/// SIGTERM leaves everything but the hook, which would hold the next task's end up for nobody.
#[test]
fn sigterm_takes_the_hook_along() {
    let arena = Arena::new();
    hanging(&arena);
    let mut command = arena.watcher(&["./test.sh"]);
    restraint(&arena, &mut command);
    let run = arena.start(command);
    let pid = number(&arena, "pid");
    run.signal(SIGTERM);
    run.end();
    assert_eq!(hooks(&arena), Vec::<String>::new());
    assert!(is_alive(pid) && !arena.exists("cleaned"));
    kill(Pid::from_raw(pid), SIGKILL).unwrap();
    let clpath = arena.text("clpath");
    let _ = fs::remove_file(clpath.trim());
    let _ = fs::remove_dir_all(format!("{}.d", clpath.trim()));
}
