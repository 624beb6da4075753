"""The description of the control door: valid, complete, and true of a running bridge."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

import pytest
import trio
from house import House, house
from openapi_schema_validator import OAS31Validator
from openapi_spec_validator import OpenAPIV31SpecValidator
from trio.testing import MockClock

from bridge import __version__
from bridge.control_commands import IN_CALL
from bridge.control_door import ROUTES
from bridge.control_openapi import ATTACH_EXAMPLE, EXAMPLES, description
from simulators.ari_callees import Callee
from simulators.model_script import Call, Say, Script

SETTINGS = """
agents.default.transfers.reception = { to = "600@phones", description = "a human" }
agents.default.outbound = { numbers = '\\+49\\d+', endpoint = "PJSIP/{number}" }
"""
TOOL = {"type": "function", "name": "look_up", "parameters": {"type": "object", "properties": {}}}
DESCRIBED = description(__version__)


def test_it_is_valid_openapi_and_has_every_route_and_command() -> None:
    OpenAPIV31SpecValidator(DESCRIBED).validate()
    told = {
        (method.upper(), path) for path, it in DESCRIBED["paths"].items() for method in it if method != "parameters"
    }
    assert told == {(route.method, route.path) for route in ROUTES}
    assert {name for name, kind in IN_CALL.items() if kind.__struct_fields__} <= EXAMPLES.keys()


def schema_of(method: str, path: str, status: int) -> dict[str, Any] | None:
    """The schema of an answer's JSON. None: it has none."""
    responses = DESCRIBED["paths"][path][method.lower()]["responses"]
    assert str(status) in responses, f"{method} {path} answers {status}, which is not described"
    media = responses[str(status)].get("content", {}).get("application/json")
    return {"components": DESCRIBED["components"], **media["schema"]} if media else None


async def ask(
    it: House, method: str, path: str, body: object = None, call_id: str = "", **how: Any
) -> tuple[int, Any]:
    """Ask, and hold the answer against the description."""
    status, told = await it.ask(method, path.replace("{id}", call_id), body, **how)
    if (schema := schema_of(method, path, status)) is not None:
        OAS31Validator(schema).validate(told)
    return status, told


async def test_a_running_bridge_answers_as_it_says(autojump_clock: MockClock) -> None:
    script = Script.of(*[Say(f"Sentence {n}.", ms=200) for n in range(6)])
    async with house(script, settings=SETTINGS) as it:
        it.ari.dialplan.add(("phones", "600", "1"))
        it.ari.callees["PJSIP/+4930123456"] = Callee()
        assert await it.ask("GET", "/openapi.json", token="") == (200, DESCRIBED)
        await it.stasis_call()
        await it.hears_of("agent_said")
        [call] = (await ask(it, "GET", "/calls"))[1]["calls"]
        assert (await ask(it, "GET", "/calls/{id}", call_id=call["id"]))[0] == 200
        ends = {"hang_up", "leave", "transfer"}
        for route in ROUTES:
            if route.name not in IN_CALL:
                continue
            body = EXAMPLES.get(route.name)
            assert (await ask(it, "POST", route.path, body, str(uuid4())))[0] == 404
            assert (await ask(it, "POST", route.path, {"x": 1}, call["id"]))[0] == 400
            assert (await ask(it, "POST", route.path, body, call["id"], token=""))[0] == 401
            if route.name not in ends:
                wanted = 409 if route.name == "answer_tool" else route.status
                assert (await ask(it, "POST", route.path, body, call["id"]))[0] == wanted, route.name
        await trio.sleep(3)
        assert (await ask(it, "POST", "/calls/{id}/transfer", EXAMPLES["transfer"], call["id"]))[0] == 202
        await it.ended()
        assert (await ask(it, "GET", "/calls/{id}", call_id=call["id"]))[1]["reason"] == "transferred"
        for name in sorted(ends):
            assert (await ask(it, "POST", f"/calls/{{id}}/{name}", EXAMPLES[name], call["id"]))[0] == 409
        # Placed, attached, and both ended.
        status, placed = await ask(it, "POST", "/calls", EXAMPLES["create_call"])
        assert status == 202
        assert (await ask(it, "POST", "/calls", ATTACH_EXAMPLE))[0] == 404
        assert (await ask(it, "POST", "/calls", {"to": "1"}))[0] == 400
        waits = it.ari.call_elsewhere("ivr")
        status, attached = await ask(it, "POST", "/calls", ATTACH_EXAMPLE | {"channel": waits.id})
        assert status == 202
        assert (await ask(it, "POST", "/calls", {"channel": waits.id}))[0] == 409
        await trio.sleep(3)
        assert len((await ask(it, "GET", "/calls"))[1]["calls"]) == 2
        assert (await ask(it, "POST", "/calls/{id}/leave", EXAMPLES["leave"], attached["id"]))[0] == 202
        assert (await ask(it, "POST", "/calls/{id}/hang_up", EXAMPLES["hang_up"], placed["id"]))[0] == 202
        await it.ended(3)
        assert (await ask(it, "GET", "/calls/{id}", call_id=placed["id"]))[0] == 200
        # The rest.
        assert (await ask(it, "GET", "/calls/{id}/next", call_id=str(uuid4())))[0] == 404
        assert (await ask(it, "GET", "/events"))[0] == 426
        assert (await ask(it, "GET", "/calls/{id}/events", call_id=str(uuid4())))[0] == 426


async def test_a_waiting_tool_is_told_as_described(autojump_clock: MockClock) -> None:
    async with house(Script.of(Call("look_up"), Say("Seven.", ms=200))) as it:
        channel = it.ari.call_elsewhere("ivr")
        _, call = await ask(it, "POST", "/calls", {"channel": channel.id, "session": {"tools": [TOOL]}})
        await it.hears_of("tool_called")
        await trio.sleep(0.1)
        [waiting] = (await ask(it, "GET", "/calls/{id}", call_id=call["id"]))[1]["tools_waiting"]
        answer = {"tool_call_id": waiting["tool_call_id"], "output": {"n": 7}}
        assert (await ask(it, "POST", "/calls/{id}/answer_tool", answer, call["id"]))[0] == 202
        await it.hears_of("agent_said")
        channel.hang_up()
        await it.ended()


@pytest.mark.parametrize("name", sorted(EXAMPLES))
def test_every_example_is_what_the_description_wants(name: str) -> None:
    route = next(it for it in ROUTES if it.name == name)
    media = DESCRIBED["paths"][route.path]["post"]["requestBody"]["content"]["application/json"]
    OAS31Validator({"components": DESCRIBED["components"], **media["schema"]}).validate(EXAMPLES[name])
