"""Ten minutes of dialogue with every fault of the simulator at random, in virtual time.

    python -m tests.soak --runs 1000 --minutes 10 --seed 1 --jobs 2

One run is one house with one call, plain or through Stasis. A caller speaks, interrupts, is silent, presses keys; the
model answers, calls tools that return, fail or hang; and its side breaks in every way of `soak_faults`. The verdict of a
run: the call went on to its end, or ended for a reason that the faults of this run allow; nothing is left (tasks,
sockets, tools); every function call got one output; the bridge sent nothing that the server refuses, save known races;
and while it was the agent's turn the caller never heard more silence than the limit.

All chance comes from the seed, trio's scheduling included: the line that a failure prints repeats it exactly.
"""

from __future__ import annotations

import argparse
import logging
import multiprocessing
import random
import sys
import time
from collections import Counter
from collections.abc import Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import trio
import trio.testing
from trio._core import _run as trio_run

sys.path.insert(0, str(Path(__file__).parent))

from house import House, house
from soak_faults import Faults, faults_of
from soak_watch import Watch

import bridge.media_clock
from bridge.audiosocket import Kind, encode
from bridge.tools import Tool, ToolRegistry
from simulators.ari_server import FakeChannel
from simulators.memory import TappedStream
from simulators.model_script import AT_ONCE, Call, Conversation, Incomplete, Pace, Part, Say

RATE_HZ = 8000
SETTINGS = """
[agents.default.transfers.reception]
to = "600@phones"
description = "a human"
"""
# Cheap: one message to the model for 100 ms of audio. Phones that are silent send nothing (DTX), ours does so for long.
OVERRIDES = {"realtime.append_ms": "100", "limits.media_silent_s": "3600", "limits.caller_silent_s": "600"}


class Talker:
    """A model that says and calls anything, in every manner that a response may have."""

    def __init__(self, chance: random.Random) -> None:
        self.chance = chance
        self.ends = False

    def answer(self, conversation: Conversation) -> list[Part]:
        chance = self.chance
        last = conversation.items[-1] if conversation.items else None
        if self.ends:
            return [self._say(), Call("hang_up", {"reason": "all said"})]
        if last is not None and last.type == "function_call_output" and chance.random() < 0.8:
            return [self._say()]
        kind = chance.choices(
            ["say", "two", "call", "calls", "broken", "unknown", "nothing", "text", "cut"],
            [50, 6, 14, 5, 3, 3, 3, 2, 4],
        )[0]
        match kind:
            case "two":
                return [self._say(), self._say()]
            case "call":
                return [*([self._say()] if chance.random() < 0.5 else []), self._call()]
            case "calls":
                return [self._say(), self._call(), self._call()]
            case "broken":
                return [Call("look_up", '{"q": ')]
            case "unknown":
                return [Call("no_such_tool", {"a": 1})]
            case "nothing":
                return []
            case "text":
                return [Say("only written", written=True)]
            case "cut":
                return [self._say(), Incomplete(chance.choice(["max_output_tokens", "content_filter"]))]
        return [self._say()]

    def transcribe(self, pcm: bytes) -> str | None:
        return self.chance.choice(["yes", "no, not at all", "", None])

    def _say(self) -> Say:
        pace = self.chance.choice([Pace(), Pace(), Pace(speed=3, delta_ms=60), Pace(speed=10, odd=True), AT_ONCE])
        return Say("some words that are said", ms=self.chance.randrange(300, 8000), pace=pace)

    def _call(self) -> Call:
        name = self.chance.choices(["look_up", "slow", "fails", "hangs"], [6, 3, 2, 1])[0]
        return Call(name, {"q": self.chance.randrange(9)})


class Tools:
    """What the model may call. `running` must be zero in the end."""

    def __init__(self, chance: random.Random) -> None:
        self.chance = chance
        self.running = 0

    def registry(self) -> ToolRegistry:
        kinds = {"look_up": 0.3, "slow": 6.0, "hangs": 1e6, "fails": 0.1}
        return ToolRegistry([Tool(name, name, self._handler(name, s)) for name, s in kinds.items()])

    def _handler(self, name: str, seconds: float) -> Any:
        async def handle(arguments: Mapping[str, Any]) -> object:
            self.running += 1
            try:
                await trio.sleep(seconds * self.chance.uniform(0.5, 1.5))
                if name == "fails":
                    raise RuntimeError("the database is gone")
                return {"found": dict(arguments)}
            finally:
                self.running -= 1

        return handle


