"""A session of the library on the fake Realtime server, in memory and in virtual time."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from typing import Any

import trio
from sdk_types import CLIENT, check, check_server

from bridge.config import Limits, Realtime
from bridge.realtime_session import AnyTool, RealtimeSession, open_session
from simulators.model_script import Brain, Script
from simulators.realtime_server import RealtimeServer

CONFIG = Realtime(url="ws://model.test/v1/realtime", api_key="good")
TEXT = {"output_modalities": ["text"]}
BY_HAND = {"audio": {"input": {"turn_detection": None}}}
SECOND = bytes(48_000)  # PCM16 at 24 kHz
LIMIT_S = 60.0


class Open:
    """An open session and the server that it is with."""

    def __init__(self, session: RealtimeSession, server: RealtimeServer) -> None:
        self.session = session
        self.server = server

    @property
    def sent(self) -> list[str]:
        """The types of the events that the server received, but for the first update."""
        return [passed.event["type"] for passed in self.server.received][1:]


@asynccontextmanager
async def opened(
    brain: Brain | None = None,
    settings: Mapping[str, Any] | None = None,
    *,
    tools: Iterable[AnyTool] = (),
    limits: Limits | None = None,
    checked: bool = True,
    server: RealtimeServer | None = None,
    **options: Any,
) -> AsyncIterator[Open]:
    """An open session, within `LIMIT_S`; whatever either side sends is checked against the official types."""
    server = server or RealtimeServer(brain or Script(), key="good", observe=check_server if checked else None)
    failure: Exception | None = None
    with trio.fail_after(LIMIT_S):
        async with trio.open_nursery() as nursery:
            listener = await server.listen_in_memory(nursery)
            try:
                async with open_session(
                    CONFIG, settings, tools=tools, limits=limits, connect_stream=listener.connect, **options
                ) as session:
                    yield Open(session, server)
                await server.until(lambda: server.open_connections == 0)
            except Exception as error:
                failure = error  # as the session raised it, and not in the group of this nursery
            nursery.cancel_scope.cancel()
    assert not server.problems, server.problems
    if checked:
        for passed in server.received:
            if passed.event["type"] != "input_audio_buffer.append":  # the record has no audio
                check(passed.event, CLIENT)
    if failure is not None:
        raise failure
