"""The registry: whatever a tool does, the model gets one text, and the session goes on.

Tests with a plain function have no `autojump_clock`: it jumps while a worker thread runs, as it can not see it.
"""

from __future__ import annotations

import datetime
import json
import sys
import threading
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Any

import pytest
import trio
from sdk_types import CLIENT, check
from trio.testing import MockClock

from bridge import realtime
from bridge.agent import Agent
from bridge.errors import ConfigError
from bridge.tools import MAX_OUTPUT_CHARS, MAX_THREADS, Tool, ToolContext, ToolRegistry
from simulators.model_script import Call, Say, Script
from simulators.realtime_faults import Faults
from simulators.realtime_session import RealtimeSession


async def weather(city: str, days: int = 1) -> dict[str, object]:
    """The weather in a city."""
    await trio.lowlevel.checkpoint()
    return {"city": city, "days": days}


def run(tool: Tool | Callable[..., object], arguments: str = "{}", **more: Any) -> Awaitable[str]:
    """One call of the only tool of a registry."""
    registry = ToolRegistry([tool])
    return registry.run(registry.declarations()[0]["name"], arguments, timeout_s=2, **more)


async def test_an_async_function_gets_its_arguments_by_name(autojump_clock: MockClock) -> None:
    assert json.loads(await run(weather, '{"city": "Oslo", "days": "3"}')) == {"city": "Oslo", "days": 3}
    assert json.loads(await run(weather, '{"city": "Oslo"}')) == {"city": "Oslo", "days": 1}


async def test_null_is_no_arguments() -> None:
    assert await run(gives("x"), "null") == "x"


async def test_a_plain_function_runs_in_a_thread() -> None:
    def where() -> str:
        return threading.current_thread().name

    assert await run(where) != threading.current_thread().name


async def test_a_plain_function_that_hands_out_a_coroutine_is_awaited() -> None:
    def late(city: str) -> Awaitable[object]:
        return weather(city)

    assert json.loads(await run(late, '{"city": "Oslo"}'))["city"] == "Oslo"


async def test_an_object_with_an_async_call_runs_in_the_calls_task(autojump_clock: MockClock) -> None:
    class Desk:
        async def __call__(self, day: str) -> str:
            await trio.sleep(1)
            return f"{day} in {threading.current_thread().name}"

    assert (
        await run(Tool.of(Desk(), name="desk"), '{"day": "monday"}') == f"monday in {threading.current_thread().name}"
    )


async def test_a_tool_with_its_own_schema_gets_the_mapping() -> None:
    async def handler(arguments: Mapping[str, Any]) -> object:
        return dict(arguments)

    assert await run(Tool("any", "", handler), '{"x":[1]}') == '{"x":[1]}'
    assert await run(Tool("any", "", lambda it: it["x"]), '{"x":1}') == "1"


async def test_a_function_learns_of_its_call(autojump_clock: MockClock) -> None:
    async def who(context: ToolContext) -> str:
        return f"{context.caller} -> {context.called} ({context.agent})"

    context = ToolContext(call_id="1", agent="sales", caller="0301", called="100")
    assert await run(who, context=context) == "0301 -> 100 (sales)"
    assert await run(who) == " ->  ()"


def gives(value: object) -> Callable[[], object]:
    def give() -> object:
        return value

    return give


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("as it is", "as it is"),
        ("", ""),
        (None, "null"),
        ({"a": [1, True]}, '{"a":[1,true]}'),
        (datetime.date(2026, 11, 21), '"2026-11-21"'),
        (ValueError("odd"), '"odd"'),
        ("\ud800", "?"),
    ],
)
async def test_results_become_text(value: object, text: str) -> None:
    assert await run(gives(value)) == text


async def test_a_function_without_a_result_says_done() -> None:
    def note(words: str) -> None: ...

    assert await run(note, '{"words": "x"}') == "done"


