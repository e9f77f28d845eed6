//! Promise: a terminal works. On a real pty, in a shell with job control: a test that wants the terminal
//! is given it, ^C and ^\ interrupt whoever holds it, ^Z and `fg` stop and go on with everything, and the
//! settings are as before at the end.

#![allow(clippy::unwrap_used)]

mod watch_common;
use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::pty::{grantpt, posix_openpt, ptsname_r, unlockpt};
use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use watch_common::{Arena, TOOLKIT, WATCHER, installed, number, until};

/// A person in front of a shell.
struct Person {
    arena: Arena,
    keyboard: Option<File>,
    looks: Arc<AtomicBool>,
    screen: Arc<Mutex<String>>,
    seen: usize,
    shell: Child,
}

impl Person {
    fn sits_down(arena: Arena) -> Self {
        Self::runs(arena, &["bash", "--norc", "--noprofile", "--noediting", "-i"])
    }

    /// `program` leads a session with a new terminal.
    fn runs(arena: Arena, program: &[&str]) -> Self {
        let master = posix_openpt(OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_CLOEXEC).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        let slave = ptsname_r(&master).unwrap();
        let open = || OpenOptions::new().read(true).write(true).open(&slave).unwrap();
        let mut command = Command::new("setsid");
        command.args(["--ctty", "--wait"]).args(program).current_dir(arena.path(""));
        command.stdin(open()).stdout(open()).stderr(Stdio::from(open()));
        for name in ["TESTWATCHER_CLPATH", "BEAKERLIB_DIR", "TESTID", "PROMPT_COMMAND", "NO_COLOR"] {
            command.env_remove(name);
        }
        command.env("PS1", "READY> ").env("TERM", "xterm").env("HISTFILE", "");
        command.env("PATH", format!("{}:{}", dir_of(WATCHER), std::env::var("PATH").unwrap()));
        let shell = command.spawn().unwrap();
        let keyboard = File::from(master.as_fd().try_clone_to_owned().unwrap());
        let screen = Arc::new(Mutex::new(String::new()));
        let (shown, mut eye) = (Arc::clone(&screen), keyboard.try_clone().unwrap());
        let looks = Arc::new(AtomicBool::new(true));
        let looking = Arc::clone(&looks);
        std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            while looking.load(Ordering::Relaxed) {
                let mut fds = [PollFd::new(eye.as_fd(), PollFlags::POLLIN)];
                if poll(&mut fds, PollTimeout::from(20u8)) == Ok(0) {
                    continue;
                }
                let Ok(n @ 1..) = eye.read(&mut bytes) else { break };
                shown.lock().unwrap().push_str(&String::from_utf8_lossy(&bytes[..n]));
            }
        });
        Self { arena, keyboard: Some(keyboard), looks, screen, seen: 0, shell }
    }

    fn types(&mut self, keys: &str) -> &mut Self {
        self.keyboard.as_mut().unwrap().write_all(keys.as_bytes()).unwrap();
        self
    }

    /// Waits until `text` appears behind what was seen already.
    fn sees(&mut self, text: &str) -> &mut Self {
        let start = std::time::Instant::now();
        loop {
            let screen = self.screen.lock().unwrap().clone();
            if let Some(at) = screen[self.seen..].find(text) {
                self.seen += at + text.len();
                return self;
            }
            let waited = start.elapsed() > watch_common::DEADLINE;
            assert!(
                !waited,
                "{text:?} never came; the screen behind what was seen: {:?}",
                &screen[self.seen..]
            );
            std::thread::sleep(std::time::Duration::from_millis(2));
        }
    }

    /// Types a command line when the prompt is there.
    fn runs_line(&mut self, line: &str) -> &mut Self {
        self.sees("READY> ").types(line).types("\n")
    }

    /// The status of the last command.
    fn status(&mut self) -> i32 {
        self.runs_line("echo status=$? at=$((1+1))").sees("\nstatus=");
        let screen = self.screen.lock().unwrap().clone();
        let digits: String = screen[self.seen..].chars().take_while(char::is_ascii_digit).collect();
        digits.parse().unwrap()
    }

    /// The line is cut: every descriptor of the terminal's other side is closed.
    fn vanishes(&mut self) {
        self.looks.store(false, Ordering::Relaxed);
        self.keyboard = None;
    }

    fn leaves(mut self) {
        self.runs_line("exit");
        until("the shell's end", || self.shell.try_wait().unwrap().is_some());
    }
}

impl Drop for Person {
    fn drop(&mut self) {
        self.vanishes();
        let _ = self.shell.kill();
        let _ = self.shell.wait();
    }
}

