//! Promise: no output is needed to work. Where stdout or stderr is dead, full or stuck, the test is
//! stopped and the cleanup done all the same, and what the cleanup wrote can be read.

#![allow(clippy::unwrap_used, reason = "a test that panics has failed")]

mod watch_common;
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::sys::signal::{
    Signal::{SIGINT, SIGKILL, SIGTERM},
    kill,
};
use std::fs;
use std::io::Read;
use std::os::fd::AsFd;
use std::process::{Command, Stdio};
use std::thread::JoinHandle;
use watch_common::{Arena, TOOLKIT, WATCHER, guards_of, number, until};

/// A cleanup that fails at the first line that nobody takes, by itself and through another program; it
/// waits at a gate between its lines if there is one.
fn talking(arena: &Arena) {
    arena.hooking_test(
        "echo $TESTWATCHER_CLPATH > clpath; echo $$ > pid.new; mv pid.new pid; exec sleep 1000",
    );
    arena.script(
        "cleanup.sh",
        "set -e\ntouch started; [ ! -p gate ] || read x < gate\n\
         for ((i = 0; i < 20; i++)); do echo built-in $i; /bin/echo program $i >&2; done\ntouch cleaned",
    );
}

fn gate(arena: &Arena) {
    nix::unistd::mkfifo(&arena.path("gate"), nix::sys::stat::Mode::S_IRWXU).unwrap();
}

/// Both outputs to one place.
fn to(command: &mut Command, end: impl AsFd) {
    let clone = || Stdio::from(end.as_fd().try_clone_to_owned().unwrap());
    command.stdout(clone()).stderr(clone());
}

/// The log's name: the CLPATH file's own characters are in it.
fn log_of(clpath: &str) -> String {
    let clpath = clpath.trim();
    format!("cleanup-{}.log", &clpath[clpath.len() - 6..])
}

/// What of `cleanup*log` is in the arena.
fn logs_in(arena: &Arena) -> Vec<String> {
    let names = fs::read_dir(arena.path(".")).unwrap().flatten().map(|e| e.file_name());
    let mut names: Vec<_> = names.map(|name| name.to_string_lossy().into_owned()).collect();
    names.retain(|name| name.starts_with("cleanup") && name.ends_with("log"));
    names.sort();
    names
}

fn assert_logged(arena: &Arena) {
    assert!(arena.exists("cleaned"), "the cleanup broke off");
    let clpath = arena.text("clpath");
    let log = arena.text(&log_of(&clpath));
    assert_eq!(log.lines().count(), 40, "{log}");
    until("the end of the guard", || guards_of(clpath.trim()).is_empty());
    watch_common::assert_no_trace(&clpath);
}

/// The reader is gone before the cleanup, in its middle, or while the guard has it.
#[test]
fn a_pipe_whose_reader_is_gone() {
    #[derive(Clone, Copy, PartialEq, Debug)]
    enum Gone {
        Before,
        InTheMiddle,
        UnderTheGuard,
    }
    for gone in [Gone::Before, Gone::InTheMiddle, Gone::UnderTheGuard] {
        let arena = Arena::new();
        talking(&arena);
        gate(&arena);
        let (reader, writer) = std::io::pipe().unwrap();
        let mut command = arena.watcher(&["./test.sh"]);
        to(&mut command, &writer);
        let run = arena.start(command);
        drop(writer);
        number(&arena, "pid");
        if gone == Gone::Before {
            drop(reader);
            run.signal(SIGINT);
            arena.await_file("started");
        } else if gone == Gone::InTheMiddle {
            run.signal(SIGINT);
            arena.await_file("started");
            drop(reader);
        } else {
            kill(run.pid(), SIGKILL).unwrap();
            arena.await_file("started");
            drop(reader);
        }
        fs::write(arena.path("gate"), "go\n").unwrap();
        let status = run.end().status;
        assert_eq!(status, if gone == Gone::UnderTheGuard { 137 } else { 130 }, "{gone:?}");
        arena.await_file("cleaned");
        assert_logged(&arena);
    }
}

