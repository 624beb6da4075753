"""A whole house in virtual time: the bridge as `serve` runs it, between a fake Asterisk and a fake model.

    async with house(Script.of(Say("Hello"))) as it:
        channel, caller = await it.stasis_call()
        ...
        record = await it.ended()

Everything runs on memory streams and trio's autojump clock. Every event between bridge and model, in both directions,
passes the official types and the rules beyond them (`sdk_types`; 12 % of these tests' time), and what applications are
told of the calls keeps `event_rules`. At the end of the block the bridge is drained, and nothing may be left: no model
connection, no channel or bridge of ours in Asterisk, no defect in a fake.
"""

from __future__ import annotations

import logging
import math
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from pathlib import Path
from typing import Any, TypeVar
from uuid import UUID, uuid4

import httpx
import msgspec
import trio
from event_rules import EventRules
from sdk_types import check_client, check_server

from bridge.call_watcher import CallWatcher
from bridge.config import load_config
from bridge.config_file import ConfigFile
from bridge.placed_call import PlacedCall
from bridge.server import OnCall, Ready, Seams, serve
from bridge.tools import ToolRegistry
from simulators.ari_server import AriServer, FakeChannel
from simulators.caller import Caller
from simulators.memory import MemoryListener, MemoryStream
from simulators.model_script import Brain, Pace, Script
from simulators.realtime_faults import Faults
from simulators.realtime_server import RealtimeServer

FAST = Pace(speed=math.inf, first_ms=100)
CONTROL_TOKEN = "the-token-of-tests"
_T = TypeVar("_T")
RATES_HZ = {"slin": 8000, "slin16": 16000, "slin24": 24000}


class _Collector(logging.Handler):
    """Keeps what the bridge tells about calls, as (event, facts)."""

    def __init__(self) -> None:
        super().__init__()
        self.told: list[tuple[str, dict[str, Any]]] = []
        self.changed = trio.Event()

    def emit(self, record: logging.LogRecord) -> None:
        self.told.append((record.getMessage(), dict(getattr(record, "facts", {}))))
        self.changed.set()
        self.changed = trio.Event()


class _Path(trio.abc.Stream):
    """The way to the model, which can die without a word, as a route or a firewall does. What was under way arrives when
    it is back, as TCP sends it again; to close this end works always, and wakes who waits on it, as on a socket."""

    def __init__(self, inner: MemoryStream, of: House) -> None:
        self._inner, self._house = inner, of
        self._closed = False

    def write_nowait(self, data: bytes) -> int:
        return 0 if self._house.path_dead else self._inner.write_nowait(data)

    async def _passable(self) -> None:
        while self._house.path_dead and not self._closed:
            await self._house.path_changed.wait()
        if self._closed:
            raise trio.ClosedResourceError("this end was closed")

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await self._passable()
        await self._inner.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        await self._inner.wait_send_all_might_not_block()

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        data = await self._inner.receive_some(max_bytes)
        await self._passable()
        return data

    async def aclose(self) -> None:
        self._closed = True
        self._house.path_has_changed()
        await self._inner.aclose()


class Disk:
    """What blocks elsewhere happens at once here, since trio's clock would jump while a thread works. `slow_s`: it takes so
    long (virtual) before it happens."""

    def __init__(self) -> None:
        self.slow_s = 0.0

    async def run(self, function: Callable[[], _T]) -> _T:
        await trio.sleep(self.slow_s)
        return function()