fn dir_of(program: &str) -> &str {
    program.rsplit_once('/').unwrap().0
}

fn arena(test: &str) -> Arena {
    let arena = Arena::new();
    arena.hooking_test(test);
    arena.script("cleanup.sh", "echo cleanup-$TESTWATCHER_OUTCOME; echo x >> cleaned");
    arena
}

fn able(test: &str) -> bool {
    installed(test, "setsid")
}

#[test]
fn a_test_that_reads_the_terminal_gets_its_line() {
    if !able("a_test_that_reads_the_terminal_gets_its_line") {
        return;
    }
    let mut person =
        Person::sits_down(arena("echo ask; read -r x; echo \"<$x>\"; read -r y; echo \"<$y>\"; exit 3"));
    person.runs_line("beakerlib-testwatcher ./test.sh").sees("ask").types("first\n").sees("<first>");
    person.types("second\n").sees("<second>").sees("cleanup-ended 3");
    assert_eq!(person.status(), 3);
    person.leaves();
}

#[test]
fn programs_that_set_the_terminal_work() {
    if !able("programs_that_set_the_terminal_work") {
        return;
    }
    let mut person = Person::sits_down(arena(
        "stty -echo; stty echo; stty size; read -r -s -p 'password: ' p; echo \"<$p>\"",
    ));
    person
        .runs_line("stty rows 24 cols 80; beakerlib-testwatcher ./test.sh")
        .sees("24 80")
        .sees("password: ");
    person.types("secret\n").sees("<secret>").sees("cleanup-ended 0");
    person.leaves();
}

#[test]
fn full_screen_programs_work() {
    if !able("full_screen_programs_work") {
        return;
    }
    for (program, command, keys) in
        [("less", "less page", "q"), ("vi", "vi -c q", ""), ("vi", "vi page", ":q!\n")]
    {
        if !installed("full_screen_programs_work", program) {
            continue;
        }
        let arena = arena(&format!("{command}; echo status-$?"));
        std::fs::write(arena.path("page"), "line\n".repeat(100)).unwrap();
        let mut person = Person::sits_down(arena);
        person.runs_line("stty rows 24 cols 80; beakerlib-testwatcher ./test.sh");
        if !keys.is_empty() {
            person.sees("line").types(keys);
        }
        person.sees("status-0").sees("cleanup-ended 0");
        person.leaves();
    }
}

/// ^C and ^\ kill the group and run the cleanup, whoever holds the terminal and whatever the test makes
/// of the signal.
#[test]
fn interrupts_reach_the_watcher_whoever_holds_the_terminal() {
    if !able("interrupts_reach_the_watcher_whoever_holds_the_terminal") {
        return;
    }
    for (key, _) in [("\x03", "^C"), ("\x1c", "^\\")] {
        for test in [
            "echo up; exec sleep 1000",
            "trap '' INT QUIT; echo up; sleep 1000",
            "read -r x; echo up; exec sleep 1000",
            "trap '' INT QUIT; read -r x; echo up; sleep 1000",
            "trap 'echo caught' INT QUIT; read -r x; echo up; while :; do sleep 1000; done",
            "read -r x; echo up; read -r y",
            // It may signal its own group without getting rid of whoever listens for it.
            "trap '' INT QUIT; trap : USR1 TERM; read -r x; kill -USR1 0; kill -TERM 0; echo up; sleep 1000",
        ] {
            let mut person = Person::sits_down(arena(test));
            person.runs_line("beakerlib-testwatcher ./test.sh");
            if test.contains("read") {
                person.types("go\n");
            }
            person.sees("up\r\n").types(key).sees("cleanup-interrupted");
            assert_eq!(person.status(), 130, "{test}");
            person.leaves();
        }
    }
}

/// With the terminal lent, ^C reaches the test and the watcher in either order, so more than once.
#[test]
fn one_interrupt_is_told_once() {
    if !able("one_interrupt_is_told_once") {
        return;
    }
    let mut person = Person::sits_down(arena("read -r x; echo up; read -r y"));
    for _ in 0..10 {
        person.runs_line("beakerlib-testwatcher ./test.sh").types("go\n");
        person.sees("up\r\n").types("\x03").sees("cleanup-interrupted");
        assert_eq!(person.status(), 130);
    }
    let screen = person.screen.lock().unwrap().clone();
    assert!(!screen.contains("interrupt noted"), "{screen}");
    person.leaves();
}

