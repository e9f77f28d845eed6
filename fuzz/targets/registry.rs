//! A live watcher's file, and the name of a drop-in that is bound to a process.
#![no_main]

use libfuzzer_sys::fuzz_target;
use rl_cleanup::harness::dropin;
use rl_cleanup::registry::Watcher;

fuzz_target!(|bytes: &[u8]| {
    if let Some(watcher) = Watcher::parse(bytes) {
        assert!(watcher.pid.as_raw() > 0 && watcher.test.is_none_or(|t| t.as_raw() > 0));
        assert_eq!(Watcher::parse(&watcher.render()).as_ref(), Some(&watcher));
        // A name of any bytes that are text comes back.
        let named = Watcher { task: String::from_utf8_lossy(bytes).into_owned(), ..watcher };
        assert_eq!(Watcher::parse(&named.render()), Some(named));
    }
    if let Some((pid, start)) = std::str::from_utf8(bytes).ok().and_then(dropin::bound_to) {
        let again = format!("{}-{pid}-{start}", dropin::PACKAGED);
        assert_eq!(dropin::bound_to(&again), Some((pid, start)));
    }
});