class Phone:
    """The caller's end: no task of its own, so it costs nothing while it listens."""

    def __init__(self, it: House, watch: Watch) -> None:
        self._it, self._watch = it, watch
        self.stream = TappedStream(self._hears)
        self.channel: FakeChannel | None = None
        self._arrived = trio.Event()
        self._silence = encode(Kind.SLIN, bytes(RATE_HZ // 50 * 2))

    async def call(self, *, stasis: bool) -> None:
        if stasis:
            self._it.ari.on_external_media = lambda _host, data, _format: self._dial(UUID(data))
            self.channel = self._it.ari.incoming_call()
            await self._arrived.wait()
        else:
            self._dial(uuid4())

    def _dial(self, call_id: UUID) -> None:
        self.stream.feed(encode(Kind.UUID, call_id.bytes) + self._silence)
        self._it.media.hand_over(self.stream)
        self._arrived.set()

    def _hears(self, data: bytes) -> None:
        if data[0] == Kind.SLIN:
            self._watch.frame(bool(data[3:].strip(b"\0")), trio.current_time())

    def press(self, digit: str) -> None:
        if self.channel is not None:
            self.channel.press(digit)
        else:
            self.stream.feed(encode(Kind.DTMF, digit.encode()))

    def hang_up(self) -> None:
        if self.channel is not None:
            self.channel.hang_up()
        else:
            self.stream.finish()


@dataclass
class Result:
    """What came of one run. `problems` is empty when all was well."""

    seed: int
    reason: str = ""
    detail: str = ""
    minutes: float = 0.0
    problems: list[str] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)
    cpu_s: float = 0.0


async def dialogue(phone: Phone, watch: Watch, it: House, chance: random.Random) -> None:
    """What the caller does, until cancelled."""
    while True:
        # Waits for the agent to finish, or does not; then thinks.
        if chance.random() < 0.7:
            for _ in range(100):
                if watch.caller_may_speak:
                    break
                await trio.sleep(0.2)
        await trio.sleep(chance.choice([0.1, 0.5, 1, 2, 5]) * chance.uniform(0.5, 1.5))
        match chance.choices(["speak", "press", "silence", "noise"], [70, 10, 6, 6])[0]:
            case "speak" | "noise" as kind:
                seconds = chance.uniform(0.4, 4) if kind == "speak" else 0.12
                await speak(watch, it, seconds)
            case "press":
                for _ in range(chance.randrange(1, 4)):
                    phone.press(chance.choice("0123456789#*"))
                    await trio.sleep(0.3)
            case "silence":
                await trio.sleep(chance.uniform(10, 25))


async def speak(watch: Watch, it: House, seconds: float) -> None:
    """The caller speaks, and the server's VAD hears it if there is a session that listens."""
    session = next((one for one in it.model.sessions if one.number == watch.listening), None)
    watch.caller_speaks(True, trio.current_time())
    if session is not None:
        session.speech_started()
    await trio.sleep(seconds)
    watch.caller_speaks(False, trio.current_time())
    if session is not None and session.number == watch.listening and session.core.closing is None:
        session.speech_stopped()


async def run_call(seed: int, minutes: float, result: Result) -> None:
    chance = random.Random(seed)
    talker, tools = Talker(chance), Tools(chance)
    stasis = chance.random() < 0.5
    settings = SETTINGS if stasis else ""
    limit_s = minutes * 60 + 300
    async with house(
        settings=settings, overrides=OVERRIDES, media_format="slin", tools=tools.registry(), limit_s=limit_s
    ) as it:
        it.model.brain = talker
        it.model.recording = False
        watch = Watch(lambda: it.path_dead)
        it.model.tap = watch.event
        phone = Phone(it, watch)
        faults = Faults(it, chance)
        before = trio.lowlevel.current_statistics().tasks_living
        began = trio.current_time()
        async with trio.open_nursery() as nursery:
            await phone.call(stasis=stasis)
            for lane in faults_of(faults):
                nursery.start_soon(lane)
            nursery.start_soon(dialogue, phone, watch, it, chance)

            async def finish() -> None:
                await trio.sleep(minutes * 60 * chance.uniform(0.9, 1.0))
                if chance.random() < 0.3:
                    talker.ends = True
                    faults.allow("agent_hung_up")
                    await trio.sleep(40)
                phone.hang_up()
                faults.allow("caller_hung_up")

            nursery.start_soon(finish)
            with trio.move_on_after(minutes * 60 + 120) as patience:
                record = await it.ended()
            nursery.cancel_scope.cancel()
        if patience.cancelled_caught:
            result.problems.append("the call never ended")
            it.stop_now()
            return
        result.minutes = (trio.current_time() - began) / 60
        result.reason, result.detail = str(record["reason"]), str(record["detail"])
        if result.reason not in faults.allowed():
            result.problems.append(f"ended with {result.reason} ({result.detail}); faults: {faults.names}")
        await trio.sleep(5)
        left = trio.lowlevel.current_statistics().tasks_living - before
        if left > 0:
            result.problems.append(f"{left} tasks are left after the call")
        if tools.running:
            result.problems.append(f"{tools.running} tools are still running")
        if not phone.stream.closed:
            result.problems.append("the media connection was left open")
        result.problems += watch.problems()
        result.facts = {**watch.facts(), "faults": faults.names, "sessions": watch.sessions}


@contextmanager
def deterministic(seed: int) -> Any:
    """trio shuffles what runs next; with a seed of ours it does so the same way each time."""
    switch = "_ALLOW_DETERMINISTIC_SCHEDULING"  # as hypothesis-trio and trio's own tests set it
    setattr(trio_run, switch, True)
    trio_run._r.seed(seed)
    # One tick of the clock a frame: the phases spread many calls, here is one.
    before = bridge.media_clock.PHASES, bridge.media_clock.SLOT_S
    bridge.media_clock.PHASES, bridge.media_clock.SLOT_S = 1, 0.02
    try:
        yield
    finally:
        setattr(trio_run, switch, False)
        bridge.media_clock.PHASES, bridge.media_clock.SLOT_S = before


def run_one(seed: int, minutes: float) -> Result:
    """One run, by its seed."""
    result = Result(seed)
    before = time.process_time()
    with deterministic(seed):
        try:
            trio.run(run_call, seed, minutes, result, clock=trio.testing.MockClock(autojump_threshold=0))
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt):
                raise
            result.problems.append(f"{type(error).__name__}: {_leaves(error)}")
    result.cpu_s = time.process_time() - before
    return result


