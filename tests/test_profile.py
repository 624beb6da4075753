"""A profile with further settings over it, as a hook or an application gives them for one call."""

from __future__ import annotations

import re
from typing import Any

import pytest

from bridge.agent import Agent, TurnDetection
from bridge.destinations import Destination
from bridge.errors import ConfigError
from bridge.profile import agent_with
from bridge.tool_hook import ToolHook

DESK = Destination(to="600@phones", description="the desk")


def test_tables_are_merged_key_by_key_and_the_profile_stays_as_it_was() -> None:
    agent = Agent(
        voice="cedar", turn_detection=TurnDetection(threshold=0.8), transfers={"desk": DESK}, keys={"9": "hang_up"}
    )
    tree = {
        "instructions": "You speak with Ada.",
        "turn_detection": {"silence_duration_ms": 700},
        "transfers": {"boss": {"to": "601@phones"}, "desk": {"description": "another"}},
        "hang_up": False,
    }
    changed = agent_with(agent, tree)
    assert changed.instructions == "You speak with Ada."
    assert changed.turn_detection == TurnDetection(threshold=0.8, silence_duration_ms=700)
    assert changed.transfers["desk"] == Destination(to="600@phones", description="another")
    assert changed.transfers["boss"].to == "601@phones"
    assert (changed.voice, changed.hang_up, changed.keys) == ("cedar", False, {"9": "hang_up"})
    assert agent == Agent(
        voice="cedar", turn_detection=TurnDetection(threshold=0.8), transfers={"desk": DESK}, keys={"9": "hang_up"}
    )


def test_what_was_meant_for_one_service_is_not_sent_to_another() -> None:
    hook = ToolHook(url="https://a.test/", secret="hush", headers={"Authorization": "hush"}, timeout_s=3)
    elsewhere = agent_with(Agent(tool_hook=hook), {"tool_hook": {"url": "https://b.test/"}}).tool_hook
    assert elsewhere == ToolHook(url="https://b.test/", timeout_s=3)
    more = agent_with(Agent(tool_hook=hook), {"tool_hook": {"tools": [{"name": "x"}]}}).tool_hook
    assert (more.secret, more.headers, more.tools[0].name) == ("hush", hook.headers, "x")


def test_null_takes_a_key_away_and_its_default_holds() -> None:
    agent = Agent(voice="cedar", speed=1.2, transfers={"desk": DESK})
    changed = agent_with(agent, {"voice": None, "transfers": {"desk": {"to": None, "sip": "sip:desk@pbx.test"}}})
    assert (changed.voice, changed.speed) == ("marin", 1.2)
    assert changed.transfers == {"desk": Destination(sip="sip:desk@pbx.test", description="the desk")}
    assert agent_with(agent, {"transfers": {"desk": None}}).transfers == {}


def test_a_session_is_merged_as_the_server_merges_it_whatever_names_it_is_written_in() -> None:
    agent = Agent(session={"max_response_output_tokens": 100, "reasoning": {"effort": "high"}})
    changed = agent_with(
        agent, {"session": {"max_output_tokens": 200, "audio": {"input": {"noise_reduction": None}}}}
    )
    assert changed.session == {
        "max_output_tokens": 200,
        "reasoning": {"effort": "high"},
        "audio": {"input": {"noise_reduction": None}},
    }


def test_numbers_and_switches_may_be_text_as_in_the_environment() -> None:
    changed = agent_with(Agent(), {"speed": "1.25", "hang_up": "false", "max_output_tokens": "300"})
    assert (changed.speed, changed.hang_up, changed.max_output_tokens) == (1.25, False, 300)


@pytest.mark.parametrize(
    ("tree", "says"),
    [
        ([], "hook.agent: must be a table"),
        ({"voise": "cedar"}, "hook.agent.voise: unknown key; known here: "),
        ({"speed": 9}, "hook.agent.speed: must be 0.25 to 1.5"),
        ({"speed": float("inf")}, "hook.agent.speed: must be a finite number"),
        ({"turn_detection": {"threshold": 2}}, "hook.agent.turn_detection.threshold: must be 0 to 1"),
        ({"turn_detection": "server_vad"}, "hook.agent.turn_detection: must be a table"),
        ({"mcp": [{"server_url": "https://x"}]}, "hook.agent.mcp[0]: needs server_label"),
        ({"transfers": {"desk": {}}}, "hook.agent.transfers.desk: must have exactly one of to"),
        ({"limits": {"max_duration_s": 0}}, "hook.agent.limits.max_duration_s: must be above zero"),
        ({"limits": {"drain_s": 5}}, "hook.agent.limits.drain_s: unknown key; known here: tool_s, goodbye_s"),
        ({"session": 1}, "hook.agent.session: must be a table"),
        ({"session": {"speed": 9}}, "hook.agent.session.speed: must be 0.25 to 1.5"),
        ({"session": {"model": "m"}}, "hook.agent.session.model: belongs to hook.agent.model or realtime.model"),
        ({"tools": ["a.py"]}, "hook.agent.tools: can not be set for one call: its files are run with"),
        ({"tool_hook": 5}, "hook.agent.tool_hook: must be a table"),
        ({"sounds": {"busy": "a.wav"}}, "hook.agent.sounds: can not be set for one call: its files are read with"),
        ({"overridable": []}, "hook.agent.overridable: can not be set for one call"),
    ],
)
def test_what_the_file_refuses_is_refused_here_in_the_same_words(tree: Any, says: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(says)) as caught:
        agent_with(Agent(), tree, at="hook.agent")
    assert caught.value.place == says.partition(": ")[0]
