"""MCP servers of an agent: the settings, what the session is told, and what an approval request is answered."""

from __future__ import annotations

import json
from typing import Any

import pytest
from sdk_types import CLIENT, check

from bridge import mcp, realtime, realtime_mcp
from bridge.agent import Agent
from bridge.config import load_config
from bridge.config_shown import effective
from bridge.errors import ConfigError
from bridge.mcp import Approval
from bridge.mcp_servers import McpServer
from bridge.session import masked

Json = dict[str, Any]

WHOLE = """
[[agents.default.mcp]]
server_label = "orders"
server_url = "https://mcp.example.com/orders?key=hush-3"
authorization = "$ORDERS_TOKEN"
headers = { x-shop = "$SHOP", x-open = "yes" }
server_description = "Orders of this shop"
allowed_tools = ["order_status", "refund"]
require_approval = { always = { tool_names = ["refund"] }, never = { read_only = true } }
approve = ["refund"]

[[agents.default.mcp]]
server_label = "calendar"
connector_id = "connector_googlecalendar"
allowed_tools = { read_only = true }
require_approval = "never"
"""
ENVIRON = {"ORDERS_TOKEN": "hush-1", "SHOP": "hush-2"}


def agent_of(text: str) -> Agent:
    return load_config(text, ENVIRON).agents["default"]


def test_the_session_is_told_all_but_how_we_decide() -> None:
    told = mcp.declarations(agent_of(WHOLE))
    assert told == [
        {
            "type": "mcp",
            "server_label": "orders",
            "server_url": "https://mcp.example.com/orders?key=hush-3",
            "authorization": "hush-1",
            "headers": {"x-shop": "hush-2", "x-open": "yes"},
            "server_description": "Orders of this shop",
            "allowed_tools": ["order_status", "refund"],
            "require_approval": {"always": {"tool_names": ["refund"]}, "never": {"read_only": True}},
        },
        {
            "type": "mcp",
            "server_label": "calendar",
            "connector_id": "connector_googlecalendar",
            "allowed_tools": {"read_only": True},
            "require_approval": "never",
        },
    ]
    check(json.loads(realtime.session_update(Agent(), told)), CLIENT)
    assert mcp.declarations(Agent()) == []


def test_secrets_are_masked_wherever_settings_are_shown() -> None:
    shown = dict(effective(load_config(WHOLE, ENVIRON)))
    assert "hush" not in str(shown)
    told = masked({"tools": mcp.declarations(agent_of(WHOLE))})
    assert "hush" not in str(told)
    assert told["tools"][0]["server_url"] == "https://mcp.example.com/orders?***"
    assert told["tools"][0]["server_label"] == "orders"
    assert masked({"type": "mcp", "server_url": "https://me:hush@x/y"})["server_url"] == "https://x/y"
    assert shown["agents.default.mcp[0].authorization"] == "(set, hidden)"
    assert shown["agents.default.mcp[0].headers"] == "(set, hidden)"
    assert shown["agents.default.mcp[1].authorization"] == '""'
    assert shown["agents.default.mcp[1].server_label"] == '"calendar"'


SERVER = 'server_label = "a"\nserver_url = "https://x"\n'


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('server_url = "https://x"', "mcp[0]: needs server_label"),
        ('server_label = "a"', "mcp[0]: needs one of server_url, connector_id and tunnel_id"),
        (SERVER + 'tunnel_id = "t"', "mcp[0]: needs one of server_url, connector_id and tunnel_id"),
        ('server_label = "a"\nserver_url = "http://x"', "mcp[0].server_url: must start with https://"),
        ('server_label = "1 a"\nserver_url = "https://x"', "mcp[0].server_label: must begin with a letter"),
        (SERVER, 'mcp[0]: no tool of it could ever run: say who approves with approve = "all", "ask"'),
        (SERVER + 'approve = "al"', 'mcp[0].approve: must be "all", "ask", "none" or a list'),
        (SERVER + 'require_approval = "sometimes"', 'mcp[0].require_approval: must be "always", "never" or a table'),
        (
            SERVER + 'approve = "all"\nauthorization = "$NOT_THERE"',
            "authorization: the environment variable 'NOT_THERE'",
        ),
        (SERVER + 'approve = "all"\nheaders = {x = "$NOT_THERE"}', "headers.x: the environment variable 'NOT_THERE'"),
        (
            SERVER
            + 'approve = "all"\n[[agents.default.mcp]]\nserver_label = "a"\nconnector_id = "c"\napprove = "all"',
            "mcp[0].server_label: is that of another server, too",
        ),
    ],
)
def test_settings_that_can_not_work_are_refused_with_the_remedy(text: str, says: str) -> None:
    with pytest.raises(ConfigError) as refused:
        load_config(f"[[agents.default.mcp]]\n{text}", {})
    assert says in str(refused.value)


