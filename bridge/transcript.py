"""What was said and done in a call, kept for its record from the events that applications get."""

from __future__ import annotations

from bisect import insort
from collections.abc import Mapping
from typing import Any

from bridge.call_events import CallEvent
from bridge.call_record import CallRecord, Said, ToolUse
from bridge.history import LEFT_OUT

# The events that it is made of.
WORDS = ("transcript.final", "speech.started", "playback.started", "tool.called", "tool.answered")
# Half an hour of talk is 30,000 characters in 600 entries. What comes when either is full is left out, and counted.
MAX_CHARACTERS = 500_000
MAX_ENTRIES = 5_000
# Of one text: the longest that a tool may answer.
MAX_TEXT_CHARACTERS = 16_000
# Beginnings of speech whose words may still come.
_MOST_UNDERWAY = 64


class Transcript:
    """Fills `transcript`, `tool_uses` and `left_out` of a record whose call began at `began_s` (the events' clock).

    An entry's time is when it began to be heard: the caller's from `speech.started`, the agent's from `playback.started`
    and what was heard since. So `transcript` is in the order of the talk, though words come later.
    """

    def __init__(self, record: CallRecord, began_s: float) -> None:
        self._record = record
        self._began_s = began_s
        self._speech: dict[str, float] = {}
        self._playback_s = began_s
        self._tools: dict[str, ToolUse] = {}
        self._characters = 0

    def heard(self, event: CallEvent) -> None:
        """One event of `WORDS`, in order."""
        facts, now = event.event, event.at_s
        match event.type:
            case "speech.started":
                self._speech[facts["item_id"]] = now
                if len(self._speech) > _MOST_UNDERWAY:
                    del self._speech[next(iter(self._speech))]
            case "playback.started":
                self._playback_s = now
            case "transcript.final" if facts["role"] == "agent":
                self._said(self._playback_s, facts)
                self._playback_s += (facts["heard_ms"] or 0) / 1000
            case "transcript.final":
                self._said(self._speech.pop(facts["item_id"], now), facts)
            case "tool.called":
                self._called(now, facts)
            case "tool.answered" if (use := self._tools.pop(facts["tool_call_id"], None)) is not None:
                use.lasted_s, use.failed = facts["lasted_ms"] / 1000, facts["failed"]
                use.output = self._kept(facts["output"]) or ""

    def _said(self, at_s: float, facts: Mapping[str, Any]) -> None:
        if facts["text"].strip() and (text := self._kept(facts["text"])) is not None:
            said = Said(self._since_began(at_s), facts["role"], text, facts["interrupted"])
            insort(self._record.transcript, said, key=lambda it: it.at_s)

    def _called(self, now: float, facts: Mapping[str, Any]) -> None:
        if (arguments := self._kept(facts["arguments"])) is not None:
            use = ToolUse(self._since_began(now), facts["tool_call_id"], facts["name"], arguments)
            self._tools[use.tool_call_id] = use
            self._record.tool_uses.append(use)

    def _since_began(self, at_s: float) -> float:
        return round(at_s - self._began_s, 3)

    def _kept(self, text: str) -> str | None:
        """The text as it is kept; None: there is no room for it."""
        if len(text) > MAX_TEXT_CHARACTERS:
            text = text[:MAX_TEXT_CHARACTERS] + LEFT_OUT
        entries = len(self._record.transcript) + len(self._record.tool_uses)
        if self._characters + len(text) > MAX_CHARACTERS or entries >= MAX_ENTRIES:
            self._record.left_out += 1
            return None
        self._characters += len(text)
        return text
