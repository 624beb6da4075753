"""The dialogue of one call as a state machine: inputs in, commands out, no I/O, no clock.

    input               LISTENING           RESPONDING           INTERRUPTED       CLOSING
    response.created    -> RESPONDING; cancelled if the caller speaks meanwhile    discard that response
    audio delta         play                play                 drop if discarded play if not discarded
    speech_started      by the barge-in policy: flush the tail,  flush             ignore: the agent takes leave
                        discard -> INTERRUPTED; or pause; or go on
    response.done       owed create         -> LISTENING, owed   -> LISTENING,     finish when played out
                                            create, tools run    owed create
    closing tool        -> CLOSING          -> CLOSING           -                 -
    transfer failed     -                   -                    -                 -> LISTENING, tell the model
    session lost        another session, which is told what was said; what was owed is asked again -> LISTENING
    tick                silence, duration   stall watchdog       stall watchdog    goodbye limit

Every method takes `now` (seconds of any monotonic clock) and returns the commands to carry out, in order. `RESPONDING`
means that the server generates; whether the caller *hears* something is the playout's knowledge, and usually outlasts it
by seconds. The server cancels by itself when the caller speaks (`interrupt_response`), but it never truncates on a
websocket: what was heard is told from the ledger (protocol sheet 3.6).

The parts, each a file: `responses` (one at a time), `barge_in` (the policy), `speech` (the voice and what was heard of it),
`history` (what was said), `continuity` (outliving sessions), `endgame` (how the call ends once everything was heard).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bridge import call_tools, realtime
from bridge.barge_in import SEMANTIC_WAIT_S, BargeIn, Reaction
from bridge.config import Agent, Limits
from bridge.continuity import Change, Continuity
from bridge.dialogue import (
    TRANSITIONS,
    ClearLegAudio,
    Command,
    DropSession,
    EndCall,
    Notice,
    OpenSession,
    OpenSuccessor,
    ResendAudio,
    RunTool,
    SendEvent,
    State,
    Step,
    SwapSessions,
    TransferCall,
)
from bridge.endgame import Endgame
from bridge.ending import EndReason, reason_for
from bridge.errors import ModelProtocolError
from bridge.history import History, Speaker, Turn, message_item, output_item
from bridge.playout import PlayoutQueue
from bridge.responses import Ask, Responses
from bridge.session import session_of
from bridge.speech import Cut, Speech

# Keys pressed within this time of each other are told to the model as one entry; `#` ends an entry at once.
DIGIT_PAUSE_S = 1.5
# A server that keeps reporting internal errors without closing is not going to recover (section 4: "count, reconnect").
MAX_SERVER_ERRORS = 5
# Speech begins before the server's VAD is sure of it: what is sent again to a new session starts this much earlier.
SPEECH_MARGIN_S = 0.6
# Caller's audio that was sent again is answered by itself if there was speech in it; if there was none, we ask.
RESENT_WAIT_S = 3.0
RESUME = (
    "The connection broke for a moment while you were speaking. The caller heard your last message as far as it is "
    "written above. Go on from there; do not greet again and do not repeat yourself."
)


class Conversation:
    """The dialogue between one caller and one model, through as many sessions as it takes.

    The shell calls `connected` once a session stands and `media_ready` once the caller can hear us, then feeds messages,
    playout changes, tool results, digits and ticks; it carries out what is returned, in order, before the next input.
    `session` is the complete configuration of a session, GA shaped.
    """

    def __init__(
        self, agent: Agent, playout: PlayoutQueue, limits: Limits, *, session: Mapping[str, Any] | None = None,
        lag_ms: int = 0,
    ) -> None:  # fmt: skip
        self._agent = agent
        self._limits = limits
        self._session = dict(session or session_of(agent, call_tools.declarations(agent)))
        self.history = History()
        self.state = State.LISTENING
        self._commands: list[Command] = []
        self._responses = Responses(limits.response_stall_s)
        self._speech = Speech(playout, self.history, lag_ms=lag_ms)
        self._barge_in = _barge_in(agent)
        self._continuity = Continuity()
        self._own_answers = self._server_interrupts = False
        self._follow(self._session)
        # The caller's words that no session is known to have understood: their item, and when they began.
        self._unheard_item = ""
        self._unheard_from: float | None = None
        self._talking = False  # the talk key was pressed (manual turns)
        self._greeting_protected = False
        self._partly_received = False
        self._sessions = 0
        self._lost_at: float | None = None
        self._resume_with: Ask | None = None
        self._tools_of_response: dict[str, realtime.Item] = {}
        self._running_tools: set[str] = set()
        self._endgame = Endgame(limits.goodbye_s)
        self._server_errors = 0
        self._idle_prompts = 0
        self._items_made = 0
        self._digits = ""
        self._digit_at = 0.0
        self._started_at: float | None = None
        self._activity_at = 0.0
        self._turn_ended_at: float | None = None
        self._first_delta_at: float | None = None

    # The session -----------------------------------------------------------------------------------------------------

    def session_update(self) -> bytes:
        """The first event of any session: the complete present configuration."""
        return realtime.update_session(self._session)

    def connected(self, now: float, lifetime_s: float | None) -> list[Command]:
        """A session stands, configured with `session_update`. One that is not the first is told what was said so far."""
        self._continuity.connected(now, lifetime_s)
        self._follow(self._session)
        self._sessions += 1
        if self._sessions > 1:
            self._take_over(now)
        return self._take(now)

    def session_lost(self, reason: EndReason, detail: str, code: str | None, now: float) -> list[Command]:
        """The session is gone, however that came. Another one is opened, unless that has not helped before."""
        again = self._continuity.lost()
        self._notice("session_lost", reason=reason.value, detail=detail, code=code, losses=self._continuity.losses)
        speaking = self._barge_in.speaking
        if self._barge_in.session_lost() is Reaction.RESUME:
            self._speech.resume()
        owed = self._responses.awaited or self._responses.owed
        cut = self._responses.session_lost()
        self._speech.finish_item()
        self._step(Step.SESSION_LOST)
        self._lost_at = now
        self._tools_of_response = {}
        self._server_errors = 0
        if self._endgame.closing:
            if self._speech.silent:
                self._drained(now)
        elif not again:
            self._fail(reason, detail, code, now)
        else:
            self._resume_with = (self._resumption(cut) if owed or cut else None) if not speaking else None
            self._commands.append(OpenSession())
        return self._take(now)

    def give_up(self, reason: EndReason, detail: str, code: str | None, now: float) -> list[Command]:
        """No other session could be opened."""
        self._fail(reason, detail, code, now)
        return self._take(now)

    def successor_ready(self, now: float) -> list[Command]:
        self._continuity.successor_ready()
        return self._take(now)

    def successor_failed(self, detail: str, now: float) -> list[Command]:
        self._notice("session_not_replaced", detail=detail)
        self._continuity.successor_failed(now)
        return self._take(now)

    def media_ready(self, now: float) -> list[Command]:
        """The caller is on the line and can hear us: greet, once."""
        if self._started_at is None:
            self._started_at = self._activity_at = now
            if self._agent.greeting:
                self._responses.want(self._ask(self._agent.greeting))
        return self._take(now)

    def _take_over(self, now: float) -> None:
        """Tell a new session everything, and go on where the old one was broken off."""
        resend_from = self._lost_at
        if self._unheard_from is not None:
            resend_from = min(self._unheard_from, now if resend_from is None else resend_from)
        again = self._unheard_item if self._unheard_from is not None else ""
        for item in self.history.replay(leave_out=again):
            self._send(realtime.create_item(item))
        if again:
            self.history.forget(again)
        gap_ms = 0 if self._lost_at is None else round((now - self._lost_at) * 1000)
        self._notice("session_resumed", sessions=self._sessions, gap_ms=gap_ms)
        if resend_from is not None:
            self._commands.append(ResendAudio(resend_from))
        if self._resume_with is not None or again:
            self._responses.want(self._resume_with or Ask(), now + RESENT_WAIT_S if again else 0.0)
        self._unheard_from = self._lost_at = self._resume_with = None

    def _resumption(self, cut: Ask | None) -> Ask:
        return self._ask(RESUME) if self._partly_received else cut or Ask()

    def _follow(self, session: Mapping[str, Any]) -> None:
        """Who answers, and who interrupts, by the session's turn detection (none: manual turns)."""
        detection = session.get("audio", {}).get("input", {}).get("turn_detection", ...)
        if detection is not ...:
            self._own_answers = not (detection or {}).get("create_response", detection is not None)
            self._server_interrupts = bool((detection or {}).get("interrupt_response", detection is not None))

    # What the model says ---------------------------------------------------------------------------------------------

    def model_message(self, message: str | bytes, now: float) -> list[Command]:
        """One message of the model. Raises `ModelProtocolError` for what the protocol does not allow."""
        self._responses.sign_of_life(now)
        match realtime.parse_server_event(message):
            case realtime.AudioDelta() as delta:
                self._audio(delta, now)
            case realtime.SpeechStarted() as event:
                self._speech_started(event, now)
            case realtime.SpeechStopped() as event:
                self._speech_stopped(event, now)
            case realtime.Committed(item_id=item_id) if self.state is not State.CLOSING:
                self._committed(item_id, now)
            case realtime.TimeoutTriggered() if self.state is not State.CLOSING:
                self._nothing_heard(now)
            case realtime.ResponseCreated(response=response):
                self._response_created(response, now)
            case realtime.OutputItemDone(item=item) if item.type == "function_call" and item.call_id:
                self._tools_of_response[item.call_id] = item
            case realtime.AgentTranscriptDelta(item_id=item_id, delta=text) if item_id in self.history:
                self.history.turn(item_id, Speaker.AGENT).text += text
            case realtime.AgentTranscript(item_id=item_id, transcript=text) if item_id in self.history:
                turn = self.history.turn(item_id, Speaker.AGENT)
                turn.text, turn.complete = text, True
                self._tell(turn)
            case realtime.CallerTranscriptDelta(delta=text) if text:
                self._react(self._barge_in.words(), now)
            case realtime.CallerTranscript(item_id=item_id, transcript=text):
                self._caller_said(item_id, text, now)
            case realtime.ResponseDone(response=response):
                self._response_done(response, now)
            case realtime.SessionUpdated(session=session):
                self._follow(session)
            case realtime.ErrorEvent(error=error):
                self._error(error, now)
            case _:
                pass
        return self._take(now)

    def _response_created(self, response: realtime.Response, now: float) -> None:
        if not self._responses.created(response, now):
            return
        self._step(Step.RESPONSE_CREATED)
        self._partly_received = False
        if self.state is State.CLOSING:
            self._responses.discard(response.id)
            self._responses.expect_nothing()
        elif self._barge_in.speaking and not self._barge_in.held and self._may_interrupt:
            # Our request crossed with the caller's first words: the server did not interrupt what had not begun (3.6).
            self._interrupt(now)
            self._send(realtime.cancel_response(response.id))

    def _audio(self, delta: realtime.AudioDelta, now: float) -> None:
        if self._responses.is_discarded(delta.response_id):
            return
        if self._first_delta_at is None and not self._speech.audible:
            self._first_delta_at = now
        active = delta.response_id == self._responses.active
        self._partly_received = self._partly_received or active
        self._speech.audio(delta, active=active)

    def _response_done(self, response: realtime.Response, now: float) -> None:
        self._speech.finish_item(response.id)
        interrupted = self._responses.is_discarded(response.id)
        if not self._responses.done(response, now):
            return
        self._notice("response_done", status=response.status, usage=response.usage)
        self._step(Step.RESPONSE_DONE)
        calls = self._tools_of_response | {
            it.call_id: it for it in response.output if it.type == "function_call" and it.call_id
        }
        self._tools_of_response = {}
        if self.state is State.CLOSING:
            if self._speech.line_quiet:
                self._drained(now)
            return
        if response.status == "failed" and not interrupted:
            self._response_failed(response, now)
        elif response.status in ("completed", "incomplete"):
            self._continuity.progress()
            if not interrupted:
                self._unheard_from = None
            done = [it for it in calls.values() if it.status in (None, "completed")]
            self._call_tools(done, now, interrupted=interrupted)
        end = self._endgame.said(self._responses.asked)
        if end is not None and not interrupted:
            self._close(end, now)
        if self._speech.silent:
            self._drained(now)

    def _response_failed(self, response: realtime.Response, now: float) -> None:
        details = response.status_details
        error = details.error if isinstance(details, realtime.StatusDetails) else None
        error = error or realtime.ServerError(message=details if isinstance(details, str) else None)
        text = f"the model's response failed: {error.text}"
        if self._responses.retry(error, now):
            self._notice("response_retried", message=text, rate_limited=self._responses.rate_limited)
        else:
            self._fail(EndReason.MODEL_FAILED, text, error.word, now)

    def _error(self, error: realtime.ServerError, now: float) -> None:
        verdict = realtime.triage(error)
        self._notice("model_error", code=error.code, message=error.message, verdict=verdict.name.lower())
        if error.code == "conversation_already_has_active_response":
            # No response.done follows for what was refused: ask (again) when the active one is done.
            if self.state is not State.CLOSING:
                self._responses.refused(now)
        elif verdict is realtime.Verdict.FATAL:
            reason, detail, code = reason_for(realtime.error_of(error))
            if reason is EndReason.MODEL_LOST:
                self._commands.append(DropSession(reason, detail, code))
            else:
                self._fail(reason, detail, code, now)
        elif verdict is realtime.Verdict.RETRYABLE:
            self._server_errors += 1
            if self._server_errors >= MAX_SERVER_ERRORS:
                text = f"repeated errors of the server: {error.text}"
                self._commands.append(DropSession(EndReason.MODEL_FAILED, text, error.word))

    # What the caller does --------------------------------------------------------------------------------------------

    @property
    def wants_audio(self) -> bool:
        """Whether the caller's audio goes to the model: not while the agent takes leave, nor before the talk key."""
        if self._agent.turn_detection.type == "manual" and self._agent.turn_detection.talk_key and not self._talking:
            return False
        return self.state is not State.CLOSING

    def caller_digit(self, digit: str, now: float) -> list[Command]:
        """A key that the caller pressed: for the model, or, with manual turns, where a turn begins and ends."""
        keys = self._agent.turn_detection
        if self.state is State.CLOSING:
            return self._take(now)
        self._activity_at = now
        if keys.type == "manual" and digit == keys.talk_key:
            self._talk(now)
        elif keys.type == "manual" and digit == keys.send_key:
            self._talking = False
            self._barge_in.speaking = False
            self._turn_ended_at = now
            self._send(realtime.commit_audio())
        else:
            self._digits += digit
            self._digit_at = now
            if digit == "#" and self._started_at is not None:
                self._digits_entered(now)
        return self._take(now)

    def _talk(self, now: float) -> None:
        """The caller pressed the talk key. Nobody but us interrupts then (section 3.4)."""
        self._talking = self._barge_in.speaking = True
        self._send(realtime.clear_audio())
        if self._may_interrupt:
            self._interrupt(now)

    def _speech_started(self, event: realtime.SpeechStarted, now: float) -> None:
        if self.state is State.CLOSING:
            return
        self._activity_at = now
        self._idle_prompts = 0
        self.history.turn(event.item_id, Speaker.CALLER)
        if self._unheard_from is None:
            self._unheard_item, self._unheard_from = event.item_id, now - SPEECH_MARGIN_S
        reaction = self._barge_in.speech_started(
            now,
            None if event.audio_start_ms is None else int(event.audio_start_ms),
            agent_speaks=self._responses.wanted or not self._speech.silent,
            protected=self._greeting_protected,
        )
        self._react(reaction, now)

    def _speech_stopped(self, event: realtime.SpeechStopped, now: float) -> None:
        self._activity_at = now
        end_ms = None if event.audio_end_ms is None else int(event.audio_end_ms)
        reaction = self._barge_in.speech_stopped(event.item_id, now, end_ms)
        self._react(reaction, now)
        if reaction is not Reaction.RESUME:
            self._turn_ended_at = now
            # The response that this turn brings sees every tool output sent so far: nothing is owed any more.
            self._responses.forget()

    def _committed(self, item_id: str, now: float) -> None:
        if self._barge_in.is_noise(item_id):
            self._send(realtime.delete_item(item_id))
            self.history.forget(item_id)
            if item_id == self._unheard_item:
                self._unheard_from = None
            return
        self.history.turn(item_id, Speaker.CALLER)
        self._barge_in.speaking = False
        if self._own_answers:
            self._responses.want(Ask())
        else:
            self._responses.expect(now)

    def _caller_said(self, item_id: str, text: str, now: float) -> None:
        if text.strip():
            self._react(self._barge_in.words(), now)
        if item_id == self._unheard_item:
            self._unheard_from = None
        self.history.turn(item_id, Speaker.CALLER).text = text
        self._notice("caller_said", text=text)

    def _nothing_heard(self, now: float) -> None:
        """The caller has said nothing for `idle_timeout_ms`. The server prompts for ever: the count is ours (3.12)."""
        self._idle_prompts += 1
        if self._idle_prompts > self._limits.idle_prompts:
            text = f"nothing from the caller after {self._limits.idle_prompts} prompts"
            self._close(EndCall(EndReason.CALLER_SILENT, text), now)

    def _digits_entered(self, now: float) -> None:
        digits, self._digits = self._digits, ""
        self._notice("caller_pressed", count=len(digits))
        self._write(Speaker.CALLER, f"(The caller pressed these keys: {' '.join(digits)})")
        self._responses.want(Ask())

    # Interrupting ----------------------------------------------------------------------------------------------------

    @property
    def _may_interrupt(self) -> bool:
        return self._agent.barge_in != "off" and not self._greeting_protected

    def _react(self, reaction: Reaction, now: float) -> None:
        match reaction:
            case Reaction.INTERRUPT:
                self._interrupt(now)
            case Reaction.HOLD:
                self._speech.pause()
                self._notice("agent_paused")
            case Reaction.RESUME:
                self._speech.resume()
                self._notice("false_alarm")
            case Reaction.NOTHING:
                pass

    def _interrupt(self, now: float) -> None:
        """Barge-in: what the caller has not heard was never said. One synchronous step, so nothing slips between."""
        active = self._responses.active
        if active is not None:
            if self._responses.wanted and not self._server_interrupts:
                self._send(realtime.cancel_response(active))
            self._responses.discard(active)
        self._responses.expect_nothing()
        self._step(Step.BARGE_IN)
        cuts, responses = self._speech.flush()
        for response_id in responses:
            # Generated long ago maybe, but deltas that come after `response.done` have been seen.
            self._responses.discard(response_id)
        for cut in cuts:
            self._unsay(cut)
            self._notice("agent_interrupted", heard_ms=cut.played_ms, received_ms=cut.turn.received_ms)
            self._tell(cut.turn)
        if responses:
            self._commands.append(ClearLegAudio())
        self._first_delta_at = None
        self._settle_heard()

    def _unsay(self, cut: Cut) -> None:
        """Tell the model how much of a turn was heard."""
        turn = cut.turn
        if not turn.written and cut.played_ms > 0:
            self._send(realtime.truncate_item(turn.item_id, cut.content_index, cut.played_ms))
            return
        # Truncating to 0 ms may be refused (3.6), and a text can not be truncated at all: it is written anew.
        self._send(realtime.delete_item(turn.item_id))
        if turn.written and turn.heard_text:
            before = self.history.before(turn.item_id)
            turn.item_id += "-heard"
            self._send(realtime.create_item(message_item("assistant", turn.heard_text, turn.item_id), before))

    # The line --------------------------------------------------------------------------------------------------------

    def playout_started(self, now: float) -> list[Command]:
        """The first frame of something audible has just been sent to the caller."""
        self._speech.line_quiet = False
        if not self._speech.audible:
            self._speech.audible = True
            facts: dict[str, object] = {}
            if self._first_delta_at is not None:
                facts["bridge_ms"] = round((now - self._first_delta_at) * 1000, 1)
                if self._turn_ended_at is not None:
                    facts["model_ms"] = round((self._first_delta_at - self._turn_ended_at) * 1000)
            self._first_delta_at = self._turn_ended_at = None
            self._notice("agent_starts", **facts)
        return self._take(now)

    def playout_idle(self, now: float) -> list[Command]:
        """There is nothing left to send to the caller. While a response is being generated it is only a gap."""
        self._speech.line_quiet = True
        if not self._responses.wanted:
            self._drained(now)
        return self._take(now)

    def _drained(self, now: float) -> None:
        """Everything said so far has been heard."""
        if self._speech.audible:
            self._speech.audible = False
            self._activity_at = now
            self._notice("agent_stops")
        self._settle_heard()
        if self._greeting_protected and self._started_at is not None and not self._responses.busy:
            self._unprotect()
        if self._speech.idle and (command := self._endgame.drained()):
            self._commands.append(command)

    def _unprotect(self) -> None:
        """The greeting has been heard: from here on the agent's own rules hold."""
        self._greeting_protected = False

    def _settle_heard(self) -> None:
        """Every turn of the agent that was not cut has been heard to its end."""
        for turn in self._speech.settled():
            self._tell(turn)

    def _tell(self, turn: Turn) -> None:
        """Tell what the caller heard of a turn, once that is decided and its words are known (they may come later)."""
        if turn.heard_ms is not None and turn.complete and turn.text and not turn.told:
            turn.told = True
            self._notice("agent_said", text=turn.heard_text, heard_ms=turn.heard_ms, received_ms=turn.received_ms)

    # Tools -----------------------------------------------------------------------------------------------------------

    def _call_tools(self, calls: list[realtime.Item], now: float, *, interrupted: bool) -> None:
        """Carry out the calls of a response, each once. One that the caller talked into must not end the call."""
        for item in calls:
            call_id, name, arguments = item.call_id or "", item.name or "", item.arguments_json
            if not self.history.tool_called(call_id, name, arguments):
                continue
            self._notice("tool_called", name=name, call_id=call_id)
            match call_tools.interpret(self._agent, name, arguments):
                case call_tools.HangUp() | call_tools.Transfer() if interrupted:
                    self._answer_tool(call_id, "Not done: the caller started to speak.")
                case call_tools.HangUp(reason=why):
                    self._close(EndCall(EndReason.AGENT_HUNG_UP, why), now)
                case call_tools.Transfer(name=target, destination=destination):
                    self._close(TransferCall(call_id, target, destination.to), now)
                case call_tools.Misuse(message=message):
                    self._answer_tool(call_id, message)
                    self._responses.want(Ask())
                case None:
                    self._running_tools.add(call_id)
                    self._commands.append(RunTool(call_id, name, arguments))

    def tool_finished(self, call_id: str, output: str, now: float) -> list[Command]:
        """A tool's result, or the text of its failure; the model gets exactly one per call."""
        self._running_tools.discard(call_id)
        self._answer_tool(call_id, output)
        if self.state is not State.CLOSING:
            self._responses.want(Ask())
        return self._take(now)

    def transfer_failed(self, call_id: str, message: str, now: float) -> list[Command]:
        """The hand-over did not work: the caller is still ours, and the model hears why."""
        self._step(Step.STAY)
        self._endgame.reopen()
        self._activity_at = now
        self._notice("transfer_failed", message=message)
        self._answer_tool(call_id, f"The transfer failed: {message}")
        self._responses.want(Ask())
        return self._take(now)

    def _answer_tool(self, call_id: str, output: str) -> None:
        """The one output of a call. A session that does not know the call (it took over since) is told that first; without
        a session it is kept for the next one."""
        use = self.history.tool(call_id)
        if use is not None:
            use.output = output
            if self._lost_at is not None:
                return
            if not use.here:
                use.here = True
                self._send(realtime.create_item(use.call_item()))
        self._send(realtime.create_item(output_item(call_id, output)))

    # Time and endings ------------------------------------------------------------------------------------------------

    def tick(self, now: float) -> list[Command]:
        """Time has passed: every timer of the dialogue lives here. Called a few times a second."""
        limits = self._limits
        if self._started_at is None:
            return self._take(now)
        if self._digits and now - self._digit_at >= DIGIT_PAUSE_S:
            self._digits_entered(now)
        self._react(self._barge_in.tick(now), now)
        if now - self._started_at >= limits.max_duration_s:
            self._end(EndReason.MAX_DURATION, f"call limit of {limits.max_duration_s:g} s reached")
        elif self._endgame.closing:
            if command := self._endgame.tick(now, idle=self._speech.idle):
                self._commands.append(command)
        elif end := self._endgame.overdue(now):
            self._close(end, now)
        elif self._responses.stalled(now):
            text = f"no answer from the model for {limits.response_stall_s:g} s"
            self._commands.append(DropSession(EndReason.MODEL_STALLED, text))
        elif self._quiet and now - self._activity_at >= limits.caller_silent_s:
            self._end(EndReason.CALLER_SILENT, f"nothing from the caller for {limits.caller_silent_s:g} s")
        else:
            self._think_of_tomorrow(now)
        return self._take(now)

    def _think_of_tomorrow(self, now: float) -> None:
        """The session's own end comes nearer."""
        between = not (self._responses.busy or self._responses.awaited or self._barge_in.speaking)
        quiet = between and self._speech.silent and not self._running_tools
        match self._continuity.tick(now, between_turns=between, quiet=quiet):
            case Change.OPEN_SUCCESSOR:
                self._commands.append(OpenSuccessor())
            case Change.SWAP:
                self._commands.append(SwapSessions())

    def _fail(self, reason: EndReason, detail: str, code: str | None, now: float) -> None:
        """The model can not go on."""
        self._end(reason, detail, code)

    def _close(self, command: EndCall | TransferCall, now: float) -> None:
        """The call is to end with `command`, but only after the caller has heard everything. The first one counts."""
        if self._endgame.close(command, now):
            self._step(Step.CLOSE)
            self._responses.forget()
            if self._speech.silent and not self._responses.wanted:
                self._drained(now)

    def _end(self, reason: EndReason, detail: str, code: str | None = None) -> None:
        self._commands.append(EndCall(reason, detail, code))

    # Helpers ---------------------------------------------------------------------------------------------------------

    @property
    def _quiet(self) -> bool:
        """Nobody does anything: the caller's silence counts."""
        busy = self._responses.busy or self._running_tools or self._barge_in.speaking or self._lost_at is not None
        return not busy and self._speech.idle

    def _ask(self, instructions: str) -> Ask:
        """`response.instructions` replace the session's, so the persona is repeated (section 3.5)."""
        return Ask({"instructions": f"{self._session.get('instructions', '')}\n\n{instructions}".strip()})

    def _write(self, speaker: Speaker, text: str) -> None:
        """Put a message into the conversation that nobody spoke."""
        self._items_made += 1
        item_id = f"bridge-{self._items_made}"
        self.history.wrote(item_id, speaker, text)
        if self._lost_at is None:
            role = "user" if speaker is Speaker.CALLER else "assistant"
            self._send(realtime.create_item(message_item(role, text, item_id)))

    def _send(self, payload: bytes) -> None:
        self._commands.append(SendEvent(payload))

    def _notice(self, event: str, **facts: object) -> None:
        self._commands.append(Notice(event, facts))

    def _step(self, step: Step) -> None:
        if (self.state, step) not in TRANSITIONS:
            raise ModelProtocolError(f"{step.value} while {self.state.value}")
        self.state = TRANSITIONS[self.state, step]

    def _take(self, now: float) -> list[Command]:
        """What to do; last of all the response that is owed, if it may be asked for now."""
        blocked = (
            self._started_at is None or self._lost_at is not None or self.state is State.CLOSING
            or self._barge_in.speaking or bool(self._running_tools)
        )  # fmt: skip
        if not blocked and (ask := self._responses.next_request(now)):
            self._send(realtime.create_response(ask.fields))
        commands, self._commands = self._commands, []
        return commands


def _barge_in(agent: Agent) -> BargeIn:
    detection = agent.turn_detection
    vad = detection.type == "server_vad"
    return BargeIn(
        agent.barge_in,
        confirm_s=agent.barge_in_confirm_ms / 1000,
        silence_s=detection.silence_duration_ms / 1000 if vad else SEMANTIC_WAIT_S,
        padding_ms=detection.prefix_padding_ms if vad else 0,
    )
