//! Behaviours of the functions for cleanups: order, entries, and what an entry sees of the test.

use super::scenario::Fact::{Left, Noise, Ran, Status};
use super::scenario::Start::Unwatched;
use super::scenario::Step::{Await, Repeat, Send};
use super::scenario::{Scenario, stack, whole};
use nix::sys::signal::Signal::{SIGHUP, SIGINT, SIGKILL};

pub fn all() -> Vec<Scenario> {
    [order(), entries(), snapshot(), lifetimes(), places()].concat()
}

fn order() -> Vec<Scenario> {
    vec![
        stack("append", "appended entries run in the order of their appending",
            "rlCleanupAppend 'echo one >>$T/log'; rlCleanupAppend 'echo two >>$T/log'").sees(Ran, "one two").sees(Status, "0").sees(Left, "nothing"),
        stack("prepend", "prepended entries run in the reverse order",
            "rlCleanupPrepend 'echo one >>$T/log'; rlCleanupPrepend 'echo two >>$T/log'").sees(Ran, "two one"),
        stack("mixed", "appended and prepended entries",
            "rlCleanupAppend 'echo one >>$T/log'; rlCleanupPrepend 'echo two >>$T/log'; rlCleanupAppend 'echo three >>$T/log'").sees(Ran, "two one three"),
        stack("buffer-text", "the buffer reads as a script of the entries, comments apart",
            "rlCleanupAppend 'true one'; rlCleanupPrepend 'true two'; grep -v '^#' \"$__INTERNAL_CLEANUP_BUFF\" >>$T/log")
            .sees(Ran, "true two true one"),
        stack("names", "the names rlAppendCleanup and rlPrependCleanup of the documentation for testers",
            "rlAppendCleanup 'echo one >>$T/log'; echo $? >>$T/log; rlPrependCleanup 'echo two >>$T/log'; echo $? >>$T/log").sees(Ran, "0 0 two one"),
        stack("status-of-append", "the status of an append", "rlCleanupAppend true; echo $? >>$T/log").sees(Ran, "0"),
        stack("prints-nothing", "an append and a prepend print nothing",
            "{ rlCleanupAppend true; rlCleanupPrepend true; } >$T/printed 2>&1; wc -c <$T/printed >>$T/log").sees(Ran, "0"),
        stack("concurrent", "eight appends at once, twice, and one after them",
            "for n in 1 2; do for i in 1 2 3 4 5 6 7 8; do rlCleanupAppend 'echo x >>$T/ran' & done; wait; done
             rlCleanupAppend 'grep -c x $T/ran >>$T/log'").sees(Ran, "16"),
        stack("concurrent-last", "eight appends at once, and none after them",
            "for i in 1 2 3 4 5 6 7 8; do rlCleanupAppend 'echo x >>$T/log' & done; wait").sees(Ran, "x x x x x x x x"),
    ]
}

fn entries() -> Vec<Scenario> {
    let after = |id, what, entry: &str| {
        stack(
            id,
            what,
            &format!("rlCleanupAppend {entry}; echo $? >>$T/log; rlCleanupAppend 'echo next >>$T/log'"),
        )
    };
    vec![
        after("entry-fails", "an entry that fails costs the next nothing", "'false'").sees(Ran, "0 next"),
        after("entry-syntax", "text that bash cannot parse", "'if ('").sees(Ran, "1 next"),
        after("entry-syntax-quote", "text with an open quote", "\"echo 'open\"").sees(Ran, "1 next"),
        after("entry-exit", "an entry with 'exit'", "'exit 3'").sees(Ran, "0 next"),
        after("entry-return", "an entry with 'return'", "'return 3'").sees(Ran, "0 next"),
        after("entry-set-e", "an entry with 'set -e' that fails", "'set -e; false'").sees(Ran, "0 next"),
        after("entry-exec", "an entry with 'exec COMMAND'", "'exec true'").sees(Ran, "0"),
        after("entry-unset", "an entry with ${x:?}", "': ${nothing:?}'").sees(Ran, "0 next"),
        after("entry-kills-itself", "an entry that sends SIGTERM to its own shell", "'kill $$; sleep 0'").sees(Ran, "0 next"),
        after("entry-empty", "an empty text", "''").sees(Ran, "1 next"),
        stack("entry-option", "functions named -e and -n are cleanups of their own",
            "function -e { echo e >>$T/log; }; function -n { echo n >>$T/log; }\nrlCleanupAppend -e; rlCleanupAppend -n; echo $? >>$T/log").sees(Ran, "0 e n"),
        stack("two-arguments", "two arguments", "rlCleanupAppend 'echo one >>$T/log' more; echo $? >>$T/log").sees(Ran, "1"),
        stack("no-argument", "no argument", "rlCleanupAppend; echo $? >>$T/log; rlCleanupPrepend; echo $? >>$T/log").sees(Ran, "1 1"),
        stack("entry-lines", "an entry of several lines", "rlCleanupAppend 'for i in 1 2\ndo\n  echo $i >>$T/log\ndone'").sees(Ran, "1 2"),
        stack("entry-heredoc", "an entry with a here-document", "rlCleanupAppend 'cat >>$T/log <<EOF\n$T is it\nEOF'").sees(Ran, "$T is it"),
        stack("entry-comment", "an entry that ends in a comment", "rlCleanupAppend 'echo one >>$T/log # why'; rlCleanupAppend 'echo two >>$T/log'").sees(Ran, "one two"),
        stack("entry-1-mb", "an entry of 1 MB", "big=$(head -c 1000000 /dev/zero | tr '\\0' x); rlCleanupAppend \"v=$big; echo \\${#v} >>\\$T/log\"").sees(Ran, "1000000"),
        stack("entry-quotes", "quotes, dollars and backslashes", "rlCleanupAppend 'echo \"a\\\\b \\$x\" '\"'c d'\"' >>$T/log'").sees(Ran, "a\\b $x c d"),
        stack("entry-xpg-echo", "a backslash in a test with 'shopt -s xpg_echo'", "shopt -s xpg_echo; rlCleanupAppend 'printf %s \"a\\tb\" >>$T/log'").sees(Ran, "a\\tb"),
        stack("entries-share", "an entry sets what the next one reads", "rlCleanupAppend 'v=set; f() { echo $v >>$T/log; }'; rlCleanupAppend f").sees(Ran, "set"),
        stack("entry-trap", "an EXIT trap of an entry runs at the end", "rlCleanupAppend 'trap \"echo trap >>$T/log\" EXIT'; rlCleanupAppend 'echo next >>$T/log'").sees(Ran, "next trap"),
        stack("append-in-cleanup", "an entry appends an entry", "rlCleanupAppend 'rlCleanupAppend \"echo late >>$T/log\"; echo $? >>$T/log'").sees(Ran, "0 late"),
        stack("prepend-in-cleanup", "an entry prepends an entry", "rlCleanupAppend 'rlCleanupPrepend \"echo late >>$T/log\"; echo $? >>$T/log'; rlCleanupAppend 'echo next >>$T/log'").sees(Ran, "0 late next"),
        whole("before-journal", "an append before rlJournalStart", "rlCleanupAppend true; echo $? >>$T/log").needs_beakerlib().sees(Ran, "1"),
    ]
}

fn snapshot() -> Vec<Scenario> {
    let sees =
        |id, what, body: &str, entry: &str| stack(id, what, &format!("{body}\nrlCleanupAppend {entry}"));
    vec![
        sees("var-string", "a string with a newline, quotes and bytes that are no text", "v=$'a\\'\"b\\n\\xff'", "'printf %q \"$v\" >>$T/log'")
            .sees(Ran, "$'a\\'\"b\\n\\377'"),
        sees("var-array", "an array with holes", "a=([2]=two [7]='')", "'echo ${!a[*]} ${a[2]} >>$T/log'").sees(Ran, "2 7 two"),
        sees("var-assoc", "an associative array with odd keys", "k=$'x\\ny\\xff'; declare -A m=(['a b']=1 [$k]=2 [\"q'\"]=3)",
            "'echo ${#m[@]} ${m[a b]} ${m[$k]} >>$T/log'").sees(Ran, "3 1 2"),
        sees("var-attributes", "integer, readonly, exported, lower case", "declare -i i=5; declare -r r=6; declare -x x=7; declare -l l=LOW", "'i+=1; echo $i $r $(printenv x) $l ${r@a} >>$T/log'").sees(Ran, "6 6 7 low r"),
        stack("var-local", "a local variable of the function that appends is global in the cleanup", "f() { local v=local; rlCleanupAppend 'echo $v >>$T/log'; }; f").sees(Ran, "local"),
        sees("var-latest", "an entry sees the values of the last snapshot", "v=one; rlCleanupAppend 'echo $v >>$T/log'; v=two", "true").sees(Ran, "two"),
        sees("var-declared", "an associative array that is declared and has no value yet", "declare -A m", "'m[a b]=1; m[c]=2; echo ${#m[@]} >>$T/log'").sees(Ran, "2"),
        sees("var-declared-integer", "an integer that is declared and has no value yet", "declare -i n", "'n=2+3; echo $n >>$T/log'").sees(Ran, "5"),
        sees("var-unset", "an inherited variable that the test has unset", "unset HOME", "'echo ${HOME-none} >>$T/log'").sees(Ran, "none"),
        sees("var-unexported", "an inherited variable that the test no longer exports", "export -n TERM", "'printenv TERM >>$T/log; echo $? >>$T/log'").sees(Ran, "1"),
        sees("var-hidden", "a variable of the test's with the name of one of BeakerLib's locals", "tmpbuff=mine; __varname=mine", "true; rlCleanupPrepend 'echo $tmpbuff >>$T/log'").sees(Ran, "mine"),
        sees("var-seconds", "a value that looks like an option", "v=-n", "'printf \"%s\\n\" \"$v\" >>$T/log'").sees(Ran, "-n"),
        sees("ifs", "IFS", "IFS=:", "'v=a:b; printf \"<%s>\" $v >>$T/log'").sees(Ran, "<a><b>"),
        sees("shopt", "options of shopt", "shopt -s nullglob", "'echo $T/none* x >>$T/log'").sees(Ran, "x"),
        sees("set-f", "set -f", "set -f", "'echo $T/head* >>$T/log'").sees(Ran, "$T/head*"),
        sees("set-e", "a test under set -e", "set -e", "'false; echo next >>$T/log'").sees(Ran, "next"),
        sees("pipefail", "a test under pipefail", "set -o pipefail", "'false | true; echo $? >>$T/log'").sees(Ran, "1"),
        sees("alias", "an alias that the test has made and expands", "shopt -s expand_aliases; alias say='echo said'", "'say >>$T/log'").sees(Ran, "said"),
        sees("umask", "umask", "umask 027", "'umask >>$T/log'").sees(Ran, "0027"),
        sees("directory", "the working directory of the cleanup, when the test has gone elsewhere", "cd /", "'pwd >>$T/log'").sees(Ran, "$T"),
        sees("function", "a function with a case, a loop and a here-document",
            "f() {\n case $1 in (a|b) cat <<EOF\ngot $1\nEOF\n ;; *) return 1 ;; esac; }", "'f b >>$T/log'").sees(Ran, "got b"),
        sees("function-names", "functions named my-f, a.b and +x", "my-f() { echo one >>$T/log; }; a.b() { echo two >>$T/log; }; function +x { echo three >>$T/log; }", "'my-f; a.b; +x'").sees(Ran, "one two three"),
        sees("function-exported", "an exported function", "f() { echo f; }; export -f f", "'bash -c f >>$T/log'").sees(Ran, "f"),
        sees("function-extglob", "a function with an extended pattern", "shopt -s extglob\neval 'f() { case $1 in +(a)) echo many >>$T/log ;; esac; }'", "'f aaa'").sees(Ran, "many"),
        sees("function-cat", "a function of the test's called cat", "cat() { builtin echo mine; }", "'builtin echo ran >>$T/log'").sees(Ran, "ran"),
        sees("function-mv", "a function of the test's called mv", "mv() { :; }", "'builtin echo ran >>$T/log'").sees(Ran, "ran"),
        sees("function-chmod", "a function of the test's called chmod", "chmod() { :; }", "'builtin echo ran >>$T/log'").sees(Ran, "ran"),
        sees("noise", "complaints of the final script's shell", "true", "'echo ran >>$T/log'").sees(Ran, "ran").sees(Noise, "0"),
        sees("script-mode", "who may read the final script, which holds every variable", "true", "'true'; stat -c %a $BEAKERLIB_DIR/cleanup.sh >>$T/log").sees(Ran, "700"),
        sees("buffer-mode", "who may read the buffer", "true", "'true'; stat -c %a $BEAKERLIB_DIR/clbuff >>$T/log").sees(Ran, "600"),
    ]
}

fn lifetimes() -> Vec<Scenario> {
    let unwatched = |scenario: Scenario| scenario.start(Unwatched);
    vec![
        unwatched(stack("unwatched", "without a watcher rlJournalEnd runs the cleanup", "rlCleanupAppend 'echo ran >>$T/log'"))
            .sees(Status, "0").sees(Ran, "ran").sees(Left, "nothing"),
        unwatched(whole("unwatched-status", "what rlJournalEnd returns, when the last entry fails",
            "rlJournalStart; rlCleanupAppend 'false'; rlJournalEnd; echo $? >>$T/log")).needs_beakerlib().sees(Ran, "0"),
        unwatched(whole("unwatched-crash", "without a watcher, a test that ends without rlJournalEnd",
            "rlJournalStart; rlCleanupAppend 'echo ran >>$T/log'; exit 1")).sees(Ran, "ran").sees(Status, "1"),
        unwatched(whole("unwatched-twice", "rlJournalEnd twice", "rlJournalStart; rlCleanupAppend 'echo ran >>$T/log'; rlJournalEnd; rlJournalEnd"))
            .sees(Ran, "ran"),
        unwatched(stack("watcher-gone", "TESTWATCHER_CLPATH names the file of a watcher that has died", "rlCleanupAppend 'echo ran >>$T/log'"))
            .env("TESTWATCHER_CLPATH", "$T/gone").sees(Ran, "ran"),
        whole("hung-up", "SIGHUP: the stacked cleanup runs", "rlJournalStart; rlCleanupAppend 'echo ran >>$T/log'; ready; sleep 1000")
            .then(&[Await("ready"), Send(SIGHUP)]).sees(Ran, "ran").sees(Left, "nothing"),
        whole("test-crashes", "the test kills itself: the stacked cleanup runs", "rlJournalStart; rlCleanupAppend 'echo ran >>$T/log'; kill -KILL $$")
            .sees(Ran, "ran"),
        whole("second-start", "a finished cleanup, and a second start with the same state directory",
            "rlJournalStart; [ $RUN = 2 ] || rlCleanupAppend 'echo ran >>$T/log'; rlJournalEnd").runs(2).sees(Ran, "ran"),
        whole("resume", "the cleanup is killed in its second entry; the next start goes on",
            "rlJournalStart; if [ $RUN = 2 ]; then : >$T/second; else rlCleanupAppend 'echo one >>$T/log'
             rlCleanupAppend 'echo two$RUN >>$T/log; [ -e $T/second ] || { ready cleaning; sleep 1000; }'
             rlCleanupAppend 'echo three >>$T/log'; fi; rlJournalEnd")
            .then(&[Await("cleaning"), Repeat(SIGINT)]).runs(2).sees(Ran, "one two1 two1 three"),
        whole("clpath-of-today", "what TESTWATCHER_CLPATH is in a cleanup that an earlier watcher left",
            "rlJournalStart; [ $RUN = 2 ] || { rlCleanupAppend '[ $TESTWATCHER_CLPATH = $(<$T/clpath) ] && echo new >>$T/log || echo old >>$T/log'; : >$TESTWATCHER_CLPATH; }; rlJournalEnd")
            .runs(2).sees(Ran, "new"),
        whole("after-sigkill", "the test and the watcher die at once; the next start cleans up",
            "rlJournalStart; [ $RUN = 2 ] || { rlCleanupAppend 'echo ran >>$T/log'; : >$TESTWATCHER_CLPATH; }; rlJournalEnd").runs(2).sees(Ran, "ran"),
        whole("nested-test", "a test that is started by a watched test has its own cleanup",
            "rlJournalStart; rlCleanupAppend 'echo outer >>$T/log'
             printf '%s\\n' '. $T/head.sh' 'export BEAKERLIB_DIR=$T/inner' rlJournalStart \"rlCleanupAppend 'echo inner >>\\$T/log'\" rlJournalEnd >$T/inner.sh
             bash $T/inner.sh; rlJournalEnd").sees(Ran, "inner outer"),
        whole("watcher-sigkill", "SIGKILL to the watcher: the stacked cleanup runs",
            "rlJournalStart; rlCleanupAppend 'echo ran >>$T/log'; ready; sleep 1000")
            .then(&[Await("ready"), Send(SIGKILL)]).sees(Ran, "ran").sees(Left, "nothing"),
    ]
}

fn places() -> Vec<Scenario> {
    vec![
        stack("temp-name-script", "a directory lies where the original writes its new script",
            "mkdir $BEAKERLIB_DIR/cleanup.sh.tmp; rlCleanupAppend 'echo ran >>$T/log'; echo $? >>$T/log").sees(Ran, "0 ran"),
        stack("temp-name-buffer", "a directory lies where the original writes its new buffer",
            "mkdir $BEAKERLIB_DIR/clbuff.tmp; rlCleanupPrepend 'echo ran >>$T/log'; echo $? >>$T/log").sees(Ran, "0 ran"),
        whole("foreign-directory", "a state directory that belongs to another user",
            "mkdir $T/state; chown nobody $T/state; rlJournalStart; rlCleanupAppend 'echo ran >>$T/log'; echo $? >>$T/log; rlJournalEnd")
            .needs_root().sees(Ran, "1"),
        whole("writable-directory", "a state directory that anyone may write",
            "mkdir -m 777 $T/state; chmod 777 $T/state; rlJournalStart; rlCleanupAppend 'echo ran >>$T/log'; echo $? >>$T/log; rlJournalEnd")
            .sees(Ran, "1"),
        stack("buffer-gone", "the buffer is removed in mid-test", "rlCleanupAppend 'echo one >>$T/log'; rm $BEAKERLIB_DIR/clbuff; rlCleanupAppend 'echo two >>$T/log'; echo $? >>$T/log")
            .needs_beakerlib().sees(Ran, "1"),
    ]
}
