"""What an append and a prepend cost, beside BeakerLib's own, bash's writing of the same state into a
pipe, and the durable replacement of two files of that size."""

import os
import subprocess
import time
from pathlib import Path

from figures import figure, table
from stopwatch import in_turns, median, once

HERE = Path(__file__).resolve().parent
LETTERS = "abcdefghjkmnpqrstuvwxyz23456789"


class Session:
    """A bash that measures in itself (session.sh)."""

    def __init__(self, kind, work, env):
        self.state = work / kind
        self.state.mkdir(mode=0o700)
        clpath = work / f"clpath-{kind}"
        clpath.touch(mode=0o600)
        (work / f"clpath-{kind}.d").mkdir(mode=0o700)
        self.bash = subprocess.Popen(
            ["bash", HERE / "session.sh", kind],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
            env=env
            | {
                "BEAKERLIB_DIR": str(self.state),
                "TESTWATCHER_CLPATH": str(clpath),
                "RL_CLEANUP_NO_TRAP": "1",
                "SHIM": str(HERE.parent / "shell/rl-cleanup.sh"),
            },
        )
        self.kind = kind

    def ask(self, question):
        self.bash.stdin.write(question + "\n")
        answer = self.bash.stdout.readline().strip()
        if not answer:
            raise RuntimeError(f"the session of '{self.kind}' has died")
        return answer

    def measured(self, what, buffer):
        """A function that measures one call with this buffer, which stays as it was."""

        def run():
            (self.state / "clbuff").write_bytes(buffer)
            answer = self.ask(what)
            if not answer.isdigit():
                raise RuntimeError(f"{self.kind}: {answer}")
            return int(answer)

        return run

    def close(self):
        self.bash.stdin.close()
        self.bash.wait()


def identity(number):
    """An id that no other number has."""
    letters = ""
    for _ in range(6):
        letters += LETTERS[number % len(LETTERS)]
        number //= len(LETTERS)
    return letters


def buffer_of(entries, kind):
    """A buffer with so many entries."""
    texts = (f"true {n}" for n in range(entries))
    if kind == "theirs":
        return "".join(f"{text}\n" for text in texts).encode()
    head = "#rl-cleanup: id={} time=1 bytes={}\n{}\n"
    return "".join(head.format(identity(n), len(t), t) for n, t in enumerate(texts)).encode()


def replaced(directory, names):
    """A function that replaces files by copies of themselves, as safely as an append does."""

    def run():
        contents = [(directory / name).read_bytes() for name in names]
        start = time.perf_counter_ns()
        files = []
        for name, content in zip(names, contents):
            descriptor = os.open(directory / f".{name}.new", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o700)
            files.append(descriptor)
            os.write(descriptor, content)
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        for descriptor in files:
            os.fsync(descriptor)
            os.close(descriptor)
        for name in names:
            os.rename(directory / f".{name}.new", directory / name)
        descriptor = os.open(directory, os.O_RDONLY)
        os.fsync(descriptor)
        os.close(descriptor)
        return (time.perf_counter_ns() - start) / 1000

    return run


def measure(bench):
    env = bench.env | {"RL_CLEANUP": str(bench.binary)}
    if bench.beakerlib:
        env |= {"BEAKERLIB": str(bench.beakerlib)}
        env["PATH"] = f"{bench.beakerlib.parent.parent / 'bin'}:{env['PATH']}"
    sessions = {"rl-cleanup": Session("ours", bench.work, env)}
    for name, directory in bench.also.items():
        other = env | {"RL_CLEANUP": str(directory / "rl-cleanup")}
        sessions[name] = Session(f"ours-{name}", bench.work, other)
    if bench.beakerlib:
        sessions["BeakerLib"] = Session("theirs", bench.work, env)
    else:
        bench.skip("append: BeakerLib's own functions", "BEAKERLIB names no BeakerLib")
    try:
        tables(bench, sessions)
    finally:
        for session in sessions.values():
            session.close()
    without_a_shell(bench, env)


