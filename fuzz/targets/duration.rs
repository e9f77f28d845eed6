//! Both grammars of durations: the options' and tmt's.
#![no_main]

use libfuzzer_sys::fuzz_target;
use rl_cleanup::harness::duration;
use rl_cleanup::watch::options::Duration;

fuzz_target!(|text: &str| {
    let ours = text.parse::<Duration>();
    let tmts = duration::parse(text);
    match &ours {
        Ok(given) => {
            let secs = given.as_secs();
            assert!(secs >= 1 && secs <= 100 * 366 * 86_400);
            // What it is in seconds, as both grammars write it.
            assert_eq!(secs.to_string().parse::<Duration>(), Ok(*given));
            assert_eq!(duration::parse(&format!("{secs}s")), Some(secs));
            // Where tmt reads the same text, it reads the same time.
            assert!(tmts.is_none_or(|t| t == secs), "{text:?}: {secs} here, {tmts:?} in tmt's");
        }
        Err(sentence) => assert!(sentence.contains("is no duration")),
    }
    if let Some(secs) = tmts {
        assert_eq!(duration::parse(&format!("{text} ")), Some(secs), "a blank behind it is nothing");
        // Times one is no change.
        assert_eq!(duration::parse(&format!("{text} *1")), Some(secs));
    }
});
