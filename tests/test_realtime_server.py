"""The fake Realtime server: whom and what it refuses, each of its faults, and a real network.

Every event that it sends in any of these tests passes the official SDK's types and the rules beyond them.
"""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest
import trio
import trio_websocket
from model_client import ANSWER, URL, Json, dialled, serving
from sdk_types import check_server
from websockets.exceptions import InvalidStatus

from simulators.model_script import Call, Fail, Pace, Say, Script
from simulators.realtime_faults import FaultSwitches
from simulators.realtime_server import REFUSALS, run

AT_ONCE = Pace(speed=math.inf, first_ms=100)


def pitch_hz(pcm: bytes, rate_hz: int = 24000) -> float:
    """The loudest frequency."""
    samples = np.frombuffer(pcm, "<i2")
    return float(np.argmax(np.abs(np.fft.rfft(samples))) * rate_hz / len(samples))


# What it refuses


async def test_refusals_that_leave_the_session_alive(autojump_clock: trio.abc.Clock) -> None:
    script = Script.of(Say("a", ms=1000, pace=AT_ONCE), Say("b", ms=9000, pace=Pace(speed=1)))
    async with serving(script) as server, dialled(server) as client:
        await client.send("response.create")
        await trio.sleep(0.5)
        user = {
            "type": "message",
            "role": "user",
            "content": [{"type": "input_text", "text": "x"}],
            "id": "item_mine",
        }
        await client.send("conversation.item.create", item=user)
        answer = server.session.items[0].id
        await client.send("response.create")
        await trio.sleep(0.1)

        async def refused(code: str | None, words: str, kind: str, **fields: Any) -> Json:
            before = len(client.refusals)
            await client.send(kind, **fields)
            await trio.sleep(0.01)
            assert len(client.refusals) == before + 1, kind
            error = client.refusals[-1]
            assert error["code"] == code
            assert words in error["message"]
            return error

        place = {"content_index": 0, "audio_end_ms": 10}
        truncate = "conversation.item.truncate"
        await refused("item_truncate_invalid_item_id", "not found", truncate, item_id="item_gone", **place)
        await refused("unsupported_content_type", "Only model output audio", truncate, item_id="item_mine", **place)
        await refused("invalid_value", "no content", truncate, item_id=answer, content_index=1, audio_end_ms=1)
        error = await refused(
            "invalid_value",
            "already shorter than 1200ms",
            truncate,
            item_id=answer,
            content_index=0,
            audio_end_ms=1200,
        )
        assert error["event_id"] is None
        assert client.last("conversation.item.truncated")["audio_end_ms"] == 1000
        await refused("item_delete_invalid_item_id", "not found", "conversation.item.delete", item_id="item_gone")
        await refused("item_retrieve_invalid_item_id", "not found", "conversation.item.retrieve", item_id="item_gone")
        active = "conversation_already_has_active_response"
        assert "in progress: resp_" in (await refused(active, "Wait until", "response.create"))["message"]
        await refused("input_audio_buffer_commit_empty", "only has 0.00ms", "input_audio_buffer.commit")
        await refused(
            "invalid_value", "Previous item", "conversation.item.create", item=user, previous_item_id="nope"
        )
        await refused("invalid_value", "already exists", "conversation.item.create", item=user)
        await refused("invalid_value", "Supported values are: 'session.update'", "output_audio_buffer.clear")
        voice = {"type": "realtime", "instructions": "no", "audio": {"output": {"voice": "echo"}}}
        await refused("cannot_update_voice", "assistant audio is present", "session.update", session=voice)
        assert server.session.config["instructions"] != "no"
        model = {"type": "realtime", "model": "gpt-realtime-2"}
        await refused("invalid_value", "can not be changed", "session.update", session=model)
        await refused("invalid_value", "can not be changed", "session.update", session={"type": "transcription"})
        await client.send("conversation.item.delete", item_id="item_mine")
        await client.send("conversation.item.retrieve", item_id=answer)
        await trio.sleep(0.01)
        assert client.types[-2:] == ["conversation.item.deleted", "conversation.item.retrieved"]


