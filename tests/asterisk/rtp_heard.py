"""What a SIP telephone gets: the RTP that arrives at its port, read beside it from the loopback interface.

sipp plays and does not record. It plays over a raw socket, so whoever may run it may also look on (root, CAP_NET_RAW).
"""

from __future__ import annotations

import socket
import struct
from dataclasses import dataclass, field

import trio

from bridge.audio import ulaw_to_pcm

PCMU, RATE_HZ = 0, 8000
_ETH_P_IP = 0x0800
_UDP = 17
_OUTGOING = 4  # each packet passes the loopback twice


@dataclass(frozen=True)
class Packet:
    """One RTP packet of audio: when it came, and its PCM16 at 8 kHz."""

    at_s: float
    sequence: int
    timestamp: int
    ssrc: int
    pcm: bytes


@dataclass
class Earpiece:
    """Collects what comes to a UDP port; `run` it meanwhile. `others`: payload types that are not G.711 mu-law."""

    port: int
    packets: list[Packet] = field(default_factory=list)
    others: list[int] = field(default_factory=list)

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Listen until cancelled. Raises `PermissionError` without the right to."""
        with trio.socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(_ETH_P_IP)) as sniffer:
            await sniffer.bind(("lo", _ETH_P_IP))
            task_status.started()
            while True:
                data, address = await sniffer.recvfrom(2048)
                if address[2] != _OUTGOING:
                    self._take(data, trio.current_time())

    def _take(self, ip: bytes, now: float) -> None:
        header = (ip[0] & 15) * 4
        if ip[9] != _UDP or struct.unpack_from(">H", ip, header + 2)[0] != self.port:
            return
        rtp = ip[header + 8 :]
        _, kind, sequence, timestamp, ssrc = struct.unpack_from(">BBHII", rtp)
        if kind & 127 == PCMU:
            self.packets.append(Packet(now, sequence, timestamp, ssrc, ulaw_to_pcm(rtp[12:])))
        else:
            self.others.append(kind & 127)

    def heard(self) -> bytes:
        """As a telephone plays it: each packet at its own timestamp, silence where there is none."""
        line = bytearray()
        for packet in self.packets:
            start = 2 * (packet.timestamp - self.packets[0].timestamp)
            line += bytes(max(0, start - len(line)))
            line[start : start + len(packet.pcm)] = packet.pcm
        return bytes(line)

    @property
    def lost(self) -> int:
        """Sequence numbers that never came."""
        numbers = {packet.sequence for packet in self.packets}
        return (self.packets[-1].sequence - self.packets[0].sequence) % 65536 + 1 - len(numbers)

    @property
    def late_ms(self) -> float:
        """How much the most delayed packet came later than the least delayed one: the jitter buffer that it takes."""
        delays = [packet.at_s - packet.timestamp / RATE_HZ for packet in self.packets]
        return (max(delays) - min(delays)) * 1000
