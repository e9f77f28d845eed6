//! Promise: in a bad place there is a clear sentence, a distinct exit status, and whatever cleanup is
//! possible: no room or no /var/tmp, no /proc, no process to be had, a cleanup script that cannot be
//! executed as it is.
#![allow(clippy::unwrap_used)]

mod watch_common;
use std::os::unix::fs::PermissionsExt;
use watch_common::{Arena, Ending, WATCHER, installed, is_root, skip};

/// The program where no mount of a test hides it, wherever it was built.
const BIN: &str =
    "mount -t tmpfs none /mnt && cp \"$WATCHER\" /mnt/watcher && WATCHER=/mnt/watcher || exit 98\n";

/// Runs `set_up` and then the watcher in a mount namespace of its own.
fn in_namespace(arena: &Arena, set_up: &str, run: &str) -> Ending {
    let mut command = arena.command("unshare");
    command.env("WATCHER", WATCHER);
    command.args([
        "--mount",
        "--propagation",
        "private",
        "bash",
        "-c",
        &format!("{BIN}{set_up} || exit 99\n{run}"),
    ]);
    arena.run(command)
}

fn able(test: &str) -> bool {
    if !is_root(test) || !installed(test, "unshare") {
        return false;
    }
    let arena = Arena::new();
    let works = in_namespace(&arena, "true", "true").status == 0;
    works || skip(test, "no mount namespace to be had")
}

/// A place of our own that hides neither the arena nor the program.
fn arena() -> Arena {
    let arena = Arena::new();
    arena.hooking_test("echo $TESTWATCHER_CLPATH > clpath; exit ${STATUS:-0}");
    arena.script("cleanup.sh", "echo $TESTWATCHER_OUTCOME > cleaned");
    arena
}

#[test]
fn without_var_tmp_the_file_goes_elsewhere_with_a_warning() {
    if !able("without_var_tmp_the_file_goes_elsewhere_with_a_warning") {
        return;
    }
    for (set_up, why) in [
        ("mount -t tmpfs -o ro none /var/tmp", "Read-only file system"),
        ("mount -t tmpfs -o nr_inodes=1 none /var/tmp", "No space left on device"),
        ("mount -t tmpfs none /var", "No such file or directory"),
    ] {
        let arena = arena();
        let ending = in_namespace(&arena, set_up, "\"$WATCHER\" ./test.sh");
        assert_eq!((ending.status, arena.text("cleaned").trim()), (0, "ended 0"), "{set_up}: {ending:?}");
        let warning = format!("TESTWATCHER: cannot make a file in '/var/tmp': {why}; using '");
        assert!(ending.stderr.contains(&warning), "{set_up}: {ending:?}");
        watch_common::assert_no_trace(&arena.text("clpath"));
    }
}

#[test]
fn with_no_place_at_all_nothing_is_started() {
    if !able("with_no_place_at_all_nothing_is_started") {
        return;
    }
    let arena = arena();
    let ro = "for d in /var/tmp /tmp /dev/shm; do mount -t tmpfs -o ro none $d; done";
    // Under a read-only /tmp the arena is gone, so the command is one that needs nothing.
    let ending = in_namespace(&arena, ro, "cd /; TMPDIR=/nonexistent \"$WATCHER\" touch /run/rl-test-ran");
    assert_eq!(ending.status, 125, "{ending:?}");
    assert_eq!(
        ending.stderr,
        "beakerlib-testwatcher: cannot make a file in '/var/tmp': Read-only file system\n"
    );
    assert!(!std::path::Path::new("/run/rl-test-ran").exists());
}

#[test]
fn a_test_that_cannot_write_its_hook_has_no_cleanup_but_its_status() {
    if !able("a_test_that_cannot_write_its_hook_has_no_cleanup_but_its_status") {
        return;
    }
    // Room for the watcher's own file, and none for a line in it.
    let arena = arena();
    let full = "mount -t tmpfs -o size=4k none /var/tmp; head -c 4096 /dev/zero > /var/tmp/full";
    let ending = in_namespace(&arena, full, "STATUS=3 \"$WATCHER\" ./test.sh");
    assert_eq!(ending.status, 3, "{ending:?}");
    assert!(ending.stderr.contains("cleanup: nothing to do"), "{ending:?}");
}

