#!/usr/bin/env bash
# Runs every fuzz target of the module for the given time each.
# usage: scripts/fuzz.sh TIME
set -euo pipefail
cd "$(dirname "$0")/.."
go=${GO:-go} time=${1:-5s} targets=0
for file in $(grep -rl --include='*_test.go' '^func Fuzz' .); do
	package=./$(dirname "$file")
	for target in $(sed -n 's/^func \(Fuzz[A-Za-z0-9]*\)(.*/\1/p' "$file"); do
		"$go" test -run '^$' -fuzz "^$target\$" -fuzztime "$time" -fuzzminimizetime 1s "$package"
		targets=$((targets + 1))
	done
done
echo "fuzz: $targets targets, $time each"
[ "$targets" -gt 0 ]
