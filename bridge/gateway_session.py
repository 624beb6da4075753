"""One client of `/realtime` while its call runs: its messages become commands to the call, the call's events its messages.

Synchronous, without I/O: the leg hands over what the client wrote in its place between the audio (`heard`), and takes what
is to be written (`send`). Which keys and words the protocol has is `gateway_messages`, what a config means
`gateway_config`.

The protocol leaves the request for the answer to a function's result to the client; the bridge asks by itself, once all
results of a response are there. So that there is exactly one answer either way, a plain `create_response` that follows a
result is taken as the same wish, until that answer is complete or the client writes something new.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import trio

from bridge import call_tools
from bridge import gateway_messages as messages
from bridge.agent import Agent
from bridge.call_events import CallEvent
from bridge.call_record import CallRecord
from bridge.ending import FAREWELLS, EndReason
from bridge.errors import ConfigError, GatewayError
from bridge.gateway_config import Wish, model_of, profile_of, update_of, wish_of
from bridge.gateway_messages import Form
from bridge.leg import CallerDigit, CallerTurnEnded, LegEvent
from bridge.live_call import LiveCall
from bridge.tools import Tool, ToolRegistry

# Of one session, all texts together; each counts for some characters more than it has. It is kept for another session with
# the model, and thirty times what a model's context holds: who writes more fills our memory.
MOST_WRITTEN = 4_000_000
_TEXT_OVERHEAD = 256
# What the bridge itself deals with: the client would not know what to do about it.
_OURS = frozenset({"conversation_already_has_active_response", "response_cancel_not_active"})
_CODE_OF: Mapping[str, str] = {
    "input_audio_buffer_commit_empty": "commit_error",
    "invalid_audio": "audio_error",
}
WORDS = (
    "response.created", "response.done", "response.output_text.delta", "response.output_text.done", "error",
    "session.update", "session.updated", "speech.started", "speech.stopped", "transcript.partial", "transcript.final",
    "playback.stopped", "tool.called", "session_lost", "session_resumed",
    "conversation.item.input_audio_transcription.failed",
)  # fmt: skip


def tools_of(wish: Wish) -> list[Tool]:
    """The client's functions, to be answered by it. Raises `GatewayError` with validation_error."""
    made = []
    for index, tool in enumerate(wish.tools or ()):
        at = f"tools[{index}]"
        if tool["name"] in call_tools.BUILT_IN:
            raise GatewayError(
                "validation_error", f"{at}: the bridge has a tool {tool['name']!r}; choose another name"
            )
        try:
            made.append(Tool(tool["name"], tool["description"], parameters=tool["parameters"]))
        except ConfigError as error:
            raise GatewayError("validation_error", f"{at}: {error}") from error
    return made