/// With a reader that stays, everything arrives, in order, and no log is left.
#[test]
fn a_pipe_with_a_reader() {
    let arena = Arena::new();
    talking(&arena);
    let (mut reader, writer) = std::io::pipe().unwrap();
    let mut command = arena.watcher(&["./test.sh"]);
    to(&mut command, &writer);
    let run = arena.start(command);
    drop(writer);
    number(&arena, "pid");
    run.signal(SIGINT);
    let mut text = String::new();
    reader.read_to_string(&mut text).unwrap();
    assert_eq!(run.end().status, 130);
    let lines: Vec<_> = text.lines().filter(|l| !l.starts_with("TESTWATCHER: ")).map(str::to_owned).collect();
    let want: Vec<_> = (0..20).flat_map(|i| [format!("built-in {i}"), format!("program {i}")]).collect();
    assert_eq!(lines, want);
    assert!(text.lines().last().is_some_and(|l| l.contains("cleanup: ")), "the summary comes last:\n{text}");
    assert_eq!(logs_in(&arena), Vec::<String>::new());
}

/// Without a state directory of its own, too, the log is where the summary says.
#[test]
fn a_log_in_the_watcher_s_private_directory_stays() {
    let arena = Arena::new();
    arena.script(
        "test.sh",
        &format!(
            "{TOOLKIT} append 'echo said; touch cleaned'; echo $TESTWATCHER_CLPATH > clpath.new\n\
             mv clpath.new clpath; exec sleep 1000"
        ),
    );
    let (reader, writer) = std::io::pipe().unwrap();
    let mut command = arena.watcher(&["./test.sh"]);
    command.stdout(writer);
    let run = arena.start(command);
    arena.await_file("clpath");
    drop(reader);
    run.signal(SIGINT);
    let ending = run.end();
    assert!(arena.exists("cleaned"), "{ending:?}");
    let clpath = arena.text("clpath");
    let dir = format!("{}.d", clpath.trim());
    let log = format!("{dir}/{}", log_of(&clpath));
    assert!(ending.stderr.contains(&format!("the cleanup wrote to {log}")), "{ending:?}");
    assert_eq!(fs::read_to_string(&log).unwrap(), "said\n");
    fs::remove_dir_all(dir).unwrap();
}

/// Only one of the two is a pipe: `testwatcher … | tee log`, and ^C ends `tee` too.
#[test]
fn a_pipe_behind_stdout_alone() {
    let arena = Arena::new();
    talking(&arena);
    gate(&arena);
    let (reader, writer) = std::io::pipe().unwrap();
    let mut command = arena.watcher(&["./test.sh"]);
    command.stdout(writer);
    let run = arena.start(command);
    number(&arena, "pid");
    run.signal(SIGINT);
    arena.await_file("started");
    drop(reader);
    fs::write(arena.path("gate"), "go\n").unwrap();
    let ending = run.end();
    assert_eq!(ending.status, 130);
    assert!(arena.exists("cleaned"));
    let log = log_of(&arena.text("clpath"));
    assert_eq!(arena.text(&log).lines().count(), 20, "{}", arena.text(&log));
    assert!(ending.stderr.contains("program 19"), "{ending:?}");
    let named = format!("the cleanup wrote to {}", arena.path(&log).display());
    assert!(ending.stderr.contains(&named), "{ending:?}");
}

#[test]
fn a_terminal_that_was_closed() {
    for place in ["before", "in the middle"] {
        let arena = Arena::new();
        talking(&arena);
        gate(&arena);
        let pty = nix::pty::openpty(None, None).unwrap();
        for end in [&pty.master, &pty.slave] {
            fcntl(end, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC)).unwrap();
        }
        // A terminal nobody controls us by: its end is seen in the output alone. Under a harness, as
        // only then the cleanup is kept from a terminal that still lives.
        let mut command = arena.watch(&["--harness", "tmt", "./test.sh"]);
        to(&mut command, &pty.slave);
        let run = arena.start(command);
        drop(pty.slave);
        number(&arena, "pid");
        let mut master = Some(pty.master);
        if place == "before" {
            master = None;
        }
        run.signal(SIGINT);
        arena.await_file("started");
        drop(master);
        fs::write(arena.path("gate"), "go\n").unwrap();
        assert_eq!(run.end().status, 130, "{place}");
        assert_logged(&arena);
    }
}

