"""What the watcher costs: start-up over the bare command, memory, the way from a signal to the
cleanup's first line, and the size of the programs."""

import os
import select
import shutil
import signal
import subprocess
import sys
import time

from figures import figure, table
from stopwatch import in_turns, median, once, spawn, wait

TEST = """#!/bin/bash
echo "$PWD/cleanup" >"$TESTWATCHER_CLPATH"
echo up >up
read -r _ <gate
"""
CLEANUP = """#!/bin/bash
echo "${EPOCHREALTIME/[.,]/}" >first
"""


def measure(bench):
    start_up(bench)
    for name, content in (("test", TEST), ("cleanup", CLEANUP)):
        (bench.work / name).write_text(content)
        (bench.work / name).chmod(0o700)
    for name in ("up", "gate", "first"):
        os.mkfifo(bench.work / name)
    has_clock = subprocess.run(["bash", "-c", "[[ -n ${EPOCHREALTIME-} ]]"]).returncode == 0
    if has_clock:
        signals(bench)
    else:
        bench.skip("watcher: from a signal to the cleanup", "bash has no clock: 5.0 or later is needed")
    memory(bench)
    size(bench)


def start_up(bench):
    watchers = {"beakerlib-testwatcher": bench.watcher}
    watchers |= {name: directory / "beakerlib-testwatcher" for name, directory in bench.also.items()}
    contestants = {"bare": once([bench.true])}
    for name, path in watchers.items():
        contestants[name] = once([str(path), bench.true])
    known = {"timeout": ["timeout", "100"], "setsid": ["setsid", "-w"], "tini": ["tini", "-s", "--"]}
    goals = {}
    for name, words in known.items():
        if shutil.which(name):
            shown = " ".join(word for word in words if word != "--")
            contestants[shown] = once([*words, bench.true])
            goals[shown] = ("at most", 1.5) if name == "timeout" else None
        else:
            bench.skip(f"watcher: start-up beside {name}", f"{name} is not installed")
    rounds = bench.rounds(301, 5)
    if bench.original:
        # By this very Python: a wrapper of the path's would be measured with it.
        original = [sys.executable, str(bench.original), bench.true]
        contestants["BeakerLib's (Python)"] = (once(original), bench.rounds(21, 2))
        goals["BeakerLib's (Python)"] = ("at most", 0.1)
    else:
        bench.skip("watcher: start-up beside BeakerLib's", "its beakerlib-testwatcher is not installed")
    samples = in_turns(rounds, contestants)
    bare = median(samples["bare"])
    rows = [("the bare command", {"whole process": figure(bare, "us", samples["bare"])})]
    ours = {name: median(samples[name]) - bare for name in watchers}
    for name, taken in list(samples.items())[1:]:
        over = median(taken) - bare
        cells = {"whole process": figure(median(taken), "us", taken), "over bare": figure(over, "us")}
        for watcher in watchers:
            if name not in watchers:
                goal = goals.get(name) if watcher == "beakerlib-testwatcher" else None
                cells[f"{watcher} / this"] = figure(ours[watcher] / over, "x", goal=goal)
        rows.append((f"{name} true", cells))
    columns = ["whole process", "over bare", *(f"{watcher} / this" for watcher in watchers)]
    bench.add(table("start", "Start-up of `true` under a watcher", "command", columns, rows))
    hyperfine(bench)


