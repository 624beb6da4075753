"""What one process counts and measures, in the objects of Prometheus' own Python library.

    metrics = Metrics(version)
    retries = metrics.counter("hook_retries", "Deliveries that were tried again.", ["hook"])    # whoever has more to count
    retries.labels("ended").inc()                                                               # from any thread
    metrics.families()                                                                          # what is reported

A worker's figures must reach the supervisor's page, and end with the worker: the library's own way for several processes
(files that each writes at every increment, summed up by whoever is asked) keeps those of the dead and knows no worker by
its number. So each process has a registry, its families travel in its reports (`worker_link`), and `health` writes the page
by the library, with the label `worker` added.

Labels are bounded: agents and reasons are of the configuration and of our own lists, tools are those that were declared.
Never a caller, a number or a call's id. Nothing here is touched for a frame of audio; those are counted by `Distribution`.
"""

from __future__ import annotations

import platform
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import accumulate

import msgspec
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

PREFIX = "realtime_bridge"

TURN_S = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.8, 1.0, 1.25, 1.5, 2.0, 3.0, 5.0, 10.0)
CALL_S = (5, 15, 30, 60, 120, 180, 300, 600, 900, 1800, 3600)
TOOL_S = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 15.0, 30.0)
FRAME_S = (0.001, 0.0025, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25)


class Family(msgspec.Struct, frozen=True, array_like=True):
    """One metric as it travels: its samples are (full name, labels, value)."""

    name: str
    kind: str
    text: str
    samples: list[tuple[str, dict[str, str], float]]


class Distribution:
    """Counts of values in fixed buckets: what `Histogram` is, for what comes hundreds of times a second, or in bulk."""

    __slots__ = ("_counts", "edges_s", "sum_s")

    def __init__(self, edges_s: Sequence[float] = FRAME_S) -> None:
        self.edges_s = edges_s
        self._counts = [0] * (len(edges_s) + 1)
        self.sum_s = 0.0

    def add(self, seconds: float, count: int = 1) -> None:
        """So many times this value."""
        self._counts[bisect_left(self.edges_s, seconds)] += count
        self.sum_s += seconds * count

    def buckets(self) -> list[tuple[str, float]]:
        """Upper edges with how many were not above them; the last edge is `+Inf`."""
        edges = [*(f"{edge:g}" for edge in self.edges_s), "+Inf"]
        return list(zip(edges, map(float, accumulate(self._counts)), strict=True))


class _Asked(Collector):
    """Families that are made when somebody looks."""

    def __init__(self, families: Callable[[], Iterable[Metric]]) -> None:
        self._families = families

    def collect(self) -> Iterator[Metric]:
        yield from self._families()


class Metrics:
    """All that one process counts and measures beside the state in its `Report`. Names are given without the prefix."""

    def __init__(self, version: str = "") -> None:
        self.registry = CollectorRegistry(auto_describe=False)
        told = self.gauge("build_info", "1; what runs.", ["version", "python"])
        told.labels(version, platform.python_version()).set(1)
        self.calls_started = self.counter("calls_started", "Calls that were let in.", ["agent"])
        self.calls_refused = self.counter("calls_refused", "Calls that were not let in.", ["reason"])
        self.calls_ended = self.counter(
            "calls_ended", "Calls that were let in and have ended.", ["agent", "reason", "failed"]
        )
        self.call_duration = self.histogram("call_duration_seconds", "How long calls lasted.", CALL_S)
        self.model_ready = self.histogram(
            "model_ready_seconds", "From a call's media to its first model session, ready.", TURN_S
        )
        self.turn_latency = self.histogram(
            "turn_latency_seconds",
            "From the caller's last sound to the first of the answer (span total), and the parts of that.",
            TURN_S,
            ["span"],
        )
        self.prompted_latency = self.histogram(
            "prompted_latency_seconds",
            "From asking for words that answer no speech to their sound.",
            TURN_S,
        )
        self.interruptions = self.counter("interruptions", "Times that callers broke in on an agent.", ["agent"])
        self.sessions_lost = self.counter(
            "model_sessions_lost", "Model sessions that were lost in a call.", ["reason"]
        )
        self.reconnects = self.counter("model_reconnects", "Lost sessions that another one took over from.")
        self.tool_calls = self.counter("tool_calls", "Calls of declared tools.", ["tool", "outcome"])
        self.tool_duration = self.histogram(
            "tool_call_duration_seconds", "From a tool's call to its answer.", TOOL_S, ["tool"]
        )
        self.tokens = self.counter("tokens", "Tokens used, by what they are.", ["agent", "kind"])
        self.cost = self.counter("cost_dollars", "What that cost, as far as it could be priced.", ["agent"])
        self.unpriced = self.counter("cost_unpriced", "Responses and transcripts without a price.", ["agent"])
        self.audio_dropped = self.counter("uplink_dropped_seconds", "Callers' speech that never reached a model.")
        self.uplink = Distribution()
        self.distribution("uplink_latency_seconds", "From a caller's frame to the model's socket.", self.uplink)

    def begin(self, agents: Iterable[str]) -> None:
        """Show what alerts watch before it has happened: Prometheus sees no increase in a counter that begins with 1."""
        for agent in agents:
            self.calls_started.labels(agent)
            self.calls_ended.labels(agent, "internal_error", "1")
            self.cost.labels(agent)
        self.calls_refused.labels("refused_busy")

    def counter(self, name: str, text: str, labels: Sequence[str] = ()) -> Counter:
        """One more counter; `_total` is added to its name. Raises `ValueError` where the name is taken."""
        return Counter(name, text, labels, namespace=PREFIX, registry=self.registry)

    def gauge(self, name: str, text: str, labels: Sequence[str] = ()) -> Gauge:
        """One more gauge. Raises `ValueError` where the name is taken."""
        return Gauge(name, text, labels, namespace=PREFIX, registry=self.registry)

    def histogram(self, name: str, text: str, edges: Sequence[float], labels: Sequence[str] = ()) -> Histogram:
        """One more histogram with these upper edges. Raises `ValueError` where the name is taken."""
        return Histogram(name, text, labels, namespace=PREFIX, registry=self.registry, buckets=edges)

    def distribution(self, name: str, text: str, it: Distribution) -> None:
        """Show a distribution that somebody else fills."""

        def shown() -> list[Metric]:
            return [HistogramMetricFamily(f"{PREFIX}_{name}", text, buckets=it.buckets(), sum_value=it.sum_s)]

        self.registry.register(_Asked(shown))

    def counted(self, name: str, text: str, value: Callable[[], float]) -> None:
        """Show a counter that somebody else keeps."""
        self.registry.register(_Asked(lambda: [CounterMetricFamily(f"{PREFIX}_{name}", text, value())]))

    def families(self) -> Iterator[Family]:
        """All of them, to be reported; each is made when it is asked for. A thousand samples (20 agents, 30 tools) take
        some 5 ms: let the media clock run in between."""
        for metric in self.registry.collect():
            yield Family(
                metric.name,
                metric.type,
                metric.documentation,
                [(it.name, it.labels, it.value) for it in metric.samples if not it.name.endswith("_created")],
            )
