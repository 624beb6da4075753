"""MCP servers of an agent: how the session declares them, and what the bridge answers when a call wants an approval.

The tools run at the Realtime server; we never connect to an MCP server. What an operator may decide is in
`agents.NAME.mcp`: which tools the model sees (`allowed_tools`), which of them ask first (`require_approval`), and what the
bridge says then (`approve`). A request is an item of type `mcp_approval_request`; it comes in `conversation.item.done`, and
may come again in `response.output_item.done` and `response.done`. Answer each id once, with `approval_item`, and only in
the session that asked: a new one does not know the request. After the answer the server goes on by itself (unconfirmed;
section 3.8).
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Any

import msgspec

from bridge.agent import Agent
from bridge.mcp_servers import McpServer


class Approval(enum.Enum):
    """What the operator has decided about one call of an MCP tool."""

    APPROVE = "the call may go on"
    DENY = "the call must not happen"
    ASK = "the application decides"


@dataclass(frozen=True, slots=True)
class Ruling:
    """An approval, and for `DENY` the reason that the model is told."""

    approval: Approval
    reason: str = ""


def declarations(agent: Agent) -> list[dict[str, Any]]:
    """The agent's MCP servers for `tools` of `session.update` (section 2.1); they hold secrets. GA dialect only."""
    return [_declaration(server) for server in agent.mcp]


def ruling(agent: Agent, server_label: str, tool_name: str) -> Ruling:
    """What to answer when a call of `tool_name` wants an approval, by the `approve` of its server."""
    server = next((it for it in agent.mcp if it.server_label == server_label), None)
    if server is None:
        return Ruling(Approval.DENY, f"There is no tool server {server_label!r} here.")
    match server.approve:
        case "all":
            return Ruling(Approval.APPROVE)
        case "ask":
            return Ruling(Approval.ASK)
        case "none":
            return Ruling(Approval.DENY, f"The operator allows no such call of {server_label!r}.")
        case names if tool_name in names:
            return Ruling(Approval.APPROVE)
    return Ruling(Approval.DENY, f"The operator does not allow {tool_name!r} of {server_label!r}.")


def approval_item(request_id: str, *, approve: bool, reason: str = "") -> dict[str, Any]:
    """The item that answers an `mcp_approval_request`, for `conversation.item.create` (section 2.3).

    `reason` is told to the model. The types demand an id of the answer: it is made from the end of the request's, as ids
    have at most 32 characters.
    """
    item = {
        "id": f"re_{request_id[-29:]}",
        "type": "mcp_approval_response",
        "approval_request_id": request_id,
        "approve": approve,
    }
    return item | ({"reason": reason} if reason else {})


# How the bridge decides is no business of the server.
_OURS = frozenset({"approve"})


def _declaration(server: McpServer) -> dict[str, Any]:
    told = {name: value for name, value in msgspec.to_builtins(server).items() if name not in _OURS and value}
    return {"type": "mcp", **told}
