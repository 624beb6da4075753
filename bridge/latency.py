"""How long a caller waits for an answer, and for whom: one turn taken apart into spans, without I/O and without a clock.

    the caller's last sound   speech_stopped   committed   response.created   first delta        first frame sent
            |------ vad ------|--- commit ----|-- create --|- model (+ tools) -|----- bridge -----|
            |----------------------------------- total ------------------------------------------|

`TurnClock` is told of each event once, never of each frame. The spans of a turn add up to its total. A server that leaves
an event out merges two spans (the later one's name stays); one that swaps two of them makes the earlier span shorter,
since a cause is never later than what it brought about.

The caller stopped before the server said so. `speech_stopped.audio_end_ms` counts the audio appended in this session and
includes the silence that the VAD waited for (sections 2.4 and 6 of `docs/realtime-protocol.md`; that both are one clock is
not confirmed). We append in real time, so with our own count of appended ms the last sound left us
`appended_ms - audio_end_ms + silence_ms` ago. Without those figures the turn is counted from the event.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator
from dataclasses import dataclass

# An `audio_end_ms` that lies further behind our own count than this, or ahead of it by more than a rounding, is of
# another clock: a clone's, or of the session before a reconnect.
_MOST_BEHIND_MS = 10_000
_MOST_AHEAD_MS = 200
# Events of one turn that a server sends in the wrong order come within this time of each other.
_SWAPPED_S = 1.0


class Latencies:
    """A distribution of durations, kept as counts per step: fixed memory, any number of values.

    The defaults suit a frame's way through the bridge: steps of 0.25 ms up to one second, where all longer ones share a
    bucket.
    """

    __slots__ = ("_buckets", "_counts", "_step_ms", "count", "max_ms")

    def __init__(self, step_ms: float = 0.25, buckets: int = 4000) -> None:
        self._step_ms = step_ms
        self._buckets = buckets
        self._counts: dict[int, int] = {}
        self.count = 0
        self.max_ms = 0.0

    def add(self, seconds: float) -> None:
        ms = seconds * 1000
        bucket = min(self._buckets, int(ms / self._step_ms))
        self._counts[bucket] = self._counts.get(bucket, 0) + 1
        self.count += 1
        self.max_ms = max(self.max_ms, ms)

    def percentile_ms(self, percent: float) -> float:
        """The upper edge of the bucket that holds this percentile, in ms; 0.0 when nothing was measured."""
        wanted = self.count * percent / 100
        seen = 0
        for bucket in sorted(self._counts):
            seen += self._counts[bucket]
            if seen >= wanted:
                return min((bucket + 1) * self._step_ms, round(self.max_ms, 2))
        return 0.0

    def counts(self) -> Iterator[tuple[float, int]]:
        """The middle of each bucket in seconds, and how many were in it."""
        for bucket, count in self._counts.items():
            yield (bucket + 0.5) * self._step_ms / 1000, count

    def summary(self, high: int = 99) -> dict[str, float]:
        """Count, median, the `high`th percentile and the longest, for a log line."""
        return {
            "count": self.count,
            "p50_ms": self.percentile_ms(50),
            f"p{high}_ms": self.percentile_ms(high),
            "max_ms": round(self.max_ms, 2),
        }


class Stage(enum.IntEnum):
    """What happens in a turn, in order. A turn begins with any of the first five."""

    PROMPTED = 0  # a response was asked for without the caller's having spoken: the greeting, pressed keys
    SPEECH_END = 1
    SPEECH_STOPPED = 2
    COMMITTED = 3
    CREATED = 4
    DELTA = 5
    FRAME = 6


_SPAN_TO = {
    Stage.SPEECH_STOPPED: "vad_ms",
    Stage.COMMITTED: "commit_ms",
    Stage.CREATED: "create_ms",
    Stage.DELTA: "model_ms",
    Stage.FRAME: "bridge_ms",
}
_SPOKEN = frozenset({Stage.SPEECH_END, Stage.SPEECH_STOPPED, Stage.COMMITTED})


@dataclass(frozen=True, slots=True, kw_only=True)
class TurnSpans:
    """One answered turn, in ms; None: the server did not tell. All but `total_ms` add up to it.

    `began` is what the total counts from. `tools_ms` is the time inside tools between the response and its first sound; it
    is not part of `model_ms`.
    """

    began: Stage
    vad_ms: float | None = None
    commit_ms: float | None = None
    create_ms: float | None = None
    model_ms: float | None = None
    tools_ms: float | None = None
    bridge_ms: float | None = None
    total_ms: float = 0.0

    @property
    def spoken(self) -> bool:
        """Whether this answers the caller's words; a greeting does not."""
        return self.began in _SPOKEN

    def measured(self) -> dict[str, float]:
        """The spans that are known, by name."""
        return {name: value for name in SPANS if (value := getattr(self, name)) is not None}

    def facts(self) -> dict[str, object]:
        """For the log line `turn`."""
        return {"began": self.began.name.lower(), **self.measured()}


SPANS = ("vad_ms", "commit_ms", "create_ms", "model_ms", "tools_ms", "bridge_ms", "total_ms")


