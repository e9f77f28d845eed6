# The part of fish's completion that clap does not generate (src/cli/completions.rs puts them together):
# the entries there are, and the words of a command that is run.

function __fish_rl_cleanup_entries
    set -l typed (commandline -opc)
    set -l program $typed[1]
    command -q $program; or set program rl-cleanup
    set -l dir
    for i in (seq (count $typed))
        switch $typed[$i]
            case --dir
                set dir --dir=$typed[(math $i + 1)]
            case '--dir=*'
                set dir $typed[$i]
        end
    end
    $program $dir list 2>/dev/null | while read -l id age text
        contains -- $id $typed; or printf '%s\t%s\n' $id $text
    end
end

complete -c rl-cleanup -n "__fish_rl_cleanup_using_subcommand remove run" -f -k -a "(__fish_rl_cleanup_entries)"
# The lone dash ends the options of fish's own function.
complete -c rl-cleanup -n "__fish_rl_cleanup_using_subcommand watch" -f -a "(__fish_complete_subcommand --fcs-skip=2 - --options-with-a-value)"
complete -c beakerlib-testwatcher -f -a "(__fish_complete_subcommand)"
