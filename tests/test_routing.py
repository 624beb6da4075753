"""Which agent serves which call, and what a single call has otherwise than its agent's profile."""

from __future__ import annotations

import re
from typing import Any

import pytest
import trio
from house import House, house
from trio.testing import MockClock

from bridge import routing
from bridge.agent import Agent
from bridge.config import Config, load_config
from bridge.errors import ConfigError, ControlUnavailable
from bridge.outbound import CallOrder
from bridge.routes import Route, matches
from bridge.routing import Facts
from simulators.ari_server import Place
from simulators.model_script import Say, Script

TENANT = "PJSIP_HEADER(read,X-Tenant)"


@pytest.mark.parametrize(
    ("pattern", "fitting", "others"),
    [
        ("", ["", "200", "anything"], []),
        ("200", ["200"], ["2000", "", "_200"]),
        ("_2XX", ["200", "299"], ["2000", "20", "2ab", "300"]),
        ("_+49.", ["+4930123"], ["+49", "4930", "+4830"]),
        ("_[1-37]NZ", ["121", "799", "329"], ["421", "111", "120"]),
        ("_1!", ["1", "1234"], ["21"]),
        ("_.", ["x", "1"], [""]),
        ("_!", ["", "1"], []),
        ("_", [""], ["1"]),
        ("_acme-.", ["acme-north"], ["acme-", "acmes"]),
        ("_nxz.", ["nxz1"], ["2011"]),
        ("_a.c", ["abc", "abbc"], ["ac"]),
        ("_(1)*", ["(1)*"], ["1", "(1)"]),
        ("_[^1]", ["^", "1"], ["2"]),
        ("_[+--a]", ["+", "-", "0", "a"], ["b"]),
    ],
)
def test_patterns(pattern: str, fitting: list[str], others: list[str]) -> None:
    assert [text for text in fitting if not matches(pattern, text)] == []
    assert [text for text in others if matches(pattern, text)] == []


@pytest.mark.parametrize(
    ("route", "says"),
    [
        ("agent = 'x'", "routes[0].agent: agent 'x' is not defined; known: default, sales"),
        ("called = '_2[0'", "routes[0].called: '_2[0' is no pattern; write it like _2XX"),
        ("caller = '_[9-1]'", "routes[0].caller: '_[9-1]' is no pattern"),
        ("called = '_2xx'", "routes[0].called: '_2xx': write X, Z and N in capital letters"),
        (
            "variables = { 'A B' = '1' }",
            'routes[0].variables."A B": must be a channel variable or a dialplan function',
        ),
        ("variables = { 'F(${X})' = '1' }", 'routes[0].variables."F(${X})": must be a channel variable'),
        ("variables = { TENANT = '' }", 'routes[0].variables.TENANT: must say what is wanted: "_."'),
        ("calld = '1'", "routes[0].calld"),
    ],
)
def test_a_wrong_route_is_named_with_its_remedy(route: str, says: str) -> None:
    agent = "" if route.startswith("agent") else "agent = 'sales'\n"
    with pytest.raises(ConfigError, match=re.escape(says)):
        load_config(f"[agents.sales]\n[[routes]]\n{agent}{route}", {})


def config(routes: str) -> Config:
    return load_config(f"[agents.sales]\n[agents.night]\n[agents.german]\n{routes}", {})


ORDERED = config(
    f"""
    [[routes]]
    agent = "german"
    caller = "_+49."
    called = "200"
    [[routes]]
    agent = "night"
    called = "_2XX"
    variables = {{ "{TENANT}" = "acme", CLOSED = "1" }}
    [[routes]]
    agent = "sales"
    argument = "buy"
    """
)


@pytest.mark.parametrize(
    ("facts", "agent", "asked"),
    [
        (Facts(), "default", []),
        (Facts("sales"), "sales", []),
        (Facts("unknown"), "default", []),
        (Facts("buy", "100"), "sales", []),
        (Facts("buy", "200", "+4930"), "german", []),
        (Facts("buy", "201", "+4930", {TENANT: "acme", "CLOSED": "1"}), "night", [TENANT, "CLOSED"]),
        (Facts("buy", "201", "+4930", {TENANT: "acme"}), "sales", [TENANT, "CLOSED"]),
        (Facts("", "201", "", {TENANT: "other", "CLOSED": "1"}), "default", [TENANT, "CLOSED"]),
    ],
)
def test_the_first_route_that_matches_wins_and_asks_no_more_than_it_needs(
    facts: Facts, agent: str, asked: list[str]
) -> None:
    assert routing.choose(ORDERED.routes, ORDERED.agents, facts)[0] == agent
    assert routing.wanted(ORDERED.routes, facts) == asked


