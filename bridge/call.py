"""One call: a nursery that joins a caller's leg, its control in the PBX, and a Realtime session.

    run_call
    |- sessions (nursery)        not cancelled by the end of the call: a model session closes politely, bounded; and
    |                            `call_recording` writes its last seconds
    `- tasks (nursery)           `Ending` cancels its scope; every task may declare the end, the first one counts
        |- media                 hands the leg to the process's clock, which calls back (from the first moment):
        |                          `_heard`      caller's audio -> uplink; digits; the leg's end
        |                          `_frame_due`  each 20 ms: playout or silence -> leg; each 250 ms the timers
        |- converse              open the session, answer, greet; messages -> conversation
        |   `- transmit          uplink -> model, where it had to wait
        |- watch_control         ARI events of this channel
        `- run tool, transfer    as the conversation asks
    then, shielded and bounded:  control.release, leg.close, the record, and whoever keeps it (`call_watcher`)

Decisions are made by the synchronous `Conversation`; `_apply` carries them out without a checkpoint, so inputs of the
clock and of the tasks can not interleave inside one decision, and there is no lock.
"""

from __future__ import annotations

import dataclasses
import logging
import math
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from uuid import UUID

import trio

from bridge import call_tools, telemetry
from bridge.agent import Agent
from bridge.audio import MODEL_FORMAT, PcmFormat, resampler
from bridge.call_events import Happening, UsageUpdated
from bridge.call_record import CallRecord, record_of
from bridge.call_recording import InThread, in_thread, recording_of
from bridge.call_watcher import CallWatcher, tell_of_call, tell_of_end
from bridge.config import Asterisk, Limits, Realtime, limits_of, media_format_name, realtime_of
from bridge.conversation import Conversation
from bridge.dialogue import (
    AskApproval,
    Briefed,
    CheckTransfer,
    ClearLegAudio,
    Command,
    Dialogue,
    DropSession,
    EndCall,
    KeepDigits,
    Notice,
    OpenSession,
    OpenSuccessor,
    PressKeys,
    ResendAudio,
    RunTool,
    SendEvent,
    StartMusic,
    StopMusic,
    SwapSessions,
    TransferCall,
)
from bridge.ending import Ending, EndReason, reason_for
from bridge.errors import ControlError, ControlRefused, ControlUnavailable, MediaLost
from bridge.leg import (
    END_OF_OUTCOME,
    CallControl,
    CallerAudio,
    CallerDigit,
    CallerLeft,
    CallerLeg,
    CallerTurnEnded,
    ControlDigit,
    ControlHold,
    ControlHungUp,
    ControlRecordingFailed,
    Dialled,
    DialOutcome,
    LegEvent,
)
from bridge.line_rate import LineRate
from bridge.live_call import LiveCall
from bridge.media_clock import PHASES, MediaClock, NextFrame
from bridge.model_sessions import ModelSessions
from bridge.opening import ANSWERED, Opening
from bridge.playout import PlayoutQueue
from bridge.prices import PriceTable, load_prices
from bridge.realtime_client import ConnectStream
from bridge.session import session_of
from bridge.sounds import Sounds
from bridge.tones import RingingTone
from bridge.tools import ToolContext, ToolRegistry
from bridge.transcript import WORDS, Transcript
from bridge.transfer import Transfers
from bridge.uplink import Uplink
from bridge.uplink_audio import UplinkAudio
from bridge.usage import Usage

_log = logging.getLogger("bridge.call")

TICK_S = 0.25
# A caller's phone may stop sending when it is silent (DTX); the server's VAD counts samples, so it is fed silence.
UPLINK_GAP_S = 0.1
# A frame that leaves later than this counts as late: half of what a jitter buffer forgives.
LATE_S = 0.010
# What Asterisk got last is not heard yet: it waits in Asterisk's queues, in its resampler (2.5 to 5 ms, which only the
# silence behind it pushes out) and in the telephone's jitter buffer (40 ms and more), and a hang-up discards all of that.
# Measured at Dial(): with 0x00 right behind the goodbye its last 5 ms were missing in 2 of 10 calls.
LAST_WORD_S = 0.2
# How often an answer that found no control connection is tried again.
ANSWER_RETRY_S = 0.25


