//! One part of `make torture`: how much of it to do, and its row in the table at the end.
//!
//! Every part is a test `tests/torture_NAME.rs`. `make check` runs its short form, `make torture` (which
//! sets `RL_CLEANUP_TORTURE=full`) the long one. A part counts what it tried and what was lost, and fails
//! if anything was, or if nothing was tried.
#![allow(
    dead_code,
    missing_docs,
    unreachable_pub,
    reason = "every test file includes this module and uses its own part of it"
)]

use std::io::Write;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

/// Whether this is `make torture` and not `make check`.
#[must_use]
pub fn is_full() -> bool {
    std::env::var_os("RL_CLEANUP_TORTURE").is_some_and(|v| v == "full")
}

/// `short` in `make check`, `full` in `make torture`.
#[must_use]
pub fn scale(short: u64, full: u64) -> u64 {
    if is_full() { full } else { short }
}

/// The first seed of a part that draws lots: `RL_CLEANUP_SEED`, to see a failure again, or else `default`.
#[must_use]
pub fn seed(default: u64) -> u64 {
    std::env::var("RL_CLEANUP_SEED").ok().and_then(|v| v.parse().ok()).unwrap_or(default)
}

/// Does `each` for one in `every` of the numbers below `count`, other ones with each seed, on two threads.
pub fn draw(count: usize, every: u64, each: impl Fn(usize) + Sync) {
    let seed = seed(u64::from(std::process::id()));
    let next = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                loop {
                    let n = next.fetch_add(1, Ordering::Relaxed);
                    if n >= count as u64 {
                        return;
                    }
                    if n.wrapping_add(seed).is_multiple_of(every) {
                        each(usize::try_from(n).unwrap_or(usize::MAX));
                    }
                }
            });
        }
    });
}

/// xorshift64*: small, seeded, good enough to draw lots.
#[derive(Debug, Clone)]
pub struct Dice(u64);

impl Dice {
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    /// A number below `sides`.
    pub fn throw(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) % sides
    }
}

/// What is counted. May be shared between threads.
#[derive(Debug)]
pub struct Part {
    name: &'static str,
    started: Instant,
    tried: AtomicU64,
    lost: Mutex<Vec<String>>,
}

impl Part {
    /// `name` is the row's first column, and the same as in `make torture PART=NAME` where a file has
    /// only one part.
    #[must_use]
    pub fn new(name: &'static str) -> Self {
        Self { name, started: Instant::now(), tried: AtomicU64::new(0), lost: Mutex::new(Vec::new()) }
    }

    /// One more thing was tried.
    pub fn tried(&self) {
        self.tried.fetch_add(1, Ordering::Relaxed);
    }

    /// A promise was broken; `how` says by what, so that somebody can do it again.
    pub fn lost(&self, how: impl Into<String>) {
        let how = how.into();
        eprintln!("torture: {}: lost: {how}", self.name);
        self.lost.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push(how);
    }

    /// Counts one try, which `outcome` calls good or lost.
    pub fn count(&self, outcome: Result<(), String>) {
        self.tried();
        if let Err(how) = outcome {
            self.lost(how);
        }
    }

    /// Prints the row, writes it to the table, and fails if anything was lost.
    ///
    /// # Panics
    /// Something was lost, or nothing was tried.
    #[track_caller]
    pub fn finish(self) {
        let lost = self.lost.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
        let tried = self.tried.into_inner();
        let seconds = self.started.elapsed().as_secs_f64();
        let row = format!("{}\t{tried}\t{}\t{seconds:.1}\n", self.name, lost.len());
        println!("torture: {}: {tried} tried, {} lost, {seconds:.1} s", self.name, lost.len());
        if let Some(path) = std::env::var_os("RL_CLEANUP_TORTURE_TABLE") {
            let file = std::fs::OpenOptions::new().append(true).create(true).open(path);
            // In one write, as parts may run side by side.
            let _ = file.and_then(|mut file| file.write_all(row.as_bytes()));
        }
        assert!(tried > 0, "{}: nothing was tried", self.name);
        assert!(lost.is_empty(), "{}: {} lost:\n{}", self.name, lost.len(), lost.join("\n"));
    }
}
