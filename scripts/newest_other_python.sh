#!/usr/bin/env bash
# newest_other_python.sh PYTHON: the newest Python here, 3.11 or later, of another minor version than PYTHON; or nothing.
set -euo pipefail
ours=$("$1" -c 'import sys; print(sys.version_info.minor)')
best=0 path=
shopt -s nullglob
for candidate in $(compgen -c python3. | grep -E '^python3\.[0-9]+$' | sort -u) "$HOME"/.pyenv/versions/3.*/bin/python; do
    # A version manager's shim may be on the PATH without being able to run.
    minor=$("$candidate" -c 'import sys, venv, ensurepip; print(sys.version_info.minor)' 2>/dev/null) || continue
    if ((minor >= 11 && minor != ours && minor > best)); then
        best=$minor path=$candidate
    fi
done
[[ -z $path ]] || command -v "$path"
