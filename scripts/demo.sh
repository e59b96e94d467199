#!/usr/bin/env bash
# The main job on loopback: three readers, a broadcaster, a real file pushed,
# the receipts shown, and what arrived compared byte for byte.
# usage: scripts/demo.sh SBCAST [FILE]
set -euo pipefail
. "$(dirname "$0")/address.sh"
sbcast=$1
file=${2:-$sbcast}
work=$(mktemp -d)
trap 'kill $(jobs -p) 2>/dev/null || true; wait; rm -rf "$work"' EXIT

say() { printf '\n\033[1m%s\033[0m\n' "$*"; }

say "three readers, each with a directory of its own, and a broadcaster"
readers=()
for name in oslo lima pune; do
	"$sbcast" reader -q --listen 127.0.0.1:0 --sink "dir:$work/$name" 2>"$work/$name.log" &
	at=$(address "$work/$name.log")
	echo "sbcast reader --listen $at --sink dir:$name"
	readers+=(--reader "$name=$at")
done
"$sbcast" broadcaster -q --listen 127.0.0.1:0 "${readers[@]}" 2>"$work/broadcaster.log" &
host=$(address "$work/broadcaster.log")
echo "sbcast broadcaster --listen $host ${readers[*]}"

say "sbcast push $(basename "$file") $host     ($(wc -c <"$file") bytes)"
"$sbcast" push "$file" "$host"

say "cmp: is it the same everywhere?"
for name in oslo lima pune; do
	cmp "$file" "$work/$name/$(basename "$file")"
	echo "$name/$(basename "$file") is identical"
done

say "the same push again: nothing to do"
"$sbcast" push "$file" "$host"

say "standard input, compressed on the way, to two readers of three if need be"
seq 1000000 | "$sbcast" push - "$host" --name numbers.txt -C lz4 --require 2
seq 1000000 | cmp - "$work/pune/numbers.txt"

say "sbcast status $host"
"$sbcast" status "$host"

say "done: everything that was pushed is whole on every reader"
