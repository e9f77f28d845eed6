#!/usr/bin/env python3
"""make screenshots: records a real run in a terminal, and draws session.svg and timeline.svg from it.

    docs/pictures/draw.py [DIRECTORY]

Needs both programs in PATH, bash and a pseudo-terminal; writes to the directory of this file, or to DIRECTORY.
What is drawn is what the programs print, and what the final script noted in its report; nothing is made up.
"""

import json
import os
import pty
import re
import select
import shutil
import subprocess
import sys
import tempfile
import time
from html import escape
from pathlib import Path

TEST = r"""#!/bin/bash
eval "$(rl-cleanup shim)"
stop() { kill $1; while kill -0 $1; do sleep 0.05; done 2>/dev/null; }

rlJournalStart
dir=$(mktemp -d)
rlPrependCleanup "rm -r $dir"

cp settings $dir
rlPrependCleanup "cp $dir/settings ."
echo debug=yes >>settings

setsid ./server &
rlPrependCleanup "stop $!"

rl-cleanup list
sleep 60
rlJournalEnd
"""

# Takes its time to stop, as servers do.
SERVER = "#!/bin/bash\ntrap 'sleep 0.4; exit' TERM\nwhile :; do sleep 0.1; done\n"

TIME_LIMIT, CLEANUP_LIMIT = 12, 4
WATCH = f"rl-cleanup watch --time-limit {TIME_LIMIT}s --cleanup-limit {CLEANUP_LIMIT}s ./test.sh"

# How long the recorded test is left alone before ^C. Nothing waits for anything in that time.
STAY = 2.0
DEADLINE = 60.0

STYLE = """
  .back { fill: #ffffff; stroke: #d0d7de } .plain { fill: #1f2328 } .dim { fill: #59636e }
  .green { fill: #1a7f37 } .red { fill: #cf222e } .yellow { fill: #9a6700 } .typed { fill: #0550ae }
  .test { fill: #54aeff } .cleanup { fill: #4ac26b } .killed { fill: #d0d7de }
  .axis { stroke: #8c959f } .event { stroke: #cf222e } .limit { stroke: #9a6700; stroke-dasharray: 4 3 }
  .link { stroke: #d0d7de; stroke-dasharray: 2 3 }
  @media (prefers-color-scheme: dark) {
    .back { fill: #0d1117; stroke: #3d444d } .plain { fill: #f0f6fc } .dim { fill: #9198a1 }
    .green { fill: #3fb950 } .red { fill: #f85149 } .yellow { fill: #d29922 } .typed { fill: #79c0ff }
    .test { fill: #1f6feb } .cleanup { fill: #238636 } .killed { fill: #3d444d }
    .axis { stroke: #656c76 } .event { stroke: #f85149 } .limit { stroke: #d29922 }
    .link { stroke: #3d444d }
  }
"""
MONOSPACE = "ui-monospace, SFMono-Regular, Menlo, Consolas, 'DejaVu Sans Mono', monospace"
SANS = "system-ui, -apple-system, 'Segoe UI', 'DejaVu Sans', sans-serif"


def fail(sentence):
    sys.exit(f"draw.py: {sentence}")


