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

ANNOUNCING (`handover`): the agent says what belongs to a transfer and hears nobody; then CLOSING, or back to LISTENING.

Every method takes `now` (seconds of any monotonic clock) and returns the commands to carry out, in order. `RESPONDING`
means that the server generates; whether the caller *hears* something is the playout's knowledge, and usually outlasts it
by seconds. The server cancels by itself when the caller speaks (`interrupt_response`), but it never truncates on a
websocket: what was heard is told from the ledger (protocol sheet 3.6).

Here inputs are dispatched, and everything about responses, the line, time and the end is decided. The rest has its own
file: `talk` (the common ground), `caller_turns`, `caller_keys`, `tool_use`, `takeover`, `accounts`, `application`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from bridge import application, call_tools, realtime, realtime_errors
from bridge.accounts import Accounts
from bridge.agent import Agent
from bridge.barge_in import Reaction
from bridge.call_events import TranscriptPartial
from bridge.call_limits import CallLimits, LastWord
from bridge.caller_keys import CallerKeys
from bridge.caller_turns import CallerTurns
from bridge.config import Limits
from bridge.dialogue import Command, DropSession, EndCall, State, Step, TransferCall
from bridge.ending import EndReason, reason_for
from bridge.handover import Handover
from bridge.history import History, Speaker
from bridge.hold import Hold
from bridge.latency import CallLatency
from bridge.opening import ANSWERED, MACHINE_ANSWERED, Opening, greet_when_spoken_to, parties
from bridge.playout import PlayoutQueue
from bridge.realtime_errors import check_effective_session
from bridge.realtime_mcp import McpEvent
from bridge.recording import opening
from bridge.responses import Ask
from bridge.session import merged, session_of
from bridge.sounds import Sounds
from bridge.takeover import Takeover
from bridge.talk import Talk
from bridge.tool_use import ToolUse
from bridge.usage import BudgetState, Usage
from bridge.waiting import Waiting

# A server that keeps reporting internal errors without closing is not going to recover (section 4: "count, reconnect").
MAX_SERVER_ERRORS = 5


