"""The two tools by which the agent ends its part of a call: `hang_up` and `transfer_call`.

They are no ordinary tools: what they do happens only after the caller has heard everything (`conversation`), and their
result is the end of the call. Here is how the model sees them, and what its arguments mean.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from bridge import mcp
from bridge.agent import Agent
from bridge.destinations import Destination
from bridge.dialogue import TransferCall

HANG_UP = "hang_up"
TRANSFER_CALL = "transfer_call"


@dataclass(frozen=True, slots=True)
class HangUp:
    """The agent wants to end the call. `reason` is in the model's words, for the record."""

    reason: str


@dataclass(frozen=True, slots=True)
class Transfer:
    """The agent wants the caller to go on at a named destination of its profile."""

    name: str
    destination: Destination


@dataclass(frozen=True, slots=True)
class Misuse:
    """The model's arguments make no sense; `message` is what it is told."""

    message: str


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
                        "reason": {"type": "string", "description": "Why the call is over, in a few words"}
                    },
                },
            }
        )
    if agent.transfers:
        choices = "; ".join(f"{name}: {it.description or it.to}" for name, it in agent.transfers.items())
        tools.append(
            {
                "type": "function",
                "name": TRANSFER_CALL,
                "description": "Connect the caller with somebody else. Tell the caller first. Destinations: "
                + choices,
                "parameters": {
                    "type": "object",
                    "properties": {"destination": {"type": "string", "enum": list(agent.transfers)}},
                    "required": ["destination"],
                },
            }
        )
    return tools


def tools_of(agent: Agent) -> list[dict[str, Any]]:
    """Everything that an agent's profile gives the model to use: the two tools, and its MCP servers (they hold secrets).
    An application's tools come on top."""
    return [*declarations(agent), *mcp.declarations(agent)]


def interpret(agent: Agent, name: str, arguments: str) -> HangUp | Transfer | Misuse | None:
    """What a function call with these raw JSON `arguments` asks for; None when it is not one of the two tools."""
    if name == HANG_UP and agent.hang_up:
        # Ending a call must not fail over broken arguments: they hold nothing but a comment.
        return HangUp(str(_parsed(arguments).get("reason", "")))
    if name == TRANSFER_CALL and agent.transfers:
        wanted = _parsed(arguments).get("destination")
        if isinstance(wanted, str) and wanted in agent.transfers:
            return Transfer(wanted, agent.transfers[wanted])
        known = ", ".join(agent.transfers)
        return Misuse(f"there is no destination {wanted!r}; the destinations are: {known}")
    return None


def transfer_to(agent: Agent, name: str, call_id: str = "") -> TransferCall:
    """The hand-over to a destination that the agent has; `call_id` is that of the model's call, if it was one."""
    return TransferCall(call_id, name, agent.transfers[name].to)


def _parsed(arguments: str) -> Mapping[str, Any]:
    try:
        value = msgspec.json.decode(arguments or "{}")
    except msgspec.DecodeError:
        return {}
    return value if isinstance(value, dict) else {}
