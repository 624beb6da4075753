"""Every event that the bridge can build, and every event that the simulator can emit, passes the official types.

Two guards keep that true: each function of `bridge/` that names a client event needs a case in `BUILT`, and each event
of the SDK's server table is either emitted by `everything` or listed in `NEVER` with its reason.
"""

from __future__ import annotations

import ast
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import trio
from model_client import Client, dialled, serving
from sdk_types import CLIENT, SERVER, check_client

from bridge import call_tools, realtime
from bridge.agent import Agent, TurnDetection
from bridge.audio import PcmFormat
from bridge.config import Limits
from bridge.conversation import Conversation
from bridge.destinations import Destination
from bridge.dialogue import Command, SendEvent
from bridge.gateway_messages import Form
from bridge.gateway_session import GatewaySession
from bridge.history import ToolUse, message_item, output_item
from bridge.live_call import LiveCall
from bridge.playout import PlayoutQueue
from bridge.tools import ToolRegistry
from simulators.model_script import Call, Fail, Incomplete, McpCall, Part, Say, Script, tone
from simulators.realtime_faults import DropPoint
from simulators.realtime_server import REFUSALS

ROOT = Path(__file__).parent.parent
AGENT = Agent(transfers={"sales": Destination(to="600@phones", description="who sells")})
AGENTS = {
    "plain": Agent(),
    "all tools": AGENT,
    "semantic": Agent(turn_detection=TurnDetection(type="semantic_vad", eagerness="low")),
    "noisy": Agent(noise_reduction="far_field", max_output_tokens=500, speed=1.5),
    "deaf": Agent(transcription_model=""),
    "german": Agent(transcription_language="de"),
}


def from_application(*acts: Callable[[LiveCall], None]) -> list[bytes]:
    """What the model is sent when an application does these things in a running call."""
    sent: list[bytes] = []

    def apply(commands: list[Command]) -> None:
        sent.extend(it.payload for it in commands if isinstance(it, SendEvent))

    for act in acts:
        conversation = Conversation(Agent(greeting=""), PlayoutQueue(PcmFormat(16000), 1000), Limits())
        conversation.connected(0.0, None)
        conversation.media_ready(0.0)
        call = LiveCall(
            call_id="c",
            agent_name="a",
            agent=AGENT,
            caller="",
            called="",
            conversation=conversation,
            apply=apply,
            clock=lambda: 0.0,
        )
        act(call)
    return sent


def from_client(*texts: str) -> list[bytes]:
    """What the model is sent when a websocket client of the gateway sends these messages."""

    def act(call: LiveCall) -> None:
        session = GatewaySession(
            lambda message: None,
            form=Form.DOCUMENTED,
            agent=AGENT,
            tools=ToolRegistry(),
            own=(),
            model="m",
            models=(),
            any_voice=False,
        )
        session.begins(call)
        session.ready(0)
        for text in texts:
            session.heard(text.encode())

    return from_application(act)


