"""Many short calls that end in every way, several at a time, on an Asterisk of their own: nothing is left of any of them.

    cd tests && python -m asterisk.short_calls --calls 500 --seed 1 --parallel 4

Each call has an ending by the seed: who ends it, how, and when, before the answer included. In the end Asterisk has no
channel and no bridge at all, the bridge has no task and no file more than before its first call, and every call that
entered has one record, whose reason is one that its ending allows, and has gone where the shipped dialplan sends it.
"""

from __future__ import annotations

import argparse
import math
import random
import statistics
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import trio

from asterisk.exchange import RECORDINGS
from asterisk.line import Phone, free_port, until
from asterisk.parties import Parties, in_thread, parties
from asterisk.victim import Victim
from bridge.ending import FAREWELLS, ChannelAction, EndReason

# What every call may come to, whatever it was meant to: it hangs up in the end, and the house may be full.
_ALWAYS = frozenset({EndReason.CALLER_HUNG_UP, EndReason.REFUSED_BUSY})
_MODEL_GONE = frozenset({EndReason.MODEL_LOST, EndReason.MODEL_UNREACHABLE})
# The longest that a call lasts if nobody ends it: then the caller does.
_LONGEST_S = 6.0


@dataclass(frozen=True)
class Kind:
    """A way to end: how often, by which agent, its reasons besides `_ALWAYS`, and when the caller hangs up at last."""

    name: str
    weight: int
    agent: str
    allows: frozenset[EndReason] = frozenset()
    within_s: float = _LONGEST_S
    extension: str = "100"


KINDS = (
    Kind("caller hangs up while it rings", 15, "talking", within_s=0.15),
    Kind("caller hangs up", 25, "greeting", within_s=2.0),
    Kind("agent hangs up", 20, "brief", frozenset({EndReason.AGENT_HUNG_UP})),
    Kind("transfer", 12, "transferred", frozenset({EndReason.TRANSFERRED})),
    Kind("transfer, caller hangs up before", 5, "transferred", frozenset({EndReason.TRANSFERRED}), 1.2),
    Kind("model drops the session once", 6, "dropped", within_s=3.0),
    Kind("model out of quota", 6, "failing", frozenset({EndReason.MODEL_REJECTED, EndReason.MODEL_FAILED})),
    Kind("media broken", 8, "greeting", frozenset({EndReason.MEDIA_LOST})),
    Kind("channel hung up from outside", 5, "greeting"),
    Kind("plain call by Dial(AudioSocket)", 6, "", within_s=1.5, extension="102"),
)


@dataclass
class Called:
    """One call that was made."""

    number: int
    kind: Kind
    channel_id: str = ""
    began_s: float = 0.0
    over_s: float = math.inf

    @property
    def caller_id(self) -> str:
        return f"Short <{10_000 + self.number}>"

    @property
    def caller(self) -> str:
        """As the bridge names it."""
        return f"{10_000 + self.number} Short"


@dataclass
class Outcome:
    """What came of all of them."""

    reasons: Counter[str] = field(default_factory=Counter)
    never_entered: int = 0
    greeted_after_ms: list[float] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    seconds: float = 0.0
    log: str = ""

    def text(self) -> str:
        """For people."""
        lines = [f"{count:5} {reason}" for reason, count in self.reasons.most_common()]
        lines.append(f"{self.never_entered:5} had hung up before they entered the Stasis application")
        if len(values := sorted(self.greeted_after_ms)) > 1:
            p95 = values[math.ceil(len(values) * 0.95) - 1]
            lines.append(
                "StasisStart to the greeting's first frame, without the model's time: "
                f"p50 {statistics.median(values):.1f} ms, p95 {p95:.1f} ms, longest {values[-1]:.1f} ms, "
                f"{len(values)} calls"
            )
        return "\n".join([*lines, f"{self.seconds:.0f} s", *self.problems])


