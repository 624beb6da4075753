"""An application in a running call: what it hears, what it does, and that it can harm nobody."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import trio
from house import House, house
from trio.testing import MockClock

from bridge.call_events import CallEvent
from bridge.dialogue import AskApproval
from bridge.errors import ConfigError
from bridge.live_call import Approval, LiveCall
from bridge.tools import Tool, ToolContext, ToolRegistry
from simulators.ari_channels import HUNG_UP, Place
from simulators.model_script import Call, McpCall, Say, Script

MCP = """
[[agents.default.mcp]]
server_label = "crm"
server_url = "https://crm.test/mcp"
require_approval = "always"
approve = "ask"
"""


class Application:
    """Keeps the call, and hands it to the test."""

    def __init__(self) -> None:
        self.came = trio.Event()
        self.call: LiveCall
        self.heard: list[CallEvent] = []

    async def attend(self, call: LiveCall) -> None:
        self.call = call
        stream = call.events()
        self.came.set()
        async for event in stream:
            self.heard.append(event)

    def types(self, source: str) -> list[str]:
        return [event.type for event in self.heard if event.source == source]


async def spoken(it: House, app: Application) -> Any:
    channel, _ = await it.stasis_call()
    await app.came.wait()
    await it.hears_of("agent_said")
    return channel


async def test_it_hears_both_directions_and_the_bridges_own_events(autojump_clock: MockClock) -> None:
    app = Application()
    async with house(Script.of(Say("Hello!", ms=300)), on_call=app.attend) as it:
        channel = await spoken(it, app)
        channel.hang_up()
        await it.ended()
    assert "response.create" in app.types("client")
    assert "response.done" in app.types("server")
    assert "transcript.final" in app.types("call")
    assert not {"response.output_audio.delta", "input_audio_buffer.append"} & {event.type for event in app.heard}


async def test_it_takes_part_in_the_conversation(autojump_clock: MockClock) -> None:
    app = Application()
    script = Script.of(Say("Hello!", ms=300), Say("It is ten.", ms=300), Say("Hold on.", ms=300))
    async with house(script, on_call=app.attend) as it:
        channel = await spoken(it, app)
        app.call.write("The caller is a customer since 1999.")
        app.call.ask("What time is it?")
        await it.hears_of("agent_said", 2)
        texts = [
            item.wire["content"][0].get("text") for item in it.model.session.items if item.wire["role"] != "assistant"
        ]
        assert texts == ["The caller is a customer since 1999.", "What time is it?"]
        app.call.say("Please hold on.")
        assert "Please hold on." in (await it.model.wait_for("response.create", 3))["response"]["instructions"]
        await it.hears_of("agent_said", 3)
        channel.hang_up()
        await it.ended()


async def test_a_partial_update_loses_neither_tools_nor_anything_else_and_outlives_the_session(
    autojump_clock: MockClock,
) -> None:
    app = Application()
    settings = 'agents.default.transfers.sales = {to = "600@phones"}'
    async with house(Script.of(Say("Hello!", ms=300)), on_call=app.attend, settings=settings) as it:
        channel = await spoken(it, app)
        before = dict(it.model.session.config)
        app.call.update_session({"max_output_tokens": 300})
        await it.model.wait_sent("session.updated", 2)
        assert it.model.session.config["tools"] == before["tools"]
        app.call.update_session({"tools": [{"type": "function", "name": "later", "parameters": {"type": "object"}}]})
        await it.model.wait_sent("session.updated", 3)
        names = [tool["name"] for tool in it.model.session.config["tools"]]
        assert names == ["hang_up", "transfer_call", "later"]
        await it.model.session.drop()
        await it.hears_of("session_resumed")
        config = it.model.session.config
        assert [tool["name"] for tool in config["tools"]] == names
        assert config["max_output_tokens"] == 300
        channel.hang_up()
        await it.ended()


async def test_a_change_while_a_session_is_being_opened_reaches_it(autojump_clock: MockClock) -> None:
    app = Application()
    async with house(Script.of(Say("Hello!", ms=300)), on_call=app.attend) as it:
        channel = await spoken(it, app)
        it.model_up = False
        await it.model.session.drop()
        await it.hears_of("session_lost")
        await trio.sleep(0.5)
        app.call.update_session({"max_output_tokens": 300})
        it.model_up = True
        await it.hears_of("session_resumed")
        await trio.sleep(0.1)
        assert it.model.session.config["max_output_tokens"] == 300
        channel.hang_up()
        await it.ended()


async def test_what_is_written_before_the_first_session_stands_is_told_to_it(autojump_clock: MockClock) -> None:
    async def attend(call: LiveCall) -> None:
        call.write("The caller is Ada.")
        call.update_session({"max_output_tokens": 300})

    async with house(Script.of(Say("Hello!", ms=300)), on_call=attend) as it:
        channel, _ = await it.stasis_call()
        await it.hears_of("agent_said")
        assert it.model.session.items[0].wire["content"][0]["text"] == "The caller is Ada."
        assert it.model.session.config["max_output_tokens"] == 300
        channel.hang_up()
        await it.ended()


async def test_a_manual_tool_is_answered_by_the_application_or_by_the_limit(autojump_clock: MockClock) -> None:
    app = Application()
    script = Script.of(Say("Hello!", ms=300), Call("ask_boss", {"x": 1}), Say("Yes.", ms=300), Call("ask_boss"))
    tools = ToolRegistry([Tool("ask_boss", "Ask somebody")])
    async with house(script, on_call=app.attend, tools=tools) as it:
        channel = await spoken(it, app)
        app.call.ask("May I?")
        await it.hears_of("tool_called")
        await trio.sleep(0.1)
        (call_id,) = app.call.manual_tools
        with pytest.raises(ConfigError, match="no call 'nobody'"):
            app.call.answer_tool("nobody", "x")
        app.call.answer_tool(call_id, "granted")
        await it.hears_of("agent_said", 2)
        app.call.ask("And now?")
        outputs: list[str] = []
        while len(outputs) < 2:
            await trio.sleep(1)
            items = [passed["item"] for passed in it.model.received_events("conversation.item.create")]
            outputs = [item["output"] for item in items if item["type"] == "function_call_output"]
        assert outputs == ["granted", "Error: nobody answered ask_boss within 15 s"]
        channel.hang_up()
        await it.ended()


async def test_a_tool_reaches_its_own_call(autojump_clock: MockClock) -> None:
    seen: list[ToolContext] = []

    async def note(context: ToolContext) -> str:
        """Note who calls."""
        seen.append(context)
        context.call.write("noted")
        return "ok"

    script = Script.of(Call("note"), Say("Done.", ms=300))
    async with house(script, tools=ToolRegistry([note])) as it:
        channel, _ = await it.stasis_call()
        await it.hears_of("agent_said")
        channel.hang_up()
        record = await it.ended()
    assert seen[0].call_id == record["call_id"]
    assert (seen[0].agent, seen[0].caller) == ("default", record["caller"])


@pytest.mark.parametrize("approve", [True, False, None])
async def test_it_decides_about_mcp_tools_that_ask(autojump_clock: MockClock, approve: bool | None) -> None:
    asked: list[AskApproval] = []

    async def decide(request: AskApproval) -> Approval:
        asked.append(request)
        if approve is None:
            raise RuntimeError("no idea")
        return Approval(approve, "as you like")

    app = Application()
    lookup = McpCall("crm", "search", {"name": "Smith"}, output="found")
    async with house(
        Script.of(Say("Hello!", ms=300), lookup, Say("I see.", ms=300)), on_call=app.attend, settings=MCP
    ) as it:
        channel = await spoken(it, app)
        app.call.approve_mcp = decide
        app.call.ask("Who is Smith?")
        await it.hears_of("mcp_approval")
        await trio.sleep(8)
        items = [passed["item"] for passed in it.model.received_events("conversation.item.create")]
        assert [item["approve"] for item in items if item["type"] == "mcp_approval_response"] == [bool(approve)]
        assert (asked[0].server_label, asked[0].name) == ("crm", "search")
        assert len(it.told("mcp_call_done")) == bool(approve)
        channel.hang_up()
        await it.ended()


async def test_it_ends_the_call_after_the_last_word(autojump_clock: MockClock) -> None:
    app = Application()
    async with house(Script.of(Say("Hello there!", ms=2000)), on_call=app.attend) as it:
        channel, _ = await it.stasis_call()
        await it.hears_of("agent_starts")
        app.call.hang_up("enough")
        record = await it.ended()
        assert (record["reason"], record["detail"]) == ("agent_hung_up", "enough")
        assert record["audio_heard_ms"] == 2000
        assert channel.dialplan == HUNG_UP


async def test_what_it_has_said_before_the_end_is_heard_to_its_end(autojump_clock: MockClock) -> None:
    app = Application()
    async with house(Script.of(Say("Hello!", ms=300), Say("Goodbye!", ms=900)), on_call=app.attend) as it:
        channel = await spoken(it, app)
        app.call.say("Goodbye!")
        app.call.hang_up("done")
        record = await it.ended()
        assert (record["reason"], record["audio_heard_ms"]) == ("agent_hung_up", 1200)
        assert channel.dialplan == HUNG_UP


async def test_it_hands_the_caller_over(autojump_clock: MockClock) -> None:
    app = Application()
    settings = 'agents.default.transfers.sales = {to = "600@phones"}'
    async with house(Script.of(Say("Hello!", ms=300)), on_call=app.attend, settings=settings) as it:
        it.ari.dialplan.add(("phones", "600", "1"))
        channel = await spoken(it, app)
        with pytest.raises(ConfigError, match="known: sales"):
            app.call.transfer("mars")
        app.call.transfer("sales")
        assert (await it.ended())["reason"] == "transferred"
        assert channel.dialplan == Place("phones", "600", "1")


async def test_what_it_raises_harms_nobody(autojump_clock: MockClock) -> None:
    async def attend(_call: LiveCall) -> None:
        raise RuntimeError("the application is broken")

    async with house(Script.of(Say("Hello!", ms=300)), on_call=attend) as it:
        channel, _ = await it.stasis_call()
        await it.hears_of("agent_said")
        channel.hang_up()
        assert (await it.ended())["reason"] == "caller_hung_up"


@pytest.mark.parametrize(
    "event",
    [
        {"type": "input_audio_buffer.append", "audio": ""},
        {"no": "type"},
        {"type": "session.update", "session": {"audio": {"output": {"speed": 9}}}},
        {"type": "session.update", "session": {"audio": {"input": {"format": {"type": "audio/pcmu"}}}}},
        {"type": "conversation.item.create"},
    ],
)
async def test_what_would_break_the_call_is_refused(autojump_clock: MockClock, event: Mapping[str, Any]) -> None:
    app = Application()
    async with house(Script.of(Say("Hello!", ms=300)), on_call=app.attend) as it:
        channel = await spoken(it, app)
        with pytest.raises(ConfigError):
            app.call.send(event)
        channel.hang_up()
        assert (await it.ended())["reason"] == "caller_hung_up"


async def test_a_response_apart_is_never_heard(autojump_clock: MockClock) -> None:
    app = Application()
    async with house(Script.of(Say("Hello!", ms=300), Say("Secret.", ms=5000)), on_call=app.attend) as it:
        channel = await spoken(it, app)
        app.call.send({"type": "response.create", "response": {"conversation": "none", "metadata": {"topic": "x"}}})
        await it.model.wait_sent("response.done", 2)
        await trio.sleep(3)
        channel.hang_up()
        record = await it.ended()
        assert record["audio_heard_ms"] == 300
        assert it.model.sent_events("response.created")[-1]["response"]["metadata"]["topic"] == "x"