@dataclass(frozen=True, slots=True)
class Services:
    """What a call needs of its process."""

    realtime: Realtime
    limits: Limits
    clock: MediaClock
    answer: str = Asterisk().answer
    lag_ms: int = Asterisk().lag_ms
    tools_for: Callable[[str, Agent], ToolRegistry] = lambda name, agent: ToolRegistry()
    sounds: Mapping[str, Sounds] = field(default_factory=dict)
    prices: PriceTable = field(default_factory=load_prices)
    connect_stream: ConnectStream | None = None
    run_blocking: InThread = in_thread
    on_call: Callable[[LiveCall], Awaitable[None]] | None = None
    controlled: bool = False  # by programs, through the control door
    watchers: Sequence[CallWatcher] = ()
    calls: dict[str, LiveCall] = field(default_factory=dict)  # the running ones, by call id: each enters itself

    def of(self, agent: Agent) -> Services:
        """With the model and the limits of this agent's own, where it has some."""
        return dataclasses.replace(
            self, realtime=realtime_of(agent, self.realtime), limits=limits_of(agent, self.limits)
        )


async def run_call(
    leg: CallerLeg,
    control: CallControl,
    agent_name: str,
    agent: Agent,
    services: Services,
    opening: Opening = ANSWERED,
) -> CallRecord:
    """Hold one call from its first frame to its last; returns its record, which has been logged. With `control.places` it
    is rung first, as soon as the model is ready, and may end unanswered.

    Raises nothing but cancellation, and even then the caller's channel and the leg are released first (bounded by
    `limits.farewell_s`).
    """
    try:
        call = _Call(leg, control, agent_name, agent, services, opening)
    except Exception as error:
        # Something trips over this call's own profile.
        _log.error("a defect of the bridge ended this call before it began", exc_info=error)
        reason, detail, code = reason_for(error)
        return await never_began(services, leg.call_id, agent_name, control, reason, detail, code=code, leg=leg)
    return await call.run()


async def never_began(
    services: Services,
    call_id: UUID,
    agent_name: str,
    control: CallControl,
    reason: EndReason,
    detail: str,
    *,
    code: str | None = None,
    leg: CallerLeg | None = None,
) -> CallRecord:
    """End a call that there is no `run_call` for: its caller goes on, its media (`leg`), if there is some, is closed, and
    its record, which it has all the same, is returned. Shielded; bounded by `limits.farewell_s`, twice.
    """
    ending, limit_s = Ending(), services.limits.farewell_s
    ending.declare(reason, detail, code=code)
    record = record_of(call_id, agent_name, control, time.time())
    record.ended_by(ending)
    with trio.move_on_after(limit_s, shield=True):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(control.release, reason, detail)
            if leg is not None:
                nursery.start_soon(leg.close, ending.farewell)
    telemetry.call_ended(record)
    await tell_of_end(services.watchers, record, limit_s)
    return record