@pytest.mark.parametrize(
    ("message", "code"),
    [
        (b"{}", "invalid_event"),
        ("{", "invalid_json"),
        ("[]", "invalid_event"),
        ("{}", "missing_required_parameter"),
        ('{"type":"hello"}', "invalid_value"),
        ('{"type":7}', "invalid_value"),
    ],
)
async def test_bad_messages(message: str | bytes, code: str, autojump_clock: trio.abc.Clock) -> None:
    async with serving() as server, dialled(server) as client:
        await client.websocket.send(message)
        await client.send("input_audio_buffer.clear")
        await trio.sleep(0.01)
        assert client.refusals[0]["code"] == code
        assert client.types[-1] == "input_audio_buffer.cleared"


async def test_bare_errors(autojump_clock: trio.abc.Clock) -> None:
    async with serving() as server, dialled(server) as client:
        with server.faulty(bare_errors=True):
            await client.send("response.cancel", event_id="mine")
            server.session.send_error("server_error")
            await trio.sleep(0.01)
        assert [(error["code"], error["event_id"]) for error in client.refusals] == [(None, None)] * 2


# The handshake and the end


@pytest.mark.parametrize(
    ("url", "headers", "code"),
    [
        (URL, {}, "invalid_api_key"),
        (URL, {"Authorization": "Bearer wrong"}, "invalid_api_key"),
        (URL, {"Authorization": "Basic right"}, "invalid_api_key"),
        (URL, {"Authorization": "Bearer right", "OpenAI-Beta": "realtime=v1"}, "beta_api_shape_disabled"),
        (URL.partition("?")[0], {"Authorization": "Bearer right"}, "missing_model"),
        (URL.replace("gpt-realtime-2.1", "gpt-9"), {"Authorization": "Bearer right"}, "invalid_model"),
        (
            URL.replace("gpt-realtime-2.1", "gpt-4o-realtime-preview"),
            {"Authorization": "Bearer right"},
            "model_not_found",
        ),
    ],
)
async def test_refused_at_the_door(url: str, headers: Json, code: str, autojump_clock: trio.abc.Clock) -> None:
    async with serving(key="right") as server, dialled(server, url, headers) as client:
        await client.websocket.wait_closed()
        close_code, kind, _ = REFUSALS[code]
        assert [error["code"] for error in client.refusals] == [code]
        assert client.types == ["error"]
        assert (client.websocket.close_code, client.websocket.close_reason) == (close_code, f"{kind}.{code}")


async def test_faults_of_the_handshake(autojump_clock: trio.abc.Clock) -> None:
    async with serving() as server:
        with server.refusing("insufficient_quota"):
            async with dialled(server) as client:
                await client.websocket.wait_closed()
                assert client.websocket.close_code == 1013
        with server.http_status(503), pytest.raises(InvalidStatus) as refused:
            async with dialled(server):
                pass
        assert refused.value.response.status_code == 503
        with pytest.raises(InvalidStatus):
            async with dialled(server, "ws://model.test/v1/elsewhere"):
                pass
        with server.silent():
            async with dialled(server) as client:
                for _ in range(50):
                    await client.send("response.create")
                await trio.sleep(30)
                assert client.events == []
        with server.closing_at_once(1008):
            async with dialled(server) as client:
                await client.websocket.wait_closed()
                assert client.websocket.close_code == 1008
        with server.faulty(created_after_s=4.0, conversation_created=True):
            async with dialled(server) as client:
                await trio.sleep(3.9)
                assert client.events == []
                await trio.sleep(0.2)
                assert client.types == ["conversation.created", "session.created"]
        await server.until(lambda: server.open_connections == 0)


@pytest.mark.parametrize("code", [None, 1000, 1011, 1012])
async def test_dropped(code: int | None, autojump_clock: trio.abc.Clock) -> None:
    async with serving() as server:
        with server.dropped(after_s=2.0, code=code):
            async with dialled(server) as client:
                start = trio.current_time()
                await client.websocket.wait_closed()
                assert trio.current_time() - start == pytest.approx(2.0, abs=0.1)
                assert client.websocket.close_code == (1006 if code is None else code)
        await server.until(lambda: server.open_connections == 0)


async def test_expiry(autojump_clock: trio.abc.Clock) -> None:
    async with serving() as server, dialled(server) as client:
        server.session.expire()
        await client.websocket.wait_closed()
        assert client.refusals[0]["code"] == "session_expired"
        assert client.websocket.close_code == 1001
        assert client.websocket.close_reason == "Your session hit the maximum duration of 60 minutes."


# Faults of a session