# "module.function": what it builds, in every shape that it has. A function that only passes on what another one builds
# needs no case.
BUILT: Mapping[str, Callable[[], list[bytes]]] = {
    "realtime.session_update": lambda: [
        realtime.session_update(agent, call_tools.declarations(agent)) for agent in AGENTS.values()
    ],
    "realtime.append_audio": lambda: [realtime.append_audio(bytes(ms * 48)) for ms in (1, 20, 100)],
    "realtime.create_response": lambda: [
        realtime.create_response(),
        realtime.create_response({"instructions": "Greet."}),
    ],
    "realtime.cancel_response": lambda: [realtime.cancel_response("resp_1")],
    "realtime.truncate_item": lambda: [realtime.truncate_item("item_1", 0, 640)],
    "realtime.delete_item": lambda: [realtime.delete_item("item_1")],
    "realtime.create_item": lambda: [
        *[realtime.create_item(output_item("call_1", text)) for text in ("", "7", '{"a":1}')],
        *[realtime.create_item(message_item(role, "Hello.", "bridge-1"), "root") for role in ("user", "assistant")],
        realtime.create_item(ToolUse("call_1", "weather", "{}").call_item()),
    ],
    "realtime.update_session": lambda: [realtime.update_session({"audio": {"output": {"speed": 1.1}}})],
    "live_call.ask": lambda: from_application(lambda call: call.ask("What time is it?")),
    "live_call.say": lambda: from_application(lambda call: call.say("Please hold the line.")),
    "live_call.write": lambda: from_application(
        lambda call: call.write("The caller is a customer."), lambda call: call.write("Hello?", role="user")
    ),
    "live_call.update_session": lambda: from_application(
        lambda call: call.update_session({"audio": {"output": {"speed": 1.2}}}),
        lambda call: call.update_session({"max_response_output_tokens": 400, "tools": []}),
    ),
    "gateway_session._obey": lambda: from_client(
        '{"type": "create_response"}',
        '{"type": "create_response", "response": {"instructions": "Greet."}}',
        '{"type": "cancel_response"}',
        '{"type": "clear_audio"}',
    ),
    "realtime.commit_audio": lambda: [realtime.commit_audio()],
    "realtime.clear_audio": lambda: [realtime.clear_audio()],
}

# Events of the SDK's table that the simulator does not emit, and why it would be wrong to.
NEVER = {
    "input_audio_buffer.dtmf_event_received": "SIP only",
    "output_audio_buffer.started": "WebRTC and SIP only",
    "output_audio_buffer.stopped": "WebRTC and SIP only",
    "output_audio_buffer.cleared": "WebRTC and SIP only",
}


