"""The three audio formats of the Realtime wire, to and from the simulator's own PCM16 mono at 24 kHz.

Written anew with numpy instead of `bridge.audio`: a fake that shared the converter could not notice its faults.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Format = dict[str, Any]
_BIAS, _CLIP = 132, 32635  # G.711 mu-law on 16-bit samples


def bytes_per_ms(audio_format: Format) -> int:
    """48 for PCM at 24 kHz, 8 for G.711."""
    return 48 if audio_format["type"] == "audio/pcm" else 8


def _ulaw_table() -> NDArray[np.int16]:
    """The 256 values of mu-law."""
    code = ~np.arange(256) & 0xFF
    size = (((code & 0x0F) << 3) + _BIAS << ((code & 0x70) >> 4)) - _BIAS
    return np.where(code & 0x80, -size, size).astype(np.int16)


def _alaw_table() -> NDArray[np.int16]:
    """The 256 values of A-law."""
    code = np.arange(256) ^ 0x55
    exponent, mantissa = (code & 0x70) >> 4, (code & 0x0F) << 4
    size = np.where(exponent == 0, mantissa + 8, (mantissa + 0x108) << np.maximum(exponent - 1, 0))
    return np.where(code & 0x80, size, -size).astype(np.int16)


_TABLES = {"audio/pcmu": _ulaw_table(), "audio/pcma": _alaw_table()}


def _encoding_table(table: NDArray[np.int16]) -> NDArray[np.uint8]:
    """For each 16-bit sample (offset by 32768) the code whose value is nearest."""
    order = np.argsort(table, kind="stable")
    values = table[order].astype(np.int64)
    borders = (values[1:] + values[:-1]) / 2
    return order[np.searchsorted(borders, np.arange(-32768, 32768))].astype(np.uint8)


_CODES = {name: _encoding_table(table) for name, table in _TABLES.items()}


def ulaw_to_pcm(data: bytes) -> bytes:
    """PCM16 at the same rate."""
    return _TABLES["audio/pcmu"][np.frombuffer(data, np.uint8)].astype("<i2").tobytes()


def resampled(pcm: bytes, from_hz: int, to_hz: int) -> bytes:
    """A whole recording at another rate, by its spectrum: no delay and no images; not for streams."""
    samples = np.frombuffer(pcm, "<i2").astype(np.float64)
    if not len(samples) or from_hz == to_hz:
        return pcm
    # Silence at both ends, since the transform would wrap a beginning around into the end.
    margin = from_hz // 50
    padded = np.concatenate([np.zeros(margin), samples, np.zeros(margin + (-len(samples)) % margin)])
    length = len(padded) * to_hz // from_hz
    spectrum = np.fft.rfft(padded)[: length // 2 + 1]
    out = np.fft.irfft(spectrum, length) * (to_hz / from_hz)
    start = margin * to_hz // from_hz
    kept = out[start : start + round(len(samples) * to_hz / from_hz)]
    return np.clip(np.round(kept), -32768, 32767).astype("<i2").tobytes()


def encode(pcm: bytes, audio_format: Format) -> bytes:
    """A whole piece of 24 kHz PCM16 in the wire's format."""
    if audio_format["type"] == "audio/pcm":
        return pcm
    samples = np.frombuffer(resampled(pcm, 24000, 8000), "<i2").astype(np.int64)
    return _CODES[audio_format["type"]][samples + 32768].tobytes()


class Decoder:
    """A stream of appended audio to 24 kHz PCM16. Half samples wait for their other half."""

    def __init__(self, audio_format: Format) -> None:
        self._table = _TABLES.get(audio_format["type"])
        self._rest = b""
        self._last = 0.0

    def decode(self, data: bytes) -> bytes:
        """The audio of `data`, and of the half sample before it."""
        if self._table is None:
            data = self._rest + data
            whole = len(data) // 2 * 2
            self._rest = data[whole:]
            return data[:whole]
        # Straight lines between samples: what the model hears above 4 kHz is of no use to it anyway.
        samples = np.concatenate([[self._last], self._table[np.frombuffer(data, np.uint8)]])
        self._last = float(samples[-1])
        at = np.arange(1, 3 * len(data) + 1) / 3
        return bytes(np.round(np.interp(at, np.arange(len(samples)), samples)).astype("<i2").tobytes())
