"""The bridge as `serve` runs it, between the real Asterisk and the simulated model, for one test.

    async with line(Script.of(Say("Hello")), media_format="slin24") as it:
        phone = await it.phone()                  # a live caller: Asterisk connects its leg to this process
        ...
        record = await it.ended()

The shape is that of `tests/house.py`, on real sockets and the real clock. Each test has ports, a Stasis application and a
TEST_ID of its own, so that several can use one Asterisk. At the end of the block the bridge is drained and nothing may be
left: no channel and no bridge of this test in Asterisk, no task, no file descriptor, no connection of the model.
"""

from __future__ import annotations

import itertools
import logging
import os
import socket
import wave
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any
from urllib.error import URLError
from uuid import uuid4

import trio

from asterisk import figures
from asterisk.exchange import RECORDINGS, SHARED, Exchange, Step
from bridge.config import load_config
from bridge.config_file import ConfigFile
from bridge.server import OnCall, Ready, serve
from bridge.tools import ToolRegistry
from simulators.caller import Caller
from simulators.model_script import Brain, Script
from simulators.realtime_server import RealtimeServer

CONTROL_TOKEN = "the-token-of-tests"
FORMATS = ("slin", "slin16", "slin24")
# What Asterisk needs to notice and clear a hang-up: some ms on an idle machine.
CLEARED_S = 3.0
_numbers = itertools.count(1)


@dataclass
class Told:
    """One log line of the bridge, and when it came (trio's clock, which the simulators' records use too)."""

    at_s: float
    event: str
    facts: dict[str, Any]


