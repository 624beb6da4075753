#!/bin/sh
# Makes bridge/sounds/NAME.wav: what the bridge itself plays to a caller while the model can not speak. PCM16 mono, 16 kHz.
# The files are committed, so only a change below needs this. Wants espeak-ng and sox. bridge/sounds/README.md explains.
#
# The voice is the agent's of simulators/phrasebook. Speech is at -20 dBFS RMS, as loud as a model speaks; a limiter keeps
# peaks below -3 dBFS. The filler is at -30 dBFS.
set -eu
cd "$(dirname "$0")/../bridge/sounds"
work=$(mktemp -d)
trap 'rm -r "$work"' EXIT

# -R: the same dither each time, so that the same text makes the same file.
sox() { command sox -R "$@"; }
stat_of() { sox "$1" -n stats 2>&1 | awk -v name="$2" 'index($0, name) == 1 { print $NF }'; }
report() {
    printf '%-12s %5.2f s  RMS %6.1f  peak %6.1f dBFS\n' "$1" \
        "$(stat_of "$1.wav" 'Length s')" "$(stat_of "$1.wav" 'RMS lev dB')" "$(stat_of "$1.wav" 'Pk lev dB')"
}

# say NAME TEXT
say() {
    espeak-ng -v en-gb-x-rp+m3 -s 155 -p 42 -w "$work/raw.wav" "$2"
    # As in the phrasebook: nothing below 100 Hz, silence at the ends goes, 60 ms of it comes back.
    sox "$work/raw.wav" -r 16000 "$work/cut.wav" gain -6 highpass 100 \
        silence -l 1 0.02 0.5% -1 0.32 0.5% reverse silence 1 0.02 0.5% reverse
    # The limiter works at full scale, so: 15 dB below it first, then down. The second pass makes up for what it took.
    gain=$(awk "BEGIN { print -15 - $(stat_of "$work/cut.wav" 'RMS lev dB') }")
    sox "$work/cut.wav" "$work/loud.wav" gain -l "$gain" gain -5
    gain=$(awk "BEGIN { print -20 - $(stat_of "$work/loud.wav" 'RMS lev dB') }")
    sox "$work/loud.wav" -b 16 -c 1 "$1.wav" gain "$gain" fade q 0.005 0 0.005 pad 0.06 0.06
    report "$1"
}

say one_moment "One moment, please."
say still_there "I am still here. One more moment, please."
say busy "We have many calls right now. One moment, please."
say trouble "I am sorry, we have a technical problem."

# Two soft plucked notes, 0.9 s. 392 and 523 Hz (G4, C5) are no part of DTMF (697 Hz and up), of fax and modem tones
# (1100, 2100 Hz), nor of dial, ringing and busy tones (350, 400, 425, 440, 450, 480, 620 Hz).
note() { sox -n -r 16000 -b 16 -c 1 "$1" synth 0.6 sine "$2" gain -6 fade h 0.012 0.6 0.588; }
note "$work/low.wav" 392
note "$work/high.wav" 523.25
sox "$work/high.wav" "$work/later.wav" pad 0.3 0
sox -m "$work/low.wav" "$work/later.wav" "$work/both.wav"
gain=$(awk "BEGIN { print -30 - $(stat_of "$work/both.wav" 'RMS lev dB') }")
sox "$work/both.wav" -b 16 filler.wav gain "$gain"
report filler
