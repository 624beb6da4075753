"""What is taken out of texts before they are kept: card numbers and the like, an agent's own patterns, telephone numbers.

It sees one text at a time and knows no language: a number that was said, and written down, in words stays. Patterns are
searched from left to right, one kind after the other, in time proportional to the text, save an operator's own.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Any, Literal

import msgspec

from bridge.records import expression_in

_MASKED_DIGITS = 4
# A shorter number (an extension) stands in too many texts that are not about it.
_LEAST_TELLING = 6
# What a speaker or a transcript puts between the digits of one number.
_GAP = r"[ .\-]{0,2}"


def _is_card(text: str) -> bool:
    """Whether the digits pass the check that every card number passes (Luhn, ISO/IEC 7812-1 annex B)."""
    digits = [int(c) for c in reversed(text) if c.isdecimal()]
    return sum(digits[::2]) % 10 == -sum(sum(divmod(2 * it, 10)) for it in digits[1::2]) % 10


_Pattern = tuple[re.Pattern[str], str, Callable[[str], bool]]


def _always(_text: str) -> bool:
    return True


_PATTERNS: dict[str, _Pattern] = {
    # 13 to 19 digits, not a part of a longer number.
    "card_numbers": (re.compile(rf"(?<!\d)\d(?:{_GAP}\d){{12,18}}(?!\d)"), "[card number]", _is_card),
    "ibans": (re.compile(r"\b[A-Za-z]{2}\d{2}(?: ?[A-Za-z0-9]{4}){2,7}(?: ?[A-Za-z0-9]{1,3})?\b"), "[IBAN]", _always),
    "emails": (
        # From the beginning of a word only: else 16,000 letters without a space took 66 ms, and all calls stand still.
        re.compile(r"(?<![\w.+\-])[\w.+\-]{1,64}(?:@| at )[\w\-]{1,63}(?:(?:\.| dot )[\w\-]{1,63}){1,5}"),
        "[e-mail address]",
        lambda text: "@" in text or " dot " in text,
    ),
    # From 7 digits on, with the plus, zeros and brackets that such numbers begin with.
    "phone_numbers": (
        re.compile(r"(?<![\w+])(?:\+ ?|\(\+?)?\d(?:[ .\-/()]{0,2}\d){6,14}(?!\d)"),
        "[phone number]",
        _always,
    ),
    "digits": (re.compile(rf"\d(?:{_GAP}\d){{3,}}"), "[digits]", _always),
}
# The ones that say most first: of a card number "digits" would leave nothing to be recognised.
_ORDER = ("emails", "ibans", "card_numbers", "phone_numbers", "digits")


class Redactor:
    """Made of the words of `records.AgentRecords.redact`, and of texts that are to be replaced wherever they stand."""

    def __init__(self, words: Iterable[str], replaced: Iterable[tuple[str, str]] = ()) -> None:
        """`replaced`: (text, what stands in its place), for a caller's number."""
        chosen = set(words)
        own = [text for word in words if (text := expression_in(word)) is not None]
        self._patterns: list[_Pattern] = [(re.compile(text), "[redacted]", _always) for text in own]
        self._patterns += [_PATTERNS[kind] for kind in _ORDER if kind in chosen]
        self._replaced = [(was, now) for was, now in replaced if sum(map(str.isdigit, was)) >= _LEAST_TELLING]

    def text(self, text: str) -> str:
        """The text as it may be kept."""
        for was, now in self._replaced:
            text = text.replace(was, now)
        return self._without_patterns(text)

    def _without_patterns(self, text: str) -> str:
        for pattern, instead, applies in self._patterns:
            text = pattern.sub(lambda found: instead if applies(found[0]) else found[0], text)  # noqa: B023
        return text

    def json_text(self, text: str) -> str:
        """A text that may be JSON, as tools are called with and answer: then its values are looked at one by one, so that
        it stays JSON."""
        try:
            value = msgspec.json.decode(text)
        except (msgspec.DecodeError, UnicodeError):
            return self.text(text)
        if not isinstance(value, dict | list):
            return self.text(text)
        kept = self.plain(value)
        return text if kept == value else msgspec.json.encode(kept).decode()

    def plain(self, value: Any) -> Any:
        """The same for JSON-plain values: texts, keys, and numbers that are found to be something else than a figure."""
        match value:
            case str():
                return self.text(value)
            case bool() | None:
                return value
            case int() | float():
                told = str(value)
                kept = dict(self._replaced).get(told) or self._without_patterns(told)
                return value if kept == told else kept
            case dict():
                return {self.text(str(key)): self.plain(inner) for key, inner in value.items()}
            case list() | tuple():
                return [self.plain(inner) for inner in value]
        return value


def kept_number(party: str, keep: Literal["whole", "masked", "none"]) -> str:
    """Who was at the other end, as `keep_numbers` wants it. `party` is a number, perhaps with a name (`1001 Alice`),
    or an endpoint. Masked: without the name, and without the last four digits; of a user's name the first letter stays."""
    if keep == "whole":
        return party
    if keep == "none":
        return ""
    number = number_in(party)
    if not number:
        return party[:1] + "****" if party else ""
    digits = [index for index, c in enumerate(number) if c.isdecimal()][-_MASKED_DIGITS:]
    masked = "".join("*" if index in digits else c for index, c in enumerate(number))
    return party.split(" ", maxsplit=1)[0].replace(number, masked, 1)


def number_in(party: str) -> str:
    """The telephone number in it: the longest run of digits, as it is written; empty where there is none of two."""
    return max(_NUMBER.findall(party.split(" ", maxsplit=1)[0]), key=len, default="")


_NUMBER = re.compile(r"\+?\d[\d().\-]*\d")
