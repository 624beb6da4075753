"""What a caller's key does, whatever the model thinks: the table `[agents.NAME.keys]` of `bridge.toml`.

    "0" = "transfer reception"             a destination of the agent's transfers
    "9" = "hang_up"
    "*" = "ask: Please repeat that."       said to the model in the caller's place, and answered
    "#" = "ignore"

A key that is not in the table is told to the model with those around it. `caller_keys` carries these out.
"""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping
from dataclasses import dataclass

from bridge.toml_lines import dotted

# The keys of a telephone.
KEYS = "0123456789*#ABCD"
_FORMS = '"transfer NAME", "hang_up", "ask: TEXT" or "ignore"'


@dataclass(frozen=True, slots=True)
class Transfer:
    """Hand the caller over to this destination, at once."""

    name: str


@dataclass(frozen=True, slots=True)
class HangUp:
    """End the call, at once."""


@dataclass(frozen=True, slots=True)
class Say:
    """Tell the model this in the caller's place, and have it answered."""

    text: str


@dataclass(frozen=True, slots=True)
class Ignore:
    """Nothing, and nobody is told."""


KeyAction = Transfer | HangUp | Say | Ignore


def is_key(text: str) -> bool:
    """Whether this is one key of a telephone."""
    return len(text) == 1 and text in KEYS


def action_of(text: str) -> KeyAction:
    """What a value of the table means. Raises `ValueError`, whose message is the remedy."""
    word, _, rest = text.strip().partition(" ")
    rest = rest.strip()
    match word:
        case "transfer" if rest:
            return Transfer(rest)
        case "hang_up" if not rest:
            return HangUp()
        case "ask:" if rest:
            return Say(rest)
        case "ignore" if not rest:
            return Ignore()
    raise ValueError(f"must be {_FORMS}")


def actions_of(keys: Mapping[str, str]) -> dict[str, KeyAction]:
    """The whole table, which has been checked."""
    return {key: action_of(text) for key, text in keys.items()}


def problems(
    keys: Mapping[str, str], at: str, *, destinations: Container[str], turn_keys: Mapping[str, str]
) -> Iterator[tuple[str, str]]:
    """What is wrong with the keys whose table is `at`, as (place, remedy). `turn_keys`: those of manual turns that are in
    use, with their settings."""
    for key, text in keys.items():
        place = f"{at}.{dotted((key,))}"
        if not is_key(key):
            yield place, f"must be one key of {KEYS}"
            continue
        if key in turn_keys:
            yield place, f"is turn_detection.{turn_keys[key]} already; choose another key for one of them"
        try:
            action = action_of(text)
        except ValueError as error:
            yield place, str(error)
            continue
        if isinstance(action, Transfer) and action.name not in destinations:
            yield (
                place,
                f"there is no destination {action.name!r} in this agent's transfers (that takes no number); add it there",
            )
