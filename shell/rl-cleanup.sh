# shellcheck shell=bash
# rl-cleanup's shim for bash 4.2 and later: only what bash alone can do, then the binary.
#
# Source it after beakerlib.sh, put it into BeakerLib's plugins/ directory, or use it alone:
#   eval "$(rl-cleanup shim)"
# See rl-cleanup-shim(7).
#
# Every name here starts with __rlc_ (locals: __rlcl_), except the functions a test calls. Builtins
# are called through 'builtin' and no program is looked up in PATH, so that a function of the test's
# called printf, or an empty PATH, makes no difference. No argument looks like an assignment: with
# 'set -k' it would be taken for one.

# ---------------------------------------------------------------- the binary

__rlc_find() { # sets __rlc_bin; 1 if there is no binary
  builtin local __rlcl_beside __rlcl_path
  __rlcl_beside=${BASH_SOURCE[0]-}
  __rlcl_beside=${__rlcl_beside%/*}
  for __rlcl_path in "${RL_CLEANUP-}" "${__rlc_baked-}" \
    "$__rlcl_beside/rl-cleanup" "$__rlcl_beside/../../bin/rl-cleanup"; do
    if [[ $__rlcl_path == */* && -f $__rlcl_path && -x $__rlcl_path ]]; then
      __rlc_bin=$__rlcl_path
      builtin return 0
    fi
  done
  __rlc_bin=$(
    { __rlc_calm; } >/dev/null
    builtin type -P rl-cleanup
  ) || builtin return 1
}

# An exported value of more than 128 KiB would keep the binary from being executed at all, and a
# hostile LD_PRELOAD would break it: it gets no environment, and what it needs as options. They come
# first, since a '--' of the caller's ends all options.
__rlc_exec() { # <subcommand> [option...]  replaces this (sub)shell
  builtin trap '' XFSZ
  builtin exec -c "$__rlc_bin" "$1" ${BEAKERLIB_DIR:+"--dir=$BEAKERLIB_DIR"} \
    ${TESTWATCHER_CLPATH:+"--clpath=$TESTWATCHER_CLPATH"} ${SUDO_UID:+"--sudo-uid=$SUDO_UID"} \
    ${XDG_RUNTIME_DIR:+"--runtime-dir=$XDG_RUNTIME_DIR"} "${@:2}"
}

# With 'set -T' a DEBUG trap of the test's prints into whatever is being captured.
__rlc_calm() {
  builtin trap - DEBUG ERR RETURN
}

__rlc_send() { # <text> <subcommand> [option...]  this shell's state, through a pipe to the binary
  # Parentheses: with 'shopt -s lastpipe' the last command of a pipe is no subshell.
  __rlc_dump "$1" 2>/dev/null | (__rlc_exec "$2" --shell "${@:3}")
}

__rlc_dump() { # <text>  prints text and state, each section ended by NUL (src/cleanup/snapshot.rs)
  builtin set +evxu
  __rlc_calm
  # POSIX mode changes options without telling BASHOPTS; any use of shopt makes it right again.
  if builtin shopt -q cdspell; then builtin shopt -s cdspell; else builtin shopt -u cdspell; fi
  builtin printf '\0rl-cleanup-stream-2\0%s\0%s\0%s\0%s\0' "$1" "$BASH" "$BASHOPTS" "$SHELLOPTS"
  builtin umask
  builtin printf '\0'
  builtin alias -p
  builtin printf '\0'
  # One call each: bash takes twice as long for one call a name.
  builtin declare -p
  builtin printf '\0'
  builtin declare -f
  builtin printf '\0end\0'
}

# ---------------------------------------------------------------- where we are

__rlc_in_cleanup() { # whether this is the final script, or a part of it
  [[ -n ${__INTERNAL_CLEANUP_FROM_JOURNALEND-} ]]
}

