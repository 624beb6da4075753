"""The simulator's beta dialect, as strictly as the published reference client and its suite of 31 checks rely on it.

A client of another library (trio-websocket) stands in for that one, which is not ours to ship;
`test_js_reference_client.py` runs the original. Every event is held against the SDK's types of the beta dialect as well.
"""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, cast

import pytest
import trio
import trio_websocket
from house import FAST, house
from openai.types.beta.realtime import RealtimeServerEvent as BetaServerEvent
from sdk_types import classes, extras
from trio.testing import MockClock

from bridge import realtime
from bridge.agent import Agent
from bridge.config import Realtime
from bridge.errors import ModelError, ModelRejected
from bridge.realtime_client import RealtimeConnection, open_realtime
from simulators.memory import MemoryListener
from simulators.model_script import Call, Pace, Say, Script
from simulators.realtime_server import RealtimeServer

Json = dict[str, Any]
BETA_SERVER = classes(BetaServerEvent)
# What was seen or is documented, and is not in the SDK's types.
BEYOND_TYPES = {".session.object", ".session.expires_at", ".usage"}
RESOURCE = "/v1/realtime?model=gpt-4o-realtime-preview-2024-10-01"
BROWSER = ["realtime", "openai-insecure-api-key.sk-good", "openai-beta.realtime-v1"]
NODE = [(b"Authorization", b"Bearer sk-good"), (b"OpenAI-Beta", b"realtime=v1")]
SESSION: Json = {
    "modalities": ["text", "audio"],
    "instructions": "",
    "voice": "verse",
    "input_audio_format": "pcm16",
    "output_audio_format": "pcm16",
    "input_audio_transcription": None,
    "turn_detection": None,
    "tools": [],
    "tool_choice": "auto",
    "temperature": 0.8,
    "max_response_output_tokens": 4096,
}


class Client:
    """A beta client: sends, and reads event by event with the time of each."""

    def __init__(self, websocket: trio_websocket.WebSocketConnection) -> None:
        self.websocket = websocket
        self.events: list[tuple[float, Json]] = []

    async def send(self, kind: str, **more: object) -> None:
        await self.websocket.send_message(json.dumps({"event_id": "evt_1", "type": kind, **more}))

    async def next(self) -> Json:
        event: Json = json.loads(await self.websocket.get_message())
        assert event.get("event_id"), "an event without event_id throws in the reference client"
        model = BETA_SERVER[event["type"]].model_validate(event, strict=True)
        assert not set(extras(model)) - BEYOND_TYPES, event
        self.events.append((trio.current_time(), event))
        return event

    async def until(self, kind: str) -> Json:
        while (event := await self.next())["type"] != kind:
            pass
        return event

    @property
    def types(self) -> list[str]:
        return [event["type"] for _, event in self.events]

    def of(self, kind: str) -> list[Json]:
        return [event for _, event in self.events if event["type"] == kind]

    def gaps_s(self) -> list[tuple[str, float]]:
        """How long after the event before each event came."""
        return [(b["type"], at - before) for (before, _), (at, b) in zip(self.events, self.events[1:], strict=False)]


@asynccontextmanager
async def dialled(
    server: RealtimeServer, *, browser: bool = False, resource: str = RESOURCE
) -> AsyncIterator[Client]:
    """A beta client, connected as the reference client's Node path does, or as its browser path."""
    async with trio.open_nursery() as nursery:
        listener = await server.listen_in_memory(nursery)
        websocket = await trio_websocket.wrap_client_stream(
            nursery,
            cast(Any, listener.connect()),  # typed for sockets, good for any stream
            "model.test",
            resource,
            subprotocols=BROWSER if browser else None,
            extra_headers=None if browser else NODE,
        )
        yield Client(websocket)
        await websocket.aclose()
        nursery.cancel_scope.cancel()
    assert not server.problems


def serving(*answers: Any, **options: Any) -> RealtimeServer:
    return RealtimeServer(Script.of(*answers), key="sk-good", beta=True, **options)


