"""The control door's websockets: events to whoever subscribed, commands from there, and clients who harm nobody."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any, cast
from uuid import uuid4

import msgspec
import pytest
import trio
import trio_websocket
from house import CONTROL_TOKEN, House, house
from trio.testing import MockClock
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.trio.client import ClientConnection, connect
from websockets.typing import Subprotocol

from bridge import control_stream
from bridge.control_desk import ControlDesk
from bridge.control_messages import MOST_ANSWERS, MessageError, StreamQueue, answer, asked
from bridge.control_stream import MOST_CLIENTS, TOKEN_S
from bridge.http_exchange import json_page
from bridge.websocket_server import BegunStream
from simulators.memory import memory_stream_pair
from simulators.model_script import Say, Script

DELTA = "response.output_audio.delta"
BEARER = {"Authorization": f"Bearer {CONTROL_TOKEN}"}


def hello() -> Script:
    return Script.of(Say("Hello!", ms=300), Say("One moment.", ms=300), Say("Yes?", ms=300))


class Client:
    """A client with the websocket of websockets."""

    def __init__(self, websocket: ClientConnection) -> None:
        self.websocket = websocket
        self.heard: list[dict[str, Any]] = []

    async def next(self) -> dict[str, Any]:
        return dict(msgspec.json.decode(await self.websocket.recv()))

    async def until(self, wanted: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        while not wanted(told := await self.next()):
            self.heard.append(told)
        return told

    async def hears(self, kind: str) -> dict[str, Any]:
        return await self.until(lambda told: told.get("type") == kind)

    async def ask(self, command: str, call: str = "", **fields: Any) -> dict[str, Any]:
        message = {"id": command, "command": command, "call": call, **fields}
        await self.websocket.send(msgspec.json.encode(message).decode())
        return await self.until(lambda told: told.get("id") == command)


@contextlib.asynccontextmanager
async def client_of(
    it: House, path: str = "/events", headers: dict[str, str] | None = BEARER, *subprotocols: str, room: int = 1 << 20
) -> AsyncIterator[Client]:
    stream, server = memory_stream_pair(room)
    it.door.hand_over(server)
    async with connect(
        f"ws://bridge{path}",
        stream=stream,
        additional_headers=headers,
        subprotocols=[Subprotocol(it) for it in subprotocols] or None,
        compression=None,
        ping_interval=None,
    ) as websocket:
        yield Client(websocket)


async def test_a_client_hears_all_calls_and_acts_in_them(autojump_clock: MockClock) -> None:
    async with house(hello()) as it, client_of(it) as client:
        channel, _ = await it.stasis_call(caller=("1001", "Alice"))
        said = await client.hears("transcript.final")
        assert said["source"] == "call"
        assert said["data"]["text"] == "Hello!"
        kinds = {told["type"] for told in client.heard}
        assert {"response.created", "response.create"} <= kinds
        assert not {"response.output_audio.delta", "input_audio_buffer.append"} & kinds
        [call] = (await client.ask("list_calls"))["result"]["calls"]
        assert call["id"] == said["call_id"]
        done = await client.ask("say", call["id"], text="One moment, please.")
        assert (done["ok"], done["status"], done["result"]["id"]) == (True, 202, call["id"])
        assert (await client.hears("transcript.final"))["data"]["text"] == "One moment."
        # The names of FreeSWITCH's module are understood.
        assert (await client.ask("client.event", call["id"], event={"type": "response.create"}))["ok"]
        assert (await client.hears("transcript.final"))["data"]["text"] == "Yes?"
        for command, given, status in (
            ("say", {"call": str(uuid4()), "text": "x"}, 404),
            ("say", {"call": call["id"]}, 400),
            ("explode", {}, 404),
            ("subscribe", {"events": ["-x"]}, 400),
            ("subscribe", {"events": ["agent_said"]}, 400),
        ):
            told = await client.ask(command, **given)
            assert (told["ok"], told["status"]) == (False, status), told
        assert (await client.ask("session.delete", call["id"]))["ok"]
        assert (await it.ended())["reason"] == "agent_left"
        assert (await client.ask("say", call["id"], text="x"))["status"] == 409
        assert channel.variables["BRIDGE_END_REASON"] == "agent_left"


async def test_the_stream_of_one_call_ends_with_it_and_a_filter_filters(autojump_clock: MockClock) -> None:
    async with house(hello()) as it:
        first, _ = await it.stasis_call()
        await it.hears_of("agent_said")
        [call] = (await it.ask("GET", "/calls"))[1]["calls"]
        async with client_of(it, f"/calls/{call['id']}/events?events=transcript.final,turn") as client:
            second, _ = await it.stasis_call()
            await it.hears_of("agent_said", 2)
            assert (await client.ask("say", text="One moment."))["ok"], "its own call needs no name"
            told = await client.hears("transcript.final")
            assert told["call_id"] == call["id"]
            assert {told["type"] for told in client.heard} <= {"turn", "transcript.final"}
            assert (await client.ask("subscribe", events=[], call=call["id"]))["ok"]
            first.hang_up()
            with pytest.raises(ConnectionClosed):
                await client.next()
            assert client.websocket.close_code == 1000
        with pytest.raises(InvalidStatus, match="409"):
            async with client_of(it, f"/calls/{call['id']}/events"):
                pass
        second.hang_up()
        await it.ended(2)


async def test_a_foreign_client_is_served_and_told_of_the_end_of_the_process(autojump_clock: MockClock) -> None:
    async with house(hello()) as it, trio.open_nursery() as nursery:
        client = await trio_websocket.wrap_client_stream(
            nursery,
            cast(Any, it.door.connect()),
            "bridge",
            "/events?events=transcript.final",
            extra_headers=[(b"Authorization", b"Bearer " + CONTROL_TOKEN.encode())],
        )
        await client.send_message('{"id":1,"command":"list_calls"}')
        assert msgspec.json.decode(await client.get_message()) == {
            "id": 1, "ok": True, "status": 200, "result": {"calls": []},
        }  # fmt: skip
        channel, _ = await it.stasis_call()
        assert msgspec.json.decode(await client.get_message())["type"] == "transcript.final"
        channel.hang_up()
        await it.ended()
        it.ready.drain()
        with pytest.raises(trio_websocket.ConnectionClosed):
            await client.get_message()
        assert client.closed is not None
        assert client.closed.code == 1001


async def test_the_token_may_come_in_three_ways_and_without_it_nothing_is_told(autojump_clock: MockClock) -> None:
    async with house(hello()) as it:
        async with client_of(it, headers=None) as client:
            assert (await client.ask("authenticate", token=CONTROL_TOKEN))["ok"]
            assert (await client.ask("list_calls"))["ok"]
        async with client_of(it, "/events", None, "bridge.control", f"bridge.token.{CONTROL_TOKEN}") as client:
            assert client.websocket.subprotocol == "bridge.control"
            assert (await client.ask("list_calls"))["ok"]
        with pytest.raises(InvalidStatus, match="401"):
            async with client_of(it, headers={"Authorization": "Bearer wrong"}):
                pass
        for first in ('{"command":"authenticate","token":"wrong"}', '{"command":"list_calls"}', "no", None):
            async with client_of(it, headers=None) as client:
                began = trio.current_time()
                if first is not None:
                    await client.websocket.send(first)
                with pytest.raises(ConnectionClosed):
                    await client.next()
                assert client.websocket.close_code == 1008
                assert trio.current_time() - began == (0 if first is not None else TOKEN_S)


async def test_a_slow_client_loses_the_oldest_events_and_stops_nobody(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(control_stream, "MOST_EVENTS", 50)
    words = "response.output_audio.delta,playback.stopped"
    async with house(Script.of(Say("A long story.", ms=15_000))) as it:
        async with client_of(it, f"/events?events={words}", BEARER, room=20_000) as client:
            channel, _ = await it.stasis_call()
            await it.hears_of("agent_said")  # meanwhile the client reads nothing: its connection is full soon
            channel.hang_up()
            record = await it.ended()
            missed = await client.hears("stream.missed")
            told = [await client.next() for _ in range(50)]
            assert missed["data"]["count"] + len(client.heard) + len(told) == len(it.model.sent_events(DELTA)) + 1
            assert told[-1]["type"] == "playback.stopped", "the newest is never what gives way"
        assert (record["frames_lost"], record["reason"]) == (0, "caller_hung_up")
        async with contextlib.AsyncExitStack() as stack:
            for _ in range(MOST_CLIENTS):
                await stack.enter_async_context(client_of(it))
            with pytest.raises(InvalidStatus, match="503"):
                await stack.enter_async_context(client_of(it))


async def test_a_defect_costs_its_client_and_nobody_else(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with house(hello()) as it, client_of(it) as other:
        async with client_of(it) as client:
            with monkeypatch.context() as broken:
                broken.setattr(ControlDesk, "carry_out", None)
                with pytest.raises(ConnectionClosed):
                    await client.ask("list_calls")
            assert client.websocket.close_code == 1011
        assert it.told("a defect of the bridge: a websocket client could not be served") != []
        assert (await other.ask("list_calls"))["ok"]


# The words, without a bridge -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("message", "says"),
    [
        ("no", "JSON"),
        (b'{"id":"\xff"}', "JSON"),
        ("[" * 100_000, "JSON"),
        ("[]", "JSON object"),
        ('{"id":3}', 'a "command"'),
        ('{"command":"x","call":1}', "UUID"),
    ],
)
def test_what_is_no_command_is_told(message: str | bytes, says: str) -> None:
    with pytest.raises(MessageError, match=says):
        asked(message)


async def test_a_client_is_read_a_little_at_a_time() -> None:
    far, near = memory_stream_pair(1 << 20)
    await far.send_all(bytes(100_000))
    stream = BegunStream(near, bytes(50_000))
    sizes: list[int] = []
    while sum(sizes) < 150_000:
        sizes.append(len(await stream.receive_some()))
    assert max(sizes) <= 2048, "websockets parses all of it before others have their turn"


def test_an_answer_says_what_http_would_have() -> None:
    assert msgspec.json.decode(answer(7, json_page(202, {"id": "x"}))) == {
        "id": 7, "ok": True, "status": 202, "result": {"id": "x"},
    }  # fmt: skip
    assert msgspec.json.decode(answer(None, json_page(404, {"error": "no"}))) == {
        "id": None, "ok": False, "status": 404, "error": "no",
    }  # fmt: skip


def test_a_full_queue_drops_the_oldest_event_and_no_answer() -> None:
    queue: StreamQueue[str] = StreamQueue(3)
    queue.put_event("1")
    queue.put_answer(b"a")
    for event in "234":
        queue.put_event(event)
    assert queue.take_missed() == 1
    assert [queue.take() for _ in range(5)] == [b"a", "2", "3", "4", None]
    assert queue.take_missed() == 0
    for _ in range(MOST_ANSWERS):
        queue.put_answer(b"a")
    assert queue.full_of_answers
    queue.take()
    assert not queue.full_of_answers
