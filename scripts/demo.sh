#!/usr/bin/env bash
# demo.sh PYTHON: one call through a real Asterisk where one can be had, else with a caller that dials the bridge itself.
# Leaves nothing running that did not run before. MODEL=openai talks to the real model (needs OPENAI_API_KEY).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
python=$1
asterisk=asterisk/asterisk.sh

[[ -z ${OPENAI_API_KEY:-} || ${MODEL:-} == openai ]] ||
    echo "OPENAI_API_KEY is set, but the demo uses the simulator; for the real model: make demo MODEL=openai" >&2

was_running=no
"$asterisk" status >/dev/null 2>&1 && was_running=yes
leave() {
    trap '' INT TERM # a second Ctrl-C must not leave a container behind
    [[ $was_running == yes ]] || { "$asterisk" down; "$asterisk" engine-stop; } >/dev/null 2>&1 || true
}
trap leave EXIT

status=0
"$asterisk" up || status=$?
through=--asterisk
if ((status == 3)); then
    echo "demo: without Docker, and without root to install it, there is no Asterisk: the caller dials the bridge itself" >&2
    through=
elif ((status)); then
    exit "$status"
fi
status=0
"$python" -m simulators demo $through --model "${MODEL:-simulator}" || status=$?
[[ -z $through ]] || "$asterisk" cli 'core show channels' | grep 'active channel' >&2
exit "$status"
