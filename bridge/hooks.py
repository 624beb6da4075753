"""Whom the bridge asks and tells by HTTP: the table `[hooks]`, and `[agents.NAME.hooks]` for the calls of one agent.

    call_url      asked before a call is answered: which agent, with what else than its profile, or none
    event_url     told what happens in the call, in batches
    action_url    told once how it ended, with the whole record

`hooks_of` is what holds for one call. What is sent is in `hook_bodies`, how in `hook_delivery` and `call_hook`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import msgspec
from msgspec import UNSET, UnsetType

from bridge.webhook import header_problems, is_url, keys_of


class Hooks(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """For all calls. An empty URL: nobody is asked, or told. `events` are words of `event_stream`; none at all: nothing."""

    call_url: str = ""
    call_timeout_s: float = 2.0
    call_required: bool = False
    event_url: str = ""
    events: list[str] = []
    action_url: str = ""
    secret: str = ""
    headers: dict[str, str] = {}
    timeout_s: float = 10.0
    batch_ms: int = 500
    batch_events: int = 50
    give_up_after_s: float = 86400.0


class AgentHooks(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """For the calls of one agent; what is not there is as in `[hooks]`. An empty URL: nothing is told of its calls."""

    event_url: str | UnsetType = UNSET
    events: list[str] | UnsetType = UNSET
    action_url: str | UnsetType = UNSET
    secret: str | UnsetType = UNSET
    headers: dict[str, str] | UnsetType = UNSET
    timeout_s: float | UnsetType = UNSET


@dataclass(frozen=True, slots=True)
class CallHooks:
    """What holds for one call. `repr` tells no secret."""

    event_url: str
    events: tuple[str, ...]
    action_url: str
    secret: str
    headers: Mapping[str, str]
    timeout_s: float

    def __repr__(self) -> str:
        return f"CallHooks(events={self.events!r})"


def hooks_of(hooks: Hooks, agent: AgentHooks | None = None) -> CallHooks:
    """Those of a call of this agent."""
    own = msgspec.structs.asdict(agent) if agent is not None else {}
    both = msgspec.structs.replace(hooks, **{key: value for key, value in own.items() if value is not UNSET})
    return CallHooks(both.event_url, tuple(both.events), both.action_url, both.secret, both.headers, both.timeout_s)


# Shorter than Asterisk lets a caller ring, and no longer than a plain call's audio may wait in the socket.
MOST_CALL_TIMEOUT_S = 10.0
_SECRET = re.compile(r"(^|\.)hooks\.(secret|headers)$")


def is_secret(path: str) -> bool:
    """Whether the setting at `path` (`agents.default.hooks.headers`) must not be shown."""
    return _SECRET.search(path) is not None


def problems(hooks: Hooks | AgentHooks, at: str) -> Iterator[tuple[str, str]]:
    """What types can not say is wrong with a table that stands at `at`, as (place, remedy)."""
    for key in ("call_url", "event_url", "action_url"):
        url = getattr(hooks, key, UNSET)
        if url is not UNSET and url and not is_url(url):
            yield f"{at}.{key}", 'must be like https://service.example.com/path (or http://), or "" for nobody'
    if hooks.secret is not UNSET:
        try:
            keys_of(hooks.secret)
        except ValueError as error:
            yield f"{at}.secret", str(error)
    if hooks.headers is not UNSET:
        yield from header_problems(hooks.headers, f"{at}.headers")
        for name in hooks.headers:
            if name.lower() in _OURS:
                yield f"{at}.headers", f"{name!r} is the bridge's own"
    if hooks.timeout_s is not UNSET and not 0 < hooks.timeout_s <= 60:
        yield f"{at}.timeout_s", "must be above 0, at most 60 seconds"
    if isinstance(hooks, Hooks):
        rows = [
            (
                0 < hooks.call_timeout_s <= MOST_CALL_TIMEOUT_S,
                "call_timeout_s",
                f"must be above 0, at most {MOST_CALL_TIMEOUT_S:g} seconds: the caller hears ringing meanwhile",
            ),
            (0 <= hooks.batch_ms <= 60_000, "batch_ms", "must be 0 (each event at once) to 60000"),
            (1 <= hooks.batch_events <= 500, "batch_events", "must be 1 to 500"),
            (60 <= hooks.give_up_after_s <= 30 * 86400, "give_up_after_s", "must be 60 to 2592000 (30 days)"),
        ]
        yield from ((f"{at}.{key}", remedy) for right, key, remedy in rows if not right)


def advice(hooks: Hooks, agents: Mapping[str, AgentHooks]) -> list[str]:
    """What is valid and will most likely not do what is wanted."""
    told = {name: hooks_of(hooks, own) for name, own in agents.items()}
    found = []
    if hooks.event_url and not any(it.event_url and it.events for it in told.values()):
        found.append('hooks.events: names no event, so hooks.event_url is told nothing; "all" is everything')
    asked = hooks.call_url or any(it.event_url or it.action_url for it in told.values())
    if asked and not any(it.secret for it in told.values()):
        found.append(
            "hooks.secret: none is set, so nobody can know that requests are the bridge's; set BRIDGE_HOOKS_SECRET"
        )
    return found


_OURS = frozenset(
    {
        "content-type", "content-length", "content-encoding", "transfer-encoding", "host", "connection",
        "webhook-id", "webhook-timestamp", "webhook-signature",
    }
)  # fmt: skip


Read = Callable[[str, str], str]


def with_secrets(hooks: Hooks, read: Read, at: str) -> Hooks:
    """`hooks` with `secret` and each header replaced by what `read(value, place)` makes of it: "$NAME" is a variable of the
    environment."""
    return msgspec.structs.replace(hooks, **_secrets(hooks, read, at))


def agents_with_secrets(hooks: AgentHooks, read: Read, at: str) -> AgentHooks:
    """The same for an agent's."""
    return msgspec.structs.replace(hooks, **_secrets(hooks, read, at))


def _secrets(hooks: Hooks | AgentHooks, read: Read, at: str) -> dict[str, object]:
    found: dict[str, object] = {}
    if hooks.secret is not UNSET:
        found["secret"] = read(hooks.secret, f"{at}.secret")
    if hooks.headers is not UNSET:
        found["headers"] = {name: read(value, f"{at}.headers.{name}") for name, value in hooks.headers.items()}
    return found
