"""What was said and done in a call, by whom, and how much of it was heard.

Entries are kept in the order in which they first appeared, since transcripts may come late and out of order; turns are
keyed by item id. What the caller heard of the agent comes from the playout ledger, never from a guess by the clock. A
session that takes over from another is told all this as text (`replay`), since a Realtime session can not be resumed.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from bridge.audio import MODEL_FORMAT

# About 6,000 tokens: a fifth of the smallest context (32k tokens, protocol sheet 1.2), beside instructions and tools of at
# most 16k. What is older is left out, the newest stays.
REPLAY_CHARACTERS = 24_000
# Of one text, so that the output of one tool can not push all the rest out.
REPLAY_ENTRY_CHARACTERS = REPLAY_CHARACTERS // 4
# A session that takes over is told at once, through a queue of 256 events (`uplink`), and within 500 ms.
REPLAY_ITEMS = 150
# The longest id that a client may give an item; other servers than OpenAI make longer ones (UUIDs).
MAX_ITEM_ID = 32
LEFT_OUT = " (The rest is left out here.)"
NOT_TRANSCRIBED = "(The caller said something that was not transcribed.)"


class Speaker(enum.StrEnum):
    CALLER = "caller"
    AGENT = "agent"
    SYSTEM = "system"


@dataclass(slots=True)
class Turn:
    """One message of the conversation. `heard_ms` is None until it is decided how much the caller heard. `first_id` is the
    item that it came as; `item_id` that of the present session.

    `received_bytes` counts the model's audio (PCM16, 24 kHz); `complete`: no more words come; `told`: the turn has been
    reported. `written`: it is a text of the present session (typed, or replayed), so it can not be truncated, only
    written anew. `here`: the present session has it.
    """

    item_id: str
    speaker: Speaker
    text: str = ""
    received_bytes: int = 0
    heard_ms: int | None = None
    told: bool = False
    complete: bool = False
    written: bool = False
    here: bool = True
    first_id: str = field(init=False)

    def __post_init__(self) -> None:
        self.first_id = self.item_id

    @property
    def received_ms(self) -> int:
        return self.received_bytes // MODEL_FORMAT.bytes_per_ms

    @property
    def interrupted(self) -> bool:
        return self.heard_ms is not None and self.heard_ms < self.received_ms

    @property
    def heard_text(self) -> str:
        """The words that the caller can have heard: cut in proportion to the audio, at a word's end."""
        if not self.interrupted or self.heard_ms is None:
            return self.text
        part = self.text[: len(self.text) * self.heard_ms // self.received_ms]
        if len(part) < len(self.text) and not self.text[len(part)].isspace():
            part = part.rpartition(" ")[0]
        return part.rstrip()

    def as_items(self) -> list[dict[str, Any]]:
        """This turn as text, for another session; nothing where nothing was heard."""
        if self.speaker is Speaker.AGENT:
            return [message_item("assistant", shortened(self.heard_text), self.item_id)] if self.heard_text else []
        if not self.text and self.complete:
            return []  # a silence, or a noise
        role = "user" if self.speaker is Speaker.CALLER else "system"
        return [message_item(role, shortened(self.text) or NOT_TRANSCRIBED, self.item_id)]


@dataclass(slots=True)
class ToolUse:
    """A call of a tool, and its output once there is one. `here`: the present session knows the call itself. `called_at`:
    seconds of the dialogue's clock."""

    call_id: str
    name: str
    arguments: str
    output: str | None = None
    here: bool = True
    called_at: float = 0.0

    def as_items(self) -> list[dict[str, Any]]:
        """Call and output for another session; nothing while there is no output: it follows when it is there."""
        if self.output is None:
            return []
        return [self.call_item(), output_item(self.call_id, shortened(self.output))]

    def call_item(self) -> dict[str, Any]:
        return {"type": "function_call", "call_id": self.call_id, "name": self.name, "arguments": self.arguments}


class History:
    """The turns and tool calls of one call so far."""

    def __init__(self) -> None:
        self._turns: dict[str, Turn] = {}
        self._tools: dict[str, ToolUse] = {}
        self._order: list[Turn | ToolUse] = []
        self._renamed = 0

    def turn(self, item_id: str, speaker: Speaker) -> Turn:
        """The turn of this item, made at its first mention."""
        found = self._turns.get(item_id)
        if found is None:
            found = self._turns[item_id] = Turn(item_id, speaker)
            self._order.append(found)
        return found

    def wrote(self, item_id: str, speaker: Speaker, text: str) -> Turn:
        """A message that was put into the conversation as text."""
        turn = self.turn(item_id, speaker)
        turn.text, turn.written = text, True
        return turn

    def replied(self, item_id: str, text: str) -> None:
        """The agent wrote this and spoke nothing of it: another session is to know it, and nobody heard it."""
        turn = self.wrote(item_id, Speaker.AGENT, text)
        turn.complete = turn.told = True
        turn.heard_ms = turn.received_ms

    def tool_called(self, call_id: str, name: str, arguments: str, now: float = 0.0) -> bool:
        """Note a call of a tool; False when this call was known already."""
        if call_id in self._tools:
            return False
        use = self._tools[call_id] = ToolUse(call_id, name, arguments, called_at=now)
        self._order.append(use)
        return True

    def tool(self, call_id: str) -> ToolUse | None:
        return self._tools.get(call_id)

    def forget(self, item_id: str) -> None:
        """This item was never part of the conversation (a noise)."""
        turn = self._turns.pop(item_id, None)
        if turn is not None:
            self._order.remove(turn)

    def __contains__(self, item_id: str) -> bool:
        return item_id in self._turns

    def __iter__(self) -> Iterator[Turn]:
        return (it for it in self._order if isinstance(it, Turn))

    def before(self, item_id: str) -> str:
        """The item that stands before this one, for `previous_item_id`: `root` where there is none."""
        previous = "root"
        for turn in self:
            if turn.item_id == item_id:
                break
            if turn.here and turn.as_items():
                previous = turn.item_id
        return previous

    def undecided(self) -> list[Turn]:
        """The agent's turns of which it is not yet known how much was heard, in order."""
        return [it for it in self if it.speaker is Speaker.AGENT and it.heard_ms is None]

    def replay(self, leave_out: str = "") -> list[dict[str, Any]]:
        """Everything so far as items for `conversation.item.create`, oldest first; the oldest are left out where it is
        too much. `leave_out` is a turn whose audio is sent again instead. From here on the entries are the new session's.
        """
        items: list[dict[str, Any]] = []
        characters = 0
        full = False
        again = self._turns.get(leave_out)
        for entry in reversed(self._order):
            if isinstance(entry, Turn) and len(entry.item_id) > MAX_ITEM_ID:
                self._renamed += 1
                entry.item_id = f"turn-{self._renamed}"
            mine = [] if entry is again else entry.as_items()
            characters += sum(len(str(it)) for it in mine)
            full = full or characters > REPLAY_CHARACTERS or len(items) + len(mine) > REPLAY_ITEMS
            entry.here = bool(mine) and not full
            if isinstance(entry, Turn):
                entry.written = True
            if not full:
                items[:0] = mine
        return items


def shortened(text: str) -> str:
    """A text as another session is told of it."""
    return text if len(text) <= REPLAY_ENTRY_CHARACTERS else text[:REPLAY_ENTRY_CHARACTERS] + LEFT_OUT


def message_item(role: str, text: str, item_id: str = "") -> dict[str, Any]:
    """A message as text; what the assistant said is `output_text`, everything else `input_text` (section 2.3)."""
    kind = "output_text" if role == "assistant" else "input_text"
    named = {"id": item_id} if item_id else {}
    return {**named, "type": "message", "role": role, "content": [{"type": kind, "text": text}]}


def output_item(call_id: str, output: str) -> dict[str, Any]:
    """The result of a tool. `output` is text, always."""
    return {"type": "function_call_output", "call_id": call_id, "output": output}
