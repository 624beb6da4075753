#!/usr/bin/env bash
# venv.sh PYTHON FOLDER: a virtual environment with this project and its test dependencies, made if need be.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
python=$1 folder=$2

if ! command -v "$python" >/dev/null || ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
    echo "setup: Python 3.11 or later is needed ($python is not); choose one with: make PYTHON=python3.x" >&2
    exit 1
fi
if ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
    # Debian splits venv off into a package of its own.
    if ((EUID)) || [[ ! -e /etc/debian_version ]]; then
        echo "setup: $python has no venv module; install it (Debian: apt-get install python3-venv)" >&2
        exit 1
    fi
    echo "setup: installing python3-venv" >&2
    export DEBIAN_FRONTEND=noninteractive
    apt-get install -y --no-install-recommends python3-venv >/dev/null ||
        { apt-get update >/dev/null && apt-get install -y --no-install-recommends python3-venv >/dev/null; }
fi

began=$SECONDS
"$python" -m venv "$folder"
log=$folder/pip.log
if ! "$folder/bin/python" -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[test]' >"$log" 2>&1; then
    echo "setup: pip failed, end of $log:" >&2
    tail -n 25 "$log" >&2
    exit 1
fi
touch "$folder/.ready"
echo "setup: $("$folder/bin/python" --version) environment in $folder ($((SECONDS - began)) s)" >&2
