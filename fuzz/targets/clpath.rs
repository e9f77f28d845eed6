//! The file that TESTWATCHER_CLPATH names: one path with a slash in it, or nothing.
#![no_main]

use libfuzzer_sys::fuzz_target;
use rl_cleanup::hook::Hooked;
use std::os::unix::ffi::OsStrExt;

fuzz_target!(|bytes: &[u8]| {
    let first = bytes.split(|&b| b == b'\n').next().unwrap_or_default();
    match Hooked::parse(bytes) {
        Some(Hooked::Script(path)) => {
            let path = path.as_os_str().as_bytes();
            assert!(path.contains(&b'/') && !path.contains(&b'\n'));
            assert_eq!(path.strip_prefix(b"./").unwrap_or(path), {
                let line = first.trim_ascii();
                line.strip_prefix(b"./").unwrap_or(line)
            });
            let again = Hooked::parse(&[path, b"\n"].concat());
            assert_eq!(again, Hooked::parse(bytes), "what was read can be written");
        }
        Some(Hooked::Nothing) => assert!(first.trim_ascii().is_empty()),
        None => assert!(first.len() == bytes.len() && bytes.len() > 4096),
    }
});
