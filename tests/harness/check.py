"""make check-harness: what each harness does when time is up, and what is seen then.

The rows of tmt on this machine run the real tmt, in a virtual environment of its own below the target
directory; the others run the stand-ins of tests/harness_standins.rs. Ends in a count.
"""

import concurrent.futures
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

TMT = "tmt==1.78.0"
ROOT = Path(__file__).resolve().parents[2]
TARGET = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")).resolve()
DEADLINE = 180

TEST = """#!/bin/bash
echo "$TESTWATCHER_CLPATH" >"{dir}/clpath"
echo "{dir}/cleanup.sh" >"$TESTWATCHER_CLPATH"
{body}
"""

CLEANUP = """#!/bin/bash
set -e
for ((i = 0; i < {tenths}; i++)); do /bin/echo "cleaning $i"; sleep 0.1; done
touch "{dir}/cleaned"
"""

BEAKERLIB_TEST = """#!/bin/bash
export PATH={path} BEAKERLIB={beakerlib} RL_CLEANUP={toolkit}
. "$BEAKERLIB/beakerlib.sh" || exit 1
eval "$("$RL_CLEANUP" shim)"
rlJournalStart
rlPhaseStartTest
echo "$TESTWATCHER_CLPATH" >"{dir}/clpath"
rlCleanupAppend '/bin/echo cleaning; for ((i = 0; i < {tenths}; i++)); do /bin/echo "cleaning $i"; sleep 0.1; done'
rlCleanupAppend 'touch "{dir}/cleaned"'
{body}
rlPhaseEnd
rlJournalEnd
"""

HANG = 'sleep 1000 & echo $! >"{dir}/pid.new"; mv "{dir}/pid.new" "{dir}/pid"; wait'


class Row:
    """One run of the real tmt."""

    def __init__(self, name, must, act, framework, tenths=10, duration="1h", hang=True, verdict=None):
        self.name, self.must, self.act, self.framework = name, must, act, framework
        self.tenths, self.duration, self.hang, self.verdict = tenths, duration, hang, verdict

    def run(self, base):
        """Answers what was seen; raises AssertionError where it is not what must be."""
        self.prepare(base)
        env = {**os.environ, "TMT_TEST_PIDFILE_ROOT": str(base / "pids"), "TMT_WORKDIR_ROOT": str(base / "work")}
        for name in list(env):
            if name.startswith(("TESTWATCHER_", "BEAKERLIB_", "RSTRNT_")) or name in ("TASKID", "TESTID"):
                del env[name]
        log = open(base / "tmt.log", "w")
        command = [venv_python(), ROOT / "tests/harness/tmt_with_rsync.py", "--feeling-safe", "run", "-i", base / "run"]
        command += [f"--environment={name}={value}" for name, value in self.environment(base).items()]
        command += ["discover", "provision", "execute", "report", "-h", "display", "finish"]
        tmt = subprocess.Popen(command, cwd=base / "tree", env=env, stdout=log, stderr=log, start_new_session=True)
        try:
            return self.watch(base, tmt)
        finally:
            if tmt.poll() is None:
                os.killpg(tmt.pid, signal.SIGKILL)
                tmt.wait()

    def environment(self, base):
        """What tmt is told to give the tests: it passes on nothing of its own."""
        return {}

    def prepare(self, base):
        tree = base / "tree"
        for folder in (tree / ".fmf", base / "pids", base / "work"):
            folder.mkdir(parents=True)
        (tree / ".fmf/version").write_text("1\n")
        watcher = TARGET / "debug/beakerlib-testwatcher"
        (tree / "main.fmf").write_text(
            "/plan:\n  provision: {how: local}\n  discover: {how: fmf}\n  execute: {how: tmt}\n"
            f"/t:\n  test: {watcher} ./test.sh\n  framework: {self.framework}\n  duration: {self.duration}\n"
        )
        values = {
            "dir": base,
            "tenths": self.tenths,
            "body": HANG.format(dir=base) if self.hang else "",
            "path": os.environ["PATH"],
            "beakerlib": beakerlib(),
            "toolkit": TARGET / "debug/rl-cleanup",
        }
        script(base / "cleanup.sh", CLEANUP.format(**values))
        script(tree / "test.sh", (BEAKERLIB_TEST if self.framework == "beakerlib" else TEST).format(**values))

    def watch(self, base, tmt):
        if self.hang:
            wait_for("the test", lambda: (base / "pid").exists() or tmt.poll() is not None)
            expect((base / "pid").exists(), "the test was never started: " + tail(base / "tmt.log"))
        self.act(base, tmt)
        wait_for("tmt's end", lambda: tmt.poll() is not None)
        went_on = time.time()
        if self.act is interrupt_twice:
            wait_for("the cleanup", (base / "cleaned").exists)
        expect((base / "cleaned").exists(), "no cleanup when tmt went on: " + tail(base / "tmt.log"))
        if self.hang:
            expect(not alive((base / "pid").read_text()), "the test lives on")
        clpath = (base / "clpath").read_text().strip()
        wait_for("watcher and guard to end", lambda: not guards(clpath))
        expect(not os.path.exists(clpath), f"{clpath} is left")
        seen = "test dead, cleanup done" if self.hang else "cleanup done"
        ahead = went_on - (base / "cleaned").stat().st_mtime
        seen += f" {ahead:.1f} s before tmt ended" if ahead >= 0 else ""
        if self.verdict:
            got = verdict(base)
            expect(got == self.verdict, f"tmt says {got}, and must say {self.verdict}")
            seen += f", tmt says {got}"
        return seen


