"""Calls that an agent places: the table `[agents.NAME.outbound]` of `bridge.toml`, and one order to call somebody.

Whoever may place calls spends the owner's money, and numbers come from programs, so nothing is allowed by default:
`numbers` says which numbers may be called, and only with `allow_endpoint` may an order name an endpoint of Asterisk itself.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, Literal

import msgspec

from bridge.destinations import ENDPOINT
from bridge.errors import ConfigError
from bridge.model_choice import ModelChoice

_NUMBER = "{number}"
# What a number may be made of, whatever `numbers` says: no `/`, `&` or `@`, which would make it other calls than one.
_DIALLABLE = re.compile(r"[\w+*#.-]{1,32}", re.ASCII)
# A variable, not a function (`SHELL(...)`); with underscores before it the channels behind a Local channel inherit it.
_VARIABLE = re.compile(r"_{0,2}[A-Za-z]\w{0,63}", re.ASCII)
# What the bridge itself sets.
_OWN_VARIABLES = ("BRIDGE_", "REALTIME_")
_CALLER_ID = re.compile(r'(?:"?[^"<>\r\n]{1,80}"?\s*<[\w+*#.-]{1,32}>|[\w+*#.-]{1,32})', re.ASCII)
_LONGEST_VALUE, _LONGEST_FACTS = 1024, 8192
_LONGEST_RING_S = 600


class Outbound(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How an agent calls people.

    `numbers`: a regular expression for the numbers that it may call; empty: none. `endpoint`: what Asterisk dials for a
    number. `caller_id`: what the called telephone shows. `greeting` empty: the agent's. `first_word`: who speaks first; if
    the callee says nothing for `first_word_s` it is the agent after all. `machine`: what to do where Asterisk's AMD()
    hears an answering machine ("off": nobody listens for one); `message` is left on it. `max_calls`: at the same time, by
    this agent; 0: no limit of its own.
    """

    numbers: str = ""
    endpoint: str = ""
    allow_endpoint: bool = False
    caller_id: str = ""
    ring_s: float = 30.0
    first_word: Literal["agent", "callee"] = "agent"
    first_word_s: float = 3.0
    greeting: str = ""
    machine: Literal["off", "hang_up", "message", "go_on"] = "off"
    message: str = ""
    max_calls: int = 0


class CallOrder(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Somebody is to be called. `to`: a number, or an endpoint where the agent's `allow_endpoint` says so.

    `caller_id` and `ring_s` take the place of the agent's own. `variables` are set on the channel. `facts` are written into
    the conversation before anybody speaks: who is called, and what for. `muted`: who is so from the first moment.
    `settings`, `session` and `model`: what this call has otherwise than its agent's profile (`call_settings`,
    `model_choice`).
    """

    to: str
    agent: str = "default"
    caller_id: str = ""
    ring_s: float = 0.0
    variables: dict[str, str] = {}
    facts: str = ""
    muted: Literal["", "caller", "agent", "both"] = ""
    settings: dict[str, Any] = {}
    session: dict[str, Any] = {}
    model: ModelChoice | None = None


class AttachOrder(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An agent is to serve a channel that is in Asterisk already, in some Stasis app.

    `channel` is its id. `return_to`: the app that it goes back to; empty: the one that its dialplan had named. The others
    are those of `CallOrder`.
    """

    channel: str
    agent: str = "default"
    return_to: str = ""
    facts: str = ""
    muted: Literal["", "caller", "agent", "both"] = ""
    settings: dict[str, Any] = {}
    session: dict[str, Any] = {}
    model: ModelChoice | None = None


