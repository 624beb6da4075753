"""Signed HTTP requests to services of the operator's, by Standard Webhooks (standardwebhooks.com), without I/O.

    webhook-id          the message; the same at each try, so that a receiver can tell a repetition
    webhook-timestamp   unix seconds of this try
    webhook-signature   "v1," and the base64 of HMAC-SHA256 over "id.timestamp.body"; several are separated by spaces

A secret is "whsec_" and base64, as the standard has it, or any other text, whose UTF-8 bytes are the key. Two secrets with
a space between sign twice, while a receiver changes from the one to the other.

What an answer means is decided here too: which one is worth another try (`judged`), and when (`backoff_s`).
"""

from __future__ import annotations

import binascii
import hashlib
import hmac
import re
from base64 import b64decode, b64encode
from collections.abc import Iterator, Mapping
from email.utils import mktime_tz, parsedate_tz
from urllib.parse import urlsplit

from bridge.errors import WebhookError, WebhookRefused, WebhookUnreachable

PREFIX = "whsec_"
# The standard's own libraries take what is at most 5 minutes old, or early.
TOLERANCE_S = 300
# Statuses that say "not now": request timeout, too early, too many requests; and all of 5xx.
_NOT_NOW = frozenset({408, 425, 429})
# No service may have us wait longer than this by its Retry-After.
MOST_RETRY_AFTER_S = 3600.0


def keys_of(secret: str) -> list[bytes]:
    """The keys of a `secret` setting. Raises `ValueError`, which says what is wrong without telling it; empty: none."""
    keys = []
    for word in secret.split():
        if not word.startswith(PREFIX):
            keys.append(word.encode())
            continue
        try:
            key = b64decode(word.removeprefix(PREFIX), validate=True)
        except binascii.Error:
            raise ValueError(f'a secret that begins with "{PREFIX}" goes on in base64; this one does not') from None
        if not key:
            raise ValueError(f'a secret is more than "{PREFIX}"')
        keys.append(key)
    return keys


def is_url(url: str) -> bool:
    """Whether a service can be asked there."""
    try:
        parts = urlsplit(url)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0 and url.isprintable()
    except ValueError:
        return False


_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_HEADER_VALUE = re.compile(r"[ -~\t]*")


def header_problems(headers: Mapping[str, str], at: str) -> Iterator[tuple[str, str]]:
    """What can be no header of a request, as (place, remedy); no value is told, as it may be a secret."""
    for name, value in headers.items():
        if not _HEADER_NAME.fullmatch(name):
            yield at, f"{name!r} is no name of an HTTP header"
        elif not _HEADER_VALUE.fullmatch(value):
            yield f"{at}.{name}", "must be printable ASCII in one line"


def sign(secret: str, message_id: str, at_unix_s: int, body: bytes) -> str:
    """The value of `webhook-signature`."""
    signed = f"{message_id}.{at_unix_s}.".encode() + body
    return " ".join("v1," + b64encode(hmac.digest(key, signed, hashlib.sha256)).decode() for key in keys_of(secret))


def headers_of(secret: str, message_id: str, at_unix_s: float, body: bytes) -> dict[str, str]:
    """The three headers of one try; without a secret there is no signature."""
    at = int(at_unix_s)
    headers = {"webhook-id": message_id, "webhook-timestamp": str(at)}
    if secret:
        headers["webhook-signature"] = sign(secret, message_id, at, body)
    return headers


def verify(secret: str, headers: Mapping[str, str], body: bytes, now_unix_s: float) -> None:
    """For a receiver: raises `ValueError`, which says why, unless the request is genuine and new. Names of `headers` in any
    case."""
    headers = {name.lower(): value for name, value in headers.items()}
    try:
        message_id, at = headers["webhook-id"], headers["webhook-timestamp"]
        given = headers["webhook-signature"]
    except KeyError as missing:
        raise ValueError(f"no header {missing.args[0]}") from None
    if not (at.isascii() and at.isdigit()) or abs(int(at) - now_unix_s) > TOLERANCE_S:
        raise ValueError("webhook-timestamp is too old, in the future, or no number")
    wanted = sign(secret, message_id, int(at), body).split()
    if not any(hmac.compare_digest(one.encode(), other.encode()) for one in wanted for other in given.split()):
        raise ValueError("webhook-signature is not of this secret and body")


def judged(where: str, status: int, retry_after: str, now_unix_s: float) -> WebhookError | None:
    """What the status of an answer means: None, it was taken. `where` is the receiver in words."""
    if 200 <= status <= 299:
        return None
    if status in _NOT_NOW or status >= 500:
        return WebhookUnreachable(
            f"{where} answered HTTP {status}", status=status, retry_after_s=retry_after_s(retry_after, now_unix_s)
        )
    if 300 <= status <= 399:
        return WebhookRefused(
            f"{where} answered HTTP {status}: redirects are not followed; put the final address into the settings",
            status=status,
        )
    return WebhookRefused(f"{where} answered HTTP {status}", status=status)


def retry_after_s(value: str, now_unix_s: float) -> float | None:
    """`Retry-After` in seconds from now: a number or a date of HTTP. None: there is none that can be read."""
    value = value.strip()
    if value.isascii() and value.isdigit():
        # Beyond some thousand digits int() itself refuses.
        return MOST_RETRY_AFTER_S if len(value) > 9 else min(float(value), MOST_RETRY_AFTER_S)
    try:
        parsed = parsedate_tz(value)
        at = None if parsed is None or parsed[9] is None else mktime_tz(parsed)
    except (ValueError, OverflowError):
        at = None
    return None if at is None else min(max(at - now_unix_s, 0.0), MOST_RETRY_AFTER_S)


def backoff_s(failures: int, chance: float, *, first_s: float = 1.0, most_s: float = 300.0) -> float:
    """How long to wait after so many failures in a row (at least 1): doubled each time up to `most_s`, of which by `chance`
    (0 to 1) half to all is taken, so that those who failed together do not come back together."""
    whole = min(first_s * 2.0 ** min(failures - 1, 30), most_s)
    return whole * (0.5 + chance / 2)
