"""MCP between the bridge's pure half and the fake server's: lists, calls, approvals, in the order of section 3.8.

No socket and no task: what one side says is handed to the other. Every event of both passes the official types.
"""

from __future__ import annotations

import json
from typing import Any

import pytest
from sdk_types import CLIENT, check, check_server

from bridge import mcp, realtime
from bridge.agent import Agent
from bridge.mcp import Approval
from bridge.mcp_servers import McpApprovals, McpFilter, McpServer
from bridge.realtime_mcp import McpCallFailed, McpListed, McpListFailed, McpListing
from simulators.model_script import Fail, McpCall, Part, Say, Script
from simulators.realtime_faults import Faults
from simulators.realtime_session import RealtimeSession

Json = dict[str, Any]
URL = "https://mcp.example.com"
REFUND = McpCall("orders", "refund", {"id": 7}, output="refunded")


def agent(**settings: Any) -> Agent:
    return Agent(mcp=[McpServer(server_label="orders", server_url=URL, **{"approve": "all", **settings})])


class Line:
    """A session of the fake server and what it has said; time is moved by `wait`."""

    def __init__(self, of: Agent, *answers: Part | list[Part], configured: bool = True, **faults: Any) -> None:
        switches = Faults(**{"mcp_tools": {"orders": ("order_status", "refund")}, **faults})
        self.agent = of
        self.script = Script.of(*answers)
        self.session = RealtimeSession(self.script, switches, model="gpt-realtime-2.1")
        self.now = 0.0
        self.events: list[Json] = []
        self.answered: set[str] = set()
        self.session.start(0.0)
        if configured:
            self.send(json.loads(realtime.session_update(of, mcp.declarations(of))))
            self.wait(1)

    def send(self, event: Json) -> None:
        check(event, CLIENT)
        self.session.receive(json.dumps(event), self.now)
        self._take()

    def wait(self, seconds: float) -> None:
        end = self.now + seconds
        while (due := self.session.next_due) is not None and due <= end:
            self.now = due
            self.session.advance(due)
            self._take()
        self.now = end

    def respond(self, **fields: Any) -> None:
        self.send({"type": "response.create", **({"response": fields} if fields else {})})
        self.wait(5)

    def approve(self) -> list[mcp.Ruling]:
        """Answer every request that has come, once, as the bridge does."""
        rulings = []
        for event in [realtime.parse_server_event(json.dumps(it)) for it in self.events]:
            if not isinstance(event, realtime.ItemDone | realtime.OutputItemDone):
                continue
            item = event.item
            if item.type == "mcp_approval_request" and item.id not in self.answered:
                self.answered.add(item.id)
                rulings.append(mcp.ruling(self.agent, item.server_label or "", item.name or ""))
                self.answer(item.id, rulings[-1])
        return rulings

    def answer(self, request_id: str, ruling: mcp.Ruling) -> None:
        approve = ruling.approval is Approval.APPROVE
        item = mcp.approval_item(request_id, approve=approve, reason=ruling.reason)
        self.send({"type": "conversation.item.create", "item": item})
        self.wait(5)

    def types(self, after: str = "session.updated") -> list[str]:
        """What came after the last event of a type, without deltas and rate limits."""
        names = [event["type"] for event in self.events]
        start = len(names) - names[::-1].index(after)
        return [name for name in names[start:] if not name.endswith(".delta") and name != "rate_limits.updated"]

    def items(self, kind: str) -> list[Json]:
        return [item.wire for item in self.session.items if item.type == kind]

    @property
    def refusals(self) -> list[Json]:
        return [event["error"] for event in self.events if event["type"] == "error"]

    def _take(self) -> None:
        for event in self.session.take():
            check_server(event)
            self.events.append(event)


LISTED = [
    "mcp_list_tools.in_progress",
    "conversation.item.added",
    "conversation.item.done",
    "mcp_list_tools.completed",
]
BEGUN = ["response.output_item.added", "conversation.item.added"]
ENDED = ["conversation.item.done", "response.output_item.done"]
RUN = ["response.mcp_call.in_progress", "response.mcp_call.completed"]
SAID = [
    *BEGUN,
    "response.content_part.added",
    "response.output_audio.done",
    "response.output_audio_transcript.done",
    "response.content_part.done",
    *ENDED,
]


