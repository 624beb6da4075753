"""`realtime-bridge serve` with several workers, as processes of their own, between the real Asterisk and a simulated model.

    async with workers(2) as it:
        first = await it.call()               # a live caller, and the number of the worker that has it
        it.kill(first.worker)

What `line` is for one bridge inside the test. At the end of the block all are drained, and the same must be left: nothing.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import trio

from asterisk.exchange import ROOT
from asterisk.line import Line, Phone, free_port, new_test_id, nothing_left, until
from simulators.model_script import Say, Script
from simulators.realtime_server import RealtimeServer

# Python and numpy from a busy disk, twice.
START_S = 40.0


@dataclass
class Placed:
    """A call that an agent has answered, at this worker."""

    phone: Phone
    worker: int


class Workers:
    """What a test works with; made by `workers`. `status` is what the supervisor is to end with."""

    def __init__(self, line: Line, popen: subprocess.Popen[bytes], health_port: int, log: Path) -> None:
        self.line, self.popen, self.health_port, self._log = line, popen, health_port, log
        self.status = 0

    def told(self, event: str = "") -> list[dict[str, Any]]:
        """The log lines of all processes that begin like this."""
        whole = [line for line in self._log.read_text().splitlines() if line.startswith("{")]
        return [told for line in whole if (told := json.loads(line))["event"].startswith(event)]

    def pid(self, worker: int) -> int:
        """Its process, found by what its supervisor has handed down; 0 while there is none."""
        wanted = f"BRIDGE_WORKER={worker}".encode()
        # Each is the child of the thread that started it.
        tasks = Path(f"/proc/{self.popen.pid}/task").glob("*/children")
        for child in [child for task in tasks for child in task.read_text().split()]:
            with suppress(OSError):
                if wanted in Path(f"/proc/{child}/environ").read_bytes().split(b"\0"):
                    return int(child)
        return 0

    def kill(self, worker: int) -> None:
        """As if it had crashed, or as the kernel does when memory is short."""
        pid = self.pid(worker)
        assert pid  # 0 would be this test and all that it has started
        os.kill(pid, signal.SIGKILL)

    async def get(self, path: str) -> str:
        """A page of the health port."""
        async with await trio.open_tcp_stream("127.0.0.1", self.health_port) as stream:
            await stream.send_all(f"GET {path} HTTP/1.1\r\nHost: bridge\r\n\r\n".encode())
            return b"".join([data async for data in stream]).decode()

    async def sample(self, name: str, worker: int) -> float:
        """One figure of /metrics; NaN while the worker does not tell it."""
        found = re.search(rf'^realtime_bridge_{name}{{worker="{worker}"}} (\S+)$', await self.get("/metrics"), re.M)
        return float(found[1]) if found else float("nan")

    async def reaches(self, name: str, worker: int, value: float) -> None:
        with trio.fail_after(START_S):
            while await self.sample(name, worker) != value:  # noqa: ASYNC110 - another process's state
                await trio.sleep(0.05)

    def steps(self, phone: Phone) -> list[str]:
        """The dialplan's steps of this caller: their names, of `agent` also which worker was asked."""
        steps = [step for step in self.line.steps() if step.linked_id == phone.channel_id]
        return [f"agent {step.details[-1]}" if step.name == "agent" else step.name for step in steps]

    async def step(self, phone: Phone, name: str, within_s: float = START_S) -> list[str]:
        """Its steps, once this one is among them."""
        await until(lambda: name in self.steps(phone), within_s, lambda: f"{name} in {self.steps(phone)}")
        return self.steps(phone)

    async def call(self) -> Placed:
        """A caller whom an agent speaks to. One at a time: a telephone hears the ringing first, so the workers tell."""
        before = len(self.told("agent_starts"))
        phone = await self.line.phone()
        await until(lambda: len(self.told("agent_starts")) > before, START_S, lambda: f"agent in {self.steps(phone)}")
        return Placed(phone, self.told("agent_starts")[-1]["worker"])

    async def call_each(self) -> dict[int, Placed]:
        """One call at each of the two workers; the others hang up."""
        found: dict[int, Placed] = {}
        for _ in range(25):  # both sides of a coin: all the same once in 16 million times
            placed = await self.call()
            if placed.worker in found:
                await placed.phone.caller.hang_up()
            else:
                found[placed.worker] = placed
            if len(found) == 2:
                for number in found:
                    await self.reaches("calls_running", number, 1)
                return found
        raise AssertionError(f"25 calls went to the workers {set(found)}")

    def ended(self) -> list[str]:
        """Why each call ended, as the workers tell it."""
        return [told["reason"] for told in self.told("call_ended")]


