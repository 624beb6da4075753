"""The dialogue of one call as a state machine: inputs in, commands out, no I/O, no clock.

    input               LISTENING           RESPONDING           INTERRUPTED       CLOSING
    response.created    -> RESPONDING; cancelled if the caller speaks meanwhile    discard that response
    audio delta         play                play                 drop if discarded play if not discarded
    speech_started      flush the tail      flush, discard       flush             ignore: the agent takes leave
                                            -> INTERRUPTED
    response.done       owed create         -> LISTENING, owed   -> LISTENING,     finish when played out
                                            create, tools run    owed create
    closing tool        -> CLOSING          -> CLOSING           -                 -
    transfer failed     -                   -                    -                 -> LISTENING, tell the model
    tick                silence, duration   stall watchdog       stall watchdog    goodbye limit

Every method takes `now` (seconds of any monotonic clock) and returns the commands to carry out, in order. `RESPONDING`
means that the server generates; whether the caller *hears* something is the playout's knowledge, and usually outlasts it
by seconds. The server cancels by itself when the caller speaks (`interrupt_response`), but it never truncates on a
websocket: what was heard is told from the ledger (protocol sheet 3.6).
"""

from __future__ import annotations

from dataclasses import dataclass

from bridge import call_tools, realtime
from bridge.audio import MODEL_FORMAT, resampler
from bridge.config import Agent, Limits
from bridge.dialogue import (
    TRANSITIONS,
    ClearLegAudio,
    Command,
    EndCall,
    Notice,
    RunTool,
    SendEvent,
    State,
    Step,
    TransferCall,
)
from bridge.ending import EndReason, reason_for
from bridge.errors import ModelProtocolError
from bridge.history import History, Speaker, Turn
from bridge.playout import AudioItem, PlayoutQueue

# Keys pressed within this time of each other are told to the model as one entry; `#` ends an entry at once.
DIGIT_PAUSE_S = 1.5
# A request that was refused for an active response is made again when that is done, but not at once: a server that says
# so although nothing is active must not be asked in a loop.
REFUSED_WAIT_S = 0.5
# A server that keeps reporting internal errors without closing is not going to recover (section 4: "count").
MAX_SERVER_ERRORS = 5


@dataclass(slots=True)
class _Closing:
    """How the call is going to end once everything has been heard. `quiet_since`: nothing to play since then."""

    command: EndCall | TransferCall
    quiet_since: float
    issued: bool = False


