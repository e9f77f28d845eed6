//! Promise: what the CLPATH file names is run only if it is a regular, executable file of this user or
//! root; anything else costs one clear line, and nothing is left behind.

#![allow(clippy::unwrap_used)]

mod watch_common;
use std::os::unix::fs::PermissionsExt;
use watch_common::Arena;

/// Runs a test that writes `line` to CLPATH; returns status and messages.
fn hooked(arena: &Arena, write: &str) -> (i32, String) {
    arena.script("test.sh", write);
    let ending = arena.run(arena.watcher(&["./test.sh"]));
    (ending.status, ending.stderr)
}

fn arena() -> Arena {
    let arena = Arena::new();
    arena.script("cleanup.sh", "echo cleaned in $PWD >> cleaned");
    arena
}

#[test]
fn every_way_to_write_the_line_works() {
    for write in [
        "echo $PWD/cleanup.sh > $TESTWATCHER_CLPATH",
        "printf %s $PWD/cleanup.sh > $TESTWATCHER_CLPATH",
        "printf '%s\\nsecond line\\n' $PWD/cleanup.sh > $TESTWATCHER_CLPATH",
        "echo \"  $PWD/cleanup.sh  \" > $TESTWATCHER_CLPATH",
        "echo ./cleanup.sh > $TESTWATCHER_CLPATH",
        "echo cleanup.sh > $TESTWATCHER_CLPATH",
        "cd /; echo ./cleanup.sh > $TESTWATCHER_CLPATH",
        "echo $PWD/cleanup.sh > $TESTWATCHER_CLPATH.new; mv $TESTWATCHER_CLPATH.new $TESTWATCHER_CLPATH",
    ] {
        let arena = arena();
        let (status, stderr) = hooked(&arena, write);
        let want = format!("cleaned in {}\n", arena.path("").canonicalize().unwrap().display());
        assert_eq!((status, arena.text("cleaned")), (0, want), "{write}: {stderr}");
    }
}

/// Without a slash it is the file in the start directory, never another program from PATH.
#[test]
fn a_name_without_a_slash_is_never_looked_up() {
    let arena = Arena::new();
    let (status, stderr) = hooked(&arena, "echo true > $TESTWATCHER_CLPATH");
    assert_eq!(status, 121);
    assert!(stderr.contains("'./true' is not run: No such file or directory"), "{stderr}");
}

/// Neither `#!/bin/sh` nor bash takes a relative path for its options.
#[test]
fn a_dash_in_front_is_no_option() {
    for first in ["#!/bin/sh", ""] {
        let arena = Arena::new();
        std::fs::create_dir(arena.path("-d")).unwrap();
        arena.script("cleanup.sh", "");
        std::fs::write(arena.path("cleanup.sh"), format!("{first}\necho yes >> cleaned\n")).unwrap();
        std::fs::rename(arena.path("cleanup.sh"), arena.path("-d/cleanup.sh")).unwrap();
        let (status, stderr) = hooked(&arena, "echo -d/cleanup.sh > $TESTWATCHER_CLPATH");
        assert_eq!((status, arena.text("cleaned").trim()), (0, "yes"), "{first}: {stderr}");
    }
}

#[test]
fn anything_else_costs_one_clear_line() {
    for (write, why) in [
        ("echo $PWD > $TESTWATCHER_CLPATH", "it is not a regular file"),
        ("echo $PWD/nothing > $TESTWATCHER_CLPATH", "No such file or directory"),
        ("chmod -x cleanup.sh; echo ./cleanup.sh > $TESTWATCHER_CLPATH", "it is not executable"),
        ("mkfifo f; chmod +x f; echo ./f > $TESTWATCHER_CLPATH", "it is not a regular file"),
        ("rm $TESTWATCHER_CLPATH", "No such file or directory"),
        (
            "rm $TESTWATCHER_CLPATH; mkdir $TESTWATCHER_CLPATH; echo $TESTWATCHER_CLPATH > d",
            "not a regular file",
        ),
        ("rm $TESTWATCHER_CLPATH; mkfifo $TESTWATCHER_CLPATH", "not a regular file"),
        ("head -c 100000 /dev/zero | tr '\\0' x > $TESTWATCHER_CLPATH", "longer than any path"),
    ] {
        let arena = arena();
        let (status, stderr) = hooked(&arena, write);
        assert_eq!(status, 121, "{write}: {stderr}");
        let lines: Vec<&str> = stderr.lines().filter(|l| l.contains(why)).collect();
        assert_eq!(lines.len(), 1, "{write}: {stderr}");
        assert!(!arena.exists("cleaned"));
        if let Some(dir) = Some(arena.text("d")).filter(|d| !d.is_empty()) {
            std::fs::remove_dir(dir.trim()).unwrap();
        }
    }
}

