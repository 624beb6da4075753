"""What a single call may have otherwise than its agent's profile: `overridable` of `[agents.NAME]`, and its values.

Stasis(bridge-1,sales,voice=cedar,turn_detection.silence_duration_ms=700)
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

# The budget is the owner's, and its price is checked at the start; sounds and instructions are read then.
_FIXED = frozenset({"budget_usd", "budget_warning", "disabled", "instructions_file", "model"})
_TABLES = frozenset({"turn_detection"})


def keys(profile: Mapping[str, Any]) -> list[str]:
    """The keys that can be overridden at all: those with one value, not a table; `profile` in JSON's types."""
    found = []
    for key, value in profile.items():
        if key in _TABLES:
            found += [f"{key}.{inner}" for inner in value]
        elif isinstance(value, str | int | float) and key not in _FIXED:
            found.append(key)
    return found


def problems(overridable: Iterable[str], profile: Mapping[str, Any], at: str) -> Iterator[tuple[str, str]]:
    """What is wrong with a list `overridable` that stands at `at`, as (place, remedy)."""
    known = keys(profile)
    for key in overridable:
        if key not in known:
            yield at, f"{key!r} can not be overridden for a call; these can: {', '.join(known)}"


def parsed(arguments: Iterable[str]) -> Iterator[tuple[str, str]]:
    """`key=value` as key and value, spaces around both taken off; without `=` the value is empty."""
    for argument in arguments:
        if argument.strip():
            key, _, value = argument.partition("=")
            yield key.strip(), value.strip()


def changed(profile: Mapping[str, Any], key: str, value: str) -> dict[str, Any]:
    """The profile, in JSON's types, with one of its `keys` changed."""
    table, dot, inner = key.partition(".")
    return {**profile, table: {**profile[table], inner: value} if dot else value}
