"""Whom an agent may call: the settings, what they allow, and the page that explains them."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import msgspec
import pytest

from bridge.agent import Agent
from bridge.config import load_config
from bridge.ending import OF_PLACED_CALLS
from bridge.errors import ConfigError
from bridge.opening import calling, opening_of
from bridge.outbound import CallOrder, Outbound, endpoint_of
from bridge.recording import Recording

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "outbound.md").read_text(encoding="utf-8")
GERMAN = Outbound(numbers=r"\+49\d{6,12}", endpoint="PJSIP/{number}@trunk")


@pytest.mark.parametrize(
    ("setting", "says"),
    [
        ("numbers = '('", "numbers: must be a regular expression"),
        ("numbers = '6'", "endpoint: must say what Asterisk dials for a number"),
        ("endpoint = 'PJSIP/600'", "endpoint: must be one TECHNOLOGY/RESOURCE with {number} in it"),
        ("endpoint = '{number}@trunk'", "endpoint: must be one TECHNOLOGY/RESOURCE with {number} in it"),
        ("endpoint = 'PJSIP/{number}&PJSIP/1'", "endpoint: must be one TECHNOLOGY/RESOURCE"),
        ("caller_id = 'Sales <>'", "caller_id: must be a number, or like"),
        ("ring_s = 0", "ring_s: must be above 0, at most 600"),
        ("first_word = 'me'", 'first_word: must be "agent" or "callee"'),
        ("first_word_s = 0.1", "first_word_s: must be 0.5 to 30"),
        ("machine = 'message'", 'message: goes together with machine = "message"'),
        ("message = 'Call us.'", 'message: goes together with machine = "message"'),
        ("max_calls = -1", "max_calls: must be 0"),
        ("number = '6'", "number: unknown key"),
    ],
)
def test_settings_that_can_not_be(setting: str, says: str) -> None:
    with pytest.raises(ConfigError) as refused:
        load_config(f"[agents.sales.outbound]\n{setting}\n", {})
    assert re.match(rf"bridge.toml:[12]: {re.escape(f'agents.sales.outbound.{says}')}", str(refused.value))


def test_nobody_may_be_called_by_default() -> None:
    for to in ("600", "+4930123456", "PJSIP/600"):
        with pytest.raises(ConfigError, match=r"agents\.default\.outbound"):
            endpoint_of(CallOrder(to=to), Outbound())


@pytest.mark.parametrize("to", ["+4930123456", "+491701234567"])
def test_a_number_that_matches_is_dialled_as_the_template_says(to: str) -> None:
    assert endpoint_of(CallOrder(to=to), GERMAN) == f"PJSIP/{to}@trunk"


@pytest.mark.parametrize(
    "to",
    [
        "",
        "4930123456",
        "+4930123456x",
        "x+4930123456",
        "+49301",
        "+4930123456\n",
        "+4930123456@other",
        "+49 30 123456",
    ],
)
def test_a_number_matches_as_a_whole(to: str) -> None:
    with pytest.raises(ConfigError, match=r"^to: "):
        endpoint_of(CallOrder(to=to), GERMAN)


@pytest.mark.parametrize("to", ["6&PJSIP/7", "6@internal", "6,7", "6/7", "6 7", "${X}", "6" * 33])
def test_a_pattern_that_allows_anything_allows_one_number_only(to: str) -> None:
    with pytest.raises(ConfigError, match=r"^to: "):
        endpoint_of(CallOrder(to=to), Outbound(numbers=".*", endpoint="PJSIP/{number}@trunk"))


def test_calls_that_are_placed_have_a_greeting_of_their_own() -> None:
    agent = Agent(greeting="inbound", greeting_barge_in="off")
    assert calling(agent).greeting == "inbound"
    theirs = calling(msgspec.structs.replace(agent, outbound=Outbound(greeting="outbound")))
    assert (theirs.greeting, theirs.greeting_barge_in) == ("outbound", "off")
    waits = calling(msgspec.structs.replace(agent, outbound=Outbound(first_word="callee")))
    assert waits.greeting_barge_in == "interrupt"


def test_a_notice_of_recording_comes_before_the_callees_first_words() -> None:
    agent = Agent(outbound=Outbound(first_word="callee"))
    assert opening_of(agent, "").callee_first
    recorded = msgspec.structs.replace(agent, recording=Recording(by="bridge", consent="This call is recorded."))
    assert not opening_of(recorded, "").callee_first


# The page ----------------------------------------------------------------------------------------------------------------


def test_the_first_settings_of_the_page_are_valid() -> None:
    text = "\n".join(line[4:] for line in PAGE.split("\n\n")[1].splitlines())
    assert load_config(text, {}).agents["default"].outbound.numbers == r"\+49\d{6,12}"


def test_the_page_has_every_reason_and_every_field_of_an_order() -> None:
    named = set(re.findall(r"`(\w+)`", PAGE))
    assert {reason.value for reason in OF_PLACED_CALLS} <= named
    assert set(CallOrder.__struct_fields__) <= named


def test_the_programs_of_the_page_and_of_the_examples_are_python() -> None:
    program = PAGE.partition("## From Python\n\n")[2].partition("\n\n`Ready`")[0]
    ast.parse("\n".join(line[4:] for line in program.splitlines()))
    ast.parse((ROOT / "examples" / "call.py").read_text(encoding="utf-8"))
