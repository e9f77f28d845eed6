//! Promise: {ends by itself, SIGINT, SIGHUP} x {no cleanup, cleanup ends, cleanup killed by SIGINT, by
//! the EWD} do what the original does. The list runs against any watcher: `WATCHER_UNDER_TEST` names it.

#![allow(clippy::unwrap_used)]

mod watch_common;
use nix::sys::signal::Signal::{self, SIGHUP, SIGINT};
use watch_common::{Arena, Ending};

#[derive(Clone, Copy, PartialEq)]
enum TestEnd {
    ByItself,
    By(Signal),
}

#[derive(Clone, Copy, PartialEq)]
enum CleanupEnd {
    None,
    ByItself,
    Interrupt,
    Watchdog,
}

fn scenario(test: TestEnd, cleanup: CleanupEnd) {
    let arena = Arena::new();
    let hang = if test == TestEnd::ByItself { "" } else { "exec sleep 1000" };
    let body =
        format!("echo $TESTWATCHER_CLPATH > clpath; echo start >> test.log; {hang}\necho end >> test.log");
    if cleanup == CleanupEnd::None {
        arena.script("test.sh", &body);
    } else {
        arena.hooking_test(&body);
    }
    let clean = if cleanup == CleanupEnd::ByItself { "" } else { "sleep 1000" };
    arena.script("cleanup.sh", &format!("echo start >> cleanup.log; {clean}\necho end >> cleanup.log"));
    let mut command = arena.watcher(&["./test.sh"]);
    command.env("TESTWATCHER_EWD_SECS", "1");
    let run = arena.start(command);
    // Not only the file: the shell makes it before it writes.
    watch_common::until("the test's first line", || !arena.text("test.log").is_empty());
    if let TestEnd::By(signal) = test {
        run.signal(signal);
    }
    let ending = match cleanup {
        CleanupEnd::None | CleanupEnd::ByItself => run.end(),
        CleanupEnd::Interrupt => {
            watch_common::until("the cleanup's first line", || !arena.text("cleanup.log").is_empty());
            run.end_by_repeating(SIGINT)
        }
        CleanupEnd::Watchdog => {
            watch_common::until("the cleanup's first line", || !arena.text("cleanup.log").is_empty());
            run.signal(SIGHUP);
            run.end()
        }
    };
    let test_log = if test == TestEnd::ByItself { "start\nend\n" } else { "start\n" };
    assert_eq!(arena.text("test.log"), test_log, "{ending:?}");
    let cleanup_log = match cleanup {
        CleanupEnd::None => "",
        CleanupEnd::ByItself => "start\nend\n",
        CleanupEnd::Interrupt | CleanupEnd::Watchdog => "start\n",
    };
    assert_eq!(arena.text("cleanup.log"), cleanup_log, "{ending:?}");
    check_status(test, cleanup, &ending);
    watch_common::assert_no_trace(&arena.text("clpath"));
}

/// The original always says 0; ours follows the contract's table.
fn check_status(test: TestEnd, cleanup: CleanupEnd, ending: &Ending) {
    if std::env::var_os("WATCHER_UNDER_TEST").is_some() {
        return;
    }
    let want = match test {
        TestEnd::By(SIGINT) => 130,
        TestEnd::By(_) => 124,
        TestEnd::ByItself if matches!(cleanup, CleanupEnd::Interrupt | CleanupEnd::Watchdog) => 121,
        TestEnd::ByItself => 0,
    };
    assert_eq!(ending.status, want, "{ending:?}");
}

macro_rules! scenarios {
    ($($name:ident: $test:expr, $cleanup:expr;)*) => {
        $(#[test] fn $name() { scenario($test, $cleanup); })*
    };
}

scenarios! {
    ends_without_cleanup: TestEnd::ByItself, CleanupEnd::None;
    ends_and_is_cleaned_up: TestEnd::ByItself, CleanupEnd::ByItself;
    ends_and_its_cleanup_is_interrupted: TestEnd::ByItself, CleanupEnd::Interrupt;
    ends_and_its_cleanup_runs_out_of_time: TestEnd::ByItself, CleanupEnd::Watchdog;
    interrupted_without_cleanup: TestEnd::By(SIGINT), CleanupEnd::None;
    interrupted_and_cleaned_up: TestEnd::By(SIGINT), CleanupEnd::ByItself;
    interrupted_and_its_cleanup_too: TestEnd::By(SIGINT), CleanupEnd::Interrupt;
    interrupted_and_its_cleanup_runs_out_of_time: TestEnd::By(SIGINT), CleanupEnd::Watchdog;
    hung_up_without_cleanup: TestEnd::By(SIGHUP), CleanupEnd::None;
    hung_up_and_cleaned_up: TestEnd::By(SIGHUP), CleanupEnd::ByItself;
    hung_up_and_its_cleanup_interrupted: TestEnd::By(SIGHUP), CleanupEnd::Interrupt;
    hung_up_and_its_cleanup_runs_out_of_time: TestEnd::By(SIGHUP), CleanupEnd::Watchdog;
}

/// A watchdog during the cleanup only starts the clock: the cleanup may end by itself.
#[test]
fn a_watchdog_during_the_cleanup_lets_it_end() {
    let arena = Arena::new();
    arena.hooking_test("echo end > test.log");
    arena.script("cleanup.sh", "echo start >> cleanup.log; read x < gate; echo end >> cleanup.log");
    nix::unistd::mkfifo(&arena.path("gate"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    let run = arena.start(arena.watcher(&["./test.sh"]));
    watch_common::until("the cleanup's first line", || !arena.text("cleanup.log").is_empty());
    run.signal(SIGHUP).signal(SIGHUP);
    std::fs::write(arena.path("gate"), "go\n").unwrap();
    let ending = run.end();
    assert_eq!(arena.text("cleanup.log"), "start\nend\n", "{ending:?}");
    assert_eq!(ending.status, 0);
}

/// Arguments arrive byte for byte: blanks, newlines, empty, not UTF-8.
#[test]
fn arguments_arrive_byte_for_byte() {
    use std::ffi::OsString;
    use std::os::unix::ffi::OsStringExt;
    let arena = Arena::new();
    arena.script("test.sh", "printf '%s\\0' \"$@\" > args");
    let words: Vec<OsString> =
        [&b"./test.sh"[..], b"two words", b"a\nb", b"", b"-x", b"--", b"\xff\xfe", b"$(id)"]
            .map(|w| OsString::from_vec(w.to_vec()))
            .to_vec();
    arena.run(arena.watcher(&words));
    let got = std::fs::read(arena.path("args")).unwrap();
    assert_eq!(got, b"two words\0a\nb\0\0-x\0--\0\xff\xfe\0$(id)\0");
}

/// The test's standard output and input are its own: 20 MB and a pipe go through unchanged.
#[test]
fn output_and_input_are_untouched() {
    let arena = Arena::new();
    arena.script("test.sh", "cat > got; head -c 20000000 /dev/zero | tr '\\0' x");
    let mut command = arena.watcher(&["./test.sh"]);
    command.stdin(std::process::Stdio::piped());
    let mut run = arena.start(command);
    use std::io::Write;
    run.child.stdin.take().unwrap().write_all(b"from a pipe").unwrap();
    let ending = run.end();
    assert_eq!(arena.text("got"), "from a pipe");
    let stray = ending.stdout.trim_matches('x');
    assert!(ending.stdout.matches('x').count() >= 20_000_000, "{}", ending.stdout.len());
    if std::env::var_os("WATCHER_UNDER_TEST").is_none() {
        assert_eq!(stray, "", "stdout belongs to the command");
    }
}
