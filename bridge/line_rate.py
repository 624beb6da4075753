"""Does what comes from the caller's line have the rate that it is labelled with?

An Asterisk whose channel was not told its codec sends G.711 bytes as "slin" (field report 5, 5.10): 160 bytes each 20 ms,
which would be 10 ms of audio, and sound as noise. Others label 16 kHz as 8 kHz, which plays at half speed. No format is
guessed from data, and changed (field report 10); but who runs the exchange gets to know in words, once a call.

Silence suppression sends less too, but not at a steady fifty frames a second.
"""

from __future__ import annotations

from collections import deque
from itertools import pairwise

# So long a stretch of steady frames is looked at.
WINDOW_S = 2.0
# Frames are steady when no more than one in ten is missing or too many, at the distance that lines have. 40 ms is not among
# them: half of a line's 20 ms frames, the rest suppressed, would look the same.
_FRAMES_MS = (10, 20, 30)
_STEADY = 0.1
_RATIO_OFF = 0.15


class LineRate:
    """Watches one line. `bytes_per_ms` is that of its format."""

    def __init__(self, bytes_per_ms: int) -> None:
        self._bytes_per_ms = bytes_per_ms
        self._since: tuple[float, int, int] | None = None
        self._told = False

    def check(self, frames: int, nbytes: int, now: float) -> str:
        """What is wrong, once; empty otherwise. `frames`, `nbytes`: how much audio has come since the call began."""
        if self._told:
            return ""
        if self._since is None or now - self._since[0] > 2 * WINDOW_S:
            self._since = now, frames, nbytes
            return ""
        began, frames_then, bytes_then = self._since
        passed_ms = (now - began) * 1000
        if passed_ms < WINDOW_S * 1000:
            return ""
        self._since = now, frames, nbytes
        count, size = frames - frames_then, nbytes - bytes_then
        steady = any(abs(count * each / passed_ms - 1) <= _STEADY for each in _FRAMES_MS)
        if not count or not steady:
            return ""
        ratio = size / self._bytes_per_ms / passed_ms
        frame = f"frames of {size // count} bytes come {count / passed_ms * 1000:.0f} times a second"
        if abs(ratio - 0.5) <= _RATIO_OFF / 2:
            self._told = True
            return f"{frame}, half of what the format has: is it G.711 that is labelled slin? Give the codec: c(slin)"
        if abs(ratio - 2) <= _RATIO_OFF * 2:
            self._told = True
            return (
                f"{frame}, twice of what the format has: is its rate higher than its label? Give the codec: c(slin)"
            )
        return ""


# What microphones deliver; a browser's, where nobody asked for another rate, 44100 or 48000 Hz.
_MICROPHONES_HZ = (8000, 11025, 16000, 22050, 32000, 44100, 48000)
_NEAR = 0.03
# So many seconds are looked at. A microphone delivers about the same in each of them (a message of 100 ms more or less);
# who sends speech only, or a file, does not.
_LOOKS = 5
_UNEVEN = 0.15


class StreamRate:
    """Watches what a program streams: is it audio of another rate than `rate_hz`? Ask each second."""

    def __init__(self, rate_hz: int) -> None:
        self._rate_hz = rate_hz
        self._looks: deque[tuple[float, int]] = deque(maxlen=_LOOKS + 1)
        self._told = False

    def check(self, nbytes: int, now: float) -> str:
        """What is wrong, once; empty otherwise. `nbytes`: how much PCM16 has come since the beginning."""
        self._looks.append((now, nbytes))
        if self._told or len(self._looks) <= _LOOKS:
            return ""
        mean_hz = _hz(self._looks[0], self._looks[-1])
        near = [hz for hz in _MICROPHONES_HZ if abs(mean_hz / hz - 1) <= _NEAR]
        even = all(abs(_hz(one, next_one) - mean_hz) <= _UNEVEN * mean_hz for one, next_one in pairwise(self._looks))
        if not near or not even or abs(mean_hz / self._rate_hz - 1) <= 2 * _NEAR:
            return ""
        self._told = True
        return f"audio comes as fast as {near[0]} Hz would; it has to be {self._rate_hz} Hz, 16 bit, mono"


def _hz(one: tuple[float, int], other: tuple[float, int]) -> float:
    return (other[1] - one[1]) / 2 / max(other[0] - one[0], 1e-3)