/// A full device takes no line; it kills nobody.
#[test]
fn a_full_device() {
    let arena = Arena::new();
    talking(&arena);
    arena.script("cleanup.sh", "echo one; /bin/echo two; touch cleaned");
    let full = fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let mut command = arena.watcher(&["./test.sh"]);
    to(&mut command, &full);
    let run = arena.start(command);
    number(&arena, "pid");
    run.signal(SIGINT);
    assert_eq!(run.end().status, 130);
    assert!(arena.exists("cleaned"));
    watch_common::assert_no_trace(&arena.text("clpath"));
}

/// The test has filled the pipe and hangs in its next write; nobody will ever read.
#[test]
fn a_reader_that_has_stopped_reading() {
    let arena = Arena::new();
    talking(&arena);
    arena.hooking_test(
        "echo $TESTWATCHER_CLPATH > clpath; echo $$ > pid.new; mv pid.new pid; exec head -c 10000000 /dev/zero",
    );
    let (reader, writer) = std::io::pipe().unwrap();
    let mut command = arena.watcher(&["./test.sh"]);
    to(&mut command, &writer);
    let run = arena.start(command);
    drop(writer);
    let pid = number(&arena, "pid");
    until("a test that hangs in its write", || {
        fs::read_to_string(format!("/proc/{pid}/syscall")).is_ok_and(|call| call.starts_with("1 0x1 "))
            || fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| stat.contains("(head) S "))
    });
    run.signal(SIGINT);
    assert_eq!(run.end().status, 130);
    assert_logged(&arena);
    drop(reader);
}

/// Nothing at all: all three closed.
#[test]
fn no_descriptors_at_all() {
    let arena = Arena::new();
    talking(&arena);
    let mut command = arena.command("bash");
    command.args(["-c", "exec \"$@\" <&- >&- 2>&-", "bash", WATCHER, "./test.sh"]);
    let run = arena.start(command);
    number(&arena, "pid");
    run.signal(SIGINT);
    assert_eq!(run.end().status, 130);
    assert!(arena.exists("started"));
    watch_common::assert_no_trace(&arena.text("clpath"));
}

/// A log of a terabyte that takes no room: nobody copies it in the time a test has.
const ENDLESS: &str = "truncate -s 1T /proc/self/fd/1";

/// A test that ends with 0 and leaves this cleanup behind, both outputs to a pipe.
fn cleaning(arena: &Arena, cleanup: &str) -> (Command, std::io::PipeReader) {
    arena.hooking_test("echo $TESTWATCHER_CLPATH > clpath");
    arena.script("cleanup.sh", cleanup);
    let (reader, writer) = std::io::pipe().unwrap();
    let mut command = arena.watcher(&["./test.sh"]);
    to(&mut command, &writer);
    (command, reader)
}

/// A reader that takes all there is.
fn drain(mut reader: std::io::PipeReader) -> JoinHandle<u64> {
    std::thread::spawn(move || std::io::copy(&mut reader, &mut std::io::sink()).unwrap())
}

/// However much there is to copy, the watcher hears a ^C.
#[test]
fn a_cleanup_that_writes_faster_than_it_is_copied_can_be_interrupted() {
    let arena = Arena::new();
    let (command, reader) = cleaning(&arena, &format!("{ENDLESS}; touch started; exec sleep 1000"));
    let run = arena.start(command);
    let reader = drain(reader);
    arena.await_file("started");
    assert_eq!(run.end_by_repeating(SIGINT).status, 121);
    assert!(reader.join().unwrap() > 0);
}

/// However much there is left to copy when the cleanup has ended, the watcher hears a SIGTERM.
#[test]
fn a_sigterm_at_the_end_is_heard() {
    let arena = Arena::new();
    let (command, reader) = cleaning(&arena, &format!("{ENDLESS}; echo $$ > pid.new; mv pid.new pid"));
    let run = arena.start(command);
    let reader = drain(reader);
    let pid = number(&arena, "pid");
    until("the cleanup's end", || !watch_common::is_alive(pid));
    run.signal(SIGTERM);
    assert_eq!(run.end().status, 143);
    reader.join().unwrap();
}

