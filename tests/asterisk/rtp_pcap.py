"""What a SIP telephone sends, as a pcap file that sipp plays: G.711 speech and RFC 4733 digits in one RTP stream.

One stream, as telephones do it: digits take the place of the audio, sequence numbers and timestamps go on. (sipp's own
`rtp_stream` and its ready-made digits would be two senders, and Asterisk's strict RTP takes the second for an attacker.)
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from pathlib import Path

from bridge.audio import pcm_to_ulaw

PCMU, TELEPHONE_EVENT = 0, 101
_FRAME_S, _FRAME_SAMPLES = 0.020, 160
_DIGITS = "0123456789*#"
_SSRC = 0x0A57E215


@dataclass
class Telephone:
    """Collects packets; `write` makes the file. Time goes on with everything that is added."""

    packets: list[tuple[float, bytes]] = field(default_factory=list)
    _at_s: float = 0.0
    _sequence: int = 1000
    _timestamp: int = 160000

    def say(self, pcm_8k: bytes) -> None:
        """Speech, PCM16 at 8 kHz, in packets of 20 ms."""
        for start in range(0, len(pcm_8k), 2 * _FRAME_SAMPLES):
            frame = pcm_8k[start : start + 2 * _FRAME_SAMPLES].ljust(2 * _FRAME_SAMPLES, b"\0")
            self._packet(PCMU, pcm_to_ulaw(frame), self._timestamp, marker=not self.packets)
            self._timestamp += _FRAME_SAMPLES

    def be_silent(self, ms: int) -> None:
        self.say(bytes(16 * ms))

    def press(self, digit: str, ms: int = 100) -> None:
        """One key: an event every 20 ms with a growing duration and one timestamp, its end told three times."""
        frames = ms // 20
        for number in range(frames + 2):
            duration = min(number + 1, frames) * _FRAME_SAMPLES
            last = number + 1 >= frames
            event = struct.pack(">BBH", _DIGITS.index(digit), (0x80 if last else 0) | 10, duration)
            # The repetitions of the end follow at once; they take no time on the line.
            self._packet(TELEPHONE_EVENT, event, self._timestamp, marker=number == 0, takes=number < frames)
        self._timestamp += frames * _FRAME_SAMPLES

    def _packet(self, kind: int, payload: bytes, timestamp: int, *, marker: bool, takes: bool = True) -> None:
        header = struct.pack(">BBHII", 0x80, kind | (0x80 if marker else 0), self._sequence, timestamp, _SSRC)
        self.packets.append((self._at_s, header + payload))
        self._sequence += 1
        self._at_s += _FRAME_S if takes else 0.0

    def write(self, path: Path) -> None:
        """A classic pcap file, Ethernet; sipp puts in its own addresses and ports."""
        data = bytearray(struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, 1))
        for at_s, rtp in self.packets:
            udp = struct.pack(">HHHH", 6000, 6000, 8 + len(rtp), 0) + rtp
            ip = struct.pack(">BBHHHBBH4s4s", 0x45, 0, 20 + len(udp), 0, 0, 64, 17, 0, b"\x7f\0\0\1", b"\x7f\0\0\1")
            frame = bytes(12) + b"\x08\x00" + ip + udp
            seconds, rest = divmod(round(at_s * 1e6), 1_000_000)
            data += struct.pack("<IIII", 1_000_000 + seconds, rest, len(frame), len(frame)) + frame
        path.write_bytes(data)
