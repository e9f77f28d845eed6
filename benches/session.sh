# shellcheck shell=bash
# A test's shell that answers what a cleanup function costs in it. benches/append.py asks, one line a
# question on standard input, and gets one line each:
#   count         how many variables and functions there are
#   fill NUMBER   makes so many variables more than at the start
#   alone         microseconds that bash needs to write its state into a pipe
#   append, prepend  microseconds of one call
#
# Usage: bash session.sh ours|theirs; 'theirs' are BeakerLib's own functions, with no shim loaded.
set +m
exec 3>&1 >/dev/null 2>&1

# shellcheck disable=SC1090,SC1091 # neither of them is a file of this directory
[[ -z ${BEAKERLIB-} ]] || . "$BEAKERLIB/beakerlib.sh"
# shellcheck disable=SC1090
[[ $1 == theirs ]] || . "$SHIM"
rlJournalStart

bench_alone() { { declare -p && declare -f; } | cat >/dev/null; }

bench_measure() { # <command> [arg...]  answers microseconds
  local from=${EPOCHREALTIME/[.,]/} to status
  "$@" </dev/null
  status=$?
  to=${EPOCHREALTIME/[.,]/}
  if ((status == 0)); then echo $((to - from)) >&3; else echo "$1: exit status $status" >&3; fi
}

bench_filled=0
while read -r bench_word bench_number; do
  case $bench_word in
    count) echo "$(compgen -v | wc -l) $(declare -F | wc -l)" >&3 ;;
    fill)
      for (( ; bench_filled < bench_number; ++bench_filled)); do
        declare -g "bench_variable_$bench_filled=value number $bench_filled of some length"
      done
      echo 0 >&3
      ;;
    alone) bench_measure bench_alone ;;
    append) bench_measure rlCleanupAppend 'true' ;;
    prepend) bench_measure rlCleanupPrepend 'true' ;;
  esac
done
