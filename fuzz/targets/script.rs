//! The final script's header: no file makes the parser stumble, and what it reads it would write again.
#![no_main]

use libfuzzer_sys::fuzz_target;
use rl_cleanup::cleanup::buffer::Buffer;
use rl_cleanup::cleanup::script::{self, Places, Purpose};
use rl_cleanup::cleanup::snapshot::{Journal, Origin, Snapshot};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

fuzz_target!(|bytes: &[u8]| {
    let odd = OsStr::from_bytes(bytes);
    let places = Places { dir: odd.into(), script: odd.into(), binary: odd.into() };
    if let Some(parsed) = script::parse(bytes) {
        let again = script::render(&Buffer::default(), &parsed.snapshot, &parsed.purpose, &places);
        assert_eq!(script::parse(&again), Some(parsed));
    }
    // Any snapshot, entries and paths: what was put in comes out.
    let mut parts = bytes.splitn(3, |&b| b == 0);
    let snapshot = Snapshot {
        origin: if bytes.len() % 2 == 0 { Origin::Shell } else { Origin::Environment },
        interpreter: "/bin/bash".into(),
        journal: if bytes.len() % 3 == 0 { Journal::Kept } else { Journal::Absent },
        settings: parts.next().unwrap_or_default().to_vec(),
        options: parts.next().unwrap_or_default().to_vec(),
    };
    let buffer = Buffer::parse(parts.next().unwrap_or_default());
    let ids = buffer.entries().iter().map(|e| e.id.clone()).collect();
    for purpose in [Purpose::Final, Purpose::Now(ids)] {
        assert_eq!(purpose.select(&buffer).len(), buffer.entries().len());
        let text = script::render(&buffer, &snapshot, &purpose, &places);
        let parsed = script::parse(&text).expect("our own script");
        assert_eq!((parsed.snapshot, parsed.purpose), (snapshot.clone(), purpose));
    }
});
