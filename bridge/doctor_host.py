"""What `doctor` asks of this machine: a clock that is fine enough, time when it is due, files and memory for the calls.

Each measurement has its judgement beside it as a plain function of numbers, so that every outcome can be tested.
"""

from __future__ import annotations

import platform
import resource
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from uuid import UUID

import trio

from bridge.audio import PcmFormat
from bridge.ending import Farewell
from bridge.findings import Finding, fail, ok, warn
from bridge.leg import LegEvent
from bridge.media_clock import PHASES, MediaClock

PACING_S = 2.0
# A telephone's jitter buffer takes up some ms; a frame that comes a whole frame late is a hole in any of them.
_LATE_MS, _HOLE_MS = 5.0, 20.0
# A call holds the caller's and the model's connection, and a second one of the model while sessions change over.
_FILES_A_CALL, _FILES_BESIDE = 3, 64
# Rough: a process without calls has 60 MB, a call 0.2 MB, and speech that waits to be played up to 3 MB a minute.
_MEMORY_BESIDE_MB, _MEMORY_A_CALL_MB = 100, 2


def check_python() -> Finding:
    """Which Python this is."""
    implementation = platform.python_implementation()
    where = f"{implementation} {platform.python_version()} on {platform.system()} {platform.machine()}"
    if sys.flags.dev_mode or hasattr(sys, "gettotalrefcount"):
        return warn("python", f"{where}, in development mode or a debug build: slow", "run without -X dev")
    return ok("python", where)


def check_files(max_calls: int, limit: int | None = None) -> Finding:
    """Whether so many calls may hold their connections; `limit` is that of this process by default."""
    if limit is None:
        limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    needed = max_calls * _FILES_A_CALL + _FILES_BESIDE
    if limit == resource.RLIM_INFINITY or limit >= needed:
        shown = "any number of" if limit == resource.RLIM_INFINITY else str(limit)
        return ok("open files", f"{shown} open files for {max_calls} calls, which need {needed}")
    return fail(
        "open files",
        f"only {limit} open files are allowed; server.max_calls = {max_calls} needs {needed}",
        f"ulimit -n {needed}; systemd: LimitNOFILE={needed}; or server.max_calls = "
        f"{max((limit - _FILES_BESIDE) // _FILES_A_CALL, 1)}",
    )


def check_memory(max_calls: int, free_mb: int | None = None) -> Finding:
    """Whether memory is free for so many calls, roughly; `free_mb` is that of this machine by default."""
    if free_mb is None:
        free_mb = _free_memory_mb()
    needed = _MEMORY_BESIDE_MB + max_calls * _MEMORY_A_CALL_MB
    if free_mb is None or free_mb >= needed:
        shown = "how much is free is not known here" if free_mb is None else f"{free_mb} MB free"
        return ok("memory", f"{shown}; {max_calls} calls take about {needed} MB")
    return warn(
        "memory",
        f"{free_mb} MB free; {max_calls} calls take about {needed} MB",
        f"lower server.max_calls to {max((free_mb - _MEMORY_BESIDE_MB) // _MEMORY_A_CALL_MB, 1)}, or free memory",
    )


def _free_memory_mb(root: Path = Path("/")) -> int | None:
    """What the machine has left, or this container if that is less; None where neither tells."""
    found = []
    try:
        for line in (root / "proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                found.append(int(line.split()[1]) // 1024)
    except OSError:
        pass
    try:
        group = root / "sys/fs/cgroup"
        allowed, used = (group / "memory.max").read_text(), (group / "memory.current").read_text()
        if allowed.strip() != "max":
            found.append((int(allowed) - int(used)) // 2**20)
    except (OSError, ValueError):
        pass
    return min(found, default=None)


async def check_pacing(seconds: float) -> Finding:
    """Whether frames leave when they are due: the clock of all calls runs for `seconds`, with nobody on the line."""
    resolution_s = time.get_clock_info("monotonic").resolution
    clock = MediaClock()
    lateness_ms: list[float] = []
    with trio.move_on_after(seconds):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(clock.run)
            for _ in range(PHASES):
                nursery.start_soon(clock.carry, _SilentLeg(), _ignore, _Timekeeper(lateness_ms).next_frame)
    return judge_pacing(lateness_ms, clock.metronome.lost, resolution_s)


def judge_pacing(lateness_ms: Sequence[float], lost: int, resolution_s: float) -> Finding:
    """What a run of the clock means: how late each frame was, ticks that were given up, and the clock's grain."""
    if resolution_s > 0.001:
        return fail(
            "pacing",
            f"the clock of this machine moves in steps of {resolution_s * 1000:g} ms; 1 ms is needed",
            "take another machine, or another clock source (/sys/devices/system/clocksource)",
        )
    if not lateness_ms:
        return fail("pacing", "no frame left at all: this process got no time to run", _BUSY)
    ordered = sorted(lateness_ms)
    p50, p99 = (ordered[min(int(len(ordered) * part), len(ordered) - 1)] for part in (0.5, 0.99))
    text = f"frames leave each 20 ms, late by {p50:.1f} ms (p50), {p99:.1f} ms (p99), {ordered[-1]:.1f} ms at most"
    if lost:
        text += f"; {lost} turns of 5 ms were lost"
    if p99 >= _HOLE_MS or lost:
        return fail("pacing", text, _BUSY)
    if p99 >= _LATE_MS:
        return warn("pacing", text, _BUSY)
    return ok("pacing", text)


_BUSY = (
    "this machine is busy, or its CPU is rationed: look at `top`, in a virtual machine at the steal time; "
    "give the bridge a core of its own (docker --cpus, systemd CPUWeight=), then `realtime-bridge bench --find`"
)


class _Timekeeper:
    """Notes how late each frame is asked for."""

    def __init__(self, lateness_ms: list[float]) -> None:
        self._lateness_ms = lateness_ms

    def next_frame(self, deadline: float) -> bytes:
        self._lateness_ms.append((trio.current_time() - deadline) * 1000)
        return b""


def _ignore(event: LegEvent) -> None:
    """Nobody says anything."""


class _SilentLeg:
    """A `CallerLeg` on which nothing comes and everything is taken."""

    call_id = UUID(int=0)
    format = PcmFormat(8000)
    descriptor = None

    audio_received = (0, 0)

    def receive_nowait(self) -> list[LegEvent]:
        return []

    def send_audio_nowait(self, frame: bytes) -> bool:
        return True

    def clear_audio_nowait(self) -> None:
        """Nothing is queued."""

    async def close(self, farewell: Farewell) -> None:
        await trio.lowlevel.checkpoint()
