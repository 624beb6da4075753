#!/usr/bin/env bash
# Everything that CI checks, with its set-up. Stops at the first ring that fails.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
say() { printf '\n== %s (%d s)\n' "$*" "$SECONDS"; }

say "environment"
make --no-print-directory venv
python=.venv/bin/python

say "ruff, mypy --strict"
.venv/bin/ruff check .
.venv/bin/ruff format --check .
.venv/bin/mypy

other=$(scripts/newest_other_python.sh "$python")
log=build/tests-other-python.log
if [[ -n $other ]]; then
    folder=.venv-$("$other" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
    make --no-print-directory venv PYTHON="$other" VENV="$folder"
    mkdir -p build
    # Beside the first: each takes one core, and time is virtual in them.
    scripts/tests.sh "$folder/bin/python" >"$log" 2>&1 &
    beside=$!
    trap 'kill "$beside" 2>/dev/null || true' EXIT
fi

say "tests on $($python --version): tables, bytes and whole calls in virtual time"
scripts/tests.sh "$python"

if [[ -n $other ]]; then
    say "the same on $("$other" --version)"
    status=0
    wait "$beside" || status=$?
    trap - EXIT
    if ((status)); then
        cat "$log"
        exit "$status"
    fi
    grep -E '^(TRIED|PASSED)|^tests/.*::|[0-9]+ passed' "$log"
else
    say "no other Python here: the tests ran on one"
fi

say "the real Asterisk"
status=0
scripts/asterisk_ring.sh "$python" || status=$?
if ((status == 3)) && [[ -z ${CI:-} ]]; then
    echo "SKIPPED: there is no Docker engine here, so nothing was tried against a real Asterisk" >&2
elif ((status)); then
    exit "$status"
fi
say "all done"
