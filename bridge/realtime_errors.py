"""What the Realtime server's errors, closes and refusals mean for us: triage, and our own exceptions for them.

Pure, like `realtime`, whose `ServerError` it judges. Section numbers are those of `docs/realtime-protocol.md`.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Mapping
from typing import Any

import msgspec

from bridge.errors import ModelError, ModelLost, ModelRejected, ModelUnreachable
from bridge.realtime import ServerError


class Verdict(enum.Enum):
    """What an `error` event, or a failed response, means for the call."""

    BENIGN = "a routine race: note it and go on"
    RETRYABLE = "the same request may succeed in a moment"
    FATAL = "the session is over, or will never work"


# Section 4. A session that expired is fatal for the session though not for the call: it can be opened again.
_FATAL_CODES = frozenset(
    {
        "invalid_api_key",
        "beta_api_shape_disabled",
        "missing_model",
        "invalid_model",
        "model_not_found",
        "insufficient_quota",
        "credit_balance_exhausted",
        "billing_hard_limit_reached",
        "account_deactivated",
        "insufficient_permissions",
        "session_expired",
        "model_load_error",
        "session_limit_reached",
    }
)
_RETRYABLE_CODES = frozenset({"server_error", "rate_limit_exceeded", "inference_rate_limit_exceeded"})
_REOPENABLE_CODES = frozenset({"session_expired"})
# Section 1.3: what trying again does not change. 1008 is how gateways refuse a key.
_REJECTING_CLOSE_CODES = frozenset({3000, 4000, 4004, 1008})
# Before a session stands, also: 1002 to 1010 (one side breaks the websocket protocol) and all codes of applications, of
# which only refusals are known. 1000, 1001, 1005, 1006, 1011 to 1015 are tried again.
_REJECTING_OPENINGS = _REJECTING_CLOSE_CODES | {1002, 1003, 1007, 1009, 1010, *range(3000, 5000)}
# Of the answers below 500 only these may change by themselves: too slow, too early, too many requests.
_PASSING_HTTP_STATUSES = frozenset({408, 425, 429})
_QUOTA_CODES = frozenset({"insufficient_quota", "credit_balance_exhausted", "billing_hard_limit_reached"})


def triage(error: ServerError) -> Verdict:
    """Judge an error by its code, then by its type. Whatever is unknown keeps the session open, so it is benign."""
    if error.code in _FATAL_CODES or error.type == "insufficient_quota":
        return Verdict.FATAL
    if error.code in _RETRYABLE_CODES or error.type in _RETRYABLE_CODES:
        return Verdict.RETRYABLE
    return Verdict.BENIGN


# Asked for again at once a rate limit refuses again; servers say how long it lasts, in words only.
_RATE_LIMITS = frozenset({"rate_limit_exceeded", "inference_rate_limit_exceeded"})
_TRY_AGAIN = re.compile(r"try again in ([0-9.]+) ?(ms|s)")
RATE_LIMIT_WAIT_S = 2.0


def retry_after_s(error: ServerError) -> float:
    """How long to wait before asking again: what a rate limit's message says, `RATE_LIMIT_WAIT_S` without, else 0."""
    if error.code not in _RATE_LIMITS:
        return 0.0
    told = _TRY_AGAIN.search(error.message or "")
    return float(told[1]) * (0.001 if told[2] == "ms" else 1) if told else RATE_LIMIT_WAIT_S


def error_of(error: ServerError) -> ModelError:
    """A fatal `error` event as our exception: `ModelLost` where a new session helps, else `ModelRejected`."""
    kind = ModelLost if error.code in _REOPENABLE_CODES else ModelRejected
    return kind(f"the Realtime server says: {error.text}", code=error.word)


def error_of_close(code: int | None, reason: str, *, established: bool) -> ModelError:
    """A closed websocket as our exception. `code` is None when the connection broke without a close frame.

    A clean close is a loss like any other: only we end calls. The reason often holds `<type>.<code>` (section 1.3).
    """
    word = reason.rsplit(".", 1)[-1] if reason and " " not in reason else ""
    said = f"close code {code}" if code is not None else "connection broken"
    text = f"the Realtime server closed the session ({said}{': ' + reason if reason else ''})"
    if code in (_REJECTING_CLOSE_CODES if established else _REJECTING_OPENINGS) or "insufficient_quota" in reason:
        return ModelRejected(text, code=word or str(code))
    kind = ModelLost if established else ModelUnreachable
    return kind(text, code=word or (str(code) if code is not None else None))


class _ErrorBody(msgspec.Struct, frozen=True):
    error: ServerError = ServerError()


_error_body = msgspec.json.Decoder(_ErrorBody)


def error_of_http_status(status: int, body: bytes = b"") -> ModelError:
    """A refused upgrade as our exception (Azure, gateways and proxies answer so; OpenAI refuses in band).

    Of the body only the error's code is told: messages have been seen to repeat the key.
    """
    try:
        word = _error_body.decode(body).error.word
    except msgspec.DecodeError:
        word = None
    remedy = {
        400: "the model or the URL does not support Realtime",
        401: "check realtime.api_key and realtime.auth",
        402: "no credit left",
        403: "this key may not use the Realtime API",
        404: "check realtime.url and realtime.model",
        429: "rate limit reached",
    }.get(status, "server trouble" if status >= 500 else "unexpected answer")
    if 300 <= status < 400:
        remedy = "the server moved; set realtime.url to where it is now"
    passing = (status >= 500 or status in _PASSING_HTTP_STATUSES) and word not in _QUOTA_CODES
    kind = ModelUnreachable if passing else ModelRejected
    said = f"HTTP {status}{f' {word}' if word else ''}"
    return kind(f"the Realtime server answered {said} to the upgrade: {remedy}", code=word or str(status))


def check_effective_session(session: Mapping[str, Any], asked: Mapping[str, Any] | None = None) -> None:
    """Make sure that the acknowledged session speaks what `asked` (a `session`) says, 24 kHz PCM where that says nothing;
    anything else would be loud noise.

    Servers that report no format at all are taken at their word. Raises `ModelRejected`.
    """
    for direction in ("input", "output"):
        told = _format_in(session, direction)
        wanted = _format_in(asked, direction) or {"type": "audio/pcm", "rate": 24000}
        if told is None:
            continue
        kind = told.get("type") if isinstance(told, Mapping) else None
        if kind != wanted.get("type") or (kind == "audio/pcm" and told.get("rate", 24000) != 24000):
            name = " at ".join(str(value) for value in wanted.values())
            raise ModelRejected(
                f"the Realtime server uses {told} for audio {direction} though {name} was asked for",
                code="format_mismatch",
            )


def _format_in(session: object, direction: str) -> Any:
    for key in ("audio", direction, "format"):
        session = session.get(key) if isinstance(session, Mapping) else None
    return session