def test_the_tools_of_a_server_are_listed_once() -> None:
    line = Line(agent(allowed_tools=["refund"]))
    assert line.types() == LISTED
    assert [tool["name"] for tool in line.items("mcp_list_tools")[0]["tools"]] == ["refund"]
    kinds = [type(realtime.parse_server_event(json.dumps(event))) for event in line.events]
    assert [kind for kind in kinds if kind in (McpListing, McpListed)] == [McpListing, McpListed]
    line.send(json.loads(realtime.session_update(line.agent, mcp.declarations(line.agent))))
    line.wait(1)
    assert line.types() == [], "nothing new to list"


def test_a_server_that_was_taken_out_meanwhile_is_not_listed() -> None:
    line = Line(agent(), configured=False)
    for servers in (mcp.declarations(line.agent), []):
        line.send(json.loads(realtime.session_update(line.agent, servers)))
    line.wait(1)
    assert line.types("mcp_list_tools.in_progress") == ["session.updated"]
    assert line.items("mcp_list_tools") == []


def test_a_server_out_of_reach_costs_its_tools_only() -> None:
    line = Line(agent(), Say("Hello", ms=100), mcp_unreachable=("orders",))
    assert line.types() == [*LISTED[:-1], "mcp_list_tools.failed"]
    failed = realtime.parse_server_event(json.dumps(line.events[-1]))
    assert isinstance(failed, McpListFailed)
    line.respond()
    assert line.events[-2]["response"]["status"] == "completed"


def test_a_call_without_approval_is_one_response() -> None:
    line = Line(agent(require_approval="never"), [REFUND, Say("Done.", ms=100)])
    line.respond()
    call = [*BEGUN, "response.mcp_call_arguments.done", *RUN, *ENDED]
    assert line.types("mcp_list_tools.completed") == ["response.created", *call, *SAID, "response.done"]
    assert line.items("mcp_call") == [
        {
            "type": "mcp_call",
            "server_label": "orders",
            "name": "refund",
            "arguments": '{"id": 7}',
            "output": "refunded",
        }
    ]


def test_a_call_with_approval_waits_for_it_and_goes_on_by_itself() -> None:
    line = Line(agent(), [REFUND, Say("Done.", ms=100)])
    line.respond()
    asked = [*BEGUN, "response.mcp_call_arguments.done", *ENDED]
    assert line.types("mcp_list_tools.completed") == ["response.created", *asked, "response.done"]
    line.wait(60)
    assert line.items("mcp_call") == [], "nothing happens until the answer"
    assert line.approve() == [mcp.Ruling(Approval.APPROVE)]
    answer = ["conversation.item.added", "conversation.item.done"]
    goes_on = [*answer, "response.created", *BEGUN, *RUN, *ENDED, *SAID, "response.done"]
    assert line.types("response.done") == []
    assert line.types("mcp_list_tools.completed")[len(asked) + 2 :] == goes_on
    request = next(item.id for item in line.session.items if item.type == "mcp_approval_request")
    assert line.items("mcp_call")[0]["approval_request_id"] == request
    assert line.script.missed == 0


def test_a_denied_call_does_not_happen_and_the_model_speaks() -> None:
    line = Line(agent(approve=["order_status"]), [REFUND, Say("Done.")], Say("I may not.", ms=100))
    line.respond()
    assert [it.approval for it in line.approve()] == [Approval.DENY]
    assert line.items("mcp_call") == []
    assert line.items("mcp_approval_response")[0]["reason"] == "The operator does not allow 'refund' of 'orders'."
    assert line.session.items[-1].text == "I may not."


def test_a_tool_that_fails_says_why() -> None:
    error = {"type": "http_error", "code": 502, "message": "Bad gateway"}
    line = Line(agent(require_approval="never"), [McpCall("orders", "refund", error=error), Say("Sorry.", ms=100)])
    line.respond()
    assert line.items("mcp_call")[0]["error"] == error
    events = [realtime.parse_server_event(json.dumps(event)) for event in line.events]
    assert [event for event in events if isinstance(event, McpCallFailed)]
    told = [it.item.error for it in events if isinstance(it, realtime.OutputItemDone) and it.item.type == "mcp_call"]
    assert [getattr(it, "message", None) for it in told] == ["Bad gateway"]