#[test]
fn nothing_hooked_and_a_script_without_entries_are_no_error() {
    for write in ["true", "echo > $TESTWATCHER_CLPATH", "touch empty; echo ./empty > $TESTWATCHER_CLPATH"] {
        let arena = arena();
        let (status, stderr) = hooked(&arena, write);
        assert_eq!(status, 0, "{write}: {stderr}");
        assert!(stderr.contains("cleanup: nothing to do"), "{write}: {stderr}");
    }
}

#[test]
fn another_users_script_is_not_run() {
    if !watch_common::is_root("another_users_script_is_not_run") {
        return;
    }
    let arena = arena();
    let write = "chown 65534 cleanup.sh; echo ./cleanup.sh > $TESTWATCHER_CLPATH";
    let (status, stderr) = hooked(&arena, write);
    assert_eq!(status, 121, "{stderr}");
    assert!(stderr.contains("it belongs to another user (uid 65534)"), "{stderr}");
    assert!(!arena.exists("cleaned"));
}

/// Root's script is run for an ordinary user.
#[test]
fn roots_script_is_run_for_anybody() {
    if !watch_common::is_root("roots_script_is_run_for_anybody")
        || !watch_common::installed("roots_script_is_run_for_anybody", "setpriv")
    {
        return;
    }
    let arena = arena();
    arena.script("cleanup.sh", "id -u > out/cleaned");
    arena.script("test.sh", "echo ./cleanup.sh > $TESTWATCHER_CLPATH");
    std::fs::set_permissions(arena.path(""), PermissionsExt::from_mode(0o755)).unwrap();
    std::fs::create_dir(arena.path("out")).unwrap();
    std::fs::set_permissions(arena.path("out"), PermissionsExt::from_mode(0o777)).unwrap();
    // The build directory may be out of another user's reach.
    std::fs::copy(watch_common::WATCHER, arena.path("watcher")).unwrap();
    let mut command = arena.command("setpriv");
    command.args(["--reuid=65534", "--regid=65534", "--clear-groups", "./watcher", "./test.sh"]);
    let ending = arena.run(command);
    assert_eq!((ending.status, arena.text("out/cleaned").trim()), (0, "65534"), "{ending:?}");
}

/// The file: made in /var/tmp, empty, 0600, not executable, and gone at the end.
#[test]
fn the_file_is_private_and_goes() {
    let arena = Arena::new();
    arena.script(
        "test.sh",
        "echo $TESTWATCHER_CLPATH > clpath; stat -c '%s %a %F' $TESTWATCHER_CLPATH > stat",
    );
    arena.run(arena.watcher(&["./test.sh"]));
    assert_eq!(arena.text("stat").trim(), "0 600 regular empty file");
    assert!(arena.text("clpath").starts_with("/var/tmp/testwatcher-"));
    watch_common::assert_no_trace(&arena.text("clpath"));
}

/// The cleanup is the leader of a group of its own and gets standard input, output and error.
#[test]
fn the_cleanup_has_a_group_of_its_own_and_the_same_descriptors() {
    let arena = arena();
    arena.script("cleanup.sh", "ps -o pgid= -p $$ > pgid; echo $$ > pid; echo to stdout; echo to stderr >&2");
    let (_, stderr) = hooked(&arena, "echo ./cleanup.sh > $TESTWATCHER_CLPATH");
    assert_eq!(arena.text("pgid").trim(), arena.text("pid").trim());
    assert_eq!(arena.text("stdout"), "to stdout\n");
    assert!(stderr.contains("to stderr\n"));
}

/// Somebody else's directory of the private one's name, with traps in it, is neither used nor waited for.
#[test]
fn a_squatted_private_directory_is_not_used() {
    if !watch_common::is_root("a_squatted_private_directory_is_not_used") {
        return;
    }
    let arena = arena();
    let squat = "d=$TESTWATCHER_CLPATH.d; until [ -d $d ]; do :; done; rm -rf $d; mkdir $d
        mkfifo $d/cleanup-started $d/report; chown -R 65534 $d; echo $d > d
        echo ./cleanup.sh > $TESTWATCHER_CLPATH";
    let (status, stderr) = hooked(&arena, squat);
    assert_eq!((status, arena.text("cleaned").lines().count()), (0, 1), "{stderr}");
    std::fs::remove_dir_all(arena.text("d").trim()).unwrap();
}
