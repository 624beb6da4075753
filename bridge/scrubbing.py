"""What a tool was given, taken out of what its failure says, before that is logged."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import msgspec

# Shorter ones stand in every text by chance, and tell nobody anything.
_SHORTEST = 3
_HIDDEN = "***"


def scrubbed(text: str, arguments: str, secrets: Iterable[str] = ()) -> str:
    """`text` without the values in `arguments` (JSON, maybe broken) and without `secrets`, wherever they stand in it as
    they are or quoted. What a tool made of them, half a number say, is not found."""
    try:
        values = set(_values(msgspec.json.decode(arguments or "{}")))
    except (msgspec.DecodeError, RecursionError):
        values = {arguments}
    for value in sorted(values | set(secrets), key=len, reverse=True):
        for written in {value, repr(value)[1:-1], msgspec.json.encode(value).decode()[1:-1]}:
            if len(written) >= _SHORTEST:
                text = text.replace(written, _HIDDEN)
    return text


def _values(tree: object) -> Iterator[str]:
    if isinstance(tree, dict):
        for inner in tree.values():
            yield from _values(inner)
    elif isinstance(tree, list):
        for inner in tree:
            yield from _values(inner)
    elif isinstance(tree, str):
        yield tree
    elif isinstance(tree, int | float) and not isinstance(tree, bool):
        yield str(tree)
