# Sourced by scripts that start daemons on free ports.

# address LOG [SED]: waits for the line that says where a daemon listens, or
# that SED prints a part of, and prints that.
address() {
	for _ in $(seq 100); do
		sed -n "${2:-s/.*listening on \([^ ,]*\).*/\1/p}" "$1" 2>/dev/null | head -n 1 | grep . && return
		sleep 0.1
	done
	echo "no address in $1:" >&2
	cat "$1" >&2
	return 1
}
