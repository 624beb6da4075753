"""AudioSocket frames, without a socket: bytes to frames, frames to bytes.

A frame is one byte of kind, two of payload length (big-endian), and the payload; samples are little-endian all the
same. Asterisk's first frame is always the UUID of the call. Facts: `include/asterisk/res_audiosocket.h` and
`res/res_audiosocket.c` of Asterisk, measured on 22.10.1.

    decoder.receive_data(data)                  # whatever came from the stream, cut anywhere
    while (frame := decoder.next_frame()) is not None:
        ...
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum

from bridge.errors import MediaProtocolError


class Kind(IntEnum):
    """What a frame carries. Towards Asterisk only HANGUP and the SLINs are legal: it drops the call for the others."""

    HANGUP = 0x00
    UUID = 0x01
    DTMF = 0x03
    SLIN = 0x10
    SLIN12 = 0x11
    SLIN16 = 0x12
    SLIN24 = 0x13
    SLIN32 = 0x14
    SLIN44 = 0x15
    SLIN48 = 0x16
    SLIN96 = 0x17
    SLIN192 = 0x18
    ERROR = 0xFF


RATE_HZ_OF_KIND: Mapping[Kind, int] = {
    Kind.SLIN: 8000,
    Kind.SLIN12: 12000,
    Kind.SLIN16: 16000,
    Kind.SLIN24: 24000,
    Kind.SLIN32: 32000,
    Kind.SLIN44: 44100,
    Kind.SLIN48: 48000,
    Kind.SLIN96: 96000,
    Kind.SLIN192: 192000,
}
KIND_OF_RATE: Mapping[int, Kind] = {rate_hz: kind for kind, rate_hz in RATE_HZ_OF_KIND.items()}

HEADER_BYTES = 3
MAX_PAYLOAD_BYTES = 0xFFFF
UUID_BYTES = 16
DIGITS = frozenset("0123456789*#ABCD")

_KINDS: Mapping[int, Kind] = {int(kind): kind for kind in Kind}
# Below this the used part of the buffer is not worth moving the rest: 20 ms at 16 kHz are 643 bytes.
_COMPACT_ABOVE_BYTES = 8192


@dataclass(frozen=True, slots=True)
class Frame:
    """One frame. `payload` is legal for `kind` when it comes from a `FrameDecoder`."""

    kind: Kind
    payload: bytes


def encode(kind: Kind, payload: bytes = b"") -> bytes:
    """A frame as one piece, to be sent by one write: Asterisk drops a call whose payload lags behind its header.

    Raises `ValueError` for more than 65535 bytes. Whether the other side accepts this kind is the sender's business.
    """
    if len(payload) > MAX_PAYLOAD_BYTES:
        raise ValueError(f"an AudioSocket payload has at most {MAX_PAYLOAD_BYTES} bytes, not {len(payload)}")
    return bytes((kind, len(payload) >> 8, len(payload) & 0xFF)) + payload


class FrameDecoder:
    """Frames out of a byte stream. Any error is for good: after it there is no way to tell where a frame begins.

    It demands the UUID first, and once. `identified` is for the direction in which no UUID flows (bridge to Asterisk).
    """

    def __init__(self, *, identified: bool = False) -> None:
        self._buffer = bytearray()
        self._offset = 0
        self._identified = identified
        self._error: MediaProtocolError | None = None

    def receive_data(self, data: bytes) -> None:
        """Add what the stream gave; then call `next_frame` until it returns None."""
        if self._offset == len(self._buffer):
            self._buffer.clear()
            self._offset = 0
        elif self._offset > _COMPACT_ABOVE_BYTES:
            del self._buffer[: self._offset]
            self._offset = 0
        self._buffer += data

    def next_frame(self) -> Frame | None:
        """The next whole frame, or None when more bytes are needed.

        Raises `MediaProtocolError`, each time from then on, as soon as a header shows something illegal: an unknown
        kind, anything but a UUID at first, a second UUID, a wrong length for its kind, or a digit that is none.
        """
        if self._error is not None:
            raise MediaProtocolError(str(self._error))
        buffer, start = self._buffer, self._offset
        if len(buffer) - start < HEADER_BYTES:
            return None
        length = buffer[start + 1] << 8 | buffer[start + 2]
        kind = self._checked_kind(buffer[start], length)
        end = start + HEADER_BYTES + length
        if len(buffer) < end:
            return None
        # Through a memoryview the payload is copied once, not twice.
        with memoryview(buffer) as view:
            payload = bytes(view[start + HEADER_BYTES : end])
        if kind is Kind.DTMF and payload.decode("latin-1") not in DIGITS:
            raise self._fail(f"a DTMF frame carries {payload!r}, which is no digit")
        self._identified = True
        self._offset = end
        return Frame(kind, payload)

    @property
    def buffered_bytes(self) -> int:
        """Bytes of a frame that has not come whole."""
        return len(self._buffer) - self._offset

    def _checked_kind(self, code: int, length: int) -> Kind:
        kind = _KINDS.get(code)
        if kind is None:
            raise self._fail(f"unknown AudioSocket frame kind 0x{code:02x} (or the stream is out of frame)")
        if kind is Kind.UUID:
            if self._identified:
                raise self._fail("a UUID frame where none is allowed: the call is identified already")
            if length != UUID_BYTES:
                raise self._fail(f"the UUID frame has {length} bytes instead of {UUID_BYTES}")
        elif not self._identified:
            raise self._fail(
                f"the first frame is {kind.name}, not the UUID of a call: is this an AudioSocket client?"
            )
        elif kind is Kind.DTMF and length != 1:
            raise self._fail(f"a DTMF frame has {length} bytes instead of 1")
        return kind

    def _fail(self, message: str) -> MediaProtocolError:
        self._error = MediaProtocolError(message)
        self._buffer.clear()
        self._offset = 0
        return self._error
