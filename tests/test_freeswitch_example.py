"""The configuration of FreeSWITCH's mod_openai_s2s, word for word, sent as it says, by the example of these pages."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import trio
from house import CONTROL_TOKEN, house
from trio.testing import MockClock
from websockets.trio.client import connect

from simulators.ari_channels import Place
from simulators.model_script import Call, Say, Script

HERE = Path(__file__).parents[1] / "examples" / "freeswitch"
SEED_TOOL = "get_weather"


@pytest.fixture
def example() -> ModuleType:
    spec = importlib.util.spec_from_file_location("freeswitch_session", HERE / "session.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


async def test_the_module_s_own_configuration_holds_a_call(autojump_clock: MockClock, example: ModuleType) -> None:
    script = Script.of(
        Say("How can I help you?", ms=500),
        Call(SEED_TOOL, {"location": "Chicago", "scale": "celsius"}),
        Say("It is clear in Chicago.", ms=500),
    )
    async with house(script) as it:
        channel = it.ari.call_elsewhere("ivr")
        ended: list[str] = []

        async def application() -> None:
            headers = {"Authorization": f"Bearer {CONTROL_TOKEN}"}
            async with connect(
                "ws://bridge/events", stream=it.door.connect(), additional_headers=headers, ping_interval=None
            ) as websocket:
                ended.append(await example.Session(websocket).run(channel.id))

        it.nursery.start_soon(application)
        await it.hears_of("agent_said")
        config: dict[str, Any] = it.model.session.config
        assert config["audio"]["input"]["transcription"] == {"model": "whisper-1"}
        detection = config["audio"]["input"]["turn_detection"]
        assert (detection["threshold"], detection["prefix_padding_ms"], detection["silence_duration_ms"]) == (
            0.8,
            300,
            500,
        )
        seed = json.loads((HERE / "session.update.json").read_text())["session"]["tools"]
        assert [tool for tool in config["tools"] if tool["name"] == SEED_TOOL] == seed
        [first] = it.model.received_events("response.create")
        assert first["response"] == {
            "output_modalities": ["audio"],
            "instructions": "Please assist the user with their request.",
            "audio": {"output": {"voice": "alloy"}},
            "max_output_tokens": 4096,
        }
        [call] = (await it.ask("GET", "/calls"))[1]["calls"]
        await it.ask("POST", f"/calls/{call['id']}/ask", {"text": "How is the weather in Chicago?"})
        assert (await it.hears_of("agent_said", 2))["text"] == "It is clear in Chicago."
        await trio.sleep(20)  # longer than a tool may take
        outputs = [item.wire["output"] for item in it.model.session.items if item.type == "function_call_output"]
        assert outputs == ['{"location":"Chicago","sky":"clear","temperature":21}'], "once, and as text"
        assert len(it.model.received_events("response.create")) == 3, "one answer to the output, not two"
        await it.ask("POST", f"/calls/{call['id']}/leave")
        assert (await it.ended())["reason"] == "agent_left"
        await it.until(lambda: bool(ended))
        assert ended == ["agent_left"]
        assert channel.elsewhere == "ivr"
        assert channel.dialplan is None or isinstance(channel.dialplan, Place)


async def test_a_tool_that_nobody_answers_and_one_that_is_answered_by_name(autojump_clock: MockClock) -> None:
    script = Script.of(
        Say("Hello!", ms=300),
        Call("look_up", {}),
        Say("Found.", ms=300),
        Call("look_up", {}),
        Say("Nothing.", ms=300),
        Call("never_heard_of", {}),
        Say("Sorry.", ms=300),
    )
    tool = {"type": "function", "name": "look_up", "parameters": {"type": "object", "properties": {}}}
    async with house(script) as it:
        channel = it.ari.call_elsewhere("ivr")
        _, call = await it.ask("POST", "/calls", {"channel": channel.id, "session": {"tools": [tool]}})
        await it.hears_of("agent_said")

        async def ask(n: int) -> list[str]:
            await it.ask("POST", f"/calls/{call['id']}/ask", {"text": "Look it up."})
            if n == 2:
                await it.hears_of("tool_called")
                await trio.sleep(0.1)
                [waiting] = (await it.ask("GET", f"/calls/{call['id']}"))[1]["tools_waiting"]
                assert (waiting["name"], waiting["arguments"]) == ("look_up", "{}")
                answer = {"tool_call_id": waiting["tool_call_id"], "output": {"found": 7}}
                assert (await it.ask("POST", f"/calls/{call['id']}/answer_tool", answer))[0] == 202
            await it.hears_of("agent_said", n)
            return [item.wire["output"] for item in it.model.session.items if item.type == "function_call_output"]

        assert (await ask(2))[-1] == '{"found":7}'
        assert "nobody answered look_up within 15 s" in (await ask(3))[-1]
        assert "there is no tool named 'never_heard_of'" in (await ask(4))[-1]
        channel.hang_up()
        await it.ended()
