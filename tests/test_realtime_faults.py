"""The fake Realtime server's further faults: sessions that end at a chosen point, history put back, other manners.

Every event that it sends here passes the official SDK's types, save where a server is played that breaks them.
"""

from __future__ import annotations

import base64
import math
import time

import pytest
import trio
from model_client import SILENCE_500, Client, Json, dialled, serving

from simulators.model_script import ONE_DELTA, Call, Drop, Fail, Pace, Part, Say, Script, tone
from simulators.realtime_faults import DropPoint
from simulators.realtime_usage import Meter, audio_tokens, text_tokens

ADDED = "conversation.item.added"
TRANSCRIPT = "conversation.item.input_audio_transcription"


async def take_a_turn(client: Client, ms: int = 600) -> None:
    await client.speak(SILENCE_500 + tone(300, ms) + SILENCE_500)


# The end of a session


async def test_a_session_expires_by_itself_without_a_warning(autojump_clock: trio.abc.Clock) -> None:
    async with serving() as server:
        with server.expiring(30.0):
            async with dialled(server) as client:
                start = trio.current_time()
                expires_at = client.events[0]["session"]["expires_at"]
                assert expires_at - time.time() == pytest.approx(30, abs=2)
                await client.websocket.wait_closed()
                assert trio.current_time() - start == pytest.approx(30.0, abs=0.1)
                assert client.types == ["session.created", "error"]
                assert client.refusals[0]["code"] == "session_expired"
                assert client.websocket.close_code == 1001
        with server.faulty(expires_at_hidden=True):
            async with dialled(server) as client:
                assert "expires_at" not in client.events[0]["session"]


@pytest.mark.parametrize(
    ("point", "last"),
    [
        (DropPoint.AFTER_CREATED, "session.created"),
        (DropPoint.BEFORE_FIRST_DELTA, "response.output_audio_transcript.delta"),
        (DropPoint.MID_REPLY, "response.output_audio_transcript.delta"),
        (DropPoint.BEFORE_DONE, "response.output_item.done"),
        (DropPoint.MID_TOOL, "response.done"),
        (DropPoint.DURING_SPEECH, "input_audio_buffer.speech_started"),
        (DropPoint.AFTER_COMMIT, "input_audio_buffer.committed"),
    ],
    ids=lambda value: getattr(value, "name", ""),
)
async def test_dropped_at_a_point(point: DropPoint, last: str, autojump_clock: trio.abc.Clock) -> None:
    answer: list[Part] = [Say("one two three four five", ms=1000), Call("look_up")]
    script = Script.of(answer, answer, answer)
    async with serving(script) as server:
        with server.dropping(point):
            async with dialled(server) as client:
                if point is not DropPoint.AFTER_CREATED:
                    await client.send("response.create")
                    await trio.sleep(2)
                if point in (DropPoint.DURING_SPEECH, DropPoint.AFTER_COMMIT):
                    server.session.speech_started()
                    await trio.sleep(0.1)
                if point is DropPoint.AFTER_COMMIT:
                    server.session.speech_stopped()
                await client.websocket.wait_closed()
                assert client.websocket.close_code == 1006
                kinds = [kind for kind in client.types if kind != "conversation.item.done"]
                assert kinds[-1] == last
                if point is DropPoint.MID_REPLY:
                    assert len(client.of("response.output_audio.delta")) == 2
            # Once only: the next session lives.
            async with dialled(server) as client:
                await client.send("response.create")
                await trio.sleep(3)
                assert client.last("response.done")["response"]["status"] == "completed"


async def test_points_that_nobody_reached_are_forgotten(autojump_clock: trio.abc.Clock) -> None:
    async with serving(Script.of(Say("a"))) as server:
        with server.dropping(DropPoint.MID_REPLY, DropPoint.MID_TOOL, code=1011):
            pass
        async with dialled(server) as client:
            await client.send("response.create")
            await trio.sleep(2)
            assert client.types[-1] == "rate_limits.updated"


@pytest.mark.parametrize(("drop", "code"), [(Drop(), 1006), (Drop(1011), 1011), (Drop(expired=True), 1001)])
async def test_a_script_may_end_the_connection(drop: Drop, code: int, autojump_clock: trio.abc.Clock) -> None:
    async with serving(Script.of([Say("a", ms=200), drop])) as server, dialled(server) as client:
        await client.send("response.create")
        await client.websocket.wait_closed()
        assert client.websocket.close_code == code
        assert "response.output_item.done" in client.types
        assert "response.done" not in client.types


