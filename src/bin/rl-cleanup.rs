//! The toolkit: `rl-cleanup watch|prepend|append|rehook|…`. See rl-cleanup(1).

fn main() -> std::process::ExitCode {
    rl_cleanup::cli::toolkit(std::env::args_os())
}
