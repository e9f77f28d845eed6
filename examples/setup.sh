# Sourced by the bash examples: BeakerLib where BEAKERLIB names one, then the shim, then a few stand-ins,
# all of them called ex_*, for what a test lacks without BeakerLib.
# shellcheck shell=bash

ex_beakerlib=${BEAKERLIB:+yes}
if [ -n "$ex_beakerlib" ]; then
  # shellcheck source=/dev/null
  . "$BEAKERLIB/beakerlib.sh" || exit 1
fi
# RL_CLEANUP: the path of a program that is not in PATH.
ex_shim=$("${RL_CLEANUP:-rl-cleanup}" shim) || exit 1
eval "$ex_shim"
unset ex_shim

ex_failed=0

ex_phase() { # <title>
  if [ -n "$ex_beakerlib" ]; then
    rlPhaseStartTest "$1"
  else
    printf '\n:: %s\n' "$1"
  fi
}

ex_phase_cleanup() {
  if [ -n "$ex_beakerlib" ]; then
    rlPhaseStartCleanup
  else
    printf '\n:: Cleanup\n'
  fi
}

ex_phase_end() {
  [ -z "$ex_beakerlib" ] || rlPhaseEnd
}

ex_run() { # <command> [what it shows]
  local status
  if [ -n "$ex_beakerlib" ]; then
    rlRun "$1" 0 "${2-}"
    return
  fi
  eval "$1"
  status=$?
  if [ "$status" -eq 0 ]; then
    printf '   ok    %s\n' "${2:-$1}"
  else
    printf '   FAIL  %s (exit status %s)\n' "${2:-$1}" "$status"
    ex_failed=1
  fi
  return "$status"
}

ex_give_up() { # <why>
  if [ -n "$ex_beakerlib" ]; then
    rlFail "$1"
    rlPhaseEnd
    rlJournalEnd
  else
    printf '   FAIL  %s\n' "$1"
    rlJournalEnd
  fi
  exit 1
}

# Whoever started the example with EXAMPLE_READY reads there that it has got to its middle, and
# what it has made; EXAMPLE_HANG=1 makes it stay there until it is killed.
ex_middle() { # <what it has made>
  [ -z "${EXAMPLE_READY-}" ] || printf '%s\n' "$1" >"$EXAMPLE_READY"
  while [ -n "${EXAMPLE_HANG-}" ]; do
    sleep 1
  done
}

# The test's exit status; with BeakerLib its journal has the result.
ex_end() {
  rlJournalEnd
  if [ -n "$ex_beakerlib" ]; then
    rlGetTestState
    exit
  fi
  exit "$ex_failed"
}
