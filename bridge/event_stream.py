"""Which events an observer wants, and a bounded queue between the session and an observer who may be slow.

A filter is a list of words, decided as follows:

* absent (None) is all events; an *empty* list is none. (jambonz takes an empty list for all, so whoever computes a list
  and ends with nothing gets everything.)
* `all`; an event's full type; or a prefix with `.*`: `conversation.item.*` takes every event below it, also those that do
  not exist yet. `*` is `all`.
* `-word` excludes what the word takes, whatever its place in the list. Exclusions alone are a mistake and refused: write
  `all` before them.
* The two streams of audio, `response.output_audio.delta` and `input_audio_buffer.append`, are in nothing but their own
  full names: 50 events a second that no wildcard means.
* The names of the beta protocol are taken for those of GA (`response.audio.*` for `response.output_audio.*`, ...), so that
  an old list still works; `renamed` says which, for a warning. Events keep their GA names.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

AUDIO_EVENTS = frozenset({"response.output_audio.delta", "input_audio_buffer.append"})

# What beta called GA's events, as far as names moved: a whole word, and what comes before `.delta`, `.done` and `.*`.
_BETA_WORDS = {"conversation.item.created": "conversation.item.added"}
_BETA_HEADS = {
    "response.audio": "response.output_audio",
    "response.audio_transcript": "response.output_audio_transcript",
    "response.text": "response.output_text",
}

_WORD = re.compile(r"-?(\*|[a-z_0-9]+(\.[a-z_0-9]+)*(\.\*)?)")


@dataclass(frozen=True, slots=True)
class EventFilter:
    """Included and excluded words, without their `-`. Make one with `parse`. `renamed`: old words, and what they became."""

    included: frozenset[str]
    excluded: frozenset[str] = frozenset()
    renamed: tuple[tuple[str, str], ...] = field(default=(), compare=False)

    @classmethod
    def parse(cls, words: Iterable[str] | None) -> EventFilter:
        """The filter of these words; None is all. Raises `ValueError`, which says what is wrong, for a word that can
        match nothing and for exclusions alone."""
        if words is None:
            return cls(frozenset({"all"}))
        included: set[str] = set()
        excluded: set[str] = set()
        renamed = []
        for word in words:
            if not _WORD.fullmatch(word):
                raise ValueError(f"event filter: {word!r} is no event type, no prefix with .* and not 'all'")
            plain = "all" if word.lstrip("-") == "*" else word.lstrip("-")
            if (new := _new_name(plain)) != plain:
                renamed.append((plain, new))
                plain = new
            (excluded if word.startswith("-") else included).add(plain)
        if excluded and not included:
            raise ValueError("event filter: only exclusions; write 'all' too if you want everything else")
        return cls(frozenset(included), frozenset(excluded), tuple(renamed))

    def takes(self, event_type: str) -> bool:
        """Whether an event of this type passes."""
        if event_type in AUDIO_EVENTS:
            return event_type in self.included and event_type not in self.excluded
        return _among(self.included, event_type) and not _among(self.excluded, event_type)


def _new_name(word: str) -> str:
    """A word as GA has it."""
    head, _, tail = word.rpartition(".")
    return f"{_BETA_HEADS[head]}.{tail}" if head in _BETA_HEADS else _BETA_WORDS.get(word, word)


def _among(words: frozenset[str], event_type: str) -> bool:
    if "all" in words or event_type in words:
        return True
    parts = event_type.split(".")
    return any(".".join([*parts[:depth], "*"]) in words for depth in range(1, len(parts)))


_Entry = TypeVar("_Entry")


class Backlog(Generic[_Entry]):
    """A queue of at most `size`: when it is full the oldest entry is dropped, and counted in `missed`.

    So an observer who sleeps neither stops the session nor grows without end, and can see that it lost something. What
    was dropped can be looked up: the conversation's state is in the cache, never only in the queue.
    """

    def __init__(self, size: int) -> None:
        if size < 1:
            raise ValueError("a queue holds at least one entry")
        self._entries: deque[_Entry] = deque(maxlen=size)
        self.missed = 0

    def put(self, entry: _Entry) -> None:
        """Never waits, never fails."""
        self.missed += len(self._entries) == self._entries.maxlen
        self._entries.append(entry)

    def take(self) -> _Entry | None:
        """The oldest entry, or None."""
        return self._entries.popleft() if self._entries else None

    def __len__(self) -> int:
        return len(self._entries)
