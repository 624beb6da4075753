"""What the dialplan is to do with a caller whom ARI can not move: one line a call, which it asks for by CURL().

    hang_up,REASON               the agent said goodbye
    continue,REASON              the agent can not serve this caller (any more): somebody else should
    goto,CONTEXT,EXTEN,PRIORITY  transferred; as Goto() takes it; an empty CONTEXT is the one that the caller came from

REASON is the word that ARI calls find in BRIDGE_END_REASON. Kept after the end of a call for a while, since the dialplan
asks only then, and bounded, since not every dialplan asks.
"""

from __future__ import annotations

from collections import OrderedDict

from bridge.destinations import DESTINATION
from bridge.ending import FAREWELLS, ChannelAction, EndReason

KEPT_S = 300.0
MOST_KEPT = 4096
# Whoever asks for a call that nobody knows (any more) is not told to hang up.
UNKNOWN = "continue"

# With NOTHING the caller should be gone. One who is there all the same still needs somebody.
_WORDS = {ChannelAction.HANG_UP: "hang_up", ChannelAction.CONTINUE: "continue", ChannelAction.NOTHING: "continue"}


def after(reason: EndReason) -> str:
    """The line of a call that ended for `reason`."""
    return f"{_WORDS[FAREWELLS[reason].channel]},{reason.value}"


def goto(destination: str) -> str | None:
    """The line of a call that was transferred to this place of the dialplan; None: that is no such place."""
    parts = DESTINATION.fullmatch(destination)
    return f"goto,{parts[2] or ''},{parts[1]},{parts[3] or '1'}" if parts else None


class NextSteps:
    """The lines of the calls that have ended, by call id."""

    def __init__(self) -> None:
        self._lines: OrderedDict[str, tuple[float, str]] = OrderedDict()
        self._untold: set[str] = set()

    def remember(self, call_id: str, line: str, now: float) -> None:
        """A call has ended; the first word about it counts."""
        self._forget(now)
        if call_id not in self._lines:
            self._lines[call_id] = now, line
            self._untold.add(call_id)

    def tell(self, call_id: str, now: float) -> str | None:
        """The line of a call, however often it is asked for; None: it is not known, or not any more."""
        self._forget(now)
        self._untold.discard(call_id)
        kept = self._lines.get(call_id)
        return kept[1] if kept else None

    def untold_since(self, since: float) -> bool:
        """Whether a call ended after this time whose dialplan has not asked yet."""
        return any(self._lines[call_id][0] >= since for call_id in self._untold)

    def _forget(self, now: float) -> None:
        while self._lines:
            call_id, (at, _) = next(iter(self._lines.items()))
            if len(self._lines) < MOST_KEPT and now - at < KEPT_S:
                break
            del self._lines[call_id]
            self._untold.discard(call_id)
