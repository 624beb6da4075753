"""Two channels on one time line: the caller left, the agent right, as both passed the bridge.

Pieces come with the time at which they passed; `lay` puts them where they belong, and silence where nothing was:

* The agent's frames stand where the clock's grid has them (`deadline`), to the sample. So an interrupted reply ends with
  the last frame that was sent, and a tick that was lost is a hole, as it was for the caller.
* The caller's come when network and Asterisk let them through. They follow each other without a seam, as a telephone's
  jitter buffer has them, unless one comes more than `LATE_MS` later than the end of what is there: then nothing was sent
  (DTX, hold), and it stands where it came. A caller whose clock is fast loses a frame when he is `EARLY_MS` ahead.

So caller and agent are where a recorder on the line at the bridge would have them, the caller's side to 5 ms (the clock
reads each 5 ms) and the network's jitter, in the worst case `LATE_MS`.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable

from bridge.audio import SAMPLE_BYTES, PcmFormat, interleaved

# A stall of the process is made good for 60 ms (`Metronome`); telephones' jitter buffers hold as much.
LATE_MS = 60
EARLY_MS = 200
# The grid's deadlines are floating point.
_GRID_MS = 1


class Side(enum.IntEnum):
    """Whose channel it is."""

    CALLER = 0
    AGENT = 1


Piece = tuple[Side, float, bytes]
"""Whose, when it passed (s), and its samples at the line's rate."""


class _Channel:
    __slots__ = ("begins", "line", "sounded")

    def __init__(self) -> None:
        self.sounded: int | None = None  # the sample behind the last piece that came
        self.begins = 0  # the sample at which `line` begins: all before it has been given out
        self.line = bytearray()

    @property
    def end(self) -> int:
        return self.begins + len(self.line) // SAMPLE_BYTES

    def add(self, at: int, pcm: bytes) -> None:
        """Put samples at `at`, but not before `end`, silence before them."""
        self.line += bytes(max(0, at - self.end) * SAMPLE_BYTES)
        self.line += pcm
        self.sounded = self.end

    def take(self, until: int) -> bytes:
        """All before the sample `until`, silence where there is none."""
        wanted = max(0, until - self.begins) * SAMPLE_BYTES
        taken = bytes(self.line[:wanted]).ljust(wanted, b"\0")
        del self.line[:wanted]
        self.begins += wanted // SAMPLE_BYTES
        return taken


class StereoTrack:
    """One call's recording. It begins with the first piece of the agent: what the caller said before that is left out.

    Not for the clock's task: `lay` takes its time. `length_ms` is what was given out, `lost_ms` what came too late or too
    early to have a place.
    """

    def __init__(self, format: PcmFormat) -> None:
        self._format = format
        self._samples_per_ms = format.rate_hz // 1000
        self._channels = (_Channel(), _Channel())
        self._began: float | None = None
        self._lost = 0

    @property
    def length_ms(self) -> int:
        return self._channels[Side.AGENT].begins // self._samples_per_ms

    @property
    def lost_ms(self) -> int:
        return self._lost // self._format.bytes_per_ms

    def lay(self, pieces: Iterable[Piece], until_s: float) -> bytes:
        """Add `pieces`, each side's in order; give out everything before `until_s`, interleaved."""
        for side, at_s, pcm in pieces:
            if self._began is None and side is Side.AGENT:
                self._began = at_s
            if self._began is not None:
                self._add(side, at_s - self._began, pcm)
        if self._began is None:
            return b""
        until = round((until_s - self._began) * self._format.rate_hz)
        left, right = (channel.take(until) for channel in self._channels)
        return interleaved(left, right)

    def _add(self, side: Side, at_s: float, pcm: bytes) -> None:
        channel, per_ms = self._channels[side], self._samples_per_ms
        at = round(at_s * self._format.rate_hz)
        if side is Side.CALLER:
            # What came at once because the process stood still was said before: it ends where one frame would end.
            at += self._format.frame_samples - len(pcm) // SAMPLE_BYTES
            forgiven = LATE_MS * per_ms
        else:
            forgiven = _GRID_MS * per_ms
        if side is Side.CALLER and at < channel.end - EARLY_MS * per_ms:
            self._lost += len(pcm)
        elif channel.sounded is None or at - channel.sounded > forgiven:
            channel.add(at, pcm)
        else:
            channel.add(channel.sounded, pcm)
