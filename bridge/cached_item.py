"""One item of a conversation as a client keeps it, and the audio that is kept with items.

What an item says grows by deltas, is replaced by the final text of its part, and is cut when the item is truncated: audio
and words together, for good (protocol sheet 3.6). Audio is the only thing that could grow without end (48,000 bytes a
second), so all items together share one bounded store, and the oldest item's audio goes first.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec

from bridge.event_fields import word


class ItemStatus(enum.StrEnum):
    """How far an item is. `INCOMPLETE` is an end too: interrupted, cancelled, or out of tokens."""

    IN_PROGRESS = "in_progress"
    COMPLETED = "completed"
    INCOMPLETE = "incomplete"


class AudioStore:
    """Audio by item id, at most `limit_bytes` in all (0: none is kept). The oldest item's audio is dropped first."""

    def __init__(self, limit_bytes: int) -> None:
        self.limit_bytes = limit_bytes
        self.size_bytes = 0
        self._of: dict[str, bytearray] = {}

    def extend(self, item_id: str, data: bytes) -> None:
        """Keep more of this item. One item alone above the limit keeps its beginning."""
        if not self.limit_bytes or not data:
            return
        kept = self._of.setdefault(item_id, bytearray())
        while self.size_bytes + len(data) > self.limit_bytes:
            if (oldest := next((other for other in self._of if other != item_id), None)) is None:
                break
            self.drop(oldest)
        data = data[: self.limit_bytes - self.size_bytes]
        kept += data
        self.size_bytes += len(data)

    def cut(self, item_id: str, nbytes: int) -> None:
        """Forget what is beyond the first `nbytes` of this item."""
        if (kept := self._of.get(item_id)) is not None and len(kept) > nbytes:
            self.size_bytes -= len(kept) - nbytes
            del kept[nbytes:]

    def drop(self, item_id: str) -> None:
        """Forget this item's audio, if there is any."""
        self.size_bytes -= len(self._of.pop(item_id, b""))

    def get(self, item_id: str) -> bytes:
        """A copy of what is kept of this item; empty if nothing is."""
        return bytes(self._of.get(item_id, b""))


@dataclass(slots=True)
class Part:
    """One content part: `kind` is `text`, `audio`, `image`, or what else the server calls it.

    `text` is the written text, or the transcript of audio. None: not known yet, or transcription is off.
    """

    kind: str
    text: str | None = None


_KINDS = {
    **dict.fromkeys(("text", "input_text", "output_text"), "text"),
    **dict.fromkeys(("audio", "input_audio", "output_audio"), "audio"),
    "input_image": "image",
}


