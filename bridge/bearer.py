"""The one token of a port: where a client shows it, and whether it is the one.

It comes as `Authorization: Bearer TOKEN` (RFC 6750); browsers, which can send no header with a websocket, offer it as a
subprotocol with a prefix.
"""

from __future__ import annotations

import hmac
from collections.abc import Iterable, Mapping


def in_header(headers: Mapping[str, str]) -> str:
    """What `Authorization` shows; empty: nothing, or something else. Names of `headers` in lower case."""
    kind, _, shown = headers.get("authorization", "").partition(" ")
    return shown.strip() if kind.lower() == "bearer" else ""


def in_subprotocols(offered: Iterable[str], prefix: str) -> list[str]:
    """What subprotocols that begin with `prefix` show."""
    return [it.removeprefix(prefix) for it in offered if it.startswith(prefix)]


def is_token(shown: str, token: str) -> bool:
    """Whether this is `token`; nothing is when there is none."""
    return bool(token) and hmac.compare_digest(shown.strip().encode("utf-8", "replace"), token.encode())
