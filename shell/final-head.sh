# shellcheck shell=bash
# shellcheck disable=SC2154 # script.rs assigns what is not assigned here
# Part of every final script: makes a clean shell to start from.
# Text in this file is read before any function of the test exists.

# A function that the environment brings along may be called 'unset' or 'builtin'. Only POSIX mode
# finds special builtins before functions, and only an assignment enters it without running anything.
POSIXLY_CORRECT=1
\unset -f unset builtin
\unset POSIXLY_CORRECT
\builtin set +aefkmnuvxCET
\builtin set +o posix

# Byte by byte, whatever the locale of the one who starts this script.
LC_ALL=C
IFS=$'\n'
for __rlcx_name in $(\builtin set -f && \builtin compgen -A function); do
  \builtin unset -f -- "$__rlcx_name"
done 2>/dev/null
for __rlcx_name in $(\builtin compgen -v); do
  case $__rlcx_name in
    TESTWATCHER_* | __rlcx_* | IFS | LC_ALL) ;;
    *) [[ $__rlcx_untouchable == *"|$__rlcx_name|"* ]] || \builtin unset -v -- "$__rlcx_name" ;;
  esac
done 2>/dev/null
# compgen does not list what is declared but unset, as OLDPWD is in a new bash.
\builtin unset -v IFS OLDPWD

__rlcx_define() { # defines the functions whose texts are in __rlcx_texts
  \builtin printf -v __rlcx_text %s "${__rlcx_texts[@]}"
  \builtin eval -- "$__rlcx_text" 2>/dev/null ||
    for __rlcx_text in "${__rlcx_texts[@]}"; do
      \builtin eval -- "$__rlcx_text" 2>/dev/null
    done
  \builtin unset -v __rlcx_texts __rlcx_text
}
