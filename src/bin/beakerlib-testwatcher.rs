//! The drop-in for a test Makefile's `run:` target. See beakerlib-testwatcher(1).

fn main() -> std::process::ExitCode {
    rl_cleanup::cli::testwatcher(std::env::args_os())
}
