#!/bin/bash
# What a watcher costs: start-up over the bare command, memory, and the way from SIGHUP to the cleanup's
# first line, side by side in one run. Usage: benches/watch.sh [DIRECTORY OF OUR BINARIES]
#
# Every figure is the median of interleaved rounds, so that a machine that slows down slows all alike.
# The original is measured where `beakerlib-testwatcher` of a BeakerLib is found: in $ORIGINAL, else
# beside $BEAKERLIB. setsid and tini are measured where they are installed.
set -u
export LC_ALL=C
here=$(cd "$(dirname "$0")/.." && pwd)
bin=${1:-$here/target/release}
watcher=$bin/beakerlib-testwatcher
rounds=${ROUNDS:-200}
missed=0
original=${ORIGINAL:-${BEAKERLIB:+$BEAKERLIB/../../bin/beakerlib-testwatcher}}
work=$(mktemp -d) || exit 1
trap 'rm -rf "$work"' EXIT
cd "$work" || exit 1
unset TESTWATCHER_CLPATH TASKID
[ -x "$watcher" ] || {
  echo "benches/watch.sh: no $watcher: run 'make build' first" >&2
  exit 1
}

median() { # <file>: the median of its numbers
  sort -n "$1" | sed -n "$((($(wc -l <"$1") + 1) / 2))p"
}

# Microseconds of one run, appended to FILE.
once() { # <file> <command> [arg...]
  local file=$1 start end
  shift
  start=${EPOCHREALTIME/./}
  "$@" >/dev/null 2>&1
  end=${EPOCHREALTIME/./}
  echo $((end - start)) >>"$file"
}

ratio() { # <a> <b>
  printf '%d.%02d' $(($1 / $2)) $(($1 * 100 / $2 % 100))
}

true=$(type -P true)
names=(bare ours timeout)
declare -A command=([bare]="$true" [ours]="$watcher $true" [timeout]="timeout 100 $true")
if type -P setsid >/dev/null; then
  names+=(setsid)
  command[setsid]="setsid -w $true"
fi
if type -P tini >/dev/null; then
  names+=(tini)
  command[tini]="tini -s -- $true"
fi

for ((i = 0; i < rounds; i++)); do
  for name in "${names[@]}"; do
    # shellcheck disable=SC2086 # words of our own
    once "start.$name" ${command[$name]}
  done
done
if [ -n "$original" ] && [ -x "$original" ]; then
  names+=(original)
  for ((i = 0; i < 20; i++)); do once start.original "$original" "$true"; done
fi

bare=$(median start.bare)
ours=$(($(median start.ours) - bare))
echo "Start-up over the bare command ($bare us), median of $rounds:"
for name in "${names[@]:1}"; do
  over=$(($(median "start.$name") - bare))
  goal=
  case $name in
    timeout) goal='  (goal: at most 1.50)' most=150 ;;
    original) goal='  (goal: at most 0.10)' most=10 ;;
    *) most=0 ;;
  esac
  printf '  %-10s %7d us   ours is %s of it%s\n' "$name" "$over" "$(ratio "$ours" "$over")" "$goal"
  [ "$most" -eq 0 ] || [ $((ours * 100)) -le $((over * most)) ] || missed=1
done

# From SIGHUP to the first line of a bash cleanup; the test is a bash that hangs.
cat >test.sh <<'EOF'
#!/bin/bash
echo "$PWD/cleanup.sh" >"$TESTWATCHER_CLPATH"
echo up >up
read -r _ <gate
EOF
cat >cleanup.sh <<'EOF'
#!/bin/bash
echo "${EPOCHREALTIME/./}" >first
EOF
cat >plain.sh <<'EOF'
#!/bin/bash
echo "${EPOCHREALTIME/./}" >first
EOF
chmod +x test.sh cleanup.sh plain.sh
mkfifo gate up
for ((i = 0; i < 50; i++)); do
  "$watcher" ./test.sh >/dev/null 2>&1 &
  read -r _ <up
  start=${EPOCHREALTIME/./}
  kill -HUP $!
  wait $!
  read -r line <first
  echo $((line - start)) >>hup
  start=${EPOCHREALTIME/./}
  ./plain.sh
  read -r line <first
  echo $((line - start)) >>plain
done
hup=$(median hup)
plain=$(median plain)
[ $((hup - plain)) -lt 10000 ] || missed=1
echo "From SIGHUP to the cleanup's first line, median of 50: $hup us; bash's own start: $plain us; beyond it: $((hup - plain)) us  (goal: below 10000)"

# From a SIGKILL of the watcher to the first line of the cleanup that its guard runs.
for ((i = 0; i < 30; i++)); do
  rm -f first
  "$watcher" ./test.sh >/dev/null 2>&1 &
  read -r _ <up
  start=${EPOCHREALTIME/./}
  kill -KILL $!
  wait $! 2>/dev/null
  until [ -s first ]; do :; done
  read -r line <first
  echo $((line - start)) >>lost
  while pgrep -x "tw-guard-.*" >/dev/null; do :; done
done 2>/dev/null
lost=$(median lost)
echo "From SIGKILL of the watcher to its guard's cleanup, median of 30: $lost us  (goal: below 100000)"
[ "$lost" -lt 100000 ] || missed=1

# Peak memory while a test runs.
"$watcher" ./test.sh >/dev/null 2>&1 &
watcher_pid=$!
read -r _ <up
for pid in "$watcher_pid" $(pgrep -P "$watcher_pid" tw-guard); do
  kib=$(sed -n 's/^VmHWM:[[:space:]]*\([0-9]*\).*/\1/p' "/proc/$pid/status")
  what=watcher
  [ "$pid" = "$watcher_pid" ] || what=guard
  echo "Peak memory of the $what: $kib KiB  (goal: below 4096)"
  [ "$kib" -lt 4096 ] || missed=1
done
echo go >gate
wait

# Where one is a link to the other, they are one file.
size=$(stat -L -c '%d:%i %s' "$bin/rl-cleanup" "$watcher" | sort -u | awk '{ sum += $2 } END { print sum }')
echo "Size of both programs together: $((size / 1024)) KiB  (goal: below 3072)"
[ "$size" -lt $((3072 * 1024)) ] || missed=1
[ "$missed" -eq 0 ] || echo "benches/watch.sh: a goal was missed" >&2
exit "$missed"