def tables(bench, sessions):
    variables, functions = sessions["rl-cleanup"].ask("count").split()
    where = "BeakerLib session" if bench.beakerlib else "bash with the shim alone"
    bench.say(f"append: a {where} with {variables} variables and {functions} functions")
    case = f"{variables} variables, {functions} functions, 1 entry"
    plain = row(bench, sessions, 1, 5, bench.rounds(61, 5), judged=bool(bench.beakerlib))
    bench.add(compared("append", f"Append and prepend in a {where}", "session", sessions, [(case, plain)]))
    by_entries = [
        (f"{n:,}", row(bench, sessions, n, 3, bench.rounds(21, 3)))
        for n in bench.sizes([1, 100, 1000, 10000])
    ]
    bench.add(compared("entries", "By entries in the buffer", "entries", sessions, by_entries))
    by_variables = []
    for more in bench.sizes([100, 1000, 5000]):
        for session in sessions.values():
            session.ask(f"fill {more}")
        slow = 1 if more > 1000 else 3
        by_variables.append((f"{more:,}", row(bench, sessions, 1, slow, bench.rounds(21, 3))))
    title = "By variables that the test has set"
    bench.add(compared("variables", title, "variables", sessions, by_variables))


def row(bench, sessions, entries, slow, rounds, judged=False):
    """One case: everybody in turns."""
    ours = sessions["rl-cleanup"]
    contestants = {"bash alone": ours.measured("alone", buffer_of(entries, "ours"))}
    for name, session in sessions.items():
        most = bench.rounds(slow, 1) if name == "BeakerLib" else rounds
        buffer = buffer_of(entries, "theirs" if name == "BeakerLib" else "ours")
        for what in ("append", "prepend"):
            contestants[f"{name} {what}"] = (session.measured(what, buffer), most)
    contestants["the disk alone"] = replaced(ours.state, ["clbuff", "cleanup.sh"])
    samples = in_turns(rounds, contestants)
    cells = {name: figure(median(taken), "us", taken) for name, taken in samples.items()}
    middle = {name: cell["value"] for name, cell in cells.items()}
    append = middle["rl-cleanup append"]
    floor = middle["bash alone"] + middle["the disk alone"]
    goal = ("at most", 1.5) if judged else None
    cells["append / bash alone"] = figure(append / middle["bash alone"], "x", goal=goal)
    cells["append / bash and disk"] = figure(append / floor, "x")
    if "BeakerLib append" in middle:
        cells["BeakerLib / append"] = figure(middle["BeakerLib append"] / append, "x")
    return cells


def compared(name, title, key, sessions, rows):
    columns = ["bash alone", "the disk alone"]
    for who in sessions:
        columns += [f"{who} append", f"{who} prepend"]
    columns += ["append / bash alone", "append / bash and disk"]
    if "BeakerLib" in sessions:
        columns.append("BeakerLib / append")
    return table(name, title, key, columns, rows)


def without_a_shell(bench, env):
    """The command itself, as a test in another language starts it."""
    state = bench.work / "no-shell"
    state.mkdir(mode=0o700)
    text = "umount -f /mnt"
    contestants = {"true": once([bench.true])}
    binaries = {"rl-cleanup": bench.binary} | {n: d / "rl-cleanup" for n, d in bench.also.items()}
    for name, binary in binaries.items():
        append = once([str(binary), "--dir", str(state), "append", text], env)

        def run(append=append):
            (state / "clbuff").unlink(missing_ok=True)
            return append()

        contestants[f"{name} append TEXT"] = run
    run()
    contestants["the disk alone"] = replaced(state, ["clbuff", "cleanup.sh"])
    samples = in_turns(bench.rounds(61, 3), contestants)
    rows = [(who, {"whole process": figure(median(s), "us", s)}) for who, s in samples.items()]
    bench.add(table("command", "Append from any language", "command", ["whole process"], rows))
