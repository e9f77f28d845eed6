"""Processes started and timed, all alike: what is compared takes turns, and the median counts.

Owns the clock and the scheduling of what is measured. Knows nothing of what that is.
"""

import os
import signal
import time

NOTHING = [
    (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
    (os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0),
    (os.POSIX_SPAWN_OPEN, 2, os.devnull, os.O_WRONLY, 0),
]
# Python ignores these; a command is to start as from a shell.
DEFAULT = [signal.SIGPIPE, signal.SIGXFSZ]


def prefer_this_process():
    """Asks for real-time priority, also for all that is started; says how it is scheduled now."""
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(50))
    except OSError as error:
        return f"ordinary priority (no real-time priority: {error.strerror})"
    return "real-time priority, as by chrt -f 50"


def spawn(argv, env=None):
    """Starts a command in a session of its own, with no terminal; answers its pid.

    As the leader of a group, as a shell with job control would: else setsid(1) need not fork.
    """
    return os.posix_spawnp(
        argv[0],
        argv,
        os.environ if env is None else env,
        file_actions=NOTHING,
        setsid=True,
        setsigdef=DEFAULT,
        setsigmask=[],
    )


def wait(pid):
    """The exit status."""
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def once(argv, env=None):
    """A function that runs the command once and answers the microseconds it took."""

    def run():
        start = time.perf_counter_ns()
        status = wait(spawn(argv, env))
        taken = time.perf_counter_ns() - start
        if status != 0:
            raise RuntimeError(f"{' '.join(argv)}: exit status {status}")
        return taken / 1000

    return run


def in_turns(rounds, contestants):
    """Lets each contestant run once a round, in order: A B C A B C ….

    contestants: name -> function that answers a number, or (function, at most so many rounds); such
    a one takes part in rounds spread evenly over all. Answers name -> list of numbers.
    """
    samples = {name: [] for name in contestants}
    for turn in range(rounds):
        for name, contestant in contestants.items():
            run, most = contestant if isinstance(contestant, tuple) else (contestant, rounds)
            if turn * most // rounds != (turn - 1) * most // rounds:
                samples[name].append(run())
    return samples


def median(numbers):
    """The middle one; of an even count the mean of the two in the middle."""
    ordered = sorted(numbers)
    if not ordered:
        raise ValueError("no numbers")
    middle = len(ordered) // 2
    if len(ordered) % 2:
        return ordered[middle]
    return (ordered[middle - 1] + ordered[middle]) / 2