def now():
    """The clock of the final script's report, in seconds."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class Terminal:
    """A shell in a pseudo-terminal, and all that it has shown."""

    def __init__(self, directory):
        self.seen = b""
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            os.chdir(directory)
            environment = {
                "PATH": os.environ["PATH"], "HOME": str(directory), "TERM": "xterm", "LC_ALL": "C.UTF-8",
                "PS1": "$ ", "COLUMNS": "100", "LINES": "50", "TMPDIR": "/tmp",
            }
            # The list of live watchers, which watcher() reads too, is found by it.
            environment.update({k: v for k, v in os.environ.items() if k == "XDG_RUNTIME_DIR"})
            os.execvpe("bash", ["bash", "--norc", "--noprofile", "--noediting", "-i"], environment)
        self.wait_for(b"$ ")

    def wait_for(self, end, start=0):
        """Until what was shown from `start` on has `end` in it."""
        limit = now() + DEADLINE
        while end not in self.seen[start:]:
            ready, _, _ = select.select([self.fd], [], [], max(0, limit - now()))
            if not ready:
                fail(f"no {end!r} within {DEADLINE:.0f} s: {self.seen[start:]!r}")
            self.seen += os.read(self.fd, 65536)

    def type(self, text):
        start = len(self.seen)
        os.write(self.fd, text.encode())
        return start

    def command(self, line):
        start = self.type(line + "\n")
        # The echo of the line, and then the next prompt.
        self.wait_for(b"\n$ ", start)

    def child(self):
        """The process that the shell waits for."""
        return int(Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()[0])

    def close(self):
        os.write(self.fd, b"exit\n")
        os.waitpid(self.pid, 0)
        os.close(self.fd)


def watcher(pid):
    """What 'rl-cleanup status' says of the watcher that is this process."""
    said = subprocess.run(["rl-cleanup", "status", "--json"], check=True, capture_output=True).stdout
    found = [w for w in json.loads(said)["watchers"] if w["pid"] == pid]
    return found[0] if found else fail(f"rl-cleanup status does not know the watcher {pid}")


def open_report(clpath):
    """The report of the final script. It is removed at the end: it must be open by then."""
    limit = now() + DEADLINE
    while now() < limit:
        try:
            return open(f"{clpath}.d/report", encoding="utf-8")
        except FileNotFoundError:
            time.sleep(0.001)
    return fail("the final script has written no report")


def record():
    """Runs it all. Returns what the terminal showed, and the times of the run."""
    with tempfile.TemporaryDirectory(prefix="rl-cleanup-picture-", dir="/var/tmp") as directory:
        place = Path(directory)
        for name, text in ("test.sh", TEST), ("server", SERVER):
            (place / name).write_text(text, encoding="utf-8")
            (place / name).chmod(0o755)
        (place / "settings").write_text("debug=no\n", encoding="utf-8")

        terminal = Terminal(place)
        terminal.command("cat test.sh")
        start = terminal.type(WATCH + "\n")
        terminal.wait_for(b"  rm -r ", start)
        time.sleep(STAY)
        before = watcher(terminal.child())
        times = {"test_left": now() + before["test_seconds_left"]}
        start = terminal.type("\x03")
        times["interrupt"] = now()
        with open_report(before["clpath"]) as report:
            during = watcher(before["pid"])
            times["cleanup_left"] = now() + during["cleanup_seconds_left"]
            terminal.wait_for(b"\n$ ", start)
            times["over"] = now()
            rows = [line.rstrip("\n").split("\t") for line in report]
        terminal.command("echo $?; cat settings")
        terminal.close()
        return terminal.seen.decode(), times, rows


def entries(times, rows):
    """The times of the run, all in seconds since the test's start; and the entries, each with its two times."""
    def seconds(row):
        return int(row[1]) / 1e9

    begin = [seconds(row) for row in rows if row[0] == "begin"]
    end = [seconds(row) for row in rows if row[0] == "end"]
    ran = [(seconds(row), row[4]) for row in rows if row[0] == "ran"]
    if len(begin) != 1 or len(end) != 1 or len(ran) != 3:
        fail(f"not one cleanup of three entries: {rows}")
    starts = begin + [at for at, _ in ran[:-1]]
    return begin[0], end[0], [(start, at, text) for start, (at, text) in zip(starts, ran)]


# ---------------------------------------------------------------- session.svg

SGR = re.compile("\x1b\\[([0-9;]*)m")
PAINT = {"32": "green", "31": "red", "33": "yellow"}


def paint(line):
    """The line's runs of one colour: (column, text, class)."""
    runs, column, paint_now, at = [], 0, "plain", 0
    if line.startswith("$ "):
        return [(0, "$ ", "dim"), (2, line[2:], "typed")]
    for escape_code in [*SGR.finditer(line), None]:
        text = line[at:escape_code.start() if escape_code else len(line)]
        if text.strip():
            runs.append((column, text, paint_now))
        column += len(text)
        if escape_code:
            paint_now = PAINT.get(escape_code[1], "plain")
            at = escape_code.end()
    return runs


def svg(width, height, title, body):
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height:.0f}" '
        f'width="{width:.0f}" height="{height:.0f}" role="img">\n<title>{escape(title)}</title>\n'
        f"<style>{STYLE}</style>\n"
        f'<rect class="back" x="0.5" y="0.5" width="{width - 1:.0f}" height="{height - 1:.0f}" rx="8"/>\n'
        + "\n".join(body) + "\n</svg>\n"
    )


def draw_session(shown):
    lines = shown.replace("\r\n", "\n").replace("\r", "").split("\n")
    while lines and lines[-1] in ("", "$ ", "exit", "$ exit"):
        lines.pop()
    if any("\x1b" in SGR.sub("", line) for line in lines):
        fail("the terminal was sent what is no colour")
    cell, height, margin = 7.8, 18, 16
    body = [f'<g font-family="{MONOSPACE}" font-size="13" xml:space="preserve" style="white-space: pre">']
    for number, line in enumerate(lines):
        y = margin + 13 + number * height
        for column, text, name in paint(line):
            lead = len(text) - len(text.lstrip())
            text = text.strip()
            if text:
                # The length keeps the columns in line, whatever the font.
                x, length = margin + (column + lead) * cell, len(text) * cell
                body.append(
                    f'<text class="{name}" x="{x:.1f}" y="{y}" textLength="{length:.1f}">{escape(text)}</text>'
                )
    body.append("</g>")
    columns = max(len(SGR.sub("", line)) for line in lines)
    return svg(
        columns * cell + 2 * margin, len(lines) * height + 2 * margin,
        "A test that is interrupted by ^C in a terminal, and its cleanup", body,
    )


# ---------------------------------------------------------------- timeline.svg

WIDTH, LEFT, RIGHT = 860, 110, 24


