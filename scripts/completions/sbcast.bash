# bash completion for sbcast: asks sbcast itself what may come next.
_sbcast() {
	local cur=${COMP_WORDS[COMP_CWORD]} ask=("${COMP_WORDS[@]:1:COMP_CWORD-1}")
	[[ $cur == -* ]] && ask+=("$cur")
	# shellcheck disable=SC2207 # the words have no spaces, and bash 3 (macOS) no mapfile
	COMPREPLY=($(compgen -W "$(sbcast "${ask[@]}" --generate-bash-completion 2>/dev/null)" -- "$cur"))
}
# Where sbcast has nothing to offer, a file is wanted.
complete -o bashdefault -o default -F _sbcast sbcast
