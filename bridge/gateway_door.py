"""Who may open a websocket at the gateway, and what its address says: a request in, a visit or a refusal out. No I/O.

    ws://HOST:3001/realtime[?agent=NAME][&model=NAME][&messages=documented|code|both]

Where a token is set it comes as `Authorization: Bearer TOKEN`, or, from browsers, which can set no header, as one of the
subprotocols `realtime` and `bearer.TOKEN`. Browsers let any page connect to anywhere, also to this machine's loopback,
and say in Origin which page it is: pages are refused unless they are listed. Programs send no Origin.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import parse_qs, urlsplit

from bridge import bearer
from bridge.gateway_messages import Form
from bridge.gateway_settings import Gateway

PATH = "/realtime"
SUBPROTOCOL = "realtime"
_TOKEN_PREFIX = "bearer."


@dataclass(frozen=True, slots=True)
class Visit:
    """What the address says. `form`: None where the config is to tell."""

    agent: str = ""
    model: str = ""
    form: Form | None = None


@dataclass(frozen=True, slots=True)
class Refusal:
    """An HTTP status, and what to do about it."""

    status: int
    text: str


def visit_of(target: str, headers: Mapping[str, str], offered: Sequence[str], gateway: Gateway) -> Visit | Refusal:
    """Judge a request: its `target` (path and query), its headers by lower-case names, the subprotocols it offers."""
    try:
        parts = urlsplit(target)
    except ValueError:
        return Refusal(400, "the address of this request can not be read\n")
    if parts.path.rstrip("/") != PATH:
        return Refusal(404, f"there is {PATH}; docs/gateway.md has all of it\n")
    origin = headers.get("origin")
    if origin is not None and origin not in gateway.origins and "*" not in gateway.origins:
        return Refusal(403, "pages of this origin may not connect: list it in gateway.origins\n")
    shown = [bearer.in_header(headers), *bearer.in_subprotocols(offered, _TOKEN_PREFIX)]
    if gateway.token and not any(bearer.is_token(it, gateway.token) for it in shown):
        return Refusal(
            401, f"send gateway.token: `Authorization: Bearer`, or the subprotocols {SUBPROTOCOL} and bearer.TOKEN\n"
        )
    query = {key: values[-1] for key, values in parse_qs(parts.query).items()}
    word = query.get("messages")
    if word is not None and word not in list(Form):
        return Refusal(400, f"messages: must be one of {', '.join(Form)}\n")
    return Visit(query.get("agent", ""), query.get("model", ""), None if word is None else Form(word))
