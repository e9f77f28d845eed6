//! The rows of a running final script, and what a watcher tells its guard.
#![no_main]

use libfuzzer_sys::fuzz_target;
use rl_cleanup::hook::Row;
use rl_cleanup::watch::Word;

fuzz_target!(|bytes: &[u8]| {
    for line in String::from_utf8_lossy(bytes).lines() {
        if let Some(row) = Row::parse(line) {
            let rendered = row.render();
            assert!(rendered.ends_with('\n') && rendered.lines().count() == 1, "{rendered:?}");
            let again = Row::parse(rendered.trim_end_matches('\n')).expect("our own row");
            // A long text is cut once.
            assert_eq!(again.render(), rendered);
        }
        if let Some(word) = Word::parse(line) {
            assert_eq!(Word::parse(word.render().trim_end()), Some(word));
        }
    }
});
