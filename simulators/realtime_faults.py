"""What can go wrong, one switch each (section 11 of the protocol notes), and the context managers that throw them."""

from __future__ import annotations

import contextlib
import enum
from collections import deque
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from simulators.model_script import Drop, Fail, Pace
from simulators.realtime_schema import Json

SESSION_S = 3600.0  # at OpenAI; Azure's docs say 1800


class DropPoint(enum.Enum):
    """Where in its life a session is dropped by `FaultSwitches.dropping`."""

    AFTER_CREATED = "session.created was sent, session.update is never answered"
    BEFORE_FIRST_DELTA = "a response was announced, its first audio does not come"
    MID_REPLY = "a response has sent two deltas of audio"
    BEFORE_DONE = "everything was sent but response.done"
    MID_TOOL = "response.done with a function call was sent: the tool runs now"
    DURING_SPEECH = "speech_started was sent: the caller speaks"
    AFTER_COMMIT = "the caller's turn was committed, its response does not come"


@dataclass
class Faults:
    """Switches that sessions look at while they run; `RealtimeServer` offers them as context managers.

    Those without a context manager of their own are set by `RealtimeServer.faulty(name=value)`.
    """

    created_after_s: float = 0.0
    conversation_created: bool | Literal["after"] = False  # before session.created, or after it
    expires_after_s: float = SESSION_S  # of sessions that begin from now on; never with a warning
    expires_at_hidden: bool = False  # `expires_at` is "where present"
    response_after_s: float = 0.0  # from the request to response.created; a cancel meanwhile finds nothing active
    pace: Pace | None = None  # instead of what the script says, such as one delta above 1 MiB
    drops: deque[tuple[DropPoint, Drop]] = field(default_factory=deque)
    transcripts_reversed: bool = False  # every other turn's transcript waits for that of the turn after it
    details_bare: bool = False  # `status_details` as a bare string (xAI)
    codes_numeric: bool = False
    added_twice: bool = False  # xAI
    item_done_missing: bool = False  # xAI
    rate_limits_missing: bool = False  # xAI
    items_created: bool = False  # HF: one conversation.item.created instead of added and done
    minimum_only: bool = False  # nothing but what a bridge may rely on everywhere (section 9)
    official_extras: bool = False  # `obfuscation` and `phase`, which were seen and are not in the SDK's types
    transcript_after_s: float = 0.3  # after the commit, when the answer has usually begun; 0: before the answer
    updated_missing: bool = False
    update_refused: bool = False
    wrong_format: dict[str, Any] | None = None
    truncate_unacknowledged: bool = False
    stalled: bool = False
    slower: float = 1.0
    late_deltas: int = 0
    late_after_done: bool = False
    done_swapped: bool = False
    foreign: bool = False
    empty_deltas: bool = False
    bare_errors: bool = False
    usage_missing: bool = False
    failing: deque[Fail] = field(default_factory=deque)
    started_after_done: bool = False
    mcp_tools: dict[str, Sequence[str]] = field(
        default_factory=dict
    )  # what servers offer, by label; others: "search"
    mcp_unreachable: Collection[str] = ()  # labels of servers whose tools can not be listed
    mcp_list_after_s: float = 0.2
    mcp_waits: bool = False  # after an approved call the server says nothing until it is asked for a response


@dataclass
class Handshake:
    """Faults of the opening, before there is a session."""

    refusing: str = ""
    http_status: int = 0
    silent: bool = False
    close_at_once: int = 0
    drop_after_s: float | None = None
    drop_code: int | None = None
    no_pongs: bool = False
    most_sessions: int = 0  # further ones are refused, as HF refuses the second


