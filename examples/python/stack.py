#!/usr/bin/env python3
"""A cleanup stack from Python: the test says what must be undone, the watcher sees to it.

    rl-cleanup watch -- python3 stack.py

EXAMPLE_READY and EXAMPLE_HANG work as in the other examples.
"""

import os
import shlex
import subprocess
import sys
import tempfile
import time


def undo(*command):
    """Puts a command in front of the cleanup; each argument is one word, whatever it holds."""
    subprocess.run(["rl-cleanup", "prepend", "--argv", "--", *command], check=True)


def undo_shell(text):
    """Puts shell text in front of the cleanup."""
    subprocess.run(["rl-cleanup", "prepend", text], check=True)


def main():
    work = tempfile.mkdtemp(prefix="a directory with spaces ", dir="/var/tmp")
    undo("rmdir", work)

    path = os.path.join(work, "it's a file")
    undo("rm", "-f", path)
    with open(path, "w", encoding="utf-8") as file:
        file.write("text\n")

    # In a session of its own: no signal to the test's process group reaches it.
    server = subprocess.Popen(["sleep", "1000"], start_new_session=True)
    undo_shell(f"kill {server.pid} # the server")

    print(subprocess.run(["rl-cleanup", "list"], check=True, capture_output=True, text=True).stdout)

    if ready := os.environ.get("EXAMPLE_READY"):
        with open(ready, "w", encoding="utf-8") as file:
            file.write(f"{shlex.quote(work)} {server.pid}\n")
    while os.environ.get("EXAMPLE_HANG"):
        time.sleep(1)

    with open(path, encoding="utf-8") as file:
        return 0 if file.read() == "text\n" else 1


if __name__ == "__main__":
    sys.exit(main())
