"""Calls by AudioSocket() or Dial(AudioSocket/...): nobody tells of one before its media comes, its dialplan asks behind."""

from __future__ import annotations

import contextlib

import trio

from bridge import routing, telemetry
from bridge.agent import Agent
from bridge.audiosocket_leg import AudioSocketLeg
from bridge.call import run_call
from bridge.call_hook import AskHook, Chosen
from bridge.config import Config
from bridge.ending import EndReason, reason_for
from bridge.errors import MediaError, MediaLost
from bridge.health import CallCounts
from bridge.hook_bodies import Question
from bridge.live_config import InForce, LiveConfig
from bridge.next_step import NextSteps
from bridge.switchboard import DRAINING, NoCallControl, Switchboard
from bridge.turned_away import TurnAway

# How long a process that has drained waits for the questions of the last dialplans.
LAST_QUESTIONS_S = 2.0


class PlainCalls:
    """Those of one process. `ending` holds the running ones by call id, each with the event of its end; `steps` what the
    dialplan is to do after each."""

    def __init__(
        self, live: LiveConfig, switchboard: Switchboard, counts: CallCounts, turn_away: TurnAway, ask: AskHook
    ) -> None:
        self._live = live
        self._switchboard = switchboard
        self._counts = counts
        self._turn_away = turn_away
        self._ask = ask
        self.ending: dict[str, trio.Event] = {}
        self.steps = NextSteps()

    async def run(self, leg: AudioSocketLeg) -> None:
        """Hold the call of this leg, or refuse it."""
        now = self._live.now
        name, agent = routing.choose(now.config.routes, now.config.agents, routing.Facts())
        call_id = str(leg.call_id)
        ended = self.ending[call_id] = trio.Event()

        def remember(line: str) -> None:
            self.steps.remember(call_id, line, trio.current_time())
            ended.set()

        control = NoCallControl(remember if now.config.server.control_address else None)
        try:
            # The call hook may have another agent for it.
            off = None if now.config.hooks.call_url else routing.refusal(name, agent)
            refusal = off or self._switchboard.admit(trio.current_time())
            if refusal is not None:
                self._counts.refuse(refusal[0])
                await self._turn_away(leg.call_id, name, control, *refusal)
                return
            self._counts.admit(name)
            with self._switchboard.slot():
                self._counts.end(await self._hold(leg, name, agent, control, now), name)
        finally:
            ended.set()
            del self.ending[call_id]

    async def last_questions(self) -> None:
        """Let the dialplans of the last calls ask what comes next, before the door closes for good; at most
        `LAST_QUESTIONS_S`."""
        if not self._live.config.server.control_address:
            return
        with trio.move_on_after(LAST_QUESTIONS_S):
            since = trio.current_time() - LAST_QUESTIONS_S
            while self.steps.untold_since(since):  # noqa: ASYNC110 - at most 2 s, once
                await trio.sleep(0.05)

    async def _hold(self, leg: AudioSocketLeg, name: str, agent: Agent, control: NoCallControl, now: InForce) -> str:
        """Returns why the call ended."""
        try:
            with trio.move_on_after(now.config.limits.first_frame_s):
                await leg.learn_format()
        except MediaLost as error:
            await self._turn_away(leg.call_id, name, control, EndReason.CALLER_HUNG_UP, str(error))
            return EndReason.CALLER_HUNG_UP
        except MediaError as error:
            reason, detail, _ = reason_for(error)
            await self._turn_away(leg.call_id, name, control, reason, detail)
            return reason
        refusal: tuple[EndReason, str] | None = (EndReason.SERVER_DRAINING, DRAINING)
        try:
            chosen = await self._ask_hook(leg, name, agent, now.config)
            name, agent = chosen.agent_name, chosen.agent
            refusal = chosen.refusal or routing.refusal(name, agent)
        finally:
            if refusal is not None:
                await self._turn_away(leg.call_id, name, control, *refusal)
        if refusal is not None:
            return refusal[0]
        telemetry.notice("call_arrives", {"channel": "AudioSocket", "agent": name})
        return (await run_call(leg, control, name, agent, now.services.of(agent))).reason

    async def _ask_hook(self, leg: AudioSocketLeg, name: str, agent: Agent, config: Config) -> Chosen:
        """Whom the call hook has for this call. Nothing is known of it; the caller, who may have been answered, hears
        silence."""
        if not config.hooks.call_url:
            return Chosen(name, agent)

        async def keep_line() -> None:
            with contextlib.suppress(MediaError):  # told again when the call begins
                await leg.wait_in_silence()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(keep_line)
            question = Question(call_id=str(leg.call_id), direction="inbound", agent=name, channel="AudioSocket")
            chosen = await self._ask(question, agent, config)
            nursery.cancel_scope.cancel()
        return chosen
