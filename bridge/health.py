"""How a process, or all workers together, are: what each reports, and the three pages that tell it. Without I/O.

    GET /healthz   200 as long as the process answers: whether to restart it
    GET /readyz    200 while at least one worker takes calls: whether to send calls here
    GET /metrics   everything, in Prometheus' text format (exposition format 0.0.4), one series a worker

`http_exchange` is the HTTP of it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

import msgspec
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from bridge.ending import FAREWELLS, EndReason
from bridge.http_exchange import Page, Request
from bridge.metrics import PREFIX, Family, Metrics


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """What a worker tells of itself. Counts are since its process began, `lateness_p99_ms` of the last 10 s.

    `calls_waiting` have been admitted, and their media has not come yet. admitted = ended + running + waiting.
    `families` are the process's metrics; None where they have not been asked for, and the last ones hold.
    """

    pid: int
    listening: bool = False
    connected: bool = False
    draining: bool = False
    full: bool = False
    calls: int = 0
    calls_waiting: int = 0
    calls_max: int = 0
    admitted: int = 0
    refused: dict[str, int] = {}
    ended: dict[str, int] = {}
    lateness_p99_ms: float = 0.0
    families: list[Family] | None = None

    @property
    def up(self) -> bool:
        """Whether Asterisk can give it calls: its listener is open, and its Stasis app registered (or not wanted)."""
        return self.listening and self.connected

    @property
    def ready(self) -> bool:
        """Whether it would take one more call."""
        return self.up and not self.draining and not self.full

    @property
    def state(self) -> tuple[bool, bool, bool, bool]:
        """What is worth telling at once when it changes."""
        return self.listening, self.connected, self.draining, self.full


@dataclass(slots=True)
class CallCounts:
    """The calls of one process since it began. Every call is counted once as refused, or as admitted and then as ended."""

    metrics: Metrics = field(default_factory=Metrics)
    admitted: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    ended: Counter[str] = field(default_factory=Counter)

    def refuse(self, reason: EndReason) -> None:
        self.refused[reason.value] += 1
        self.metrics.calls_refused.labels(reason.value).inc()

    def admit(self, agent: str) -> None:
        self.admitted += 1
        self.metrics.calls_started.labels(agent).inc()

    def end(self, reason: str, agent: str) -> None:
        self.ended[reason] += 1
        failed = "1" if FAREWELLS[EndReason(reason)].failure else "0"
        self.metrics.calls_ended.labels(agent, str(EndReason(reason).value), failed).inc()


@dataclass(frozen=True, slots=True)
class WorkerHealth:
    """One worker as its supervisor sees it; `report` is None while no process of it has told anything. `families` stand for
    those of the report, and may be made while they are read."""

    number: int
    report: Report | None
    restarts: int = 0
    stage: str = ""
    families: Iterable[Family] | None = None

    @property
    def ready(self) -> bool:
        return self.report is not None and self.report.ready


def page(path: str, workers: Iterable[WorkerHealth]) -> Page:
    """The page at `path`."""
    match path:
        case "/healthz":
            return Page(200, "ok\n")
        case "/readyz":
            told = list(workers)
            return Page(200 if any(worker.ready for worker in told) else 503, "".join(map(_in_words, told)))
        case "/metrics":
            return metrics_page(metrics(workers))
        case _:
            return Page(404, "there are /healthz, /readyz and /metrics\n")


def metrics_page(text: str) -> Page:
    """The page with this text."""
    return Page(200, text, "text/plain; version=0.0.4; charset=utf-8")


def _in_words(worker: WorkerHealth) -> str:
    it = worker.report
    if it is None:
        return f"worker {worker.number}: {worker.stage or 'starting'}\n"
    troubles = [
        words
        for words, applies in (
            ("not listening", not it.listening),
            ("no connection to Asterisk", not it.connected),
            ("draining", it.draining),
            ("full", it.full and not it.draining),
        )
        if applies
    ]
    return f"worker {worker.number}: {', '.join(troubles) or 'ready'}; {it.calls} calls\n"


_Samples = Iterable[tuple[Mapping[str, str], float]]


def metrics(workers: Iterable[WorkerHealth]) -> str:
    """All series. Times are in seconds, as Prometheus wants them; counters begin anew with each process."""
    return "".join(metrics_in_parts(workers))


def metrics_in_parts(workers: Iterable[WorkerHealth]) -> Iterator[str]:
    """The same, in parts that take a millisecond at most, some of them empty: whoever writes the page may do something
    else in between."""
    told = list(workers)
    living = [(worker.number, worker.report) for worker in told if worker.report is not None]

    def of_each(value: Callable[[Report], float]) -> _Samples:
        return [({"worker": str(number)}, value(report)) for number, report in living]

    families: list[tuple[str, str, str, _Samples]] = [
        ("worker_ready", "gauge", "1 if the worker would take one more call.", [
            ({"worker": str(worker.number)}, worker.ready) for worker in told
        ]),
        ("worker_restarts_total", "counter", "Processes of this worker that died and were replaced.", [
            ({"worker": str(worker.number)}, worker.restarts) for worker in told
        ]),
        ("worker_connected", "gauge", "1 if Asterisk knows the worker's Stasis app.", of_each(lambda it: it.connected)),
        ("worker_draining", "gauge", "1 if it only lets its calls finish.", of_each(lambda it: it.draining)),
        ("calls_running", "gauge", "Calls that run.", of_each(lambda it: it.calls)),
        ("calls_waiting", "gauge", "Calls that wait for their media.", of_each(lambda it: it.calls_waiting)),
        ("calls_limit", "gauge", "server.max_calls.", of_each(lambda it: it.calls_max)),
        ("frame_lateness_p99_seconds", "gauge", "How late the callers' frames left in the last 10 s.", of_each(
            lambda it: it.lateness_p99_ms / 1000
        )),
    ]  # fmt: skip
    shown: dict[str, Metric] = {}
    for name, kind, text, samples in families:
        full = f"{PREFIX}_{name}"
        metric = shown[full] = Metric(full.removesuffix("_total"), text, kind)
        for labels, value in samples:
            metric.add_sample(full, dict(labels), value)
    for worker in told:
        number, report, measured = worker.number, worker.report, worker.families
        if report is None:
            continue
        for family in (measured if measured is not None else report.families) or ():
            metric = shown.setdefault(family.name, Metric(family.name, family.text, family.kind))
            for full, labels, value in family.samples:
                metric.add_sample(full, {"worker": str(number), **labels}, value)
            yield ""
    for metric in shown.values():
        registry = CollectorRegistry(auto_describe=False)
        registry.register(_This(metric))
        yield generate_latest(registry).decode()


class _This(Collector):
    def __init__(self, metric: Metric) -> None:
        self._metric = metric

    def collect(self) -> list[Metric]:
        return [self._metric]


def answer(request: Request, workers: Iterable[WorkerHealth]) -> Page:
    """The answer to a request, whatever it asks for."""
    if request.method not in ("GET", "HEAD"):
        return Page(405, "GET only\n", headers=(("Allow", "GET, HEAD"),))
    return page(request.path, workers)