/// Whoever the cleanup leaves behind, and writes on and on, keeps nobody waiting.
#[test]
fn a_writer_that_was_left_behind() {
    let arena = Arena::new();
    let body = "touch started\n\
        (for ((i = 1; ; i++)); do [ -e started ] || exit; truncate -s ${i}G /proc/self/fd/1; touch ahead; done) &\n\
        until [ -e ahead ]; do :; done";
    let (command, reader) = cleaning(&arena, body);
    let run = arena.start(command);
    let reader = drain(reader);
    assert_eq!(run.end().status, 0);
    fs::remove_file(arena.path("started")).unwrap();
    assert!(reader.join().unwrap() > 0);
}

/// SIGTERM leaves the cleanup alone, and with it its log.
#[test]
fn a_cleanup_that_is_left_alone_keeps_its_log() {
    let arena = Arena::new();
    gate(&arena);
    let body = "echo early; echo $$ > pid.new; mv pid.new pid; read x < gate; echo late; touch cleaned";
    let (command, mut reader) = cleaning(&arena, body);
    let run = arena.start(command);
    number(&arena, "pid");
    run.signal(SIGTERM);
    assert_eq!(run.end().status, 143);
    let mut text = String::new();
    reader.read_to_string(&mut text).unwrap();
    fs::write(arena.path("gate"), "go\n").unwrap();
    arena.await_file("cleaned");
    let log = named_log(&text);
    assert_eq!(fs::read_to_string(log).unwrap(), "early\nlate\n", "{text}");
    // What stays for the next boot.
    let clpath = arena.text("clpath");
    fs::remove_file(clpath.trim()).unwrap();
    fs::remove_dir_all(format!("{}.d", clpath.trim())).unwrap();
}

/// The log that a summary names.
fn named_log(summary: &str) -> &str {
    let line = summary.lines().find_map(|line| line.split_once("the cleanup wrote to "));
    line.unwrap_or_else(|| panic!("no log is named:\n{summary}")).1
}

/// A file of the user's own that happens to be called like a log is nobody else's business, nor is
/// where it points to.
#[test]
fn a_file_of_the_user_s_own() {
    let arena = Arena::new();
    let body = "echo mine > cleanup.log; for f in mine \"cleanup-${TESTWATCHER_CLPATH: -6}.log\"; do ls \"$f\"; done";
    arena.script("cleanup.sh", body);
    fs::write(arena.path("mine"), "mine too\n").unwrap();
    // The test itself lays a link where the log would be.
    arena.hooking_test(
        "echo $TESTWATCHER_CLPATH > clpath; ln -s mine \"cleanup-${TESTWATCHER_CLPATH: -6}.log\"",
    );
    let (mut reader, writer) = std::io::pipe().unwrap();
    let mut command = arena.watcher(&["./test.sh"]);
    to(&mut command, &writer);
    let run = arena.start(command);
    drop(writer);
    let mut text = String::new();
    reader.read_to_string(&mut text).unwrap();
    assert_eq!(run.end().status, 0, "{text}");
    assert_eq!(arena.text("cleanup.log"), "mine\n");
    assert_eq!(arena.text("mine"), "mine too\n");
    let link = log_of(&arena.text("clpath"));
    assert!(text.contains(&link) && !text.contains("mine too"), "{text}");
    assert_eq!(logs_in(&arena), [link, "cleanup.log".to_owned()]);
    watch_common::assert_no_trace(&arena.text("clpath"));
}

/// Two runs at once with one script: each has its own log.
#[test]
fn two_runs_in_one_directory() {
    let arena = Arena::new();
    arena.script("cleanup.sh", "echo for ${TESTWATCHER_CLPATH: -6}");
    arena.hooking_test("echo \"$TESTWATCHER_CLPATH\" > \"$1.new\"; mv \"$1.new\" \"$1\"; exec sleep 1000");
    let mut runs = Vec::new();
    for name in ["one", "two"] {
        let (reader, writer) = std::io::pipe().unwrap();
        let mut command = arena.watcher(&["./test.sh", name]);
        to(&mut command, &writer);
        let run = arena.start(command);
        arena.await_file(name);
        drop(reader);
        runs.push((run, arena.text(name)));
    }
    for (run, _) in &runs {
        run.signal(SIGINT);
    }
    for (run, clpath) in runs {
        assert_eq!(run.end().status, 130);
        let clpath = clpath.trim();
        assert_eq!(arena.text(&log_of(clpath)), format!("for {}\n", &clpath[clpath.len() - 6..]));
    }
}

