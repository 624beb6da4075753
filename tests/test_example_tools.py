"""The agents of `examples/` with tools, on a whole call: each tool is called, has one output, and the agent says it.

Their HTTP services answer in virtual time here, by the functions that they serve; `test_the_services_serve` starts them.
"""

from __future__ import annotations

import importlib.util
import json
import types
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import trio
from example_agents import EXAMPLES, ORDERS_SECRET, Repeats, running
from house import house
from http_peer import Asked, Peer, Says
from trio.testing import MockClock

from bridge.config import load_config
from bridge.hook_tools import hook_tools
from bridge.tool_schema import ToolContext
from bridge.tools import ToolRegistry
from bridge.webhook_client import WebhookClient
from simulators.model_script import Call, Conversation, Part, Say


def settings(name: str) -> str:
    text = (EXAMPLES / name / "bridge.toml").read_text(encoding="utf-8")
    return text.replace("$ORDERS_SECRET", ORDERS_SECRET)


def module(path: Path) -> types.ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded


@pytest.fixture(autouse=True)
def _threads_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """trio's clock would jump while a thread works."""

    async def run_sync(function: Callable[[], object], **_: object) -> object:
        await trio.lowlevel.checkpoint()
        return function()

    monkeypatch.setattr("bridge.tools.trio.to_thread.run_sync", run_sync)


async def outputs(
    name: str, *calls: Call, argument: str = "", choose: Callable[[Asked], Says] | None = None
) -> list[str]:
    """The outputs that a call of this example sends; each is said by the agent, and there is one for each call."""
    service = Peer(choose=choose)
    brain = Repeats(*calls)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(service.run)
        http = service.transport()
        async with house(brain, settings=settings(name), folder=EXAMPLES / name, http=http) as it:
            channel, _ = await it.stasis_call(argument)
            for number in range(1, len(calls) + 1):
                await it.hears_of("agent_said", number)
            channel.hang_up()
            await it.ended()
            assert {call.name for call in calls} <= set(brain.offered)
            sent = [event["item"] for event in it.model.received_events("conversation.item.create")]
            texts = [item["output"] for item in sent if item["type"] == "function_call_output"]
            assert [facts["text"] for facts in it.told("agent_said")] == texts
            assert len({item["call_id"] for item in sent}) == len(texts) == len(calls)
            created = it.model.received_events("response.create")
            assert len(created) == len(calls) + 1, "one for the greeting, and one after each output"
        nursery.cancel_scope.cancel()
    return texts


OSLO = {"lat": 60, "lng": 10.7, "location": "Oslo"}


async def test_the_reference_clients_weather_tool(autojump_clock: MockClock) -> None:
    (told,) = await outputs("weather", Call("get_weather", OSLO))
    assert json.loads(told) == {"location": "Oslo", "temperature_2m": 0.0, "wind_speed_10m": 11.5}


async def test_jambonzs_weather_tool_in_its_own_envelope(autojump_clock: MockClock) -> None:
    hook = module(EXAMPLES / "weather" / "jambonz_hook.py")

    def choose(asked: Asked) -> Says:
        return Says(body=json.dumps(hook.on_tool_call(asked.json)).encode())

    calls = [Call("get_weather", {"location": place, "scale": "fahrenheit"}) for place in ("Chicago", "Atlantis")]
    there, nowhere = await outputs("weather", *calls, argument="jambonz", choose=choose)
    assert json.loads(there) == {"current": {"temperature_2m": 39.2, "unit": "fahrenheit", "sky": "hail"}}
    assert json.loads(nowhere) == {"error": "location_not_found"}


async def test_an_appointment_is_booked_once(autojump_clock: MockClock) -> None:
    monday = "2030-07-01"
    book = Call("book", {"day": monday, "hour": "9", "name": "Ada"})
    free, booked, refused = await outputs("bookings", Call("free_hours", {"day": monday}), book, book)
    assert json.loads(free) == [9, 10, 11, 12, 13, 14, 15, 16]
    assert json.loads(booked) == {"booked": f"{monday} 9:00", "name": "Ada"}
    assert refused.startswith(f"Error: 9 o'clock is not free on {monday}; free are: [10, 11")


async def test_an_order_is_looked_up_by_a_signed_request(autojump_clock: MockClock) -> None:
    service = module(EXAMPLES / "orders" / "service.py")

    def choose(asked: Asked) -> Says:
        status, told = service.answer(
            ORDERS_SECRET, asked.headers, asked.body, int(asked.headers["webhook-timestamp"])
        )
        assert service.answer("another", asked.headers, asked.body, 0)[0] == 401
        return Says(status, json.dumps(told).encode())

    (told,) = await outputs("orders", Call("order_status", {"number": "4711"}), choose=choose)
    assert json.loads(told) == {"number": "4711", "state": "on its way, arrives tomorrow"}


async def test_a_functions_file_of_opensips_answers_the_model(autojump_clock: MockClock) -> None:
    now, who = await outputs("opensips", Call("get_time", {"seconds": False}), Call("who_is_calling"))
    assert len(now) == len("2026-12-31 12:00")
    assert json.loads(who).keys() == {"caller", "called"}


async def test_a_function_of_opensips_ends_the_call(autojump_clock: MockClock) -> None:
    class Goodbye(Repeats):
        def answer(self, conversation: Conversation) -> Sequence[Part]:
            return [Say("Goodbye.", ms=300), Call("end_call")]

    async with house(Goodbye(), settings=settings("opensips"), folder=EXAMPLES / "opensips") as it:
        await it.stasis_call()
        record = await it.ended()
        assert (record["reason"], record["detail"]) == ("agent_hung_up", "a function ended the call")
        assert it.told("agent_said")[0]["heard_ms"] == 300, "the goodbye was heard"


@pytest.mark.parametrize(
    ("name", "agent", "script", "tool", "arguments", "said"),
    [
        ("weather", "jambonz", "jambonz_hook.py", "get_weather", {"location": "Rome", "scale": "celsius"}, "19.0"),
        ("orders", "default", "service.py", "order_status", {"number": "4712"}, "in the oven"),
        ("orders", "default", "service.py", "order_status", {}, "HTTP 400"),
    ],
)
async def test_the_services_serve(
    name: str, agent: str, script: str, tool: str, arguments: Mapping[str, Any], said: str
) -> None:
    """On a real socket, by the settings of the example."""
    with running(EXAMPLES / name / script) as port:
        text = (
            settings(name)
            .replace("127.0.0.1:3002", f"127.0.0.1:{port}")
            .replace("127.0.0.1:3003", f"127.0.0.1:{port}")
        )
        hook = load_config(text, {}).agents[agent].tool_hook
        client = WebhookClient()
        registry = ToolRegistry(hook_tools(hook, client))
        output = await registry.run(
            tool, json.dumps(arguments), timeout_s=10, context=ToolContext(tool_call_id="call_1")
        )
        assert said in output
        await client.aclose()
