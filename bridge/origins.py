"""Where each setting comes from: a line of a file, an environment variable, the command line; else it is a default.

For errors, which name the place to edit, and for `check-config`. The last one that `note`s a setting is the one in force.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

COMMAND_LINE = "command line"
DEFAULT = "default"


class Origin(msgspec.Struct, frozen=True):
    """`where` for people: "bridge.toml:17", "environment variable BRIDGE_WORKERS". `written`: the name that the setting has
    there, if it is another than ours."""

    where: str
    written: str = ""


class Origins:
    """Of one set of settings, by place: `agents.sales.voice`. `source` is the file, as it was named."""

    def __init__(self, source: str, lines: Mapping[str, int]) -> None:
        self.source = source
        self._of = {place: Origin(f"{source}:{line}") for place, line in lines.items()}

    def note(self, place: str, origin: Origin) -> None:
        """`place` is set there, whoever set it before."""
        self._of[place] = origin

    def of(self, place: str) -> str:
        """Where exactly this setting was set, in words: "default" if nowhere."""
        origin = self._of.get(place)
        if origin is None:
            return DEFAULT
        return f"{origin.where} ({origin.written})" if origin.written else origin.where

    def written(self, place: str) -> str:
        """The name that this setting has where it was set."""
        origin = self._of.get(place)
        return (origin.written or place) if origin else ""

    def blamed(self, place: str) -> Origin | None:
        """Where this setting was set, else the nearest table around it."""
        while place:
            if place in self._of:
                return self._of[place]
            place = place[: max(place.rfind("."), place.rfind("["), 0)]
        return None

    def located(self, message: str) -> str:
        """`message` with what gave the setting that it begins with: `bridge.toml:17: realtime.url: ...`.

        As it is if it begins with no setting, with one that nobody set, or with a place already.
        """
        place, colon, remedy = message.partition(": ")
        if not colon or message.startswith((f"{self.source}:", f"{COMMAND_LINE}, ", "environment variable ")):
            return message
        origin = self.blamed(place)
        if origin is None:
            return message
        if origin.written:
            return f"{origin.where}: {origin.written}: {remedy}"
        return f"{origin.where}{', ' if origin.where == COMMAND_LINE else ': '}{message}"
