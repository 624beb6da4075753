"""The test audio, made so that finding it again costs the generator next to nothing.

Towards the caller: the n-th reply of a call is a constant level (`level_of`). A constant passes any resampler, and inside
a reply all frames are the same bytes, so one `==` recognises each; only a frame that differs from the one before is
looked at (`recognise`). How much of a reply was heard is counted in samples: at its edges the filter crosses half of the
level just where the reply begins and ends.

Towards the model: silence, with a click of 4 ms in the middle of a frame once a second. Base64 of silence is `AAAA…`, and
the websocket mask repeats each 4 bytes, so masked silence repeats each 4 bytes as well: `is_silence` finds a click in an
append event without unmasking it, for 0.3 us instead of 2 us.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np

MODEL_RATE_HZ = 24000
SAMPLE_BYTES = 2
_LEVELS = 16
_LOWEST, _STEP = 4000, 1500  # the highest level is 26500; an edge overshoots by 9 % and stays below 32767
_AUDIBLE = 1500  # above the filter's ringing beside a silent stretch


def level_of(reply: int) -> int:
    """The level of a call's n-th reply; it comes again after 16 replies."""
    return _LOWEST + _STEP * (reply % _LEVELS)


@cache
def reply_pcm(reply: int, ms: int) -> bytes:
    """So much of the n-th reply: PCM16 at 24 kHz."""
    return level_of(reply).to_bytes(SAMPLE_BYTES, "little") * (MODEL_RATE_HZ // 1000 * ms)


@dataclass(frozen=True, slots=True)
class Sound:
    """What a frame holds: the reply's number modulo 16, or None when nothing is audible, or -1 when it is no level of
    ours; and for how long, in ms."""

    reply: int | None
    ms: float


SILENCE = Sound(None, 0.0)


def recognise(pcm: bytes, rate_hz: int) -> Sound:
    """Find the reply in one frame. A frame never holds two: there is a pause between them."""
    samples = np.frombuffer(pcm, dtype="<i2")
    audible = samples[np.abs(samples.astype(np.int32)) > _AUDIBLE]
    if not len(audible):
        return SILENCE
    level = float(np.median(audible))
    reply = round((level - _LOWEST) / _STEP)
    if not 0 <= reply < _LEVELS or abs(level - level_of(reply)) > _STEP / 3:
        return Sound(-1, 1000 * len(audible) / rate_hz)
    return Sound(reply, 1000 * int(np.count_nonzero(samples >= level / 2)) / rate_hz)


def click_frame(rate_hz: int) -> bytes:
    """20 ms of silence with 4 ms at level 12000 in its middle. Its click has left any filter of less than 8 ms delay
    together with its frame, so a bridge that passes on at once what it has shows no delay."""
    ms = rate_hz // 1000
    return bytes(8 * ms * SAMPLE_BYTES) + (12000).to_bytes(2, "little") * (4 * ms) + bytes(8 * ms * SAMPLE_BYTES)


def is_silence(masked_base64: bytes) -> bool:
    """Whether this masked base64 text stands for zeros only. The last 4 characters may be padding and do not count."""
    return masked_base64[4:-4] == masked_base64[:-8]
