"""Which agent serves which call: the tables `[[routes]]` of `bridge.toml`, and the patterns in them.

A pattern is a text that must be equal, or one that begins with `_`, as in extensions.conf:

    X  0 to 9     Z  1 to 9     N  2 to 9     [1-49]  one of these     .  one or more characters     !  none or more

Everything else stands for itself. Unlike there small letters do too, and `-`, so that names can be matched; and `_`
alone is the empty text (a caller without a number). An empty pattern asks nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache

import msgspec

from bridge.toml_lines import dotted

_CLASSES = {"X": "[0-9]", "Z": "[1-9]", "N": "[2-9]", ".": ".+", "!": ".*"}
# A set, or one character; what is left over (an open bracket) is no pattern.
_PART = re.compile(r"\[([^\[\]]+)\]|([^\[\]])", re.DOTALL)
# NAME, or FUNCTION(arguments): what the dialplan writes between ${ and }.
_VARIABLE = re.compile(r"[A-Za-z_]\w*(\([^()${}]*\))?", re.ASCII)


class Route(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One way to an agent: it is taken if every pattern matches; the first such route wins.

    `argument`: the first one of `Stasis(app,argument)`. `called`: the extension. `caller`: the caller's number.
    `variables`: channel variables or dialplan functions by name, such as `PJSIP_HEADER(read,X-Tenant)`.
    """

    agent: str
    argument: str = ""
    called: str = ""
    caller: str = ""
    variables: dict[str, str] = {}


def matches(pattern: str, text: str) -> bool:
    """Whether `text` is what the pattern says."""
    if not pattern.startswith("_"):
        return pattern in ("", text)
    expression = _compiled(pattern)
    return expression is not None and expression.fullmatch(text) is not None


@cache
def _compiled(pattern: str) -> re.Pattern[str] | None:
    """None: that is no pattern. There are as many as the file holds."""
    parts, position = [], 1
    while position < len(pattern):
        part = _PART.match(pattern, position)
        if part is None:
            return None
        parts.append(_set(part[1]) if part[1] else _CLASSES.get(part[2]) or re.escape(part[2]))
        position = part.end()
    try:
        return re.compile("".join(parts), re.DOTALL)
    except re.error:  # [9-1]
        return None


def _set(inside: str) -> str:
    """A range keeps its `-`; a doubled one would mean something else to Python."""
    return f"[{re.sub('-+', '-', ''.join(it if it == '-' else re.escape(it) for it in inside))}]"


def problems(route: Route, at: str) -> Iterator[tuple[str, str]]:
    """What is wrong with the route whose table is `at`, as (place, remedy)."""
    fields = {key: getattr(route, key) for key in ("argument", "called", "caller")}
    for key, pattern in fields.items():
        yield from _wrong(f"{at}.{key}", pattern)
        if key != "argument" and pattern.startswith("_") and re.search(r"[xzn]", re.sub(r"\[.*?\]", "", pattern)):
            yield f"{at}.{key}", f"{pattern!r}: write X, Z and N in capital letters (for the letter itself: [n])"
    for name, pattern in route.variables.items():
        place = f"{at}.variables.{dotted((name,))}"
        if _VARIABLE.fullmatch(name) is None:
            yield (
                place,
                "must be a channel variable or a dialplan function, like TENANT or PJSIP_HEADER(read,X-Tenant)",
            )
        yield from _wrong(place, pattern)
        if not pattern:
            yield place, 'must say what is wanted: "_." for anything that is not empty'


def _wrong(place: str, pattern: str) -> Iterator[tuple[str, str]]:
    if pattern.startswith("_") and _compiled(pattern) is None:
        yield place, f"{pattern!r} is no pattern; write it like _2XX, _+49. or _[1-3]NX"
