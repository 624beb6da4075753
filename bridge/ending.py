"""Why a call ends, and what that means. The only place where either is decided.

A call ends once: the first `Ending.declare` wins, whoever calls it; later ones are kept for the record. What a reason
*means* (what Asterisk, the model and the logs are told) is the table `FAREWELLS` and nothing else: no other module
compares reasons. An exception that ends a call is mapped by `reason_for`.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from bridge.errors import (
    ControlError,
    MediaLost,
    MediaProtocolError,
    ModelError,
    ModelLost,
    ModelProtocolError,
    ModelRejected,
    ModelUnreachable,
)
from bridge.hangup_cause import NORMAL, UNKNOWN


class EndReason(enum.StrEnum):
    """One word a call; the value is what dialplan (`BRIDGE_END_REASON`), logs and records show."""

    CALLER_HUNG_UP = "caller_hung_up"
    AGENT_HUNG_UP = "agent_hung_up"
    AGENT_LEFT = "agent_left"
    TRANSFERRED = "transferred"
    MAX_DURATION = "max_duration"
    CALLER_SILENT = "caller_silent"
    BUDGET_SPENT = "budget_spent"
    SERVER_DRAINING = "server_draining"
    MODEL_UNREACHABLE = "model_unreachable"
    MODEL_REJECTED = "model_rejected"
    MODEL_LOST = "model_lost"
    MODEL_FAILED = "model_failed"
    MODEL_STALLED = "model_stalled"
    MEDIA_NEVER_ARRIVED = "media_never_arrived"
    MEDIA_LOST = "media_lost"
    PROTOCOL_ERROR = "protocol_error"
    CONTROL_LOST = "control_lost"
    REFUSED_BUSY = "refused_busy"
    AGENT_DISABLED = "agent_disabled"
    HOOK_REJECTED = "hook_rejected"
    HOOK_FAILED = "hook_failed"
    BUSY = "busy"
    NO_ANSWER = "no_answer"
    REJECTED = "rejected"
    UNREACHABLE = "unreachable"
    CANCELLED = "cancelled"
    ANSWERING_MACHINE = "answering_machine"
    INTERNAL_ERROR = "internal_error"


class ChannelAction(enum.Enum):
    """What becomes of the caller's channel in Asterisk."""

    HANG_UP = "hang up"
    CONTINUE = "continue in the dialplan"
    NOTHING = "nothing: the caller is gone, or is somewhere else already"


class CompletionReason(enum.StrEnum):
    """The five public classes of the jambonz `llm` verb, word for word."""

    NORMAL = "normal conversation end"
    CONNECTION_FAILURE = "connection failure"
    DISCONNECT = "disconnect from remote end"
    SERVER_FAILURE = "server failure"
    SERVER_ERROR = "server error"


@dataclass(frozen=True, slots=True)
class Farewell:
    """What an ending means to everyone who must be told.

    `channel`: the caller's channel in Asterisk. `close_code`: towards a websocket caller (RFC 6455 section 7.4).
    `failure`: counts as a failure, is logged as a warning or worse. `completion`: the jambonz word.
    """

    channel: ChannelAction
    close_code: int
    failure: bool
    completion: CompletionReason


_HANG_UP, _CONTINUE, _NOTHING = ChannelAction.HANG_UP, ChannelAction.CONTINUE, ChannelAction.NOTHING
_C = CompletionReason

# A caller who can still be served by somebody else goes on in the dialplan; only an end that was agreed hangs up.
FAREWELLS: Mapping[EndReason, Farewell] = {
    EndReason.CALLER_HUNG_UP: Farewell(_NOTHING, 1000, False, _C.NORMAL),
    EndReason.AGENT_HUNG_UP: Farewell(_HANG_UP, 1000, False, _C.NORMAL),
    EndReason.AGENT_LEFT: Farewell(_CONTINUE, 1000, False, _C.NORMAL),
    EndReason.TRANSFERRED: Farewell(_NOTHING, 1000, False, _C.NORMAL),
    EndReason.MAX_DURATION: Farewell(_HANG_UP, 1000, False, _C.NORMAL),
    EndReason.CALLER_SILENT: Farewell(_HANG_UP, 1000, False, _C.NORMAL),
    EndReason.BUDGET_SPENT: Farewell(_HANG_UP, 1000, False, _C.NORMAL),
    EndReason.SERVER_DRAINING: Farewell(_CONTINUE, 1001, False, _C.NORMAL),
    EndReason.MODEL_UNREACHABLE: Farewell(_CONTINUE, 1011, True, _C.CONNECTION_FAILURE),
    EndReason.MODEL_REJECTED: Farewell(_CONTINUE, 1011, True, _C.SERVER_ERROR),
    EndReason.MODEL_LOST: Farewell(_CONTINUE, 1011, True, _C.DISCONNECT),
    EndReason.MODEL_FAILED: Farewell(_CONTINUE, 1011, True, _C.SERVER_FAILURE),
    EndReason.MODEL_STALLED: Farewell(_CONTINUE, 1011, True, _C.SERVER_FAILURE),
    EndReason.MEDIA_NEVER_ARRIVED: Farewell(_CONTINUE, 1011, True, _C.CONNECTION_FAILURE),
    EndReason.MEDIA_LOST: Farewell(_CONTINUE, 1011, True, _C.CONNECTION_FAILURE),
    EndReason.PROTOCOL_ERROR: Farewell(_CONTINUE, 1002, True, _C.CONNECTION_FAILURE),
    EndReason.CONTROL_LOST: Farewell(_CONTINUE, 1011, True, _C.CONNECTION_FAILURE),
    EndReason.REFUSED_BUSY: Farewell(_CONTINUE, 1013, False, _C.CONNECTION_FAILURE),
    # Meant, as a drain is, and no other worker will do better: not REFUSED_BUSY, after which the dialplan asks the next.
    EndReason.AGENT_DISABLED: Farewell(_CONTINUE, 1013, False, _C.NORMAL),
    # What the operator's service said about this call, or that it said nothing and has to (hooks.call_required).
    EndReason.HOOK_REJECTED: Farewell(_CONTINUE, 1013, False, _C.NORMAL),
    EndReason.HOOK_FAILED: Farewell(_CONTINUE, 1011, True, _C.CONNECTION_FAILURE),
    # Of calls that we place. Nobody is there, and no dialplan waits for an outgoing channel.
    EndReason.BUSY: Farewell(_HANG_UP, 1000, False, _C.NORMAL),
    EndReason.NO_ANSWER: Farewell(_HANG_UP, 1000, False, _C.NORMAL),
    EndReason.REJECTED: Farewell(_HANG_UP, 1000, False, _C.NORMAL),
    EndReason.UNREACHABLE: Farewell(_HANG_UP, 1000, False, _C.CONNECTION_FAILURE),
    EndReason.CANCELLED: Farewell(_HANG_UP, 1000, False, _C.NORMAL),
    EndReason.ANSWERING_MACHINE: Farewell(_HANG_UP, 1000, False, _C.NORMAL),
    EndReason.INTERNAL_ERROR: Farewell(_CONTINUE, 1011, True, _C.SERVER_FAILURE),
}

