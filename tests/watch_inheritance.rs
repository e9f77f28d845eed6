//! Promise: the command has exactly the descriptors, mask, dispositions, niceness, limits, directory and
//! umask that the watcher was given, plus TESTWATCHER_CLPATH.

#![allow(clippy::unwrap_used)]

mod watch_common;
use watch_common::{Arena, WATCHER, installed};

/// What a process can see of what it was given.
const LOOK: &str = r#"
ls -l /proc/$$/fd > ../fds
sed -n 's/.* \([0-9]* -> .*\)/fd \1/p' ../fds | grep -v '^fd 255 '
grep -E '^(Sig|Shd)(Blk|Ign)|^NoNewPrivs|^Uid|^Gid|^Groups' /proc/self/status
cat /proc/$$/limits; umask; pwd; nice
env | sort | grep -vE '^(_|SHLVL|TESTWATCHER_CLPATH|PWD|OLDPWD)='
"#;

/// The same view directly and through the watcher, when started by `prefix`.
fn same(prefix: &str) {
    let arena = Arena::new();
    std::fs::write(arena.path("look"), LOOK).unwrap();
    std::fs::create_dir(arena.path("sub")).unwrap();
    let mut views = Vec::new();
    for watcher in ["", WATCHER] {
        let mut command = arena.command("bash");
        // Nothing of the test runner's own, and no long reports.
        command.env_clear().env("PATH", std::env::var_os("PATH").unwrap());
        command.env("WATCHER", watcher).env("ODD", "a\nb");
        command.args(["-c", &format!("{prefix} $WATCHER bash ../look > ../view 2> ../errors")]);
        command.current_dir(arena.path("sub"));
        let ending = arena.run(command);
        let view = arena.text("view");
        assert!(view.contains("SigBlk"), "{prefix}: {ending:?} {}", arena.text("errors"));
        // A pipe of the look itself has a number of its own each time.
        let lines = view.lines().filter(|l| !l.starts_with("WATCHER="));
        views.push(lines.map(|l| l.split("pipe:[").next().unwrap().to_owned()).collect::<Vec<_>>());
    }
    for (direct, watched) in views[0].iter().zip(&views[1]) {
        assert_eq!(direct, watched, "{prefix}");
    }
    assert_eq!(views[0].len(), views[1].len(), "{prefix}");
}

#[test]
fn plainly_started() {
    same("exec");
}

#[test]
fn with_other_descriptors_limits_umask_and_niceness() {
    same("exec 7<../look 9>>../nine; ulimit -n 200; ulimit -c 0; umask 027; exec nice -n 3");
    same("cd ../sub; exec 3</dev/null 20</dev/zero; exec");
}

#[test]
fn with_closed_standard_descriptors() {
    same("exec <&-; exec");
}

#[test]
fn with_ignored_and_blocked_signals() {
    let test = "with_ignored_and_blocked_signals";
    if !installed(test, "env") {
        return;
    }
    for signals in [
        "--ignore-signal=PIPE",
        "--ignore-signal=INT --ignore-signal=QUIT --ignore-signal=HUP",
        "--ignore-signal=TSTP --ignore-signal=TTIN --ignore-signal=TTOU --ignore-signal=USR1",
        "--block-signal=USR1 --block-signal=RTMIN+3",
        "--block-signal=TERM --block-signal=CHLD",
    ] {
        same(&format!("exec env {signals}"));
    }
}

/// A SIGCHLD that is ignored would lose every exit status; it is not lost.
#[test]
fn an_ignored_sigchld_costs_nothing() {
    let arena = Arena::new();
    arena.hooking_test("exit 9");
    arena.script("cleanup.sh", "touch cleaned");
    let mut command = arena.command("env");
    command.args(["--ignore-signal=CHLD", WATCHER, "./test.sh"]);
    let ending = arena.run(command);
    assert_eq!((ending.status, arena.exists("cleaned")), (9, true), "{ending:?}");
}

/// Ignored SIGINT (a background job of a script) still interrupts: the original took it too.
#[test]
fn an_ignored_sigint_still_interrupts() {
    use nix::sys::signal::Signal::SIGINT;
    let arena = Arena::new();
    arena.hooking_test("touch ready; exec sleep 1000");
    arena.script("cleanup.sh", "touch cleaned");
    let mut command = arena.command("env");
    command.args(["--ignore-signal=INT", WATCHER, "./test.sh"]);
    let run = arena.start(command);
    arena.await_file("ready");
    run.signal(SIGINT);
    assert_eq!((run.end().status, arena.exists("cleaned")), (130, true));
}

/// nohup(1): a SIGHUP that was ignored stays ignored.
#[test]
fn an_ignored_sighup_stays_ignored() {
    use nix::sys::signal::Signal::{SIGHUP, SIGINT};
    let arena = Arena::new();
    arena.hooking_test("touch ready; exec sleep 1000");
    arena.script("cleanup.sh", "echo $TESTWATCHER_OUTCOME > outcome");
    let mut command = arena.command("env");
    command.args(["--ignore-signal=HUP", WATCHER, "./test.sh"]);
    let run = arena.start(command);
    arena.await_file("ready");
    run.signal(SIGHUP).signal(SIGHUP).signal(SIGINT);
    run.end();
    assert_eq!(arena.text("outcome").trim(), "interrupted");
}