def _leaves(error: BaseException) -> str:
    if isinstance(error, BaseExceptionGroup):
        return "; ".join(_leaves(one) for one in error.exceptions)
    return f"{type(error).__name__}: {error}"


def _job(arguments: tuple[int, float]) -> Result:
    logging.getLogger("bridge").propagate = False
    logging.getLogger("websockets").setLevel(logging.CRITICAL)
    return run_one(*arguments)


def main(argv: list[str] | None = None) -> int:
    """The command line; returns the number of runs that failed."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.soak", description=__doc__.split("\n")[0] if __doc__ else ""
    )
    parser.add_argument("--runs", type=int, default=10)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=1, help="of the first run; the others follow")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--verbose", action="store_true", help="a line for each run")
    options = parser.parse_args(argv)
    began = time.time()
    failed, reasons, faults, cpu_s, minutes, longest = 0, Counter[str](), Counter[str](), 0.0, 0.0, 0.0
    work = [(seed, options.minutes) for seed in range(options.seed, options.seed + options.runs)]
    with multiprocessing.Pool(options.jobs) as pool:
        for result in pool.imap_unordered(_job, work):
            reasons[result.reason or "-"] += 1
            faults.update(name.partition("@")[0] for name in result.facts.get("faults", ()))
            cpu_s += result.cpu_s
            minutes += result.minutes
            longest = max(longest, result.facts.get("longest_silence_s", 0.0))
            if options.verbose:
                print(result.seed, result.reason, f"{result.minutes:.1f} min", f"{result.cpu_s:.1f} s", result.facts)
            if result.problems:
                failed += 1
                print(f"FAILED: python -m tests.soak --runs 1 --seed {result.seed} --minutes {options.minutes:g}")
                for problem in result.problems:
                    print(f"    {problem[:600]}")
                sys.stdout.flush()
    print(f"{options.runs} runs, {failed} failed, {minutes:.0f} virtual minutes, longest silence {longest:.2f} s")
    print(f"{time.time() - began:.0f} s, {cpu_s / options.runs:.2f} s of CPU a run")
    print("ended:", dict(reasons.most_common()))
    print("faults:", dict(faults.most_common()))
    return failed


if __name__ == "__main__":
    sys.exit(min(1, main()))
