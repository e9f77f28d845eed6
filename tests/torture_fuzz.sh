#!/bin/bash
# Every parser under libFuzzer, RL_CLEANUP_FUZZ_SECONDS (600) each, two at a time: `make torture PART=fuzz`.
#
# The seeds in fuzz/seeds are where each one starts; what it learns stays in fuzz/corpus. An input that made a
# parser crash, hang or take a gigabyte is left in fuzz/artifacts, and counted as lost.
set -u
cd "$(dirname "$0")/.." || exit 1

seconds=${RL_CLEANUP_FUZZ_SECONDS:-600}
# Long enough for a line and its neighbours; what is longer is a matter of tests/torture_parsers.rs.
length=16384

skip() { # <reason>
  echo "skipped: $1"
  [ -z "${RL_CLEANUP_SKIPS-}" ] || echo "torture fuzz: $1" >>"$RL_CLEANUP_SKIPS"
  exit 0
}

command -v cargo >/dev/null || skip "cargo is not installed"
cargo +nightly --version >/dev/null 2>&1 || skip "no nightly toolchain (rustup toolchain install nightly)"
cargo fuzz --version >/dev/null 2>&1 || cargo install --quiet --locked cargo-fuzz ||
  skip "cargo-fuzz is not installed, and cannot be"

# The parsers have no unsafe code for a sanitizer to look at; without one they run twice as often.
host=$(rustc -vV | sed -n 's/^host: //p')
CARGO_TARGET_DIR=$PWD/fuzz/target cargo +nightly fuzz build --sanitizer none || exit 1

one() { # <target>  prints and writes its row; 1 if something was lost
  local target=$1 log status tried row lost=0 began=$SECONDS
  log=fuzz/target/$target.log
  mkdir -p "fuzz/corpus/$target" "fuzz/artifacts/$target"
  "fuzz/target/$host/release/$target" -max_total_time="$seconds" -timeout=10 -rss_limit_mb=1024 \
    -max_len="$length" -print_final_stats=1 -artifact_prefix="fuzz/artifacts/$target/" \
    "fuzz/corpus/$target" "fuzz/seeds/$target" >"$log" 2>&1
  status=$?
  tried=$(sed -n 's/^stat::number_of_executed_units: *//p' "$log" | tail -n 1)
  if [ "$status" -ne 0 ] || [ "${tried:-0}" -eq 0 ]; then
    lost=1
    tail -n 40 "$log"
  fi
  row="fuzz-$target\t${tried:-0}\t$lost\t$((SECONDS - began)).0\n"
  echo "torture: fuzz-$target: ${tried:-0} tried, $lost lost, $((SECONDS - began)).0 s"
  # In one write, as two run side by side.
  # shellcheck disable=SC2059 # the row is the format
  [ -z "${RL_CLEANUP_TORTURE_TABLE-}" ] || printf "$row" >>"$RL_CLEANUP_TORTURE_TABLE"
  return "$lost"
}

status=0 running=0
for file in fuzz/targets/*.rs; do
  target=${file##*/}
  one "${target%.rs}" &
  running=$((running + 1))
  if [ "$running" -ge 2 ]; then
    wait -n || status=1
    running=$((running - 1))
  fi
done
while [ "$running" -gt 0 ]; do
  wait -n || status=1
  running=$((running - 1))
done
exit "$status"