async def test_one_session_at_a_time(autojump_clock: trio.abc.Clock) -> None:
    async with serving() as server:
        server.handshake.most_sessions = 1
        async with dialled(server), dialled(server) as second:
            await second.websocket.wait_closed()
            assert second.refusals[0]["code"] == "session_limit_reached"


async def test_two_sessions_side_by_side_and_who_got_what(autojump_clock: trio.abc.Clock) -> None:
    script = Script.of(Say("a", ms=200), Say("b", ms=200))
    async with serving(script) as server, dialled(server) as first, dialled(server) as second:
        await second.send("response.create")
        await trio.sleep(1)
        await first.send("response.create", event_id="of_first")
        await trio.sleep(1)
        assert [e.get("event_id") for e in server.received_events("response.create", 1)] == ["of_first"]
        assert len(server.received_events("response.create", 2)) == 1
        assert len(server.received_events("response.create")) == 2
        ids = [{e["response"]["id"] for e in server.sent_events("response.done", number)} for number in (1, 2)]
        assert len(ids[0] | ids[1]) == 2
        assert [item.text for item in server.sessions[0].items] == ["b"]
        assert [item.text for item in server.sessions[1].items] == ["a"]


async def test_no_pongs(autojump_clock: trio.abc.Clock) -> None:
    async with serving(Script.of(Say("a", ms=200))) as server:
        with server.no_pongs():
            async with dialled(server) as client:
                pong = await client.websocket.ping()
                await client.send("response.create")
                await server.wait_sent("response.done")
                await trio.sleep(5)
                assert not pong.is_set()
        async with dialled(server) as client:
            pong = await client.websocket.ping()
            await trio.sleep(1)
            assert pong.is_set()


# History put back after a reconnect


def message(role: str, text: str, item_id: str) -> Json:
    kind = "output_text" if role == "assistant" else "input_text"
    return {"type": "message", "id": item_id, "role": role, "content": [{"type": kind, "text": text}]}


async def test_history_is_put_back_in_order(autojump_clock: trio.abc.Clock) -> None:
    async with serving(Script.of(Say("on we go", ms=100))) as server, dialled(server) as client:
        call = {"type": "function_call", "id": "item_c", "call_id": "call_1", "name": "look_up", "arguments": "{}"}
        output = {"type": "function_call_output", "id": "item_o", "call_id": "call_1", "output": "7"}
        items = [message("assistant", "Hello.", "item_a"), message("user", "Hi.", "item_u"), call, output]
        for item in items:
            await client.send("conversation.item.create", item=item)
        await client.send("conversation.item.create", item=message("system", "S", "item_s"), previous_item_id="root")
        await client.send("conversation.item.create", item=message("user", "X", "item_x"), previous_item_id="item_a")
        await trio.sleep(0.1)
        assert client.refusals == []
        assert [item.id for item in server.session.items] == [
            "item_s", "item_a", "item_x", "item_u", "item_c", "item_o",
        ]  # fmt: skip
        assert [event["previous_item_id"] for event in client.of(ADDED)] == [
            None, "item_a", "item_u", "item_c", None, "item_a",
        ]  # fmt: skip
        await client.send("response.create")
        await trio.sleep(1)
        assert server.session.items[-1].text == "on we go"


@pytest.mark.parametrize(
    ("item", "extra", "code"),
    [
        (message("user", "again", "item_a"), {}, "invalid_value"),
        (message("user", "x", "item_n"), {"previous_item_id": "item_gone"}, "invalid_value"),
        ({"type": "function_call_output", "call_id": "call_gone", "output": ""}, {}, "invalid_tool_call_id"),
        (message("user", "x", "i" * 33), {}, "invalid_value"),
        (
            message("assistant", "x", "item_n") | {"content": [{"type": "input_text", "text": "x"}]},
            {},
            "invalid_value",
        ),
    ],
)
async def test_history_that_is_refused(item: Json, extra: Json, code: str, autojump_clock: trio.abc.Clock) -> None:
    async with serving() as server, dialled(server) as client:
        await client.send("conversation.item.create", item=message("user", "first", "item_a"))
        await client.send("conversation.item.create", item=item, event_id="mine", **extra)
        await trio.sleep(0.1)
        assert [(error["code"], error["event_id"]) for error in client.refusals] == [(code, "mine")]
        assert len(server.session.items) == 1


# Transcripts


