#!/usr/bin/env bash
# What a second session could give: two files one after the other, and both at
# once, each by a client with a session of its own; straight to a reader (7901)
# and through a broadcaster (7900).
# scripts/sessions.sh SBCAST [ROUNDS]
set -euo pipefail
sbcast=$1 rounds=${2:-5}
dir=$(mktemp -d /dev/shm/sbcast-sessions.XXXXXX)
trap 'kill $(jobs -p) 2>/dev/null; rm -rf "$dir"' EXIT
head -c 1G /dev/urandom >"$dir/a"
cp "$dir/a" "$dir/b"
"$sbcast" reader --listen 127.0.0.1:7901 --sink discard: 2>/dev/null &
"$sbcast" broadcaster --listen 127.0.0.1:7900 --reader 127.0.0.1:7901 2>/dev/null &
for port in 7901 7900; do
	until "$sbcast" status "127.0.0.1:$port" >/dev/null 2>&1; do sleep 0.1; done
done

push() { "$sbcast" push -q -C none "$dir/$2" "127.0.0.1:$1"; }
in_turn() { push "$1" a && push "$1" b; }
at_once() {
	push "$1" a &
	local first=$!
	push "$1" b
	wait "$first"
}
milliseconds() {
	local begun
	begun=$(date +%s%N)
	"$@"
	echo $((($(date +%s%N) - begun) / 1000000))
}
for _ in $(seq "$rounds"); do
	for port in 7901 7900; do
		turn=$(milliseconds in_turn "$port")
		once=$(milliseconds at_once "$port")
		echo "$port: $turn ms in turn, $once ms at once, $(awk "BEGIN { printf \"%.2f\", $once / $turn }")"
	done
done
