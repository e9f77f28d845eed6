# The part of zsh's completion that clap does not generate (src/cli/completions.rs puts them together):
# the entries there are, in the order in which they will run.

_rl-cleanup_entries() {
    local -a typed entries
    local id age text dir
    integer i
    # words has lost what is in front of the subcommand.
    typed=("${(@Q)${(@z)LBUFFER}}")
    [[ $LBUFFER == *' ' ]] || typed[-1]=()
    for (( i = 1; i <= $#typed; i++ )); do
        case $typed[i] in
            (--dir) dir=$typed[i+1] ;;
            (--dir=*) dir=${typed[i]#*=} ;;
        esac
    done
    dir=${dir/#\~\//$HOME/}
    while read -r id age text; do
        (( ${typed[(Ie)$id]} )) || entries+=("$id:$text")
    done < <(rl-cleanup ${dir:+--dir=$dir} list 2>/dev/null)
    _describe -V -t entries 'cleanup entry' entries
}

_rl-cleanup_beakerlib-testwatcher() {
    shift words
    (( CURRENT-- ))
    _normal
}

if [[ $funcstack[1] == _rl-cleanup ]]; then
    # Autoloaded, for the first completion: this file is the function's body, until now.
    compdef _rl-cleanup_beakerlib-testwatcher beakerlib-testwatcher
    if [[ $service == beakerlib-testwatcher ]]; then
        _rl-cleanup_beakerlib-testwatcher
    else
        _rl-cleanup "$@"
    fi
else
    compdef _rl-cleanup rl-cleanup
    compdef _rl-cleanup_beakerlib-testwatcher beakerlib-testwatcher
fi
