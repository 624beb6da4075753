"""The caller's audio on its way to the model: gathered into append events, and kept for a session that takes over.

All of it is at the model's rate (PCM16, 24 kHz). A session that is lost, or replaced, takes with it what it had not
understood yet: the newest seconds are kept here, so that the next one can hear them (`takeover` says which).
"""

from __future__ import annotations

from collections import deque
from typing import Protocol

from bridge import realtime
from bridge.audio import MODEL_FORMAT

# Five seconds, 240 kB a call: longer than a turn that is lost with its session usually is.
KEPT_FRAMES = 250
# What is said again goes at once, in pieces of a fifth of a second.
PIECE_FRAMES = 10


class AudioUplink(Protocol):
    """What is needed of the way to the model; `uplink.Uplink` is one."""

    def put(self, payload: bytes) -> bool: ...

    def offer_audio(self, payload: bytes, heard_at: float) -> bool: ...


class UplinkAudio:
    """One caller's audio. `heard_at`: when the newest of it came; `sent_ms`, `dropped_ms`: what became of it."""

    def __init__(self, uplink: AudioUplink, append_ms: int) -> None:
        """`append_ms`: how much goes into one append event (`realtime.append_ms`)."""
        self._uplink = uplink
        # Half a frame less than what is asked for: the resampler keeps back 2 ms of the first frame, and waiting for them
        # made everything 20 ms later (measured by `bench`: uplink p50 20.5 ms at slin16, 0.3 at slin24).
        self._append_at = MODEL_FORMAT.bytes_per_ms * (append_ms - 10)
        self._gathered = bytearray()
        self._kept: deque[tuple[float, bytes]] = deque(maxlen=KEPT_FRAMES)
        self.heard_at = 0.0
        self.sent_ms = 0
        self.dropped_ms = 0

    def heard(self, pcm: bytes, now: float) -> None:
        """A frame came from the caller: keep it, whether the model is to have it or not."""
        self.heard_at = now
        self._kept.append((now, pcm))

    def offer(self, pcm: bytes) -> int:
        """Send this, as soon as there is enough for an event; drop and count it where nobody can take it now.

        Returns how many milliseconds the model has been given by this call.
        """
        if not self._gathered and len(pcm) >= self._append_at:
            return self._append(pcm)
        self._gathered += pcm
        return self.flush() if len(self._gathered) >= self._append_at else 0

    def flush(self) -> int:
        """Send what has been gathered, though it is less than was asked for. Returns as `offer` does."""
        if not self._gathered:
            return 0
        pcm = bytes(self._gathered)
        self._gathered.clear()
        return self._append(pcm)

    def _append(self, pcm: bytes) -> int:
        length_ms = MODEL_FORMAT.duration_ms(len(pcm))
        if self._uplink.offer_audio(realtime.append_audio(pcm), self.heard_at):
            self.sent_ms += length_ms
            return length_ms
        self.dropped_ms += length_ms
        return 0

    def say_again(self, since_s: float, until_s: float) -> int:
        """Send to a new session what was heard from `since_s` to before `until_s`, as far as it is kept. Returns its
        milliseconds, which count as given, but not as sent: they are no more audio of the caller's."""
        self._gathered.clear()
        frames = [pcm for at, pcm in self._kept if since_s <= at < until_s]
        for start in range(0, len(frames), PIECE_FRAMES):
            self._uplink.put(realtime.append_audio(b"".join(frames[start : start + PIECE_FRAMES])))
        return MODEL_FORMAT.duration_ms(sum(map(len, frames)))
