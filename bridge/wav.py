"""The header of a WAV file (RIFF, PCM16), for files that grow while they can be read."""

from __future__ import annotations

import struct

HEADER_BYTES = 44
# The size of all that follows the first 8 bytes is one of 32 bits.
MAX_DATA_BYTES = 2**32 - 1 - HEADER_BYTES
_SAMPLE_BYTES = 2


def wav_header(rate_hz: int, channels: int, data_bytes: int) -> bytes:
    """The 44 bytes before `data_bytes` of interleaved samples. Raises `ValueError` for more than a WAV file can hold."""
    if not 0 <= data_bytes <= MAX_DATA_BYTES:
        raise ValueError(f"a WAV file holds 0 to {MAX_DATA_BYTES} bytes, not {data_bytes}")
    row = channels * _SAMPLE_BYTES
    riff = struct.pack("<4sI4s", b"RIFF", data_bytes + HEADER_BYTES - 8, b"WAVE")
    form = struct.pack("<4sIHHIIHH", b"fmt ", 16, 1, channels, rate_hz, rate_hz * row, row, 8 * _SAMPLE_BYTES)
    return riff + form + struct.pack("<4sI", b"data", data_bytes)