class _Collector(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.told: list[Told] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.told.append(Told(trio.current_time(), record.getMessage(), dict(getattr(record, "facts", {}))))


@dataclass
class Phone:
    """A live caller; `channel_id` is its channel in Asterisk. `ended` and `ended_at`: its line was closed, and when."""

    caller: Caller
    channel_id: str
    ended: trio.Event = field(default_factory=trio.Event)
    ended_at: float = float("nan")

    def heard(self) -> bytes:
        """What came, frame after frame, as a telephone plays it: its jitter buffer takes up what came a bit late."""
        return b"".join(pcm for _, pcm in self.caller.heard_frames)

    def heard_since(self, at_s: float) -> list[tuple[float, bytes]]:
        """The frames that came after this time. An answered caller of extension 100 hears ringing first, as sound."""
        return [(arrival, pcm) for arrival, pcm in self.caller.heard_frames if arrival > at_s]

    def time_of(self, heard_ms: float) -> float:
        """When the frame came that holds this place of `heard`. Frames may be longer than 20 ms (ringing is)."""
        position = 0.0
        for arrival, pcm in self.caller.heard_frames:
            position += len(pcm) / self.caller.format.bytes_per_ms
            if position > heard_ms:
                return arrival
        raise ValueError(f"only {position:g} ms were heard")

    def max_gap_ms(self) -> float:
        """The longest time between two frames so far. Before the first nothing comes: it is not answered yet."""
        times = [arrival for arrival, _ in self.caller.heard_frames]
        return max((later - earlier for earlier, later in pairwise(times)), default=0.0) * 1000

    async def run(self) -> None:
        await self.caller.run()
        self.ended_at = trio.current_time()
        self.ended.set()


@dataclass
class Line:
    """What a test works with; made by `line`."""

    nursery: trio.Nursery
    model: RealtimeServer
    media_format: str
    media_port: int
    test_id: str
    app: str
    control_port: int = 0
    ready: Ready = field(init=False)
    collector: _Collector = field(default_factory=_Collector)
    phones: list[Phone] = field(default_factory=list)
    channels: list[str] = field(default_factory=list)
    marks: set[str] = field(default_factory=set)
    exchange: Exchange = SHARED

    def __post_init__(self) -> None:
        self._steps_from = self.exchange.steps_size()

    # Calling

    async def phone(
        self, extension: str = "100", *, context: str = "phones", rate_hz: int = 16000, **variables: str
    ) -> Phone:
        """A caller whose leg is live audio in this process; Asterisk takes it as answered from the start.

        `caller_id` among the variables says who it is.
        """
        listener = (await trio.open_tcp_listeners(0, host="127.0.0.1"))[0]
        async with listener:
            port = listener.socket.getsockname()[1]
            self.marks.add(f":{port}")
            codec = {8000: "slin", 16000: "slin16", 24000: "slin24"}[rate_hz]
            endpoint = f"AudioSocket/127.0.0.1:{port}/{uuid4()}/c({codec})"
            channel_id = await self._originate(endpoint, extension, context, codec, **variables)
            caller = await Caller.answer(await listener.accept(), rate_hz=rate_hz)
        phone = Phone(caller, channel_id)
        self.phones.append(phone)
        self.nursery.start_soon(phone.run)
        return phone

    async def test_caller(self, extension: str = "100", **variables: str) -> str:
        """A caller made of files, `play@test-caller`, behind a Local channel: it sees ringing and answer. Its channel."""
        return await self._originate(f"Local/{extension}@phones/n", "play", "test-caller", "slin16", **variables)

    async def _originate(self, endpoint: str, extension: str, context: str, formats: str, **variables: str) -> str:
        channel_id = f"{self.test_id}-caller-{len(self.channels)}"
        self.channels.append(channel_id)
        inherited = {
            "__TEST_ID": self.test_id,
            "__BRIDGE_APPS": self.app,
            "__BRIDGE_MEDIA": f"127.0.0.1:{self.media_port}",
            "__BRIDGE_CONTROL": f"127.0.0.1:{self.control_port}",
        }
        body = {
            **{"endpoint": endpoint, "extension": extension, "context": context, "priority": 1, "formats": formats},
            **{
                "channelId": channel_id,
                "callerId": variables.pop("caller_id", "Test <1000>"),
                "variables": inherited | variables,
            },
        }
        if endpoint.startswith("Local/"):
            body["otherChannelId"] = f"{channel_id}-far"
        await trio.to_thread.run_sync(self.exchange.ari, "POST", "channels", body)
        return channel_id

    async def hang_up(self, channel_id: str) -> None:
        """The caller of this channel hangs up; nothing happens if it is gone, or all of Asterisk is."""
        with suppress(URLError):
            await trio.to_thread.run_sync(self.exchange.ari, "DELETE", f"channels/{channel_id}")

    async def recorded(self, direction: str) -> bytes:
        """What the test caller `heard` or `said`, PCM16 at 16 kHz; the caller must have hung up. Removes the file."""
        path = RECORDINGS / f"{self.test_id}-{direction}.wav16"
        # MixMonitor closes its files when the channel is gone, and writes the length into the header only then.
        await until(
            lambda: path.exists() and path.stat().st_size == _size_in_header(path), 3, lambda: f"{path} is complete"
        )
        with wave.open(str(path), "rb") as file:
            pcm = file.readframes(file.getnframes())
        path.unlink()
        return pcm

    # Looking on

    def steps(self) -> list[Step]:
        """The dialplan's steps of this test so far, in order."""
        return [step for step in self.exchange.steps_since(self._steps_from) if step.test_id == self.test_id]

    async def reaches(self, *names: str, within_s: float = 5.0) -> list[Step]:
        """The steps once all of `names` are among them."""
        await until(
            lambda: {step.name for step in self.steps()} >= set(names), within_s, lambda: f"{names} in {self.steps()}"
        )
        return self.steps()

    def told(self, event: str) -> list[Told]:
        return [told for told in self.collector.told if told.event.startswith(event)]

    async def hears_of(self, event: str, n: int = 1, *, within_s: float = 15.0) -> Told:
        """The n-th log line that begins like this; waits for it."""
        await until(
            lambda: len(self.told(event)) >= n,
            within_s,
            lambda: f"{event!r}; {[t.event for t in self.collector.told]}",
        )
        return self.told(event)[n - 1]

    async def ended(self, n: int = 1) -> Mapping[str, Any]:
        """The record of the n-th call that ended."""
        return (await self.hears_of("call_ended", n)).facts

    def sent_at(self, kind: str, n: int = 1) -> float:
        """When the model sent its n-th event of this type."""
        return [passed.at_s for passed in self.model.sent if passed.event["type"] == kind][n - 1]

    def received_at(self, kind: str, n: int = 1) -> float:
        """When the model received the n-th event of this type."""
        return [passed.at_s for passed in self.model.received if passed.event["type"] == kind][n - 1]

    # Clearing up

    async def leave(self) -> None:
        """Everybody of this test hangs up."""
        for phone in self.phones:
            if not phone.caller.ended.is_set():
                await phone.caller.hang_up()
        for channel_id in self.channels:
            await self.hang_up(channel_id)

    def keep_for_the_ear(self) -> None:
        """What each live caller said (left) and heard (right), for whoever looks into a failure."""
        for number, phone in enumerate(self.phones):
            path = RECORDINGS / f"{self.test_id}-phone-{number}.wav"
            phone.caller.write_wav(path)
            print(f"{phone.channel_id}: {path}")

    async def left_in_asterisk(self) -> list[str]:
        """Channels and bridges of this test (`core show channels`, `bridge show all`), by id and name."""
        calls = {str(told.facts["call_id"]) for told in self.told("call_ended")}
        marks = self.marks | calls | {self.test_id, f":{self.media_port}", self.app}
        left = []
        for kind in ("channels", "bridges"):
            for thing in await trio.to_thread.run_sync(self.exchange.ari, "GET", kind):
                text = f"{thing['id']} {thing['name']}"
                if any(mark in text for mark in marks):
                    left.append(text)
        return left


async def until(condition: Callable[[], bool], within_s: float, what: Callable[[], str]) -> None:
    """Wait until `condition`; AssertionError with `what` after `within_s`."""
    with trio.move_on_after(within_s):
        while not condition():  # noqa: ASYNC110 - files, logs and Asterisk do not wake us
            await trio.sleep(0.01)
        return
    raise AssertionError(f"not within {within_s:g} s: {what()}")


def _size_in_header(path: Path) -> int:
    """The size that a RIFF file should have."""
    header = path.read_bytes()[:8]
    return int.from_bytes(header[4:8], "little") + 8


def new_test_id() -> str:
    """A name that no other test has, in this or another process."""
    return f"t{os.getpid()}-{next(_numbers)}"


def free_port() -> int:
    """A port on which nobody listens now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _descriptors() -> dict[str, str]:
    """The open files of this process; not the one by which they are listed."""
    found = {}
    for entry in Path("/proc/self/fd").iterdir():
        with suppress(OSError):
            found[entry.name] = str(entry.readlink())
    return {name: what for name, what in found.items() if not what.startswith("/proc/")}


@asynccontextmanager
async def line(
    brain: Brain | None = None,
    *,
    media_format: str = "slin16",
    settings: str = "",
    overrides: Mapping[str, str] | None = None,
    key: str = "",
    tools: ToolRegistry | None = None,
    on_call: OnCall | None = None,
    file: Path | None = None,
    limit_s: float = 40.0,
) -> AsyncIterator[Line]:
    """The bridge, served; `settings` is TOML, `overrides` are `section.key` values, `key` the model's only good one. `file`
    has the settings in the place of `settings`, and is followed."""
    tasks_before, files_before = trio.lowlevel.current_statistics().tasks_living, _descriptors()
    test_id = new_test_id()
    app, media_port = f"bridge-{test_id}", free_port()
    model = RealtimeServer(brain or Script(), key=key)
    with trio.fail_after(limit_s):
        async with trio.open_nursery() as nursery:
            it = Line(nursery, model, media_format, media_port, test_id, app)
            bridge_log = logging.getLogger("bridge")
            bridge_log.addHandler(it.collector)
            bridge_log.setLevel(logging.INFO)
            try:
                model_port = await model.listen_on_tcp(nursery)
                chosen = {
                    "realtime.url": f"ws://127.0.0.1:{model_port}/v1/realtime",
                    "realtime.api_key": "test-key",
                    "asterisk.password": "bridge",
                    "asterisk.app": app,
                    "asterisk.format": media_format,
                    "asterisk.media_address": f"127.0.0.1:{media_port}",
                    "server.audiosocket_port": str(media_port),
                    "server.health_address": "",
                    "records.url": "",
                    "limits.caller_silent_prompt_s": "0",
                    "server.control_address": "127.0.0.1:0",
                    "server.control_token": CONTROL_TOKEN,
                    **(overrides or {}),
                }
                source = ConfigFile(file, chosen, {}, required=True) if file else None
                config = source.load().config if source else load_config(settings, {}, chosen)
                served = trio.Event()

                async def run_bridge(task_status: trio.TaskStatus[Ready]) -> None:
                    await serve(config, tools=tools, on_call=on_call, source=source, task_status=task_status)
                    served.set()

                ready = it.ready = await nursery.start(run_bridge)
                it.control_port = ready.control_port
                await it.hears_of("ARI connected", within_s=5)
                try:
                    yield it
                except BaseException:
                    it.keep_for_the_ear()
                    raise
                finally:
                    with trio.move_on_after(6, shield=True):
                        await it.leave()
                ready.drain()
                await served.wait()
                await nothing_left(it)
                for recording in RECORDINGS.glob(f"{test_id}-*"):  # kept where the test failed
                    recording.unlink()
                if not model.faults.created_after_s:
                    for told in it.told("call_ended"):
                        figures.note_record(told.facts)
                for told in it.told("agent_starts"):
                    figures.note(figures.REPLY, media_format, told.facts["bridge_ms"])
            finally:
                bridge_log.removeHandler(it.collector)
                nursery.cancel_scope.cancel()
    now = _descriptors()
    assert now.keys() == files_before.keys(), f"open files: {sorted(set(now.items()) - set(files_before.items()))}"
    tasks = trio.lowlevel.current_statistics().tasks_living
    assert tasks == tasks_before, f"{tasks - tasks_before} tasks are left"


async def nothing_left(it: Line) -> None:
    """No channel and no bridge of this test in Asterisk, no connection of the model, no complaint of a simulator."""
    left: list[str] = []
    with trio.move_on_after(CLEARED_S):
        while left := await it.left_in_asterisk():  # noqa: ASYNC110 - the state is Asterisk's
            await trio.sleep(0.05)
    assert not left, f"left in Asterisk: {left}"
    with trio.move_on_after(CLEARED_S):
        await it.model.until(lambda: it.model.open_connections == 0)
    assert it.model.open_connections == 0, "a model connection was left open"
    assert not it.model.problems, it.model.problems
    troubles = [told.event for told in it.collector.told if "defect" in told.event or "exception" in told.event]
    assert not troubles, troubles
    assert not [phone.caller.violations for phone in it.phones if phone.caller.violations]