class ShortCalls:
    """The calls of one run."""

    def __init__(self, it: Parties, chance: random.Random, *, kill_the_model_every: int) -> None:
        self._it, self._chance, self._kill_every = it, chance, kill_the_model_every
        self.called: list[Called] = []
        self._model_away = trio.Lock()
        self._away_s: list[tuple[float, float]] = []

    async def make(self, count: int, parallel: int) -> None:
        """All of them, `parallel` at a time."""
        numbers = iter(range(count))
        async with trio.open_nursery() as nursery:
            for _ in range(parallel):
                nursery.start_soon(self._make_of, numbers)

    async def _make_of(self, numbers: Any) -> None:
        for number in numbers:
            kind = self._chance.choices(KINDS, [kind.weight for kind in KINDS])[0]
            called = Called(number, kind, began_s=trio.current_time())
            self.called.append(called)
            if self._kill_every and number % self._kill_every == self._kill_every - 1:
                await self._without_model(called)
            else:
                await self._one(called)
            called.over_s = trio.current_time()

    async def _without_model(self, called: Called) -> None:
        """The model dies under this call, and others, and comes back a second later."""
        async with self._model_away, trio.open_nursery() as nursery:
            nursery.start_soon(self._one, called)
            await trio.sleep(self._chance.uniform(0.0, 0.8))
            self._it.model.kill()
            killed_s = trio.current_time()
            await trio.sleep(1.0)
            await self._it.model.start()
            self._away_s.append((killed_s, trio.current_time()))

    def _model_was_away(self, called: Called) -> bool:
        return any(called.began_s <= until_s and since_s <= called.over_s for since_s, until_s in self._away_s)

    async def _one(self, called: Called) -> None:
        kind, chance, line = called.kind, self._chance, self._it.line
        patience_s = chance.uniform(0.0, kind.within_s) if kind.within_s < _LONGEST_S else _LONGEST_S
        local = chance.random() < 0.4 or (kind.within_s < 0.2 and chance.random() < 0.7)
        phone: Phone | None = None
        if local:
            called.channel_id = await line.test_caller(kind.extension, caller_id=called.caller_id, __AGENT=kind.agent)
        else:
            phone = await line.phone(kind.extension, caller_id=called.caller_id, __AGENT=kind.agent)
            called.channel_id = phone.channel_id
        with trio.move_on_after(patience_s):
            if kind.name == "media broken":
                await self._break_media(called)
            elif kind.name == "channel hung up from outside":
                await trio.sleep(chance.uniform(0.0, 1.0))
                await line.hang_up(called.channel_id)
            await self._over(called)
        if phone is not None and not phone.caller.ended.is_set():
            await phone.caller.hang_up()
        else:
            await line.hang_up(called.channel_id)

    async def _break_media(self, called: Called) -> None:
        await until(lambda: self._calls_of(called) != [], _LONGEST_S, lambda: "call_arrives")
        await trio.sleep(self._chance.uniform(0.0, 0.6))
        for call_id in self._calls_of(called):
            await self._it.line.hang_up(f"realtime-media-{call_id}")

    async def _over(self, called: Called) -> None:
        """Wait for its record, and a little: what the dialplan does then is part of it."""
        while not self._records_of(called):  # noqa: ASYNC110 - the bridge's log does not wake us
            await trio.sleep(0.05)
        refused = FAREWELLS[self._records_of(called)[0]["reason"]].channel is ChannelAction.CONTINUE
        await trio.sleep(self._chance.uniform(0.0, 0.3) + refused * 1.5)  # nobody calls again at once

    def _calls_of(self, called: Called) -> list[str]:
        return [
            told["call_id"] for told in self._it.bridge.told("call_arrives") if told.get("caller") == called.caller
        ]

    def _records_of(self, called: Called) -> list[dict[str, Any]]:
        return [told for told in self._it.bridge.told("call_ended") if told["caller"] == called.caller]

    # The verdict

    def judge(self, outcome: Outcome) -> None:
        """Hold the records, and the steps of the dialplan, against what was to come."""
        steps: dict[str, list[str]] = {}
        for step in self._it.line.steps():
            steps.setdefault(step.linked_id, []).append(step.name)
        ended = self._it.bridge.told("call_ended")
        outcome.reasons.update(told["reason"] for told in ended)
        plain = [told for told in ended if not told["caller"]]
        for told in plain:
            if told["reason"] not in _ALWAYS | _MODEL_GONE:  # which of them was which is not told
                outcome.problems.append(f"a plain call ended as {told['reason']}: {told['detail']}")
        if len(plain) > sum(called.kind.extension == "102" for called in self.called):
            outcome.problems.append(f"{len(plain)} records of plain calls")
        for called in self.called:
            if called.kind.extension == "100":
                self._judge(called, steps.get(called.channel_id, []), outcome)
        outcome.greeted_after_ms = self._greeted_after_ms()

    def _judge(self, called: Called, steps: Sequence[str], outcome: Outcome) -> None:
        records = self._records_of(called)
        name = f"call {called.number} ({called.kind.name})"
        if not records and not self._calls_of(called):
            outcome.never_entered += 1
            return
        if len(records) != 1:
            outcome.problems.append(f"{name} has {len(records)} records, and {steps}")
            return
        reason = EndReason(records[0]["reason"])
        if reason not in _ALWAYS | called.kind.allows | (
            _MODEL_GONE if self._model_was_away(called) else frozenset()
        ):
            late_ms = records[0]["frame_lateness_ms"]["max_ms"]
            outcome.problems.append(
                f"{name} ended as {reason}: {records[0]['detail']}"
                f" (call {records[0]['call_id']}, frames up to {late_ms:g} ms late)"
            )
        goes_on = FAREWELLS[reason].channel is ChannelAction.CONTINUE
        if ("fallback" in steps) != goes_on and not (goes_on and "hung-up" in steps):
            outcome.problems.append(f"{name} ended as {reason}, and then {steps}")
        if ("human" in steps) != (reason is EndReason.TRANSFERRED) and "hung-up" not in steps:
            outcome.problems.append(f"{name} ended as {reason}, and then {steps}")

    def _greeted_after_ms(self) -> list[float]:
        """From the arrival of each call to the first frame of what is said to it, less what its model took: to open the
        session, and from the request to the first delta."""
        told = self._it.bridge.told
        arrived = {line["call_id"]: line["time"] for line in told("call_arrives") if line.get("caller")}
        lost = {line["call_id"] for line in told("session_lost")}
        asked_ms = dict[str, float]()
        for line in told("turn"):
            if line["began"] == "prompted" and "tools_ms" not in line:
                asked_ms.setdefault(line["call_id"], line.get("create_ms", 0.0) + line.get("model_ms", 0.0))
        found = []
        for record in told("call_ended"):
            call_id, greeted_s, ready_s = (
                record[name] for name in ("call_id", "greeted_after_s", "model_ready_after_s")
            )
            if greeted_s is not None and call_id in asked_ms and call_id in arrived and call_id not in lost:
                came_s = record["began_unix_s"] - arrived[call_id]
                found.append((came_s + greeted_s - ready_s) * 1000 - asked_ms[call_id])
        return found


