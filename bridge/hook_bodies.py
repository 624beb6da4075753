"""What hooks send, and what the call hook answers, as JSON. Without I/O; docs/hooks.md shows each of them.

question     POST call_url      who calls whom, and which agent the routes chose
answer_of    its answer         another agent, settings for this call, or a refusal
events       POST event_url     some events of one call, in order, with numbers that show a gap or a repetition
action       POST action_url    how a call ended, with everything that is known of it
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

import msgspec

from bridge import opensips
from bridge.agent import Agent
from bridge.call_events import check_words as check_names
from bridge.call_record import CallRecord
from bridge.config import Config
from bridge.errors import ConfigError
from bridge.event_stream import AUDIO_EVENTS, EventFilter
from bridge.toml_lines import dotted
from bridge.validation import converted


def check_words(words: Sequence[str]) -> EventFilter:
    """The filter of an `events` setting. Raises `ValueError`, which says what is wrong."""
    for word in words:
        if word.lstrip("-") in AUDIO_EVENTS and not word.startswith("-"):
            raise ValueError(f"{word!r} is audio, which hooks do not carry")
    check_names(words)
    return EventFilter.parse(words)


def check(config: Config) -> None:
    """The `events` of all tables. Raises `ConfigError`."""
    tables = {"hooks": config.hooks.events}
    for name, agent in config.agents.items():
        if agent.hooks.events is not msgspec.UNSET:
            tables[f"{dotted(('agents', name))}.hooks"] = agent.hooks.events
    for at, words in tables.items():
        try:
            check_words(words)
        except ValueError as error:
            raise ConfigError.at(f"{at}.events", str(error)) from error


def check_call(agent: Agent) -> None:
    """The `events` that one call has otherwise than the settings. Raises `ConfigError`."""
    if agent.hooks.events is not msgspec.UNSET:
        try:
            check_words(agent.hooks.events)
        except ValueError as error:
            raise ConfigError(f"profile.hooks.events: {error}") from error


# The call hook ---------------------------------------------------------------------------------------------------------


class Question(msgspec.Struct, frozen=True, kw_only=True):
    """What `call_url` is asked. `agent` is whom the routes chose. `channel` and `arguments` are of a call by Stasis;
    `variables` those that routes ask for, or that an order of a placed call carries."""

    call_id: str
    direction: Literal["inbound", "outbound"] = "inbound"
    agent: str
    caller: str = ""
    caller_name: str = ""
    called: str = ""
    channel: str = ""
    arguments: list[str] = []
    variables: dict[str, str] = {}
    type: Literal["call.incoming", "call.outgoing"] = "call.incoming"


class CallAnswer(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`agent`: a name of `[agents.NAME]`; empty: as the routes have it. `profile`: settings over that profile, in the form
    of bridge.toml. `reject`: no agent takes this call, for this reason."""

    agent: str = ""
    profile: dict[str, Any] = {}
    reject: str | bool = False


def answer_of(answer: Any) -> CallAnswer:
    """The answer of `call_url`, decoded; None (an empty body) changes nothing. Raises `ConfigError`, which says where it is
    wrong."""
    if answer is None:
        return CallAnswer()
    if isinstance(answer, Mapping) and {"flavor", opensips.SECTION} & set(answer):
        return _of_opensips(answer)
    found = converted(answer, CallAnswer, whole="the answer")
    own = found.profile.get("hooks")
    if isinstance(own, Mapping) and (kept := sorted({"secret", "headers"} & set(own))):
        raise ConfigError(f"profile.hooks.{kept[0]}: can not be set for one call: bridge.toml holds the secrets")
    return found


def _of_opensips(answer: Mapping[str, Any]) -> CallAnswer:
    """{"flavor": "openai", "openai": {...}}, as the API of the OpenSIPS AI Voice Connector answers. What its parameters set
    beside an agent (key, url, model) is of the whole process here, and is not taken."""
    flavor = answer.get("flavor", opensips.SECTION)
    given = answer.get(flavor, {})
    if flavor != opensips.SECTION or not isinstance(given, Mapping):
        raise ConfigError(f'flavor: only "{opensips.SECTION}" is known here, with a table of that name')
    tree: dict[str, Any] = {}
    for it in opensips.of_section(given)[0]:
        opensips.assign(tree, it.place, it.value)
    return CallAnswer(profile=tree.get("agents", {}).get("default", {}))


# Events ----------------------------------------------------------------------------------------------------------------


def event(seq: int, envelope: Mapping[str, Any]) -> bytes:
    """One event of a call, the `seq`-th that this receiver is sent of it. `envelope` as `call_events` makes it."""
    return msgspec.json.encode({"seq": seq, **envelope})


def events(call_id: str, agent: str, encoded: Iterable[bytes]) -> bytes:
    """The body of one POST."""
    head = msgspec.json.encode({"type": "call.events", "call_id": call_id, "agent": agent})
    return head[:-1] + b',"events":[' + b",".join(encoded) + b"]}"


# The end ---------------------------------------------------------------------------------------------------------------


def action(record: CallRecord, last_seq: int) -> bytes:
    """The body of the one POST about the end of a call. `last_seq`: how many events its receiver was sent before."""
    facts = record.facts()
    said = {
        "transcript": [dataclasses.asdict(it) for it in record.transcript],
        "tool_uses": [dataclasses.asdict(it) for it in record.tool_uses],
    }
    summary = {name: facts[name] for name in _FIRST}
    body = {"type": "call.action", **summary, "last_seq": last_seq, **said, "record": {**facts, **said}}
    return msgspec.json.encode(body, enc_hook=str)


# What most receivers look at, in their order; `record` has it all.
_FIRST = (
    "call_id", "agent", "direction", "caller", "called", "completion_reason", "reason", "detail", "error", "began_unix_s",
    "duration_s", "answered_after_s", "hangup_cause", "usage", "cost_usd", "recording",
)  # fmt: skip
