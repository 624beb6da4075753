"""How a call ends once the caller has heard everything: the goodbye that is playing, and the one still to be spoken.

A closing tool (`hang_up`, `transfer_call`) ends the call when its words have been heard. Where nobody has said goodbye yet
(a budget that is spent), the model is asked for a last word first.
"""

from __future__ import annotations

from dataclasses import dataclass

from bridge.dialogue import EndCall, TransferCall
from bridge.responses import Ask


@dataclass(slots=True)
class _Closing:
    command: EndCall | TransferCall
    quiet_since: float
    revocable: bool = False
    issued: bool = False


@dataclass(slots=True)
class _LastWord:
    ask: Ask
    end: EndCall | TransferCall
    overdue_at: float
    revocable: bool


class Endgame:
    """The end of one call, as far as it is decided. `goodbye_s`: longest wait for words that do not come or do not end."""

    def __init__(self, goodbye_s: float) -> None:
        self._goodbye_s = goodbye_s
        self._closing: _Closing | None = None
        self._last_word: _LastWord | None = None

    @property
    def closing(self) -> bool:
        return self._closing is not None

    @property
    def hands_over(self) -> bool:
        """The call is to end with a transfer, or one is being carried out."""
        return self._closing is not None and isinstance(self._closing.command, TransferCall)

    def close(self, command: EndCall | TransferCall, now: float) -> bool:
        """The call is to end with `command` when everything was heard. False: that is decided already, otherwise."""
        if self._closing is not None:
            return False
        last = self._last_word
        self._closing = _Closing(command, now, last is not None and last.end is command and last.revocable)
        self._last_word = None
        return True

    def instead(self, command: EndCall | TransferCall) -> bool:
        """End the call with `command`, whatever was decided before. False: that is being carried out already."""
        if self._closing is None or self._closing.issued:
            return False
        self._closing.command = command
        return True

    def reopen(self) -> None:
        """The hand-over did not work: the call goes on."""
        self._closing = None

    def wind_down(self, ask: Ask, end: EndCall | TransferCall, now: float, *, revocable: bool = False) -> bool:
        """The model is to say a last word (`ask`), and then the call ends with `end`; `revocable`: unless the caller is
        heard meanwhile. False: it is ending already."""
        if self._closing is not None or self._last_word is not None:
            return False
        self._last_word = _LastWord(ask, end, now + 2 * self._goodbye_s, revocable)
        return True

    @property
    def revocable(self) -> bool:
        """The call is about to end unless the caller is heard."""
        if self._closing is not None:
            return self._closing.revocable and not self._closing.issued
        return self._last_word is not None and self._last_word.revocable

    def revoke(self) -> bool:
        """The caller is heard: the call goes on, if it was to end for want of that. Returns whether it was."""
        revocable = self.revocable
        if revocable:
            self._closing = self._last_word = None
        return revocable

    @property
    def last_word(self) -> Ask | None:
        """What the model is still to say before the call ends."""
        return self._last_word.ask if self._last_word is not None else None

    def said(self, asked: Ask) -> EndCall | TransferCall | None:
        """The response that was asked for by `asked` is done: was it the last word? Then this is how the call ends."""
        if self._last_word is not None and self._last_word.ask is asked:
            return self._last_word.end
        return None

    def overdue(self, now: float) -> EndCall | TransferCall | None:
        """The last word has not been said in time (the caller goes on talking, or the model fails)."""
        if self._last_word is not None and now >= self._last_word.overdue_at:
            return self._last_word.end
        return None

    def drained(self) -> EndCall | TransferCall | None:
        """Everything was heard: what is to be done now, once."""
        if self._closing is None or self._closing.issued:
            return None
        self._closing.issued = True
        return self._closing.command

    def tick(self, now: float, *, idle: bool) -> EndCall | TransferCall | None:
        """A goodbye whose end nobody reports must not hold the call."""
        if self._closing is None:
            return None
        if not idle:
            self._closing.quiet_since = now
        elif now - self._closing.quiet_since >= self._goodbye_s:
            return self.drained()
        return None