OF_PLACED_CALLS = frozenset(
    {
        EndReason.BUSY, EndReason.NO_ANSWER, EndReason.REJECTED, EndReason.UNREACHABLE, EndReason.CANCELLED,
        EndReason.ANSWERING_MACHINE,
    }
)  # fmt: skip
"""Ends that no caller, and so no dialplan, ever sees."""

# Order matters only where a type is a subclass of another; the first match counts.
_REASON_OF_ERROR: tuple[tuple[type[Exception], EndReason], ...] = (
    (MediaProtocolError, EndReason.PROTOCOL_ERROR),
    (MediaLost, EndReason.MEDIA_LOST),
    (ModelRejected, EndReason.MODEL_REJECTED),
    (ModelUnreachable, EndReason.MODEL_UNREACHABLE),
    (ModelLost, EndReason.MODEL_LOST),
    (ModelProtocolError, EndReason.MODEL_FAILED),
    (ControlError, EndReason.CONTROL_LOST),
)


def reason_for(error: BaseException) -> tuple[EndReason, str, str | None]:
    """Reason, detail and code of a call that `error` ended; of an exception group, its first known leaf.

    Anything that is not one of our own types is a defect of ours: INTERNAL_ERROR, with the type's name as detail.
    """
    leaves = _leaves(error)
    for leaf in leaves:
        for kind, reason in _REASON_OF_ERROR:
            if isinstance(leaf, kind):
                return reason, str(leaf), leaf.code if isinstance(leaf, ModelError) else None
    return EndReason.INTERNAL_ERROR, "; ".join(f"{type(leaf).__name__}: {leaf}" for leaf in leaves), None


def _leaves(error: BaseException) -> list[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        return [leaf for inner in error.exceptions for leaf in _leaves(inner)]
    return [error]


class ErrorObject:
    """What jambonz calls the error object of an ended call: the server's `code` and `message`."""

    __slots__ = ("code", "message")

    def __init__(self, code: str | None, message: str) -> None:
        self.code = code
        self.message = message


class Ending:
    """The end of one call: open until the first `declare`, then decided for good.

    `on_decided` is called once, synchronously, by the declaration that won (the call cancels its scope there).
    """

    def __init__(self, on_decided: Callable[[], None] = lambda: None) -> None:
        self._on_decided = on_decided
        self.reason: EndReason | None = None
        self.detail = ""
        self.cause = UNKNOWN
        self.error: ErrorObject | None = None
        self.later: list[tuple[EndReason, str]] = []

    def declare(self, reason: EndReason, detail: str = "", *, code: str | None = None, cause: int = UNKNOWN) -> bool:
        """End the call for `reason`; `cause` is Q.850: the caller's, or the one that signalling is to be told. Returns
        whether this declaration was the first and so the one that counts."""
        if self.reason is not None:
            self.later.append((reason, detail))
            return False
        self.reason, self.detail, self.cause = reason, detail, cause
        if FAREWELLS[reason].failure:
            self.error = ErrorObject(code, detail or reason.value)
        self._on_decided()
        return True

    @property
    def farewell(self) -> Farewell:
        """What the decided reason means. Only after a declaration."""
        if self.reason is None:
            raise RuntimeError("farewell asked for before the call was declared ended")
        return FAREWELLS[self.reason]

    @property
    def told_cause(self) -> int:
        """The Q.850 cause for the record: the caller's, or what signalling is told."""
        if self.cause == UNKNOWN and self.reason is not None and self.farewell.channel is ChannelAction.HANG_UP:
            return NORMAL
        return self.cause
