#!/usr/bin/env bash
# Pushes random content of each SIZE through a broadcaster with 8 readers and
# prints the broadcaster's peak memory, which must not grow with the content.
# Each size has a broadcaster of its own. Linux only (it reads /proc).
# Then pushes 4 MiB as often as PUSHES says at once, to one reader that takes
# nothing for two seconds, with and without a bound on the broadcaster's memory.
# usage: scripts/memory.sh SBCAST SIZE...      the limit: LIMIT_MIB=64
#   PUSHES='50' (several numbers are several rounds), MEMORY=16M
set -euo pipefail
. "$(dirname "$0")/address.sh"
sbcast=$1
shift
limit=${LIMIT_MIB:-64}
if [ ! -e /proc/self/status ]; then
	echo "memory: SKIPPED, there is no /proc here"
	exit 0
fi
work=$(mktemp -d)
trap 'kill $(jobs -p) 2>/dev/null || true; wait; rm -rf "$work"' EXIT

status=0
for size in "$@"; do
	readers=()
	for i in $(seq 8); do
		"$sbcast" reader -q --listen 127.0.0.1:0 --sink discard: 2>"$work/reader-$i" &
	done
	for i in $(seq 8); do
		readers+=(--reader "$(address "$work/reader-$i")")
	done
	"$sbcast" broadcaster -q --listen 127.0.0.1:0 "${readers[@]}" 2>"$work/broadcaster" &
	broadcaster=$!
	host=$(address "$work/broadcaster")
	head -c "$size" /dev/urandom | "$sbcast" push -q - "$host" --name random
	peak=$(($(sed -n 's/^VmHWM:[^0-9]*\([0-9]*\) kB/\1/p' "/proc/$broadcaster/status") / 1024))
	verdict=ok
	if [ "$peak" -ge "$limit" ]; then
		verdict="FAILED: over $limit MiB" status=1
	fi
	printf 'memory: 8 readers, %6s pushed: broadcaster peak %3d MiB  %s\n' "$size" "$peak" "$verdict"
	kill $(jobs -p)
	wait || true
done

# many PUSHES [FLAG...]: sets peak to the broadcaster's, given flags.
many() {
	local n=$1 pushes=() reader host
	shift
	"$sbcast" reader -q --listen 127.0.0.1:0 --sink "exec:$work/slow" 2>"$work/reader" &
	reader=$(address "$work/reader")
	"$sbcast" broadcaster -q --listen 127.0.0.1:0 --reader "$reader" "$@" 2>"$work/broadcaster" &
	broadcaster=$!
	host=$(address "$work/broadcaster")
	for i in $(seq "$n"); do
		"$sbcast" push -q "$work/content" "$host" --name "f$i" >/dev/null &
		pushes+=($!)
	done
	for push in "${pushes[@]}"; do
		wait "$push" || { echo "memory: a push failed" >&2; status=1; }
	done
	peak=$(($(sed -n 's/^VmHWM:[^0-9]*\([0-9]*\) kB/\1/p' "/proc/$broadcaster/status") / 1024))
	kill $(jobs -p)
	wait || true
}

printf '#!/bin/sh\nsleep 2\nexec cat >/dev/null\n' >"$work/slow"
chmod +x "$work/slow"
head -c 4M /dev/urandom >"$work/content"
memory=${MEMORY:-16M}
for n in ${PUSHES:-50}; do
	many "$n"
	printf 'memory: %3d pushes of 4M at once: broadcaster peak %3d MiB\n' "$n" "$peak"
	many "$n" --memory "$memory"
	verdict=ok
	if [ "$peak" -ge "$limit" ]; then
		verdict="FAILED: over $limit MiB" status=1
	fi
	printf 'memory: the same with --memory %s: broadcaster peak %3d MiB  %s\n' "$memory" "$peak" "$verdict"
done
exit $status
