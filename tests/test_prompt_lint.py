"""Instructions that promise what the agent can not do."""

from __future__ import annotations

import pytest

from bridge.agent import Agent
from bridge.config import load_config, warnings_of
from bridge.destinations import Destination
from bridge.prompt_lint import unkept_promises

SALES = {"sales": Destination(to="600@phones")}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("If they ask for a price, transfer them to sales.", "transfer"),
        ("Offer to connect the caller with a human.", "connect the caller with a human"),
        ("Put the caller through when they insist.", "Put the caller through"),
        ("You never transfer calls.", ""),
        ("Do not transfer anybody.", ""),
        ("Never lie. Transfer them to sales.", "Transfer"),
        ("Tell them about money transfers.", "transfers"),
        ("Keep your answers short.", ""),
        ("Connect ideas with examples.", ""),
    ],
)
def test_transfers_without_a_destination(text: str, words: str) -> None:
    told = list(unkept_promises(Agent(instructions=text), "agents.a"))
    assert [repr(words) in line and "no destination" in line for line in told] == ([True] if words else [])
    assert list(unkept_promises(Agent(instructions=text, transfers=SALES), "agents.a")) == []


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("When they are done, hang up.", "hang up"),
        ("Say goodbye and end the call.", "end the call"),
        ("Never hang up first.", ""),
        ("Be brief.", ""),
    ],
)
def test_goodbyes_without_hang_up(text: str, words: str) -> None:
    told = list(unkept_promises(Agent(instructions=text, hang_up=False), "agents.a"))
    assert [repr(words) in line and "hang_up = false" in line for line in told] == ([True] if words else [])
    assert list(unkept_promises(Agent(instructions=text), "agents.a")) == []


def test_check_config_says_so() -> None:
    config = load_config('[agents.desk]\ninstructions = "Transfer callers to sales."\n', {})
    assert [line for line in warnings_of(config) if line.startswith("agents.desk.instructions: speaks of 'Transfer'")]


def test_the_defaults_promise_nothing() -> None:
    assert list(unkept_promises(Agent(), "agents.default")) == []