class Conversation:
    """The dialogue between one caller and one model, through as many sessions as it takes.

    The shell calls `connected` once a session stands and `media_ready` once the caller can hear us, then feeds messages,
    playout changes, tool results, digits and ticks; it carries out what is returned, in order, before the next input.
    `session` is the complete configuration of a session, GA shaped. `turns` and `usage` are filled meanwhile.
    """

    def __init__(
        self,
        agent: Agent,
        playout: PlayoutQueue,
        limits: Limits,
        *,
        session: Mapping[str, Any] | None = None,
        lag_ms: int = 0,
        sounds: Sounds | None = None,
        usage: Usage | None = None,
        turns: CallLatency | None = None,
        model: str = "",
        begins: Opening = ANSWERED,
    ) -> None:
        self._limits = limits
        self._talk = Talk(
            agent, limits, playout, session or session_of(agent, call_tools.declarations(agent)), lag_ms
        )
        self._commands = self._talk.commands
        self._responses = self._talk.responses
        self._speech = self._talk.speech
        self._endgame = self._talk.endgame
        self._accounts = Accounts(agent, self._commands, usage=usage, turns=turns or CallLatency(), model=model)
        self._caller = CallerTurns(self._talk, self._accounts)
        self._tools = ToolUse(self._talk, self._accounts)
        self._hold = Hold(self._talk)
        self._call_limits = CallLimits(self._talk, self._accounts)
        self._keys = CallerKeys(self._talk, self._accounts, self._caller, self._tools)
        self._takeover = Takeover(self._talk, self._caller, self._tools)
        self._handover = Handover(self._talk, self._tools)
        self._waiting = Waiting(self._talk, self._tools, sounds or Sounds({}), playout.format.rate_hz)
        self._configured: Mapping[str, Any] = {}
        self._server_errors = 0
        # Words often come before the first audio of their item, which makes the turn.
        self._early_words: dict[str, str] = {}
        self._opening = begins
        self._machine = False
        self._first_word_owed = begins.callee_first
        if begins.facts:
            self._talk.write(Speaker.SYSTEM, begins.facts)
        for who in parties(begins.muted):
            self._hold.mute(who, True)
        self.appended_ms = 0
        """How much of the caller's audio the present session has been given: the shell counts it up."""

    @property
    def history(self) -> History:
        return self._talk.history

    @property
    def state(self) -> State:
        return self._talk.state

    @property
    def longest_silence_s(self) -> float:
        """The longest that the caller heard nothing while it was our turn."""
        return self._waiting.longest_silence_s

    @property
    def wants_audio(self) -> bool:
        """Whether the caller's audio goes to the model: not while the agent takes leave, nor before the talk key."""
        listens = not self._talk.leaving or self._endgame.revocable
        return listens and not self._talk.on_hold and self._caller.wants_audio

    @property
    def on_hold(self) -> bool:
        """Whether the caller does not hear us, or is not meant to: nothing of his is to be expected then."""
        return self._talk.on_hold

    @property
    def deaf(self) -> bool:
        """Whether the model gets silence in the place of the caller's audio."""
        return bool(self._talk.deaf_for) or self._talk.on_hold

    @property
    def counts_samples(self) -> bool:
        """Whether the session detects turns by itself: a pause in the caller's audio has to reach it as silence."""
        return self._talk.session.get("audio", {}).get("input", {}).get("turn_detection") is not None

    @property
    def answers_turns(self) -> bool:
        """Whether the caller's manual turns are answered by themselves; False: when an application asks for it."""
        return self._talk.answers_turns

    @answers_turns.setter
    def answers_turns(self, answers: bool) -> None:
        self._talk.answers_turns = answers

    # The session -----------------------------------------------------------------------------------------------------

    def session_update(self) -> bytes:
        """The first event of any session: the complete present configuration. One that changes until the session stands
        is sent again then."""
        self._configured = self._configuration()
        return realtime.update_session(self._configured)

    def _configuration(self) -> Mapping[str, Any]:
        session = self._talk.session
        if self._talk.protected and (detection := session["audio"]["input"].get("turn_detection")):
            switches = {key: False for key in ("create_response", "interrupt_response") if key in detection}
            session = merged(session, {"audio": {"input": {"turn_detection": {**detection, **switches}}}})
        return session

    def connected(self, now: float, lifetime_s: float | None) -> list[Command]:
        """A session stands, configured with `session_update`. One that is not the first is told what was said so far."""
        self.appended_ms = 0
        if (configuration := self._configuration()) != self._configured:
            # An application changed it, or the greeting was heard: seconds ago, or minutes (a successor waits so long).
            self._configured = configuration
            self._commands.send(realtime.update_session(configuration))
        self._takeover.connected(now, lifetime_s)
        if self._talk.protected:
            self._talk.own_answers, self._talk.server_interrupts = True, False
        return self._take(now)

    def session_lost(self, reason: EndReason, detail: str, code: str | None, now: float) -> list[Command]:
        """The session is gone, however that came. Another one is opened, unless that has not helped before."""
        self._server_errors = 0
        again = self._takeover.lost(reason, detail, code, now)
        if self._talk.closing:
            if self._speech.silent:
                self._drained(now)
        elif not again:
            self._fail(reason, detail, code, now)
        return self._take(now)

    def give_up(self, reason: EndReason, detail: str, code: str | None, now: float) -> list[Command]:
        """No other session could be opened."""
        self._takeover.gave_up()
        self._fail(reason, detail, code, now)
        return self._take(now)

    def successor_ready(self, now: float) -> list[Command]:
        """A session stands beside the present one."""
        self._takeover.successor_ready()
        return self._take(now)

    def successor_failed(self, detail: str, now: float) -> list[Command]:
        """No session could be opened beside the present one; it is tried again."""
        self._takeover.successor_failed(detail, now)
        return self._take(now)

    def media_ready(self, now: float) -> list[Command]:
        """The caller is on the line and can hear us: greet, once."""
        if self._talk.started_at is None:
            self._talk.started_at = self._talk.activity_at = now
            self._open(now)
        return self._take(now)

    def answered_by_machine(self) -> None:
        """The call that we placed reached an answering machine; before `media_ready`."""
        self._machine = True

    def _open(self, now: float) -> None:
        talk, begins = self._talk, self._opening
        if self._machine and begins.message:
            self._first_word_owed = False
            ask = talk.ask(opening(talk.agent.recording, begins.message_words))
            self._endgame.wind_down(ask, EndCall(EndReason.ANSWERING_MACHINE, "the message was left"), now)
            self._accounts.clock.prompted(now)
            self._responses.want(ask)
            return
        if self._machine:
            talk.write(Speaker.SYSTEM, MACHINE_ANSWERED)
        if not self._first_word_owed:
            self._greet(now)
        elif first := opening(talk.agent.recording, talk.agent.greeting):
            talk.write(Speaker.SYSTEM, greet_when_spoken_to(first))

    def _greet(self, now: float) -> None:
        if first := opening(self._talk.agent.recording, self._talk.agent.greeting):
            self._accounts.clock.prompted(now)
            self._responses.want(self._talk.ask(first))

    # What the model says ---------------------------------------------------------------------------------------------

    def model_message(self, message: str | bytes, now: float) -> list[Command]:
        """One message of the model. Raises `ModelProtocolError` for what the protocol does not allow, and `ModelRejected`
        for a session that does not speak our format any more."""
        self._responses.sign_of_life(now)
        match realtime.parse_server_event(message):
            case realtime.AudioDelta() as delta:
                self._audio(delta, now)
            case realtime.AudioDone(response_id=response_id):
                # The response may go on for long without a sound (a tool's arguments): its last samples are due now.
                self._speech.finish_item(response_id)
            case realtime.SpeechStarted() as event if not self._talk.leaving or self._endgame.revocable:
                self._speech_started(event, now)
            case realtime.SpeechStopped() as event:
                if self._caller.speech_stopped(event, now, self.appended_ms):
                    self._keys.spoke(now)
            case realtime.Committed(item_id=item_id) if not self._talk.leaving:
                self._caller.committed(item_id, now)
            case realtime.TimeoutTriggered(item_id=item_id) if not self._talk.leaving:
                self._nothing_said(item_id, now)
            case realtime.CallerTranscriptDelta(delta=text) as event if text:
                self._caller.understood(event, now)
            case realtime.CallerTranscriptFailed(item_id=item_id):
                self._caller.not_transcribed(item_id)
            case realtime.CallerTranscript() as event:
                self._caller.said(event, now)
            case realtime.ResponseCreated(response=response):
                self._response_created(response, now)
            case realtime.OutputItemDone(response_id=response_id, item=item):
                if not self._responses.is_apart(response_id):
                    self._tools.of_response(item, now)
            case realtime.ItemDone(item=item):
                self._tools.in_conversation(item, now)
            case realtime.AgentTranscriptDelta() as event:
                self._agent_words(event)
            case realtime.AgentTranscript(item_id=item_id, transcript=text) if item_id in self.history:
                turn = self.history.turn(item_id, Speaker.AGENT)
                turn.text, turn.complete = text, True
                self._talk.tell(turn)
            case realtime.AgentText(item_id=item_id, text=text) if item_id and text:
                self.history.replied(item_id, text)
            case realtime.ResponseDone(response=response):
                self._response_done(response, now)
            case realtime.SessionUpdated(session=session):
                check_effective_session(session, self._talk.session)
                self._talk.follow(session)
            case realtime.ErrorEvent(error=error):
                self._error(error, now)
            case realtime.Unhandled():
                pass
            case event if isinstance(event, McpEvent):
                self._tools.mcp_event(event, now)
            case _:
                pass
        return self._take(now)

    def _speech_started(self, event: realtime.SpeechStarted, now: float) -> None:
        self._caller_is_back()
        self._caller.speech_started(event, now)

    def _nothing_said(self, item_id: str, now: float) -> None:
        self._caller.nothing_said(item_id)
        if last := self._call_limits.server_prompts(now):
            self._wind_down(last, now)

    def _response_created(self, response: realtime.Response, now: float) -> None:
        talk = self._talk
        if not self._responses.created(response, now):
            return
        self._first_word_owed = False
        talk.step(Step.RESPONSE_CREATED)
        self._early_words.clear()
        self._tools.response_created()
        self._accounts.clock.response_created(now)
        if talk.closing:
            self._responses.discard(response.id)
            self._responses.expect_nothing()
        elif talk.barge_in.speaking and not talk.barge_in.held and talk.may_interrupt:
            # Our request crossed with the caller's first words: the server did not interrupt what had not begun (3.6).
            talk.interrupt()
        elif talk.agent_muted or (now < talk.no_prompt_until and not self._responses.asked.fields):
            talk.no_prompt_until = 0.0
            talk.interrupt()

    def _audio(self, delta: realtime.AudioDelta, now: float) -> None:
        if self._responses.is_discarded(delta.response_id):
            return
        self._accounts.clock.first_delta(now)
        if self._talk.first_delta_at is None and not self._speech.audible:
            self._talk.first_delta_at = now
        sounding = self._speech.sounding
        self._speech.audio(delta, active=delta.response_id == self._responses.active)
        if words := self._early_words.pop(delta.item_id, ""):
            self.history.turn(delta.item_id, Speaker.AGENT).text = words
        if sounding:
            # The line goes on without a gap, so nobody will say that something begins: at most 20 ms from now.
            self._agent_starts(now, delta.item_id)

    def _agent_words(self, event: realtime.AgentTranscriptDelta) -> None:
        item_id, cut = event.item_id, self._responses.is_discarded(event.response_id)
        if item_id in self.history:
            turn = self.history.turn(item_id, Speaker.AGENT)
            turn.text += event.delta
            text, cut = turn.text, cut or turn.interrupted
        else:
            text = self._early_words[item_id] = self._early_words.get(item_id, "") + event.delta
        if event.delta and not cut:
            self._commands.do(TranscriptPartial(role="agent", item_id=item_id, delta=event.delta, text=text))

    def _response_done(self, response: realtime.Response, now: float) -> None:
        self._speech.finish_item(response.id)
        interrupted = self._responses.is_discarded(response.id)
        mine = self._responses.done(response, now)
        budget = self._accounts.response_done(response, out_of_band=not mine)
        if not mine:
            if not self._talk.closing:
                self._mind_the_budget(budget, now)
            return
        self._talk.step(Step.RESPONSE_DONE)
        if self._talk.closing:
            if self._speech.silent:
                self._drained(now)
            return
        failed = response.status == "failed" and not interrupted
        if failed:
            self._response_failed(response, now)
        elif response.status in ("completed", "incomplete"):
            self._takeover.progress()
            if not interrupted:
                self._caller.answered()
        end: EndCall | TransferCall | None = self._tools.carry_out(response, now, interrupted=interrupted)
        if end is None and not interrupted and not failed:
            end = self._endgame.said(self._responses.asked) or self._handover.response_done(self._responses.asked)
        if end is not None:
            self._close(end, now)
        else:
            self._mind_the_budget(budget, now)
            if last_word := self._endgame.last_word:
                # The caller came between: what was owed is forgotten then.
                self._responses.want(last_word)
        if self._speech.silent:
            self._drained(now)

    def _response_failed(self, response: realtime.Response, now: float) -> None:
        details = response.status_details
        error = details.error if isinstance(details, realtime.StatusDetails) else None
        self._failed(error or realtime.ServerError(message=details if isinstance(details, str) else None), now)

    def _failed(self, error: realtime.ServerError, now: float) -> None:
        """What was asked for was not given: ask again, where that may help."""
        text = f"the model's response failed: {error.text}"
        if self._responses.retry(error, now):
            self._commands.notice("response_retried", message=text, rate_limited=self._responses.rate_limited)
        else:
            self._fail(EndReason.MODEL_FAILED, text, error.word, now)

    def _error(self, error: realtime.ServerError, now: float) -> None:
        verdict = realtime_errors.triage(error)
        self._commands.notice("model_error", code=error.code, message=error.message, verdict=verdict.name.lower())
        if error.code == "conversation_already_has_active_response":
            # No response.done follows for what was refused: ask (again) when the active one is done.
            if not self._talk.closing:
                self._responses.refused(now)
        elif verdict is realtime_errors.Verdict.FATAL:
            reason, detail, code = reason_for(realtime_errors.error_of(error))
            if reason is EndReason.MODEL_LOST:
                self._commands.do(DropSession(reason, detail, code))
            else:
                self._fail(reason, detail, code, now)
        elif self._responses.requested and error.event_id == self._responses.request_id:
            # No response, and no response.done, follows. What an application got wrong, asking again does not mend.
            if not self._responses.rejected().foreign or verdict is realtime_errors.Verdict.RETRYABLE:
                self._failed(error, now)
        elif verdict is realtime_errors.Verdict.RETRYABLE:
            self._server_errors += 1
            if self._server_errors >= MAX_SERVER_ERRORS:
                text = f"repeated errors of the server: {error.text}"
                self._commands.do(DropSession(EndReason.MODEL_FAILED, text, error.word))

    # What others do --------------------------------------------------------------------------------------------------

    def caller_digit(self, digit: str, now: float) -> list[Command]:
        """A key that the caller pressed. One that ends the call does so at once: the agent is cut short for it."""
        self._caller_is_back()
        if end := self._keys.pressed(digit, now):
            self._close_now(end, now)
        return self._take(now)

    def caller_ends_turn(self, now: float) -> list[Command]:
        """The caller says that the turn is over, otherwise than by a key."""
        self._caller_is_back()
        self._caller.end_turn(now)
        return self._take(now)

    def caller_held(self, held: bool, now: float) -> list[Command]:
        """The caller has put us on hold, or is back."""
        self._hold.by_caller(held, now)
        return self._take(now)

    def hold(self, music: str | None, now: float) -> list[Command]:
        """The application puts the caller on hold, or (None) takes him back."""
        self._hold.by_application(music, now)
        return self._take(now)

    def mute(self, who: Literal["caller", "agent"], muted: bool, now: float) -> list[Command]:
        """The application mutes one of the two for the other."""
        self._hold.mute(who, muted)
        return self._take(now)

    def tool_finished(self, call_id: str, output: str, now: float) -> list[Command]:
        """A tool's result, or the text of its failure; the model gets exactly one per call."""
        self._tools.finished(call_id, output, now)
        return self._take(now)

    def approval_given(self, request_id: str, approve: bool, reason: str, now: float) -> list[Command]:
        """What the application decided about a call of an MCP tool."""
        self._tools.approval_given(request_id, approve, reason, now)
        return self._take(now)

    def transfer_checked(self, transfer: TransferCall, problem: str, known: str, now: float) -> list[Command]:
        """Whether a transfer is possible; `problem`: why not, `known`: what is worth telling about it."""
        if (ready := self._handover.checked(transfer, problem, known, now)) is not None:
            self._close(ready, now)
        return self._take(now)

    def target_answered(self, transfer: TransferCall, now: float) -> list[Command]:
        """Somebody took the call and hears us instead of the caller, who is on hold: `Briefed` says when they know."""
        self._handover.target_answered(transfer, now)
        self._takeover.reopen()
        return self._take(now)

    def transfer_failed(self, call_id: str, message: str, now: float) -> list[Command]:
        """The hand-over did not work: the caller is still ours, and the model hears why."""
        talk = self._talk
        if talk.state is State.ANNOUNCING:
            talk.interrupt()  # the rest of a summary is not for the caller
        talk.step(Step.STAY)
        self._handover.stay()
        self._endgame.reopen()
        self._takeover.reopen()
        talk.activity_at = now
        self._commands.notice("transfer_failed", message=message)
        if call_id:
            self._tools.answer(call_id, f"The transfer failed: {message}", now, failed=True)
        else:
            talk.write(Speaker.SYSTEM, f"(The transfer failed: {message})")
        self._responses.want(Ask())
        return self._take(now)

    def application_event(self, event: Mapping[str, Any], now: float) -> list[Command]:
        """A Realtime client event of the application's own. Raises `ConfigError` for one that must not be sent."""
        application.carry_out(self._talk, self._tools, event, now)
        return self._take(now)

    def application_ends(self, command: EndCall | TransferCall, now: float) -> list[Command]:
        """The application ends the call, or hands it over, when everything has been heard; what it asked the agent to say
        before that is said first. An end takes back a transfer that is under way, at once where that has begun."""
        self._keys.stop(now)
        if self._endgame.hands_over:
            self._overrule(command)
            return self._take(now)
        unsaid = None if self._talk.held_back else self._responses.unsaid
        if unsaid is None or not self._endgame.wind_down(unsaid, command, now):
            self._close(command, now)
        return self._take(now)

    def _overrule(self, command: EndCall | TransferCall) -> None:
        """Somebody decides otherwise while a transfer is under way."""
        if isinstance(command, TransferCall):
            message = "another transfer is under way; if it fails, this one can be asked for again"
            self._commands.notice("transfer_refused", destination=command.name, message=message)
        elif not self._endgame.instead(command):
            self._commands.do(command)

    # The line --------------------------------------------------------------------------------------------------------

    def playout_started(self, now: float) -> list[Command]:
        """The first frame of something audible has just been sent to the caller."""
        self._speech.line_quiet = False
        if not self._speech.sounding:
            self._agent_starts(now)
        return self._take(now)

    def _agent_starts(self, now: float, item_id: str = "") -> None:
        """The caller begins to hear the agent, or hears it again after a gap."""
        self._waiting.agent_starts(now)
        self._accounts.first_frame(now)
        if not self._speech.audible:
            playback = self._speech.begins(item_id)
            facts: dict[str, object] = {}
            if self._talk.first_delta_at is not None:
                facts["bridge_ms"] = round((now - self._talk.first_delta_at) * 1000, 1)
                if self._caller.ended_at is not None:
                    facts["model_ms"] = round((self._talk.first_delta_at - self._caller.ended_at) * 1000)
            self._talk.first_delta_at = self._caller.ended_at = None
            self._commands.notice("agent_starts", **facts)
            self._commands.do(playback)

    def playout_idle(self, now: float) -> list[Command]:
        """There is nothing left to send to the caller. While a response is being generated it is only a gap."""
        self._speech.line_quiet = True
        if not self._responses.wanted:
            self._drained(now)
        return self._take(now)

    def _drained(self, now: float) -> None:
        """Everything said so far has been heard."""
        if self._speech.audible:
            self._talk.activity_at = now
            self._commands.notice("agent_stops")
            self._commands.do(self._speech.ends(interrupted=False))
        self._talk.settle_heard()
        greeted = not (self._responses.busy or self._responses.owed or self._takeover.resumes)
        if self._talk.protected and self._talk.started_at is not None and greeted:
            self._unprotect()
        self._handover.drained()
        if self._speech.idle and (command := self._endgame.drained()):
            self._commands.do(command)

    def _unprotect(self) -> None:
        """The greeting has been heard: from here on the agent's own rules hold. `session.updated` says since when."""
        self._talk.protected = False
        if self._talk.answer_later:
            self._talk.answer_later = False
            self._responses.want(Ask())
        detection = self._talk.session["audio"]["input"].get("turn_detection")
        if detection and self._talk.session_stands:
            self._commands.send(realtime.update_session({"audio": {"input": {"turn_detection": detection}}}))

    # Time and endings ------------------------------------------------------------------------------------------------

    def tick(self, now: float) -> list[Command]:
        """Time has passed: every timer of the dialogue lives here. Called a few times a second."""
        talk, limits = self._talk, self._limits
        if talk.started_at is None:
            return self._take(now)
        self._caller.tick(now)
        self._keys.tick(now)
        self._tools.tick(now)
        undisturbed = self._quiet and not talk.leaving and self._endgame.last_word is None
        limit = self._call_limits.tick(now, quiet=undisturbed)
        if isinstance(limit, LastWord) and not talk.leaving:
            self._wind_down(limit, now)
        if isinstance(limit, EndCall):
            self._commands.do(limit)
        elif self._handover.overdue(now):
            self._unsaid(now)
        elif given_up := self._hold.tick(now):
            self._commands.do(given_up)
        elif self._endgame.closing and not self._handover.speaking:
            if command := self._endgame.tick(now, idle=self._speech.idle):
                self._commands.do(command)
        elif end := self._endgame.overdue(now):
            self._close(end, now)
        elif self._responses.stalled(now) and self._responses.drop_foreign():
            self._commands.notice("request_unanswered")
        elif self._responses.stalled(now):
            text = f"no answer from the model for {limits.response_stall_s:g} s"
            self._commands.do(DropSession(EndReason.MODEL_STALLED, text))
        elif self._first_word_owed and self._quiet and now - talk.activity_at >= self._opening.wait_s:
            self._first_word_owed = False
            self._greet(now)
        else:
            self._takeover.tick(now)
        return self._take(now)

    def over(self, now: float) -> list[Command]:
        """The call has ended, however that came: what is still to be told of it."""
        self._caller.over()
        self._talk.over()
        return self._talk.commands.take()

    @property
    def _quiet(self) -> bool:
        """Nobody does anything: the caller's silence counts."""
        busy = self._responses.busy or self._tools.busy or self._talk.barge_in.speaking
        talk = self._talk
        occupied = talk.lost_at is not None or talk.collection is not None or talk.on_hold or talk.agent_muted
        return not busy and not occupied and self._speech.idle

    def _mind_the_budget(self, state: BudgetState, now: float) -> None:
        last = self._call_limits.budget(state)
        if last is not None and self._wind_down(last, now):
            self._commands.notice("budget_spent")

    def _wind_down(self, last: LastWord, now: float) -> bool:
        """The model is to say a last word, and then the call ends. False: it is ending already."""
        talk = self._talk
        ask = talk.ask(last.words)
        if not self._endgame.wind_down(ask, last.end, now, revocable=last.revocable):
            return False
        self._keys.stop(now)
        if last.cuts_short and self._speech.queued_ms > self._limits.goodbye_s * 1000:
            talk.interrupt()  # nobody would live to hear the goodbye behind that
        self._responses.want(ask, now + last.wait_s if last.wait_s else 0.0)
        return True

    def _caller_is_back(self) -> None:
        """The caller does something: an end for want of that is called off."""
        last_word = self._endgame.last_word
        if self._endgame.revoke():
            self._commands.notice("caller_is_back")
            if self._talk.closing:
                self._talk.step(Step.STAY)
            elif last_word is not None:
                self._responses.take_back(last_word)

    def _fail(self, reason: EndReason, detail: str, code: str | None, now: float) -> None:
        """The model can not go on. A caller who has been answered hears so before going on elsewhere."""
        end = EndCall(reason, detail, code)
        if self._talk.started_at is None:
            self._commands.do(end)
        elif self._handover.speaking:
            self._unsaid(now)  # the caller is to go on elsewhere anyway
        elif not self._endgame.closing:
            if self._waiting.say_sorry():
                self._close(end, now)
            else:
                self._commands.do(end)

    def _unsaid(self, now: float) -> None:
        """The words that belong to a transfer can not be said: do it without them."""
        if (transfer := self._handover.give_up()) is not None:
            self._close(transfer, now)

    def _close(self, command: EndCall | TransferCall, now: float) -> None:
        """The call is to end with `command`, but only after the caller has heard everything. The first one counts."""
        if self._endgame.close(command, now):
            self._handover.stay()
            self._talk.step(Step.CLOSE)
            self._keys.stop(now)
            self._responses.forget()
            if self._talk.barge_in.deaf() is Reaction.RESUME:
                self._speech.resume()
            if self._speech.silent and not self._responses.wanted:
                self._drained(now)

    def _close_now(self, command: EndCall | TransferCall, now: float) -> None:
        """End the call with `command` without waiting for the agent's words, its goodbye included."""
        if self._endgame.closing and not self._endgame.instead(command):
            if self._endgame.hands_over:
                self._overrule(command)
            return
        self._talk.interrupt()
        self._accounts.clock.interrupted(now)
        if self._endgame.closing:
            self._drained(now)
        else:
            self._close(command, now)

    def _take(self, now: float) -> list[Command]:
        """What to do; last of all the response that is owed, if it may be asked for now."""
        talk = self._talk
        if talk.started_at is not None:
            self._waiting.check(now)
        blocked = (
            talk.started_at is None
            or talk.lost_at is not None
            or talk.closing
            or talk.barge_in.speaking
            or bool(self._tools.running)
            or talk.collection is not None
            or talk.held_back
            or talk.agent_muted
        )
        if not blocked and (ask := self._responses.next_request(now)):
            self._commands.send(realtime.create_response(ask.fields, self._responses.request_id))
        return self._commands.take()