class House:
    def __init__(self, nursery: trio.Nursery, model: RealtimeServer, ari: AriServer, rate_hz: int) -> None:
        self.nursery = nursery
        self.model = model
        self.ari = ari
        self.rate_hz = rate_hz
        self.media = MemoryListener()
        self.door = MemoryListener()
        self.gateway = MemoryListener()
        self.ready: Ready
        self.model_up = True
        self.dials = 0
        self.path_dead = False
        self.path_changed = trio.Event()
        self.stop_now: Callable[[], None]
        self.stopped: trio.Event
        self.start: Callable[[], Awaitable[None]]
        """Another process of the bridge, when the one before has `stopped`."""
        self.media_comes = True
        self.media_delay_s = 0.0
        self.collector = _Collector()
        self.disk = Disk()
        self.events = EventRules()
        self._media_callers: dict[UUID, Caller] = {}
        self._arrival = trio.Event()
        self._read = 0

    async def stasis_call(self, *arguments: str, **place: Any) -> tuple[FakeChannel, Caller]:
        """A call through Stasis: its channel, and Asterisk's end of its media connection once that is there."""
        before = set(self._media_callers)
        channel = self.ari.incoming_call(*arguments, **place)
        while not (new := set(self._media_callers) - before):
            await self._arrival.wait()
        return channel, self._media_callers[new.pop()]

    async def callee_hears(self, placed: PlacedCall) -> Caller:
        """Asterisk's end of the media connection of a call that was placed, once that is there."""
        while (caller := self._media_callers.get(UUID(placed.call_id))) is None:
            await self._arrival.wait()
        return caller

    async def plain_call(self, rate_hz: int = 8000) -> Caller:
        """A call by AudioSocket() or Dial(AudioSocket/...)."""
        caller = await Caller.dial(self.media.connect(), uuid4(), rate_hz)
        self.nursery.start_soon(caller.run)
        return caller

    async def ask(
        self, method: str, path: str, body: object = None, *, token: str = CONTROL_TOKEN
    ) -> tuple[int, Any]:
        """One request to the control door: its status, and what it answers, decoded if it is JSON."""
        content = b"" if body is None else msgspec.json.encode(body)
        request = (
            f"{method} {path} HTTP/1.1\r\nHost: bridge\r\nContent-Length: {len(content)}\r\n"
            + (f"Authorization: Bearer {token}\r\n" if token else "")
            + "\r\n"
        )
        async with self.door.connect() as client:
            await client.send_all(request.encode() + content)
            head, _, told = b"".join([data async for data in client]).partition(b"\r\n\r\n")
        is_json = b"Content-Type: application/json" in head
        return int(head.split(b" ")[1]), msgspec.json.decode(told) if is_json else told.decode()

    def dial_media(self, _host: str, data: str, media_format: str) -> None:
        """What Asterisk does for externalMedia."""
        if self.media_comes:
            self.nursery.start_soon(self._dial_media, UUID(data), RATES_HZ[media_format])

    async def _dial_media(self, call_id: UUID, rate_hz: int) -> None:
        await trio.sleep(self.media_delay_s)
        caller = await Caller.dial(self.media.connect(), call_id, rate_hz)
        self._media_callers[call_id] = caller
        self._arrival.set()
        self._arrival = trio.Event()
        await caller.run()

    def connect_model(self) -> trio.abc.Stream:
        self.dials += 1
        if not self.model_up:
            raise ConnectionRefusedError("connection refused")
        return _Path(self.model_listener.connect(), self)

    @contextmanager
    def model_path_dead(self) -> Iterator[None]:
        """Nothing passes between bridge and model any more, in either direction, and nobody is told."""
        self.path_dead = True
        try:
            yield
        finally:
            self.path_dead = False
            self.path_has_changed()

    def path_has_changed(self) -> None:
        self.path_changed.set()
        self.path_changed = trio.Event()

    def told(self, event: str) -> list[Mapping[str, Any]]:
        return [facts for name, facts in self.collector.told if name == event]

    async def hears_of(self, event: str, n: int = 1) -> Mapping[str, Any]:
        """The n-th log line of this event; waits for it."""
        while len(self.told(event)) < n:
            await self.collector.changed.wait()
        return self.told(event)[n - 1]

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait for something that nobody tells of."""
        while not condition():  # noqa: ASYNC110 - a fake's state, in virtual time
            await trio.sleep(0.05)

    async def ended(self, n: int = 1) -> Mapping[str, Any]:
        """The record of the n-th call that ended."""
        return await self.hears_of("call_ended", n)

    model_listener: MemoryListener


def _check_emitted(faults: Faults, event: dict[str, Any]) -> None:
    """The fake is checked too, save where it plays a server that breaks the types."""
    nameless = event["type"] == "response.function_call_arguments.done" and "name" not in event
    if not (faults.foreign or faults.details_bare or faults.codes_numeric or nameless):
        check_server(event)


@asynccontextmanager
async def house(
    script: Brain | None = None,
    *,
    settings: str = "",
    overrides: Mapping[str, str] | None = None,
    media_format: str = "slin16",
    tools: ToolRegistry | None = None,
    on_call: OnCall | None = None,
    ari: AriServer | None = None,
    supervisor: trio.abc.Stream | None = None,
    http: httpx.AsyncBaseTransport | None = None,
    folder: Path | None = None,
    watchers: Sequence[CallWatcher] = (),
    file: Path | None = None,
    limit_s: float = 600.0,
) -> AsyncIterator[House]:
    """The bridge, served; `settings` is TOML whose paths begin at `folder`, `overrides` are `section.key` values. `http` is
    the way to services of the operator's. `file` has the settings in the place of `settings`, and is followed. `limit_s` of
    virtual time."""
    chosen = {
        "realtime.url": "ws://model.test/v1/realtime",
        "realtime.api_key": "test-key",
        "asterisk.password": "bridge",
        "asterisk.format": media_format,
        "server.health_address": "",
        "records.url": "",
        "limits.caller_silent_prompt_s": "0",  # scripts have no answer to that
        "server.control_address": "127.0.0.1:0",
        "server.control_token": CONTROL_TOKEN,
        **(overrides or {}),
    }
    source = ConfigFile(file, chosen, {}, required=True) if file else None
    config = source.load().config if source else load_config(settings, {}, chosen, folder=folder)
    model = RealtimeServer(script or Script(), observe_received=check_client)
    model.observe = partial(_check_emitted, model.faults)
    ari = ari or AriServer()
    with trio.fail_after(limit_s):
        async with trio.open_nursery() as nursery:
            it = House(nursery, model, ari, RATES_HZ[media_format])
            ari.on_external_media = it.dial_media
            bridge_log = logging.getLogger("bridge")
            bridge_log.addHandler(it.collector)
            bridge_log.setLevel(logging.INFO)
            try:
                it.model_listener = await model.listen_in_memory(nursery)
                await nursery.start(ari.run)

                async def run_bridge(task_status: trio.TaskStatus[Ready]) -> None:
                    with trio.CancelScope() as bridge_scope:
                        it.stop_now = bridge_scope.cancel
                        seams = Seams(
                            connect_model=it.connect_model,
                            connect_ari=ari.connect,
                            listeners=[it.media],
                            control_listeners=[it.door],
                            gateway_listeners=[it.gateway],
                            run_blocking=it.disk.run,
                            http=http,
                            watchers=[it.events, *watchers],
                        )
                        await serve(
                            config,
                            seams=seams,
                            tools=tools,
                            on_call=on_call,
                            supervisor=supervisor,
                            source=source,
                            task_status=task_status,
                        )
                    it.stopped.set()

                async def start() -> None:
                    it.stopped, it.media, it.door = trio.Event(), MemoryListener(), MemoryListener()
                    it.gateway = MemoryListener()
                    it.ready = await nursery.start(run_bridge)
                    await trio.sleep(0.1)  # the Stasis application registers meanwhile

                it.start = start
                await start()
                yield it
                it.ready.drain()
                await it.stopped.wait()
                await trio.sleep(5)
                assert model.open_connections == 0, "a model connection was left open"
                assert not ari.http_connections, "a connection for requests was left open"
                assert not ari.bridges, "a bridge was left in Asterisk"
                assert not [name for name in ari.channels if name.startswith("realtime-media-")], "media was left"
                assert not [name for name in ari.channels if name.startswith("realtime-call-")], "a callee was left"
                assert not model.problems, model.problems
                assert not it.events.problems, it.events.problems
            finally:
                bridge_log.removeHandler(it.collector)
                nursery.cancel_scope.cancel()