class TurnClock:
    """Fed with the events of one call, each with `now` in seconds of any monotonic clock; answers with each turn's spans.

    Only what belongs to the call's conversation is told to it: no out-of-band response, no discarded audio, no sound
    of our own. Nothing raises, whatever is missing, late or twice.
    """

    def __init__(self, *, silence_ms: int | None = None) -> None:
        """`silence_ms`: the silence that ends a turn, `silence_duration_ms` of server_vad. None where nobody knows it
        (semantic_vad, no VAD): then turns count from `speech_stopped`."""
        self._silence_ms = silence_ms
        self._at: dict[Stage, float] = {}  # of the turn that waits for its answer; empty: none does
        self._running: set[str] = set()
        self._tools_since = 0.0
        self._tools_s = 0.0
        self._follow_up = False

    def prompted(self, now: float) -> None:
        """A response is asked for that answers no speech: greeting, keys. Not for the one that takes up a tool's output."""
        self._begin()
        self._at[Stage.PROMPTED] = now

    def speech_stopped(self, now: float, audio_end_ms: float | None = None, appended_ms: float | None = None) -> None:
        """The server's VAD found the end of speech. `audio_end_ms` is its word; `appended_ms` how much audio this *session*
        was sent by now."""
        if not self._belongs(Stage.SPEECH_STOPPED, now):
            self._begin()
        self._at[Stage.SPEECH_STOPPED] = now
        if self._silence_ms is None or audio_end_ms is None or appended_ms is None:
            return
        behind_ms = appended_ms - audio_end_ms
        if -_MOST_AHEAD_MS <= behind_ms <= _MOST_BEHIND_MS:
            self._at[Stage.SPEECH_END] = now - (max(0, behind_ms) + self._silence_ms) / 1000

    def committed(self, now: float) -> None:
        """The caller's turn has become an item."""
        if not self._belongs(Stage.COMMITTED, now):
            self._begin()
        self._at[Stage.COMMITTED] = now

    def response_created(self, now: float) -> None:
        """A response begins. The first one of a turn counts; the next ones take up tools, or try again."""
        if self._at:
            self._at.setdefault(Stage.CREATED, now)
        elif self._follow_up:
            # It speaks about the output of a tool, in a turn whose answer was heard before that.
            self._follow_up = False
        else:
            self._begin()
            self._at[Stage.CREATED] = now

    def tool_started(self, call_id: str, now: float) -> None:
        """The model waits for a tool of ours. Several may run at once: their time is counted once."""
        if not self._at:
            self._follow_up = True
        elif Stage.DELTA not in self._at:
            if not self._running:
                self._tools_since = now
            self._running.add(call_id)

    def tool_finished(self, call_id: str, now: float) -> None:
        """Its output is there. One that belongs to an earlier turn is ignored."""
        if call_id in self._running:
            self._running.remove(call_id)
            if not self._running:
                self._tools_s += now - self._tools_since

    def first_delta(self, now: float) -> None:
        """Audio that will be played has come. The first time in a turn counts, so any delta may be told."""
        if self._at and Stage.DELTA not in self._at:
            self._at[Stage.DELTA] = now
            if self._running:
                self._tools_s += now - self._tools_since

    def first_frame(self, now: float) -> TurnSpans | None:
        """The first audible frame has left for the caller: the turn's spans, once. None if no turn waited for it."""
        if Stage.DELTA not in self._at:
            return None
        self._at[Stage.FRAME] = now
        spans = _spans(self._at, self._tools_s)
        tools_run = bool(self._running)
        self._begin()
        self._follow_up = tools_run
        return spans

    def interrupted(self, _now: float) -> None:
        """The caller speaks, or the session is gone: what has not been heard by now is no answer any more."""
        self._begin()

    def _begin(self) -> None:
        self._at = {}
        self._running = set()
        self._tools_s = 0.0
        self._follow_up = False

    def _belongs(self, stage: Stage, now: float) -> bool:
        """Whether an event of the caller's turn is one of the turn that waits, not the first of a new one."""
        at = self._at
        if not at or stage in at or Stage.PROMPTED in at or Stage.DELTA in at:
            return False
        if stage is Stage.COMMITTED and Stage.SPEECH_STOPPED in at:
            return True
        last = max(at, key=lambda known: at[known])
        return last < stage or now - at[last] <= _SWAPPED_S


def _spans(at: dict[Stage, float], tools_s: float) -> TurnSpans:
    """The spans between the stages that are known. None is later than the next one, whenever we were told of it."""
    known = sorted(at)
    times = [at[stage] for stage in known]
    for index in range(len(times) - 2, -1, -1):
        times[index] = min(times[index], times[index + 1])
    spans: dict[str, float] = {}
    for index in range(1, len(known)):
        name = _SPAN_TO.get(known[index])
        if name is not None:
            spans[name] = (times[index] - times[index - 1]) * 1000
    if tools_s:
        spans["tools_ms"] = min(tools_s * 1000, spans.get("model_ms", 0.0))
        spans["model_ms"] = spans.get("model_ms", 0.0) - spans["tools_ms"]
    rounded = {name: round(value, 1) for name, value in spans.items()}
    return TurnSpans(began=known[0], total_ms=round((times[-1] - times[0]) * 1000, 1), **rounded)


class CallLatency:
    """The turns of one call in sum: bounded memory, however many there are."""

    def __init__(self) -> None:
        self._spans: dict[str, Latencies] = {}

    def add(self, spans: TurnSpans) -> None:
        """Count an answered turn. Of one that was not spoken (a greeting) only the total is kept, as `prompted_ms`."""
        measured = spans.measured() if spans.spoken else {"prompted_ms": spans.total_ms}
        for name, value_ms in measured.items():
            if name not in self._spans:
                # 1 ms steps up to half a minute.
                self._spans[name] = Latencies(1.0, 30_000)
            self._spans[name].add(value_ms / 1000)

    def summary(self) -> dict[str, dict[str, float]]:
        """Count, p50, p95 and maximum of each span that was measured, for the call's record."""
        return {name: self._spans[name].summary(95) for name in (*SPANS, "prompted_ms") if name in self._spans}
