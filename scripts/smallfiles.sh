#!/usr/bin/env bash
# Many small files to two places: sbcast with each fsync policy, beside what
# people use. Everything runs on loopback, one after the other in each round;
# the best of ROUNDS counts, and what matters is the ratios.
# usage: scripts/smallfiles.sh SBCAST [FILES [ROUNDS]]     10000 files of SIZE=4096 bytes, 2 rounds
set -euo pipefail
. "$(dirname "$0")/address.sh"
sbcast=$(realpath "$1")
files=${2:-10000}
rounds=${3:-2}
size=${SIZE:-4096}
loop=${LOOP:-200} # files of the ways that start a process for each; their time is scaled
((loop < files)) || loop=$files
work=$(mktemp -d)
daemons=()
stop() {
	((${#daemons[@]} == 0)) || kill -INT "${daemons[@]}" 2>/dev/null || true
	wait || true
	daemons=()
}
trap 'stop; rm -rf "$work"' EXIT

# system DIR FLAG...: two readers and a broadcaster; sets $host.
system() {
	local dir=$1 readers=() name
	shift
	for name in a b; do
		"$sbcast" reader -q --listen 127.0.0.1:0 --sink "dir:$dir/$name" "$@" 2>"$dir.$name.log" &
		daemons+=($!)
		readers+=(--reader "$name=$(address "$dir.$name.log")")
	done
	"$sbcast" broadcaster -q --listen 127.0.0.1:0 "${readers[@]}" 2>"$dir.log" &
	daemons+=($!)
	host=$(address "$dir.log")
}

push_always() { system "$1" --fsync always; timed "$sbcast" push -q --files-from "$work/list" "$host"; }
push_commit() { system "$1" --fsync commit; timed "$sbcast" push -q --files-from "$work/list" "$host"; }
push_never() { system "$1" --fsync never; timed "$sbcast" push -q --files-from "$work/list" "$host"; }
push_one() { system "$1" --fsync always; timed "$sbcast" push -q --parallel 1 --files-from "$work/list" "$host"; }

# One process and one connection for each file, as with scp in a loop.
push_loop() { system "$1"; timed each_pushed; }
each_pushed() { while read -r path; do "$sbcast" push -q "$path" "$host"; done < <(head -n "$loop" "$work/list"); }

tar_nc() { receive "$1"; timed tar_sent; }
tar_nc_sync() { receive "$1"; timed tar_sent_synced; }
receive() {
	into=$1
	mkdir -p "$into/a" "$into/b"
	nc -N -l 127.0.0.1 "$((port + 1))" </dev/null | tar x -C "$into/a" &
	nc -N -l 127.0.0.1 "$((port + 2))" </dev/null | tar x -C "$into/b" &
	sleep 0.5
	port=$((port + 2))
}
tar_sent() {
	tar c -C "$work/src" . | tee >(nc -N 127.0.0.1 $((port - 1))) | nc -N 127.0.0.1 "$port"
	wait # for both tars: nc says nothing of what became of it
}
tar_sent_synced() { tar_sent && sync -f "$into"; }

cp_sync() { mkdir -p "$1"; timed cp_both "$1"; }
cp_both() { cp -r "$work/src" "$1/a" && cp -r "$work/src" "$1/b" && sync -f "$1"; }

# timed COMMAND...: sets $took.
timed() {
	local begun=$EPOCHREALTIME
	"$@" || echo "smallfiles: $* FAILED" >&2
	took=$(awk "BEGIN {print $EPOCHREALTIME - $begun}")
}

# same DIR COUNT: both places have the first COUNT files and no other.
same() {
	local place got
	for place in a b; do
		got=$(find "$1/$place" -type f -not -path '*/.sbcast-state/*' | wc -l)
		if ((got != $2)) || { (($2 == files)) && ! diff -rq -x .sbcast-state "$work/src" "$1/$place" >&2; }; then
			echo NO
			return
		fi
		(($2 == files)) || head -n "$2" "$work/list" | while read -r path; do cmp "$path" "$1/$place/${path##*/}" >&2 || echo NO; done
	done
	echo yes
}

ways=(push_always push_commit push_never push_one push_loop tar_nc tar_nc_sync cp_sync)
declare -A title=(
	[push_always]="sbcast push, --fsync always" [push_commit]="sbcast push, --fsync commit" [push_never]="sbcast push, --fsync never"
	[push_one]="sbcast push --parallel 1" [push_loop]="loop, a process a file (*)"
	[tar_nc]="tar | tee | nc, tar x" [tar_nc_sync]="the same, then sync -f" [cp_sync]="cp -r twice, sync -f"
)
declare -A durable=(
	[push_always]="each file, before its receipt" [push_commit]="each file, before its receipt" [push_never]=no
	[push_one]="each file, before its receipt" [push_loop]="each file, before its receipt"
	[tar_nc]=no [tar_nc_sync]="all, at the end" [cp_sync]="all, at the end; local"
)
declare -A checked=(
	[push_always]="digest" [push_commit]="digest" [push_never]="digest" [push_one]="digest" [push_loop]="digest"
	[tar_nc]="no" [tar_nc_sync]="no" [cp_sync]="no"
)
if ! nc -h 2>&1 | grep -q OpenBSD; then
	echo "smallfiles: SKIPPING tar | tee | nc: there is no OpenBSD nc here (apt-get install netcat-openbsd)" >&2
	ways=(push_always push_commit push_never push_one push_loop cp_sync)
fi

mkdir "$work/src"
for ((i = 0; i < files; i++)); do printf '%s/src/f%06d\n' "$work" "$i"; done >"$work/list"
head -c $((files * size)) /dev/urandom | (cd "$work/src" && split -b "$size" -a 6 -d - f)
sync -f "$work"
port=$((20000 + RANDOM % 20000))

declare -A best=() verdict=()
for ((round = 1; round <= rounds; round++)); do
	for way in "${ways[@]}"; do
		count=$files
		[ "$way" != push_loop ] || count=$loop
		dir=$work/$way.$round
		mkdir "$dir"
		"$way" "$dir"
		stop
		[ "${verdict[$way]:-yes}" = NO ] || verdict[$way]=$(same "$dir" "$count")
		took=$(awk "BEGIN {print $took * $files / $count}")
		best[$way]=$(awk "BEGIN {b = ${best[$way]:-1e9}; print (b < $took ? b : $took)}")
		sync -f "$work" # what is not durable is not paid for by the next
	done
done

echo "$files files of $size bytes to two places, best of $rounds rounds"
printf '%-30s %8s %8s %7s  %-30s %-8s %s\n' way seconds files/s ratio durable checked same
status=0
for way in "${ways[@]}"; do
	printf '%-30s %8.1f %8.0f %7.2f  %-30s %-8s %s\n' "${title[$way]}" "${best[$way]}" \
		"$(awk "BEGIN {print $files / ${best[$way]}}")" "$(awk "BEGIN {print ${best[$way]} / ${best[push_always]}}")" \
		"${durable[$way]}" "${checked[$way]}" "${verdict[$way]}"
	[ "${verdict[$way]}" = yes ] || status=1
done
echo "(*) measured with $loop files, scaled; on loopback, without the handshakes of ssh"
exit $status