async def test_transcripts_of_two_turns_in_reverse_order(autojump_clock: trio.abc.Clock) -> None:
    script = Script.of(Say("a", ms=100), Say("b", ms=100), transcripts=["first", "second"])
    async with serving(script) as server, dialled(server) as client:
        await client.configure(audio={"input": {"transcription": {"model": "gpt-transcribe"}}})
        with server.faulty(transcripts_reversed=True):
            await take_a_turn(client)
            await take_a_turn(client)
            await trio.sleep(1)
        assert [event["transcript"] for event in client.of(f"{TRANSCRIPT}.completed")] == ["second", "first"]
        assert [item.text for item in server.session.items if item.role == "user"] == ["first", "second"]


async def test_a_transcript_before_the_answer(autojump_clock: trio.abc.Clock) -> None:
    async with serving(Script.of(Say("a", ms=100))) as server, dialled(server) as client:
        await client.configure(audio={"input": {"transcription": {"model": "gpt-transcribe"}}})
        with server.faulty(transcript_after_s=0.0):
            await take_a_turn(client)
            await trio.sleep(1)
        assert client.types.index(f"{TRANSCRIPT}.completed") < client.types.index("response.created")


@pytest.mark.parametrize(
    ("model", "deltas", "usage"),
    [
        ("gpt-transcribe", ["one two"], "duration"),
        ("whisper-1", ["one two"], "duration"),
        ("gpt-4o-transcribe", ["one", " two"], "tokens"),
    ],
)
async def test_transcripts_and_their_cost(
    model: str, deltas: list[str], usage: str, autojump_clock: trio.abc.Clock
) -> None:
    async with serving(Script.of(Say("a", ms=100), transcripts=["one two"])) as server, dialled(server) as client:
        include = ["item.input_audio_transcription.logprobs"]
        await client.configure(audio={"input": {"transcription": {"model": model}}}, include=include)
        await take_a_turn(client)
        await trio.sleep(1)
        assert [event["delta"] for event in client.of(f"{TRANSCRIPT}.delta")] == deltas
        completed = client.last(f"{TRANSCRIPT}.completed")
        heard_ms = server.session.items[0].audio_ms
        assert completed["usage"]["type"] == usage
        if usage == "tokens":
            assert completed["usage"]["input_tokens"] == heard_ms // 100
        else:
            assert completed["usage"]["seconds"] == heard_ms / 1000
        assert completed["logprobs"][0]["token"] == "one two"


# Usage


async def test_the_whole_conversation_is_input_each_time(autojump_clock: trio.abc.Clock) -> None:
    script = Script.of(*(Say("x" * 40, ms=2000) for _ in range(3)))
    async with serving(script) as server, dialled(server) as client:
        await client.configure(instructions="i" * 4000)
        for _ in range(3):
            await client.send("response.create")
            await trio.sleep(2)
        usages = [event["response"]["usage"] for event in client.of("response.done")]
        for usage in usages:
            assert usage["output_token_details"] == {"text_tokens": 10, "audio_tokens": 40}
            assert usage["total_tokens"] == usage["input_tokens"] + usage["output_tokens"]
            details = usage["input_token_details"]
            assert details["text_tokens"] + details["audio_tokens"] == usage["input_tokens"]
            assert details["cached_tokens"] <= usage["input_tokens"]
        assert [usage["input_token_details"]["audio_tokens"] for usage in usages] == [0, 40, 80]
        assert [usage["input_token_details"]["cached_tokens"] for usage in usages] == [0, 960, 960]
        remaining = [event["rate_limits"][0]["remaining"] for event in client.of("rate_limits.updated")]
        assert remaining[0] == 40000 - usages[0]["total_tokens"]
        assert all(0 < limit <= 40000 for limit in remaining)


async def test_a_failed_response_costs_nothing(autojump_clock: trio.abc.Clock) -> None:
    async with serving(Script.of(Fail.rate_limited(1.5), Fail.quota())) as server, dialled(server) as client:
        for _ in range(2):
            await client.send("response.create")
            await trio.sleep(1)
        first, second = (event["response"] for event in client.of("response.done"))
        assert first["usage"]["total_tokens"] == second["usage"]["total_tokens"] == 0
        assert first["status_details"]["error"]["code"] == "rate_limit_exceeded"
        assert first["status_details"]["error"]["message"].endswith("Please try again in 1.5s.")
        assert second["status_details"]["error"]["type"] == "insufficient_quota"


def test_tokens_of_audio_and_text() -> None:
    assert (audio_tokens("user", 60_000), audio_tokens("assistant", 60_000)) == (600, 1200)
    assert (text_tokens(0), text_tokens(1), text_tokens(8)) == (0, 1, 2)