async def test_faults_of_the_configuration(autojump_clock: trio.abc.Clock) -> None:
    async with serving() as server, dialled(server) as client:
        with server.no_session_updated():
            await client.configure(instructions="a")
            assert client.types == ["session.created"]
        with server.update_refused():
            await client.configure(instructions="b")
            assert client.refusals[0]["code"] == "invalid_value"
        with server.wrong_format({"type": "audio/pcma"}):
            await client.configure(instructions="c")
            assert client.last("session.updated")["session"]["audio"]["output"]["format"] == {"type": "audio/pcma"}
        assert server.session.config["audio"]["output"]["format"]["type"] == "audio/pcm"


async def test_stalled_and_slow(autojump_clock: trio.abc.Clock) -> None:
    answer = Say("a", ms=2000, pace=Pace(speed=1, delta_ms=200, first_ms=0))
    async with serving(Script.of(answer, answer)) as server, dialled(server) as client:
        await client.send("response.create")
        await trio.sleep(0.5)
        before = len(client.heard())
        with server.stalled():
            await trio.sleep(20)
            assert len(client.heard()) == before
        await trio.sleep(2)
        assert len(client.heard()) == 2000 * 48
        start = trio.current_time()
        with server.slow_deltas(3):
            await client.send("response.create")
            await server.wait_sent("response.done", 2)
        assert trio.current_time() - start == pytest.approx(6.0)


async def test_clone_manners(autojump_clock: trio.abc.Clock) -> None:
    async with serving(Script.of(Say("a", ms=200))) as server, dialled(server) as client:
        with server.faulty(done_swapped=True, empty_deltas=True, usage_missing=True, truncate_unacknowledged=True):
            await client.send("response.create")
            await trio.sleep(1)
            assert client.types.index("response.output_item.done") < client.types.index("conversation.item.done")
            assert client.of("response.output_audio.delta")[0]["delta"] == ""
            assert client.last("response.done")["response"]["usage"] is None
            place = {"content_index": 0, "audio_end_ms": 100}
            await client.send("conversation.item.truncate", item_id=server.session.items[0].id, **place)
            await trio.sleep(0.1)
            assert "conversation.item.truncated" not in client.types
            assert server.session.items[0].truncated_ms == 100


async def test_what_the_types_do_not_know(autojump_clock: trio.abc.Clock) -> None:
    script = Script.of(Call("look_up", name_in_done=False))
    async with serving(script, checked=False) as server, dialled(server) as client:
        with server.faulty(foreign=True):
            await client.send("response.create")
            await trio.sleep(1)
        assert "name" not in client.last("response.function_call_arguments.done")
        assert "weather.updated" in client.types
        assert "x_not_yet_invented" in client.last("response.done")


async def test_failing_uses_up_nothing_of_the_script(autojump_clock: trio.abc.Clock) -> None:
    async with serving(Script.of(Say("a", ms=200))) as server, dialled(server) as client:
        with server.failing(Fail(), Fail("x")):
            for _ in range(3):
                await client.send("response.create")
                await trio.sleep(1)
        statuses = [event["response"]["status"] for event in client.of("response.done")]
        assert statuses == ["failed", "failed", "completed"]


def test_every_fault_has_words() -> None:
    methods = [
        method for name, method in vars(FaultSwitches).items() if not name.startswith("_") and callable(method)
    ]
    assert all(method.__doc__ for method in methods)


# On a real network


async def test_a_foreign_client_on_a_real_port(capsys: pytest.CaptureFixture[str]) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(run, "127.0.0.1", 0, Script.of(Say("Hello there", ms=400, pace=AT_ONCE)), "demo")
        line = ""
        with trio.fail_after(5):
            while "ready" not in line:
                await trio.sleep(0.01)
                line += capsys.readouterr().out
            url = line.split()[-1]
            headers = [(b"Authorization", b"Bearer demo")]
            async with trio_websocket.open_websocket_url(url, extra_headers=headers) as websocket:
                created = json.loads(await websocket.get_message())
                assert created["type"] == "session.created"
                await websocket.send_message('{"type":"response.create"}')
                kinds = []
                while "response.done" not in kinds:
                    event = json.loads(await websocket.get_message())
                    check_server(event)
                    kinds.append(event["type"])
        assert kinds == ANSWER[:-1]
        nursery.cancel_scope.cancel()
