# shellcheck shell=bash
# shellcheck disable=SC2154 # script.rs assigns what is not assigned here
# Part of every final script: runs the entries, whatever each of them does to the shell.
#
# An entry runs at the top level of the script. When it ends the shell (exit, set -e, ${x:?}, a
# signal), the EXIT trap hands the shell's state to the binary, which strikes the entry and writes a
# script with that state and the entries that are left; the trap then executes it. What is to
# outlive that change of shell is named __rlcx_keep_*.

__rlcx_call() { # <script subcommand> [option...]
  [[ -n $__rlcx_bin ]] || \builtin return 12
  (
    # A file size limit of the test's must not kill the binary, and no variable reach it: a
    # single one of more than 128 KiB would keep it from being executed at all.
    \builtin trap '' XFSZ
    \builtin exec -c "$__rlcx_bin" script "$1" --dir="$__rlcx_dir" --script="$__rlcx_self" --pid="$$" \
      ${__rlcx_counts:+--now} ${TESTWATCHER_CLPATH:+"--clpath=$TESTWATCHER_CLPATH"} ${SUDO_UID:+"--sudo-uid=$SUDO_UID"} "${@:2}"
  )
}

__rlcx_dump() { # prints this shell's state, as __rlc_dump of the shim does
  \builtin enable alias declare printf shopt umask
  \builtin set +evxu
  \builtin trap - DEBUG ERR RETURN
  # POSIX mode changes options without telling BASHOPTS; any use of shopt makes it right again.
  if \builtin shopt -q cdspell; then \builtin shopt -s cdspell; else \builtin shopt -u cdspell; fi
  \builtin printf '\0rl-cleanup-stream-2\0\0%s\0%s\0%s\0' "$__rlcx_bash" "$BASHOPTS" "$SHELLOPTS"
  \builtin umask
  \builtin printf '\0'
  \builtin alias -p
  \builtin printf '\0'
  \builtin declare -p
  \builtin printf '\0'
  \builtin declare -f
  \builtin printf '\0end\0'
}

__rlcx_go_on() { # [option...]  goes on in a new shell, with this one's state
  \builtin trap - EXIT
  __rlcx_dump 2>/dev/null | __rlcx_call resume "$@"
  case $? in
    0) \builtin exec "$__rlcx_bash" "$__rlcx_self" --resume ;;
    13) \builtin exit 0 ;;
  esac
  __rlcx_go_on_alone
}

__rlcx_go_on_alone() { # the same without the binary: what entries have set is lost
  \builtin local __rlcx_lines
  \builtin mapfile -t __rlcx_lines <"$__rlcx_self"
  ((${#__rlcx_lines[@]} > 0)) || \builtin exit 0
  \builtin set +C
  if \builtin printf '%s\n' "${__rlcx_lines[@]:0:__rlcx_head_lines}" "${__rlcx_lines[@]:__rlcx_after}" \
    >"$__rlcx_self"; then
    \builtin exec "$__rlcx_bash" "$__rlcx_self" --resume
  fi
  \builtin exit 1
}

__rlcx_begin() { # [--resume | --bare]
  __rlcx_how=${1-}
  __rlcx_stage=open
  __rlcx_id=
  __rlcx_after=$__rlcx_head_lines
  [[ -n $__rlcx_how ]] || __rlcx_keep_failed=0 __rlcx_keep_trap='' __rlcx_keep_stuck=''
  if [[ ! -x $__rlcx_bin ]]; then
    __rlcx_bin=${RL_CLEANUP-}
    [[ -x $__rlcx_bin ]] || __rlcx_bin=$(\builtin type -P rl-cleanup)
  fi
  \builtin trap '__rlcx_exit "$?"' EXIT
  __rlcx_call begin --fingerprint="$__rlcx_fingerprint" ${TESTWATCHER_OUTCOME:+--patient}
  case $? in
    10)
      if [[ $__rlcx_how != *again ]]; then
        \builtin trap - EXIT
        \builtin exec "$__rlcx_bash" "$__rlcx_self" "${__rlcx_how:---first}-again"
      fi
      ;;
    13)
      \builtin trap - EXIT
      \builtin exit 0
      ;;
    14) # another process runs this buffer's entries
      \builtin trap - EXIT
      \builtin exit 1
      ;;
  esac
  case $__rlcx_how in
    '' | --first*) __rlcx_open ;;
    --resume*) __rlcx_reopen ;;
  esac
  __rlcx_stage=between
}

__rlcx_open() { # starts the journal and the cleanup's phase
  [[ -n $__rlcx_journal ]] || \builtin return 0
  # BeakerLib's function writes its own script's path into that file, whoever is hooked there.
  \builtin local __rlcx_clpath __rlcx_n
  __rlcx_clpath=${TESTWATCHER_CLPATH-}
  TESTWATCHER_CLPATH=
  rlJournalStart
  TESTWATCHER_CLPATH=$__rlcx_clpath
  [[ -n $__rlcx_clpath ]] || \builtin unset -v TESTWATCHER_CLPATH
  # A phase that the killed test left open keeps its failed asserts only if it is closed.
  for ((__rlcx_n = 0; __rlcx_n < 100; ++__rlcx_n)); do
    [[ ${__INTERNAL_PHASE_OPEN-} == [1-9]* ]] || \builtin break
    rlPhaseEnd
  done
  rlPhaseStartCleanup
  case ${TESTWATCHER_OUTCOME-ended} in
    ended*) ;;
    *) rlFail "The test did not end by itself: $TESTWATCHER_OUTCOME" ;;
  esac
}

