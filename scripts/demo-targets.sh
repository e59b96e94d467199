#!/usr/bin/env bash
# One upload, many kinds of targets at once, on loopback: a directory, an S3
# bucket, a web server, YouTube and a slow command; then one more that fails
# half-way. What it shows is tested by testdata/script/s3_mixed.txtar.
# usage: scripts/demo-targets.sh SBCAST STANDIN [VERSITYGW]
# STANDIN takes videos as YouTube does (scripts/standin), VERSITYGW is an S3
# server; without it the bucket is left out.
set -euo pipefail
. "$(dirname "$0")/address.sh"
sbcast=$(realpath "$1") standin=$(realpath "$2") s3server=${3:+$(realpath "$3")}
work=$(mktemp -d)
cd "$work"
trap 'kill $(jobs -p) 2>/dev/null || true; wait; rm -rf "$work"' EXIT

say() { printf '\n\033[1m%s\033[0m\n' "$*"; }

pids=() names=()
# daemon NAME ARGS...: starts sbcast ARGS; its address is then in $at.
daemon() {
	local name=$1
	shift
	"$sbcast" "$@" -q --listen 127.0.0.1:0 2>"$name.log" &
	pids+=($!) names+=("$name")
	at=$(address "$name.log" "s/.*$1: listening on \([^ ,]*\).*/\1/p")
}
# reader NAME ARGS...: starts a reader and shows it.
reader() {
	local name=$1
	shift
	daemon "$name" reader --state state "$@"
	readers+=(--reader "$name=$at")
	printf '%-8s sbcast reader' "$name"
	printf ' %q' "$@"
	echo
}

say "the targets"
readers=()
reader disk --sink dir:disk
"$standin" -token tube.token >tube.log &
tube=$(address tube.log 's/^http.*/&/p')
reader video --sink "youtube:?endpoint=$tube" --youtube-token tube.token
daemon far-disk reader --sink dir:far
daemon far broadcaster --http 127.0.0.1:0 --reader "$at"
web=http://$(address far.log 's/.*gateway: listening on \([^ ,]*\).*/\1/p')
reader web --sink "$web/broadcast/"
if [ -n "$s3server" ]; then
	export AWS_ACCESS_KEY_ID=demo AWS_SECRET_ACCESS_KEY=demodemodemo AWS_ENDPOINT_URL=http://127.0.0.1:7971
	mkdir -p s3/films
	ROOT_ACCESS_KEY=$AWS_ACCESS_KEY_ID ROOT_SECRET_KEY=$AWS_SECRET_ACCESS_KEY "$s3server" --quiet --port 127.0.0.1:7971 posix s3 >s3.log 2>&1 &
	until curl -s -o /dev/null "$AWS_ENDPOINT_URL"; do sleep 0.1; done
	reader bucket --sink s3://films
else
	echo "bucket   SKIPPED: there is no S3 server (make demo-targets builds it)"
fi
cat >slow.sh <<'END'
while dd bs=256k count=1 iflag=fullblock of=slow.part 2>/dev/null && [ -s slow.part ]; do cat slow.part; sleep 0.01; done >"slow-$SBCAST_FILE_NAME"
END
reader slow --sink "exec:sh slow.sh"
daemon hub broadcaster --http 127.0.0.1:0 "${readers[@]}"
hub=$at http=http://$(address hub.log 's/.*gateway: listening on \([^ ,]*\).*/\1/p')

# whole NAME: compares what the targets have under NAME with the film.
whole() {
	cmp film.mp4 "disk/$1"
	cmp film.mp4 "far/$1"
	cmp film.mp4 "slow-$1"
	[ -z "$s3server" ] || cmp film.mp4 "s3/films/$1"
	curl -s "$tube/standin/videos" | grep -q "$(sha256sum <film.mp4 | cut -d' ' -f1)"
	echo "$1 is the same everywhere"
}

head -c 64M /dev/urandom >film.mp4
say "sbcast push film.mp4 $hub"
"$sbcast" push film.mp4 "$hub"
whole film.mp4

say "curl -F 'file=@film.mp4;filename=again.mp4' $http/broadcast"
curl -sS -F 'file=@film.mp4;filename=again.mp4' "$http/broadcast"
whole again.mp4

say "one more target, which fails half-way"
reader broken --sink "exec:sh -c 'head -c 30M >/dev/null; echo the disk is full >&2; exit 1'"
daemon hub2 broadcaster --http 127.0.0.1:0 "${readers[@]}"
hub=$at

say "sbcast push film.mp4 $hub --name all.mp4     under --require all nobody publishes"
"$sbcast" push film.mp4 "$hub" --name all.mp4 -q && exit 1
for file in disk/all.mp4 far/all.mp4 s3/films/all.mp4; do
	[ ! -e "$file" ] || { echo "$file is there" && exit 1; }
done
say "sbcast push film.mp4 $hub --name three.mp4 --require 3     three are enough, the rest is told"
"$sbcast" push film.mp4 "$hub" --name three.mp4 --require 3 || [ $? = 3 ]
whole three.mp4

if [ -e /proc/self/status ]; then
	say "the most memory that each of them has had, with four times 64 MiB"
	for i in "${!pids[@]}"; do
		printf '%-8s %s\n' "${names[i]}" "$(sed -n 's/VmHWM:\t *//p' "/proc/${pids[i]}/status")"
	done
fi