async def test_a_huge_result_is_cut_with_a_note() -> None:
    text = await run(gives(["x" * 10_000_000]))
    assert MAX_OUTPUT_CHARS < len(text) < MAX_OUTPUT_CHARS + 100
    assert text.endswith(f"[cut: 10000004 characters, of which these are the first {MAX_OUTPUT_CHARS}]")


def broken() -> str:
    raise LookupError("no such order")


def leaving() -> str:
    sys.exit(3)


async def failing() -> None:
    broken()


async def grouped() -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(failing)


async def own_limit() -> None:
    with trio.fail_after(0.5):
        await trio.sleep_forever()


async def slow() -> None:
    await trio.sleep_forever()


class Endless(list[object]):
    """Contains itself."""

    def __init__(self) -> None:
        super().__init__([self])


@pytest.mark.parametrize(
    ("tool", "arguments", "says"),
    [
        (weather, "{broken", "Error: the arguments are not valid JSON"),
        (weather, "[" * 100_000, "Error: the arguments are not valid JSON"),
        (weather, "[]", "Error: the arguments must be a JSON object"),
        (weather, "", "Error: 'city' is missing. Parameters: city, days"),
        (weather, '{"city":"Oslo","days":"soon"}', "Error: days: expected `int`, got `str`. Parameters: city, days"),
        (grouped, "{}", "Error: grouped failed: LookupError: no such order"),
        (own_limit, "{}", "Error: own_limit failed: TooSlowError"),
        (slow, "{}", "Error: slow did not answer within 2 s"),
        (Tool("asked"), "{}", "Error: nobody answers the tool 'asked' here"),
    ],
)
async def test_whatever_goes_wrong_is_one_text(
    autojump_clock: MockClock, tool: Tool | Callable[..., object], arguments: str, says: str
) -> None:
    assert (await run(tool, arguments)).startswith(says)


@pytest.mark.parametrize(
    ("tool", "says"),
    [
        (broken, "Error: broken failed: LookupError: no such order"),
        (leaving, "Error: leaving failed: SystemExit: 3"),
        (gives(Endless()), "Error: give failed: RecursionError"),
    ],
)
async def test_whatever_goes_wrong_in_a_thread_is_one_text(tool: Callable[..., object], says: str) -> None:
    assert (await run(tool)).startswith(says)


async def test_an_unknown_tool_is_told_what_there_is() -> None:
    assert await ToolRegistry([weather]).run("wether", "{}", timeout_s=1) == (
        "Error: there is no tool named 'wether'. Known: weather"
    )


async def test_a_plain_function_that_hangs_holds_nobody_up() -> None:
    """Real threads and the real clock, so the limit is short."""
    free = threading.Event()

    def hang() -> None:
        free.wait()

    registry = ToolRegistry([hang, gives("quick")])
    try:
        async with trio.open_nursery() as nursery:
            for _ in range(MAX_THREADS):
                nursery.start_soon(partial(registry.run, "hang", "{}", timeout_s=0.01))
        # Every thread is still taken: the next one waits for a free one, and not for ever.
        assert await registry.run("give", "{}", timeout_s=0.01) == "Error: give did not answer within 0.01 s"
    finally:
        free.set()
    assert await registry.run("give", "{}", timeout_s=5) == "quick"


async def test_cancellation_is_not_the_models_business(autojump_clock: MockClock) -> None:
    with trio.move_on_after(0.5) as scope:
        await run(slow)
    assert scope.cancelled_caught


def test_declarations_are_what_the_server_takes() -> None:
    registry = ToolRegistry([weather, Tool("asked", "Answered by the application.")])
    event = json.loads(realtime.session_update(Agent(), registry.declarations()))
    check(event, CLIENT)
    assert [tool["name"] for tool in event["session"]["tools"]] == ["weather", "asked"]


def play(session: RealtimeSession, until: float) -> None:
    """Let the fake server do what is due."""
    while (due := session.next_due) is not None and due <= until:
        session.advance(due)


