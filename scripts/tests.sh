#!/usr/bin/env bash
# tests.sh PYTHON [PYTEST ARGUMENTS]: the tests, and those that failed once more by themselves.
# Some meet real time (sockets, processes, telephones), and a shared machine may stand still for a third of a second. What fails
# twice, or many at once, is a failure; what passes alone is named, so that it can be looked into.
set -euo pipefail
python=$1
shift
cache=$PWD/build/pytest-cache/$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')${RING:+-ring}
most=3
rm -rf "$cache"
status=0
"$python" -m pytest -q -o cache_dir="$cache" "$@" || status=$?
[[ $status == 1 ]] || exit "$status"
failed=$("$python" -c 'import json, sys; print("\n".join(json.load(open(sys.argv[1]))))' "$cache/v/cache/lastfailed")
count=$(wc -l <<<"$failed")
((count <= most)) || exit 1
printf '\nTRIED ONCE MORE, ALONE:\n%s\n' "$failed"
"$python" -m pytest -q -o cache_dir="$cache" --last-failed --last-failed-no-failures none "$@" || exit 1
printf '\nPASSED ON THE SECOND TRY ONLY: please look into it\n%s\n' "$failed"
