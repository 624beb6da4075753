"""From the notes of all calls to the figures of a step. Pure; milliseconds unless a name says otherwise."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.records import CallNotes, Reply

FRAME_MS = 20.0
# What "holds" means; lost or added audio, and violations, are not allowed at all.
UPLINK_P99_MS = 40.0
LATENESS_P99_MS = 10.0
GENERATOR_P99_MS = 5.0
# One sample either way at each edge of a reply is rounding.
_HEARD_TOLERANCE_MS = 1.0
# A frame under way at best when the window opens and closes, the resampler's 2 ms, and an append that is not full yet.
_UPLINK_TOLERANCE_MS = 120.0
_CLICK_PATIENCE_S = 1.0


@dataclass(frozen=True, slots=True)
class Spread:
    """A distribution in ms; NaN where nothing was measured."""

    count: int
    p50: float
    p99: float
    max: float


def spread(values: Iterable[float] | NDArray[np.float64]) -> Spread:
    """Nearest-rank percentiles: each is a value that occurred."""
    ordered = np.sort(np.fromiter(values, dtype=np.float64))
    if not len(ordered):
        return Spread(0, math.nan, math.nan, math.nan)

    def rank(percent: float) -> float:
        return float(ordered[max(0, math.ceil(len(ordered) * percent / 100) - 1)])

    return Spread(len(ordered), rank(50), rank(99), float(ordered[-1]))


@dataclass(frozen=True, slots=True)
class Grid:
    """Frames against the 20 ms grid that the earliest of them lies on."""

    lateness: NDArray[np.float64]
    jitter: NDArray[np.float64]  # how far each gap is from 20 ms
    drift: float  # how much later the grid of the last quarter lies than that of the first


def fit_grid(arrivals_s: Sequence[float] | NDArray[np.float64]) -> Grid:
    """A sender can be late but not early, so the grid touches the earliest frame. Frame n is due n * 20 ms after frame 0:
    a frame that was left out, or one too many, shows as lateness of all that follow, and as drift."""
    ms = np.asarray(arrivals_s, dtype=np.float64) * 1000
    if len(ms) < 2:
        return Grid(np.zeros(0), np.zeros(0), 0.0)
    residual = ms - np.arange(len(ms)) * FRAME_MS
    quarter = max(1, len(ms) // 4)
    drift = float(residual[-quarter:].min() - residual[:quarter].min())
    return Grid(residual - residual.min(), np.abs(np.diff(ms) - FRAME_MS), drift)


@dataclass(slots=True)
class Step:
    """The report of one step. `lost_ms` and `added_ms` are of finished replies at the callers' ears."""

    calls: int
    seconds: float
    format: str
    python: str
    uplink: Spread
    first_audio: Spread
    lateness: Spread
    jitter: Spread
    drift_ms: float
    barge_in_stop: Spread
    truncate_error: Spread
    replies: int
    lost_ms: float
    added_ms: float
    uplink_lost_ms: float
    violations: list[str]
    cpu_percent: float = math.nan
    memory_kb_per_call: float = math.nan
    switches_per_call_s: float = math.nan
    others_percent: float = math.nan
    generator_percent: float = math.nan
    generator_lateness: Spread = field(default_factory=lambda: spread(()))

    @property
    def cpu_percent_per_call(self) -> float:
        return self.cpu_percent / self.calls

    @property
    def valid(self) -> bool:
        """Whether the generator itself was in time."""
        return self.generator_lateness.p99 <= GENERATOR_P99_MS

    @property
    def failures(self) -> list[str]:
        """Why the bridge does not hold this step; empty: it does."""
        reasons = []
        if not self.lateness.p99 <= LATENESS_P99_MS:
            reasons.append(f"lateness p99 {self.lateness.p99:.1f} ms")
        if not self.uplink.p99 <= UPLINK_P99_MS:
            reasons.append(f"uplink p99 {self.uplink.p99:.1f} ms")
        for name in ("lost_ms", "added_ms", "uplink_lost_ms"):
            if getattr(self, name):
                reasons.append(f"{name} {getattr(self, name):.0f}")
        if self.violations:
            reasons.append(f"{len(self.violations)} violations, the first: {self.violations[0]}")
        return reasons

    @property
    def holds(self) -> bool:
        return self.valid and not self.failures

    def as_json(self) -> dict[str, Any]:
        """Plain types; what was not measured is null."""
        extra = {"cpu_percent_per_call": self.cpu_percent_per_call, "valid": self.valid, "holds": self.holds}
        return dict(_no_nan(asdict(self) | extra | {"failures": self.failures}))


def _no_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _no_nan(inner) for key, inner in value.items()}
    if isinstance(value, float):
        return None if math.isnan(value) else round(value, 4)
    return value


@dataclass(frozen=True, slots=True)
class Window:
    """The time of measurement, in monotonic seconds; how much audio of each call was pending just before it and just
    after it, at the least (`CallNotes.least_pending_ms`), and how much silence the generator may have caused between."""

    begins: float
    ends: float
    pending_ms: Sequence[tuple[float, float]]
    stalled_ms: Sequence[float]

    def __contains__(self, when: float | None) -> bool:
        return when is not None and self.begins <= when < self.ends


