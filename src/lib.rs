//! `rl-cleanup`: a test watcher and a cleanup stack.
//!
//! The crate has two halves that never call each other. They meet in one file, the one that
//! `TESTWATCHER_CLPATH` names, exactly as the watcher and the test do at run time.
//!
//! | room | owns | may be entered from |
//! |---|---|---|
//! | [`error`] | every sentence a person reads on failure, and its exit status | everywhere |
//! | [`bounds`] | how much of anything is read, and reading a file that may be anybody's | everywhere |
//! | [`hook`] | the CLPATH file, its private directory, the report in it | `cleanup`, `watch`, `cli` |
//! | [`registry`] | which watchers are alive, and until when | `cleanup`, `watch`, `cli` |
//! | [`cleanup`] | buffer, snapshot, final script, state directory | `cli` |
//! | [`watch`] | starting, killing and reaping the test and its cleanup | `cli` |
//! | [`harness`] | what beah, restraint and tmt do to a test | `watch`, `cli` |
//! | [`cli`] | arguments in, text or JSON out | the binaries |
//!
//! Imports run downward only; `tests/layers.rs` holds that.

pub mod bounds;
pub mod cleanup;
pub mod cli;
pub mod error;
pub mod harness;
pub mod hook;
pub mod registry;
pub mod watch;