class Example(Row):
    """A test of examples/tmt, as it is there."""

    def __init__(self, framework):
        must = "a pass, and directory and service are gone"
        super().__init__("examples/tmt", must, nothing, framework, hang=False, verdict="pass")

    def environment(self, base):
        path = f"{TARGET / 'debug'}:{os.environ['PATH']}"
        return {"PATH": path, "BEAKERLIB": beakerlib(), "EXAMPLE_READY": base / "made"}

    def prepare(self, base):
        base.mkdir(parents=True)
        shutil.copytree(ROOT / "examples/tmt", base / "tree")
        for folder in (base / "pids", base / "work"):
            folder.mkdir()
        # tmt may not select a test by its framework.
        tests = base / "tree/tests.fmf"
        kept = [part for part in tests.read_text().split("\n\n") if f"framework: {self.framework}" in part]
        tests.write_text("\n\n".join(["duration: 5m", *kept]))

    def watch(self, base, tmt):
        wait_for("tmt's end", lambda: tmt.poll() is not None)
        expect((base / "made").exists(), "the test made nothing: " + tail(base / "tmt.log"))
        made, pid = (base / "made").read_text().split()
        expect(not os.path.exists(made), f"'{made}' is left")
        expect(not alive(pid), f"the service {pid} lives on")
        got = verdict(base)
        expect(got == self.verdict, f"tmt says {got}, and must say {self.verdict}: " + tail(base / "tmt.log"))
        return f"both gone, tmt says {got}"


def nothing(_base, _tmt):
    """tmt does it all by itself."""


def interrupt(_base, tmt):
    tmt.send_signal(signal.SIGINT)


def terminate(_base, tmt):
    tmt.send_signal(signal.SIGTERM)


def interrupt_twice(base, tmt):
    tmt.send_signal(signal.SIGINT)
    # tmt waits by now: it has killed the wrapper, and the watcher has seen that.
    wait_for("the first ^C's effect", lambda: not alive((base / "pid").read_text()))
    tmt.send_signal(signal.SIGINT)


def rows():
    # The watcher leaves half of it to the cleanup. On a busy machine the other half must do for BeakerLib's
    # start, which takes seconds there.
    for framework, limit in (("shell", 10), ("beakerlib", 30)):
        def row(*args, **more):
            return Row(*args, framework=framework, **more)

        yield row("test ends by itself", "cleanup done, a pass", nothing, hang=False, verdict="pass")
        dead = "test dead, cleanup done before tmt goes on, a timeout"
        yield row("duration over", dead, nothing, duration=f"{limit}s", verdict="timeout")
        longer = {"tenths": limit * 5 + 30, "duration": f"{limit}s"}
        yield row("cleanup longer than the margin", dead, nothing, verdict="timeout", **longer)
        stopped = "stopped at once, cleanup, tmt ends"
        yield row("^C", stopped, interrupt)
        yield row("SIGTERM", stopped, terminate)
        yield Example(framework)
        yield row("^C twice", "test dead, cleanup runs", interrupt_twice, tenths=30)


def verdict(base):
    text = next(base.glob("run/plan/execute/results.yaml")).read_text()
    result = re.search(r"^  result: (\S+)$", text, re.M).group(1)
    return "timeout" if "internal/timeout" in text and result == "error" else result