@pytest.mark.parametrize("browser", [False, True])
async def test_a_text_turn_in_the_order_that_the_client_needs(autojump_clock: MockClock, browser: bool) -> None:
    server = serving(Say("I left my heart in San Francisco", ms=400))
    async with dialled(server, browser=browser) as client:
        assert client.websocket.subprotocol == ("realtime" if browser else None)
        await client.send("session.update", session=SESSION)
        opened = trio.current_time()
        created = await client.next()
        assert created["type"] == "session.created"
        assert created["session"]["id"]
        assert trio.current_time() - opened >= 0.01  # the client's own first event is logged before it
        said = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "How are you?"}]}
        await client.send("conversation.item.create", item=said)
        await client.send("response.create")
        await client.until("response.done")
    assert client.types == [
        "session.created",
        "session.updated",
        "conversation.item.created",
        "response.created",
        "response.output_item.added",
        "conversation.item.created",
        "response.content_part.added",
        *["response.audio_transcript.delta", "response.audio.delta"] * 2,
        "response.audio.done",
        "response.audio_transcript.done",
        "response.content_part.done",
        "response.output_item.done",
        "response.done",
    ]
    # The suite counts exactly two events, then four, before the update is acknowledged; and it attaches the listener for
    # the next item after the one before, so nothing may come in one burst.
    for kind, gap_s in client.gaps_s():
        assert kind.endswith(".delta") or gap_s >= (0.1 if kind == "session.updated" else 0.01), kind
    mine, answer = (event["item"] for event in client.of("conversation.item.created"))
    assert (mine["role"], mine["status"], mine["content"]) == ("user", "completed", said["content"])
    assert (answer["role"], answer["status"], answer["content"]) == ("assistant", "in_progress", [])
    (done,) = client.of("response.output_item.done")
    assert done["item"]["status"] == "completed"
    assert done["item"]["content"] == [{"type": "audio", "transcript": "I left my heart in San Francisco"}]
    heard = b"".join(base64.b64decode(event["delta"]) for event in client.of("response.audio.delta"))
    assert len(heard) == 48 * 400


async def test_the_session_is_shown_flat_as_it_was_asked(autojump_clock: MockClock) -> None:
    async with dialled(serving()) as client:
        vad = {"type": "server_vad", "threshold": 0.5, "prefix_padding_ms": 300, "silence_duration_ms": 200}
        asked = {**SESSION, "turn_detection": vad, "input_audio_format": "g711_ulaw", "temperature": 0.6}
        await client.send("session.update", session=asked)
        session = (await client.until("session.updated"))["session"]
    assert {name: session[name] for name in asked if name != "turn_detection"} == {
        name: value for name, value in asked.items() if name != "turn_detection"
    }
    assert session["turn_detection"] == {**vad, "create_response": True, "interrupt_response": True}
    assert not {"type", "audio", "output_modalities", "max_output_tokens", "truncation"} & session.keys()


async def test_an_audio_turn_committed_by_hand(autojump_clock: MockClock) -> None:
    server = serving(Say("Hello", ms=200))
    async with dialled(server) as client:
        await client.send("session.update", session=SESSION)
        await client.until("session.updated")
        await client.send("input_audio_buffer.append", audio=base64.b64encode(bytes(48 * 500)).decode())
        await client.send("input_audio_buffer.commit")
        await client.send("response.create")
        await client.until("response.done")
    assert client.types[2:5] == ["input_audio_buffer.committed", "conversation.item.created", "response.created"]
    (item, _) = (event["item"] for event in client.of("conversation.item.created"))
    assert item["content"] == [{"type": "input_audio", "transcript": None}]
    assert server.session.items[0].audio_ms == 500