/// A harness with a pipe for each: both get what is theirs, and either may go.
#[test]
fn two_pipes() {
    #[derive(Clone, Copy, PartialEq, Debug)]
    enum Gone {
        Neither,
        Out,
        Err,
    }
    for gone in [Gone::Neither, Gone::Out, Gone::Err] {
        let arena = Arena::new();
        talking(&arena);
        gate(&arena);
        let (out, err) = (std::io::pipe().unwrap(), std::io::pipe().unwrap());
        let mut command = arena.watcher(&["./test.sh"]);
        command.stdout(out.1).stderr(err.1);
        let run = arena.start(command);
        number(&arena, "pid");
        run.signal(SIGINT);
        arena.await_file("started");
        let out = (gone != Gone::Out).then_some(out.0);
        let err = (gone != Gone::Err).then_some(err.0);
        fs::write(arena.path("gate"), "go\n").unwrap();
        let read = |pipe: Option<std::io::PipeReader>| {
            let mut text = String::new();
            pipe.map(|mut pipe| pipe.read_to_string(&mut text).unwrap());
            text.lines().filter(|l| !l.starts_with("TESTWATCHER: ")).map(|l| format!("{l}\n")).collect()
        };
        let (mut out, mut err): (String, String) = (read(out), read(err));
        assert_eq!(run.end().status, 130, "{gone:?}");
        assert!(arena.exists("cleaned"), "{gone:?}: the cleanup broke off");
        let log = log_of(&arena.text("clpath"));
        let (out_log, err_log) = (log.clone(), log.replace(".log", ".err.log"));
        let want = match gone {
            Gone::Neither => vec![],
            Gone::Out => vec![out_log.clone()],
            Gone::Err => vec![err_log.clone()],
        };
        assert_eq!(logs_in(&arena), want, "{gone:?}");
        out += &arena.text(&out_log);
        err += &arena.text(&err_log);
        let lines = |what: &str| (0..20).map(|i| format!("{what} {i}\n")).collect::<String>();
        assert_eq!((out, err), (lines("built-in"), lines("program")), "{gone:?}");
    }
}

/// Where the script is there is no room for a log: it is elsewhere.
#[test]
fn a_full_file_system() {
    let probe = Command::new("unshare").args(["-m", "true"]).stderr(Stdio::null()).status();
    if !probe.is_ok_and(|status| status.success()) {
        watch_common::skip("a_full_file_system", "cannot mount");
        return;
    }
    let arena = Arena::new();
    gate(&arena);
    arena.script("cleanup.sh", "touch started; read x < gate; echo said; touch cleaned");
    arena.script(
        "test.sh",
        "echo \"$PWD/small/cleanup.sh\" > \"$TESTWATCHER_CLPATH\"; echo $TESTWATCHER_CLPATH > clpath",
    );
    let (reader, writer) = std::io::pipe().unwrap();
    let mut command = arena.command("unshare");
    let body = "mkdir small; mount -t tmpfs -o size=512k none small; cp cleanup.sh small/; exec \"$@\"";
    command.args(["-m", "bash", "-c", body, "bash", WATCHER, "./test.sh"]).stdout(writer);
    let run = arena.start(command);
    arena.await_file("started");
    drop(reader);
    fs::write(arena.path("gate"), "go\n").unwrap();
    let ending = run.end();
    assert!(arena.exists("cleaned"), "{ending:?}");
    let clpath = arena.text("clpath");
    let dir = format!("{}.d", clpath.trim());
    assert_eq!(named_log(&ending.stderr), format!("{dir}/{}", log_of(&clpath)));
    assert_eq!(fs::read_to_string(named_log(&ending.stderr)).unwrap(), "said\n");
    fs::remove_dir_all(dir).unwrap();
}