async def run(
    victim: Victim,
    calls: int,
    seed: int,
    *,
    parallel: int = 4,
    max_calls: int = 0,
    kill_the_model_every: int = 50,
    say: Callable[[str], object] = lambda text: None,
) -> Outcome:
    """Make them all; `max_calls` below `parallel`: a full house now and then. Raises `AssertionError` for what is left."""
    outcome, began = Outcome(), trio.current_time()
    limits = "model_connect_s = 3\nreconnect_s = 3\ndrain_s = 5"
    async with parties(
        victim, limits=limits, server=f"max_calls = {max_calls or parallel - 1}", limit_s=60 + 4 * calls
    ) as it:
        await it.call()  # once round, so that everything is loaded
        await it.hang_up_all()
        short = ShortCalls(it, random.Random(seed), kill_the_model_every=kill_the_model_every)
        await short.make(calls, parallel)
        say(f"{calls} calls made in {trio.current_time() - began:.0f} s")
        await it.nothing_at_all()
        short.judge(outcome)
        outcome.log = it.bridge.text()
    outcome.seconds = trio.current_time() - began
    return outcome


async def _main(calls: int, seed: int, parallel: int, max_calls: int) -> Outcome:
    victim = Victim.make(free_port(), free_port())
    try:
        await in_thread(victim.start)
        return await run(victim, calls, seed, parallel=parallel, max_calls=max_calls, say=print)
    finally:
        with trio.CancelScope(shield=True):
            await in_thread(victim.remove)


def main() -> int:
    """The command line; returns 1 if anything was wrong."""
    parser = argparse.ArgumentParser(prog="python -m asterisk.short_calls", description=__doc__)
    parser.add_argument("--calls", type=int, default=500)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--parallel", type=int, default=4)
    parser.add_argument("--max-calls", type=int, default=0, help="of the bridge (default: one less than --parallel)")
    options = parser.parse_args()
    outcome = trio.run(partial(_main, options.calls, options.seed, options.parallel, options.max_calls))
    print(outcome.text())
    if outcome.problems:
        path = RECORDINGS.parent / "short-calls.log"
        path.write_text(outcome.log)
        print(f"the bridge's log: {path}")
    return int(bool(outcome.problems))


if __name__ == "__main__":
    raise SystemExit(main())