def test_a_changed_prefix_is_not_cached() -> None:
    meter = Meter()
    config: Json = {"instructions": "i" * 4000}
    meter.prompt(config, [])
    assert meter.prompt(config, [])["input_token_details"]["cached_tokens"] == 960
    assert meter.prompt({"instructions": "j" * 4000}, [])["input_token_details"]["cached_tokens"] == 0


# Manners of other servers


async def test_conversation_created_after_the_session(autojump_clock: trio.abc.Clock) -> None:
    async with serving() as server:
        with server.faulty(conversation_created="after"):
            async with dialled(server) as client:
                await trio.sleep(0.1)
                assert client.types == ["session.created", "conversation.created"]


@pytest.mark.parametrize(
    ("switch", "added", "created", "done", "limits"),
    [
        ("added_twice", 2, 0, 1, 1),
        ("items_created", 0, 1, 0, 1),
        ("item_done_missing", 1, 0, 0, 1),
        ("rate_limits_missing", 1, 0, 1, 0),
    ],
)
async def test_items_as_clones_tell_of_them(
    switch: str, added: int, created: int, done: int, limits: int, autojump_clock: trio.abc.Clock
) -> None:
    async with serving(Script.of(Say("a", ms=200))) as server, dialled(server) as client:
        with server.faulty(**{switch: True}):
            await client.send("response.create")
            await trio.sleep(1)
        kinds = [ADDED, "conversation.item.created", "conversation.item.done", "rate_limits.updated"]
        assert [client.types.count(kind) for kind in kinds] == [added, created, done, limits]


async def test_bare_details_and_numeric_codes(autojump_clock: trio.abc.Clock) -> None:
    async with (
        serving(Script.of(Fail("x", "went wrong"), Fail()), checked=False) as server,
        dialled(server) as client,
    ):
        with server.faulty(details_bare=True):
            await client.send("response.create")
            await trio.sleep(1)
        with server.faulty(codes_numeric=True):
            await client.send("response.create")
            await client.send("response.cancel", response_id="resp_none")
            await trio.sleep(1)
        bare, numeric = (event["response"]["status_details"] for event in client.of("response.done"))
        assert bare == "went wrong"
        assert numeric["error"]["code"] == 429
        assert client.refusals[0]["code"] == 400


async def test_fields_that_only_the_real_one_sends(autojump_clock: trio.abc.Clock) -> None:
    async with serving(Script.of([Say("wait", ms=200), Say("here", ms=200)])) as server, dialled(server) as client:
        with server.faulty(official_extras=True):
            await client.send("response.create")
            await trio.sleep(1)
        assert all(event["obfuscation"] for event in client.of("response.output_audio.delta"))
        phases = [item["phase"] for item in client.last("response.done")["response"]["output"]]
        assert phases == ["commentary", "final_answer"]


async def test_a_minute_in_one_delta(autojump_clock: trio.abc.Clock) -> None:
    async with serving(Script.of(Say("long", ms=60_000))) as server, dialled(server) as client:
        with server.faulty(pace=ONE_DELTA):
            await client.send("response.create")
            await trio.sleep(1)
        (delta,) = client.of("response.output_audio.delta")
        assert len(base64.b64decode(delta["delta"])) == 60_000 * 48 > 2**20


async def test_the_pace_of_a_fault_goes_before_that_of_the_script(autojump_clock: trio.abc.Clock) -> None:
    async with serving(Script.of(Say("a", ms=1000))) as server, dialled(server) as client:
        with server.faulty(pace=Pace(speed=math.inf, delta_ms=100, odd=True)):
            await client.send("response.create")
            await trio.sleep(1)
        sizes = [len(base64.b64decode(event["delta"])) for event in client.of("response.output_audio.delta")]
        assert len(sizes) == 10
        assert all(size % 2 for size in sizes[:-1])


async def test_a_cancel_before_the_response_is_announced(autojump_clock: trio.abc.Clock) -> None:
    async with serving(Script.of(Say("a", ms=200))) as server, dialled(server) as client:
        with server.faulty(response_after_s=0.5):
            await client.send("response.create")
            await client.send("response.cancel")
            await client.send("response.create")
            server.session.speech_started()
            await trio.sleep(2)
        codes = [error["code"] for error in client.refusals]
        assert codes == ["response_cancel_not_active", "conversation_already_has_active_response"]
        assert client.last("response.done")["response"]["status"] == "completed"
