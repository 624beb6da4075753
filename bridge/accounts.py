"""The accounts of one conversation: what it uses and costs, how long the caller waits for answers, and the news of both."""

from __future__ import annotations

from bridge import realtime
from bridge.agent import Agent
from bridge.call_events import UsageUpdated
from bridge.dialogue import Commands
from bridge.latency import CallLatency, TurnClock
from bridge.usage import Budget, BudgetState, Cost, Usage


class Accounts:
    """Usage and latency of one conversation. `clock` is told of each event of a turn by whoever handles it.

    `usage` None: nobody wants to know what the call costs (tests). `model` is the one whose prices hold.
    """

    def __init__(
        self, agent: Agent, commands: Commands, *, usage: Usage | None, turns: CallLatency, model: str
    ) -> None:
        detection = agent.turn_detection
        self.clock = TurnClock(silence_ms=detection.silence_duration_ms if detection.type == "server_vad" else None)
        self._commands = commands
        self._usage = usage
        self._turns = turns
        self._model = model
        self._transcription_model = agent.transcription_model
        self._budget = Budget(agent.budget_usd, agent.budget_warning)

    def response_done(self, response: realtime.Response, *, out_of_band: bool) -> BudgetState:
        """Enter a response of any status; returns what is new about the budget."""
        facts: dict[str, object] = {"status": response.status, "usage": response.usage}
        if self._usage is not None:
            cost = self._usage.add_response(
                response.usage, self._model, status=response.status, out_of_band=out_of_band
            )
            facts |= cost.facts()
            self._note(cost)
        self._commands.notice("response_done", **facts)
        self._tell()
        return self._state()

    def transcribed(self, usage: object) -> None:
        """Enter the transcript of a caller's turn."""
        if self._usage is not None:
            self._note(self._usage.add_transcription(_object(usage), self._transcription_model))
            self._tell()

    def first_frame(self, now: float) -> None:
        """The caller begins to hear the agent: the turn is told in spans."""
        spans = self.clock.first_frame(now)
        if spans is not None:
            self._turns.add(spans)
            self._commands.notice("turn", **spans.facts())

    def _tell(self) -> None:
        if self._usage is not None:
            self._commands.do(UsageUpdated.of(self._usage.totals))

    def _state(self) -> BudgetState:
        return BudgetState.OK if self._usage is None else self._budget.check(self._usage.totals.cost_nano_usd)

    def _note(self, cost: Cost) -> None:
        if cost.note:
            self._commands.notice("cost_incomplete", note=cost.note)


def _object(value: object) -> dict[str, object] | None:
    return value if isinstance(value, dict) else None
