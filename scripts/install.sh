#!/bin/sh
# Puts sbcast and what belongs to it in place: make install. The same tree,
# with other directories before it, is what packages are made of.
#
#   install.sh BINARY DESTDIR PREFIX SYSCONFDIR [SBCAST]
#
# SBCAST is the binary to ask for the man page, where BINARY does not run here.
set -eu
bin=$1 destdir=$2 prefix=$3 etc=$4 ask=${5:-$1}
case $bin in */*) ;; *) bin=./$bin ;; esac
case $ask in */*) ;; *) ask=./$ask ;; esac
scripts=$(dirname "$0")

# put MODE FILE: standard input becomes a file below DESTDIR.
put() {
	mkdir -p "$(dirname "$destdir$2")"
	cat >"$destdir$2.new"
	chmod "$1" "$destdir$2.new"
	mv "$destdir$2.new" "$destdir$2"
}

put 755 "$prefix/bin/sbcast" <"$bin"
"$ask" man | put 644 "$prefix/share/man/man1/sbcast.1"
"$ask" completion bash | put 644 "$prefix/share/bash-completion/completions/sbcast"
"$ask" completion zsh | put 644 "$prefix/share/zsh/site-functions/_sbcast"
"$ask" completion fish | put 644 "$prefix/share/fish/vendor_completions.d/sbcast.fish"
for unit in "$scripts"/systemd/*.service "$scripts"/systemd/*.socket; do
	sed "s|/usr/bin/sbcast|$prefix/bin/sbcast|; s|/etc/sbcast|$etc/sbcast|" "$unit" |
		put 644 "$prefix/lib/systemd/system/$(basename "$unit")"
done
for env in "$scripts"/systemd/*.env; do
	file=$etc/sbcast/$(basename "$env")
	test -e "$destdir$file" || put 644 "$file" <"$env" # somebody's options stay
done
