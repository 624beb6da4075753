"""Sequences of the protocol as text: written like section 3 of the protocol notes, matched event by event.

    C conversation.item.truncate  item_id=A audio_end_ms=640
    S conversation.item.truncated item_id=A audio_end_ms=640

One line is one event: who (C client, S server), its type, and what must be in it. `a.b=X` with a capital first letter is
an id: the same letter is the same id on every line, and two letters never are the same one. `a.b=X,Y` demands a list of
ids. Any other value is JSON, or a plain word. `a.b=*` only demands that it is there. A line that starts with `?` may be
missing. Order, and that nothing else is said, is what is tested; `ignoring` leaves types out of both.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Sequence
from typing import Any

Json = dict[str, Any]
Event = tuple[str, Json]  # "C" or "S", and the event

# Sent all the time, wherever a caller is on the line.
APPEND = "input_audio_buffer.append"


def lines_of(table: str) -> list[str]:
    """The lines of a table that hold something."""
    return [line.split("#")[0].strip() for line in table.splitlines() if line.split("#")[0].strip()]


def match(table: str, events: Sequence[Event], ignoring: Collection[str] = ()) -> dict[str, str]:
    """Compare; returns {letter: id}. Raises `AssertionError`, which shows both sequences."""
    expected = [line for line in lines_of(table) if line.split()[1] not in ignoring]
    seen = [(who, event) for who, event in events if event.get("type") not in ignoring]
    ids: dict[str, str] = {}
    at = 0
    for line in expected:
        optional = line.startswith("?")
        who, kind, *demands = line.lstrip("? ").split()
        if at < len(seen) and (seen[at][0], seen[at][1].get("type")) == (who, kind):
            for demand in demands:
                problem = _differs(demand, seen[at][1], ids)
                assert not problem, f"{line}: {problem}\n{_shown(seen, at)}"
            at += 1
        else:
            assert optional, f"expected: {line}\n{_shown(seen, at)}"
    assert at == len(seen), f"expected nothing more\n{_shown(seen, at)}"
    return ids


def _shown(seen: Sequence[Event], at: int) -> str:
    return "\n".join(
        f"{'>>' if index == at else '  '} {who} {event.get('type')}" for index, (who, event) in enumerate(seen)
    )


def _differs(demand: str, event: Json, ids: dict[str, str]) -> str:
    path, _, wanted = demand.partition("=")
    value: Any = event
    for name in path.split("."):
        value = value[int(name)] if name.isdigit() else [v.get(name) for v in value] if isinstance(value, list) else (
            value.get(name) if isinstance(value, dict) else None
        )  # fmt: skip
    if wanted == "*":
        return "" if value is not None else f"{path} is missing"
    if re.fullmatch(r"[A-Z]\w*(,[A-Z]\w*)*", wanted):
        letters = wanted.split(",")
        values = value if isinstance(value, list) else [value]
        if len(values) != len(letters):
            return f"{path} is {value!r}"
        for letter, one in zip(letters, values, strict=True):
            if letter not in ids and one not in ids.values() and isinstance(one, str):
                ids[letter] = one
            elif ids.get(letter) != one:
                return f"{path} is {one!r}, and {letter} is {ids.get(letter)!r}"
        return ""
    try:
        plain = json.loads(wanted)
    except ValueError:
        plain = wanted
    return "" if value == plain else f"{path} is {value!r}"
