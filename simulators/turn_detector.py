"""Who speaks when: the energy VAD of the simulated server, on the clock of the appended audio.

Times count audio that was appended in this session, as the real server's `audio_start_ms` does: gaps in sending shift
them.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from simulators.model_script import BYTES_PER_MS

_WINDOW_MS = 20
_WINDOW_BYTES = _WINDOW_MS * BYTES_PER_MS
# Three windows in a row: a click is no speech, the shortest phoneme that opens a phrase is.
_ONSET_WINDOWS = 3
# Semantic VAD waits until a thought seems complete; here eagerness is only a silence, well below the real limits of
# 2, 4 and 8 s, which hold for callers who pause in mid sentence.
_SEMANTIC_SILENCE_MS = {"high": 300, "medium": 500, "auto": 500, "low": 1000}


class InputBuffer:
    """All appended audio, 24 kHz PCM16, and where the uncommitted part begins. Times are ms of appended audio."""

    def __init__(self, *, recording: bool = True) -> None:
        """`recording=False`: committed and skipped audio is forgotten."""
        self.pcm = bytearray()
        self.item_id = ""  # of the turn that is under way; empty: nobody speaks
        self._recording = recording
        self._forgotten = 0  # bytes
        self._cut = 0  # bytes from the very start

    @property
    def appended_ms(self) -> int:
        """The clock of this session's audio."""
        return (self._forgotten + len(self.pcm)) // BYTES_PER_MS

    @property
    def buffered_ms(self) -> float:
        """How much is waiting for a commit."""
        return (self._forgotten + len(self.pcm) - self._cut) / BYTES_PER_MS

    def cut_at(self, start_ms: int) -> int:
        """Drop what lies before `start_ms`, as far as it exists and is not committed. Returns where the buffer begins."""
        self._cut = max(self._cut, min(start_ms, self.appended_ms) * BYTES_PER_MS)
        if not self._recording and self._cut - self._forgotten > 2000 * BYTES_PER_MS:
            del self.pcm[: self._cut - self._forgotten]
            self._forgotten = self._cut
        return self._cut // BYTES_PER_MS

    def take(self) -> bytes:
        """The uncommitted audio, which is committed by this."""
        taken = bytes(self.pcm[self._cut - self._forgotten :])
        self._cut, self.item_id = self._forgotten + len(self.pcm), ""
        return taken


class TurnDetector:
    """Feed it all appended audio; it says when speech starts and stops. Settings are a `turn_detection` object."""

    def __init__(self) -> None:
        self.appended_ms = 0
        self.speaking = False
        self._rest = b""
        self._loud = 0
        self._quiet_ms = 0

    def reset(self) -> None:
        """Forget a turn that is under way; the clock goes on."""
        self.speaking = False
        self._loud = self._quiet_ms = 0

    def feed(self, pcm: bytes, settings: dict[str, Any]) -> list[tuple[bool, int]]:
        """(True, start) and (False, end) of speech found in `pcm` (24 kHz PCM16), in ms, in order.

        Start: the first loud window less the prefix padding. End: the present, so it includes the silence.
        """
        self._rest += pcm
        whole = len(self._rest) // _WINDOW_BYTES * _WINDOW_BYTES
        if not whole:
            return []
        windows = np.frombuffer(self._rest[:whole], "<i2").astype(np.float64).reshape(-1, _WINDOW_BYTES // 2)
        self._rest = self._rest[whole:]
        # `threshold` 0 to 1 is laid on -60 to -20 dBFS: 0.5, the default, on -40; phone speech lies at -30 to -15.
        start_rms = 32768 * 10 ** ((-60 + 40 * settings.get("threshold", 0.5)) / 20)
        silence_ms = settings.get("silence_duration_ms") or _SEMANTIC_SILENCE_MS.get(
            settings.get("eagerness", ""), 200
        )
        found: list[tuple[bool, int]] = []
        for rms in np.sqrt(np.mean(windows**2, axis=1)):
            self.appended_ms += _WINDOW_MS
            # 6 dB of hysteresis keeps the soft end of a word inside it.
            loud = bool(rms > (start_rms / 2 if self.speaking else start_rms))
            if self.speaking:
                self._quiet_ms = 0 if loud else self._quiet_ms + _WINDOW_MS
                if self._quiet_ms >= silence_ms:
                    self.reset()
                    found.append((False, self.appended_ms))
                continue
            self._loud = self._loud + 1 if loud else 0
            if self._loud >= _ONSET_WINDOWS:
                self.speaking, self._loud, self._quiet_ms = True, 0, 0
                padding_ms = settings.get("prefix_padding_ms", 300)
                found.append((True, max(0, self.appended_ms - _ONSET_WINDOWS * _WINDOW_MS - padding_ms)))
        return found
