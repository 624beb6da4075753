"""The server's half of RFC 6455, as little as the generator needs: no fragments, no extensions, no UTF-8 checks.

Frames of a server are not masked, so whole replies are made once and sent to every call. Frames of the client are handed
on masked: most of them are audio, of which only the length and the period matter (`signals.is_silence`).
"""

from __future__ import annotations

import base64
import hashlib
from typing import NamedTuple

TEXT, CLOSE, PING, PONG = 0x1, 0x8, 0x9, 0xA
_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_MASKED = 0x80


class ClientFrame(NamedTuple):
    """One frame of the client, its payload still masked."""

    opcode: int
    key: bytes
    masked: bytes

    def text(self, limit: int | None = None) -> bytes:
        """The payload, or its first bytes, unmasked."""
        return unmask(self.key, self.masked[:limit])


def unmask(key: bytes, masked: bytes) -> bytes:
    """Also masks: the operation is its own inverse."""
    length = len(masked)
    pad = (key * (length // 4 + 1))[:length]
    return (int.from_bytes(masked, "big") ^ int.from_bytes(pad, "big")).to_bytes(length, "big")


def server_frame(payload: bytes, opcode: int = TEXT) -> bytes:
    """One whole message, unmasked."""
    length = len(payload)
    if length < 126:
        header = bytes((0x80 | opcode, length))
    elif length < 1 << 16:
        header = bytes((0x80 | opcode, 126)) + length.to_bytes(2, "big")
    else:
        header = bytes((0x80 | opcode, 127)) + length.to_bytes(8, "big")
    return header + payload


def upgrade_response(request: bytes) -> bytes:
    """The 101 answer to a whole request head. Raises `ValueError` when it is no websocket upgrade."""
    for line in request.split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name.strip().lower() == b"sec-websocket-key":
            accept = base64.b64encode(hashlib.sha1(value.strip() + _GUID).digest())
            return (
                b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                b"Sec-WebSocket-Accept: " + accept + b"\r\n\r\n"
            )
    raise ValueError(f"no websocket upgrade: {request[:80]!r}")


class ClientFrames:
    """Frames out of a client's byte stream."""

    __slots__ = ("_rest",)

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> list[ClientFrame]:
        """All frames that are whole now. Raises `ValueError` for a frame that is not masked, or is a fragment."""
        if self._rest:
            data = self._rest + data
        frames: list[ClientFrame] = []
        start, end = 0, len(data)
        while end - start >= 2:
            first, second = data[start], data[start + 1]
            if not second & _MASKED or not first & 0x80:
                raise ValueError(f"the client sent an unmasked frame or a fragment (0x{first:02x} 0x{second:02x})")
            length, header = second & 0x7F, 6
            if length == 126:
                length, header = int.from_bytes(data[start + 2 : start + 4], "big"), 8
            elif length == 127:
                length, header = int.from_bytes(data[start + 2 : start + 10], "big"), 14
            body = start + header
            if body + length > end:
                break
            frames.append(ClientFrame(first & 0x0F, data[body - 4 : body], data[body : body + length]))
            start = body + length
        self._rest = data[start:]
        return frames