def _free_ports(count: int) -> int:
    """The first of so many ports in a row on which nobody listens."""
    for _ in range(100):
        first = free_port()
        with contextlib.ExitStack() as stack:
            try:
                for port in range(first, first + count):
                    stack.enter_context(socket.socket()).bind(("127.0.0.1", port))
            except (OSError, OverflowError):
                continue
            return first
    raise AssertionError(f"no {count} free ports in a row")


@asynccontextmanager
async def workers(count: int = 2, *, drain_s: float = 30.0, limit_s: float = 180.0) -> AsyncIterator[Workers]:
    """So many workers of one supervisor, all of them up."""
    test_id = new_test_id()
    model = RealtimeServer(Script.of(*[Say("A long story.", ms=60_000)] * 40))
    first, health_port = _free_ports(count), free_port()
    names = [f"bridge-{test_id}-{number}" for number in range(1, count + 1)]
    with trio.fail_after(limit_s), tempfile.TemporaryDirectory(prefix="workers-") as folder:
        async with trio.open_nursery() as nursery:
            line = Line(nursery, model, "slin16", first, test_id, "&".join(names))
            line.marks |= {f":{first + offset}" for offset in range(count)}
            model_port = await model.listen_on_tcp(nursery)
            config, log = Path(folder) / "bridge.toml", Path(folder) / "log"
            config.write_text(
                f'[server]\naudiosocket_port = {first}\nworkers = {count}\nlog_format = "json"\nmax_lateness_ms = 0\n'
                f'health_address = "127.0.0.1:{health_port}"\ncontrol_address = ""\n'
                f'[asterisk]\napp = "{names[0]}"\npassword = "bridge"\nmedia_address = "127.0.0.1:{first}"\n'
                f'[realtime]\nurl = "ws://127.0.0.1:{model_port}/v1/realtime"\napi_key = "test-key"\n'
                f"[limits]\ndrain_s = {drain_s}\n"
            )
            popen = _started(config, log)
            it = Workers(line, popen, health_port, log)
            try:
                await until(lambda: bool(it.told("supervising")), START_S, log.read_text)
                for number in range(1, count + 1):
                    await it.reaches("worker_ready", number, 1)
                yield it
                await line.leave()
                popen.send_signal(signal.SIGTERM)
                await _end_of(popen)
                assert popen.returncode == it.status
                await nothing_left(line)
            except BaseException:
                print(log.read_text())
                raise
            finally:
                with trio.CancelScope(shield=True):
                    await line.leave()
                    if popen.poll() is None:
                        popen.kill()  # its workers notice, and have no calls any more
                    await _end_of(popen)
                nursery.cancel_scope.cancel()


def _started(config: Path, log: Path) -> subprocess.Popen[bytes]:
    inherited = {key: it for key, it in os.environ.items() if not key.startswith(("BRIDGE_", "OPENAI_"))}
    command = [sys.executable, "-m", "bridge", "serve", "--config", str(config)]
    with log.open("wb") as output:
        return subprocess.Popen(
            command, stdout=output, stderr=output, cwd=config.parent, env=inherited | {"PYTHONPATH": str(ROOT)}
        )


async def _end_of(popen: subprocess.Popen[bytes]) -> None:
    ended: Callable[[], bool] = lambda: popen.poll() is not None  # noqa: E731
    await until(ended, 60, lambda: "the supervisor has not ended")
