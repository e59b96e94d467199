# fish completion for sbcast: asks sbcast itself what may come next, and
# offers files where that is nothing.
function __sbcast_words
    set -l ask (commandline --tokenize --cut-at-cursor --current-process)[2..]
    set -l cur (commandline --current-token)
    string match -q -- '-*' $cur; and set -a ask $cur
    sbcast $ask --generate-bash-completion 2>/dev/null
end
complete -c sbcast -n __fish_use_subcommand -f
complete -c sbcast -a '(__sbcast_words)'