#[test]
fn without_proc_it_watches_kills_and_cleans_up() {
    if !able("without_proc_it_watches_kills_and_cleans_up") {
        return;
    }
    let arena = arena();
    let ending = in_namespace(&arena, "mount -t tmpfs none /proc", "\"$WATCHER\" ./test.sh");
    assert_eq!((ending.status, arena.text("cleaned").trim()), (0, "ended 0"), "{ending:?}");
    arena.hooking_test("sleep 1000 & echo up > up; wait");
    let run = "\"$WATCHER\" ./test.sh & until [ -s up ]; do sleep 0.01; done; kill -INT $!; wait $!";
    let ending = in_namespace(&arena, "mount -t tmpfs none /proc", run);
    assert_eq!((ending.status, arena.text("cleaned").trim()), (130, "interrupted"), "{ending:?}");
}

#[test]
fn without_a_process_to_be_had_it_says_so() {
    let test = "without_a_process_to_be_had_it_says_so";
    if !is_root(test) || !installed(test, "setpriv") {
        return;
    }
    let arena = Arena::new();
    std::fs::set_permissions(arena.path(""), PermissionsExt::from_mode(0o777)).unwrap();
    std::fs::copy(WATCHER, arena.path("watcher")).unwrap();
    let mut command = arena.command("setpriv");
    // A user without processes of its own: the limit counts them all.
    command.args(["--reuid=64999", "--regid=64999", "--clear-groups", "bash", "-c"]);
    command.arg("ulimit -u 1; exec ./watcher touch ran");
    let ending = arena.run(command);
    assert_eq!(ending.status, 125, "{ending:?}");
    assert!(ending.stderr.contains("cannot run 'touch': Resource temporarily unavailable"), "{ending:?}");
    assert!(ending.stderr.contains("no guard (Resource temporarily unavailable)"), "{ending:?}");
    assert!(!arena.exists("ran"));
}

/// A cleanup that cannot be executed as it is, is run by bash, and a line says why.
#[test]
fn scripts_that_cannot_be_executed_are_run_by_bash() {
    for (first_line, why) in [
        ("echo $TESTWATCHER_OUTCOME > cleaned", "it has no #! line"),
        (
            "#!/no/such/shell\necho $TESTWATCHER_OUTCOME > cleaned",
            "the interpreter in its #! line cannot be found",
        ),
    ] {
        let arena = arena();
        std::fs::write(arena.path("cleanup.sh"), format!("{first_line}\n")).unwrap();
        let ending = arena.run(arena.watcher(&["./test.sh"]));
        assert_eq!((ending.status, arena.text("cleaned").trim()), (0, "ended 0"), "{ending:?}");
        assert!(ending.stderr.contains(&format!("is run by bash: {why}")), "{ending:?}");
    }
}

#[test]
fn a_script_on_a_noexec_mount_is_run_by_bash() {
    if !able("a_script_on_a_noexec_mount_is_run_by_bash") {
        return;
    }
    let arena = Arena::new();
    std::fs::create_dir(arena.path("noexec")).unwrap();
    arena.script("cleanup.sh", "echo $TESTWATCHER_OUTCOME > cleaned");
    arena.script("test.sh", "echo $PWD/noexec/cleanup.sh > $TESTWATCHER_CLPATH");
    let set_up = "mount -t tmpfs -o noexec none noexec; cp cleanup.sh noexec";
    let ending = in_namespace(&arena, set_up, "\"$WATCHER\" ./test.sh");
    assert_eq!((ending.status, arena.text("cleaned").trim()), (0, "ended 0"), "{ending:?}");
    assert!(
        ending.stderr.contains("is run by bash: it may not be executed where it is (noexec?)"),
        "{ending:?}"
    );
}

/// Somebody still has it open for writing (ETXTBSY): retried for a moment, then run by bash.
#[test]
fn a_script_that_is_still_open_for_writing_is_run() {
    let arena = arena();
    arena.hooking_test("exec 3>>cleanup.sh; sleep 1000 & echo $! > writer; exit 0");
    let ending = arena.run(arena.watcher(&["./test.sh"]));
    assert_eq!((ending.status, arena.text("cleaned").trim()), (0, "ended 0"), "{ending:?}");
    assert!(ending.stderr.contains("is run by bash: it is still being written to"), "{ending:?}");
    let writer = nix::unistd::Pid::from_raw(watch_common::number(&arena, "writer"));
    nix::sys::signal::kill(writer, nix::sys::signal::SIGKILL).unwrap();
}

