"""An agent whose instructions promise what it can not do: "I will connect you" without a destination, "goodbye" for ever.

Such an agent says so to callers, and nothing happens (field report 17). English words only; a warning, never an error.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from bridge.agent import Agent

_TRANSFER = re.compile(
    r"\b(transfer(s|red|ring)?|put (them|him|her|the caller|callers) through|"
    r"(connect|forward|hand over|pass)( \w+){0,3} (to|with) (a |an |the )?(human|person|colleague|agent|operator|reception|"
    r"receptionist|sales|support|team|department|manager))\b",
    re.IGNORECASE,
)
_HANG_UP = re.compile(
    r"\b(hang(ing)? up|end(ing)? the (call|conversation)|(terminate|finish|close) the call|disconnect( the call)?)\b",
    re.IGNORECASE,
)
_NEGATED = re.compile(r"\b(not|never|don't|cannot|can't|without)\b( \w+){0,3} ?$", re.IGNORECASE)


def unkept_promises(agent: Agent, at: str) -> Iterator[str]:
    """Warnings for a profile whose table is `at`."""
    for place, text in (("instructions", agent.instructions), ("greeting", agent.greeting)):
        if not agent.transfers and (words := _said(_TRANSFER, text)):
            yield (
                f"{at}.{place}: speaks of {words!r}, but the agent has no destination: add [{at}.transfers.NAME], or "
                "callers are promised what does not happen"
            )
        if not agent.hang_up and (words := _said(_HANG_UP, text)):
            yield f"{at}.{place}: speaks of {words!r}, but hang_up = false: the agent says goodbye and the line stays open"


def _said(pattern: re.Pattern[str], text: str) -> str:
    """The first words of this kind that no "never" stands before."""
    for found in pattern.finditer(text):
        if not _NEGATED.search(text[: found.start()].rpartition(".")[2]):
            return found[0]
    return ""
