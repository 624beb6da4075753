"""What was said in a call, by whom, and how much of it was heard.

Turns are kept in the order in which their items first appeared, since transcripts may come late and out of order; they
are keyed by item id. What the caller heard of the agent comes from the playout ledger, never from a guess by the clock.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator
from dataclasses import dataclass

from bridge.audio import MODEL_FORMAT


class Speaker(enum.StrEnum):
    CALLER = "caller"
    AGENT = "agent"


@dataclass(slots=True)
class Turn:
    """One item of the conversation. `heard_ms` is None until it is decided how much the caller heard.

    `received_bytes` counts the model's audio (PCM16, 24 kHz); `told` is set once the turn has been reported.
    """

    item_id: str
    speaker: Speaker
    text: str = ""
    received_bytes: int = 0
    heard_ms: int | None = None
    told: bool = False

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


class History:
    """The turns of one call so far."""

    def __init__(self) -> None:
        self._turns: dict[str, Turn] = {}

    def turn(self, item_id: str, speaker: Speaker) -> Turn:
        """The turn of this item, made at its first mention."""
        return self._turns.setdefault(item_id, Turn(item_id, speaker))

    def __contains__(self, item_id: str) -> bool:
        return item_id in self._turns

    def __iter__(self) -> Iterator[Turn]:
        return iter(self._turns.values())

    def undecided(self) -> list[Turn]:
        """The agent's turns of which it is not yet known how much was heard, in order."""
        return [it for it in self._turns.values() if it.speaker is Speaker.AGENT and it.heard_ms is None]