#[test]
fn a_second_interrupt_kills_the_cleanup() {
    if !able("a_second_interrupt_kills_the_cleanup") {
        return;
    }
    for cleanup in ["echo cleaning; exec sleep 1000", "trap '' INT; read -r x; echo cleaning; sleep 1000"] {
        let arena = arena("echo up; exec sleep 1000");
        arena.script("cleanup.sh", cleanup);
        let mut person = Person::sits_down(arena);
        person.runs_line("beakerlib-testwatcher ./test.sh").sees("up\r\n").types("\x03");
        if cleanup.contains("read") {
            person.types("go\n");
        }
        person.sees("cleaning\r\n");
        // In its first half second it is taken as meant for the test; each key gets time to show
        // what it did, as one too many would reach the shell.
        let killed = |p: &Person| p.screen.lock().unwrap().contains("the cleanup is killed");
        until("the cleanup's death", || {
            person.types("\x03");
            let asked = std::time::Instant::now();
            while !killed(&person) && asked.elapsed() < std::time::Duration::from_secs(1) {
                std::thread::sleep(std::time::Duration::from_millis(2));
            }
            killed(&person)
        });
        assert_eq!(person.status(), 130);
        person.leaves();
    }
}

/// ^Z stops everything, the shell says so, and `fg` goes on with everything.
#[test]
fn stop_and_go_on() {
    if !able("stop_and_go_on") || !installed("stop_and_go_on", "make") {
        return;
    }
    let state = |pid: i32| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        stat.rsplit(") ").next().and_then(|r| r.chars().next())
    };
    for (command, test) in [
        ("beakerlib-testwatcher ./test.sh", "echo $$ > pid; echo up; read -r x < gate; echo on"),
        ("beakerlib-testwatcher ./test.sh", "read -r y; echo $$ > pid; echo up; read -r x < gate; echo on"),
        (
            "beakerlib-testwatcher ./test.sh",
            "trap '' TSTP; read -r y; echo $$ > pid; echo up; read -r x < gate; echo on",
        ),
        ("make run", "echo $$ > pid; echo up; read -r x < gate; echo on"),
        (
            "make run",
            "read -r y; echo $$ > pid; echo up; read -r x < gate; echo on; read -r z; echo \"<$z>\"",
        ),
    ] {
        let arena = arena(test);
        nix::unistd::mkfifo(&arena.path("gate"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        std::fs::write(arena.path("Makefile"), "run:\n\t@beakerlib-testwatcher ./test.sh\n").unwrap();
        let mut person = Person::sits_down(arena);
        person.runs_line(command);
        if test.contains("read -r y") {
            person.types("first\n");
        }
        person.sees("up\r\n").types("\x1a").sees("Stopped");
        let pid = number(&person.arena, "pid");
        until("the test to be stopped", || state(pid) == Some('T'));
        person.runs_line("fg").sees("\n").sees(command.split(' ').next().unwrap());
        until("the test to go on", || state(pid) != Some('T'));
        std::fs::write(person.arena.path("gate"), "go\n").unwrap();
        person.sees("on\r\n");
        if test.contains("read -r z") {
            person.types("later\n").sees("<later>");
        }
        person.sees("cleanup-ended 0");
        assert_eq!(person.status(), 0);
        person.leaves();
    }
}

/// A stopped run can still be interrupted.
#[test]
fn an_interrupt_after_fg_counts() {
    if !able("an_interrupt_after_fg_counts") {
        return;
    }
    let mut person = Person::sits_down(arena("echo up; exec sleep 1000"));
    person.runs_line("beakerlib-testwatcher ./test.sh").sees("up\r\n").types("\x1a").sees("Stopped");
    person.runs_line("fg").sees("\n").sees("beakerlib-testwatcher").types("\x03").sees("cleanup-interrupted");
    person.leaves();
}

#[test]
fn the_settings_are_as_before() {
    if !able("the_settings_are_as_before") {
        return;
    }
    for test in ["stty raw -echo; exit 0", "stty -icanon min 0 time 3; echo up; exec sleep 1000"] {
        let mut person = Person::sits_down(arena(test));
        person.runs_line("stty -g > before; beakerlib-testwatcher ./test.sh; stty -g > after; stty sane");
        if test.contains("sleep") {
            person.sees("up").types("\x03");
        }
        person.sees("cleanup-").sees("READY> ").types("\n");
        assert_eq!(person.arena.text("before"), person.arena.text("after"), "{test}");
        person.leaves();
    }
}

/// A terminal that was never lent belongs to others: whoever pages our output set it up for that.
#[test]
fn somebody_elses_settings_stay() {
    if !able("somebody_elses_settings_stay") {
        return;
    }
    let mut person = Person::sits_down(arena("touch up; read x < gate"));
    nix::unistd::mkfifo(&person.arena.path("gate"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    person.runs_line(
        "beakerlib-testwatcher ./test.sh | (stty -icanon < /dev/tty; echo go > gate; cat; stty -a < /dev/tty > during; stty sane < /dev/tty)",
    );
    person.runs_line("echo over-$((6*7))").sees("over-42");
    assert!(person.arena.text("during").contains("-icanon"), "{}", person.arena.text("during"));
    person.leaves();
}

/// The one who listens for keys is nobody that a test has left behind.
#[test]
fn the_sentinel_is_not_left_behind() {
    if !able("the_sentinel_is_not_left_behind") {
        return;
    }
    let mut person = Person::sits_down(arena("read -r x"));
    person.runs_line("beakerlib-testwatcher ./test.sh 2> said").types("line\n").sees("cleanup-ended 0");
    assert_eq!(person.status(), 0);
    assert!(!person.arena.text("said").contains("left running"), "{}", person.arena.text("said"));
    person.leaves();
}

/// tostop, no controlling terminal, closed stdin, background, pipeline: no hang.
#[test]
fn odd_places_do_not_hang() {
    if !able("odd_places_do_not_hang") {
        return;
    }
    let mut person = Person::sits_down(arena("echo out; echo err >&2; cat < /dev/null"));
    for line in [
        "stty tostop; beakerlib-testwatcher ./test.sh; stty -tostop",
        "beakerlib-testwatcher ./test.sh <&-",
        "beakerlib-testwatcher ./test.sh >&- 2>&-",
        "beakerlib-testwatcher ./test.sh | cat",
        "beakerlib-testwatcher ./test.sh & wait",
        "(beakerlib-testwatcher ./test.sh | cat) & wait",
        "setsid --wait beakerlib-testwatcher ./test.sh",
        "nohup beakerlib-testwatcher ./test.sh; rm -f nohup.out",
        "stty tostop; beakerlib-testwatcher ./test.sh | cat & wait; stty -tostop",
    ] {
        let before = person.arena.text("cleaned").len();
        // With tostop a background job that writes stops, as every job does, until it is brought back.
        let line = if line.contains("cat & wait") && line.contains("tostop") {
            "stty tostop; (beakerlib-testwatcher ./test.sh 2>&1 | cat > out) & wait; stty -tostop"
        } else {
            line
        };
        person.runs_line(line).runs_line("echo over-$((6*7))").sees("over-42");
        assert_eq!(person.arena.text("cleaned").len(), before + 2, "{line}");
    }
    person.leaves();
}

/// A background job that reads the terminal stops as every job does, and `fg` gives it the terminal.
#[test]
fn a_background_job_that_reads_waits_for_fg() {
    if !able("a_background_job_that_reads_waits_for_fg") {
        return;
    }
    let mut person = Person::sits_down(arena("touch up; read -r x; echo \"<$x>\""));
    person.runs_line("beakerlib-testwatcher ./test.sh &");
    person.arena.await_file("up");
    until("the job to be stopped", || {
        person.types("jobs\n");
        person.screen.lock().unwrap().contains("Stopped")
    });
    person.types("fg\n").types("line\n").sees("<line>").sees("cleanup-ended 0");
    person.leaves();
}

/// The terminal goes away (ssh is cut): time is up, and the cleanup runs all the same.
#[test]
fn a_lost_terminal_is_a_watchdog() {
    if !able("a_lost_terminal_is_a_watchdog") {
        return;
    }
    for test in ["echo up; touch up; exec sleep 1000", "read -r x; echo up; touch up; exec sleep 1000"] {
        let arena = arena(&format!("echo $TESTWATCHER_CLPATH > clpath; {test}"));
        arena.script("cleanup.sh", "echo to a dead terminal; echo $TESTWATCHER_OUTCOME > cleaned");
        let mut person = Person::runs(arena, &[TOOLKIT, "watch", "./test.sh"]);
        if test.contains("read") {
            person.types("go\n");
        }
        person.sees("up\r\n");
        let clpath = person.arena.text("clpath").trim().to_owned();
        person.vanishes();
        person.arena.await_file("cleaned");
        until("the end", || person.shell.try_wait().unwrap().is_some());
        assert_eq!(person.arena.text("cleaned").trim(), "watchdog");
        watch_common::assert_no_trace(&clpath);
    }
}
