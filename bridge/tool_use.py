"""What the model wants done: function calls, each carried out once and answered once, and approvals for MCP tools.

Calls are taken from completed items of a response that is done, never from their arguments events, which also fire for
calls that were cut (protocol sheet 3.7). All outputs of a response come before the one request for the next.
"""

from __future__ import annotations

from bridge import call_tools, mcp, realtime, realtime_mcp
from bridge.accounts import Accounts
from bridge.call_events import ToolAnswered, ToolCalled
from bridge.collecting import Collecting
from bridge.dialogue import AskApproval, CheckTransfer, EndCall, PressKeys, RunTool, TransferCall
from bridge.ending import EndReason
from bridge.history import output_item
from bridge.mcp import Approval
from bridge.responses import Ask
from bridge.talk import Talk

# After an MCP call, or the answer to a request for approval, the server is said to go on by itself (unconfirmed, section
# 3.8): if it does not, it is asked to.
MCP_FOLLOW_UP_S = 2.0


class ToolUse:
    """The tools of one conversation. `running`: call ids that an application's handler works on."""

    def __init__(self, talk: Talk, accounts: Accounts) -> None:
        self._talk = talk
        self._accounts = accounts
        self._of_response: dict[str, realtime.Item] = {}
        self._asked_for: set[str] = set()  # requests for approval that were heard of
        self._undecided: set[str] = set()
        self._mcp_running: set[str] = set()
        self._follow_up_at: float | None = None
        self.running: set[str] = set()
        self.announced: set[str] = set()
        """Calls of transfer_call whose response also spoke to the caller."""

    @property
    def busy(self) -> bool:
        """The caller waits for a tool."""
        return bool(self.running or self._mcp_running or self._undecided or self._follow_up_at is not None)

    def of_response(self, item: realtime.Item, now: float) -> None:
        """An item of the response that is being generated is complete."""
        if item.type == "function_call" and item.call_id:
            self._of_response[item.call_id] = item
        else:
            self.in_conversation(item, now)

    def in_conversation(self, item: realtime.Item, now: float) -> None:
        """An item of the conversation is complete, whoever made it. Function calls come so too: an application's own, or
        those that a new session is told of, which are nobody's to carry out."""
        if item.type == "mcp_approval_request":
            self._approve(item, now)

    def carry_out(self, response: realtime.Response, now: float, *, interrupted: bool) -> EndCall | None:
        """The response is done: carry out its calls. Returns how the call is to end, if one of them says so.

        A call that the caller talked into must not end the call.
        """
        calls = self._of_response | {
            it.call_id: it for it in response.output if it.type == "function_call" and it.call_id
        }
        self._of_response = {}
        end: EndCall | None = None
        if response.status not in ("completed", "incomplete"):
            return None
        for item in calls.values():
            call_id, name, arguments = item.call_id or "", item.name or "", item.arguments_json
            known = item.status in (None, "completed") and self._talk.history.tool_called(
                call_id, name, arguments, now
            )
            if not known:
                continue
            self._talk.commands.notice("tool_called", name=name, tool_call_id=call_id)
            self._talk.commands.do(ToolCalled(tool_call_id=call_id, name=name, arguments=arguments))
            match call_tools.interpret(self._talk.agent, name, arguments):
                case call_tools.HangUp() | call_tools.Transfer() if interrupted:
                    self.answer(call_id, "Not done: the caller started to speak.", now, failed=True)
                case call_tools.HangUp(reason=why, cause=cause):
                    end = end or EndCall(EndReason.AGENT_HUNG_UP, why, cause=cause)
                case call_tools.Transfer() if end is not None or self._talk.leaving:
                    self.answer(call_id, "Not done: the call is ending.", now, failed=True)
                case call_tools.Transfer(name=target, destination=destination):
                    if self._talk.speech.received(response.id):
                        self.announced.add(call_id)
                    self._start(call_id, now)
                    self._talk.commands.do(CheckTransfer(TransferCall(call_id, target, destination)))
                case call_tools.CollectDigits() if interrupted:
                    self.answer(call_id, "Not done: the caller started to speak.", now, failed=True)
                case call_tools.CollectDigits(name=entry):
                    self._collect(call_id, entry, now)
                case call_tools.PressKeys(keys=keys):
                    self._start(call_id, now)
                    self._talk.commands.do(PressKeys(call_id, keys))
                case call_tools.Misuse(message=message):
                    self.answer(call_id, message, now, failed=True)
                    self._talk.responses.want(Ask())
                case None:
                    self._start(call_id, now)
                    self._talk.commands.do(RunTool(call_id, name, arguments))
        return end

    def _collect(self, call_id: str, name: str, now: float) -> None:
        """The caller is to key something in; `caller_keys` answers the call."""
        talk = self._talk
        if talk.leaving:
            self.answer(call_id, "Not done: the call is ending.", now, failed=True)
            return
        if talk.collection is not None:
            self.answer(call_id, f"Not done: the caller is still keying in {talk.collection.name}.", now, failed=True)
            return
        entry = talk.agent.collect[name]
        talk.collection = Collecting(call_id, name, entry, now)
        talk.commands.notice("collecting_digits", name=name)
        if entry.secure:
            talk.deaf_for |= {"secret"}  # a line may carry the tones
            talk.commands.notice("secure_begins", name=name)

    def _start(self, call_id: str, now: float) -> None:
        self.running.add(call_id)
        self._accounts.clock.tool_started(call_id, now)

    def stop_running(self, call_id: str, now: float) -> bool:
        """What a call asked for is done; its output is still to be given. False: it did not run."""
        ran = call_id in self.running
        self.running.discard(call_id)
        self._accounts.clock.tool_finished(call_id, now)
        return ran

    def finished(self, call_id: str, output: str, now: float, *, ask_at: float = 0.0) -> None:
        """A tool's result, or the text of its failure; the model gets exactly one per call. From `ask_at` on it is asked to
        go on."""
        self.stop_running(call_id, now)
        told = self.answer(call_id, output, now, failed=output.startswith(call_tools.FAILED))
        if told and not self._talk.leaving:
            self._talk.responses.want(Ask(), ask_at)

    def answer(self, call_id: str, output: str, now: float, *, failed: bool = False) -> bool:
        """The one output of a call. A session that does not know the call (it took over since) is told that first; without
        a session it is kept for the next one. False: the call had its output already."""
        use = self._talk.history.tool(call_id)
        if use is not None:
            if use.output is not None:
                return False
            use.output = output
            self._talk.commands.do(
                ToolAnswered(
                    tool_call_id=call_id,
                    name=use.name,
                    output=output,
                    lasted_ms=round((now - use.called_at) * 1000),
                    failed=failed,
                )
            )
            if not self._talk.session_stands:
                return True
            if not use.here:
                use.here = True
                self._talk.commands.send(realtime.create_item(use.call_item()))
        self._talk.commands.send(realtime.create_item(output_item(call_id, output)))
        return True

    # MCP -------------------------------------------------------------------------------------------------------------

    def _approve(self, item: realtime.Item, now: float) -> None:
        """A tool of an MCP server wants to be called. Told up to three times, answered once."""
        label, name = item.server_label or "", item.name or ""
        if not item.id or item.id in self._asked_for:
            return
        self._asked_for.add(item.id)
        self._undecided.add(item.id)
        ruling = mcp.ruling(self._talk.agent, label, name)
        self._talk.commands.notice("mcp_approval", server=label, name=name, ruling=ruling.approval.name.lower())
        if ruling.approval is Approval.ASK:
            self._talk.commands.do(AskApproval(item.id, label, name, item.arguments_json))
        else:
            self.approval_given(item.id, ruling.approval is Approval.APPROVE, ruling.reason, now)

    def approval_given(self, request_id: str, approve: bool, reason: str, now: float) -> None:
        """The answer to a request of the present session; one of a session that is gone is void."""
        if request_id in self._undecided:
            self._undecided.discard(request_id)
            self._talk.commands.send(
                realtime.create_item(mcp.approval_item(request_id, approve=approve, reason=reason))
            )
            self._follow_up_at = now + MCP_FOLLOW_UP_S

    def mcp_event(self, event: realtime_mcp.McpEvent, now: float) -> None:
        """The server calls a tool by itself. Nothing else may come meanwhile, which is no stall."""
        match event:
            case realtime_mcp.McpCallStarted(item_id=item_id):
                self._mcp_running.add(item_id)
                self._follow_up_at = None
                self._talk.responses.expect_nothing()
            case realtime_mcp.McpCallCompleted(item_id=item_id) | realtime_mcp.McpCallFailed(item_id=item_id):
                self._mcp_running.discard(item_id)
                failed = isinstance(event, realtime_mcp.McpCallFailed)
                self._talk.commands.notice("mcp_call_done", item_id=item_id, failed=failed)
                if self._talk.responses.busy:
                    self._talk.responses.expect(now)
                elif not self._mcp_running:
                    self._follow_up_at = now + MCP_FOLLOW_UP_S
            case realtime_mcp.McpListFailed(item_id=item_id):
                self._talk.commands.notice("mcp_list_failed", item_id=item_id)
            case _:
                pass

    def response_created(self) -> None:
        """The server goes on by itself."""
        self._follow_up_at = None

    def tick(self, now: float) -> None:
        if self._talk.responses.busy and self._follow_up_at is not None:
            self._follow_up_at = now + MCP_FOLLOW_UP_S
        if self._follow_up_at is not None and now >= self._follow_up_at:
            self._follow_up_at = None
            self._talk.responses.want(Ask())

    def session_lost(self) -> None:
        """What the old session was still to do is void; tools that run go on, and are answered in the next one."""
        self._of_response = {}
        if self._mcp_running or self._undecided or self._follow_up_at is not None:
            self._mcp_running.clear()
            self._undecided.clear()
            self._follow_up_at = None
            self._talk.responses.want(Ask())
