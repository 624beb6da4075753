"""The official SDK's Realtime client, a foreign peer, holds a conversation with the simulator: real sockets, real time.

What `sdk_types` can not show: that the simulator's handshake, order of events and answers are enough for a client that was
written against the real server. The SDK's client runs in a thread (`websockets.sync`).
"""

from __future__ import annotations

import base64
import json
from typing import Any

import openai
import pytest
import trio
from openai.resources.realtime.realtime import RealtimeConnection
from openai.types.realtime import ConversationItemParam, RealtimeServerEvent, RealtimeSessionCreateRequestParam
from sdk_types import check_server

from simulators.model_script import Call, Pace, Say, Script, tone
from simulators.realtime_server import RealtimeServer

FAST = Pace(speed=100.0, first_ms=0)
SPEECH = tone(300, 400)
SETTINGS: RealtimeSessionCreateRequestParam = {
    "type": "realtime",
    "instructions": "Answer in one sentence.",
    "output_modalities": ["text"],
    "audio": {"input": {"turn_detection": None, "transcription": {"model": "gpt-transcribe"}}},
    "tools": [
        {
            "type": "function",
            "name": "get_weather",
            "description": "The weather in a city.",
            "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
        }
    ],
}


def until(connection: RealtimeConnection, kind: str) -> list[RealtimeServerEvent]:
    """What the server says up to the first event of this type."""
    events: list[RealtimeServerEvent] = []
    while not events or events[-1].type != kind:
        event = connection.recv()
        assert event.type != "error", event
        events.append(event)
    return events


def joined(events: list[RealtimeServerEvent], kind: str) -> str:
    return "".join(str(getattr(event, "delta", "")) for event in events if event.type == kind)


def user_says(connection: RealtimeConnection, text: str) -> None:
    item: ConversationItemParam = {
        "type": "message",
        "role": "user",
        "content": [{"type": "input_text", "text": text}],
    }
    connection.conversation.item.create(item=item)
    connection.response.create()


def converse(port: int) -> dict[str, Any]:
    """The whole conversation as the SDK sees it, in a thread."""
    seen: dict[str, Any] = {}
    client = openai.OpenAI(api_key="sk-any", base_url=f"http://127.0.0.1:{port}/v1")
    with client.realtime.connect(model="gpt-realtime-2.1") as connection:
        until(connection, "session.created")
        connection.session.update(session=SETTINGS)
        seen["updated"] = until(connection, "session.updated")[-1]

        user_says(connection, "Hello!")
        seen["text"] = joined(until(connection, "response.done"), "response.output_text.delta")

        user_says(connection, "What is the weather in Oslo?")
        done = until(connection, "response.done")[-1]
        assert done.type == "response.done"
        (call,) = done.response.output or []
        assert call.type == "function_call"
        seen["arguments"] = json.loads(call.arguments)
        output: ConversationItemParam = {
            "type": "function_call_output",
            "call_id": call.call_id or "",
            "output": '{"celsius": 3}',
        }
        connection.conversation.item.create(item=output)
        connection.response.create()
        seen["after the tool"] = joined(until(connection, "response.done"), "response.output_text.delta")

        connection.session.update(session={"type": "realtime", "output_modalities": ["audio"]})
        until(connection, "session.updated")
        for at in range(0, len(SPEECH), 9600):
            connection.input_audio_buffer.append(audio=base64.b64encode(SPEECH[at : at + 9600]).decode())
        connection.input_audio_buffer.commit()
        until(connection, "input_audio_buffer.committed")
        connection.response.create()
        answer = until(connection, "response.done")
        deltas = [event.delta for event in answer if event.type == "response.output_audio.delta"]
        seen["audio"] = b"".join(base64.b64decode(delta) for delta in deltas)
        seen["words"] = joined(answer, "response.output_audio_transcript.delta")
        seen["heard"] = until(connection, "conversation.item.input_audio_transcription.completed")[-1]
    return seen


# The SDK 3.52 opens websockets 17.4's connection in a way that is to go.
pytestmark = pytest.mark.filterwarnings("ignore:connect.. must be used as a context manager:DeprecationWarning")


async def test_the_official_client_converses_with_the_simulator() -> None:
    spoken = tone(500, 600)
    script = Script.of(
        Say("Good day."),
        Call("get_weather", {"city": "Oslo"}, first_ms=0),
        Say("It is three degrees."),
        Say("I heard you.", pcm=spoken, pace=FAST),
        transcripts=["What time is it?"],
    )
    server = RealtimeServer(script, observe=check_server)
    with trio.fail_after(20):  # a bound for a busy machine: it takes about a second
        async with trio.open_nursery() as nursery:
            port = await server.listen_on_tcp(nursery)
            seen = await trio.to_thread.run_sync(converse, port)
            await server.until(lambda: server.open_connections == 0)
            nursery.cancel_scope.cancel()
    assert not server.problems
    assert script.missed == 0
    assert seen["updated"].session.instructions == "Answer in one sentence."
    assert seen["updated"].session.tools[0].name == "get_weather"
    assert (seen["text"], seen["arguments"], seen["after the tool"]) == (
        "Good day.",
        {"city": "Oslo"},
        "It is three degrees.",
    )
    assert seen["audio"] == spoken
    assert (seen["words"], seen["heard"].transcript) == ("I heard you.", "What time is it?")
    (turn,) = [item for item in server.session.items if item.role == "user" and item.pcm]
    assert turn.pcm == SPEECH


async def test_the_official_client_learns_that_its_key_is_wrong() -> None:
    server = RealtimeServer(key="another")

    def refused(port: int) -> object:
        client = openai.OpenAI(api_key="sk-wrong", base_url=f"http://127.0.0.1:{port}/v1")
        with client.realtime.connect(model="gpt-realtime-2.1") as connection:
            return connection.recv()

    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            port = await server.listen_on_tcp(nursery)
            event = await trio.to_thread.run_sync(refused, port)
            nursery.cancel_scope.cancel()
    assert getattr(event, "type", "") == "error"
    assert "Incorrect API key provided" in str(event)
