//! `rl-cleanup completions`, in the shells themselves: subcommands, options, the ids of the entries
//! there are, and the words of a command that is run. Nothing that is hidden is offered.
#![allow(clippy::unwrap_used, reason = "a test that panics has failed")]

mod common;

use common::State;
use std::path::PathBuf;
use std::process::Command;

/// Two entries, the script, and what the shells need to find.
struct Stage {
    state: State,
    script: PathBuf,
    /// In the order in which they run.
    ids: [String; 2],
}

impl Stage {
    fn new(shell: &str) -> Self {
        let state = State::new();
        let last = state.append("umount /mnt:x");
        let first = state.prepend("rm -rf 'a b'");
        let made = state.cli(["completions", shell]).ok().out;
        let dir = state.path("functions");
        std::fs::create_dir(&dir).unwrap();
        // The name under which zsh autoloads it.
        let script = dir.join("_rl-cleanup");
        std::fs::write(&script, made).unwrap();
        Self { state, script, ids: [first, last] }
    }

    fn command(&self, shell: &str) -> Command {
        let mut command = self.state.command(shell);
        let programs = PathBuf::from(common::BINARY).parent().unwrap().to_owned();
        let path = std::env::join_paths([programs, "/usr/bin".into(), "/bin".into()]).unwrap();
        command.env("PATH", path).env("SCRIPT", &self.script).env("HOME", self.state.root.path());
        command.env("TERM", "dumb");
        command
    }
}

fn installed(shell: &str) -> bool {
    Command::new(shell).args(["-c", "exit 0"]).status().is_ok_and(|s| s.success())
}

