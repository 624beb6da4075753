"""The ringing tone that a caller hears while somebody else is called: made here, since the agent's media stay on the line.

Asterisk's own (`POST channels/ID/ring`) would not be heard: it is mixed with the frames that the agent's side sends.
"""

from __future__ import annotations

import math
from array import array
from functools import cache

from bridge.audio import PcmFormat

# ITU-T E.180: 425 Hz, 1 s on, 4 s off, as in most of the world.
_HZ, _ON_MS, _OFF_MS = 425, 1000, 4000
# -20 dBFS, as loud as speech.
_AMPLITUDE = 0.14 * 32767
# Without a soft edge it clicks.
_EDGE_MS = 10


class RingingTone:
    """20 ms at a time, from the beginning of the first ring."""

    def __init__(self, format: PcmFormat) -> None:
        self._frames = _cadence(format.rate_hz, format.frame_bytes)
        self._next = 0

    def next_frame(self) -> bytes:
        """The next 20 ms, PCM16 at the line's rate."""
        frame = self._frames[self._next]
        self._next = (self._next + 1) % len(self._frames)
        return frame


@cache
def _cadence(rate_hz: int, frame_bytes: int) -> tuple[bytes, ...]:
    """One ring and the pause behind it, in frames; made once for each rate."""
    on, edge = rate_hz * _ON_MS // 1000, rate_hz * _EDGE_MS // 1000
    ring = array(
        "h",
        (
            round(_AMPLITUDE * min(1.0, n / edge, (on - n) / edge) * math.sin(2 * math.pi * _HZ * n / rate_hz))
            for n in range(on)
        ),
    )
    pcm = ring.tobytes() + bytes(2 * (rate_hz * _OFF_MS // 1000))
    return tuple(pcm[at : at + frame_bytes] for at in range(0, len(pcm), frame_bytes))
