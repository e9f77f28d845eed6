#!/bin/bash
# ~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~
#   rl-cleanup's shim as a BeakerLib library:
#       rlImport rl-cleanup/cleanup
#   See rl-cleanup-shim(7).
# ~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~
#   library-prefix = rlCleanup
# ~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~

# The verifier: BeakerLib calls it after it has read this file.
rlCleanupLibraryLoaded() {
  if [[ $(builtin declare -f rlCleanupRun) == *__rlc_* ]]; then
    builtin return 0
  fi
  rlLogError "rl-cleanup/cleanup: neither the shim nor the program 'rl-cleanup' was found: set RL_CLEANUP to the program's path"
  builtin return 1
}

# Where make install puts the shim, where the sources have it, and what the program itself carries.
# A plugin of BeakerLib's may have loaded it before.
if [[ $(builtin declare -f rlCleanupRun) == *__rlc_* ]]; then
  builtin :
elif [[ -f ${BASH_SOURCE[0]%/*}/../../../rl-cleanup/rl-cleanup.sh ]]; then
  # shellcheck source=shell/rl-cleanup.sh
  builtin . "${BASH_SOURCE[0]%/*}/../../../rl-cleanup/rl-cleanup.sh"
elif [[ -f ${BASH_SOURCE[0]%/*}/../../rl-cleanup.sh ]]; then
  builtin . "${BASH_SOURCE[0]%/*}/../../rl-cleanup.sh"
elif builtin type -P "${RL_CLEANUP:-rl-cleanup}" >/dev/null; then
  builtin eval "$("${RL_CLEANUP:-rl-cleanup}" shim)"
fi