@pytest.mark.parametrize(
    ("approve", "tool", "approval", "reason"),
    [
        ("all", "refund", Approval.APPROVE, ""),
        ("ask", "refund", Approval.ASK, ""),
        ("none", "refund", Approval.DENY, "The operator allows no such call of 'orders'."),
        (["refund"], "refund", Approval.APPROVE, ""),
        (["order_status"], "refund", Approval.DENY, "The operator does not allow 'refund' of 'orders'."),
        ([], "refund", Approval.DENY, "The operator does not allow 'refund' of 'orders'."),
    ],
)
def test_the_operator_decides_what_is_approved(approve: Any, tool: str, approval: Approval, reason: str) -> None:
    agent = Agent(mcp=[McpServer(server_label="orders", server_url="https://x", approve=approve)])
    assert mcp.ruling(agent, "orders", tool) == mcp.Ruling(approval, reason)


def test_a_server_that_is_not_the_agents_gets_no_approval() -> None:
    agent = Agent(mcp=[McpServer(server_label="orders", server_url="https://x", approve="all")])
    assert mcp.ruling(agent, "billing", "refund").approval is Approval.DENY


@pytest.mark.parametrize("approve", [True, False])
def test_the_answer_passes_the_official_types(approve: bool) -> None:
    item = mcp.approval_item("mcpr_" + "0123456789" * 4, approve=approve, reason="" if approve else "Not today.")
    check({"type": "conversation.item.create", "item": item}, CLIENT)
    assert len(item["id"]) <= 32
    assert item["approval_request_id"] == "mcpr_" + "0123456789" * 4
    assert item.get("reason") == (None if approve else "Not today.")


@pytest.mark.parametrize(
    ("kind", "event"),
    [
        ("mcp_list_tools.in_progress", realtime_mcp.McpListing("i")),
        ("mcp_list_tools.completed", realtime_mcp.McpListed("i")),
        ("mcp_list_tools.failed", realtime_mcp.McpListFailed("i")),
        ("response.mcp_call.in_progress", realtime_mcp.McpCallStarted("i")),
        ("response.mcp_call.completed", realtime_mcp.McpCallCompleted("i")),
        ("response.mcp_call.failed", realtime_mcp.McpCallFailed("i")),
    ],
)
def test_events_of_mcp_are_understood(kind: str, event: realtime_mcp.McpEvent) -> None:
    assert realtime.parse_server_event(json.dumps({"type": kind, "item_id": "i", "output_index": 0})) == event


REQUEST: Json = {
    "id": "mcpr_1", "type": "mcp_approval_request", "server_label": "orders", "name": "refund", "arguments": '{"id":7}'
}  # fmt: skip
LIST: Json = {
    "id": "mcpl_1", "type": "mcp_list_tools", "server_label": "orders",
    "tools": [{"name": "refund", "input_schema": {"type": "object"}, "annotations": None}],
}  # fmt: skip
CALL: Json = {
    "id": "mcp_1", "type": "mcp_call", "server_label": "orders", "name": "refund", "arguments": "{}",
    "approval_request_id": "mcpr_1", "output": None, "error": {"type": "http_error", "code": 502, "message": "Bad gateway"},
}  # fmt: skip


def test_items_of_mcp_are_understood() -> None:
    def item(wire: Json) -> realtime.Item:
        event = realtime.parse_server_event(json.dumps({"type": "conversation.item.done", "item": wire}))
        assert isinstance(event, realtime.ItemDone)
        return event.item

    asked = item(REQUEST)
    assert (asked.id, asked.server_label, asked.name, asked.arguments_json) == (
        "mcpr_1",
        "orders",
        "refund",
        '{"id":7}',
    )
    listed = item(LIST)
    assert [tool.name for tool in listed.tools or ()] == ["refund"]
    called = item(CALL)
    assert called.approval_request_id == "mcpr_1"
    assert called.error == realtime_mcp.McpError("http_error", 502, "Bad gateway")
    assert item(CALL | {"error": None, "output": "done"}).output == "done"
