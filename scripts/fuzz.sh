#!/usr/bin/env bash
# Runs every fuzz target of the module for the given time, or number of inputs, each.
# usage: scripts/fuzz.sh 10m|5000x
set -euo pipefail
cd "$(dirname "$0")/.."
go=${GO:-go} time=${1:-5000x} targets=0
for file in $(grep -rl --include='*_test.go' '^func Fuzz' .); do
	package=./$(dirname "$file")
	for target in $(sed -n 's/^func \(Fuzz[A-Za-z0-9]*\)(.*/\1/p' "$file"); do
		"$go" test -run '^$' -fuzz "^$target\$" -fuzztime "$time" -fuzzminimizetime 1000x "$package"
		targets=$((targets + 1))
	done
done
echo "fuzz: $targets targets, $time each"
[ "$targets" -gt 0 ]