class GatewaySession:
    """A `CallWatcher` of one call. `tools`: what this call may use, ours to change; `own`: those of them that the client
    answers; `any_voice`: see `wish_of`."""

    def __init__(
        self,
        send: Callable[[bytes], None],
        *,
        form: Form,
        agent: Agent,
        tools: ToolRegistry,
        own: Sequence[Tool],
        model: str,
        models: Sequence[str],
        any_voice: bool,
        warnings: Sequence[tuple[str, str]] = (),
    ) -> None:
        self._send = send
        self._form = form
        self._agent = agent
        self._tools = tools
        self._own = {tool.name for tool in own}
        self._model, self._models = model, models
        self._any_voice = any_voice
        self._warnings = list(warnings)
        self._live: LiveCall | None = None
        self._ready = False
        self._results = 0  # of functions, each of which may bring a create_response that is done already
        # Unanswered session.updates, and whether the client wanted them; a server that answers none fills no memory.
        self._updates: deque[bool] = deque(maxlen=256)
        self._updating = False
        self._texts: dict[str, str] = {}
        self._written = 0

    # The client ------------------------------------------------------------------------------------------------------

    def heard(self, message: bytes) -> LegEvent | None:
        """A text message of the client. Returns what it is on the line, if anything. Never raises."""
        code = "parse_error"
        try:
            wish = messages.decode(message)
            code = _FAILS_AS[type(wish)]
            return self._obey(wish)
        except GatewayError as error:
            self._send(messages.error(error.code, str(error)))
        except ConfigError as error:
            self._send(messages.error(code, str(error)))
        return None

    def _obey(self, wish: messages.Message) -> LegEvent | None:
        live = self._live
        changes = isinstance(wish, messages.Configure | messages.Update)
        if live is None or not (self._ready or changes):
            raise GatewayError("no_session", "the session does not stand yet; wait for ready")
        match wish:
            case messages.Configure(raw=raw) | messages.Update(raw=raw):
                self._change(live, raw)
            case messages.Text(text=text):
                self._results = 0
                self._written += len(text) + _TEXT_OVERHEAD
                if self._written > MOST_WRITTEN:
                    raise GatewayError(
                        "text_error", f"more than {MOST_WRITTEN} characters were written; connect again"
                    )
                live.write(text, role="user")
            case messages.CreateResponse(fields=fields) if fields or not self._results:
                live.send({"type": "response.create"} | ({"response": fields} if fields else {}))
            case messages.CreateResponse():
                self._results -= 1
            case messages.CancelResponse():
                live.send({"type": "response.cancel"})
            case messages.CommitAudio():
                return CallerTurnEnded()
            case messages.ClearAudio():
                live.send({"type": "input_audio_buffer.clear"})
            case messages.FunctionResult(call_id=call_id, result=result):
                live.answer_tool(call_id, result)
                self._results += 1
            case messages.PressKey(digit=digit):
                return CallerDigit(digit)
        return None

    def _change(self, live: LiveCall, raw: Mapping[str, Any]) -> None:
        """Change the running session; all of it or nothing."""
        wish = wish_of(raw, any_voice=self._any_voice)
        if wish.agent and wish.agent != live.agent_name:
            raise GatewayError("update_error", "agent: is chosen by the first config; connect again for another one")
        model, warning = model_of(wish.model, self._model, self._models)
        if model != self._model:
            raise GatewayError("update_error", "model: can not change while the session stands; connect again")
        agent = profile_of(self._agent, wish)
        update = update_of(agent, wish)
        if wish.tools is not None:
            update["tools"] = self._replace_tools(tools_of(wish), agent)
        if update:
            waiting = len(self._updates)
            self._updating = True
            try:
                live.update_session(update)
            except ConfigError as error:
                raise GatewayError("update_error", str(error)) from error
            finally:
                self._updating = False
            if len(self._updates) == waiting:
                self._updates.append(True)  # no session takes it now; the next one has it from the start
        else:
            self._send(messages.session_updated())
        self._agent = agent
        live.answers_turns = agent.turn_detection.type != "manual"
        self._warn([*wish.warnings, *([warning] if warning else [])])

    def _replace_tools(self, tools: Sequence[Tool], agent: Agent) -> list[dict[str, Any]]:
        for name in self._own:
            self._tools.remove(name)
        for tool in tools:
            self._tools.add(tool)
        self._own = {tool.name for tool in tools}
        return [*call_tools.tools_of(agent), *self._tools.declarations()]

    def _warn(self, warnings: Sequence[tuple[str, str]]) -> None:
        for code, text in warnings:
            self._send(messages.warning(code, text))

    # The call --------------------------------------------------------------------------------------------------------

    async def run(self, task_status: trio.TaskStatus[None]) -> None:
        """Nothing to do beside the call."""
        task_status.started()

    def begins(self, call: LiveCall) -> None:
        """The call begins: listen to it."""
        self._live = call
        call.answers_turns = self._agent.turn_detection.type != "manual"
        call.listen(WORDS, self._tell)

    async def ended(self, record: CallRecord) -> None:
        """`last_error` has what there is to be said."""

    def ready(self, early_audio_bytes: int) -> None:
        """The model's session stands, the client may speak."""
        if self._ready or self._live is None:
            return
        self._ready = True
        for message in messages.ready(self._form, self._live.call_id, self._model):
            self._send(message)
        self._warn(self._warnings)
        if early_audio_bytes:
            self._warn([("early_audio", f"{early_audio_bytes} bytes of audio came before ready, and were not heard")])

    def _tell(self, event: CallEvent) -> None:
        for message in self._messages(event.type, event.event, event.source):
            self._send(message)

    def _messages(self, kind: str, facts: Mapping[str, Any], source: str) -> Iterator[bytes]:
        """What the client is told of an event of the call."""
        match kind:
            case "speech.started" | "speech.stopped":
                yield from messages.speech(
                    self._form, kind.removeprefix("speech."), facts.get("audio_ms"), facts.get("item_id", "")
                )
            case "transcript.partial" if facts["role"] == "agent":
                yield messages.transcript("assistant", facts["text"], final=False, item_id=facts["item_id"])
            case "transcript.final" if facts["role"] == "caller" and facts["text"]:
                yield messages.transcript("user", facts["text"], final=True, item_id=facts["item_id"])
            case "transcript.final" if facts["role"] == "agent" and facts["text"]:
                more = {key: facts[key] for key in ("interrupted", "heard_ms")}
                yield messages.transcript("assistant", facts["text"], final=True, item_id=facts["item_id"], **more)
            case "conversation.item.input_audio_transcription.failed":
                why = (facts.get("error") or {}).get("message") or "the server says no more"
                yield messages.warning("not_transcribed", str(why), item_id=str(facts.get("item_id", "")))
            case "response.output_text.delta":
                item_id = str(facts.get("item_id"))
                text = self._texts[item_id] = self._texts.get(item_id, "") + str(facts.get("delta", ""))
                yield messages.transcript("assistant", text, final=False, item_id=item_id)
            case "response.output_text.done":
                self._texts.pop(str(facts.get("item_id")), None)
                yield messages.transcript(
                    "assistant", str(facts.get("text", "")), final=True, item_id=facts.get("item_id")
                )
            case "tool.called" if facts["name"] in self._own:
                yield messages.function_call(facts["tool_call_id"], facts["name"], facts["arguments"])
            case "playback.stopped" if facts["reason"] == "interrupted":
                yield messages.interrupted(facts["item_id"], facts["heard_ms"])
            case "response.created":
                yield messages.response_started(str(facts.get("response", {}).get("id")))
            case "response.done":
                yield from self._response_done(facts.get("response", {}))
            case "session.update" if source == "client":
                self._updates.append(self._updating)
            case "session.updated":
                if self._updates and self._updates.popleft():
                    yield messages.session_updated()
            case "error":
                yield from self._error(facts.get("error") or {})
            case "session_lost":
                yield messages.reconnecting(str(facts.get("reason", "")))
            case "session_resumed":
                # Whatever was to change is in the new session's first configuration.
                wanted, self._results = any(self._updates), 0
                self._updates.clear()
                yield messages.reconnected(int(facts.get("gap_ms", 0)))
                if wanted:
                    yield messages.session_updated()

    def _response_done(self, response: Mapping[str, Any]) -> Iterator[bytes]:
        self._results = 0
        self._texts.clear()
        details = response.get("status_details") or {}
        failure = details.get("error") or {} if isinstance(details, Mapping) else {"message": str(details)}
        status = str(response.get("status", "completed"))
        told = {"code": failure.get("code"), "message": failure.get("message")} if failure else None
        reason = details.get("reason") if isinstance(details, Mapping) else None
        yield messages.response_done(str(response.get("id")), status, told, reason)
        if status == "failed":
            code = failure.get("code") or failure.get("type")
            yield messages.error(
                "response_error",
                f"the response failed: {failure.get('message') or code or 'the server says no more'}",
                name=messages.documented_name(code),
                provider_code=code,
            )

    def _error(self, error: Mapping[str, Any]) -> Iterator[bytes]:
        code = error.get("code") or error.get("type")
        if code in _OURS:
            return
        kind = _CODE_OF.get(str(code), "provider_error")
        if str(error.get("param") or "").startswith("session") and self._updates:
            # A refused update is not followed by `session.updated`.
            kind = "update_error" if self._updates.popleft() else kind
        yield messages.error(
            kind,
            str(error.get("message") or code),
            name=messages.documented_name(code),
            provider_code=None if code is None else str(code),
        )


def last_error(record: CallRecord) -> bytes | None:
    """What the client is told of a call that failed, before the connection closes; None: it did not fail."""
    reason = EndReason(record.reason)
    if not FAREWELLS[reason].failure:
        return None
    code = (record.error or {}).get("code")
    connected = reason not in (EndReason.MODEL_UNREACHABLE, EndReason.MODEL_REJECTED, EndReason.MODEL_LOST)
    return messages.error(
        "provider_error" if connected else "connection_error",
        (record.error or {}).get("message") or record.reason,
        name=messages.documented_name(code) or (None if connected else "ConnectionFailed"),
        provider_code=code,
    )


_FAILS_AS: Mapping[type, str] = {
    messages.Configure: "update_error",
    messages.Update: "update_error",
    messages.Text: "text_error",
    messages.CreateResponse: "response_error",
    messages.CancelResponse: "cancel_error",
    messages.CommitAudio: "commit_error",
    messages.ClearAudio: "clear_error",
    messages.FunctionResult: "function_error",
    messages.PressKey: "validation_error",
}
