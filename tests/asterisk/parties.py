"""The three parties of a call as processes of their own, each of which a test kills and starts again.

    async with parties(victim) as it:
        held = await it.calls_in(*PHASES)        # a caller in each phase of a call, at the same time
        it.bridge.kill()
        await it.bridge.start()

The bridge is `served` (`serve` with a tool), the model `phased_model`, Asterisk the shared one or a `Victim`. At the end
of the block nothing may be left: no channel and no bridge in Asterisk, and of the bridge no task and no file more than it
had before its first call; a SIGTERM must end it at once.
"""

from __future__ import annotations

import json
import re
import signal
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import trio

from asterisk.exchange import Exchange
from asterisk.line import Line, Phone, free_port, new_test_id, nothing_left, until
from asterisk.program import Program
from asterisk.victim import Victim
from bridge.ari_dial import OUTGOING_PREFIX
from simulators.model_script import tone
from simulators.realtime_server import RealtimeServer
from simulators.wire_audio import resampled

# In order: before Asterisk's word has reached the bridge, before the model is there, and then as their names say.
PHASES = ("ringing", "connecting", "greeting", "talking", "tool", "transferring", "ending")

# Phases of a transfer that is dialled: a colleague's telephone rings, and has been answered (`victim` has the two).
DIALLED = {"dialling": "Local/700@phones/n", "joined": "Local/701@phones/n"}
# What `phased_model` can do besides.
OTHER_AGENTS = (*DIALLED, "transferred", "brief", "dropped", "failing", "default")


@dataclass
class Held:
    """A caller who is held in a phase. `call_id` is empty where the bridge does not know of the call yet."""

    phase: str
    channel_id: str
    phone: Phone | None = None
    call_id: str = ""


