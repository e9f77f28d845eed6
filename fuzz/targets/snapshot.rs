//! What a shell sends: no stream makes the parser stumble, and the script made of one that is whole gives
//! the same snapshot back.
#![no_main]

use libfuzzer_sys::fuzz_target;
use rl_cleanup::cleanup::buffer::Buffer;
use rl_cleanup::cleanup::script::{self, Places, Purpose};
use rl_cleanup::cleanup::snapshot::{Snapshot, Stream};
use rl_cleanup::cleanup::syntax::{self, Declaration, Value};

fn survives_the_script(snapshot: &Snapshot) {
    let places = Places { dir: "/d".into(), script: "/d/cleanup.sh".into(), binary: "/b".into() };
    let bytes = script::render(&Buffer::default(), snapshot, &Purpose::Final, &places);
    assert_eq!(&script::parse(&bytes).expect("our own script").snapshot, snapshot);
}

/// One whole stream, with these sections.
fn stream(sections: &[&[u8]]) -> Vec<u8> {
    let mut bytes = b"\0rl-cleanup-stream-2\0".to_vec();
    for n in 0..8 {
        bytes.extend_from_slice(sections.get(n).copied().unwrap_or_default());
        bytes.push(0);
    }
    bytes.extend_from_slice(b"end\0");
    bytes
}

fn pieces(bytes: &[u8]) {
    let commands = syntax::commands(bytes);
    let length: usize = commands.iter().map(|c| c.len()).sum();
    assert!(length <= bytes.len());
    for declaration in commands.iter().filter_map(|c| Declaration::parse(c)) {
        assert!(syntax::is_name(declaration.name));
        let _ = declaration.value.map(Value::parse);
    }
    let _ = syntax::is_plain(bytes);
    // Our own quotes are read back, unless they look like an array in quotes (bash 4.2).
    if bytes.first() != Some(&b'(') {
        assert_eq!(Value::parse(&syntax::quote(bytes)), Some(Value::Scalar(bytes.to_vec())));
    }
}

fuzz_target!(|bytes: &[u8]| {
    if let Some(parsed) = Stream::parse(bytes) {
        survives_the_script(&parsed.snapshot());
    }
    let _ = Stream::parse_syntax(bytes);
    pieces(bytes);
    // The same bytes as sections, so that the fuzzer need not find out what a stream is.
    let sections: Vec<&[u8]> = bytes.split(|&b| b == 0).collect();
    let whole = stream(&sections);
    // A section that is the stream's own first one hides what stands in front of it.
    if !sections.iter().take(8).any(|s| s.ends_with(b"rl-cleanup-stream-2")) {
        let parsed = Stream::parse(&whole).expect("a whole stream");
        assert_eq!(parsed.text, sections[0]);
        let snapshot = parsed.snapshot();
        survives_the_script(&snapshot);
        let (text, early) = Stream::parse_syntax(&whole).expect("its start");
        assert_eq!((text, &early.interpreter), (parsed.text, &snapshot.interpreter));
    }
    if let Some(last) = sections.last() {
        for place in 5..8 {
            let mut sections = [&b""[..]; 8];
            sections[place] = last;
            let whole = stream(&sections);
            survives_the_script(&Stream::parse(&whole).expect("a whole stream").snapshot());
        }
    }
});