__rlc_watched() { # whether a watcher will run the cleanup
  [[ -n ${__INTERNAL_TESTWATCHER_ACTIVE-} ]] ||
    [[ -z ${__rlc_started-} && -n ${TESTWATCHER_CLPATH-} && -f $TESTWATCHER_CLPATH ]]
}

__rlc_alive() { # whether that watcher still lives
  __rlc_watched && (__rlc_exec script alive)
}

__rlc_has() { # <function>
  builtin declare -F "$1" >/dev/null
}

__rlc_say() { # <BeakerLib's function for it> <message>
  if __rlc_has "$1"; then
    "$1" "$2"
  else
    builtin printf '%s\n' "$2" >&2
  fi
}

# ---------------------------------------------------------------- entries

__rlc_add() { # <public function> <append|prepend> <option or ''> [text...]
  builtin local __rlcl_status
  rlCleanupID=''
  if (($# < 4)); then
    __rlc_say rlLogError "$1: not enough arguments"
    builtin return 1
  elif (($# > 4)); then
    __rlc_say rlLogError "$1: one text expected, got $(($# - 3)) arguments: quote it"
    builtin return 1
  elif __rlc_has __rlc_own_rlJournalStart && [[ ! -f ${__INTERNAL_CLEANUP_BUFF-} ]]; then
    __rlc_say rlLogError "$1: cleanup metadata not initialized"
    builtin return 1
  fi
  __rlc_in_cleanup || __rlc_watched || __rlc_warn "$1"
  __rlcl_status=11
  while ((__rlcl_status == 11)); do # the id is taken
    __rlcl_status=0
    __rlc_new_id
    __rlc_send "$4" "$2" --id="$rlCleanupID" ${3:+"$3"} || __rlcl_status=$?
  done
  if ((__rlcl_status != 0)); then
    rlCleanupID=''
    builtin return 1
  fi
}

# A fork and a pipe to ask the binary for an id would cost as much as all of its own work. RANDOM is
# the test's: each use of it would change what the test draws next.
__rlc_new_id() { # sets rlCleanupID
  builtin local __rlcl_number __rlcl_letters
  builtin printf -v __rlcl_number '%(%s)T' -1
  ((__rlc_count = ${__rlc_count:-0} + 1))
  ((__rlcl_number = (__rlcl_number * 2654435761 + BASHPID * 40503 + __rlc_count * 69069) & 0x7fffffffff)) || builtin true
  __rlcl_letters=abcdefghjkmnpqrstuvwxyz23456789
  rlCleanupID=''
  while ((${#rlCleanupID} < 6)); do
    rlCleanupID+=${__rlcl_letters:__rlcl_number%31:1}
    ((__rlcl_number /= 31)) || builtin true
  done
}

__rlc_warn() { # <public function>  once a journal, in BeakerLib's words
  __rlc_arm
  [[ -z ${__rlc_warned-} ]] || builtin return 0
  __rlc_warned=1
  __rlc_say rlLogWarning "$1: Running outside of the test watcher"
  __rlc_say rlLogWarning "$1: Check your 'run' target in the test Makefile"
  __rlc_say rlLogWarning "$1: Cleanup will be executed only if rlJournalEnd is called properly"
}

__rlc_define() {
  rlAppendCleanup() { __rlc_add rlAppendCleanup append '' "$@"; }
  rlPrependCleanup() { __rlc_add rlPrependCleanup prepend '' "$@"; }
  rlCleanupAppend() { __rlc_add rlCleanupAppend append '' "$@"; }
  rlCleanupPrepend() { __rlc_add rlCleanupPrepend prepend '' "$@"; }
  # What is prepended from now on runs with 'rlCleanupRun --to-mark'; the mark itself does nothing.
  rlCleanupMark() { __rlc_add rlCleanupMark prepend --mark ': mark'; }
  rlCleanupRemove() { (__rlc_exec remove "$@"); }
  rlCleanupRun() { __rlc_send '' run "$@"; }
  rlCleanupList() { (builtin exec "$__rlc_bin" list ${BEAKERLIB_DIR:+"--dir=$BEAKERLIB_DIR"} "$@"); }
  rlJournalStart() { __rlc_start "$@"; }
  rlJournalEnd() { __rlc_end "$@"; }
}

# ---------------------------------------------------------------- the journal

__rlc_start() { # rlJournalStart
  # A variable, since "${x#*$'\n'}" depends on 'shopt -s extquote'.
  builtin local __rlcl_status __rlcl_clpath __rlcl_found __rlcl_newline __rlcl_guessed
  __rlcl_newline=$'\n'
  __rlcl_status=0 __rlcl_clpath=${TESTWATCHER_CLPATH-} __rlcl_found='' __rlcl_guessed=''
  if __rlc_in_cleanup; then
    if __rlc_has __rlc_own_rlJournalStart; then __rlc_own_rlJournalStart "$@" || __rlcl_status=$?; fi
    builtin return "$__rlcl_status"
  fi
  __rlc_started=1 __rlc_warned='' __rlc_ended='' __rlc_untrusted=''
  if [[ -z ${BEAKERLIB_DIR-} && -n ${TESTID-} ]]; then
    BEAKERLIB_DIR=/var/tmp/beakerlib-$TESTID
    __rlcl_guessed=1
  fi
  # Made here, and not by BeakerLib under whatever umask the test has.
  __rlc_prepare || __rlcl_status=$?
  if [[ $__rlcl_status == 4 && -n $__rlcl_guessed ]]; then
    # Anybody can guess that name, and BeakerLib sources a file it finds there (PersistentData).
    __rlcl_status=0 BEAKERLIB_DIR=''
    __rlc_prepare || __rlcl_status=$?
    builtin printf '%s\n' "rl-cleanup: the journal goes to '$BEAKERLIB_DIR' instead" >&2
  fi
  ((__rlcl_status == 0)) || __rlc_untrusted=1
  __rlcl_status=0
  builtin export BEAKERLIB_DIR
  if __rlc_has __rlc_own_rlJournalStart; then
    # BeakerLib's function would take the hook away from whoever has it.
    TESTWATCHER_CLPATH=''
    __rlc_own_rlJournalStart "$@" || __rlcl_status=$?
    TESTWATCHER_CLPATH=$__rlcl_clpath
    [[ -n $__rlcl_clpath ]] || builtin unset -v TESTWATCHER_CLPATH
  fi
  __INTERNAL_CLEANUP_FINAL=$BEAKERLIB_DIR/cleanup.sh
  __INTERNAL_CLEANUP_BUFF=$BEAKERLIB_DIR/clbuff
  builtin export __INTERNAL_CLEANUP_FINAL __INTERNAL_CLEANUP_BUFF
  # A test that was started by a watched test has inherited this one.
  builtin unset -v __INTERNAL_TESTWATCHER_ACTIVE
  __rlcl_found=$(
    { __rlc_calm; } >/dev/null
    __rlc_send '' rehook
  ) || __rlc_untrusted=1
  case $__rlcl_found in
    hooked*)
      __INTERNAL_TESTWATCHER_ACTIVE=true
      builtin export __INTERNAL_TESTWATCHER_ACTIVE
      ;;
    theirs*) __rlc_say rlLogWarning "rlJournalStart: ${__rlcl_found#*"$__rlcl_newline"}" ;;
  esac
  case $__rlcl_found in
    theirs* | *"$__rlcl_newline"no\ entries* | '') ;;
    *) __rlc_say rlLogInfo "rlJournalStart: ${__rlcl_found#*"$__rlcl_newline"}" ;;
  esac
  [[ -n ${__INTERNAL_TESTWATCHER_ACTIVE-} ]] || __rlc_arm
  builtin return "$__rlcl_status"
}

__rlc_prepare() { # makes the state directory, and sets BEAKERLIB_DIR
  BEAKERLIB_DIR=$(
    { __rlc_calm; } >/dev/null
    __rlc_exec script prepare
  )
}

__rlc_end() { # rlJournalEnd
  builtin local __rlcl_status
  __rlcl_status=0
  if __rlc_in_cleanup; then
    if __rlc_has __rlc_own_rlJournalEnd; then __rlc_own_rlJournalEnd "$@" || __rlcl_status=$?; fi
    builtin return "$__rlcl_status"
  fi
  __rlc_prepare_end
  if __rlc_has __rlc_own_rlJournalEnd; then
    __rlc_own_rlJournalEnd "$@" || __rlcl_status=$?
  elif ! __rlc_watched && [[ -s ${__INTERNAL_CLEANUP_FINAL-} ]]; then
    __rlc_say rlLogWarning "rlJournalEnd: Not running in test watcher and rlCleanup* functions were used"
    __rlc_say rlLogWarning "rlJournalEnd: Executing prepared cleanup"
    __INTERNAL_CLEANUP_FROM_JOURNALEND=1 "$__INTERNAL_CLEANUP_FINAL" || __rlcl_status=$?
  fi
  __rlc_ended=1
  builtin return "$__rlcl_status"
}

__rlc_prepare_end() { # makes BeakerLib's code see what is to be done
  if [[ -n ${__rlc_untrusted-} ]]; then
    # What lies there could be anybody's.
    __INTERNAL_CLEANUP_FINAL=''
  elif [[ -n ${__INTERNAL_TESTWATCHER_ACTIVE-} ]] && ! __rlc_alive; then
    builtin unset -v __INTERNAL_TESTWATCHER_ACTIVE
  fi
  if [[ -z ${__INTERNAL_TESTWATCHER_ACTIVE-} && -s ${__INTERNAL_CLEANUP_FINAL-} ]]; then
    # Entries that no shell has made have no journal functions with them.
    __rlc_send '' rehook >/dev/null || builtin true
  fi
}

# ---------------------------------------------------------------- a test that crashes

rlCleanupOnExit() { # runs the prepared cleanup, unless a watcher or rlJournalEnd does
  __rlc_status=$?
  if __rlc_in_cleanup || [[ -n ${__rlc_ended-} ]] || __rlc_alive; then
    builtin return "$__rlc_status"
  fi
  __rlc_ended=1
  __rlc_prepare_end
  if [[ -s ${__INTERNAL_CLEANUP_FINAL-} ]]; then
    __INTERNAL_CLEANUP_FROM_JOURNALEND=1 "$__INTERNAL_CLEANUP_FINAL" || builtin true
  fi
  builtin return "$__rlc_status"
}

__rlc_arm() { # sets that as EXIT trap, where the test has none
  if [[ -n ${__rlc_armed-}${RL_CLEANUP_NO_TRAP-} ]] || ((BASH_SUBSHELL > 0)); then builtin return 0; fi
  __rlc_armed=1
  # What a DEBUG trap prints is not to be taken for one; a calm subshell would have forgotten it.
  if [[ $(builtin trap -p EXIT) != *'trap -- '*EXIT* ]]; then
    builtin trap rlCleanupOnExit EXIT
  fi
}

# ---------------------------------------------------------------- loading

__rlc_keep_own() { # <function>  gives BeakerLib's function another name, unless it is ours already
  builtin local __rlcl_text
  __rlcl_text=$(
    { __rlc_calm; } >/dev/null
    builtin declare -f "$1"
  ) || builtin return 0
  [[ $__rlcl_text != *__rlc_* ]] || builtin return 0
  builtin eval -- "__rlc_own_$__rlcl_text"
}

if __rlc_find; then
  __rlc_keep_own rlJournalStart
  __rlc_keep_own rlJournalEnd
  __rlc_define
else
  # Not through BeakerLib's log: there is no journal yet to write it to.
  builtin printf '%s\n' "rl-cleanup: the program 'rl-cleanup' was not found: set RL_CLEANUP to its path" >&2
fi