async def test_every_call_of_one_response_gets_its_output_and_then_the_model_speaks(
    autojump_clock: MockClock,
) -> None:
    """Section 3.7 without sockets: what the fake server says is run and answered."""
    calls = [
        Call("weather", {"city": "Oslo"}),
        Call("weather", {"town": "Rome"}),
        Call("wether"),
        Call("weather", "{"),
    ]
    session = RealtimeSession(Script.of(calls, Say("It is clear.", ms=100)), Faults(), model="gpt-realtime-2.1")
    registry = ToolRegistry([weather])
    session.start(0)
    session.receive(realtime.session_update(Agent(), registry.declarations()), 0)
    session.receive('{"type": "response.create"}', 0)
    play(session, 10)
    for wire in session.take():
        event = realtime.parse_server_event(json.dumps(wire))
        if isinstance(event, realtime.OutputItemDone):
            output = await registry.run(event.item.name or "", event.item.arguments_json, timeout_s=2)
            item = {"type": "function_call_output", "call_id": event.item.call_id, "output": output}
            check({"type": "conversation.item.create", "item": item}, CLIENT)
            session.receive(json.dumps({"type": "conversation.item.create", "item": item}), 10)
    session.receive('{"type": "response.create"}', 10)
    play(session, 20)
    outputs = [item.text for item in session.items if item.type == "function_call_output"]
    assert outputs == [
        '{"city":"Oslo","days":1}',
        "Error: there is no parameter 'town'; 'city' is missing. Parameters: city, days",
        "Error: there is no tool named 'wether'. Known: weather",
        "Error: the arguments are not valid JSON: Input data was truncated",
    ]
    assert session.items[-1].text == "It is clear."


def test_decorators_add_and_give_the_function_back() -> None:
    registry = ToolRegistry()

    @registry.add
    def one() -> None: ...

    @registry.tool(name="second", description="The second.")
    def two() -> None: ...

    assert callable(one)
    assert callable(two)
    assert [(it["name"], it["description"]) for it in registry.declarations()] == [
        ("one", ""),
        ("second", "The second."),
    ]


def test_a_later_tool_replaces_and_a_removed_one_is_gone() -> None:
    registry = ToolRegistry([Tool("a", "first"), Tool("b"), Tool("a", "second")])
    assert [(it["name"], it["description"]) for it in registry.declarations()] == [("b", ""), ("a", "second")]
    registry.remove("a")
    assert "a" not in registry
    assert len(registry) == 1
    with pytest.raises(ConfigError, match="none to remove; known: b"):
        registry.remove("a")


def test_manual_tools_are_those_without_handler() -> None:
    registry = ToolRegistry([Tool("asked"), weather])
    assert [registry.is_manual(name) for name in ("asked", "weather", "unknown")] == [True, False, False]


@pytest.mark.parametrize("name", ["", "two words", "x" * 65, "wetter-in-köln", "a.b", "name\n"])
def test_names_that_the_server_refuses_are_refused_here(name: str) -> None:
    with pytest.raises(ConfigError, match="1 to 64 of the characters"):
        Tool(name)


@pytest.mark.parametrize("name", ["hang_up", "transfer_call"])
def test_the_bridges_own_tools_can_not_be_replaced(name: str) -> None:
    with pytest.raises(ConfigError, match="the bridge has a tool of this name"):
        ToolRegistry([Tool(name)])


def test_parameters_must_be_an_object() -> None:
    with pytest.raises(ConfigError, match='"type": "object"'):
        Tool("x", parameters={"type": "string"})


@pytest.mark.parametrize("blocking", [True, False])
async def test_the_traceback_of_a_tool_begins_in_the_tool(blocking: bool, caplog: pytest.LogCaptureFixture) -> None:
    def own() -> None:
        raise LookupError("no such order")

    async def waiting() -> None:
        own()

    await ToolRegistry([own if blocking else waiting]).run("own" if blocking else "waiting", "{}", timeout_s=5)
    told = caplog.records[-1].__dict__["traceback"]
    assert told.count("  File ") == (1 if blocking else 2)
    assert "LookupError: no such order" in told
    assert "bridge/tools.py" not in told