@dataclass
class Parties:
    """What a test works with; made by `parties`."""

    line: Line
    bridge: Program
    model: Program
    exchange: Exchange
    app: str
    model_port: int
    drained: bool = False  # the test itself has ended the bridge
    held: list[Held] = field(default_factory=list)

    # Calling

    async def calls_in(self, *phases: str) -> dict[str, Held]:
        """A caller in each of these phases, all at the same time. With `ringing` the bridge stands still (SIGSTOP)."""
        if "connecting" in phases:
            await self._call("connecting", ringing=True)
        async with trio.open_nursery() as nursery:
            if "talking" in phases:  # takes the longest
                nursery.start_soon(self._call, "talking")
                await self._of("agent_said", "talking")
            for phase in phases:
                if phase not in ("ringing", "connecting", "talking"):
                    nursery.start_soon(self._call, phase)
        if "ringing" in phases:
            await self._call("ringing", ringing=True)
        return {it.phase: it for it in self.held}

    async def call(self, phase: str = "greeting") -> Held:
        """One more call, in this phase."""
        return await self._call(phase)

    async def _call(self, phase: str, *, ringing: bool = False) -> Held:
        before = len(self.bridge.told("call_arrives"))
        held = Held(phase, "")
        if phase == "connecting":
            await self.order(created_after_s=60.0)
        if phase == "ringing":
            self.bridge.signal(signal.SIGSTOP)
        if ringing:  # who must be seen ringing is a Local channel
            held.channel_id = await self.line.test_caller(__AGENT=phase)
        else:
            held.phone = await self.line.phone(__AGENT=phase)
            held.channel_id = held.phone.channel_id
        self.held.append(held)
        if phase == "ringing":
            await self.in_app(held.channel_id)
            return held
        arrived = await self._of("call_arrives", phase, since=before)
        held.call_id = arrived["call_id"]
        match phase:
            case "connecting":
                await until(
                    lambda: (
                        self.model.told("connections")[-1:] != [] and self.model.told("connections")[-1]["open"] > 0
                    ),
                    10,
                    self.model.text,
                )
                await self.order(created_after_s=0.0)
            case "greeting":
                await self._of("agent_starts", phase)
            case "talking":
                await self._of("agent_said", phase)
                assert held.phone is not None
                held.phone.caller.say(resampled(tone(660, 500), 24000, 16000))
                await self._of("agent_starts", phase, 2)
            case "transferred" | "joined":
                await self.record(held)
            case "dialling":
                await self._rings()
            case _:
                await self._of("tool_called", phase)
        return held

    async def _of(self, event: str, phase: str, n: int = 1, *, since: int = 0) -> dict[str, Any]:
        """The n-th line of this event that the newest call of this phase has."""

        def found() -> list[dict[str, Any]]:
            if event == "call_arrives":
                return [line for line in self.bridge.told(event)[since:] if line["agent"] == phase]
            calls = [line["call_id"] for line in self.bridge.told("call_arrives") if line["agent"] == phase]
            return [line for line in self.bridge.told(event) if calls and line.get("call_id") == calls[-1]]

        await until(lambda: len(found()) >= n, 10, lambda: f"{event} of {phase}\n{self.bridge.text()}")
        return found()[n - 1]

    async def _rings(self) -> None:
        """Wait until a colleague's telephone does."""
        with trio.fail_after(10):
            while not any(  # noqa: ASYNC110 - the state is Asterisk's
                it["id"].startswith(OUTGOING_PREFIX) for it in await self.ari("GET", "channels")
            ):
                await trio.sleep(0.02)

    async def nothing_at_all(self) -> None:
        """Nobody else uses this Asterisk: it has no channel and no bridge."""
        left: list[Any] = []
        with trio.move_on_after(8):
            while left := await self.ari("GET", "channels") + await self.ari("GET", "bridges"):  # noqa: ASYNC110
                await trio.sleep(0.1)
        assert not left, [thing["id"] for thing in left]

    async def order(self, **faults: object) -> None:
        """Set faults of the model, and wait until they are set."""
        line = json.dumps(faults)
        before = self.model.text().count(line)
        self.model.write(line)
        await until(lambda: self.model.text().count(line) > before, 5, self.model.text)

    async def in_app(self, channel_id: str) -> None:
        """Wait until this caller, or the far end of its Local channel, is in our Stasis application."""

        async def is_in() -> bool:
            listed = await self.ari("GET", f"applications/{self.app}")
            return any(channel.startswith(channel_id) for channel in listed["channel_ids"])

        with trio.fail_after(5):
            while not await is_in():  # noqa: ASYNC110 - the state is Asterisk's
                await trio.sleep(0.02)

    async def ari(self, method: str, uri: str, body: object = None) -> Any:
        return await trio.to_thread.run_sync(self.exchange.ari, method, uri, body)

    # Looking on

    def steps(self, held: Held) -> list[str]:
        """The dialplan's steps of this caller, `after-agent` with the reason."""
        return self._steps(held.channel_id)

    def _steps(self, channel_id: str) -> list[str]:
        steps = [step for step in self.line.steps() if step.linked_id == channel_id]
        return [f"{step.name} {step.reason}" if step.name == "after-agent" else step.name for step in steps]

    async def steps_of(self, channel_id: str, step: str) -> list[str]:
        """The steps of a caller who is held in no phase, once this one is among them."""
        await until(lambda: step in self._steps(channel_id), 10, lambda: f"{step} in {self._steps(channel_id)}")
        return self._steps(channel_id)

    async def reaches(self, held: Held, step: str, within_s: float = 10.0) -> list[str]:
        """Its steps, once this one is among them."""
        await until(lambda: step in self.steps(held), within_s, lambda: f"{held.phase}: {step} in {self.steps(held)}")
        return self.steps(held)

    async def of(self, held: Held, event: str) -> dict[str, Any]:
        """The first line of this event that this call has."""
        self._identify(held)
        return await self._of(event, held.phase)

    async def has_heard_of(self, held: Held) -> bool:
        """Whether the bridge has, within a second."""
        with trio.move_on_after(1):
            while not held.call_id:
                self._identify(held)
                await trio.sleep(0.05)
        return bool(held.call_id)

    def _identify(self, held: Held) -> None:
        """A call of which the bridge had not heard yet."""
        arrived = [line for line in self.bridge.told("call_arrives") if line["agent"] == held.phase]
        held.call_id = held.call_id or (arrived[-1]["call_id"] if arrived else "")

    async def record(self, held: Held, within_s: float = 15.0) -> dict[str, Any]:
        """The one record of this call."""

        def has_ended() -> bool:
            self._identify(held)
            return held.call_id in {told["call_id"] for told in self.bridge.told("call_ended")}

        await until(
            has_ended,
            within_s,
            lambda: f"record of {held.phase}\n{self.bridge.text()}",
        )
        [record] = [told for told in self.bridge.told("call_ended") if told["call_id"] == held.call_id]
        return record

    async def hears(self, held: Held, within_s: float = 5.0) -> None:
        """Speech comes to this caller from now on."""
        assert held.phone is not None
        with trio.fail_after(within_s):
            await held.phone.caller.hears_speech()

    async def hang_up_all(self) -> None:
        """Every caller who is still there hangs up."""
        await self.line.leave()

    async def holds(self) -> tuple[int, list[str]]:
        """Tasks and open files of the bridge now."""
        before = len(self.bridge.told("holds"))
        self.bridge.signal(signal.SIGUSR1)
        told = await self.bridge.tells("holds", before + 1)
        # A socket's number is another one after each reconnect.
        return told["tasks"], sorted(re.sub(r"\[\d+\]", "", name) for name in told["files"])

    async def comes_to_rest(self, at_rest: tuple[int, list[str]], within_s: float = 8.0) -> None:
        """The bridge is connected, and holds what it held before its first call."""
        now = await self.holds()
        with trio.move_on_after(within_s):
            while now != at_rest:
                await trio.sleep(0.1)
                now = await self.holds()
        assert now == at_rest, f"left in the bridge: {now}, at rest: {at_rest}\n{self.bridge.text()}"


