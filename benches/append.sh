#!/bin/bash
# What one append costs, beside BeakerLib's own append and beside what bash alone needs to write the
# same snapshot into a pipe. All in one run, in one real BeakerLib session.
#
# Usage: benches/append.sh [PATH OF rl-cleanup]; needs BEAKERLIB. Prints a table and two ratios;
# exits 1 if a goal is missed.
# Goals: at most 1.5 times bash's own cost, at least 50 times less than BeakerLib's.
set -u

here=$(cd "$(dirname "$0")/.." && pwd)
RL_CLEANUP=${1:-$(command -v rl-cleanup || echo "$here/target/release/rl-cleanup")}
export RL_CLEANUP
if [[ ! -r ${BEAKERLIB:-/nonexistent}/beakerlib.sh ]]; then
  echo "benches/append.sh: skipped: BEAKERLIB names no BeakerLib"
  exit 0
fi
if [[ ! -x $RL_CLEANUP ]]; then
  echo "benches/append.sh: $RL_CLEANUP is missing: cargo build --release" >&2
  exit 1
fi

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# Each measurement is the median of several rounds in microseconds, so that a busy machine does not
# decide the result; the three sides take turns for the same reason.
cat >"$work/measure.sh" <<'MEASURE'
microseconds() { # <command...>  sets $taken
	local from=${EPOCHREALTIME/[.,]/}
	"$@" >/dev/null 2>&1
	taken=$((${EPOCHREALTIME/[.,]/} - from))
}
median() { # <numbers...>
	printf '%s\n' "$@" | sort -n | sed -n "$((($# + 1) / 2))p"
}
bash_alone() { { declare -p; declare -f; } | cat >/dev/null; }
fill() { # <how many variables there are to be more>
	local n
	for ((n = 0; n < $1; ++n)); do declare -g "bench_variable_$n=value number $n of some length"; done
}
milliseconds() { printf '%d.%02d ms' $(($1 / 1000)) $(($1 % 1000 / 10)); }
MEASURE

# BeakerLib's own function, in a session without the shim.
cat >"$work/theirs.sh" <<'THEIRS'
. "$WORK/measure.sh"
. "$BEAKERLIB/beakerlib.sh" >/dev/null 2>&1
rlJournalStart >/dev/null 2>&1
export __INTERNAL_TESTWATCHER_ACTIVE=true
fill "$VARIABLES"
all=()
for ((round = 0; round < ROUNDS; ++round)); do
	microseconds rlCleanupAppend 'true'
	all+=("$taken")
done
median "${all[@]}"
THEIRS

cat >"$work/ours.sh" <<'OURS'
. "$WORK/measure.sh"
. "$BEAKERLIB/beakerlib.sh" >/dev/null 2>&1
. "$SHIM"
rlJournalStart >/dev/null 2>&1
fill "$VARIABLES"
for ((entry = 1; entry < ENTRIES; ++entry)); do echo "true $entry" >>"$WORK/entries"; done
if ((ENTRIES > 1)); then
	# Many entries at once: one append each would take the bench's time and measure nothing.
	n=0
	while read -r text; do printf '#rl-cleanup: id=%s time=1 bytes=%d\n%s\n' "$(id_of $((n++)))" ${#text} "$text"; done \
		<"$WORK/entries" >"$BEAKERLIB_DIR/clbuff"
	rm "$WORK/entries"
fi
export __INTERNAL_TESTWATCHER_ACTIVE=true
ours=() alone=()
for ((round = 0; round < ROUNDS; ++round)); do
	microseconds bash_alone
	alone+=("$taken")
	microseconds rlCleanupAppend 'true'
	ours+=("$taken")
done
echo "$(median "${ours[@]}") $(median "${alone[@]}") $(compgen -v | wc -l) $(declare -F | wc -l)"
OURS
cat >>"$work/measure.sh" <<'IDS'
id_of() { # <number>  an id that no other number has
	local letters=abcdefghjkmnpqrstuvwxyz23456789 number=$1 id='' n
	for ((n = 0; n < 6; ++n)); do id+=${letters:number%31:1} number=$((number / 31)); done
	echo "$id"
}
IDS

run() { # <script> <variables> <entries> <rounds>
  BEAKERLIB_DIR=$(mktemp -d "$work/state.XXXXXX") TESTID='' WORK=$work SHIM=$here/shell/rl-cleanup.sh \
  VARIABLES=$2 ENTRIES=$3 ROUNDS=$4 bash "$work/$1.sh" 2>/dev/null
}
# shellcheck disable=SC1091 # it is written above
. "$work/measure.sh"

ratio() { printf '%d.%02d' $(($1 / $2)) $(($1 * 100 / $2 % 100)); }

read -r ours alone variables functions < <(run ours 0 1 41)
theirs=$(run theirs 0 1 5)
printf 'A real BeakerLib session: %d variables, %d functions\n' "$variables" "$functions"
printf '  %-36s %12s\n' "bash alone, into a pipe" "$(milliseconds "$alone")" \
  "rl-cleanup append" "$(milliseconds "$ours")" "BeakerLib append" "$(milliseconds "$theirs")"
printf '  rl-cleanup / bash alone  %s  (goal: at most 1.50)\n' "$(ratio "$ours" "$alone")"
printf '  BeakerLib / rl-cleanup   %s  (goal: at least 50)\n' "$(ratio "$theirs" "$ours")"

missed=0
((ours * 100 <= alone * 150 && theirs >= ours * 50)) || missed=1

echo "By variables (1 entry)"
for more in 100 1000 5000; do
  read -r ours alone _ < <(run ours "$more" 1 11)
  printf '  %5d more %15s, bash alone %s, ratio %s\n' "$more" "$(milliseconds "$ours")" "$(milliseconds "$alone")" \
    "$(ratio "$ours" "$alone")"
done
echo "By entries (variables as above)"
for entries in 1 100 1000; do
  read -r ours alone _ < <(run ours 0 "$entries" 11)
  printf '  %5d %20s, bash alone %s, ratio %s\n' "$entries" "$(milliseconds "$ours")" "$(milliseconds "$alone")" \
    "$(ratio "$ours" "$alone")"
done
((missed == 0)) || echo "benches/append.sh: a goal was missed"
exit "$missed"