@dataclass(kw_only=True)
class FaultSwitches:
    """The part of `RealtimeServer` that makes trouble. Each method's fault holds inside its `with` block."""

    faults: Faults = field(default_factory=Faults)
    handshake: Handshake = field(default_factory=Handshake)

    @contextlib.contextmanager
    def _switched(self, target: object, **switches: Any) -> Iterator[None]:
        before = {name: getattr(target, name) for name in switches}
        for name, value in switches.items():
            setattr(target, name, value)
        try:
            yield
        finally:
            for name, value in before.items():
                setattr(target, name, value)

    def faulty(self, **switches: Any) -> contextlib.AbstractContextManager[None]:
        """Any switches of `Faults` by name."""
        return self._switched(self.faults, **switches)

    def refusing(self, code: str) -> contextlib.AbstractContextManager[None]:
        """New connections get 101, one `error` with this code of `REFUSALS`, and the close that belongs to it."""
        return self._switched(self.handshake, refusing=code)

    def http_status(self, status: int) -> contextlib.AbstractContextManager[None]:
        """New connections get this HTTP status instead of 101."""
        return self._switched(self.handshake, http_status=status)

    def silent(self) -> contextlib.AbstractContextManager[None]:
        """New connections get 101 and nothing more, ever."""
        return self._switched(self.handshake, silent=True)

    def closing_at_once(self, code: int) -> contextlib.AbstractContextManager[None]:
        """New connections get 101 and this close code, without an `error` (gateways: 1008)."""
        return self._switched(self.handshake, close_at_once=code)

    def dropped(self, after_s: float = 0.0, code: int | None = None) -> contextlib.AbstractContextManager[None]:
        """New connections end `after_s` after their opening: abruptly, or with a close code."""
        return self._switched(self.handshake, drop_after_s=after_s, drop_code=code)

    def no_pongs(self) -> contextlib.AbstractContextManager[None]:
        """New connections never answer a ping; everything else passes."""
        return self._switched(self.handshake, no_pongs=True)

    @contextlib.contextmanager
    def dropping(self, *points: DropPoint, code: int | None = None, expired: bool = False) -> Iterator[None]:
        """The session that reaches the first of `points` ends there, the one that then reaches the next one there.

        Abruptly, with a close `code`, or as after 60 minutes. Points that nobody reached are forgotten in the end.
        """
        mine = [(point, Drop(code, expired=expired)) for point in points]
        self.faults.drops.extend(mine)
        try:
            yield
        finally:
            for one in mine:
                with contextlib.suppress(ValueError):
                    self.faults.drops.remove(one)

    def expiring(self, after_s: float) -> contextlib.AbstractContextManager[None]:
        """Sessions that begin meanwhile last so long, and say so in `expires_at`: no warning, an `error`, close 1001."""
        return self.faulty(expires_after_s=after_s)

    def no_session_updated(self) -> contextlib.AbstractContextManager[None]:
        """`session.update` takes effect and is never answered."""
        return self.faulty(updated_missing=True)

    def update_refused(self) -> contextlib.AbstractContextManager[None]:
        """Every `session.update` is answered by `error` and changes nothing."""
        return self.faulty(update_refused=True)

    def wrong_format(self, audio_format: Json) -> contextlib.AbstractContextManager[None]:
        """`session.updated` shows this format in both directions, whatever was asked."""
        return self.faulty(wrong_format=audio_format)

    def stalled(self) -> contextlib.AbstractContextManager[None]:
        """Responses under way stand still; they go on afterwards, within 50 ms."""
        return self.faulty(stalled=True)

    def slow_deltas(self, times: float) -> contextlib.AbstractContextManager[None]:
        """Audio comes this many times slower than its pace says."""
        return self.faulty(slower=times)

    def late_deltas(self, count: int = 1, *, after_done: bool = False) -> contextlib.AbstractContextManager[None]:
        """An interrupted response still sends this many deltas: before its `.done` events, or after `response.done`."""
        return self.faulty(late_deltas=count, late_after_done=after_done)

    def failing(self, *failures: Fail) -> contextlib.AbstractContextManager[None]:
        """The next responses fail, one for each of `failures`, and use up nothing of the script."""
        self.faults.failing.extend(failures)
        return contextlib.nullcontext()