def builders() -> set[str]:
    """Every function or method in `bridge/` that names a client event's type, or a struct tagged with one."""
    found: set[str] = set()
    for path in sorted((ROOT / "bridge").glob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        tagged = {
            node.name
            for node in ast.walk(tree)
            if isinstance(node, ast.ClassDef)
            and any(isinstance(word.value, ast.Constant) and word.value.value in CLIENT for word in node.keywords)
        }
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and _names_one(node, tagged):
                found.add(f"{path.stem}.{node.name}")
    return found


def _names_one(function: ast.AST, tagged: set[str]) -> bool:
    """A dictionary with `"type": <client event>`, or a call of a tagged struct."""
    for node in ast.walk(function):
        if isinstance(node, ast.Dict):
            pairs = zip(node.keys, node.values, strict=True)
            for key, value in pairs:
                kind = value.value if isinstance(value, ast.Constant) else None
                if isinstance(key, ast.Constant) and key.value == "type" and kind in CLIENT:
                    return True
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in tagged:
            return True
    return False


def test_every_builder_of_client_events_has_a_case() -> None:
    assert builders() == set(BUILT), "add a case to BUILT for each new builder, take out those that are gone"


@pytest.mark.parametrize("name", BUILT)
def test_what_the_bridge_builds_passes_the_official_types(name: str) -> None:
    built = BUILT[name]()
    assert built
    for payload in built:
        check_client(json.loads(payload))


# What the simulator emits ----------------------------------------------------------------------------------------


async def talk(client: Client, ms: int = 600) -> None:
    await client.speak(bytes(24000) + tone(300, ms) + bytes(24000))


async def conversation(emitted: set[str]) -> None:
    """Turns, calls, text, interruption, every way that a response ends, all client events."""
    script = Script.of(
        [Say("one two three", ms=1000), Call("look_up", {"a": 1}), Call("broken", "{")],
        Say("text", written=True),
        Fail.rate_limited(1.0),
        [Say("cut", ms=200), Incomplete()],
        [Say("filtered", ms=200), Incomplete("content_filter")],
        [],
        Say("a long one that is interrupted", ms=9000),
        Say("apart", ms=100),
        transcripts=["hello there", None, ""],
    )
    async with serving(script) as server, dialled(server) as client:
        detection: dict[str, Any] = {"type": "server_vad", "create_response": False}
        for model in ("gpt-4o-transcribe-diarize", "gpt-transcribe"):
            transcription = {"model": model}
            await client.configure(audio={"input": {"turn_detection": detection, "transcription": transcription}})
            await talk(client)
        await talk(client)
        for _ in range(6):
            await client.send("response.create")
            await trio.sleep(2)
        item = {"type": "function_call_output", "call_id": server.session.items[-1].id, "output": "7"}
        await client.send("conversation.item.create", item=item)  # refused: no such call
        spoken = next(it for it in server.session.items if it.role == "assistant" and it.pcm)
        await client.send("conversation.item.retrieve", item_id=spoken.id)
        place = {"item_id": spoken.id, "content_index": 0}
        await client.send("conversation.item.truncate", audio_end_ms=9999, **place)
        await client.send("conversation.item.delete", item_id=spoken.id)
        await client.send("input_audio_buffer.clear")
        await client.send("response.create")
        await trio.sleep(0.5)
        await client.send("response.create")  # refused
        server.session.speech_started()
        await client.send("input_audio_buffer.commit")
        await client.send("response.create", response={"conversation": "none", "metadata": {"a": "b"}})
        await trio.sleep(2)
        emitted |= set(client.types)


async def manners(emitted: set[str]) -> None:
    """The switches that keep to the types: other names, extras, the opening, idle rounds, the end."""
    answers = [Say("x", ms=300) for _ in range(4)]
    async with serving(Script.of(*answers)) as server:
        with server.faulty(conversation_created=True, official_extras=True, items_created=True), server.expiring(60):
            async with dialled(server) as client:
                idle = {"type": "server_vad", "idle_timeout_ms": 5000}
                await client.configure(audio={"input": {"turn_detection": idle}})
                await client.send("response.create")
                await client.speak(bytes(48 * 12000))
                assert len(client.of("input_audio_buffer.timeout_triggered")) == 2
                await client.websocket.wait_closed()
                emitted |= set(client.types)
        with server.dropping(DropPoint.MID_REPLY, code=1011):
            async with dialled(server) as client:
                await client.send("response.create")
                await client.websocket.wait_closed()
        for code in REFUSALS:
            with server.refusing(code):
                async with dialled(server) as client:
                    await client.websocket.wait_closed()
                    assert client.types == ["error"]


async def server_tools(emitted: set[str]) -> None:
    """Tools of MCP servers: listed or not, with approval and without, done or failed."""
    error = {"type": "tool_execution_error", "message": "no stock"}
    answers: list[Part | Sequence[Part]] = [
        McpCall("shop", "search"),
        [McpCall("shop", "search", error=error, approval=False), Say("no", ms=100)],
    ]
    async with serving(Script.of(*answers)) as server, dialled(server) as client:
        tools = [{"type": "mcp", "server_label": name, "server_url": "https://x.test"} for name in ("shop", "gone")]
        with server.faulty(mcp_unreachable={"gone"}):
            await client.configure(tools=tools)
            await trio.sleep(2)
            for _ in answers:
                await client.send("response.create")
                await trio.sleep(2)
                for item in [it for it in server.session.items if it.type == "mcp_approval_request"]:
                    yes = {"type": "mcp_approval_response", "approval_request_id": item.id, "approve": True}
                    await client.send("conversation.item.create", item=yes)
                    await trio.sleep(2)
        emitted |= set(client.types)


async def test_every_event_that_the_simulator_emits_passes_the_official_types(
    autojump_clock: trio.abc.Clock,
) -> None:
    """`serving` checks each of them; here it is made sure that none is missing."""
    emitted: set[str] = set()
    await conversation(emitted)
    await manners(emitted)
    await server_tools(emitted)
    assert emitted == set(SERVER) - set(NEVER)