def script(path, text):
    path.write_text(text)
    path.chmod(0o755)


def tail(path):
    return "\n" + "\n".join(path.read_text(errors="replace").splitlines()[-15:])


def expect(condition, what):
    if not condition:
        raise AssertionError(what)


def wait_for(what, done):
    start = time.monotonic()
    while not done():
        expect(time.monotonic() - start < DEADLINE, f"waited in vain for {what}")
        time.sleep(0.02)


def alive(pid):
    try:
        stat = Path(f"/proc/{pid.strip()}/stat").read_text()
    except OSError:
        return False
    return stat.rpartition(") ")[2][0] not in "ZX"


def guards(clpath):
    """Whether its guard lives: it bears the last part of the name (prctl(2))."""
    for entry in Path("/proc").iterdir():
        try:
            if (entry / "comm").read_text().strip() == "tw-guard-" + clpath[-6:]:
                return True
        except OSError:
            continue
    return False


def beakerlib():
    return os.environ.get("BEAKERLIB", "/usr/share/beakerlib")


def venv_python():
    return TARGET / "tmt-venv/bin/python"


def have_tmt():
    """Installs it once; None if it is there, else why not."""
    wanted = [venv_python(), "-c", f"import importlib.metadata as m; assert 'tmt==' + m.version('tmt') == '{TMT}'"]
    if venv_python().exists() and subprocess.run(wanted, capture_output=True).returncode == 0:
        return None
    for command in (
        [sys.executable, "-m", "venv", TARGET / "tmt-venv"],
        [venv_python(), "-m", "pip", "install", "-q", TMT],
    ):
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            return f"{TMT} cannot be installed: " + (done.stderr.strip().splitlines() or ["?"])[-1]
    return None


def line(harness, name, must, seen):
    print(f"{harness:<10} | {name:<55} | {must:<53} | {seen}", flush=True)


def real_tmt(counts):
    why_not = have_tmt()
    base = Path(tempfile.mkdtemp(prefix="check-harness-", dir="/var/tmp"))
    has_beakerlib = Path(beakerlib(), "beakerlib.sh").exists()
    failed_before = counts["failed"]
    with concurrent.futures.ThreadPoolExecutor(max_workers=3) as pool:
        waiting = []
        for number, row in enumerate(rows()):
            skip = why_not
            if row.framework == "beakerlib" and not has_beakerlib:
                skip = skip or f"'{beakerlib()}/beakerlib.sh' is not installed"
            waiting.append((row, skip, None if skip else pool.submit(row.run, base / str(number))))
        for row, skip, future in waiting:
            name = f"{row.name} ({row.framework})"
            if skip:
                counts["skipped"] += 1
                line("tmt local", name, row.must, f"skipped: {skip}")
                continue
            try:
                seen = future.result()
                counts["passed"] += 1
            except Exception as failure:  # a broken run is a failed row, and the rest goes on
                counts["failed"] += 1
                seen = f"FAILED: {failure}"
            line("tmt local", name, row.must, seen)
    if counts["failed"] == failed_before:
        shutil.rmtree(base)
    else:
        print(f"kept for a look: {base}")


def stand_ins(counts):
    command = ["cargo", "test", "-q", "--test", "harness_standins", "every_row", "--", "--nocapture"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    found = [[cell.strip() for cell in text.split(" | ")] for text in done.stdout.splitlines() if text.count(" | ") >= 3]
    for name, secs, must, *seen in found:
        seen = " | ".join(seen)
        counts["failed" if seen.startswith("FAILED") else "passed"] += 1
        line("stand-in", f"{name}, {secs} cleanup", must, seen)
    skipped = [text for text in done.stdout.splitlines() if text.startswith("skipped: ")]
    for text in skipped:
        counts["skipped"] += 1
        line("stand-in", "all", "", text)
    if not found and not skipped:
        counts["failed"] += 1
        line("stand-in", "all", "", "FAILED: " + (done.stdout + done.stderr)[-2000:])


def main():
    subprocess.run(["cargo", "build", "-q"], cwd=ROOT, check=True)
    counts = {"passed": 0, "failed": 0, "skipped": 0}
    line("harness", "what happens", "must be", "seen")
    stand_ins(counts)
    real_tmt(counts)
    print("check-harness: " + ", ".join(f"{number} {word}" for word, number in counts.items()))
    sys.exit(1 if counts["failed"] else 0)


if __name__ == "__main__":
    main()