@dataclass(slots=True, eq=False)
class CachedItem:
    """One item. Only the cache writes it; it goes on changing while it is in progress, so copy what must not.

    `role` is empty for function calls and their outputs. `response_id` names the response that made it. `received_bytes`
    counts the audio received, kept or not, and `bytes_per_ms` is its format (8: G.711). `truncated_ms`: where a truncation
    cut it. `apart`: it belongs to a response outside the conversation. `fields` is the item as the server last showed it,
    without its content.
    """

    id: str
    type: str = ""
    role: str = ""
    status: ItemStatus = ItemStatus.IN_PROGRESS
    name: str = ""
    call_id: str = ""
    arguments: str = ""
    output: str = ""
    response_id: str = ""
    apart: bool = False
    received_bytes: int = 0
    bytes_per_ms: int = 48
    truncated_ms: int | None = None
    parts: list[Part] = field(default_factory=list)
    fields: Mapping[str, Any] = field(default_factory=dict, repr=False)
    _store: AudioStore = field(default_factory=lambda: AudioStore(0), repr=False)

    @property
    def text(self) -> str:
        """All written text of a message."""
        return "".join(part.text or "" for part in self.parts if part.kind == "text")

    @property
    def transcript(self) -> str:
        """All words of a message's audio, as far as they are known. After a truncation: those heard, by proportion."""
        return " ".join(part.text for part in self.parts if part.kind == "audio" and part.text)

    @property
    def words(self) -> str:
        """What a message says, written or spoken, in order."""
        return " ".join(part.text for part in self.parts if part.text)

    @property
    def audio(self) -> bytes:
        """A copy of the audio kept, in the session's format. Empty where the store does not keep it (any more)."""
        return self._store.get(self.id)

    @property
    def received_ms(self) -> int:
        """How much audio has come: the most that an answer can be truncated to."""
        return self.received_bytes // self.bytes_per_ms

    @property
    def samples_per_ms(self) -> int:
        """24, or 8 with G.711."""
        return 24 if self.bytes_per_ms == 48 else 8

    @property
    def audio_index(self) -> int | None:
        """The content index of the audio; None: the item has no audio, so it can not be truncated."""
        return next((index for index, part in enumerate(self.parts) if part.kind == "audio"), None)

    @property
    def finished(self) -> bool:
        """No more of it comes."""
        return self.status is not ItemStatus.IN_PROGRESS

    # What the cache does with it -------------------------------------------------------------------------------------

    def show(self, wire: Mapping[str, Any]) -> None:
        """Take over what the server says of the item. None never replaces what is known; nothing grows back that was
        truncated."""
        self.fields = {key: value for key, value in wire.items() if key != "content"}
        self.type = word(wire, "type") or self.type
        self.role = word(wire, "role") or self.role
        self.name = word(wire, "name") or self.name
        self.call_id = word(wire, "call_id") or self.call_id
        # Some servers send the arguments as an object.
        arguments = wire.get("arguments")
        self.arguments = (
            msgspec.json.encode(arguments).decode() if isinstance(arguments, Mapping) else word(wire, "arguments")
        ) or self.arguments
        self.output = word(wire, "output") or self.output
        content = wire.get("content")
        if self.truncated_ms is not None or not isinstance(content, list):
            return
        for index, entry in enumerate(content):
            if isinstance(entry, Mapping):
                self.show_part(index, entry)

    def show_part(self, index: int, wire: Mapping[str, Any]) -> None:
        """Take over one content part, with its text if it has one."""
        if self.truncated_ms is None:
            part = self._part(index, _KINDS.get(kind := word(wire, "type"), kind))
            value = wire.get("transcript") if part.kind == "audio" else wire.get("text")
            part.text = value if isinstance(value, str) else part.text

    def add_text(self, index: int, kind: str, delta: str) -> None:
        """More text of a part of this kind."""
        part = self._part(index, kind)
        part.text = (part.text or "") + delta

    def set_text(self, index: int, kind: str, text: str) -> None:
        """The whole text of a part."""
        self._part(index, kind).text = text

    def add_audio(self, index: int, data: bytes) -> None:
        """More audio."""
        self._part(index, "audio")
        self.received_bytes += len(data)
        self._store.extend(self.id, data)

    def truncate(self, end_ms: int) -> None:
        """Cut audio and words at `end_ms`, for good. Which words were heard is an estimate: their share of the audio."""
        received_ms = self.received_ms
        for part in self.parts:
            if part.kind == "audio" and part.text is not None:
                part.text = _share(part.text, end_ms, received_ms)
        self.truncated_ms = min(end_ms, received_ms)
        self.received_bytes = min(self.received_bytes, end_ms * self.bytes_per_ms)
        self._store.cut(self.id, end_ms * self.bytes_per_ms)

    def _part(self, index: int, kind: str) -> Part:
        # A server may name a part before, with, or only after its first delta.
        while len(self.parts) <= index:
            self.parts.append(Part(kind))
        part = self.parts[index]
        if kind:
            part.kind = kind
        return part


def _share(words: str, end_ms: int, all_ms: int) -> str:
    """The words in the first `end_ms` of `all_ms`, cut at a word's end."""
    if end_ms >= all_ms:
        return words
    part = words[: len(words) * end_ms // all_ms]
    if len(part) < len(words) and not words[len(part)].isspace():
        part = part.rpartition(" ")[0]
    return part.rstrip()
