"""An agent for a channel that another Stasis app holds: taken, served, given back; and every way that it does not go."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
import trio
from house import House, house
from trio.testing import MockClock

from bridge.agent import Agent
from bridge.call_settings import agent_of_call
from bridge.config import Realtime
from bridge.errors import ConfigError
from bridge.model_choice import ModelChoice, realtime_at
from simulators.ari_channels import Place
from simulators.model_script import Say, Script


def hello() -> Script:
    return Script.of(Say("Hello!", ms=300))


async def attach(it: House, channel: str, **more: Any) -> tuple[int, dict[str, Any]]:
    status, told = await it.ask("POST", "/calls", {"channel": channel, **more})
    return status, told


async def test_a_channel_of_another_app_gets_an_agent_and_goes_back(autojump_clock: MockClock) -> None:
    async with house(hello()) as it:
        channel = it.ari.call_elsewhere("ivr", "menu")
        status, call = await attach(
            it, channel.id, session={"voice": "cedar", "max_response_output_tokens": 500}, facts="Her name is Ada."
        )
        assert (status, call["state"], call["caller"], call["returns_to"]) == (202, "connecting", "1001 Alice", "ivr")
        status, told = await attach(it, channel.id)
        assert (status, "has an agent already" in told["error"]) == (409, True)
        assert (await it.hears_of("agent_said"))["text"] == "Hello!"
        config = it.model.session.config
        assert (config["audio"]["output"]["voice"], config["max_output_tokens"]) == ("cedar", 500)
        assert it.model.session.items[0].wire["content"][0]["text"] == "Her name is Ada."
        assert (await it.ask("POST", f"/calls/{call['id']}/leave"))[0] == 202
        assert (await it.ended())["reason"] == "agent_left"
        assert (channel.elsewhere, channel.moved_with) == ("ivr", ("returned", "agent_left"))
        assert channel.variables["BRIDGE_END_REASON"] == "agent_left"
        # And once more: it is nobody's again.
        status, call = await attach(it, channel.id, return_to="nowhere")
        assert status == 202
        await trio.sleep(0.1)
        assert (await it.ask("POST", f"/calls/{call['id']}/leave"))[0] == 202
        assert (await it.ended(2))["reason"] == "agent_left"
        assert (channel.elsewhere, channel.dialplan) == ("", Place()), "no such app: in the dialplan nobody is lost"


async def test_the_agent_leaves_before_there_is_a_session_or_media(autojump_clock: MockClock) -> None:
    async with house(hello()) as it:
        channel = it.ari.call_elsewhere("ivr")
        it.media_comes = False
        _, call = await attach(it, channel.id)
        assert (await it.ask("GET", f"/calls/{call['id']}"))[1]["state"] == "connecting"
        assert (await it.ask("POST", f"/calls/{call['id']}/say", {"text": "x"}))[0] == 409
        assert (await it.ask("POST", f"/calls/{call['id']}/leave", {"reason": "never mind"}))[0] == 202
        record = await it.ended()
        assert (record["reason"], record["detail"], channel.elsewhere) == ("agent_left", "never mind", "ivr")
        it.media_comes = True
        it.model.faults.created_after_s = 6.0
        _, call = await attach(it, channel.id)
        await trio.sleep(0.5)
        began = trio.current_time()
        assert (await it.ask("POST", f"/calls/{call['id']}/leave"))[0] == 202
        assert (await it.ended(2))["reason"] == "agent_left"
        assert trio.current_time() - began < 1
        assert channel.elsewhere == "ivr"


async def test_an_agent_that_begins_muted_says_nothing_until_it_may(autojump_clock: MockClock) -> None:
    settings = 'agents.default.outbound = { first_word = "callee" }'
    script = Script.of(Say("Hello!", ms=300), Say("Here I am.", ms=300))
    async with house(script, settings=settings) as it:
        channel = it.ari.call_elsewhere("ivr")
        _, call = await attach(it, channel.id, muted="both", settings={"greeting": ""})
        await trio.sleep(3)
        assert (await it.ask("GET", f"/calls/{call['id']}"))[1]["state"] == "listening"
        assert not it.told("agent_starts")
        for who in ("agent", "caller"):
            assert (await it.ask("POST", f"/calls/{call['id']}/unmute", {"who": who}))[0] == 202
        assert (await it.ask("POST", f"/calls/{call['id']}/say", {"text": "Hello!"}))[0] == 202
        assert (await it.hears_of("agent_said"))["text"] == "Hello!"
        channel.hang_up()
        await it.ended()


async def test_what_can_not_be_attached_says_why(autojump_clock: MockClock) -> None:
    async with house(hello()) as it:
        inbound, _ = await it.stasis_call()
        await it.hears_of("agent_said")
        waits = it.ari.call_elsewhere("ivr")
        dialled = it.ari.call_elsewhere("ivr")
        it.ari.other_apps["ivr"].remove(dialled.id)
        dialled.elsewhere = ""
        sibling = it.ari.call_elsewhere("bridge-2")
        model = {"host": "other.test", "api_key": "k"}
        for channel, more, status, says in (
            ("nobody.1", {}, 404, "Asterisk has no channel nobody.1"),
            (inbound.id, {}, 409, "has an agent already"),
            (dialled.id, {}, 409, "send it there to Stasis(bridge-1,...)"),
            (sibling.id, {}, 409, "another worker's app"),
            ("realtime-media-x", {}, 409, "the bridge's own"),
            ("a/b", {}, 400, "channel: must be the id"),
            (waits.id, {"agent": "moon"}, 400, "agent: 'moon' is not defined; known: default"),
            (waits.id, {"session": {"voice": 7}}, 400, "session.voice: must be"),
            (waits.id, {"settings": {"recording": {"by": "bridge"}}}, 400, "settings.recording: can not be set"),
            (waits.id, {"to": "600"}, 400, "to: "),
            (waits.id, {"model": model}, 400, "server.control_may_choose_model"),
        ):
            found, told = await attach(it, channel, **more)
            assert found == status, told
            assert says in told["error"], told
        assert waits.elsewhere == "ivr", "left where it was"
        with it.ari.never_answers(f"POST channels/{waits.id}/move"):
            assert (await attach(it, waits.id))[0] == 503
        inbound.hang_up()
        await it.ended()


async def test_a_program_may_choose_the_model_where_the_settings_say_so(autojump_clock: MockClock) -> None:
    async with house(hello(), overrides={"server.control_may_choose_model": "true"}) as it:
        channel = it.ari.call_elsewhere("ivr")
        model = {"host": "ws://other.test", "path": "v1/realtime?model=gpt-realtime", "api_key": "sk-of-the-program"}
        status, call = await attach(it, channel.id, model=model)
        assert status == 202
        await it.until(lambda: bool(it.told("agent_said") or it.told("call_ended")))
        assert not it.told("call_ended"), it.told("call_ended")[0]["detail"]
        request = it.model.upgrades[-1]
        assert request.path == "/v1/realtime?model=gpt-realtime"
        assert request.headers["Authorization"] == "Bearer sk-of-the-program"
        assert not any("sk-of-the-program" in str(line) for line in it.collector.told)
        await it.ask("POST", f"/calls/{call['id']}/leave")
        await it.ended()


CONFIGURED = Realtime(url="wss://own.test/v1/realtime", model="own", api_key="secret", headers={"X": "secret"})


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        (
            ModelChoice(host="api.openai.com", path="/v1/realtime?model=m", api_key="k"),
            {
                "url": "wss://api.openai.com/v1/realtime?model=m",
                "model": "",
                "api_key": "k",
                "auth": "bearer",
                "headers": {},
            },
        ),
        (
            ModelChoice(host="x.openai.azure.com", path="openai/realtime?deployment=d", api_key="k", auth="query"),
            {"auth": "query", "auth_query": "api-key", "model": ""},
        ),
        (ModelChoice(host="own.test"), {"api_key": "secret", "model": "own", "headers": {"X": "secret"}}),
    ],
)
def test_a_chosen_endpoint(choice: ModelChoice, expected: dict[str, object]) -> None:
    found = msgspec.structs.asdict(realtime_at(choice, CONFIGURED))
    assert {key: found[key] for key in expected} == expected


@pytest.mark.parametrize(
    ("choice", "says"),
    [
        (ModelChoice(host="other.test"), "model.api_key: is missing"),
        (ModelChoice(host="ws://own.test"), "model.api_key: is missing"),
        (ModelChoice(host="https://own.test", api_key="k"), "model.host: must be"),
        (ModelChoice(host="a/b", api_key="k"), "model.host: must be"),
    ],
)
def test_a_choice_that_would_give_a_secret_away_or_is_none(choice: ModelChoice, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        realtime_at(choice, CONFIGURED)
    assert "k" not in repr(ModelChoice(host="h", api_key="k"))[16:]


def test_the_settings_of_one_call() -> None:
    agent = agent_of_call(Agent(), {"greeting": "", "turn_detection": {"threshold": 0.8}}, {"voice": "cedar"})
    assert (agent.greeting, agent.turn_detection.threshold, agent.session) == (
        "",
        0.8,
        {"audio": {"output": {"voice": "cedar"}}},
    )
    with pytest.raises(ConfigError, match="keep one of them"):
        agent_of_call(Agent(), {"session": {"voice": "x"}}, {"voice": "cedar"})
