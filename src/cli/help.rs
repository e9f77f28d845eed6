//! What `--help` says below the options, and `-h` does not: examples and exit statuses. `tests/man.rs` holds them
//! against the page, and `tests/docs.rs` runs the examples.

/// What one subcommand's `--help` ends with: its examples, and the statuses that all but `watch` share.
macro_rules! long {
    ($examples:literal) => {
        concat!(
            "Examples:\n",
            $examples,
            "
Exit status:
  0  done
  1  it failed, and nothing has changed; after 'run': an entry failed
  2  the command line makes no sense
  3  there is no state directory, or no buffer in it
  4  a file or directory could be somebody else's work, and is not trusted

See rl-cleanup(1)."
        )
    };
}

/// Of the program.
pub(super) const PROGRAM: &str = long!(
    "  rl-cleanup watch --time-limit 10m ./test.py
  rl-cleanup prepend --argv -- rm -rf \"$dir\"
  rl-cleanup list
"
);

/// The exit table of `watch`, which `-h` has too.
macro_rules! watch_statuses {
    () => {
        "Exit status:
  CMD's own  CMD ended by itself (128+N if signal N ended it)
  130        a person interrupted it (SIGINT, SIGQUIT)
  124        a deadline or the harness's watchdog (SIGHUP) stopped it
  121        CMD ended with 0, but its cleanup was cut short, could not be run,
             or with --strict had a failing entry
  143        SIGTERM, or a reboot: the cleanup is left for the next start
  127, 126   CMD was not found, could not be executed
  2, 125     usage error, the watcher itself failed
With --exit-zero or TESTWATCHER_EXIT_ZERO=1 the first four are 0."
    };
}

/// Of `watch -h`.
pub(super) const WATCH_SHORT: &str = watch_statuses!();

/// Of `watch --help`.
pub(super) const WATCH: &str = concat!(
    watch_statuses!(),
    "

Examples:
  rl-cleanup watch ./runtest.sh
  rl-cleanup watch --time-limit 10m --cleanup-limit 1m ./test.py
  rl-cleanup watch --kill tree --strict -- python3 test.py

See rl-cleanup(1), and beakerlib-testwatcher(1) for signals and harnesses."
);

/// Of `append` and `prepend`.
pub(super) const ADD: &str = long!(
    "  rl-cleanup prepend --argv -- rm -rf \"$dir\"
  rl-cleanup prepend \"umount -f '$dir'\"
  rl-cleanup append - <cleanup.sh
"
);

/// Of `list`.
pub(super) const LIST: &str = long!(
    "  rl-cleanup list
  rl-cleanup --dir /var/tmp/beakerlib-J1-T2 list
  rl-cleanup list --json
"
);

/// Of `show`.
pub(super) const SHOW: &str = long!(
    "  rl-cleanup show
  rl-cleanup show --script
"
);

/// Of `remove`.
pub(super) const REMOVE: &str = long!(
    "  id=$(rl-cleanup prepend --print-id \"umount -f '$dir'\")
  rl-cleanup remove \"$id\"
"
);

/// Of `clear`.
pub(super) const CLEAR: &str = long!(
    "  rl-cleanup clear
"
);

/// Of `run`.
pub(super) const RUN: &str = long!(
    "  rl-cleanup run --to-mark
  rl-cleanup run
"
);

/// Of `rehook`.
pub(super) const REHOOK: &str = long!(
    "  rl-cleanup --dir /var/tmp/beakerlib-J1-T2 rehook
"
);

/// Of `status`.
pub(super) const STATUS: &str = long!(
    "  rl-cleanup status
  rl-cleanup status --json
"
);

/// Of `shim`.
pub(super) const SHIM: &str = long!(
    "  eval \"$(rl-cleanup shim)\"
  . \"$(rl-cleanup shim --path)\"
"
);

/// Of `completions`.
pub(super) const COMPLETIONS: &str = long!(
    "  . <(rl-cleanup completions bash)
"
);