def test_a_variable_that_several_routes_want_is_asked_for_once() -> None:
    routes = [Route(agent="a", variables={"T": "1"}), Route(agent="b", variables={"T": "2", "U": "_."})]
    assert routing.wanted(routes, Facts()) == ["T", "U"]


# One call of its own ------------------------------------------------------------------------------------------------


def test_what_may_be_overridden_is_taken_as_the_file_would_take_it() -> None:
    sales = Agent(overridable=["voice", "speed", "hang_up", "turn_detection.silence_duration_ms"])
    changes = ["voice=cedar", " speed = 1.2", "", "hang_up=false", "turn_detection.silence_duration_ms=700"]
    agent, warnings = routing.overridden("sales", sales, changes)
    assert warnings == []
    assert (agent.voice, agent.speed, agent.hang_up) == ("cedar", 1.2, False)
    assert agent.turn_detection.silence_duration_ms == 700
    assert agent.instructions == sales.instructions
    assert sales.voice == "marin", "the next call has the profile's own"


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (
            "greeting=Hi",
            "greeting: not taken from the dialplan: agents.sales.overridable does not list it (allowed: voice,",
        ),
        ("nonsense", "nonsense: not taken from the dialplan: agents.sales.overridable does not list it"),
        ("speed=fast", "speed: 'fast' not taken from the dialplan, the profile's own stays: must be a number"),
        ("speed=9", "speed: '9' not taken from the dialplan, the profile's own stays: must be 0.25 to 1.5"),
        ("barge_in=maybe", "barge_in: 'maybe' not taken from the dialplan, the profile's own stays: must be \""),
    ],
)
def test_what_can_not_be_taken_is_named_and_the_rest_still_counts(change: str, says: str) -> None:
    sales = Agent(overridable=["voice", "speed", "barge_in"])
    agent, warnings = routing.overridden("sales", sales, [change, "voice=cedar"])
    assert agent == Agent(overridable=["voice", "speed", "barge_in"], voice="cedar")
    assert len(warnings) == 1
    assert warnings[0].startswith(says)


def test_a_change_that_the_session_table_contradicts_is_not_taken() -> None:
    text = '[agents.sales]\noverridable = ["max_output_tokens"]\nsession = { max_output_tokens = 100 }'
    agent, warnings = routing.overridden("sales", load_config(text, {}).agents["sales"], ["max_output_tokens=200"])
    assert agent.max_output_tokens == 0
    assert "keep only one of them" in warnings[0]


@pytest.mark.parametrize("key", ["budget_usd", "mcp", "transfers", "overridable", "sounds.busy", "voices"])
def test_what_can_not_be_overridden_can_not_be_listed(key: str) -> None:
    with pytest.raises(ConfigError, match=r"agents\.default\.overridable: '.*' can not be overridden .* voice, "):
        load_config(f'[agents.default]\noverridable = ["{key}"]', {})


# A whole bridge -----------------------------------------------------------------------------------------------------

ROUTED = f"""
[agents.sales]
overridable = ["voice"]
[[routes]]
agent = "sales"
called = "200"
variables = {{ "{TENANT}" = "acme", LANGUAGE = "de" }}
"""


def asked_variables(it: House) -> list[str]:
    return [
        query["variable"] for method, uri, query in it.ari.requests if method == "GET" and uri.endswith("/variable")
    ]


async def arrives(it: House, *arguments: str, variables: dict[str, str] | None = None, **place: Any) -> str:
    """The agent of a call that brings these variables along."""
    before = len(it.told("call_arrives"))
    channel = it.ari.incoming_call(*arguments, **place)
    channel.variables |= variables or {}
    return str((await it.hears_of("call_arrives", before + 1))["agent"])


def hello() -> Script:
    return Script.of(Say("Hello!", ms=300), Say("Hello!", ms=300), Say("Hello!", ms=300))


