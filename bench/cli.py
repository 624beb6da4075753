"""The command line: fixed steps, or the search for the largest number of calls that holds."""

from __future__ import annotations

import argparse
import fcntl
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from bench.figures import LATENESS_P99_MS, Step, table
from bench.generator import SetUpFailed
from bench.plot import svg
from bench.process import OWN_SOURCE, BridgeDied, Candidate
from bench.step import RATES_HZ, Plan, run_step

# A tenth more or less is within what two runs on a shared machine differ by.
_RESOLUTION = 0.06
# A step that misses by less than this is tried again, and so is one during which others used the bridge's CPU.
_NARROW = 5
_DISTURBED_PERCENT = 3.0


def main(argv: Sequence[str] | None = None) -> int:
    """Run; returns the exit status: 0, or 1 when a step could not be measured at all."""
    parser = _parser()
    arguments = parser.parse_args(argv)
    # Whoever ends us ends the bridge that we started.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        candidate = Candidate(
            arguments.python, _version(arguments.python), arguments.source.resolve(), arguments.preferred
        )
    except (OSError, subprocess.CalledProcessError) as error:
        parser.error(f"--python {arguments.python}: {error}")
    plan = Plan(candidate, arguments.format, arguments.seconds, tls=arguments.tls, urgent=True)
    if len(os.sched_getaffinity(0)) < 2:
        _say("only one CPU here: the bridge and the generator share it, so the figures are no measure of the bridge")
    steps: list[Step] = []

    def measure(calls: int) -> Step | None:
        step = _measure(plan, calls)
        if step is not None:
            steps.append(step)
        return step

    try:
        if arguments.find:
            best = find(arguments.start, lambda calls: (step := measure(calls)) is not None and step.holds)
            _say(f"holds: {best} calls ({plan.format}, Python {candidate.version})")
        else:
            for calls in arguments.calls:
                measure(calls)
    except KeyboardInterrupt:
        _say("interrupted")
    steps.sort(key=lambda step: step.calls)
    if not steps:
        return 1
    print(
        f"{plan.format}{', TLS' * plan.tls}, Python {candidate.version}, {plan.seconds:g} s a step\n\n{table(steps)}"
    )
    if arguments.json:
        Path(arguments.json).write_text(json.dumps([step.as_json() for step in steps], indent=1) + "\n")
    if arguments.plot:
        title = f"Calls on one core: {plan.format}{', TLS' * plan.tls}, Python {candidate.version}"
        Path(arguments.plot).write_text(svg(steps, title))
    return 0


def find(start: int, holds: Callable[[int], bool]) -> int:
    """The largest number that holds, to 6 % or 5 calls: doubled until one fails, then halved between. 0: none."""
    good, bad = 0, start
    while holds(bad):
        good, bad = bad, bad * 2
    while bad - good > max(5, good * _RESOLUTION):
        middle = (good + bad) // 2
        # Multiples of 5 read better.
        middle = middle // 5 * 5 if middle // 5 * 5 > good else middle
        good, bad = (middle, bad) if holds(middle) else (good, middle)
    return good


def _measure(plan: Plan, calls: int) -> Step | None:
    """One step, tried a second time after a disturbance or a narrow miss; None: the calls could not be set up."""
    for again in (True, False):
        try:
            with _alone():
                step = run_step(plan, calls)
        except (BridgeDied, SetUpFailed) as error:
            _say(f"{calls} calls: {error}")
            return None
        late = f"lateness p99 {step.lateness.p99:.1f} ms, CPU {step.cpu_percent:.0f} %"
        generator = f"generator {step.generator_percent:.0f} %, late p99 {step.generator_lateness.p99:.2f} ms"
        verdict = (
            "holds" if step.holds else "does not hold: " + "; ".join(step.failures) if step.valid else "not valid"
        )
        _say(f"{calls} calls: {late}, {generator}: {verdict}")
        if step.holds or not again:
            return step
        disturbed = not step.valid or step.others_percent > _DISTURBED_PERCENT
        if not disturbed and step.lateness.p99 > _NARROW * LATENESS_P99_MS:
            return step
        _say(f"{calls} calls: {'disturbed' if disturbed else 'a narrow miss'}; once more")
    return step


@contextmanager
def _alone() -> Iterator[None]:
    """Steps of two runs on one machine take turns: side by side both would measure the other."""
    with (Path(tempfile.gettempdir()) / "realtime-bridge-bench.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _version(python: str) -> str:
    command = [python, "-c", "import platform; print(platform.python_version())"]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _numbers(text: str) -> list[int]:
    numbers = [int(part) for part in text.split(",")]
    if min(numbers) < 1:
        raise ValueError(text)
    return numbers


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="bench", description="How many calls one bridge process holds on one core, and how well."
    )
    what = parser.add_mutually_exclusive_group()
    what.add_argument(
        "--calls", type=_numbers, default=[1, 50, 100], metavar="N,N,…", help="steps (default 1,50,100)"
    )
    what.add_argument("--find", action="store_true", help="search the largest number of calls that holds")
    parser.add_argument("--start", type=int, default=50, metavar="N", help="where the search begins (default 50)")
    parser.add_argument("--format", choices=list(RATES_HZ), default="slin16", help="of the callers (default slin16)")
    parser.add_argument(
        "--tls", action="store_true", help="TLS between the bridge and the model, as with the real one"
    )
    parser.add_argument("--seconds", type=float, default=20.0, help="of measurement in each step (default 20)")
    parser.add_argument("--python", default=sys.executable, help="the interpreter for the bridge (default: this one)")
    parser.add_argument(
        "--source",
        type=Path,
        default=OWN_SOURCE,
        metavar="DIR",
        help="the folder that holds the package `bridge` to measure (default: the one of this tool)",
    )
    parser.add_argument(
        "--preferred",
        action="store_true",
        help="let nothing else run while the bridge wants its CPU, on a busy machine (root only)",
    )
    parser.add_argument("--json", metavar="FILE", help="write all figures of all steps")
    parser.add_argument("--plot", metavar="FILE.svg", help="draw lateness and CPU against calls")
    return parser
