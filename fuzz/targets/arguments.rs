//! Command lines, NUL between the words: the toolkit's, and a harness hook's.
#![no_main]

use clap::Parser;
use libfuzzer_sys::fuzz_target;
use rl_cleanup::cli::args::{Cli, Command};
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;

fuzz_target!(|bytes: &[u8]| {
    let given: Vec<OsString> = bytes.split(|&b| b == 0).map(|w| OsStr::from_bytes(w).to_owned()).collect();
    let with = |first: &[&str]| {
        let words = first.iter().map(OsString::from).chain(given.iter().cloned());
        Cli::try_parse_from(words)
    };
    if let Err(answer) = with(&["rl-cleanup"]) {
        assert!(matches!(answer.exit_code(), 0 | 2));
        assert!(!answer.to_string().is_empty());
    }
    // Behind -- every word is the test's own, whatever it looks like.
    match with(&["rl-cleanup", "watch", "--"]).map(|c| c.command) {
        Ok(Command::Watch(args)) => assert_eq!(args.command, given),
        other => panic!("{other:?}"),
    }
    // An entry's text is taken as it stands.
    if let [text] = &given[..] {
        match with(&["rl-cleanup", "append", "--"]).map(|c| c.command) {
            Ok(Command::Append(args)) => assert_eq!(args.text, [text.clone()]),
            other => panic!("{other:?}"),
        }
    }
    // A harness says whatever it likes to its hook.
    match with(&["rl-cleanup", "harness-hook", "--"]).map(|c| c.command) {
        Ok(Command::HarnessHook { words }) => assert_eq!(words, given),
        other => panic!("{other:?}"),
    }
});
