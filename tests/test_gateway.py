"""Whole sessions of `/realtime` in virtual time: clients on memory streams, the bridge served, the model's fake."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from itertools import pairwise
from typing import Any

import httpx
import numpy as np
import pytest
import trio
from house import FAST, House, house
from trio.testing import MockClock
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.trio.client import ClientConnection, connect
from websockets.typing import Origin, Subprotocol

from bridge import gateway, gateway_session
from bridge.config import load_config
from bridge.errors import ConfigError
from bridge.live_call import LiveCall
from bridge.server import serve
from bridge.tools import ToolRegistry
from simulators.model_script import Call, Fail, Say, Script, tone

ON = {"gateway.enabled": "true"}
CONFIG = {
    "type": "config",
    "provider": "openai",
    "model": "gpt-4o-realtime-preview",
    "voice": "nova",
    "instructions": "You are a helpful assistant.",
}
WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    },
}


class Client:
    """A client that reads all the time. `told` are its messages, `pcm` the audio, `chunks` when each piece came."""

    def __init__(self, websocket: ClientConnection) -> None:
        self.websocket = websocket
        self.told: list[dict[str, Any]] = []
        self.pcm = bytearray()
        self.chunks: list[tuple[float, int]] = []
        self.closed: tuple[int, str] | None = None
        self._news = trio.Event()

    async def read(self) -> None:
        try:
            while True:
                message = await self.websocket.recv()
                if isinstance(message, bytes):
                    self.pcm += message
                    self.chunks.append((trio.current_time(), len(message)))
                else:
                    self.told.append(json.loads(message))
                self._wake()
        except ConnectionClosed as error:
            self.closed = (error.rcvd.code, error.rcvd.reason) if error.rcvd else (1006, "")
            self._wake()

    def _wake(self) -> None:
        self._news.set()
        self._news = trio.Event()

    async def send(self, kind: str, **fields: Any) -> None:
        await self.websocket.send(json.dumps({"type": kind, **fields}))

    async def speak(self, pcm: bytes, chunk: int = 4800) -> None:
        """In real time."""
        for start in range(0, len(pcm), chunk):
            await self.websocket.send(pcm[start : start + chunk])
            await trio.sleep(chunk / 48000)

    def of(self, kind: str, **fields: Any) -> list[dict[str, Any]]:
        return [it for it in self.told if it["type"] == kind and fields.items() <= it.items()]

    async def hears(self, kind: str, n: int = 1, **fields: Any) -> Mapping[str, Any]:
        """The n-th message of this type, with these fields."""
        await self.until(lambda: len(self.of(kind, **fields)) >= n)
        return self.of(kind, **fields)[n - 1]

    async def until(self, condition: Callable[[], object]) -> None:
        with trio.fail_after(60):
            while not condition():
                await self._news.wait()

    async def is_closed(self) -> int:
        await self.until(lambda: self.closed)
        assert self.closed is not None
        return self.closed[0]


@asynccontextmanager
async def client(it: House, address: str = "/realtime", **headers: str) -> AsyncIterator[Client]:
    async with connect(
        f"ws://bridge.test{address}", stream=it.gateway.connect(), additional_headers=headers, compression=None
    ) as websocket:
        made = Client(websocket)
        it.nursery.start_soon(made.read)
        yield made


def loud(pcm: bytes) -> bytes:
    samples = np.frombuffer(pcm, "<i2")
    at = np.flatnonzero(np.abs(samples) > 200)
    return b"" if not len(at) else bytes(samples[at[0] : at[-1] + 1].tobytes())


async def test_a_session_from_its_config_to_the_clients_leaving(autojump_clock: MockClock) -> None:
    reply = tone(440, 1500)
    script = Script.of(Say("I am doing well.", pcm=reply), transcripts=["How are you?"])
    async with house(script, overrides=ON) as it:
        async with client(it) as me:
            await me.send(**{"kind" if key == "type" else key: value for key, value in CONFIG.items()})
            ready = await me.hears("ready")
            await me.hears("warning", 2)
            assert [(it["code"], it["message"].split(":")[0]) for it in me.of("warning")] == [
                ("replaced", "voice"),
                ("replaced", "model"),
            ]
            session = it.model.session.config
            assert session["instructions"] == "You are a helpful assistant."
            assert session["audio"]["output"]["voice"] == "marin"
            assert session["tools"] == []
            said = tone(1000, 1200)
            await me.speak(said + bytes(48 * 1000))
            await me.hears("transcript", role="assistant", is_final=True)
            kinds = [message["type"] for message in me.told]
            assert kinds.index("speech_started") < kinds.index("speech_stopped") < kinds.index("transcript")
            assert me.of("speech_started")[0]["audio_ms"] < me.of("speech_stopped")[0]["audio_ms"]
            assert me.of("transcript", role="user") == [
                {
                    "type": "transcript", "role": "user", "text": "How are you?", "is_final": True,
                    "item_id": me.of("speech_started")[0]["item_id"],
                }
            ]  # fmt: skip
            partial = [message["text"] for message in me.of("transcript", role="assistant", is_final=False)]
            assert all(later.startswith(earlier) for earlier, later in pairwise(partial))
            final = me.of("transcript", role="assistant", is_final=True)
            assert [(told["text"], told["heard_ms"], told["interrupted"]) for told in final] == [
                ("I am doing well.", 1500, False)
            ]
            assert me.of("response_done")[0]["status"] == "completed"
            # What the model heard is what was said, and what is heard is what it said, sample for sample.
            assert said in it.model.session.appended_pcm
            assert bytes(me.pcm) == reply
            assert {size for _, size in me.chunks} == {960}
            assert me.chunks[-1][0] - me.chunks[0][0] == pytest.approx(1.48, abs=0.005)
        record = await it.ended()
    assert record["reason"] == "caller_hung_up"
    assert (record["direction"], record["called"], record["media_format"]) == ("inbound", "/realtime", "slin24")
    assert record["call_id"] == ready["session_id"]
    assert record["audio_dropped_ms"] == 0
    assert it.told("call_arrives")[0]["channel"] == "websocket"


async def test_a_client_that_waits_for_ready_before_its_config_changes_the_session(autojump_clock: MockClock) -> None:
    async with house(Script.of(Say("Yes.", ms=200)), overrides=ON) as it, client(it) as me:
        began = trio.current_time()
        await me.hears("ready")
        await me.hears("session_created")
        assert 1 <= trio.current_time() - began < 2
        await me.send("config", provider="openai", instructions="Be brief.", voice="coral", turn_detection="none")
        await me.hears("session_updated")
        session = it.model.session.config
        assert session["instructions"] == "Be brief."
        assert session["audio"]["output"]["voice"] == "coral"
        assert session["audio"]["input"]["turn_detection"] is None
        assert len(me.of("ready")) == 1


async def test_barge_in_stops_the_audio_at_once_and_truncates_to_what_was_sent(autojump_clock: MockClock) -> None:
    script = Script.of(Say("A very long story.", ms=20_000, pace=FAST), Say("Yes?", ms=300))
    async with house(script, overrides=ON) as it, client(it) as me:
        await me.send("config", provider="openai")
        await me.hears("ready")
        await me.send("text", text="Tell me a story.")
        await trio.sleep(2)
        assert not me.pcm, "a text is not answered by itself"
        await me.send("create_response")
        await me.until(lambda: len(me.pcm) >= 48 * 3000)
        it.model.session.speech_started()
        truncate = await it.model.wait_for("conversation.item.truncate")
        interrupted = await me.hears("interrupted")
        played = len(me.pcm)
        await trio.sleep(1)
        assert len(me.pcm) - played <= 960
        assert abs(truncate["audio_end_ms"] - len(me.pcm) / 48) <= 20
        assert interrupted["heard_ms"] == truncate["audio_end_ms"]
        final = await me.hears("transcript", role="assistant", is_final=True)
        assert final["interrupted"]
        assert final["text"] != "A very long story."
        done = await me.hears("response_done")
        assert done["status"] in ("completed", "cancelled")


@pytest.mark.parametrize("asks", [True, False])
async def test_a_function_is_the_clients_and_is_answered_exactly_once(asks: bool, autojump_clock: MockClock) -> None:
    """With the request for the answer, as the SDK does it, and without."""
    script = Script.of(
        [Call("get_weather", {"city": "Chicago"}, "one"), Call("get_weather", {"city": "Paris"}, "two")],
        Say("Hail in Chicago.", ms=500),
    )
    async with house(script, overrides=ON) as it, client(it, "/realtime?messages=code") as me:
        await me.send("config", provider="openai", tools=[WEATHER])
        created = await me.hears("session_created")
        assert (created["provider"], created["model"]) == ("openai", "gpt-realtime-2.1")
        assert not me.of("ready")
        await me.send("text", text="The weather?")
        await me.send("create_response")
        await me.hears("function_call", 2)
        calls = me.of("function_call")
        assert [(it["call_id"], it["name"], json.loads(it["arguments"])) for it in calls] == [
            ("one", "get_weather", {"city": "Chicago"}),
            ("two", "get_weather", {"city": "Paris"}),
        ]
        for call_id, result in (("one", {"sky": "hail"}), ("two", '{"sky": "clear"}')):
            await me.send("function_result", call_id=call_id, result=result)
            if asks:
                await me.send("create_response")
        await me.hears("response_done", 2)
        await trio.sleep(3)
        assert len(it.model.received_events("response.create")) == 2
        outputs = [item.text for item in it.model.session.items if item.type == "function_call_output"]
        assert sorted(outputs) == ['{"sky": "clear"}', '{"sky":"hail"}']
        await me.send("function_result", call_id="one", result="again")
        assert (await me.hears("error"))["code"] == "function_error"


async def test_manual_turns_are_answered_only_when_the_client_asks(autojump_clock: MockClock) -> None:
    script = Script.of(Say("Yes.", ms=300), transcripts=["One.", "Two."])
    async with house(script, overrides=ON) as it, client(it) as me:
        await me.send("config", provider="openai", turn_detection={"mode": "manual"})
        await me.hears("session_created")
        await trio.sleep(5)
        assert it.model.session.appended_pcm == b"", "silence is no audio of a push-to-talk client"
        for _ in range(2):
            await me.speak(tone(500, 600))
            await me.send("commit_audio")
            await trio.sleep(2)
        assert not it.model.received_events("response.create")
        assert it.model.session.appended_pcm == tone(500, 600) * 2
        assert len(it.model.received_events("input_audio_buffer.commit")) == 2
        await me.send("create_response", response={"instructions": "Briefly.", "out_of_band": False})
        await me.hears("response_done")
        (asked,) = it.model.received_events("response.create")
        assert asked["response"]["instructions"] == "Briefly."
        await me.speak(tone(500, 300))
        await me.send("clear_audio")
        await it.model.wait_for("input_audio_buffer.clear")


async def test_turn_detection_changes_in_both_directions(autojump_clock: MockClock) -> None:
    script = Script.of(Say("One.", ms=100), Say("Two.", ms=100), Say("Three.", ms=100), transcripts=["a", "b", "c"])
    async with house(script, overrides=ON) as it, client(it) as me:
        await me.send("config", turn_detection={"mode": "manual"})
        await me.hears("session_created")
        await me.speak(tone(500, 400))
        await me.send("update_session", turn_detection={"mode": "server_vad"})
        await me.hears("session_updated")
        await me.speak(tone(500, 600) + bytes(48 * 800))
        await me.hears("response_done")
        await trio.sleep(1)
        await me.send("update_session", turn_detection={"mode": "manual"})
        await me.hears("session_updated", 2)
        await me.speak(tone(500, 600) + bytes(48 * 800))
        await me.send("commit_audio")
        await trio.sleep(2)
        assert len(me.of("response_done")) == 1
        await me.send("create_response")
        await me.hears("response_done", 2)
        assert len(it.model.received_events("response.create")) == 1


async def test_the_call_hook_is_asked_about_a_client(autojump_clock: MockClock) -> None:
    asked: list[dict[str, Any]] = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(json.loads(request.content))
        if len(asked) == 1:
            return httpx.Response(200, json={"profile": {"instructions": "Say moo.", "voice": "ash"}})
        return httpx.Response(200, json={"reject": "enough"})

    overrides = ON | {"hooks.call_url": "https://hooks.test/call"}
    async with house(Script.of(), overrides=overrides, http=httpx.MockTransport(answer)) as it:
        async with client(it) as me:
            await me.send("config", voice="coral")
            await me.hears("ready")
            session = it.model.session.config
            assert (session["instructions"], session["audio"]["output"]["voice"]) == ("Say moo.", "coral")
        async with client(it) as me:
            await me.send("config")
            assert await me.is_closed() != 1000
            assert me.told[-1] == {"type": "closing", "reason": "hook_rejected"}
        assert (asked[0]["channel"], asked[0]["called"], asked[0]["agent"]) == ("websocket", "/realtime", "default")


async def test_a_session_that_is_lost_goes_on_with_its_history_and_the_client_is_told(
    autojump_clock: MockClock,
) -> None:
    async with house(Script.of(Say("Nice to meet you.", ms=300)), overrides=ON) as it, client(it) as me:
        await me.send("config", provider="openai", instructions="Be kind.")
        await me.hears("ready")
        await me.send("text", text="My name is Ada.")
        await me.send("create_response")
        await me.hears("transcript", is_final=True, role="assistant")
        await me.send("update_session", instructions="Be very kind.", tools=[WEATHER])
        await me.hears("session_updated")
        await it.model.session.drop()
        await me.hears("reconnecting")
        await me.hears("reconnected")
        assert len(me.of("ready")) == 1
        await trio.sleep(0.5)
        session = it.model.session
        assert session.config["instructions"] == "Be very kind."
        assert [tool["name"] for tool in session.config["tools"]] == ["get_weather"]
        assert [item.text for item in session.items] == ["My name is Ada.", "Nice to meet you."]


async def test_failures_are_told_before_the_connection_closes(autojump_clock: MockClock) -> None:
    async with house(Script.of(), overrides=ON) as it:
        it.model.key = "another-key"
        async with client(it) as me:
            await me.send("config", provider="openai")
            code = await me.is_closed()
    told = me.of("error")
    assert [(it["code"], it["error"], it["provider_code"]) for it in told] == [
        ("connection_error", "AuthenticationFailed", "invalid_api_key")
    ]
    assert me.told[-1] == {"type": "closing", "reason": "model_rejected"}
    assert code == 1011


async def test_a_response_that_failed_does_not_look_like_success(autojump_clock: MockClock) -> None:
    limit = Fail("rate_limit_exceeded", "Rate limit reached. Please try again in 1s.", "requests")
    script = Script.of([limit], Say("Now.", ms=200))
    async with house(script, overrides=ON) as it, client(it) as me:
        await me.send("config", provider="openai")
        await me.hears("ready")
        await me.send("create_response")
        failed = await me.hears("response_done")
        assert (failed["status"], failed["error"]["code"]) == ("failed", "rate_limit_exceeded")
        error = await me.hears("error")
        assert (error["code"], error["error"]) == ("response_error", "RateLimitExceeded")
        assert (await me.hears("response_done", 2))["status"] == "completed"


async def test_a_client_that_says_nothing_is_sent_away(autojump_clock: MockClock) -> None:
    async with house(Script.of(), overrides=ON | {"gateway.idle_timeout_s": "6"}) as it, client(it) as me:
        await me.send("config", provider="openai")
        await me.hears("ready")
        await trio.sleep(4)
        await me.websocket.send(bytes(960))
        await trio.sleep(4)
        assert me.closed is None
        assert await me.is_closed() == 1000
        assert [it["code"] for it in me.of("error")] == ["idle_timeout"]
        assert me.told[-1] == {"type": "closing", "reason": "caller_silent"}


async def test_wrong_configs_leave_the_connection_open_for_right_ones(autojump_clock: MockClock) -> None:
    async with house(Script.of(), overrides=ON) as it, client(it) as me:
        await me.send("create_response")
        await me.send("config", provider="hume")
        await me.send("config", provider="openai", vad={"threshold": 7})
        await me.websocket.send("{")
        await trio.sleep(5)
        assert [it["code"] for it in me.of("error")] == [
            "no_session", "invalid_provider", "validation_error", "parse_error",
        ]  # fmt: skip
        assert not me.of("ready")
        await me.send("config", provider="openai")
        await me.hears("ready")
        await me.send("config", model="gpt-9")
        await me.send("update_session", agent="sales")
        await me.send("update_session", voice="nova")
        await me.hears("session_updated")
        assert [it["code"] for it in me.of("error")[4:]] == ["validation_error", "update_error"]


async def test_an_agent_that_is_named_greets_hangs_up_and_keeps_its_tools(autojump_clock: MockClock) -> None:
    def opening_hours() -> str:
        """When we are open."""
        return "nine to five"

    script = Script.of(Say("Sales, hello!", ms=300), [Say("Goodbye.", ms=300), Call("hang_up", {"reason": "done"})])
    settings = "[agents.sales]\ninstructions = 'Sell.'\nvoice = 'cedar'\n"
    registry = ToolRegistry([opening_hours])
    async with house(script, settings=settings, overrides=ON, tools=registry) as it, client(it) as me:
        await me.send("config", agent="sales", tools=[WEATHER])
        await me.hears("transcript", role="assistant", is_final=True)
        session = it.model.session.config
        assert (session["instructions"], session["audio"]["output"]["voice"]) == ("Sell.", "cedar")
        assert [tool["name"] for tool in session["tools"]] == ["hang_up", "opening_hours", "get_weather"]
        await me.send("text", text="Bye.")
        await me.send("create_response")
        assert await me.is_closed() == 1000
        assert me.told[-1] == {"type": "closing", "reason": "agent_hung_up"}
        assert len(me.pcm) == 2 * 300 * 48
    assert it.told("call_ended")[0]["agent"] == "sales"


async def test_draining_lets_a_session_finish_and_then_says_goodbye(autojump_clock: MockClock) -> None:
    async with house(Script.of(), overrides=ON | {"limits.drain_s": "5"}) as it, client(it) as me:
        await me.send("config")
        await me.hears("ready")
        it.ready.drain()
        await trio.sleep(4)
        assert me.closed is None
        assert await me.is_closed() == 1001
        assert me.told[-1] == {"type": "closing", "reason": "server_draining"}


@pytest.mark.parametrize(
    ("overrides", "address", "headers", "status"),
    [
        ({}, "/elsewhere", {}, 404),
        ({}, "/realtime?messages=both&x=1", {}, 101),
        ({}, "/realtime?messages=some", {}, 400),
        ({}, "/realtime", {"Origin": "https://evil.test"}, 403),
        ({"gateway.token": "sixteen-letters-of-token"}, "/realtime", {}, 401),
        ({"gateway.token": "sixteen-letters-of-token"}, "/realtime", {"Authorization": "Bearer no"}, 401),
        ({"gateway.token": "t" * 16}, "/realtime", {"Authorization": f"Bearer {'t' * 16}"}, 101),
        ({"gateway.max_clients": "1"}, "/realtime", {}, 101),
        ({"server.max_calls": "1"}, "/realtime", {}, 503),
    ],
)
async def test_the_door(
    overrides: dict[str, str], address: str, headers: dict[str, str], status: int, autojump_clock: MockClock
) -> None:
    async with house(Script.of(Say("Hello!")), overrides=ON | overrides) as it:
        if "server.max_calls" in overrides:
            await it.stasis_call()
        try:
            async with client(it, address, **headers):
                told = 101
        except InvalidStatus as refused:
            told = refused.response.status_code
        assert told == status
        if status == 503:
            assert it.ready is not None
            for channel in list(it.ari.channels.values()):
                channel.hang_up()


async def test_what_is_written_in_one_session_is_bounded(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gateway_session, "MOST_WRITTEN", 1000)
    async with house(Script.of(), overrides=ON) as it, client(it) as me:
        await me.send("config")
        await me.hears("ready")
        for _ in range(3):
            await me.send("text", text="a" * 200)
        error = await me.hears("error", code="text_error")
        assert "more than 1000 characters were written" in error["message"]
        await trio.sleep(1)
        assert len(me.of("error")) == 1, "the first two went through"


async def test_strangers_take_no_place_of_clients(autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gateway, "MOST_STRANGERS", 3)
    async with house(Script.of(), overrides=ON | {"gateway.max_clients": "1"}) as it:
        strangers = [it.gateway.connect() for _ in range(4)]
        for stranger in strangers:
            await stranger.send_all(b"GET /realtime HTTP/1.1\r\n")
        with pytest.raises(trio.BrokenResourceError):  # one too many, even of those who say nothing
            await strangers[3].receive_some(1)
        await strangers[0].aclose()
        await trio.sleep(0.1)
        async with client(it) as me:
            await me.send("config")
            await me.hears("ready")
            with pytest.raises(InvalidStatus, match="503"):
                async with client(it):
                    pass


async def test_a_session_in_writing(autojump_clock: MockClock) -> None:
    async with house(Script.of(Say("It is noon."), Say("Spoken.", ms=200)), overrides=ON) as it, client(it) as me:
        await me.send("config", modalities=["text"], tools=[])
        await me.hears("session_created")
        await me.send("text", text="What time is it?")
        await me.send("create_response")
        final = await me.hears("transcript", is_final=True)
        assert (final["role"], final["text"]) == ("assistant", "It is noon.")
        partial = [told["text"] for told in me.of("transcript", is_final=False)]
        assert all(later.startswith(earlier) for earlier, later in pairwise(partial))
        assert not me.pcm
        await me.hears("response_done")
        await it.model.session.drop()
        await me.hears("reconnected")
        await it.model.wait_for("conversation.item.create", 3)
        assert [item.text for item in it.model.session.items] == ["What time is it?", "It is noon."]
        await me.send("update_session", modalities=["audio"])
        await me.hears("session_updated")
        await me.send("create_response")
        await me.until(lambda: len(me.pcm) == 200 * 48)


async def test_without_a_key_the_connection_stays_open_and_says_so(autojump_clock: MockClock) -> None:
    overrides = ON | {"realtime.url": "wss://api.openai.com/v1/realtime", "realtime.api_key": ""}
    async with house(Script.of(), overrides=overrides) as it, client(it) as me:
        for _ in range(2):
            await me.send("config", provider="openai", voice="alloy")
        await me.hears("error", 2, code="missing_api_key")
        await me.send("config", provider="openai", voice="darth")
        assert "darth" in (await me.hears("error", code="validation_error"))["message"]
        assert me.closed is None
        assert it.dials == 0
    assert it.told("call_ended")[0]["reason"] == "caller_hung_up"


async def test_a_browser_shows_its_token_as_a_subprotocol(autojump_clock: MockClock) -> None:
    settings, overrides = "[gateway]\norigins = ['https://app.test']\n", ON | {"gateway.token": "t" * 20}
    async with house(Script.of(), settings=settings, overrides=overrides) as it:
        offered = [Subprotocol("realtime"), Subprotocol(f"bearer.{'t' * 20}")]
        async with connect(
            "ws://bridge.test/realtime",
            stream=it.gateway.connect(),
            subprotocols=offered,
            origin=Origin("https://app.test"),
        ) as websocket:
            assert websocket.subprotocol == "realtime"
            assert "t" * 20 not in str(websocket.response)


async def test_an_application_takes_part_in_a_clients_call(autojump_clock: MockClock) -> None:
    seen: list[tuple[str, str, str]] = []

    async def attend(call: LiveCall) -> None:
        seen.append((call.caller, call.called, call.agent_name))
        async for event in call.events(["call.answered"]):
            assert event.type == "call.answered"
            call.say("Welcome.")

    async with house(Script.of(Say("Welcome.", ms=200)), overrides=ON, on_call=attend) as it, client(it) as me:
        await me.send("config")
        await me.hears("transcript", is_final=True, role="assistant")
    assert seen == [("", "/realtime", "default")]


async def test_words_that_nobody_understood_are_not_passed_over(autojump_clock: MockClock) -> None:
    script = Script.of(Say("Pardon?", ms=100), Say("Yes.", ms=100), transcripts=[None, "Hello."])
    async with house(script, overrides=ON) as it, client(it) as me:
        await me.send("config")
        await me.hears("ready")
        for n in (1, 2):
            await me.speak(tone(500, 600) + bytes(48 * 800))
            await me.hears("transcript", n, role="assistant", is_final=True)
        started = [told["item_id"] for told in me.of("speech_started")]
        assert [(told["code"], told["item_id"]) for told in me.of("warning")] == [("not_transcribed", started[0])]
        assert [(told["text"], told["item_id"]) for told in me.of("transcript", role="user")] == [
            ("Hello.", started[1])
        ]


async def test_a_microphone_at_another_rate_is_told_to_the_client(autojump_clock: MockClock) -> None:
    async with house(Script.of(Say("Pardon?")), overrides=ON) as it, client(it) as me:
        await me.send("config", turn_detection="none")
        await me.hears("ready")
        for _ in range(80):
            await me.websocket.send(bytes(16000 * 2 // 10))
            await trio.sleep(0.1)
        (told,) = me.of("warning", code="audio_rate")
        assert "16000 Hz" in told["message"]


async def test_a_port_that_is_taken_is_told_with_its_setting() -> None:
    (taken,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    async with taken:
        address = f"127.0.0.1:{taken.socket.getsockname()[1]}"
        overrides = ON | {"gateway.address": address, "asterisk.enabled": "false", "server.audiosocket_port": "0"}
        overrides |= {"server.health_address": "", "server.control_address": "", "records.url": ""}
        expected = pytest.RaisesExc(ConfigError, match=f"^gateway.address: cannot listen on {address}")
        with pytest.RaisesGroup(expected, flatten_subgroups=True):
            await serve(load_config("", {}, overrides))


async def test_what_goes_wrong_for_one_client_is_told_to_it_alone(autojump_clock: MockClock) -> None:
    async with house(Script.of(), overrides=ON) as it, client(it) as me, client(it) as other:
        for one in (me, other):
            await one.send("config")
            await one.hears("ready")
        for session in it.model.sessions:
            assert session.config["type"] == "realtime"
        await me.send("dtmf", digit="x")
        await me.send("update_session", vad={"threshold": 3})
        await me.hears("error", 2, code="validation_error")
        it.model.sessions[0].send_error("server_error", "Something is wrong.")
        await trio.sleep(1)
        told = [error for client in (me, other) for error in client.of("error", code="provider_error")]
        assert [(error["message"], error["provider_code"]) for error in told] == [
            ("Something is wrong.", "server_error")
        ]
        assert other.of("error", code="validation_error") == []


@pytest.mark.parametrize(
    ("request_text", "answer"),
    [
        (b"GET /realtime HTTP/1.1\r\nHost: x\r\n\r\n", b"HTTP/1.1 426 "),
        (b"POST /realtime HTTP/1.1\r\nHost: x\r\n\r\n", b""),
        (b"\x16\x03\x01 this is TLS\r\n\r\n", b""),
        (b"GET /realtime HTTP/1.1\r\nHo", b""),
        (b"", b""),
    ],
)
async def test_who_speaks_no_websocket_costs_nobody_anything(
    request_text: bytes, answer: bytes, autojump_clock: MockClock
) -> None:
    async with house(Script.of(), overrides=ON) as it:
        async with it.gateway.connect() as stream:
            await stream.send_all(request_text)
            told = b""
            with suppress(trio.BrokenResourceError):
                told = b"".join([data async for data in stream])
            assert told.startswith(answer)
        async with client(it) as me:
            await me.send("config")
            await me.hears("ready")
