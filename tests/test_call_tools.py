"""The two tools that end the agent's part: how the model sees them, and what its arguments mean."""

from __future__ import annotations

import pytest

from bridge import call_tools
from bridge.agent import Agent
from bridge.call_tools import HangUp, Misuse, Transfer
from bridge.destinations import Destination

SALES = Destination(to="600@phones", description="the sales team")
AGENT = Agent(transfers={"sales": SALES, "night": Destination(to="601")})


def test_the_model_sees_names_and_descriptions_never_numbers() -> None:
    hang_up, transfer = call_tools.declarations(AGENT)
    assert (hang_up["name"], transfer["name"]) == ("hang_up", "transfer_call")
    assert transfer["parameters"]["properties"]["destination"]["enum"] == ["sales", "night"]
    assert "the sales team" in transfer["description"]
    assert "600" not in str(transfer)


def test_an_agent_without_rights_gets_no_tools() -> None:
    agent = Agent(hang_up=False)
    assert call_tools.declarations(agent) == []
    assert call_tools.interpret(agent, "hang_up", "{}") is None
    assert call_tools.interpret(agent, "transfer_call", "{}") is None


@pytest.mark.parametrize(
    ("name", "arguments", "meaning"),
    [
        ("hang_up", '{"reason":"done"}', HangUp("done")),
        ("hang_up", "", HangUp("")),
        ("hang_up", "{broken", HangUp("")),
        ("hang_up", "[1]", HangUp("")),
        ("transfer_call", '{"destination":"sales"}', Transfer("sales", SALES)),
        ("weather", "{}", None),
    ],
)
def test_arguments_are_understood(name: str, arguments: str, meaning: object) -> None:
    assert call_tools.interpret(AGENT, name, arguments) == meaning


@pytest.mark.parametrize("arguments", ["{}", '{"destination":"+1900"}', '{"destination":["sales"]}', "{broken"])
def test_a_destination_that_is_not_ours_is_refused_with_the_choices(arguments: str) -> None:
    meaning = call_tools.interpret(AGENT, "transfer_call", arguments)
    assert isinstance(meaning, Misuse)
    assert "sales, night" in meaning.message
