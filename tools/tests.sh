#!/usr/bin/env bash
# All tests, in two processes side by side: most of the flows' tests wait, the others compute. What
# waits stays in the foreground, where Ctrl-C reaches what it starts.
#
#   tests.sh PYTEST
set -uo pipefail
pytest=$1

# Of the flows' tests these compute: so both processes end at about the same time.
computing=(tests/flows/test_benchmark_command.py tests/flows/test_model_commands.py tests/flows/test_papers.py)
for path in tests/*; do
    case $path in
    tests/flows | tests/conftest.py | *__pycache__*) ;;
    *) computing+=("$path") ;;
    esac
done

others=$(mktemp)
trap 'rm -f "$others"' EXIT
"$pytest" --durations=15 "${computing[@]}" -o cache_dir=.pytest_cache/others >"$others" 2>&1 &
background=$!
trap 'kill "$background" 2>/dev/null; exit 130' INT TERM
"$pytest" --durations=30 tests/flows "${computing[@]/#/--ignore=}"
flows=$?
wait "$background"
rest=$?
cat "$others"
[ "$flows" -eq 0 ] && [ "$rest" -eq 0 ]
