"""What is kept of ended calls: the table `[records]` of `bridge.toml`, and `[agents.NAME.records]` of each agent.

The settings and their checks alone; `redaction` carries out what an agent asks for, `record_keeper` writes.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Literal
from urllib.parse import urlsplit

import msgspec

KINDS = ("card_numbers", "digits", "emails", "ibans", "phone_numbers")
"""What `redact` knows by name; `redaction` has their patterns."""

AS_RECORDS = -1
"""An agent's `retention_days` that is not its own, but that of `[records]`."""

_MOST_DAYS = 36_500


class Records(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where records go. `url` empty: nowhere; a relative SQLite file lies in `server.data_dir`. `retention_days` 0: they
    are kept for ever."""

    url: str = "sqlite:///calls.db"
    retention_days: int = 0


class AgentRecords(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How much is kept of one agent's calls. `keep_numbers` is about the person at the other end of the line."""

    retention_days: int = AS_RECORDS
    keep_transcript: bool = True
    keep_tool_arguments: bool = True
    keep_numbers: Literal["whole", "masked", "none"] = "whole"
    redact: list[str] = []


def problems(records: Records, at: str = "records") -> Iterator[tuple[str, str]]:
    """What is wrong with the table `at`, as (place, remedy)."""
    if records.url and not _is_database(records.url):
        yield (
            f"{at}.url",
            "must be sqlite:///FILE (sqlite:////FOLDER/FILE with its whole path), "
            'postgresql://USER:PASSWORD@HOST/DATABASE, or "" for no records',
        )
    if not 0 <= records.retention_days <= _MOST_DAYS:
        yield f"{at}.retention_days", f"must be 1 to {_MOST_DAYS}, or 0 for ever"


def _is_database(url: str) -> bool:
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        return False
    if parts.scheme == "sqlite":
        # Of a database in memory each connection would have its own.
        return not parts.netloc and len(parts.path) > 1 and parts.path != "/:memory:"
    return parts.scheme in POSTGRESQL and len(parts.path) > 1


POSTGRESQL = ("postgresql", "postgres", "postgresql+psycopg")
"""The schemes of a PostgreSQL URL, as people write them."""


def agent_problems(kept: AgentRecords, at: str) -> Iterator[tuple[str, str]]:
    """What is wrong with an agent's table `at`, as (place, remedy)."""
    if not AS_RECORDS <= kept.retention_days <= _MOST_DAYS:
        yield (
            f"{at}.retention_days",
            f"must be 1 to {_MOST_DAYS}, 0 for ever, or {AS_RECORDS} for records.retention_days",
        )
    for index, word in enumerate(kept.redact):
        place = f"{at}.redact[{index}]"
        text = expression_in(word)
        if text is None:
            if word not in KINDS:
                yield (
                    place,
                    f"must be one of {', '.join(KINDS)}, or a regular expression between slashes, like '/[0-9]+/'",
                )
            continue
        try:
            expression = re.compile(text)
        except re.error as error:
            yield place, f"is no regular expression: {error}"
            continue
        if expression.search(""):
            yield place, "must not match where there is nothing"


def expression_in(word: str) -> str | None:
    """The regular expression of an entry of `redact`; None: it is the name of a kind. Its slashes tell the two apart, so
    that a name that is misspelt is an error and not an expression that never matches."""
    return word[1:-1] if len(word) > 2 and word.startswith("/") and word.endswith("/") else None


def days_of(kept: AgentRecords, records: Records) -> int:
    """For how many days a call of this agent is kept; 0: for ever."""
    return records.retention_days if kept.retention_days == AS_RECORDS else kept.retention_days
