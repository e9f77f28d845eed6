//! The watcher: runs the test, stops it when it must, and runs the cleanup it has hooked.

pub mod options;
