"""What went over a telephone's line: sipp's message trace, read while it grows."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

_HEAD = re.compile(
    rb"-{10,} (\d{4}-\d\d-\d\d)[ \t](\d\d:\d\d:\d\d\.\d+)\n"
    rb"UDP message (sent|received) [\[(](\d+)\]? bytes\)? ?:\n\n"
)


@dataclass(frozen=True)
class Message:
    """One SIP message: when (trio's clock), whether the telephone sent it, its first line, headers and body."""

    at_s: float
    sent: bool
    begins: str
    headers: tuple[tuple[str, str], ...]
    body: str

    @property
    def method(self) -> str:
        """Of a request; empty for an answer."""
        return "" if self.begins.startswith("SIP/") else self.begins.partition(" ")[0]

    @property
    def status(self) -> int:
        """Of an answer; 0 for a request."""
        return int(self.begins.split()[1]) if self.begins.startswith("SIP/") else 0

    def header(self, name: str) -> str:
        """The value of the first header of this name; empty if there is none."""
        return next((value for key, value in self.headers if key.lower() == name.lower()), "")

    @property
    def media(self) -> tuple[str, int] | None:
        """Where its SDP wants to hear audio."""
        address, port = re.search(r"^c=IN IP4 (\S+)", self.body, re.M), re.search(r"^m=audio (\d+)", self.body, re.M)
        return (address[1], int(port[1])) if address and port else None


def parsed(text: str, *, at_s: float, sent: bool) -> Message:
    """A message from its text."""
    head, _, body = text.replace("\r", "").partition("\n\n")
    begins, *lines = head.split("\n")
    pairs = [line.partition(":") for line in lines]
    return Message(at_s, sent, begins, tuple((name.strip(), value.strip()) for name, _, value in pairs), body)


@dataclass
class Trace:
    """A trace file that sipp writes; `clock_s` is what to add to its wall clock to have trio's."""

    path: Path
    clock_s: float
    _read: int = 0

    def news(self) -> Iterator[Message]:
        """The messages that were completed since the last time."""
        if not self.path.exists():
            return
        text = self.path.read_bytes()
        while head := _HEAD.search(text, self._read):
            end = head.end() + int(head[4])
            if end > len(text):
                return
            self._read = end
            wall = datetime.fromisoformat(f"{head[1].decode()} {head[2].decode()}").timestamp()
            content = text[head.end() : end].decode(errors="replace")
            yield parsed(content, at_s=wall + self.clock_s, sent=head[3] == b"sent")
