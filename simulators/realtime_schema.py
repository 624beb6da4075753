"""Small checkers for JSON values, and the words with which the Realtime server refuses one.

A `Check` is a function of a value and its path; it raises `Refusal` or returns nothing. Codes and messages follow
section 4 of the protocol notes and what was seen of the real ones.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Mapping
from typing import Any

Check = Callable[[Any, str], None]
Json = dict[str, Any]


class Refusal(Exception):
    """The server answers with an `error` event. `code` and `param` may be None, as at the real one."""

    def __init__(
        self, code: str | None, message: str, param: str | None = None, *, kind: str = "invalid_request_error"
    ) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.param = param
        self.kind = kind


def _named(value: Any) -> str:
    """A JSON value's type as the server names it in messages."""
    match value:
        case None:
            return "null"
        case bool():
            return "a boolean"
        case int():
            return "an integer"
        case float():
            return "a decimal"
        case str():
            return "a string"
        case list():
            return "an array"
    return "an object"


def _expect(condition: bool, expected: str, value: Any, path: str) -> None:
    if not condition:
        got = _named(value)
        raise Refusal("invalid_type", f"Invalid type for '{path}': expected {expected}, but got {got} instead.", path)


def text(longest: int | None = None) -> Check:
    """A string of at most `longest` characters."""

    def check(value: Any, path: str) -> None:
        _expect(isinstance(value, str), "a string", value, path)
        if longest is not None and len(value) > longest:
            raise Refusal(
                "invalid_value",
                f"Invalid '{path}': string too long. Expected a string with maximum length {longest}, "
                f"but got a string with length {len(value)} instead.",
                path,
            )

    return check


def flag(value: Any, path: str) -> None:
    """A boolean; null is refused (seen: "expected boolean, got null")."""
    _expect(isinstance(value, bool), "a boolean", value, path)


def number(low: float, high: float, *, whole: bool = False) -> Check:
    """A number within `low` and `high`; `whole`: JSON integers only, so 640.0 is refused."""

    def check(value: Any, path: str) -> None:
        kinds: tuple[type, ...] = (int,) if whole else (int, float)
        expected = "an integer" if whole else "a decimal"
        _expect(isinstance(value, kinds) and not isinstance(value, bool), expected, value, path)
        if not low <= value <= high:
            side, limit, sign = ("below minimum", low, ">=") if value < low else ("above maximum", high, "<=")
            raise Refusal(
                "invalid_value",
                f"Invalid '{path}': {expected.split()[1]} {side} value. Expected a value {sign} {limit}, "
                f"but got {value} instead.",
                path,
            )

    return check


def one_of(*allowed: str) -> Check:
    """One of these strings."""

    def check(value: Any, path: str) -> None:
        if value not in allowed or not isinstance(value, str):
            listed = ", ".join(f"'{name}'" for name in allowed)
            raise Refusal("invalid_value", f"Invalid value: '{value}'. Supported values are: {listed}.", path)

    return check


def nullable(inner: Check) -> Check:
    """Null, or what `inner` accepts."""

    def check(value: Any, path: str) -> None:
        if value is not None:
            inner(value, path)

    return check


def each(inner: Check, *, fewest: int = 0) -> Check:
    """A list, every element of which `inner` accepts."""

    def check(value: Any, path: str) -> None:
        _expect(isinstance(value, list), "an array", value, path)
        if len(value) < fewest:
            raise Refusal("invalid_value", f"Invalid '{path}': expected at least {fewest} element(s).", path)
        for index, element in enumerate(value):
            inner(element, f"{path}[{index}]")

    return check


def anything(_value: Any, _path: str) -> None:
    """No rule: the notes know none."""


def free_object(value: Any, path: str) -> None:
    """An object with any keys, such as a JSON schema."""
    _expect(isinstance(value, dict), "an object", value, path)


def fields(known: Mapping[str, Check], required: tuple[str, ...] = ()) -> Check:
    """An object with these keys only. With an empty `path` (a whole event) names have no prefix."""

    def check(value: Any, path: str) -> None:
        _expect(isinstance(value, dict), "an object", value, path)
        prefix = f"{path}." if path else ""
        for name in required:
            if name not in value:
                raise Refusal(
                    "missing_required_parameter", f"Missing required parameter: '{prefix}{name}'.", prefix + name
                )
        for name, inner in value.items():
            if name not in known:
                raise Refusal("unknown_parameter", f"Unknown parameter: '{prefix}{name}'.", prefix + name)
            known[name](inner, prefix + name)

    return check


def by_type(kinds: Mapping[str, Check]) -> Check:
    """An object whose `type` chooses its rule."""

    def check(value: Any, path: str) -> None:
        _expect(isinstance(value, dict), "an object", value, path)
        if "type" not in value:
            raise Refusal("missing_required_parameter", f"Missing required parameter: '{path}.type'.", f"{path}.type")
        one_of(*kinds)(value["type"], f"{path}.type")
        kinds[value["type"]](value, path)

    return check


def words_or_object(words: tuple[str, ...], otherwise: Check) -> Check:
    """One of `words`, or an object that `otherwise` accepts."""

    def check(value: Any, path: str) -> None:
        if isinstance(value, str):
            one_of(*words)(value, path)
        else:
            otherwise(value, path)

    return check


def base64_audio(value: Any, path: str) -> None:
    """Base64 of 1 byte to 15 MiB; the alphabet is checked strictly."""
    _expect(isinstance(value, str), "a string", value, path)
    try:
        size = len(base64.b64decode(value, validate=True))
    except (binascii.Error, ValueError):
        size = 0
    if not 0 < size <= 15 * 2**20:
        raise Refusal(
            "invalid_value", f"Invalid '{path}'. Expected base64-encoded audio bytes, but got an invalid value.", path
        )
