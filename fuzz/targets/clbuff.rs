//! The buffer's file: whatever it holds is read, what was read can be written, and then it stays as it is.
#![no_main]

use libfuzzer_sys::fuzz_target;
use rl_cleanup::cleanup::buffer::{Buffer, Id, Mark, Place, fingerprint};
use std::collections::BTreeSet;

fuzz_target!(|bytes: &[u8]| {
    let once = Buffer::parse(bytes);
    let rendered = once.render();
    let mut twice = Buffer::parse(&rendered);
    assert_eq!(twice, once);
    assert_eq!(twice.render(), rendered);
    let ids: BTreeSet<&Id> = once.entries().iter().map(|e| &e.id).collect();
    assert_eq!(ids.len(), once.entries().len(), "two entries of one name");
    for entry in once.entries() {
        assert!(once.has(&entry.id) && once.get(&entry.id) == Some(entry));
        assert_eq!(entry.id.as_str().parse::<Id>().as_ref(), Ok(&entry.id));
        assert!(!entry.first_line().contains(char::is_control));
    }
    // Nothing that carries text is lost: all text that is not a comment of ours is in some entry.
    if !bytes.windows(12).any(|w| w == b"#rl-cleanup:") && !bytes.trim_ascii().is_empty() {
        assert_eq!(once.entries()[0].text, bytes.strip_suffix(b"\n").unwrap_or(bytes));
    }
    // An entry that is added and taken away again leaves everything as it was.
    if let Some(mut entry) = once.entries().first().cloned() {
        let before = fingerprint(&once.entries().iter().collect::<Vec<_>>());
        entry.mark = Mark::Set;
        let id = twice.add(entry, if bytes.len() % 2 == 0 { Place::Front } else { Place::End });
        assert_eq!(Buffer::parse(&twice.render()), twice);
        assert!(twice.remove(&id).is_some() && !twice.has(&id));
        assert_eq!(twice, once);
        assert_eq!(fingerprint(&twice.entries().iter().collect::<Vec<_>>()), before);
    }
});