def problems(it: Outbound, at: str) -> Iterator[tuple[str, str]]:
    """What is wrong with the settings whose table is `at`, as (place, remedy)."""
    example = it.endpoint.replace(_NUMBER, "600")
    rows = [
        (_is_pattern(it.numbers), "numbers", "must be a regular expression, like \\+49\\d{5,12}"),
        (
            not it.numbers or bool(it.endpoint),
            "endpoint",
            f'must say what Asterisk dials for a number, like "PJSIP/{_NUMBER}@trunk"',
        ),
        (
            not it.endpoint or (_NUMBER in it.endpoint and ENDPOINT.fullmatch(example) is not None),
            "endpoint",
            f'must be one TECHNOLOGY/RESOURCE with {_NUMBER} in it, like "PJSIP/{_NUMBER}@trunk"',
        ),
        (
            not it.caller_id or _CALLER_ID.fullmatch(it.caller_id) is not None,
            "caller_id",
            'must be a number, or like "Sales <+4930123>"',
        ),
        (0 < it.ring_s <= _LONGEST_RING_S, "ring_s", f"must be above 0, at most {_LONGEST_RING_S}"),
        (0.5 <= it.first_word_s <= 30, "first_word_s", "must be 0.5 to 30"),
        (
            bool(it.message) == (it.machine == "message"),
            "message",
            'goes together with machine = "message": the words that are left on an answering machine',
        ),
        (it.max_calls >= 0, "max_calls", "must be 0 (no limit of its own) or more"),
    ]
    yield from ((f"{at}.{key}", remedy) for right, key, remedy in rows if not right)


def endpoint_of(order: CallOrder, it: Outbound) -> str:
    """What Asterisk is to dial for `order`, by the settings of its agent. Raises `ConfigError` for what may not be called,
    or is no order; the message says what to change."""
    _check(order)
    table = f"agents.{order.agent}.outbound"
    if "/" in order.to:
        if not it.allow_endpoint:
            raise ConfigError(
                f"to: {order.to} is an endpoint, and agent {order.agent} calls numbers only; {table}.allow_endpoint = true"
                " lets it call any endpoint of Asterisk"
            )
        if ENDPOINT.fullmatch(order.to) is None:
            raise ConfigError(f"to: {order.to!r} is not one TECHNOLOGY/RESOURCE, like PJSIP/600")
        return order.to
    if not it.numbers:
        raise ConfigError(f"to: agent {order.agent} may call nobody: {table}.numbers says which numbers it may call")
    if _DIALLABLE.fullmatch(order.to) is None:
        raise ConfigError(f"to: {order.to!r} is no telephone number: at most 32 of digits, letters, + * # . - _")
    if re.fullmatch(it.numbers, order.to) is None:
        raise ConfigError(f"to: agent {order.agent} may not call {order.to}: {table}.numbers is {it.numbers}")
    return it.endpoint.replace(_NUMBER, order.to)


def _check(order: CallOrder) -> None:
    if order.caller_id and _CALLER_ID.fullmatch(order.caller_id) is None:
        raise ConfigError(f'caller_id: {order.caller_id!r} must be a number, or like "Sales <+4930123>"')
    if not 0 <= order.ring_s <= _LONGEST_RING_S:
        raise ConfigError(f"ring_s: must be above 0, at most {_LONGEST_RING_S}, or 0 for the agent's own")
    check_facts(order.facts)
    _check_variables(order.variables)


def check_facts(facts: str) -> None:
    """Raises `ConfigError` for more than a conversation should begin with."""
    if len(facts) > _LONGEST_FACTS:
        raise ConfigError(f"facts: must have at most {_LONGEST_FACTS} characters")


def _check_variables(variables: Mapping[str, str]) -> None:
    for name, value in variables.items():
        if _VARIABLE.fullmatch(name) is None:
            raise ConfigError(f"variables: {name!r} is not the name of a channel variable, like ORDER or __ORDER")
        if name.lstrip("_").startswith(_OWN_VARIABLES):
            raise ConfigError(f"variables: {name} is the bridge's own; choose another name")
        if len(value) > _LONGEST_VALUE or not value.isprintable():
            raise ConfigError(f"variables: {name} must be one line of at most {_LONGEST_VALUE} characters")


def _is_pattern(text: str) -> bool:
    try:
        re.compile(text)
    except re.error:
        return False
    return True
