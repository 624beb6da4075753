"""An agent with Python tool files and an HTTP tool hook on the real Asterisk: all answers reach model and caller."""

from __future__ import annotations

import json

import pytest
from example_agents import EXAMPLES, ORDERS_SECRET, Repeats, running

from asterisk.line import line
from simulators.model_script import Call

pytestmark = pytest.mark.asterisk

SETTINGS = """
[agents.default]
tools = ["{examples}/weather/weather.py", "{examples}/opensips/functions.py"]
[agents.default.tool_hook]
url = "http://127.0.0.1:{port}/tools"
secret = "{secret}"
[[agents.default.tool_hook.tools]]
name = "order_status"
parameters = {{ type = "object", properties = {{ number = {{ type = "string" }} }} }}
"""


async def test_a_file_and_a_hook_answer_in_a_call() -> None:
    brain = Repeats(
        Call("get_weather", {"lat": 60, "lng": 10.7, "location": "Oslo"}),
        Call("order_status", {"number": "4711"}),
        Call("who_is_calling"),
    )
    with running(EXAMPLES / "orders" / "service.py") as port:
        settings = SETTINGS.format(examples=EXAMPLES, port=port, secret=ORDERS_SECRET)
        async with line(brain, settings=settings) as it:
            caller = await it.test_caller(TEST_PLAY="silence/10")
            await it.hears_of("agent_said", 3)
            await it.hang_up(caller)
            await it.ended()
            sent = [event["item"] for event in it.model.received_events("conversation.item.create")]
            outputs = [item["output"] for item in sent if item["type"] == "function_call_output"]
            assert outputs == [told.facts["text"] for told in it.told("agent_said")]
            weather, order, who = map(json.loads, outputs)
            assert weather == {"location": "Oslo", "temperature_2m": 0.0, "wind_speed_10m": 11.5}
            assert order == {"number": "4711", "state": "on its way, arrives tomorrow"}
            assert who["called"]
            assert [told.facts["heard_ms"] for told in it.told("agent_said")] == [200, 200, 200]
            waits_s = [
                it.received_at("conversation.item.create", n + 1) - called.at_s
                for n, called in enumerate(it.told("tool_called"))
            ]
            print("a file, a hook, a functions file answered within", [f"{it * 1000:.0f} ms" for it in waits_s])
            assert len(waits_s) == 3
            assert max(waits_s) < 2