async def test_variables_choose_the_agent_and_are_asked_for_only_where_they_matter(autojump_clock: MockClock) -> None:
    async with house(hello(), settings=ROUTED) as it:
        assert await arrives(it, exten="100", variables={TENANT: "acme", "LANGUAGE": "de"}) == "default"
        assert asked_variables(it) == []
        assert await arrives(it, exten="200", variables={TENANT: "acme", "LANGUAGE": "de"}) == "sales"
        assert sorted(asked_variables(it)) == ["LANGUAGE", TENANT]
        assert await arrives(it, exten="200", variables={TENANT: "acme"}) == "default"
        await it.hears_of("agent_said", 3)


async def test_variables_that_asterisk_does_not_tell_are_empty_and_the_call_goes_on(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    async with house(hello(), settings=ROUTED) as it:
        began = trio.current_time()
        with it.ari.never_answers("GET channels"):
            assert await arrives(it, exten="200", variables={TENANT: "acme", "LANGUAGE": "de"}) == "default"
        assert trio.current_time() - began == 2.0, "limits.ari_request_s, both at the same time"
        assert f"{TENANT} counts as empty" in caplog.text
        await it.hears_of("agent_said")


async def test_a_call_has_its_own_voice(autojump_clock: MockClock, caplog: pytest.LogCaptureFixture) -> None:
    async with house(hello(), settings=ROUTED) as it:
        assert await arrives(it, "sales", "voice=cedar", "speed=1.2") == "sales"
        await it.hears_of("agent_said")
        assert it.model.session.config["audio"]["output"]["voice"] == "cedar"
        assert it.model.session.config["audio"]["output"]["speed"] == 1.0
        assert "speed: not taken from the dialplan: agents.sales.overridable" in caplog.text
        assert await arrives(it, "sales") == "sales"
        await it.hears_of("agent_said", 2)
        assert it.model.session.config["audio"]["output"]["voice"] == "marin"


async def test_a_process_that_ends_while_it_asks_sends_the_caller_on(autojump_clock: MockClock) -> None:
    async with house(hello(), settings=ROUTED, overrides={"limits.drain_s": "0.5"}) as it:
        with it.ari.never_answers("GET channels"):
            channel = it.ari.incoming_call(exten="200")
            await trio.sleep(0.1)
            it.ready.drain()
            await it.hears_of("drained")
        assert channel.variables["BRIDGE_END_REASON"] == "server_draining"
        assert channel.dialplan is not None


async def test_an_agent_has_its_own_model_and_limits(autojump_clock: MockClock) -> None:
    settings = """
        [agents.small]
        model = "gpt-realtime-2.1-mini"
        limits = { caller_silent_s = 7 }
        [[routes]]
        agent = "small"
        called = "200"
        """
    async with house(hello(), settings=settings) as it:
        channel, _ = await it.stasis_call(exten="200")
        await it.hears_of("agent_said")
        assert it.model.session.config["model"] == "gpt-realtime-2.1-mini"
        record = await it.ended()
        assert record["reason"] == "caller_silent"
        assert record["duration_s"] < 12, "not limits.caller_silent_s, 120"
        channel, _ = await it.stasis_call()
        await it.hears_of("agent_said", 2)
        assert it.model.session.config["model"] == "gpt-realtime-2.1"
        channel.hang_up()
        await it.ended(2)


async def test_an_agent_that_is_off_takes_no_call_of_any_kind(autojump_clock: MockClock) -> None:
    """And costs none of the model's time."""
    off = """
        [agents.default]
        disabled = true
        [agents.default.outbound]
        numbers = "600"
        endpoint = "PJSIP/{number}"
        """
    async with house(settings=off) as it:
        channel = it.ari.incoming_call()
        record = await it.ended()
        assert (record["reason"], record["detail"]) == ("agent_disabled", "agents.default.disabled is true")
        assert record["completion_reason"] == "normal conversation end"
        assert channel.variables["BRIDGE_END_REASON"] == "agent_disabled"
        assert (channel.state, channel.dialplan) == ("Ring", Place())
        caller = await it.plain_call()
        assert (await it.ended(2))["reason"] == "agent_disabled"
        await caller.ended.wait()
        with pytest.raises(ControlUnavailable, match="agent_disabled: agents"):
            it.ready.placing.place(CallOrder(to="600"))
        assert it.dials == 0