/// Calls the function as bash does when TAB is pressed behind the last word.
const PRESS_TAB: &str = r#"
    [ -z "$MORE" ] || . "$MORE"
    . "$SCRIPT"
    tab() {
      COMP_WORDS=("$@") COMP_CWORD=$(($# - 1)) COMP_LINE=$* COMP_POINT=0 COMPREPLY=()
      COMP_POINT=${#COMP_LINE}
      local how
      how=$(complete -p "$1")
      how=${how#*-F }
      # compopt can be called by bash's line editor only.
      "${how%% *}" "$1" "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD - 1]}" 2>/dev/null
      printf '%s\n' "${COMPREPLY[@]}" | sort -u | paste -sd ' '
    }
    "#;

fn in_bash(more: &str) {
    let stage = Stage::new("bash");
    let [first, last] = &stage.ids;
    let mut both = [first.as_str(), last];
    both.sort_unstable();
    let both = both.join(" ");
    let dir = stage.state.dir.to_str().unwrap();
    let table = [
        ("rl-cleanup rem", "remove"),
        ("rl-cleanup h", ""),
        ("rl-cleanup remove ''", both.as_str()),
        ("rl-cleanup run ''", &both),
        (&format!("rl-cleanup remove {first} ''"), last),
        (&format!("rl-cleanup remove {}", &last[..5]), last),
        ("rl-cleanup --dir /nowhere remove ''", ""),
        ("rl-cleanup --dir = /nowhere remove ''", ""),
        (&format!("rl-cleanup --dir {dir} remove ''"), &both),
        ("rl-cleanup remove --d", "--dir"),
        ("rl-cleanup remove --s", ""),
        ("rl-cleanup run --t", "--to-mark"),
        ("rl-cleanup watch --ki", "--kill"),
        ("rl-cleanup watch --kill t", "tree"),
        ("rl-cleanup watch --kill = t", "tree"),
        ("rl-cleanup watch trunca", "truncate"),
        ("rl-cleanup watch --kill tree trunca", "truncate"),
        ("rl-cleanup watch --kill = tree trunca", "truncate"),
        ("rl-cleanup watch --strict -- trunca", "truncate"),
        ("rl-cleanup watch cat /etc/passw", "/etc/passwd"),
        ("rl-cleanup watch -- cat /etc/passw", "/etc/passwd"),
        ("rl-cleanup prepend --argv -- trunca", "truncate"),
        ("rl-cleanup completions f", "fish"),
        ("beakerlib-testwatcher trunca", "truncate"),
        ("beakerlib-testwatcher cat /etc/passw", "/etc/passwd"),
    ];
    for (line, offered) in table {
        let script = format!("{PRESS_TAB} tab {line}");
        let mut bash = stage.command("/bin/bash");
        let ended = stage.state.run(bash.args(["--norc", "-c", &script]).env("MORE", more));
        // /etc/passwd- is there on some machines.
        let out = ended.out.replace(" /etc/passwd-", "");
        assert_eq!(out.trim_end(), offered, "TAB after {line:?}: {ended:#?}");
    }
}

#[test]
fn bash_completes_alone() {
    in_bash("");
}

#[test]
fn bash_completes_with_bash_completion() {
    let more = "/usr/share/bash-completion/bash_completion";
    if !std::path::Path::new(more).exists() {
        skip!("bash-completion is not installed");
    }
    in_bash(more);
}

#[test]
fn fish_completes() {
    if !installed("fish") {
        skip!("fish is not installed");
    }
    let stage = Stage::new("fish");
    let [first, last] = &stage.ids;
    let both = format!("{first}\t  rm -rf 'a b'\n{last}\t  umount /mnt:x\n");
    let table = [
        ("rl-cleanup rem", "remove\tTake entries back\n"),
        // fish offers what has these letters somewhere, too.
        ("rl-cleanup harness-h", ""),
        ("rl-cleanup remove ", both.as_str()),
        ("rl-cleanup run ", &both),
        ("rl-cleanup --dir /nowhere remove ", ""),
        ("rl-cleanup --dir=/nowhere remove ", ""),
        ("rl-cleanup remove --s", ""),
        ("rl-cleanup watch --kill t", "tree\tThe group, and every descendant that left it\n"),
        ("rl-cleanup watch --kill tree trunca", "truncate"),
        ("rl-cleanup watch -- trunca", "truncate"),
        ("rl-cleanup watch -- cat /etc/passw", "/etc/passwd"),
        ("beakerlib-testwatcher trunca", "truncate"),
    ];
    for (line, offered) in table {
        let mut fish = stage.command("fish");
        fish.args(["--no-config", "-c", "source $SCRIPT; complete -C $argv[1]", line]);
        let ended = stage.state.run(&mut fish);
        // What fish says of a program or a file is fish's.
        let whole = offered.is_empty() || offered.contains('\t');
        let right = if whole { ended.out == offered } else { ended.out.starts_with(offered) };
        assert!(right, "TAB after {line:?}: {offered:?} is not {ended:#?}");
    }
}

/// Types a line and TAB at a real zsh, and waits until the pattern is on its screen.
const TYPE_AT_ZSH: &str = r#"
    zmodload zsh/zpty
    zpty z zsh -f -i
    zpty -w z "PS1= PS2=; fpath=(${SCRIPT:h} \$fpath); autoload -Uz compinit; compinit -u -D"
    zpty -w z "zstyle ':completion:*' force-list always; LISTMAX=10000; stty -echo rows 100 columns 200"
    zpty -w z 'print RE""ADY'
    zpty -r -m z seen '*READY*'
    zpty -w -n z "$1"$'\t'
    zpty -r -m z seen "$~2" && print -r -- "$seen"
    zpty -d z
    "#;

#[test]
fn zsh_completes() {
    if !installed("zsh") {
        skip!("zsh is not installed");
    }
    let stage = Stage::new("zsh");
    let [first, last] = &stage.ids;
    let both = format!("*{first}*-- *rm -rf 'a b'*{last}*-- *umount /mnt:x*");
    let dir = stage.state.dir.to_str().unwrap();
    let table = [
        ("rl-cleanup remo", "*remove *"),
        ("rl-cleanup remove ", &both),
        ("rl-cleanup run ", &both),
        (&format!("BEAKERLIB_DIR= rl-cleanup --dir {dir} remove "), &both),
        ("rl-cleanup watch --kill=", "*group*-- The test's process group*tree*"),
        ("rl-cleanup watch --kill tree trunca", "*truncate*"),
        ("rl-cleanup watch -- trunca", "*truncate*"),
        ("rl-cleanup watch -- cat /etc/hostn", "*/etc/hostname*"),
        ("beakerlib-testwatcher trunca", "*truncate*"),
    ];
    for (line, pattern) in table {
        let mut zsh = stage.command("timeout");
        let ended = stage.state.run(zsh.args(["60", "zsh", "-f", "-c", TYPE_AT_ZSH, "zsh", line, pattern]));
        assert_eq!(ended.status, Some(0), "TAB after {line:?} never shows {pattern:?}: {ended:#?}");
        assert!(!ended.out.is_empty(), "{line:?}: {ended:#?}");
    }
}

#[test]
fn what_is_hidden_is_not_offered() {
    let state = State::new();
    for shell in ["bash", "zsh", "fish"] {
        let script = state.cli(["completions", shell]).ok().out;
        for hidden in ["harness-hook", "fingerprint", "clpath", "sudo-uid", "--shell", "-l shell"] {
            assert!(!script.contains(hidden), "{hidden} is offered in {shell}");
        }
        assert!(!script.contains("--options-with-a-value"), "{shell}");
    }
}