async def test_a_tool_is_called_without_its_name_in_the_arguments(autojump_clock: MockClock) -> None:
    server = serving(Call("get_weather", {"city": "Paris"}), Say("Clear.", ms=100))
    async with dialled(server) as client:
        await client.send("response.create")
        done = await client.until("response.output_item.done")
        assert "name" not in client.of("response.function_call_arguments.done")[0]
        (item,) = (event["item"] for event in client.of("conversation.item.created"))
        assert (item["type"], item["name"], item["arguments"]) == ("function_call", "get_weather", "")
        assert json.loads(done["item"]["arguments"]) == {"city": "Paris"}
        await client.until("response.done")
        output = {"type": "function_call_output", "call_id": item["call_id"], "output": '{"sky":"clear"}'}
        await client.send("conversation.item.create", item=output)
        await client.send("response.create")
        await client.until("response.done")
    assert server.session.items[1].text == '{"sky":"clear"}'


@pytest.mark.parametrize("browser", [False, True])
async def test_a_wrong_key_is_an_error_in_band_within_a_second(autojump_clock: MockClock, browser: bool) -> None:
    server = RealtimeServer(key="sk-other", beta=True)
    async with dialled(server, browser=browser) as client:
        with trio.fail_after(1):
            error = await client.next()
        assert "Incorrect API key provided" in error["error"]["message"]
        with pytest.raises(trio_websocket.ConnectionClosed) as closed:
            await client.websocket.get_message()
        assert closed.value.reason is not None
        assert closed.value.reason.code == 3000


@pytest.mark.parametrize("browser", [False, True])
async def test_beta_has_to_be_let_in(autojump_clock: MockClock, browser: bool) -> None:
    server = RealtimeServer(key="sk-good")
    async with dialled(server, browser=browser) as client:
        assert (await client.next())["error"]["code"] == "beta_api_shape_disabled"


@pytest.mark.parametrize(
    ("event", "code", "param"),
    [
        ({"type": "session.update", "session": {"type": "realtime"}}, "unknown_parameter", "session.type"),
        ({"type": "session.update", "session": {"audio": {}}}, "unknown_parameter", "session.audio"),
        (
            {"type": "session.update", "session": {"output_modalities": ["audio"]}},
            "unknown_parameter",
            "session.output_modalities",
        ),
        ({"type": "session.update", "session": {"modalities": ["audio"]}}, "invalid_value", "session.modalities"),
        ({"type": "session.update", "session": {"voice": "marin"}}, "invalid_value", "session.voice"),
        ({"type": "session.update", "session": {"temperature": 0.1}}, "invalid_value", "session.temperature"),
        (
            {"type": "session.update", "session": {"tools": [{"type": "mcp", "server_label": "x"}]}},
            "invalid_value",
            "session.tools[0].type",
        ),
        (
            {
                "type": "session.update",
                "session": {"turn_detection": {"type": "server_vad", "idle_timeout_ms": 6000}},
            },
            "unknown_parameter",
            "session.turn_detection.idle_timeout_ms",
        ),
        (
            {
                "type": "conversation.item.create",
                "item": {
                    "type": "message",
                    "role": "assistant",
                    "content": [{"type": "output_text", "text": "x"}],
                },
            },
            "invalid_value",
            "item.content[0].type",
        ),
        ({"type": "response.create", "response": {"audio": {}}}, "unknown_parameter", "response.audio"),
        ({"type": "session.update"}, "missing_required_parameter", "session"),
    ],
)
async def test_ga_shapes_are_refused(autojump_clock: MockClock, event: Json, code: str, param: str) -> None:
    async with dialled(serving()) as client:
        await client.websocket.send_message(json.dumps(event))
        error = (await client.until("error"))["error"]
    assert (error["code"], error["param"]) == (code, param)


async def test_what_is_no_json_is_told_so(autojump_clock: MockClock) -> None:
    async with dialled(serving()) as client:
        await client.websocket.send_message("{")
        assert (await client.until("error"))["error"]["code"] == "invalid_json"


# The bridge against these servers: two translations, written apart, have to meet.


async def open_and_close(server: RealtimeServer, config: Realtime) -> RealtimeConnection:
    async with trio.open_nursery() as nursery:
        listener: MemoryListener = await server.listen_in_memory(nursery)
        try:
            session = realtime.session_update(Agent(voice="alloy"), [])
            async with open_realtime(
                config, session, connect_s=8, close_s=2, connect_stream=listener.connect
            ) as connection:
                return connection
        finally:
            nursery.cancel_scope.cancel()