def report(calls: Sequence[CallNotes], window: Window, format: str, python: str) -> Step:
    """Everything that the notes say; the caller adds what /proc says."""
    grids = [fit_grid(_within(call.arrivals, window)) for call in calls]
    replies = [reply for call in calls for reply in call.replies if reply.began_at in window]
    finished = [reply for reply in replies if reply.over and reply.generated and reply.truncated_ms is None]
    differences = [reply.heard_ms - reply.sent_ms for reply in finished if reply.number % 2 == 0]
    barged = [reply for reply in replies if reply.over and reply.speech_started_at is not None]
    violations = [text for call in calls for text in call.violations]
    violations += [text for reply in replies if (text := _broken_promise(reply))]
    clicks = [click for call in calls for click in call.clicks if click[0] in window]
    missed = [sent for sent, arrived in clicks if arrived is None and sent < window.ends - _CLICK_PATIENCE_S]
    return Step(
        calls=len(calls),
        seconds=window.ends - window.begins,
        format=format,
        python=python,
        uplink=spread((arrived - sent) * 1000 for sent, arrived in clicks if arrived is not None),
        first_audio=spread((r.first_heard_at - r.began_at) * 1000 for r in replies if r.first_heard_at is not None),
        lateness=spread(np.concatenate([grid.lateness for grid in grids])),
        jitter=spread(np.concatenate([grid.jitter for grid in grids])),
        drift_ms=max((grid.drift for grid in grids), key=abs),
        barge_in_stop=spread(_stop_ms(reply) for reply in barged),
        truncate_error=spread(abs(r.truncated_ms - r.heard_ms) for r in barged if r.truncated_ms is not None),
        replies=len(replies),
        lost_ms=-sum(difference for difference in differences if difference < -_HEARD_TOLERANCE_MS),
        added_ms=sum(difference for difference in differences if difference > _HEARD_TOLERANCE_MS),
        uplink_lost_ms=_uplink_lost_ms(window) + FRAME_MS * len(missed),
        violations=violations,
    )


def _within(arrivals: Iterable[float], window: Window) -> NDArray[np.float64]:
    times = np.fromiter(arrivals, dtype=np.float64)
    return times[(times >= window.begins) & (times < window.ends)]


def _stop_ms(reply: Reply) -> float:
    """From the server's word to the last frame of the reply at the caller; 0 when that came before it."""
    if reply.last_heard_at is None or reply.speech_started_at is None:
        return 0.0
    return max(0.0, (reply.last_heard_at - reply.speech_started_at) * 1000)


def _broken_promise(reply: Reply) -> str:
    """What a bridge must not do with a reply whose turn is over; empty: it did right."""
    if not reply.over:
        return ""
    if reply.number % 2 and reply.truncated_ms is None:
        return f"reply {reply.number} was interrupted, but the server was not told what was heard"
    if not reply.number % 2 and reply.truncated_ms is not None:
        return (
            f"reply {reply.number} was truncated at {reply.truncated_ms} ms long after its end at {reply.sent_ms} ms"
        )
    return ""


def _uplink_lost_ms(window: Window) -> float:
    """Audio of the callers that did not reach the model, or reached it twice, beyond the rounding of an append."""
    lost = 0.0
    for (before, after), stalled in zip(window.pending_ms, window.stalled_ms, strict=True):
        missing = after - before
        if missing > _UPLINK_TOLERANCE_MS or missing < -_UPLINK_TOLERANCE_MS - stalled:
            lost += abs(missing)
    return lost


_COLUMNS = (
    ("calls", "{calls}"),
    ("uplink ms p50/p99/max", "{uplink}"),
    ("first audio p50/p99/max", "{first_audio}"),
    ("lateness p50/p99/max", "{lateness}"),
    ("jitter p99", "{jitter.p99:.1f}"),
    ("drift", "{drift_ms:.1f}"),
    ("barge-in stop p50/p99/max", "{barge_in_stop}"),
    ("truncate max", "{truncate_error.max:.1f}"),
    ("lost/added/up ms", "{lost_ms:.0f}/{added_ms:.0f}/{uplink_lost_ms:.0f}"),
    ("CPU %", "{cpu_percent:.1f}"),
    ("a call", "{cpu_percent_per_call:.3f}"),
    ("KB a call", "{memory_kb_per_call:.0f}"),
    ("switches a call/s", "{switches_per_call_s:.0f}"),
    ("generator % (late p99)", "{generator_percent:.0f} ({generator_lateness.p99:.2f})"),
    ("others %", "{others_percent:.1f}"),
    ("holds", "{verdict}"),
)


def table(steps: Sequence[Step]) -> str:
    """The steps as a table in Markdown."""
    rows = [[name for name, _ in _COLUMNS]]
    for step in steps:
        values: dict[str, Any] = {name: getattr(step, name) for name in step.__dataclass_fields__}
        for name, value in list(values.items()):
            if isinstance(value, Spread) and name not in ("jitter", "truncate_error", "generator_lateness"):
                values[name] = f"{value.p50:.1f}/{value.p99:.1f}/{value.max:.1f}"
        verdict = "yes" if step.holds else "no" if step.valid else "not valid"
        values |= {"verdict": verdict, "cpu_percent_per_call": step.cpu_percent_per_call}
        rows.append([template.format(**values) for _, template in _COLUMNS])
    widths = [max(len(row[column]) for row in rows) for column in range(len(_COLUMNS))]
    lines = [
        "| " + " | ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) + " |" for row in rows
    ]
    lines.insert(1, "|" + "|".join("-" * (width + 1) + ":" for width in widths) + "|")
    return "\n".join(lines)