@pytest.mark.parametrize(
    ("rule", "approval", "asks"),
    [
        ("always", None, True),
        ("never", None, False),
        ("never", True, True),
        ("always", False, False),
        (McpApprovals(never=McpFilter(tool_names=["refund"])), None, False),
        (McpApprovals(never=McpFilter(tool_names=["order_status"])), None, True),
    ],
)
def test_the_session_says_which_calls_ask(rule: Any, approval: bool | None, asks: bool) -> None:
    line = Line(agent(require_approval=rule), McpCall("orders", "refund", approval=approval))
    line.respond()
    assert len(line.items("mcp_approval_request")) == asks
    assert len(line.items("mcp_call")) == (not asks)


def test_an_answer_to_nothing_is_refused_and_so_is_a_second_one() -> None:
    line = Line(agent(), REFUND, Say("Done.", ms=100))
    line.answer("mcpr_unknown", mcp.Ruling(Approval.APPROVE))
    assert line.refusals[0]["param"] == "item.approval_request_id"
    line.respond()
    line.approve()
    assert len(line.refusals) == 1
    request = next(item.id for item in line.session.items if item.type == "mcp_approval_request")
    line.send(
        {"type": "conversation.item.create", "item": {**mcp.approval_item(request, approve=True), "id": "again"}}
    )
    assert len(line.refusals) == 2
    assert len(line.items("mcp_call")) == 1


def test_an_answer_during_another_response_waits_for_its_end() -> None:
    line = Line(agent(), [REFUND, Say("Done.", ms=100)], Say("A long story.", ms=10_000))
    line.respond()
    line.send({"type": "response.create"})
    line.wait(0.1)
    line.approve()
    assert [event["response"]["status"] for event in line.events if event["type"] == "response.done"] == [
        "completed",
        "completed",
        "completed",
    ]
    assert not line.refusals
    assert [item.text for item in line.session.items if item.role == "assistant"] == ["A long story.", "Done."]


def test_a_server_that_waits_after_the_call_is_asked_for_the_answer() -> None:
    line = Line(agent(), REFUND, Say("Done.", ms=100), mcp_waits=True)
    line.respond()
    line.approve()
    assert line.items("mcp_call")[0]["output"] == "refunded"
    assert line.items("message") == []
    line.respond()
    assert line.session.items[-1].text == "Done."


def test_a_tool_can_not_be_required_before_the_list_is_there() -> None:
    line = Line(agent(), Say("Hello", ms=100), configured=False)
    line.send(json.loads(realtime.session_update(line.agent, mcp.declarations(line.agent))))
    line.respond(tool_choice="required")
    assert [it["param"] for it in line.refusals] == ["response.tool_choice"]
    line.wait(1)
    line.respond(tool_choice="required")
    assert len(line.refusals) == 1
    assert line.session.items[-1].text == "Hello"


def test_a_script_that_calls_what_nobody_listed_fails_loudly() -> None:
    line = Line(agent(allowed_tools=["order_status"]), REFUND)
    line.respond()
    done = next(event for event in line.events if event["type"] == "response.done")["response"]
    assert done["status"] == "failed"
    assert "knows no tool 'refund' of 'orders'" in done["status_details"]["error"]["message"]


def test_an_interrupted_call_ends_with_its_response() -> None:
    line = Line(agent(require_approval="never"), [McpCall("orders", "refund", run_ms=5000), Say("Done.")], Fail())
    line.send({"type": "response.create"})
    line.wait(1)
    assert line.types("mcp_list_tools.completed")[-1] == "response.mcp_call.in_progress"
    line.send({"type": "response.cancel"})
    line.wait(10)
    assert line.types("response.mcp_call.in_progress") == [*ENDED, "response.done"]
    assert "output" not in line.items("mcp_call")[0]
