#!/bin/bash
# Less extreme: most of a test's cleanup is an ordinary phase at its end, and one thing is too dear to
# be left to it: /etc/hosts. Its restore is appended before the file is touched.
# EXAMPLE_HOSTS names another file to use instead, for those who may not write /etc/hosts.
cd "$(dirname "$0")" || exit 1
. ../setup.sh

hosts=${EXAMPLE_HOSTS:-/etc/hosts}
name=rl-cleanup-example.test

# What rlFileBackup and rlFileRestore do, in small: a copy in BEAKERLIB_DIR, which outlives a reboot.
backup() { cp -fa "$hosts" "$BEAKERLIB_DIR/hosts"; }
restore() { cp -fa "$BEAKERLIB_DIR/hosts" "$hosts"; }

# The resolver reads /etc/hosts only; another file is looked up by hand.
address() {
  if [ "$hosts" = /etc/hosts ]; then
    getent hosts "$name"
  else
    grep -w "$name" "$hosts"
  fi | cut -d ' ' -f 1
}

# Listens on a free port of 127.0.0.1, prints the port, and says "hello" to everyone who connects.
listen() {
  exec python3 -uc '
import socket
server = socket.create_server(("127.0.0.1", 0))
print(server.getsockname()[1])
while True:
    client, _ = server.accept()
    client.sendall(b"hello\n")
    client.close()
'
}

# Reads one line from the listener, by name.
talk() {
  local answer
  exec 7<>"/dev/tcp/$(address)/$port" || return
  IFS= read -r answer <&7
  exec 7>&-
  [ "$answer" = hello ]
}

rlJournalStart

ex_phase "A listener under a name of its own"
if [ -n "$ex_beakerlib" ]; then
  ex_run "rlFileBackup '$hosts'"
  rlAppendCleanup "rlFileRestore"
else
  ex_run "backup" "back up $hosts"
  rlAppendCleanup "restore"
fi
# The last line may lack its end.
ex_run "printf '\\n%s\\n' '127.0.0.1 $name' >>'$hosts'" "add a line to $hosts"

work=$BEAKERLIB_DIR/less-extreme
rlAppendCleanup "rm -rf '$work'"
mkdir "$work" || ex_give_up "no directory"
mkfifo "$work/port" || ex_give_up "no FIFO"
listen >"$work/port" &
listener=$!
IFS= read -r port <"$work/port"
[ -n "$port" ] || ex_give_up "no listener"
ex_run "[ \"\$(address)\" = 127.0.0.1 ]" "the name is known"
ex_run "talk" "the listener says hello"
ex_middle "$work $listener"
ex_run "talk" "and once more"
ex_phase_end

ex_phase_cleanup
ex_run "kill $listener" "stop the listener"
wait "$listener" 2>/dev/null
ex_phase_end

ex_end
