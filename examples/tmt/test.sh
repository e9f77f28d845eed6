#!/bin/bash
# A test under tmt: a service that must not outlive it, and a directory.
#
#     tmt run                                       # with rl-cleanup in PATH
#     tmt run --all tests --filter tag:-beakerlib   # without BeakerLib

if [ "${TMT_TEST_NAME-}" = /tests/beakerlib ]; then
  # shellcheck source=/dev/null
  . "${BEAKERLIB:-/usr/share/beakerlib}/beakerlib.sh" || exit 1
else
  rlPhaseStartTest() { echo ":: $1"; }
  rlPhaseEnd() { :; }
  rlRun() { eval "$1" || failed=1; }
fi
eval "$(rl-cleanup shim)" || exit 1

failed=0
rlJournalStart
rlPhaseStartTest "a directory and a service"
# A name first, then its removal, then the directory: a kill between two lines leaves nothing.
dir=$(mktemp -ud /var/tmp/tmt-example-XXXXXX)
rlRun "rlPrependCleanup 'rm -rf $dir'"
rlRun "mkdir $dir"

# In a session of its own, so that it outlives the test's process group.
rlRun "rlPrependCleanup 'kill \$(cat $dir/pid)'"
# shellcheck disable=SC2016 # for the inner shell
setsid sh -c 'echo $$ >"$1/pid.new" && mv "$1/pid.new" "$1/pid" && exec sleep 1000' sh "$dir" &
until [ -e "$dir/pid" ]; do sleep 0.1; done

rlRun "kill -0 \$(cat $dir/pid)"
# Whoever looks afterwards whether they are gone.
[ -z "${EXAMPLE_READY-}" ] || echo "$dir $(cat "$dir/pid")" >>"$EXAMPLE_READY"
rlPhaseEnd
rlJournalEnd
exit "$failed"