def scale(begin, end):
    """Seconds to pixels."""
    return lambda at: LEFT + (at - begin) / (end - begin) * (WIDTH - LEFT - RIGHT)


def label(x, y, text, name="plain", anchor="start"):
    return f'<text class="{name}" x="{x:.1f}" y="{y}" text-anchor="{anchor}">{escape(text)}</text>'


def bar(x, end, y, name):
    return f'<rect class="{name}" x="{x:.1f}" y="{y}" width="{max(2, end - x):.1f}" height="22" rx="3"/>'


def line(x, y, x2, y2, name):
    return f'<line class="{name}" x1="{x:.1f}" y1="{y}" x2="{x2:.1f}" y2="{y2}"/>'


def axis(to_x, y, begin, end, step):
    body = [line(LEFT, y, WIDTH - RIGHT, y, "axis")]
    places = 0 if step >= 1 else 1
    tick = 0
    while tick * step <= end - begin + 1e-9:
        x = to_x(begin + tick * step)
        body.append(line(x, y, x, y + 5, "axis"))
        body.append(label(x, y + 18, f"{tick * step:.{places}f} s", "dim", "middle"))
        tick += 1
    return body


def draw_timeline(shown, times, rows):
    after = re.search(r"interrupted after ([0-9.]+) s", shown)
    if not after:
        fail("the summary does not say when the test was interrupted")
    interrupt, over = times["interrupt"], times["over"]
    start = interrupt - float(after[1])
    begin, end, ran = entries(times, rows)
    test_limit, cleanup_limit = start + TIME_LIMIT, begin + CLEANUP_LIMIT
    # 'status' says whole seconds.
    for name, at in ("test_left", test_limit), ("cleanup_left", cleanup_limit):
        if abs(times[name] - at) > 1.5:
            fail(f"rl-cleanup status has another limit: {name} is {times[name] - at:+.2f} s off")

    body = [f'<g font-family="{SANS}" font-size="13">']
    whole = scale(start, start + TIME_LIMIT + 0.4)
    x = whole(interrupt)
    body += [
        label(16, 71, "test"), bar(whole(start), x, 55, "test"),
        label(16, 101, "cleanup"), bar(whole(begin), whole(end), 85, "cleanup"),
        line(x, 40, x, 120, "event"), label(x, 32, f"^C at {interrupt - start:.2f} s", "red", "middle"),
    ]
    for limit, text in (cleanup_limit, "--cleanup-limit"), (test_limit, "--time-limit"):
        body.append(line(whole(limit), 40, whole(limit), 120, "limit"))
        body.append(label(whole(limit), 32, f"{text}: not reached", "yellow", "middle" if limit < test_limit else "end"))
    body += axis(whole, 120, start, start + TIME_LIMIT, 1)

    # The moment from ^C to the end, enlarged.
    span = 0.1 * (int((over - interrupt) / 0.1) + 1)
    zoom = scale(interrupt, interrupt + span)
    top = 205
    body += [
        line(x, 145, zoom(interrupt), top - 28, "link"),
        line(whole(over), 145, zoom(interrupt + span), top - 28, "link"),
        label(16, top - 12, "the same, from ^C on", "dim"),
        label(16, top + 16, "kill"), bar(zoom(interrupt), zoom(begin), top, "killed"),
        label(
            zoom(begin) + 8, top + 16,
            f"all of the test is gone, and the final script runs, after {begin - interrupt:.2f} s", "dim",
        ),
    ]
    for number, (since, at, text) in enumerate(ran):
        y = top + 30 * (number + 1)
        body += [label(16, y + 16, f"entry {number + 1}"), bar(zoom(since), zoom(at), y, "cleanup")]
        words = f"{at - since:.2f} s: {text}"
        wide = 8 * len(words)
        if zoom(interrupt + span) - zoom(at) > wide:
            where, anchor = zoom(at) + 8, "start"
        elif zoom(since) - LEFT > wide:
            where, anchor = zoom(since) - 8, "end"
        else:
            where, anchor = zoom(since) + 8, "start"
        body.append(label(where, y + 16, words, "plain", anchor))
    bottom = top + 30 * (len(ran) + 1) + 2
    body.append(line(zoom(over), top - 6, zoom(over), bottom, "axis"))
    body.append(label(zoom(over) - 4, top - 12, "the watcher ends", "dim", "end"))
    body += axis(zoom, bottom, interrupt, interrupt + span, 0.1 if span < 1.5 else 0.5)
    body.append("</g>")
    return svg(WIDTH, bottom + 34, "A watched run over time: the test, ^C, its cleanup, and two limits", body)


def main():
    target = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).resolve().parent
    if not shutil.which("rl-cleanup"):
        fail("rl-cleanup is not in PATH: run 'make screenshots'")
    shown, times, rows = record()
    for name, text in ("session.svg", draw_session(shown)), ("timeline.svg", draw_timeline(shown, times, rows)):
        (target / name).write_text(text, encoding="utf-8")
        print(f"{target / name}")


if __name__ == "__main__":
    main()