def hyperfine(bench):
    """A second opinion, of a stopwatch that is not ours."""
    if not shutil.which("hyperfine"):
        bench.skip("watcher: start-up by hyperfine", "hyperfine is not installed")
        return
    commands = [bench.true, f"{bench.watcher} {bench.true}"]
    if shutil.which("timeout"):
        commands.append(f"timeout 100 {bench.true}")
    export = bench.work / "hyperfine.csv"
    runs = bench.rounds(10, 2)
    samples = {command: [] for command in commands}
    # In turns, as far as it can: so many runs of each, and again.
    for _ in range(bench.rounds(15, 1)):
        asked = ["hyperfine", "-N", "--style=basic", f"--runs={runs}", f"--export-csv={export}", *commands]
        subprocess.run(asked, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        for command, line in zip(commands, export.read_text().splitlines()[1:]):
            samples[command].append(float(line.removeprefix(command).split(",")[3]) * 1e6)
    middle = {command: median(taken) for command, taken in samples.items()}
    bare = middle[bench.true]
    rows = [
        (
            command.replace(f"{bench.watcher.parent}/", ""),
            {
                "whole process": figure(middle[command], "us", taken),
                "over bare": figure(middle[command] - bare, "us"),
            },
        )
        for command, taken in samples.items()
    ]
    title = "The same by hyperfine (medians of its medians)"
    bench.add(table("hyperfine", title, "command", ["whole process", "over bare"], rows))


class Watched:
    """A watched test that hangs, and has hooked a cleanup that says when it began."""

    def __init__(self, watcher):
        self.pid = spawn([str(watcher), "./test"])
        with open("up") as up:
            up.read()

    def guard(self):
        """The guard's pid: of the watcher's children it is the one with that name."""
        with open(f"/proc/{self.pid}/task/{self.pid}/children") as children:
            for pid in children.read().split():
                with open(f"/proc/{pid}/comm") as comm:
                    if comm.read().startswith("tw-guard"):
                        return int(pid)
        raise RuntimeError("the watcher has no guard")


def first_line(start):
    """Microseconds from `start` to when the cleanup says it began."""
    with open("first") as first:
        return int(first.read()) - start


def now():
    return time.time_ns() // 1000


def signals(bench):
    watchers = {"beakerlib-testwatcher": bench.watcher}
    watchers |= {name: directory / "beakerlib-testwatcher" for name, directory in bench.also.items()}

    def bash_alone():
        start = now()
        pid = spawn(["./cleanup"])
        taken = first_line(start)
        wait(pid)
        return taken

    def hang_up(watcher):
        watched = Watched(watcher)
        start = now()
        os.kill(watched.pid, signal.SIGHUP)
        taken = first_line(start)
        wait(watched.pid)
        return taken

    def kill(watcher):
        watched = Watched(watcher)
        guard = os.pidfd_open(watched.guard())
        start = now()
        os.kill(watched.pid, signal.SIGKILL)
        taken = first_line(start)
        wait(watched.pid)
        # The next one is not to share the processor with it.
        select.select([guard], [], [])
        os.close(guard)
        return taken

    contestants = {"bash's own start": bash_alone}
    for name, watcher in watchers.items():
        contestants["SIGHUP", name] = lambda watcher=watcher: hang_up(watcher)
        contestants["SIGKILL", name] = lambda watcher=watcher: kill(watcher)
    samples = in_turns(bench.rounds(61, 3), contestants)
    bash = median(samples["bash's own start"])
    columns = ["to the first line", "beyond bash's own start"]
    rows = [("bash's own start", {columns[0]: figure(bash, "us", samples["bash's own start"])})]
    for sent in ("SIGHUP", "SIGKILL"):
        for name in watchers:
            taken = samples[sent, name]
            hup_goal, kill_goal = None, None
            if name == "beakerlib-testwatcher":
                hup_goal = ("below", 10000) if sent == "SIGHUP" else None
                kill_goal = ("below", 100000) if sent == "SIGKILL" else None
            cells = {
                columns[0]: figure(median(taken), "us", taken, kill_goal),
                columns[1]: figure(median(taken) - bash, "us", goal=hup_goal),
            }
            rows.append((f"{sent} of {name}", cells))
    title = "From a signal to the first line of a bash cleanup"
    bench.add(table("signals", title, "signal", columns, rows))


def memory(bench):
    watched = Watched(bench.watcher)
    rows = []
    for who, pid in (("watcher", watched.pid), ("guard", watched.guard())):
        with open(f"/proc/{pid}/status") as status:
            peak = next(int(line.split()[1]) for line in status if line.startswith("VmHWM:"))
        cells = {"peak resident memory": figure(peak, "KiB", goal=("below", 4096))}
        rows.append((who, cells))
    with open("gate", "w") as gate:
        gate.write("go\n")
    first_line(0)
    wait(watched.pid)
    bench.add(table("memory", "Memory while a test runs", "process", ["peak resident memory"], rows))


def size(bench):
    directories = {"both programs": bench.watcher.parent} | bench.also
    rows = []
    for name, directory in directories.items():
        # Where one is a link to the other, they are one file.
        stats = [(directory / p).stat() for p in ("rl-cleanup", "beakerlib-testwatcher")]
        total = sum({(s.st_dev, s.st_ino): s.st_size for s in stats}.values())
        goal = ("below", 3 * 1024 * 1024) if name == "both programs" else None
        rows.append((name, {"size": figure(total, "bytes", goal=goal)}))
    bench.add(table("size", "Size of the programs, stripped", "what", ["size"], rows))
