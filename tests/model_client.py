"""A plain client of the fake Realtime server, for its own tests: it reads all the time and remembers."""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import trio
from sdk_types import check_server
from websockets.exceptions import ConnectionClosed
from websockets.trio.client import ClientConnection, connect

from simulators.memory import MemoryListener
from simulators.model_script import Brain, Script
from simulators.realtime_server import RealtimeServer

Json = dict[str, Any]
URL = "ws://model.test/v1/realtime?model=gpt-realtime-2.1"
KEY = {"Authorization": "Bearer some-key"}
SILENCE_500 = bytes(24000)  # ms, PCM16 at 24 kHz
# One spoken item of two deltas, in the real one's order.
ANSWER = [
    "response.created",
    "response.output_item.added",
    "conversation.item.added",
    "response.content_part.added",
    "response.output_audio_transcript.delta",
    "response.output_audio.delta",
    "response.output_audio_transcript.delta",
    "response.output_audio.delta",
    "response.output_audio.done",
    "response.output_audio_transcript.done",
    "response.content_part.done",
    "conversation.item.done",
    "response.output_item.done",
    "response.done",
    "rate_limits.updated",
]


class Client:
    """What the server said, in order, and when."""

    def __init__(self, websocket: ClientConnection) -> None:
        self.websocket = websocket
        self.events: list[Json] = []
        self.times: list[float] = []

    async def read(self) -> None:
        try:
            async for message in self.websocket:
                self.events.append(json.loads(message))
                self.times.append(trio.current_time())
        except ConnectionClosed:
            pass

    async def send(self, kind: str, **fields: Any) -> None:
        await self.websocket.send(json.dumps({"type": kind, **fields}))

    async def configure(self, **session: Any) -> None:
        await self.send("session.update", session={"type": "realtime", **session})
        await trio.sleep(0.01)

    async def speak(self, pcm: bytes) -> None:
        """Append 24 kHz PCM in real time, 20 ms at a time."""
        for at in range(0, len(pcm), 960):
            await self.send("input_audio_buffer.append", audio=base64.b64encode(pcm[at : at + 960]).decode())
            await trio.sleep(0.02)

    @property
    def types(self) -> list[str]:
        return [event["type"] for event in self.events]

    def of(self, kind: str) -> list[Json]:
        return [event for event in self.events if event["type"] == kind]

    def last(self, kind: str) -> Json:
        return self.of(kind)[-1]

    def heard(self, item_id: str | None = None) -> bytes:
        """All audio of the answers, or of one item, as it came."""
        deltas = self.of("response.output_audio.delta")
        return b"".join(base64.b64decode(e["delta"]) for e in deltas if item_id in (None, e["item_id"]))

    @property
    def refusals(self) -> list[Json]:
        return [event["error"] for event in self.of("error")]


class Reachable(RealtimeServer):
    """A server with the listener that it serves."""

    listener: MemoryListener


@asynccontextmanager
async def serving(brain: Brain | None = None, *, checked: bool = True, key: str = "") -> AsyncIterator[Reachable]:
    """A server. Every event that it sends is checked, and in the end nothing may have gone wrong inside it."""
    server = Reachable(brain or Script(), key=key, observe=check_server if checked else None)
    async with trio.open_nursery() as nursery:
        server.listener = await server.listen_in_memory(nursery)
        yield server
        nursery.cancel_scope.cancel()
    assert not server.problems, server.problems


@asynccontextmanager
async def dialled(server: Reachable, url: str = URL, headers: Json | None = None) -> AsyncIterator[Client]:
    """A client, connected; the first event has been read."""
    options: Json = {"additional_headers": KEY if headers is None else headers, "compression": None, "max_size": None}
    stream = server.listener.connect()
    async with connect(url, stream=stream, **options) as websocket, trio.open_nursery() as nursery:
        client = Client(websocket)
        nursery.start_soon(client.read)
        await trio.sleep(0.001)
        yield client
        nursery.cancel_scope.cancel()
