#!/usr/bin/env python3
"""A cleanup stack from Python: the test says what must be undone, the watcher sees to it.

    rl-cleanup watch -- python3 stack.py

EXAMPLE_READY and EXAMPLE_HANG work as in the other examples.
"""

import os
import secrets
import shlex
import subprocess
import sys
import time


def undo(*command):
    """Puts a command in front of the cleanup; each argument is one word, whatever it holds."""
    subprocess.run(["rl-cleanup", "prepend", "--argv", "--", *command], check=True)


def undo_shell(text):
    """Puts shell text in front of the cleanup."""
    subprocess.run(["rl-cleanup", "prepend", text], check=True)


def main():
    # A name first, then its removal, then the directory: a kill between two lines leaves nothing.
    work = f"/var/tmp/a directory with spaces {secrets.token_hex(8)}"
    undo("rm", "-rf", work)
    os.mkdir(work, mode=0o700)

    path = os.path.join(work, "it's a file")
    with open(path, "w", encoding="utf-8") as file:
        file.write("text\n")

    # In a session of its own: no signal to the test's process group reaches it.
    pid_file = os.path.join(work, "server.pid")
    undo_shell(f"! read -r pid <{shlex.quote(pid_file)} || kill $pid")
    script = 'echo $$ >"$1" && exec sleep 1000'
    server = subprocess.Popen(["sh", "-c", script, "sh", pid_file], start_new_session=True)

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