class _Call:
    def __init__(
        self,
        leg: CallerLeg,
        control: CallControl,
        agent_name: str,
        agent: Agent,
        services: Services,
        opening: Opening,
    ) -> None:
        self._leg, self._control, self._agent, self._services = leg, control, agent, services
        self._limits = services.limits
        self._format: PcmFormat = leg.format
        self._playout = PlayoutQueue(self._format, int(self._limits.max_queued_speech_s * 1000))
        self._audible = False
        self._ticks_lost = services.clock.metronome.lost
        self._to_model = resampler(self._format.rate_hz, MODEL_FORMAT.rate_hz)
        self._uplink = Uplink(lambda heard_at: self.record.uplink_ms.add(trio.current_time() - heard_at))
        self._audio = UplinkAudio(self._uplink, services.realtime.append_ms)
        self._first_audio = trio.Event()
        self._line_rate = LineRate(self._format.bytes_per_ms)
        self._spoke_at = -math.inf
        self._tick_at = trio.current_time() + TICK_S
        self._scope = trio.CancelScope()
        self._ending = Ending(self._scope.cancel)
        self._began = trio.current_time()
        self.record = record_of(leg.call_id, agent_name, control, time.time())
        self.record.media_format = media_format_name(self._format.rate_hz)
        self._tools = services.tools_for(agent_name, agent)
        own = [*call_tools.tools_of(agent), *self._tools.declarations()]
        self._usage = Usage(services.prices, priced_as=services.realtime.priced_as)
        self._conversation: Dialogue = Conversation(
            agent,
            self._playout,
            self._limits,
            session=session_of(agent, own),
            lag_ms=services.lag_ms,
            sounds=services.sounds.get(agent_name),
            usage=self._usage,
            turns=self.record.turns,
            model=services.realtime.model,
            begins=opening,
        )
        self._live = LiveCall(
            call_id=self.record.call_id,
            agent_name=agent_name,
            agent=agent,
            caller=control.caller,
            called=control.called,
            placed=control.places,
            tool_names=frozenset(str(tool["name"]) for tool in own if "name" in tool),
            conversation=self._conversation,
            apply=self._apply,
            recording_held=self._hold_recording,
            began_unix_s=self.record.began_unix_s,
        )
        self._live.listen(WORDS, Transcript(self.record, self._began).heard, wire=False)
        local = time.localtime(self.record.began_unix_s)
        self._recording = recording_of(
            agent.recording,
            {
                "date": time.strftime("%Y-%m-%d", local),
                "time": time.strftime("%H%M%S", local),
                "agent": agent_name,
                "caller": control.caller,
                "called": control.called,
                "call_id": self.record.call_id,
            },
            self._format,
            control,
            lambda event, facts: self._apply([Notice(event, facts)]),
            services.run_blocking,
        )
        self._ringing_tone: RingingTone | None = None
        self._transfers = Transfers(control, self._conversation, self._apply, self._ending, self._ring)
        self._model = ModelSessions(
            services.realtime,
            self._limits,
            self._conversation,
            self._uplink,
            self._apply,
            lambda message: self._live.saw("server", message),
            services.connect_stream,
        )

    async def run(self) -> CallRecord:
        self._services.calls[self._live.call_id] = self._live
        tell_of_call(self._services.watchers, self._live)
        self._live.begins()
        try:
            async with trio.open_nursery() as self._sessions:
                if self._recording is not None:
                    self._sessions.start_soon(self._recording.run)
                try:
                    with self._scope:
                        async with trio.open_nursery() as self._tasks:
                            for task in (self._media, self._converse, self._watch_control):
                                self._tasks.start_soon(task)
                            if self._services.on_call is not None:
                                self._tasks.start_soon(self._live.attend, self._services.on_call)
                except Exception as error:
                    self._declare_error(error)
                finally:
                    self._services.calls.pop(self._live.call_id, None)
                    self._model.release()
                    self._apply(self._conversation.over(trio.current_time()))
                    if self._ending.reason is None:
                        # Only cancellation from outside gets here: the process ends before the call does.
                        self._ending.declare(
                            EndReason.SERVER_DRAINING, "the bridge is being stopped, and could not wait any longer"
                        )
                    if self._recording is not None:
                        self._recording.stop(self._limits.farewell_s)
                    await self._farewell()
        finally:
            self._close_record()
            await tell_of_end(self._services.watchers, self.record, self._limits.farewell_s)
        return self.record

    # Tasks -----------------------------------------------------------------------------------------------------------

    async def _media(self) -> None:
        leg: CallerLeg = self._leg
        frame_due: NextFrame = self._frame_due
        if self._recording is not None:
            leg, frame_due = self._recording.tap(leg, frame_due)
        try:
            await self._services.clock.carry(leg, self._heard, frame_due, self._to_model)
        except MediaLost as error:
            self._media_left(str(error))

    def _heard(self, event: LegEvent) -> None:
        """On the clock: something that the caller did. Always read: Asterisk never waits for us (5.13)."""
        match event:
            case CallerAudio(pcm=pcm):
                if self._conversation.deaf:
                    pcm = bytes(len(pcm))  # not kept for another session either
                self._audio.heard(pcm, trio.current_time())
                self._first_audio.set()
                self._offer_audio(pcm)
            case CallerDigit(digit=digit) if not self._control.reports_digits:
                self._pressed(digit)
            case CallerTurnEnded():
                self._conversation.appended_ms += self._audio.flush()
                self._apply(self._conversation.caller_ends_turn(trio.current_time()))
            case CallerLeft(detail=detail):
                self._media_left(detail)

    def _frame_due(self, deadline: float) -> bytes:
        """On the clock: the next 20 ms, speech or silence, from the first moment to the last; a starved peer is a known
        fault."""
        now = trio.current_time()
        late_s = now - deadline
        self.record.frame_lateness_ms.add(max(0.0, late_s))
        self.record.frames_late += late_s > LATE_S
        if now >= self._tick_at:
            self._tick_at = now + TICK_S
            self._tick(now)
        frame = self._playout.next_frame()
        if frame is None:
            if self._audible and self._playout.idle:
                self._audible = False
                self._apply(self._conversation.playout_idle(now))
            paused = now - self._audio.heard_at >= UPLINK_GAP_S
            if paused and self._model.listening and self._conversation.counts_samples:
                self._offer_audio(self._to_model.process(self._format.silence))
            return self._format.silence if self._ringing_tone is None else self._ringing_tone.next_frame()
        self._spoke_at = now
        if not self._audible:
            self._audible = True
            self._apply(self._conversation.playout_started(now))
        return frame

    def _ring(self, on: bool) -> None:
        """The caller hears a telephone ring, where the agent says nothing."""
        self._ringing_tone = RingingTone(self._format) if on else None

    def _pressed(self, digit: str) -> None:
        """A key. What was said before it goes first: with manual turns a key ends the caller's turn."""
        if self._recording is not None and self._recording.declines(digit):
            return
        self._conversation.appended_ms += self._audio.flush()
        self._apply(self._conversation.caller_digit(digit, trio.current_time()))

    def _media_left(self, detail: str) -> None:
        """The media ended, by FIN or reset: Asterisk closes with our silence unread, so both are normal (5.3)."""
        if self._control.has_channel:
            self._tasks.start_soon(self._judge_media_loss, detail)
        else:
            self._ending.declare(EndReason.CALLER_HUNG_UP, detail)

    async def _judge_media_loss(self, detail: str) -> None:
        """With ARI it is the channel that hangs up; its media ends when somebody destroys it, or with Asterisk itself."""
        try:
            alone = await self._control.is_there()
        except ControlError as error:
            self._ending.declare(EndReason.CONTROL_LOST, f"Asterisk is gone: {detail}; {error}")
        else:
            if alone:
                self._ending.declare(EndReason.MEDIA_LOST, f"Asterisk closed the media connection: {detail}")

    def _offer_audio(self, pcm: bytes) -> None:
        """Send the caller's audio, if the model may have it now."""
        if self._model.listening and self._conversation.wants_audio:
            if self._conversation.deaf:
                pcm = bytes(len(pcm))  # what the resampler still held of the caller's as well
            self._conversation.appended_ms += self._audio.offer(pcm)

    async def _converse(self) -> None:
        if self._services.answer == "at_once" and not self._control.places:
            await self._answer()
        await self._model.run(self._sessions, self._pick_up)

    async def _pick_up(self) -> None:
        """The model is ready: answer the caller, and wait for the line to carry something."""
        self.record.model_ready_after_s = round(trio.current_time() - self._began, 4)
        await self._answer()
        with trio.move_on_after(self._limits.first_frame_s):
            await self._first_audio.wait()
        self._audio.heard_at = max(self._audio.heard_at, trio.current_time())

    async def _answer(self) -> None:
        """Answer the caller; a short gap of the control connection is waited out, and so is the news of a hang-up."""
        deadline = trio.current_time() + self._limits.ari_request_s
        while True:
            try:
                dialled = await self._control.answer()
                break
            except ControlUnavailable:
                if trio.current_time() >= deadline:
                    raise
                await trio.sleep(ANSWER_RETRY_S)
            except ControlRefused:
                # Most likely the caller has just hung up: let that event tell the story, if it is on its way.
                await trio.sleep_until(deadline)
                raise
        if dialled is not None:
            await self._not_simply_answered(dialled)
        self._live.is_answered()
        if self.record.answered_after_s is None:
            self.record.answered_after_s = round(trio.current_time() - self._began, 4)
            if self._recording is not None:
                self._recording.begin()

    async def _not_simply_answered(self, dialled: Dialled) -> None:
        """Nobody answered, or no human did. Returns if the call goes on all the same."""
        if dialled.outcome is DialOutcome.MACHINE and self._agent.outbound.machine != "hang_up":
            telemetry.notice("machine_answers", {"detail": dialled.detail})
            self._conversation.answered_by_machine()
            return
        reason = END_OF_OUTCOME[dialled.outcome]
        self._ending.declare(reason, dialled.told)
        await trio.sleep_forever()

    async def _watch_control(self) -> None:
        while True:
            match await self._control.next_event():
                case ControlDigit(digit=digit):
                    self._pressed(digit)
                case ControlHold(held=held):
                    self._apply(self._conversation.caller_held(held, trio.current_time()))
                case ControlHungUp(detail=detail, cause=cause):
                    self._ending.declare(EndReason.CALLER_HUNG_UP, detail, cause=cause)
                case ControlRecordingFailed(detail=detail) if self._recording is not None:
                    self._recording.fails(detail)

    def _hold_recording(self, held: bool) -> None:
        """The application wants silence in the recording, or no longer."""
        if self._recording is not None:
            (self._recording.pause if held else self._recording.resume)("application")

    def _tick(self, now: float) -> None:
        """On the clock: what depends on time alone. A task that slept would cost 7 us per 20 ms (`bench`, 100 calls)."""
        self._apply(self._conversation.tick(now))
        self._model.check(now)
        if trouble := self._line_rate.check(*self._leg.audio_received, now):
            _log.warning("media_format_suspect", extra={"facts": {"detail": trouble}})
        silent = now - self._audio.heard_at >= self._limits.media_silent_s
        if self._model.listening and silent and not self._conversation.on_hold:
            self._ending.declare(
                EndReason.MEDIA_LOST, f"no audio frame from the caller for {self._limits.media_silent_s:g} s"
            )

    async def _run_tool(self, command: RunTool) -> None:
        tools, live, limit_s = self._tools, self._live, self._limits.tool_s
        if self._is_manual(command):
            answer = await live.wait_for_answer(command, limit_s)
            if answer is None:
                return
            output = answer
        else:
            who = ToolContext(
                call_id=live.call_id,
                agent=live.agent_name,
                caller=live.caller,
                called=live.called,
                tool_call_id=command.call_id,
                secure_digits=live.secure_digits,
                call=live,
            )
            output = await tools.run(command.name, command.arguments, timeout_s=limit_s, context=who)
        self._apply(self._conversation.tool_finished(command.call_id, output, trio.current_time()))

    def _is_manual(self, command: RunTool) -> bool:
        """Whether an application answers this tool: one that has no handler, or that only the session knows of."""
        name = command.name
        unknown = name not in self._tools and name in self._live.declared
        return (self._tools.is_manual(name) or unknown) and (
            self._services.on_call is not None or self._services.controlled
        )

    async def _press_keys(self, command: PressKeys) -> None:
        output = "pressed"
        try:
            await self._control.send_digits(command.keys)
        except ControlError as error:
            output = f"Error: the keys were not pressed: {error}"
            self._apply([Notice("keys_not_pressed", {"message": str(error)})])
        if command.call_id:
            self._apply(self._conversation.tool_finished(command.call_id, output, trio.current_time()))

    async def _change_music(self, change: Callable[[], Awaitable[None]]) -> None:
        try:
            await change()
        except ControlError as error:
            self._apply([Notice("music_failed", {"message": str(error)})])

    async def _ask_approval(self, request: AskApproval) -> None:
        given = await self._live.wait_for_approval(request, self._limits.tool_s)
        now = trio.current_time()
        self._apply(self._conversation.approval_given(request.request_id, given.approve, given.reason, now))

    async def _last_word_heard(self) -> None:
        """Wait until what was said last has left every buffer; not where the speech is broken off anyway."""
        if self._playout.idle:
            await trio.sleep_until(
                max(self._spoke_at + max(LAST_WORD_S, self._services.lag_ms / 1000), trio.current_time())
            )

    async def _end(self, command: EndCall) -> None:
        await self._last_word_heard()
        self._ending.declare(command.reason, command.detail, code=command.code, cause=command.cause)

    async def _transfer(self, command: TransferCall) -> None:
        await self._last_word_heard()
        await self._transfers.carry_out(command)

    # Carrying out ----------------------------------------------------------------------------------------------------

    def _apply(self, commands: list[Command]) -> None:
        """Carry out the conversation's commands. Synchronous: what takes time is started as a task."""
        for command in commands:
            match command:
                case SendEvent(payload=payload):
                    self._live.saw("client", payload)
                    if not self._uplink.put(payload):
                        self._model.drop(EndReason.MODEL_STALLED, "the model's connection takes nothing any more")
                case Notice(event=event, facts=facts):
                    self.record.noticed(event, facts, trio.current_time() - self._began)
                    if self._recording is not None:
                        self._recording.noticed(event, facts)
                    self._live.noticed(command)
                    telemetry.notice(event, facts)
                case RunTool():
                    if self._is_manual(command):
                        self._live.tool_wanted(command)
                    self._start(self._run_tool, command)
                case AskApproval():
                    self._start(self._ask_approval, command)
                case OpenSession():
                    self._model.reopen()
                case DropSession(reason=reason, detail=detail, code=code):
                    self._model.drop(reason, detail, code)
                case OpenSuccessor():
                    self._start(self._model.open_successor)
                case SwapSessions():
                    self._model.swap()
                case ResendAudio(since_s=since_s, until_s=until_s):
                    self._conversation.appended_ms += self._audio.say_again(since_s, until_s)
                case CheckTransfer(transfer=transfer):
                    self._start(self._transfers.check, transfer)
                case Briefed(told=told):
                    self._transfers.briefed(told)
                case TransferCall():
                    self._start(self._transfer, command)
                case KeepDigits(name=name, digits=digits):
                    self._live.secure_digits[name] = digits
                case PressKeys():
                    self._start(self._press_keys, command)
                case StartMusic(music=music):
                    self._start(self._change_music, partial(self._control.start_music, music))
                case StopMusic():
                    self._start(self._change_music, self._control.stop_music)
                case ClearLegAudio():
                    self._leg.clear_audio_nowait()
                case EndCall():
                    self._start(self._end, command)
                case Happening() | UsageUpdated():
                    self._live.happened(command)

    def _start(self, function: Callable[..., Awaitable[object]], *arguments: object) -> None:
        """Start a task of the call. One that has ended starts nothing more: an application may still hold it."""
        with suppress(RuntimeError):  # its nursery is closed
            self._tasks.start_soon(function, *arguments)

    def _declare_error(self, error: Exception) -> None:
        reason, detail, code = reason_for(error)
        if reason is EndReason.INTERNAL_ERROR:
            _log.error("a defect of the bridge ended this call", exc_info=error)
        self._ending.declare(reason, detail, code=code)

    async def _farewell(self) -> None:
        """Release the channel and the leg: side by side, whatever happened, and never for longer than the limit."""
        reason, farewell = self._ending.reason, self._ending.farewell
        assert reason is not None
        with trio.move_on_after(self._limits.farewell_s, shield=True) as bound:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._control.release, reason, self._ending.detail, self._ending.cause)
                nursery.start_soon(self._leg.close, farewell)
        if bound.cancelled_caught:
            _log.warning("the farewell took longer than %g s and was cut short", self._limits.farewell_s)

    def _close_record(self) -> None:
        record = self.record
        if self._ending.reason is None:
            self._ending.declare(EndReason.INTERNAL_ERROR, "a defect while the call was being ended")
        record.ended_by(self._ending)
        record.duration_s = round(trio.current_time() - self._began, 3)
        record.audio_heard_ms = self._playout.total_played_ms
        record.audio_to_model_ms, record.audio_dropped_ms = self._audio.sent_ms, self._audio.dropped_ms
        record.underruns = self._playout.underruns
        record.frames_lost = (self._services.clock.metronome.lost - self._ticks_lost) // PHASES
        record.longest_silence_ms = round(self._conversation.longest_silence_s * 1000)
        if self._recording is not None:
            record.recording = self._recording.facts()
        record.account(self._usage.totals, self._usage.priced_as_of)
        self._live.end(record.end_event())
        telemetry.call_ended(record)