def settings_of(
    exchange: Exchange,
    app: str,
    media_port: int,
    model_port: int,
    limits: str = "",
    server: str = "",
    ari_port: int = 0,
) -> str:
    """The bridge's TOML: an agent for each phase, named like it."""
    agents = "".join(
        f'[agents.{name}]\ninstructions = "{name} is what you are to do"\ngreeting_barge_in = "off"\n'
        f"[agents.{name}.transfers.human]\ndescription = 'a human'\n"
        + (f"endpoint = '{DIALLED[name]}'\n" if name in DIALLED else "to = '701@phones'\n")
        for name in (*PHASES, *OTHER_AGENTS)
    )
    url = f"ws://127.0.0.1:{ari_port}" if ari_port else exchange.url
    return (
        f'[server]\naudiosocket_port = {media_port}\nlog_format = "json"\nlog_words = true\n'
        f'max_lateness_ms = 0\nhealth_address = ""\n'
        f'control_address = ""\n{server}\n'
        f'[asterisk]\nurl = "{url}"\napp = "{app}"\npassword = "bridge"\nmedia_address = "127.0.0.1:{media_port}"\n'
        f'[realtime]\nurl = "ws://127.0.0.1:{model_port}/v1/realtime"\napi_key = "test-key"\n'
        f"[limits]\n{limits}\n{agents}"
    )


@asynccontextmanager
async def parties(
    exchange: Victim,
    *,
    limits: str = "model_connect_s = 30",
    server: str = "",
    ari_port: int = 0,
    limit_s: float = 120.0,
) -> AsyncIterator[Parties]:
    """Bridge and model, both running, at this Asterisk. `ari_port`: of a proxy between the bridge and ARI."""
    test_id = new_test_id()
    app, media_port, model_port = f"bridge-{test_id}", free_port(), free_port()
    with trio.fail_after(limit_s), tempfile.TemporaryDirectory(prefix="parties-") as name:
        folder = Path(name)
        toml = settings_of(exchange, app, media_port, model_port, limits, server, ari_port)
        (folder / "bridge.toml").write_text(toml)
        bridge = Program("bridge", folder, ["-m", "asterisk.served", str(folder / "bridge.toml")], "ARI connected")
        model = Program("model", folder, ["-m", "asterisk.phased_model", str(model_port)], "ready")
        async with trio.open_nursery() as nursery:
            # The model is another process; this one only has no connections.
            line = Line(nursery, RealtimeServer(), "slin16", media_port, test_id, app, exchange=exchange)
            it = Parties(line, bridge, model, exchange, app, model_port)
            try:
                async with trio.open_nursery() as starting:
                    starting.start_soon(model.start)
                    starting.start_soon(bridge.start)
                at_rest = await it.holds()
                yield it
                await it.hang_up_all()
                if not it.drained:
                    await it.comes_to_rest(at_rest)
                    bridge.signal(signal.SIGTERM)
                    assert await bridge.ends(5) == 0
                await nothing_left(line)
                await it.nothing_at_all()
                troubles = [told for told in bridge.told() if "defect" in told["event"] or "traceback" in told]
                assert not troubles, troubles
            except BaseException:
                print(bridge.text(), model.text(), *(f"{h.phase}: {it.steps(h)}" for h in it.held), sep="\n")
                raise
            finally:
                for program in (bridge, model):
                    program.remove()
                with trio.move_on_after(6, shield=True):
                    await line.leave()
                nursery.cancel_scope.cancel()


async def in_thread(function: Any, *arguments: Any) -> Any:
    """What blocks, such as `Victim.start`."""
    return await trio.to_thread.run_sync(partial(function, *arguments))
