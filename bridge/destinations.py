"""Where an agent may send a caller: the tables `[agents.NAME.transfers.DESTINATION]` of `bridge.toml`."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

import msgspec

from bridge.toml_lines import dotted

DESTINATION = re.compile(r"([\w*#+.-]+)(?:@([\w.-]+)(?:,(\w+))?)?", re.ASCII)
"""Where a caller can be sent in the dialplan: extension, context, priority."""


class Destination(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where the agent may send a caller: the model chooses the name by the description, never a number."""

    to: str
    description: str = ""


def problems(destinations: Mapping[str, Destination], at: str) -> Iterator[tuple[str, str]]:
    """What is wrong with the destinations whose table is `at`, as (place, remedy)."""
    for name, destination in destinations.items():
        if DESTINATION.fullmatch(destination.to) is None:
            yield (
                f"{at}.{dotted((name,))}.to",
                "must be exten, exten@context or exten@context,priority, like 600@phones",
            )
