"""One step: a fresh bridge, N calls, a window of measurement, one report."""

from __future__ import annotations

import os
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from bench.figures import Step, Window, report, spread
from bench.generator import Generator, SetUpFailed, undisturbed
from bench.model import Talk
from bench.process import BridgeProcess, Candidate, Usage, running_bridge, split_cpus
from bench.tls import self_signed

RATES_HZ = {"slin": 8000, "slin16": 16000, "slin24": 24000}
# After the last call's first reply: nothing of the beginning is measured.
_SETTLE_S = 2.0


@dataclass(frozen=True, slots=True)
class Plan:
    """What all steps of a run have in common."""

    candidate: Candidate
    format: str = "slin16"
    seconds: float = 20.0
    talk: Talk = field(default_factory=Talk)
    settle_s: float = _SETTLE_S
    tls: bool = False  # between the bridge and the model
    urgent: bool = False  # real-time scheduling for the generator


def run_step(plan: Plan, calls: int) -> Step:
    """Measure. Raises `BridgeDied` or `SetUpFailed` when that many calls can not even be set up."""
    cpu, others = split_cpus()
    if cpu is not None:
        os.sched_setaffinity(0, others)
    if plan.urgent:
        # Whatever else runs here must not make the generator late. Only root may; the bridge does not inherit it.
        with suppress(PermissionError):
            os.sched_setscheduler(0, os.SCHED_FIFO | os.SCHED_RESET_ON_FORK, os.sched_param(1))
    try:
        with undisturbed(), tempfile.TemporaryDirectory(prefix="bench-") as folder:
            identity = self_signed(Path(folder)) if plan.tls else None
            generator = Generator(RATES_HZ[plan.format], plan.talk, identity)
            trusted = None if identity is None else identity.certificate
            try:
                with running_bridge(plan.candidate, generator.url, calls + 10, cpu, trusted) as process:
                    return _measure(plan, calls, generator, process)
            finally:
                generator.close()
    finally:
        if plan.urgent:
            with suppress(PermissionError):
                os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
        if cpu is not None:
            os.sched_setaffinity(0, others | {cpu})


def _measure(plan: Plan, calls: int, generator: Generator, process: BridgeProcess) -> Step:
    address = ("127.0.0.1", process.port)
    # One call before all others, so that what every process needs once is not counted as memory of calls.
    generator.dial(address)
    generator.run_for(0.5)
    generator.hang_up()
    generator.forget()
    empty = process.usage()
    try:
        for _ in range(calls):
            generator.dial(address)
    except SetUpFailed as error:
        generator.run_for(1.0)  # the bridge has yet to say why
        raise SetUpFailed("; ".join([str(error), *_complaints(process)[:2]])) from error
    generator.run_for(plan.talk.spread_s)
    before = _least_pending(plan, generator)
    stalled = [call.stalled_ms for call in generator.calls]
    lateness_from, own_from = len(generator.lateness), time.process_time()
    begins = process.usage()
    generator.run_for(plan.seconds)
    ends = process.usage()
    own = time.process_time() - own_from
    lateness_to = len(generator.lateness)
    after = _least_pending(plan, generator)
    window = Window(
        begins.at,
        ends.at,
        list(zip(before, after, strict=True)),
        [call.stalled_ms - earlier for call, earlier in zip(generator.calls, stalled, strict=True)],
    )
    lateness = generator.lateness[lateness_from:lateness_to]
    generator.hang_up()
    step = report(generator.calls, window, plan.format, plan.candidate.version)
    step.generator_lateness = spread(seconds * 1000 for seconds in lateness)
    step.generator_percent = 100 * own / step.seconds
    _add_usage(step, empty, begins, ends)
    step.violations += _complaints(process)
    return step


def _least_pending(plan: Plan, generator: Generator) -> list[float]:
    """Let the calls go on for a while, and tell how much of each was pending in it at the least."""
    for call in generator.calls:
        call.forget_pending()
    generator.run_for(plan.settle_s)
    return [min(call.least_pending_ms, call.pending_ms) for call in generator.calls]


def _add_usage(step: Step, empty: Usage, begins: Usage, ends: Usage) -> None:
    seconds = ends.at - begins.at
    cpu_s = ends.cpu_s - begins.cpu_s
    step.cpu_percent = 100 * cpu_s / seconds
    step.switches_per_call_s = (ends.switches - begins.switches) / seconds / step.calls
    step.memory_kb_per_call = (ends.rss_kb - empty.rss_kb) / step.calls
    step.others_percent = max(0.0, 100 * (ends.cpu_busy_s - begins.cpu_busy_s - cpu_s) / seconds)


def _complaints(process: BridgeProcess) -> list[str]:
    """What the bridge's own log holds against it."""
    complaints = []
    for line in process.lines():
        if line["event"] == "call_ended":
            if line["reason"] != "caller_hung_up":
                complaints.append(f"a call ended with {line['reason']}: {line['detail']}")
            if line["audio_dropped_ms"]:
                complaints.append(f"the bridge dropped {line['audio_dropped_ms']} ms of a caller's audio")
        elif line["level"] in ("warning", "error"):
            complaints.append(f"the bridge logged: {line['event']}")
    return complaints
