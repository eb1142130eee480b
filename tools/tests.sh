#!/usr/bin/env bash
# All tests, in two processes side by side: those of the flows wait most of the time, the others
# compute. The flows stay in the foreground, where Ctrl-C reaches what they start.
#
#   tests.sh PYTEST
set -uo pipefail
pytest=$1

others=$(mktemp)
trap 'rm -f "$others"' EXIT
"$pytest" --ignore=tests/flows -o cache_dir=.pytest_cache/others >"$others" 2>&1 &
computing=$!
trap 'kill "$computing" 2>/dev/null; exit 130' INT TERM
"$pytest" tests/flows
flows=$?
wait "$computing"
rest=$?
cat "$others"
[ "$flows" -eq 0 ] && [ "$rest" -eq 0 ]
