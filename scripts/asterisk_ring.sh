#!/usr/bin/env bash
# asterisk_ring.sh PYTHON [PYTEST ARGUMENTS]: the tests against the real Asterisk; leaves running only what ran before.
# Exit 3: no Docker engine here. In CI that is a failure like any other.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
python=$1
shift
asterisk=asterisk/asterisk.sh

was_running=no
"$asterisk" status >/dev/null 2>&1 && was_running=yes
leave() {
    [[ $was_running == yes ]] || { "$asterisk" down; "$asterisk" engine-stop; } 2>/dev/null
}
trap leave EXIT
"$asterisk" up
if ! command -v sipp >/dev/null; then
    if ((EUID)) || [[ ! -e /etc/debian_version ]]; then
        echo "test: sipp is missing; install it (Debian: apt-get install sip-tester)" >&2
        exit 1
    fi
    echo "test: installing sip-tester, the SIP telephone of the tests" >&2
    export DEBIAN_FRONTEND=noninteractive
    { apt-get install -y --no-install-recommends sip-tester ||
        { apt-get update && apt-get install -y --no-install-recommends sip-tester; }; } >build/sip-tester.log 2>&1
fi
RING=yes scripts/tests.sh "$python" -m asterisk "$@"
