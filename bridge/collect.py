"""What an agent may have the caller key in: the tables `[agents.NAME.collect.ENTRY]` of `bridge.toml`."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

import msgspec

from bridge.keys import KEYS, is_key
from bridge.toml_lines import dotted

# What an application finds an entry by, and the model calls it.
_NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}", re.ASCII)
# More than any number that people key in: 19 digits of a card, 34 characters of a bank account.
MOST_DIGITS = 40


class Collect(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One entry. `timeout_s`: to the first key, counted from the end of the agent's words; `pause_s`: from key to key.

    `secure`: the digits reach neither the model nor any log, record or recording, only the application.
    """

    description: str = ""
    min_digits: int = 1
    max_digits: int = 20
    timeout_s: float = 15.0
    pause_s: float = 5.0
    terminator: str = "#"
    secure: bool = False


def problems(entries: Mapping[str, Collect], at: str) -> Iterator[tuple[str, str]]:
    """What is wrong with the entries whose table is `at`, as (place, remedy)."""
    for name, entry in entries.items():
        place = f"{at}.{dotted((name,))}"
        if not _NAME.fullmatch(name):
            yield place, "a name has 1 to 64 of the characters a-z A-Z 0-9 _ and -"
        if not 1 <= entry.max_digits <= MOST_DIGITS:
            yield f"{place}.max_digits", f"must be 1 to {MOST_DIGITS}"
        if not 1 <= entry.min_digits <= entry.max_digits:
            yield f"{place}.min_digits", "must be 1 to max_digits"
        if not 1 <= entry.timeout_s <= 120:
            yield f"{place}.timeout_s", "must be 1 to 120"
        if not 0.5 <= entry.pause_s <= 60:
            yield f"{place}.pause_s", "must be 0.5 to 60"
        if entry.terminator and not is_key(entry.terminator):
            yield f"{place}.terminator", f'must be one key of {KEYS}, or "" for none'
