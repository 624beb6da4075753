#!/bin/sh
# Makes the speech of the phrasebook from phrases.toml: NAME.ul, raw G.711 mu-law at 16 kHz mono (16 kB a second).
# The files are committed, so only a change of phrases.toml needs this. Wants espeak-ng, sox and python3 (3.11).
#
# Two voices that a listener can tell apart: the agent is a lower British one, the caller a higher American one.
# Speech is at -20 dBFS RMS; a limiter keeps peaks below -3 dBFS.
set -eu
cd "$(dirname "$0")"
work=$(mktemp -d)
trap 'rm -r "$work"' EXIT

python3 - <<'PYTHON' > "$work/list"
import tomllib
for phrase in tomllib.load(open("phrases.toml", "rb"))["phrase"]:
    print(phrase["name"], phrase["role"], phrase["text"], sep="|")
PYTHON

rms() { sox "$1" -n stats 2>&1 | awk '/^RMS lev dB/ { print $4 }'; }

while IFS='|' read -r name role text; do
    case $role in
        agent) voice="-v en-gb-x-rp+m3 -s 155 -p 42" ;;
        caller) voice="-v en-us+f3 -s 155 -p 55" ;;
    esac
    # shellcheck disable=SC2086  (the voice is several words)
    espeak-ng $voice -w "$work/raw.wav" "$text"
    # Telephone speech needs nothing below 100 Hz; silence at the ends goes, 60 ms of it comes back.
    # A pause inside is at most 0.32 s, so that VAD with the usual 500 ms never takes it for the end.
    sox "$work/raw.wav" -r 16000 "$work/cut.wav" gain -6 highpass 100 \
        silence -l 1 0.02 0.5% -1 0.32 0.5% reverse silence 1 0.02 0.5% reverse
    # The limiter works at full scale, so: 15 dB below it first, then down. The second pass makes up for what it took.
    gain=$(awk "BEGIN { print -15 - $(rms "$work/cut.wav") }")
    sox "$work/cut.wav" "$work/loud.wav" gain -l "$gain" gain -5
    gain=$(awk "BEGIN { print -20 - $(rms "$work/loud.wav") }")
    sox "$work/loud.wav" -t ul -r 16000 -c 1 "$name.ul" gain "$gain" pad 0.06 0.06
    sox -t ul -r 16000 -c 1 "$name.ul" -n stats 2>&1 |
        awk -v name="$name" '/^Pk lev/ { peak = $4 } /^RMS lev/ { rms = $4 } /^Length/ { length_s = $3 }
            END { printf "%-20s %6.2f s  RMS %6.1f  peak %6.1f dBFS\n", name, length_s, rms, peak }'
done < "$work/list"