AZURE = "ws://res.openai.azure.com/openai"
PREVIEW = f"{AZURE}/realtime?api-version=2025-04-01-preview"
TOKEN = "eyJhbGciOi.eyJhdWQiOi.c2lnbmF0dXJl"


@pytest.mark.parametrize(
    "settings",
    [
        {"url": "ws://box/v1/realtime"},
        {"url": "ws://box/v1/realtime", "auth": "subprotocol"},
        {"url": "ws://box/v1/realtime", "auth": "query"},
        {"url": "ws://box/v1/realtime", "dialect": "beta"},
        {"url": "ws://box/v1/realtime", "dialect": "beta", "auth": "subprotocol"},
        {"url": "ws://box/v1/realtime", "dialect": "beta", "model": "gpt-4o-realtime-preview"},
        {"url": f"{AZURE}/v1/realtime", "model": "my-deployment"},
        {"url": f"{AZURE}/v1/realtime", "model": "my-deployment", "api_key": TOKEN},
        {"url": "http://res.openai.azure.com"},
        {"url": PREVIEW, "model": "my-deployment"},
        {"url": f"{PREVIEW}&deployment=my-deployment", "api_key": TOKEN},
    ],
    ids=str,
)
async def test_the_bridge_opens_a_session_at_every_kind_of_server(
    autojump_clock: MockClock, settings: dict[str, str]
) -> None:
    config = Realtime(**{"api_key": "sk-good"} | settings)  # type: ignore[arg-type]
    server = RealtimeServer(key=config.api_key, beta=True, query_key="api_key")
    connection = await open_and_close(server, config)
    assert connection.session["audio"]["output"] == {
        "format": {"type": "audio/pcm", "rate": 24000},
        "voice": "alloy",
        "speed": 1.0,
    }
    assert connection.session["type"] == "realtime"
    assert connection.expires_at == server.session.config["expires_at"]
    assert server.session.config["audio"]["input"]["transcription"] == {"model": "gpt-transcribe"}


@pytest.mark.parametrize(
    ("settings", "code"),
    [
        ({"url": "ws://box/v1/realtime", "auth": "query"}, "invalid_api_key"),  # this server takes none there
        ({"url": "ws://box/v1/realtime", "auth": "api-key"}, "invalid_api_key"),
        ({"url": "ws://box/v1/realtime", "dialect": "beta"}, "beta_api_shape_disabled"),
        ({"url": "ws://box/v1/realtime", "model": ""}, "missing_model"),
        ({"url": f"{AZURE}/v1/realtime", "api_key": "sk-wrong"}, "401"),
        ({"url": f"{AZURE}/v1/realtime", "model": ""}, "DeploymentNotFound"),
        ({"url": f"{AZURE}/v1/realtime?api-version=2025-04-01-preview"}, "BadRequest"),
        ({"url": PREVIEW}, "404"),  # this server has no preview
        ({"url": "ws://box/v2/realtime"}, "404"),
    ],
    ids=str,
)
async def test_what_these_servers_refuse_is_not_tried_again(
    autojump_clock: MockClock, settings: dict[str, str], code: str
) -> None:
    server = RealtimeServer(key="sk-good")
    with pytest.raises((ModelError, ExceptionGroup)) as caught:
        await open_and_close(server, Realtime(**{"api_key": "sk-good"} | settings))  # type: ignore[arg-type]
    error: BaseException = caught.value
    while isinstance(error, BaseExceptionGroup):
        (error,) = error.exceptions
    assert isinstance(error, ModelRejected)
    assert error.code == code
    assert trio.current_time() < 1


def told(event: Json) -> Json:
    """What beta can say of a GA event: without numbers of events, and without what only GA has a word for."""
    event = {name: value for name, value in event.items() if name != "event_id"}
    if isinstance(event.get("item"), dict):
        event["item"] = {name: value for name, value in event["item"].items() if name != "object"}
    if isinstance(response := event.get("response"), dict):
        output = [{name: value for name, value in item.items() if name != "object"} for item in response["output"]]
        event["response"] = {**response, "output": output, "usage": bool(response.get("usage")), "temperature": 0.8}
    return event


