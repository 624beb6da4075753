"""The bridge's own tools: `hang_up` and `transfer_call`, by which the agent ends its part of a call, and `collect_digits`.

They are no ordinary tools. What the first two do happens only after the caller has heard everything (`conversation`), and
their result is the end of the call; the third is answered by the caller's keys (`caller_keys`). Here is how the model sees
them, and what its arguments mean.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from bridge import hangup_cause, mcp
from bridge.agent import Agent
from bridge.destinations import Destination
from bridge.dialogue import TransferCall
from bridge.keys import KEYS

HANG_UP = "hang_up"
TRANSFER_CALL = "transfer_call"
COLLECT_DIGITS = "collect_digits"
PRESS_KEYS = "press_keys"
BUILT_IN = frozenset({HANG_UP, TRANSFER_CALL, COLLECT_DIGITS, PRESS_KEYS})

# How the output of a call that came to nothing begins, whoever carried it out.
FAILED = "Error: "
# At 200 ms each, 13 s.
MOST_KEYS = 64


@dataclass(frozen=True, slots=True)
class HangUp:
    """The agent wants to end the call. `reason` is in the model's words, for the record; `cause` is what signalling is
    told."""

    reason: str
    cause: int = hangup_cause.UNKNOWN


@dataclass(frozen=True, slots=True)
class Transfer:
    """The agent wants the caller to go on at a named destination of its profile."""

    name: str
    destination: Destination


@dataclass(frozen=True, slots=True)
class CollectDigits:
    """The agent wants the caller to key in this entry of its profile."""

    name: str


@dataclass(frozen=True, slots=True)
class PressKeys:
    """The agent wants to press keys towards the other side."""

    keys: str


@dataclass(frozen=True, slots=True)
class Misuse:
    """The model's arguments make no sense; `message` is what it is told."""

    message: str


Request = HangUp | Transfer | CollectDigits | PressKeys | Misuse


def are_keys(text: str) -> bool:
    """Whether this can be pressed in one go, pauses (`w`) included."""
    return 0 < len(text) <= MOST_KEYS and set(text) <= {*KEYS, "w"}


def declarations(agent: Agent) -> list[dict[str, Any]]:
    """The function declarations of the tools that this agent may use, for `session.update`."""
    tools: list[dict[str, Any]] = []
    if agent.hang_up:
        tools.append(
            {
                "type": "function",
                "name": HANG_UP,
                "description": "End the phone call. Say goodbye first; the caller hears you out before the line closes.",
                "parameters": {
                    "type": "object",
                    "properties": {
                        "reason": {"type": "string", "description": "Why the call is over, in a few words"},
                        "cause": {
                            "type": "string",
                            "enum": list(hangup_cause.FOR_THE_MODEL),
                            "description": "What the line is told; normal unless your instructions say otherwise",
                        },
                    },
                },
            }
        )
    if agent.transfers:
        tools.append(_transfer_tool(agent.transfers))
    if agent.collect:
        entries = "; ".join(
            f"{name}: {entry.description or name}{' (secret: you are not told the digits)' if entry.secure else ''}"
            for name, entry in agent.collect.items()
        )
        tools.append(
            {
                "type": "function",
                "name": COLLECT_DIGITS,
                "description": "Have the caller key in digits on the telephone, and get them. Ask for them in words "
                "first, in the same answer. What can be keyed in: " + entries,
                "parameters": {
                    "type": "object",
                    "properties": {"name": {"type": "string", "enum": list(agent.collect)}},
                    "required": ["name"],
                },
            }
        )
    if agent.press_keys:
        tools.append(
            {
                "type": "function",
                "name": PRESS_KEYS,
                "description": "Press keys of the telephone, as a menu at the other end asks you to.",
                "parameters": {
                    "type": "object",
                    "properties": {
                        "keys": {
                            "type": "string",
                            "description": f"Keys of {KEYS} in order, such as 12#; w waits half a second",
                        }
                    },
                    "required": ["keys"],
                },
            }
        )
    return tools


def _transfer_tool(transfers: Mapping[str, Destination]) -> dict[str, Any]:
    choices = "; ".join(f"{name}: {it.description or it.where}" for name, it in transfers.items())
    properties: dict[str, Any] = {"destination": {"type": "string", "enum": list(transfers)}}
    if dialled := [name for name, it in transfers.items() if it.number]:
        properties["number"] = {
            "type": "string",
            "description": f"The number to call, digits only. For these destinations and no others: {', '.join(dialled)}",
        }
    return {
        "type": "function",
        "name": TRANSFER_CALL,
        "description": "Connect the caller with somebody else. Call this without announcing it: whether it is possible is "
        "found out first, and then you are told what to say. Destinations: " + choices,
        "parameters": {"type": "object", "properties": properties, "required": ["destination"]},
    }


def tools_of(agent: Agent) -> list[dict[str, Any]]:
    """Everything that an agent's profile gives the model to use: the bridge's own tools, and its MCP servers (they hold
    secrets). An application's tools come on top."""
    return [*declarations(agent), *mcp.declarations(agent)]


def interpret(agent: Agent, name: str, arguments: str) -> Request | None:
    """What a function call with these raw JSON `arguments` asks for; None when it is not one of the bridge's tools."""
    if name == HANG_UP and agent.hang_up:
        # Ending a call must not fail over broken arguments: they hold nothing but a comment.
        parsed = _parsed(arguments)
        cause = parsed.get("cause")
        known_cause = cause in hangup_cause.FOR_THE_MODEL and cause != "normal"
        return HangUp(
            str(parsed.get("reason", "")), hangup_cause.CAUSES[str(cause)] if known_cause else hangup_cause.UNKNOWN
        )
    if name == TRANSFER_CALL and agent.transfers:
        return _transfer(agent.transfers, _parsed(arguments))
    if name == COLLECT_DIGITS and agent.collect:
        wanted = _parsed(arguments).get("name")
        if isinstance(wanted, str) and wanted in agent.collect:
            return CollectDigits(wanted)
        known = ", ".join(agent.collect)
        return Misuse(f"there is nothing named {wanted!r} to collect; known: {known}")
    if name == PRESS_KEYS and agent.press_keys:
        wanted = _parsed(arguments).get("keys")
        if isinstance(wanted, str) and are_keys(wanted):
            return PressKeys(wanted)
        return Misuse(f"keys must be 1 to {MOST_KEYS} of {KEYS} and w")
    return None


def transfer_to(agent: Agent, name: str, call_id: str = "", number: str = "") -> TransferCall:
    """The hand-over to a destination that the agent has; `call_id` is that of the model's call, if it was one."""
    return TransferCall(call_id, name, agent.transfers[name].at(number))


def _transfer(transfers: Mapping[str, Destination], arguments: Mapping[str, Any]) -> Transfer | Misuse:
    wanted, number = arguments.get("destination"), str(arguments.get("number") or "")
    if not isinstance(wanted, str) or wanted not in transfers:
        return Misuse(f"there is no destination {wanted!r}; the destinations are: {', '.join(transfers)}")
    destination = transfers[wanted]
    if not destination.number:
        return Transfer(wanted, destination)
    if not destination.takes(number):
        return Misuse(f"{wanted} can not be connected with the number {number!r}; ask the caller for another one")
    return Transfer(wanted, destination.at(number))


def _parsed(arguments: str) -> Mapping[str, Any]:
    try:
        value = msgspec.json.decode(arguments or "{}")
    except msgspec.DecodeError:
        return {}
    return value if isinstance(value, dict) else {}