__rlcx_reopen() { # a new shell in mid-cleanup: the journal runs, its phase may have been closed
  [[ -n $__rlcx_journal ]] || \builtin return 0
  [[ ${__INTERNAL_PHASE_OPEN-} == [1-9]* ]] || rlPhaseStartCleanup
}

__rlcx_entry() { # <id> <next id> <line of the script behind this entry>
  __rlcx_id=$1
  __rlcx_next=$2
  __rlcx_after=$3
  __rlcx_stage=entry
}

# An entry's 'enable -n' must not take away what the others are run with.
__rlcx_enable() {
  \builtin enable eval exec exit local return set trap true
}

__rlcx_end() { # <status>
  __rlcx_enable
  \builtin set +eu
  __rlcx_stage=between
  (($1 == 0)) || ((++__rlcx_keep_failed))
  if [[ -o posix ]]; then
    # Here 'trap' in an entry was the builtin, not the function below.
    case $(\builtin trap -p EXIT) in
      *__rlcx_exit*) ;;
      *'trap -- '*EXIT*) __rlcx_keep_trap=$(\builtin trap -p EXIT) ;;
    esac
  fi
  \builtin trap '__rlcx_exit "$?"' EXIT
  __rlcx_call strike --id="$__rlcx_id" --status="$1" ${__rlcx_next:+"--next=$__rlcx_next"}
  case $? in
    0) ;;
    10) __rlcx_go_on ;;
    *) __rlcx_keep_stuck=1 ;;
  esac
}

__rlcx_exit() { # <status>  the EXIT trap
  __rlcx_enable
  \builtin trap - EXIT
  \builtin set +eux
  case $__rlcx_stage in
    entry)
      (($1 == 0)) || ((++__rlcx_keep_failed))
      __rlcx_go_on --id="$__rlcx_id" --status="$1"
      ;;
    open | between)
      # The journal's own functions gave up. The entries do not need them.
      \builtin exec "$__rlcx_bash" "$__rlcx_self" --bare
      ;;
    trap) __rlcx_close ;;
    close)
      __rlcx_empty
      \builtin exit "$1"
      ;;
  esac
}

# An entry's EXIT trap is run when all entries have run.
\builtin declare -F trap >/dev/null || trap() {
  if ((BASH_SUBSHELL > 0 || $# == 0)) || [[ $1 == -[lp]* ]]; then
    # shellcheck disable=SC2064 # the text is the caller's, who has quoted it
    \builtin trap "$@"
    \builtin return
  fi
  [[ $1 != -- ]] || \builtin shift
  # With one word, or a number first, all of them are signals to be reset.
  if (($# == 1)) || [[ ${1-} && ${1-} != *[!0-9]* ]]; then \builtin set -- - "$@"; fi
  \builtin local __rlcx_signal __rlcx_action __rlcx_others
  __rlcx_action=$1 __rlcx_others=()
  for __rlcx_signal in "${@:2}"; do
    case $__rlcx_signal in
      EXIT | exit | 0)
        __rlcx_keep_trap=$__rlcx_action
        [[ $__rlcx_action != - ]] || __rlcx_keep_trap=
        ;;
      *) __rlcx_others[${#__rlcx_others[@]}]=$__rlcx_signal ;;
    esac
  done
  # shellcheck disable=SC2064 # the text is the caller's, who has quoted it
  ((${#__rlcx_others[@]} == 0)) || \builtin trap -- "$__rlcx_action" "${__rlcx_others[@]}"
}
[[ $(\builtin declare -f trap) != *__rlcx_keep_trap* ]] || \builtin declare -ft trap

__rlcx_traps() { # all entries have run
  __rlcx_stage='trap'
  __rlcx_id=
}

__rlcx_close() {
  \builtin set +eu
  __rlcx_stage=close
  \builtin local __rlcx_status
  __rlcx_status=0
  if [[ -n $__rlcx_journal ]]; then
    [[ ${__INTERNAL_PHASE_OPEN-} != [1-9]* ]] || rlPhaseEnd
    rlJournalEnd
    __rlcx_status=$?
  elif [[ -n $__rlcx_counts ]]; then
    ((__rlcx_keep_failed == 0)) || __rlcx_status=1
  fi
  __rlcx_empty
  __rlcx_stage='done'
  \builtin trap - EXIT
  \builtin exit "$__rlcx_status"
}

__rlcx_empty() { # a finished cleanup never runs again
  # An entry that has run but could not be struck would look like a new one.
  if [[ -z $__rlcx_keep_stuck ]]; then
    __rlcx_call finish
    case $? in
      0) \builtin return ;;
      10) __rlcx_go_on ;;
    esac
  fi
  [[ -z $__rlcx_counts ]] || \builtin return
  \builtin set +C
  \builtin true >"$__rlcx_dir/clbuff"
  \builtin true >"$__rlcx_self"
}
