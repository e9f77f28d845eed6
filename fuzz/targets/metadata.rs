//! tmt's metadata, in YAML, and its pid file.
#![no_main]

use libfuzzer_sys::fuzz_target;
use rl_cleanup::harness::{duration, tmt};

fuzz_target!(|bytes: &[u8]| {
    if let Some((pid, request)) = tmt::wrapper_and_request(bytes) {
        assert!(pid.as_raw() > 1);
        let again = format!("{pid} ").into_bytes();
        let again = [&again[..], request.as_os_str().as_encoded_bytes(), b"\n"].concat();
        assert_eq!(tmt::wrapper_and_request(&again), Some((pid, request)));
    }
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    for key in ["duration", "framework"] {
        if let Some(value) = tmt::top_level(text, key) {
            let _ = duration::parse(&value);
        }
    }
    // The first one counts, whatever comes behind it.
    let first = tmt::top_level(&format!("duration: '5m'\n{text}"), "duration");
    assert!(first.is_none_or(|value| value == "5m"));
});
