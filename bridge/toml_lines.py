"""Where each key of a TOML text stands: `lines_of` maps `agents.sales.session.audio.output.speed` to its line.

`tomllib` tells what a file says and not where. This reads the same text a second time, for places only: it takes the
text for valid (`tomllib` has accepted it) and understands headers, arrays of tables, dotted and quoted keys, strings of
all four kinds, and arrays and inline tables over several lines. A property test holds its keys against `tomllib`'s.
"""

from __future__ import annotations

import bisect
import re
import tomllib
from collections.abc import Mapping

Path = tuple[str | int, ...]

_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")
# Line ends, blanks and comments: what may stand between any two things where line ends mean nothing.
_SPACE = re.compile(r"(?:[ \t\r\n]|#[^\n]*)*")
# The multi-line kinds first. They end at the first three quotes, and up to two more that belong to the text.
_STRING = re.compile(
    r'"""(?:\\.|[^\\])*?"""(?:"{0,2})' r"|'''.*?'''(?:'{0,2})" r'|"(?:\\.|[^"\\])*"' r"|'[^']*'", re.DOTALL
)
_SCALAR = re.compile(r"[^,\]}#\n]*")  # numbers, booleans, and dates with the blank that they may hold


def dotted(path: Path) -> str:
    """A path as people write it: `routes[0].agent`; keys that TOML would have to quote are quoted."""
    words: list[str] = []
    for part in path:
        if isinstance(part, int):
            words.append(f"[{part}]")
        else:
            key = part if _BARE_KEY.fullmatch(part) else '"' + part.replace("\\", "\\\\").replace('"', '\\"') + '"'
            words.append(f".{key}" if words else key)
    return "".join(words)


def line_of(lines: Mapping[str, int], place: str) -> int | None:
    """The line (from 1) of `place`, else of the nearest table around it; None where the text says nothing of it."""
    while place:
        if place in lines:
            return lines[place]
        place = place[: max(place.rfind("."), place.rfind("["), 0)]
    return None


def lines_of(text: str) -> dict[str, int]:
    """{place: line} for every table, key and array element of `text`, which must be valid TOML."""
    return _Reader(text).lines


class _Reader:
    """One pass over the text. `_at` is the next character to read."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._line_ends = [match.start() for match in re.finditer("\n", text)]
        # How many tables each array of tables (`[[a]]`) holds so far; a later `[a.b]` means the last of them.
        self._arrays: dict[Path, int] = {}
        self.lines: dict[str, int] = {}
        table: Path = ()
        while self._next():
            if self._text.startswith("[[", self._at):
                table = self._header(2)
            elif self._text[self._at] == "[":
                table = self._header(1)
            else:
                self._pair(table)

    def _next(self) -> str:
        """Skip to the next thing and return its first character; empty at the end."""
        self._skip(_SPACE)
        return self._text[self._at : self._at + 1]

    def _skip(self, pattern: re.Pattern[str]) -> str:
        match = pattern.match(self._text, self._at)
        assert match is not None, f"not valid TOML at character {self._at}"
        self._at = match.end()
        return match[0]

    def _note(self, path: Path, at: int) -> None:
        """The first mention counts: `a.b = 1` on line 1 and `a.c = 2` on line 2 both make `a`."""
        self.lines.setdefault(dotted(path), bisect.bisect_left(self._line_ends, at) + 1)

    def _header(self, brackets: int) -> Path:
        start = self._at
        self._at += brackets
        keys = self._keys()
        self._at += brackets
        path: Path = ()
        for number, key in enumerate(keys, start=1):
            path += (key,)
            if brackets == 2 and number == len(keys):
                self._arrays[path] = self._arrays.get(path, 0) + 1
            self._note(path, start)
            if path in self._arrays:
                path += (self._arrays[path] - 1,)
                self._note(path, start)
        return path

    def _keys(self) -> list[str]:
        """A dotted key up to what follows it: `=` or `]`."""
        keys: list[str] = []
        while True:
            if self._next() in "\"'":
                # tomllib reads the escapes.
                keys.append(str(tomllib.loads(f"key = {self._skip(_STRING)}")["key"]))
            else:
                keys.append(self._skip(_BARE_KEY))
            if self._next() != ".":
                return keys
            self._at += 1

    def _pair(self, table: Path) -> None:
        self._next()
        start = self._at
        path = table
        for key in self._keys():
            path += (key,)
            self._note(path, start)
        self._at += 1  # the =
        self._value(path)

    def _value(self, path: Path) -> None:
        match self._next():
            case '"' | "'":
                self._skip(_STRING)
            case "[":
                self._at += 1
                index = 0
                while self._next() != "]":
                    self._note((*path, index), self._at)
                    self._value((*path, index))
                    index += 1
                    self._comma()
                self._at += 1
            case "{":
                self._at += 1
                while self._next() != "}":
                    self._pair(path)
                    self._comma()
                self._at += 1
            case _:
                self._skip(_SCALAR)

    def _comma(self) -> None:
        if self._next() == ",":
            self._at += 1
