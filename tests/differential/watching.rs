//! Behaviours of the watcher.

use super::scenario::Fact::{Left, Messages, Prints, Ran, Status, Tildes};
use super::scenario::Output::{Dead, Full};
use super::scenario::Start::Shell;
use super::scenario::Step::{Await, Repeat, Send, Touch};
use super::scenario::{Scenario, watcher};
use nix::sys::signal::Signal::{SIGHUP, SIGINT, SIGKILL, SIGQUIT, SIGTERM};

const CLEANUP: &str = "#!/bin/bash\necho cleanup >>\"$T/log\"";
/// Says that it has begun, once the watcher waits for it, and ends when it is let go.
const SLOW_CLEANUP: &str = "#!/bin/bash\necho cleanup >>\"$T/log\"
until [[ $(</proc/$PPID/stat) == *') S '* ]]; do sleep 0.01; done; : >\"$T/cleaning\"
until [ -e \"$T/go\" ]; do sleep 0.05; done; echo cleaned >>\"$T/log\"";
const HUNG_CLEANUP: &str = "#!/bin/bash\necho cleanup >>\"$T/log\"
until [[ $(</proc/$PPID/stat) == *') S '* ]]; do sleep 0.01; done; : >\"$T/cleaning\"; exec sleep 1000";
const HUNG: &str = "hook; echo test >>$T/log; ready; exec sleep 1000";

pub fn all() -> Vec<Scenario> {
    [statuses(), interrupts(), clpath(), surroundings()].concat()
}

fn statuses() -> Vec<Scenario> {
    let plain = |id, what, test| watcher(id, what, test).own_status();
    vec![
        plain("status-0", "a test ends with 0", "exit 0").sees(Status, "0"),
        plain("status-of-the-test", "a test ends with 3", "exit 3").sees(Status, "3"),
        plain("status-signal", "a test dies of SIGKILL", "kill -KILL $$").sees(Status, "137"),
        plain("status-of-the-cleanup", "the cleanup ends with 5, the test with 0", "hook")
            .cleanup("#!/bin/bash\nexit 5")
            .sees(Status, "0"),
        plain("not-found", "the command does not exist", "")
            .start(Shell("exec \"$WATCHER\" ./nothing-here"))
            .sees(Status, "127"),
        plain("not-executable", "the command may not be executed", "")
            .start(Shell(": >plain; exec \"$WATCHER\" ./plain"))
            .sees(Status, "126"),
        plain("no-arguments", "the watcher without a command", "")
            .start(Shell("exec \"$WATCHER\""))
            .sees(Status, "2"),
        plain("status-interrupted", "a person's interrupt", HUNG)
            .then(&[Await("ready"), Send(SIGINT)])
            .sees(Status, "130"),
        plain("status-watchdog", "the local watchdog", HUNG)
            .then(&[Await("ready"), Send(SIGHUP)])
            .sees(Status, "124"),
        plain("status-sigterm", "SIGTERM to the watcher", HUNG)
            .then(&[Await("ready"), Send(SIGTERM)])
            .sees(Status, "143"),
        plain("status-cleanup-killed", "the test ends with 0, its cleanup is killed", "hook")
            .cleanup(HUNG_CLEANUP)
            .then(&[Await("cleaning"), Repeat(SIGINT)])
            .sees(Status, "121"),
        plain("status-cleanup-not-run", "the test ends with 0, its cleanup is not executable", "hook")
            .sees(Status, "121"),
        plain("status-exit-zero", "TESTWATCHER_EXIT_ZERO=1, and a test that ends with 3", "exit 3")
            .env("TESTWATCHER_EXIT_ZERO", "1")
            .sees(Status, "0"),
        plain("status-exit-zero-interrupt", "TESTWATCHER_EXIT_ZERO=1, and an interrupt", HUNG)
            .env("TESTWATCHER_EXIT_ZERO", "1")
            .then(&[Await("ready"), Send(SIGINT)])
            .sees(Status, "0"),
        plain("ewd-not-a-number", "TESTWATCHER_EWD_SECS=soon", "echo test >>$T/log")
            .env("TESTWATCHER_EWD_SECS", "soon")
            .sees(Status, "2")
            .sees(Ran, "nothing"),
        plain("ewd-zero", "TESTWATCHER_EWD_SECS=0", "echo test >>$T/log")
            .env("TESTWATCHER_EWD_SECS", "0")
            .sees(Status, "2")
            .sees(Ran, "nothing"),
    ]
}

fn interrupts() -> Vec<Scenario> {
    let hup_in_test = [Await("ready"), Send(SIGHUP)];
    vec![
        watcher("ends-by-itself", "the test ends, its cleanup runs", "hook; echo test >>$T/log")
            .cleanup(CLEANUP)
            .sees(Status, "0")
            .sees(Ran, "test cleanup")
            .sees(Left, "nothing"),
        watcher("no-cleanup", "no cleanup is hooked", "echo test >>$T/log")
            .cleanup(CLEANUP)
            .sees(Ran, "test")
            .sees(Left, "nothing"),
        watcher("sigint", "SIGINT: the test is killed, its cleanup runs", HUNG)
            .cleanup(CLEANUP)
            .then(&[Await("ready"), Send(SIGINT)])
            .sees(Ran, "test cleanup")
            .sees(Left, "nothing"),
        watcher("sighup", "SIGHUP: the test is killed, its cleanup runs", HUNG)
            .cleanup(CLEANUP)
            .then(&hup_in_test)
            .sees(Ran, "test cleanup")
            .sees(Left, "nothing"),
        watcher("sighup-again", "SIGHUP in the test, and twice more in the cleanup", HUNG)
            .cleanup(SLOW_CLEANUP)
            .then(&hup_in_test)
            .then(&[Await("cleaning"), Send(SIGHUP), Send(SIGHUP), Touch("go")])
            .sees(Ran, "test cleanup cleaned"),
        watcher("sighup-in-cleanup", "SIGHUP in the cleanup lets it end", "hook; echo test >>$T/log")
            .cleanup(SLOW_CLEANUP)
            .then(&[Await("cleaning"), Send(SIGHUP), Touch("go")])
            .sees(Ran, "test cleanup cleaned"),
        watcher("ewd-after-sighup", "a cleanup that hangs after SIGHUP is killed in time", HUNG)
            .cleanup(HUNG_CLEANUP)
            .env("TESTWATCHER_EWD_SECS", "1")
            .then(&hup_in_test)
            .sees(Ran, "test cleanup")
            .sees(Left, "nothing"),
        watcher("ewd-in-cleanup", "a cleanup that hangs, SIGHUP during it", "hook; echo test >>$T/log")
            .cleanup(HUNG_CLEANUP)
            .env("TESTWATCHER_EWD_SECS", "1")
            .then(&[Await("cleaning"), Send(SIGHUP)])
            .sees(Ran, "test cleanup")
            .sees(Left, "nothing"),
        watcher("sigint-in-cleanup", "SIGINT, again and again, kills the cleanup", "hook; echo test >>$T/log")
            .cleanup(HUNG_CLEANUP)
            .then(&[Await("cleaning"), Repeat(SIGINT)])
            .sees(Ran, "test cleanup")
            .sees(Left, "nothing"),
        watcher("sigint-twice", "SIGINT in the test and, again and again, in the cleanup", HUNG)
            .cleanup(HUNG_CLEANUP)
            .then(&[Await("ready"), Send(SIGINT), Await("cleaning"), Repeat(SIGINT)])
            .sees(Ran, "test cleanup")
            .sees(Left, "nothing"),
        watcher("sigterm-in-test", "SIGTERM: the test lives on, nothing is cleaned up", HUNG)
            .cleanup(CLEANUP)
            .then(&[Await("ready"), Send(SIGTERM)])
            .sees(Ran, "test")
            .sees(Left, "sleep, CLPATH, CLPATH.d"),
        watcher("sigterm-in-cleanup", "SIGTERM in the cleanup: it lives on", "hook; echo test >>$T/log")
            .cleanup(HUNG_CLEANUP)
            .then(&[Await("cleaning"), Send(SIGTERM)])
            .sees(Ran, "test cleanup")
            .sees(Left, "sleep, CLPATH, CLPATH.d"),
        watcher("sigkill", "SIGKILL to the watcher", HUNG)
            .cleanup(CLEANUP)
            .then(&[Await("ready"), Send(SIGKILL)])
            .sees(Ran, "test cleanup")
            .sees(Left, "nothing"),
        watcher("sigkill-in-cleanup", "SIGKILL to the watcher in mid-cleanup", "hook; echo test >>$T/log")
            .cleanup(SLOW_CLEANUP)
            .then(&[Await("cleaning"), Send(SIGKILL), Touch("go")])
            .sees(Ran, "test cleanup cleaned")
            .sees(Left, "nothing"),
        watcher("sigquit", "SIGQUIT, what ^\\ sends", HUNG)
            .cleanup(CLEANUP)
            .then(&[Await("ready"), Send(SIGQUIT)])
            .sees(Ran, "test cleanup")
            .sees(Left, "nothing"),
        watcher(
            "nohup",
            "a watcher under nohup gets SIGHUP",
            "hook; echo test >>$T/log; ready; until [ -e $T/go ]; do sleep 0.05; done; echo end >>$T/log",
        )
        .cleanup(CLEANUP)
        .start(Shell("trap '' HUP; exec \"$WATCHER\" ./test.sh"))
        .then(&[Await("ready"), Send(SIGHUP), Touch("go")])
        .sees(Ran, "test end cleanup"),
        watcher(
            "group-killed",
            "an interrupt kills the children of the test too",
            "hook; sleep 1000 & sleep 1001 & ready; wait",
        )
        .cleanup(CLEANUP)
        .then(&[Await("ready"), Send(SIGINT)])
        .sees(Ran, "cleanup")
        .sees(Left, "nothing"),
        watcher(
            "left-in-background",
            "a test that ends by itself leaves a process in its group",
            "hook; sleep 1000 >/dev/null 2>&1 &",
        )
        .cleanup(CLEANUP)
        .sees(Ran, "cleanup")
        .sees(Left, "sleep"),
        watcher(
            "nested",
            "a watcher in a watched test: both clean up",
            "hook; (cd $T; mkdir in; T=$T/in; printf '#!/bin/bash\necho in-cleanup >>%s/../log' $T >$T/cleanup.sh
             chmod +x $T/cleanup.sh; export T; \"$WATCHER\" bash -c 'echo $T/cleanup.sh >$TESTWATCHER_CLPATH')
             echo test >>$T/log",
        )
        .cleanup(CLEANUP)
        .sees(Ran, "in-cleanup test cleanup"),
    ]
}

fn clpath() -> Vec<Scenario> {
    let hooked = |id, what, test| watcher(id, what, test).cleanup(CLEANUP);
    vec![
        hooked("clpath-kind", "what TESTWATCHER_CLPATH is before the test writes to it", "stat -c '%a %s %F' $TESTWATCHER_CLPATH >>$T/log")
            .sees(Ran, "600 0 regular empty file"),
        hooked("clpath-place", "where it is", "echo ${TESTWATCHER_CLPATH%-*} >>$T/log")
            .sees(Ran, "/var/tmp/testwatcher"),
        hooked("clpath-in-place", "the path is written in place", "echo $T/cleanup.sh >$TESTWATCHER_CLPATH")
            .sees(Ran, "cleanup"),
        hooked("clpath-by-rename", "the path is put there by rename",
            "echo $T/cleanup.sh >$TESTWATCHER_CLPATH.new; mv $TESTWATCHER_CLPATH.new $TESTWATCHER_CLPATH")
            .sees(Ran, "cleanup").sees(Left, "nothing"),
        hooked("clpath-no-newline", "the path without a newline", "printf %s $T/cleanup.sh >$TESTWATCHER_CLPATH")
            .sees(Ran, "cleanup"),
        hooked("clpath-first-line", "white space around the path, and a second line",
            "printf '  %s \\t\\n/second\\n' $T/cleanup.sh >$TESTWATCHER_CLPATH")
            .sees(Ran, "cleanup"),
        hooked("clpath-relative", "a relative path, and the test has gone elsewhere", "echo ./cleanup.sh >$TESTWATCHER_CLPATH; cd /")
            .sees(Ran, "cleanup"),
        hooked("clpath-no-slash", "a path without a slash", "echo cleanup.sh >$TESTWATCHER_CLPATH")
            .sees(Ran, "cleanup"),
        watcher("clpath-other-program", "a path without a slash, and a program of that name in PATH",
            "mkdir $T/bin; printf '#!/bin/bash\necho stranger >>$T/log' >$T/bin/cleanup.sh; chmod +x $T/bin/cleanup.sh; echo cleanup.sh >$TESTWATCHER_CLPATH")
            .cleanup(CLEANUP)
            .start(Shell("PATH=$T/bin:$PATH exec \"$WATCHER\" ./test.sh"))
            .sees(Ran, "cleanup"),
        hooked("clpath-not-executable", "the cleanup may not be executed", "chmod -x $T/cleanup.sh; hook")
            .sees(Status, "0").sees(Ran, "nothing").sees(Left, "nothing"),
        hooked("clpath-missing", "the cleanup does not exist", "echo $T/nothing >$TESTWATCHER_CLPATH")
            .sees(Status, "0").sees(Left, "nothing"),
        hooked("clpath-directory", "the path is that of a directory", "echo $T >$TESTWATCHER_CLPATH")
            .sees(Status, "0").sees(Left, "nothing"),
        hooked("clpath-fifo-script", "the path is that of a FIFO", "mkfifo -m 700 $T/fifo; echo $T/fifo >$TESTWATCHER_CLPATH")
            .sees(Status, "0").sees(Left, "nothing"),
        hooked("clpath-removed", "the test removes the file", "rm $TESTWATCHER_CLPATH")
            .sees(Status, "0").sees(Left, "nothing"),
        hooked("clpath-fifo", "the test puts a FIFO in its place", "rm $TESTWATCHER_CLPATH; mkfifo $TESTWATCHER_CLPATH")
            .original_hangs()
            .sees(Status, "0").sees(Left, "nothing"),
        hooked("clpath-symlink", "the path is that of a symbolic link", "ln -s cleanup.sh $T/link; echo $T/link >$TESTWATCHER_CLPATH")
            .sees(Ran, "cleanup"),
        watcher("no-shebang", "a cleanup without a first line '#!'", "hook")
            .cleanup("echo cleanup >>\"$T/log\"\n")
            .sees(Ran, "cleanup"),
        hooked("removes-itself", "the cleanup is removed by the test after it was hooked", "hook; rm $T/cleanup.sh")
            .sees(Status, "0").sees(Ran, "nothing"),
    ]
}

fn surroundings() -> Vec<Scenario> {
    let logged = |id, what, test| watcher(id, what, test);
    vec![
        watcher("arguments", "arguments arrive byte for byte", "")
            .start(Shell("exec \"$WATCHER\" bash -c 'printf \"<%q>\" \"$@\" >>$T/log' - 'two words' '' -x -- $'a\\nb' $'\\xff' '$(id)'"))
            .sees(Ran, "<two\\ words><''><-x><--><$'a\\nb'><$'\\377'><\\$\\(id\\)>"),
        watcher("stdin", "standard input from a pipe", "cat >>$T/log").stdin("from a pipe").sees(Ran, "from a pipe"),
        watcher("stdout-20-mb", "20 MB on standard output", "head -c 20000000 /dev/zero | tr '\\0' '~'")
            .sees(Tildes, "20000000"),
        watcher("stdout", "standard output is the test's", "echo hello").sees(Prints, "hello"),
        watcher("messages", "where the watcher's messages go", "hook").cleanup(CLEANUP).sees(Messages, "on stderr"),
        watcher("group-leader", "the test leads a process group of its own",
            "read -r _ _ _ _ group _ </proc/$$/stat; [ $group = $$ ] && echo leader >>$T/log").sees(Ran, "leader"),
        watcher("cleanup-group", "the cleanup leads a process group of its own", "hook")
            .cleanup("#!/bin/bash\nread -r _ _ _ _ group _ </proc/$$/stat; [ $group = $$ ] && echo leader >>$T/log")
            .sees(Ran, "leader"),
        watcher("cleanup-directory", "the working directory of the cleanup, when the test has gone elsewhere", "hook; cd /")
            .cleanup("#!/bin/bash\npwd >>$T/log").sees(Ran, "$T"),
        logged("descriptors", "what is open in the test", "ls /proc/self/fd >>$T/log")
            .start(Shell("for f in /proc/$$/fd/*; do ((${f##*/} < 3)) || eval \"exec ${f##*/}>&-\"; done; exec \"$WATCHER\" ./test.sh"))
.sees(Ran, "0 1 2 3"),
        logged("signal-mask", "which signals the test has blocked", "while read -r k v; do [ $k = SigBlk: ] && echo $v; done </proc/$$/status >>$T/log")
            .sees(Ran, "0000000000000000"),
        logged("sigpipe", "whether the test ignores SIGPIPE", "m=$(sed -n 's/^SigIgn:.//p' /proc/$$/status); echo $(((0x$m >> 12) & 1)) >>$T/log")
            .sees(Ran, "0"),
        logged("environment", "what the watcher adds to the test's environment", "echo ${!TESTWATCHER_*} >>$T/log")
            .own_status().sees(Ran, "TESTWATCHER_CLPATH"),
        watcher("cleanup-environment", "what it adds to the cleanup's environment", "hook")
            .own_status()
            .cleanup("#!/bin/bash\necho ${!TESTWATCHER_*} >>$T/log")
            .sees(Ran, "TESTWATCHER_CLPATH TESTWATCHER_OUTCOME"),
        watcher("outcome", "whether the cleanup can tell that the test was interrupted", HUNG)
            .cleanup("#!/bin/bash\necho ${TESTWATCHER_OUTCOME-unknown} >>$T/log")
            .then(&[Await("ready"), Send(SIGINT)])
            .sees(Ran, "test interrupted"),
        watcher("dead-stdout", "nobody reads standard output", "hook; echo test >>$T/log")
            .cleanup(CLEANUP).output(Dead).sees(Ran, "test cleanup").sees(Left, "nothing"),
        watcher("dead-stdout-cleanup", "nobody reads standard output, and the cleanup writes to it", "hook; echo test >>$T/log")
            .cleanup("#!/bin/bash\necho a line\necho another\necho cleanup >>$T/log").output(Dead).sees(Ran, "test cleanup"),
        watcher("full-disk-stdout", "standard output goes to a full disk", "hook; echo test >>$T/log")
            .cleanup(CLEANUP).output(Full).sees(Ran, "test cleanup").sees(Left, "nothing"),
        watcher("terminal-read", "the test reads from its terminal", "read -r line; echo $line >>$T/log")
            .start(Shell("exec script -qec \"$WATCHER ./test.sh\" /dev/null"))
            .stdin("typed\n").original_hangs().sees(Ran, "typed"),
        watcher("terminal-stty", "the test sets its terminal", "stty -echo && echo set >>$T/log")
            .start(Shell("exec script -qec \"$WATCHER ./test.sh\" /dev/null"))
            .original_hangs().sees(Ran, "set"),
    ]
}