async def test_all_that_a_session_says_comes_through_both_translations_as_it_was(autojump_clock: MockClock) -> None:
    """GA in the simulator's session, beta on the wire, GA again in the bridge."""
    server = serving(
        [Say("Let me look.", ms=300), Call("look_up", {"a": 1}), Call("look_up", {"a": 2})],
        Say("In writing", written=True),
        Say("A long story", ms=5000),
    )
    heard: list[Json] = []

    async def read(connection: RealtimeConnection) -> None:
        while True:
            heard.append(json.loads(await connection.receive()))

    async with trio.open_nursery() as nursery:
        listener = await server.listen_in_memory(nursery)
        config = Realtime(url="ws://box/v1/realtime", api_key="sk-good", dialect="beta")
        session = realtime.session_update(Agent(voice="alloy"), [])
        async with (
            open_realtime(config, session, connect_s=8, close_s=2, connect_stream=listener.connect) as connection,
            trio.open_nursery() as readers,
        ):
            opening = len(server.sent)
            readers.start_soon(read, connection)
            await connection.send(realtime.create_response())
            await server.wait_sent("response.done")
            for call in server.session.items[1:3]:
                item = {"type": "function_call_output", "call_id": call.wire["call_id"], "output": "{}"}
                await connection.send(json.dumps({"type": "conversation.item.create", "item": item}).encode())
            await connection.send(realtime.create_response())
            await server.wait_sent("response.done", 2)
            await connection.send(realtime.create_response())
            await server.wait_sent("response.output_audio.delta", 5)
            server.session.speech_started()
            await connection.send(realtime.truncate_item(server.session.items[-1].id, 0, 100))
            await trio.sleep(1)
            server.session.speech_stopped()
            await trio.sleep(1)
            readers.cancel_scope.cancel()
        nursery.cancel_scope.cancel()
    sent = [passed.event for passed in server.sent[opening:]]
    assert [event["type"] for event in heard] == [event["type"] for event in sent]
    assert len(heard) > 60
    assert [told(event) for event in heard] == [told(event) for event in sent]


@pytest.mark.parametrize("minimum_only", [False, True])
@pytest.mark.parametrize("beta", [False, True])
async def test_a_whole_call_in_either_dialect(autojump_clock: MockClock, beta: bool, minimum_only: bool) -> None:
    """Greeting, barge-in with what was heard, a tool, goodbye; also with no more than section 9 promises everywhere."""
    script = Script.of(
        Say("A long welcome to everybody", ms=4000, pace=FAST),
        Call("hang_up", {"reason": "done"}),
        transcripts=["please stop"],
    )
    agent = "[agents.default]\nvoice = 'alloy'"
    overrides = {"realtime.dialect": "beta" if beta else "ga"}
    async with house(script, settings=agent, overrides=overrides) as it:
        it.model.beta = True
        it.model.faults.minimum_only = minimum_only
        await it.stasis_call()
        await it.model.wait_sent("response.done")
        await trio.sleep(1.0)
        it.model.session.speech_started()
        truncated = await it.model.wait_for("conversation.item.truncate")
        assert 800 < truncated["audio_end_ms"] < 1300
        it.model.session.speech_stopped()
        record = await it.ended()
        assert record["reason"] == "agent_hung_up"
    assert (it.model.session.edge is not None) is beta
    assert it.model.session.items[0].truncated_ms == truncated["audio_end_ms"]


async def test_an_answer_at_once_keeps_its_pace_in_beta(autojump_clock: MockClock) -> None:
    """The pauses of the old dialect are between events, not between deltas."""
    async with dialled(serving(Say("Long", ms=10_000, pace=Pace(speed=float("inf"), first_ms=0)))) as client:
        await client.send("response.create")
        await client.until("response.done")
    times = [at for at, event in client.events if event["type"] == "response.audio.delta"]
    assert times[-1] - times[0] < 0.01