/// As execvp(3): what may not be executed is passed over. The shell must get the very file that could not
/// be executed without it, and never a name that it takes for options.
#[test]
fn the_shell_is_given_the_file_that_path_leads_to() {
    let arena = Arena::new();
    for dir in ["first", "second", "-d"] {
        std::fs::create_dir(arena.path(dir)).unwrap();
    }
    std::fs::write(arena.path("first/odd"), "echo wrong").unwrap();
    for (name, word) in [("second/odd", "right"), ("-d/odd", "dash")] {
        arena.script("odd", "");
        std::fs::write(arena.path("odd"), format!("echo {word}")).unwrap();
        std::fs::rename(arena.path("odd"), arena.path(name)).unwrap();
    }
    let path = format!("{}:{}", arena.path("first").display(), arena.path("second").display());
    let mut command = arena.watch(&["odd"]);
    command.env("PATH", format!("{path}:/usr/bin:/bin"));
    assert_eq!(arena.run(command).stdout, "right\n");
    let ending = arena.run(arena.watch(&["--", "-d/odd"]));
    assert_eq!(ending.stdout, "dash\n", "{ending:?}");
}

/// A command without a #! line is for the shell, as execvp(3) and make have it.
#[test]
fn a_command_without_a_shebang_is_run_by_the_shell() {
    let arena = Arena::new();
    arena.script("plain", "");
    std::fs::write(arena.path("plain"), "echo \"$1\" > ran; exit 4\n").unwrap();
    assert_eq!(arena.run(arena.watcher(&["./plain", "two words"])).status, 4);
    assert_eq!(arena.text("ran"), "two words\n");
}

/// No output is needed to work: a reader that has gone costs neither the cleanup nor the status.
#[test]
fn a_dead_stderr_and_stdout_do_not_matter() {
    let arena = arena();
    arena.script("cleanup.sh", "echo lost; echo lost >&2; echo $TESTWATCHER_OUTCOME > cleaned");
    for pipe in ["2>&1 | true", "2>/dev/full >/dev/full", ">&- 2>&-"] {
        let _ = std::fs::remove_file(arena.path("cleaned"));
        let mut command = arena.command("bash");
        command.args(["-c", &format!("{WATCHER} ./test.sh {pipe}; echo ${{PIPESTATUS[0]}} > status")]);
        arena.run(command);
        assert_eq!(arena.text("cleaned").trim(), "ended 0", "{pipe}");
        assert_eq!(arena.text("status").trim(), "0", "{pipe}");
    }
}

/// Deadlines: shown to somebody else by `rl-cleanup status` while they run.
#[test]
fn remaining_time_is_shown_from_elsewhere() {
    let arena = Arena::new();
    arena.script("test.sh", "echo $TESTWATCHER_CLPATH > clpath; touch ready; exec sleep 1000");
    let run = arena.start(arena.watch(&["--time-limit", "1h", "--cleanup-limit", "20m", "./test.sh"]));
    arena.await_file("ready");
    let clpath = arena.text("clpath").trim().to_owned();
    let watcher =
        rl_cleanup::registry::live().into_iter().find(|w| w.clpath.path().to_str() == Some(&clpath));
    let watcher = watcher.expect("a live watcher is listed");
    assert_eq!((watcher.pid, watcher.phase.as_str()), (run.pid(), "test"));
    let left = watcher.test_deadline.unwrap() - rl_cleanup::hook::boottime_ns();
    assert!(left > 3_500 * 1_000_000_000 && left <= 3_600 * 1_000_000_000, "{left}");
    let mut status = std::process::Command::new(watch_common::TOOLKIT);
    let shown = status.args(["--dir", "/nonexistent", "status"]).output().unwrap();
    let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
    assert!(shown.contains(&clpath) || shown.contains(&run.pid().to_string()), "{shown}");
    run.signal(nix::sys::signal::SIGINT);
    run.end();
    let left: Vec<_> =
        rl_cleanup::registry::live().into_iter().filter(|w| w.clpath == watcher.clpath).collect();
    assert_eq!(left, vec![]);
}

/// A test that uses up the place: the watcher's own small files are wanted, not needed.
#[test]
fn a_place_that_the_test_has_used_up_costs_no_cleanup() {
    if !able("a_place_that_the_test_has_used_up_costs_no_cleanup") {
        return;
    }
    let arena = arena();
    arena.hooking_test("for i in {1..100}; do touch /var/tmp/fill.$i || break; done 2>/dev/null; exit 0");
    let ending =
        in_namespace(&arena, "mount -t tmpfs -o nr_inodes=12 none /var/tmp", "\"$WATCHER\" ./test.sh");
    assert_eq!((ending.status, arena.text("cleaned").trim()), (0, "ended 0"), "{ending:?}");
}

/// What bash cannot run either has not been run: 121, not 0.
#[test]
fn a_script_that_nothing_can_run_is_a_cleanup_that_was_not_run() {
    let arena = arena();
    std::fs::write(arena.path("cleanup.sh"), b"\x7fELF\x01\x02\x03\x00 no such thing").unwrap();
    let ending = arena.run(arena.watcher(&["./test.sh"]));
    assert_eq!(ending.status, 121, "{ending:?}");
}
