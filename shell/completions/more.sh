# shellcheck shell=bash
# The part of bash's completion that clap does not generate (src/cli/completions.rs puts them together):
# the ids of the entries there are, and the words of a command that is run.

# Where the words in front of the cursor lead: to an entry's id, to a word of the command that starts
# at word $start, or to neither.
_rl_cleanup_place() { # sets place, start, dir of the caller
  local subcommand='' argv='' word i
  for ((i = 1; i < COMP_CWORD; i++)); do
    word=${COMP_WORDS[i]}
    case $word in
      --dir=*) dir=${word#*=} ;;
      --options-with-a-value)
        # With '=' in COMP_WORDBREAKS it is a word of its own.
        [[ ${COMP_WORDS[i + 1]} != = ]] || ((++i))
        ((++i))
        [[ $word != --dir ]] || dir=${COMP_WORDS[i]}
        ;;
      --argv) argv=yes ;;
      --)
        [[ $subcommand$argv != @(watch|appendyes|prependyes) ]] || break
        ;;
      -*) ;;
      *)
        [[ $subcommand != watch ]] || break
        subcommand=${subcommand:-$word}
        ;;
    esac
  done
  start=$i
  if ((i > COMP_CWORD)); then
    return # the value of an option
  elif ((i < COMP_CWORD)); then
    place='command'
    [[ ${COMP_WORDS[i]} != -- ]] || ((++start))
  elif [[ ${COMP_WORDS[i]} != -* ]]; then
    case $subcommand in
      watch) place='command' ;;
      remove | run) place=id ;;
    esac
  fi
}

_rl_cleanup_ids() { # <program> <directory>  those that are not typed yet
  local program=$1 id
  type -P -- "$program" >/dev/null || program=rl-cleanup
  while read -r id _; do
    [[ " ${COMP_WORDS[*]:0:COMP_CWORD} " == *" $id "* ]] || echo "$id"
  done < <("$program" ${2:+"--dir=${2/#\~\//$HOME/}"} list 2>/dev/null)
}

_rl_cleanup_command() { # <number of the word where a command starts>
  local cur=${COMP_WORDS[COMP_CWORD]} kind=-f
  if declare -F _comp_command_offset >/dev/null; then
    _comp_command_offset "$1"
  elif declare -F _command_offset >/dev/null; then
    _command_offset "$1"
  else
    compopt -o filenames 2>/dev/null
    ((COMP_CWORD > $1)) || kind=-c
    mapfile -t COMPREPLY < <(compgen $kind -- "$cur")
  fi
}

_rl_cleanup_or_more() { # <program> <word> <word before>
  local place='' start=0 dir=''
  _rl_cleanup_place
  case $place in
    id) mapfile -t COMPREPLY < <(compgen -W "$(_rl_cleanup_ids "$1" "$dir")" -- "$2") ;;
    command) _rl_cleanup_command "$start" ;;
    *)
      # '--kill=' is two words here, and one to the generated function.
      case $2$3 in
        =*) set -- "$1" '' "$3" ;;
        *=) set -- "$1" "$2" "${COMP_WORDS[COMP_CWORD - 2]}" ;;
      esac
      _rl_cleanup "$@"
      ;;
  esac
}

_beakerlib_testwatcher() {
  _rl_cleanup_command 1
}

complete -F _rl_cleanup_or_more -o bashdefault -o default rl-cleanup
complete -F _beakerlib_testwatcher beakerlib-testwatcher