class Conversation:
    """The dialogue between one caller and one model session.

    The shell calls `media_ready` once the session stands and the caller can hear us, then feeds messages, playout
    changes, tool results, digits and ticks; it carries out what is returned, in order, before the next input.
    """

    def __init__(self, agent: Agent, playout: PlayoutQueue, limits: Limits, *, lag_ms: int = 0) -> None:
        self._agent = agent
        self._playout = playout
        self._limits = limits
        self._lag_ms = lag_ms
        self._to_wire = resampler(MODEL_FORMAT.rate_hz, playout.format.rate_hz)
        self.history = History()
        self.state = State.LISTENING
        self._commands: list[Command] = []
        # The response that the server generates now, whether one was asked for, and the one still to be asked for (its
        # own instructions, or an empty string). Audio of a discarded response is never played.
        self._active: str | None = None
        self._requested = False
        self._asked = ""
        self._owed: str | None = None
        self._owed_from = 0.0
        self._discarded: set[str] = set()
        self._item: AudioItem | None = None
        self._calls: dict[str, realtime.Item] = {}
        self._seen_calls: set[str] = set()
        self._running_tools: set[str] = set()
        self._closing: _Closing | None = None
        self._caller_speaks = False
        self._audible = False
        self._line_quiet = True
        self._retry_left = True
        self._server_errors = 0
        self._digits = ""
        self._digit_at = 0.0
        self._started_at: float | None = None
        self._waiting_since: float | None = None
        self._activity_at = 0.0
        self._turn_ended_at: float | None = None
        self._first_delta_at: float | None = None

    # Inputs ----------------------------------------------------------------------------------------------------------

    @property
    def wants_audio(self) -> bool:
        """Whether the caller's audio goes to the model: not while the agent takes leave."""
        return self.state is not State.CLOSING

    def media_ready(self, now: float) -> list[Command]:
        """The caller is on the line and can hear us: greet, once."""
        if self._started_at is None:
            self._started_at = self._activity_at = now
            if self._agent.greeting:
                # `response.instructions` replaces the session's, so the persona is repeated (section 3.5).
                self._request(now, f"{self._agent.instructions}\n\n{self._agent.greeting}")
        return self._take()

    def model_message(self, message: str | bytes, now: float) -> list[Command]:
        """One message of the model. Raises `ModelProtocolError` for what the protocol does not allow."""
        if self._active is not None and self._waiting_since is not None:
            self._waiting_since = now
        match realtime.parse_server_event(message):
            case realtime.AudioDelta() as delta:
                self._audio(delta, now)
            case realtime.SpeechStarted(item_id=item_id):
                self._speech_started(item_id, now)
            case realtime.SpeechStopped():
                self._speech_stopped(now)
            case realtime.Committed() if self.state is not State.CLOSING:
                self._caller_speaks = False
                self._waiting_since = now
            case realtime.ResponseCreated(response=response):
                self._response_created(response.id, now)
            case realtime.OutputItemDone(item=item) if item.type == "function_call" and item.call_id:
                self._calls[item.call_id] = item
            case realtime.AgentTranscript(item_id=item_id, transcript=text) if item_id in self.history:
                turn = self.history.turn(item_id, Speaker.AGENT)
                turn.text = text
                self._tell(turn)
            case realtime.CallerTranscript(item_id=item_id, transcript=text):
                self.history.turn(item_id, Speaker.CALLER).text = text
                self._notice("caller_said", text=text)
            case realtime.ResponseDone(response=response):
                self._response_done(response, now)
            case realtime.ErrorEvent(error=error):
                self._error(error, now)
            case _:
                pass
        return self._take()

    def caller_digit(self, digit: str, now: float) -> list[Command]:
        """A key that the caller pressed."""
        if self.state is not State.CLOSING:
            self._digits += digit
            self._digit_at = self._activity_at = now
            if digit == "#" and self._started_at is not None:
                self._digits_entered(now)
        return self._take()

    def tool_finished(self, call_id: str, output: str, now: float) -> list[Command]:
        """A tool's result, or the text of its failure; the model gets exactly one per call."""
        self._running_tools.discard(call_id)
        self._send(realtime.function_output(call_id, output))
        if self.state is not State.CLOSING:
            self._request(now)
        return self._take()

    def transfer_failed(self, call_id: str, message: str, now: float) -> list[Command]:
        """The hand-over did not work: the caller is still ours, and the model hears why."""
        self._step(Step.STAY)
        self._closing = None
        self._activity_at = now
        self._notice("transfer_failed", message=message)
        self._send(realtime.function_output(call_id, f"The transfer failed: {message}"))
        self._request(now)
        return self._take()

    def playout_started(self, now: float) -> list[Command]:
        """The first frame of something audible has just been sent to the caller."""
        self._line_quiet = False
        if not self._audible:
            self._audible = True
            facts: dict[str, object] = {}
            if self._first_delta_at is not None:
                facts["bridge_ms"] = round((now - self._first_delta_at) * 1000, 1)
                if self._turn_ended_at is not None:
                    facts["model_ms"] = round((self._first_delta_at - self._turn_ended_at) * 1000)
            self._first_delta_at = self._turn_ended_at = None
            self._notice("agent_starts", **facts)
        return self._take()

    def playout_idle(self, now: float) -> list[Command]:
        """There is nothing left to send to the caller. While a response is being generated it is only a gap."""
        self._line_quiet = True
        if self._active is None or self._active in self._discarded:
            self._drained(now)
        return self._take()

    def tick(self, now: float) -> list[Command]:
        """Time has passed: every timer of the dialogue lives here. Called a few times a second."""
        limits = self._limits
        if self._started_at is None:
            return self._take()
        if self._digits and now - self._digit_at >= DIGIT_PAUSE_S:
            self._digits_entered(now)
        if self._owed is not None and now >= self._owed_from:
            self._request(now, self._owed)
        if now - self._started_at >= limits.max_duration_s:
            self._end(EndReason.MAX_DURATION, f"call limit of {limits.max_duration_s:g} s reached")
        elif self._closing is not None:
            if not self._playout.idle:
                self._closing.quiet_since = now
            elif now - self._closing.quiet_since >= limits.goodbye_s:
                self._carry_out_closing()
        elif self._waiting_since is not None and now - self._waiting_since >= limits.response_stall_s:
            self._end(EndReason.MODEL_STALLED, f"no answer from the model for {limits.response_stall_s:g} s")
        elif self._quiet and now - self._activity_at >= limits.caller_silent_s:
            self._end(EndReason.CALLER_SILENT, f"nothing from the caller for {limits.caller_silent_s:g} s")
        return self._take()

    # The model speaks ------------------------------------------------------------------------------------------------

    def _response_created(self, response_id: str, now: float) -> None:
        self._step(Step.RESPONSE_CREATED)
        self._active = response_id
        if not self._requested:
            self._asked = ""
        self._requested = False
        if self.state is State.CLOSING:
            self._discarded.add(response_id)
        elif self._caller_speaks:
            # Our request crossed with the caller's first words: the server did not interrupt what had not begun (3.6).
            self._interrupt()
            self._send(realtime.cancel_response(response_id))
        else:
            self._waiting_since = now

    def _audio(self, delta: realtime.AudioDelta, now: float) -> None:
        if delta.response_id in self._discarded:
            return
        item = AudioItem(delta.response_id, delta.item_id, delta.content_index)
        if item != self._item:
            self._finish_item()
            self._item = item
        if self._first_delta_at is None and not self._audible:
            self._first_delta_at = now
        self.history.turn(item.item_id, Speaker.AGENT).received_bytes += len(delta.delta)
        self._playout.push(item, self._to_wire.process(delta.delta))
        if delta.response_id != self._active:
            # After `response.done` (seen in the wild, section 6): nothing will come that finishes it.
            self._finish_item()

    def _finish_item(self) -> None:
        """No more audio for the current item: its last samples leave the resampler, its last frame may be padded."""
        if self._item is not None:
            self._playout.push(self._item, self._to_wire.flush())
            self._playout.finish_item(self._item)
            self._item = None

    def _response_done(self, response: realtime.Response, now: float) -> None:
        if self._item is not None and self._item.response_id == response.id:
            self._finish_item()
        if response.id != self._active:
            return
        self._notice("response_done", status=response.status, usage=response.usage)
        interrupted = response.id in self._discarded
        self._active = self._waiting_since = None
        self._owed_from = now
        self._step(Step.RESPONSE_DONE)
        calls = self._calls | {it.call_id: it for it in response.output if it.type == "function_call" and it.call_id}
        self._calls = {}
        if self.state is State.CLOSING:
            if self._line_quiet:
                self._drained(now)
            return
        if response.status == "failed" and not interrupted:
            self._response_failed(response, now)
        elif response.status in ("completed", "incomplete"):
            self._retry_left = True
            done = [it for it in calls.values() if it.status in (None, "completed")]
            self._call_tools(done, now, interrupted=interrupted)
        if self._owed is not None and now >= self._owed_from:
            self._request(now, self._owed)
        if self._playout.idle and self._line_quiet:
            self._drained(now)

    def _response_failed(self, response: realtime.Response, now: float) -> None:
        details = response.status_details
        error = details.error if isinstance(details, realtime.StatusDetails) else None
        error = error or realtime.ServerError(message=details if isinstance(details, str) else None)
        text = f"the model's response failed: {error.text}"
        if self._retry_left and realtime.triage(error) is not realtime.Verdict.FATAL:
            self._retry_left = False
            self._notice("response_retried", message=text)
            self._owed = self._asked
            self._owed_from = now + min(realtime.retry_after_s(error), self._limits.response_stall_s)
        else:
            self._end(EndReason.MODEL_FAILED, text, error.word)

    def _error(self, error: realtime.ServerError, now: float) -> None:
        verdict = realtime.triage(error)
        self._notice("model_error", code=error.code, message=error.message, verdict=verdict.name.lower())
        if error.code == "conversation_already_has_active_response":
            # Ours, or the one that the server wanted to give to the caller's turn. No response.done follows for what was
            # refused: ask (again) when the active one is done.
            instructions = self._asked if self._requested else ""
            self._requested = False
            if self.state is not State.CLOSING:
                self._owed, self._owed_from = instructions, now + REFUSED_WAIT_S
        elif verdict is realtime.Verdict.FATAL:
            self._end(*reason_for(realtime.error_of(error)))
        elif verdict is realtime.Verdict.RETRYABLE:
            self._server_errors += 1
            if self._server_errors >= MAX_SERVER_ERRORS:
                self._end(EndReason.MODEL_FAILED, f"repeated errors of the server: {error.text}", error.word)

    # The caller speaks -----------------------------------------------------------------------------------------------

    def _speech_started(self, item_id: str, now: float) -> None:
        if self.state is State.CLOSING:
            return
        self._caller_speaks = True
        self._activity_at = now
        self._waiting_since = None
        self.history.turn(item_id, Speaker.CALLER)
        self._interrupt()

    def _interrupt(self) -> None:
        """Barge-in: what the caller has not heard was never said. One synchronous step, so nothing slips between."""
        if self._active is not None:
            self._discarded.add(self._active)
        self._step(Step.BARGE_IN)
        self._to_wire.reset()
        self._item = None
        cut = self._playout.flush(self._lag_ms)
        for heard in cut:
            # Generated long ago maybe, but deltas that come after `response.done` have been seen.
            self._discarded.add(heard.item.response_id)
            turn = self.history.turn(heard.item.item_id, Speaker.AGENT)
            turn.heard_ms = heard.played_ms
            if heard.played_ms > 0:
                self._send(realtime.truncate_item(heard.item.item_id, heard.item.content_index, heard.played_ms))
            else:
                self._send(realtime.delete_item(heard.item.item_id))
            self._notice("agent_interrupted", heard_ms=heard.played_ms, received_ms=turn.received_ms)
            self._tell(turn)
        if cut:
            self._commands.append(ClearLegAudio())
        self._audible = False
        self._line_quiet = True
        self._first_delta_at = None
        self._settle_heard()

    def _speech_stopped(self, now: float) -> None:
        self._caller_speaks = False
        self._activity_at = self._turn_ended_at = now
        # The response that this turn brings sees every tool output sent so far: nothing is owed any more.
        self._owed = None

    def _digits_entered(self, now: float) -> None:
        digits, self._digits = self._digits, ""
        self._notice("caller_pressed", count=len(digits))
        self._send(realtime.caller_text(f"(The caller pressed these keys: {' '.join(digits)})"))
        self._request(now)

    # Tools and endings -----------------------------------------------------------------------------------------------

    def _call_tools(self, calls: list[realtime.Item], now: float, *, interrupted: bool) -> None:
        """Carry out the calls of a response, each once. One that the caller talked into must not end the call."""
        for item in calls:
            call_id, name, arguments = item.call_id or "", item.name or "", item.arguments_json
            if call_id in self._seen_calls:
                continue
            self._seen_calls.add(call_id)
            self._notice("tool_called", name=name, call_id=call_id)
            match call_tools.interpret(self._agent, name, arguments):
                case call_tools.HangUp() | call_tools.Transfer() if interrupted:
                    self._send(realtime.function_output(call_id, "Not done: the caller started to speak."))
                case call_tools.HangUp(reason=why):
                    self._close(EndCall(EndReason.AGENT_HUNG_UP, why), now)
                case call_tools.Transfer(name=target, destination=destination):
                    self._close(TransferCall(call_id, target, destination.to), now)
                case call_tools.Misuse(message=message):
                    self._send(realtime.function_output(call_id, message))
                    self._owed = ""
                case None:
                    self._running_tools.add(call_id)
                    self._commands.append(RunTool(call_id, name, arguments))

    def _close(self, command: EndCall | TransferCall, now: float) -> None:
        """The call is to end with `command`, but only after the caller has heard everything. The first one counts."""
        if self._closing is None:
            self._step(Step.CLOSE)
            self._closing = _Closing(command, now)
            self._owed = None

    def _drained(self, now: float) -> None:
        """Everything said so far has been heard."""
        if self._audible:
            self._audible = False
            self._activity_at = now
            self._notice("agent_stops")
        self._settle_heard()
        if self._closing is not None and self._playout.idle:
            self._carry_out_closing()

    def _carry_out_closing(self) -> None:
        if self._closing is not None and not self._closing.issued:
            self._closing.issued = True
            self._commands.append(self._closing.command)

    # Helpers ---------------------------------------------------------------------------------------------------------

    @property
    def _quiet(self) -> bool:
        """Nobody does anything: the caller's silence counts."""
        busy = self._active or self._requested or self._running_tools or self._caller_speaks
        return self._started_at is not None and not busy and self._playout.idle

    def _settle_heard(self) -> None:
        """Every turn of the agent that was not cut has been heard to its end."""
        for turn in self.history.undecided():
            turn.heard_ms = turn.received_ms
            self._tell(turn)

    def _tell(self, turn: Turn) -> None:
        """Tell what the caller heard of a turn, once that is decided and its words are known (they may come later)."""
        if turn.heard_ms is not None and turn.text and not turn.told:
            turn.told = True
            self._notice("agent_said", text=turn.heard_text, heard_ms=turn.heard_ms, received_ms=turn.received_ms)

    def _request(self, now: float, instructions: str = "") -> None:
        """Ask for a response as soon as that is legal: not beside an active one, not into the caller's speech, and with
        the outputs of all running tools."""
        if self._active is not None or self._requested or self._caller_speaks or self._running_tools:
            self._owed = instructions
        else:
            self._create(now, instructions)

    def _create(self, now: float, instructions: str) -> None:
        self._owed = None
        self._asked = instructions
        self._requested = True
        self._waiting_since = now
        self._send(realtime.create_response(instructions))

    def _end(self, reason: EndReason, detail: str, code: str | None = None) -> None:
        self._commands.append(EndCall(reason, detail, code))

    def _send(self, payload: bytes) -> None:
        self._commands.append(SendEvent(payload))

    def _notice(self, event: str, **facts: object) -> None:
        self._commands.append(Notice(event, facts))

    def _step(self, step: Step) -> None:
        if (self.state, step) not in TRANSITIONS:
            raise ModelProtocolError(f"{step.value} while {self.state.value}")
        self.state = TRANSITIONS[self.state, step]

    def _take(self) -> list[Command]:
        commands, self._commands = self._commands, []
        return commands
