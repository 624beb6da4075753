"""The pages for probes and Prometheus, and the little HTTP that carries them."""

from __future__ import annotations

import pytest
import trio

from bridge.ending import EndReason
from bridge.errors import ConfigError
from bridge.health import CallCounts, Report, WorkerHealth, answer, metrics, page
from bridge.health_server import serve_health
from bridge.http_exchange import Page, Request
from bridge.metrics import Metrics

READY = Report(pid=1, listening=True, connected=True, calls_max=100)


def workers(*reports: Report | None) -> list[WorkerHealth]:
    return [WorkerHealth(number, report) for number, report in enumerate(reports, 1)]


@pytest.mark.parametrize(
    ("report", "ready", "words"),
    [
        (READY, True, "ready"),
        (Report(pid=1, connected=True), False, "not listening"),
        (Report(pid=1, listening=True), False, "no connection to Asterisk"),
        (Report(pid=1, listening=True, connected=True, draining=True, full=True), False, "draining"),
        (Report(pid=1, listening=True, connected=True, full=True), False, "full"),
        (None, False, "starting"),
    ],
)
def test_one_worker_is_ready_or_the_page_says_why_not(report: Report | None, ready: bool, words: str) -> None:
    it = page("/readyz", workers(report))
    assert it.status == (200 if ready else 503)
    assert it.text.partition(";")[0].strip() == f"worker 1: {words}"


def test_one_ready_worker_of_several_is_enough() -> None:
    assert page("/readyz", workers(None, READY, None)).status == 200
    assert page("/readyz", workers(None, None)).status == 503
    assert page("/readyz", []).status == 503


def test_the_process_lives_whatever_its_workers_do() -> None:
    assert page("/healthz", workers(None)) == Page(200, "ok\n")


def test_metrics_tell_every_worker_by_its_number() -> None:
    counted = Metrics("9.9")
    counted.calls_refused.labels("refused_busy").inc(2)
    busy = Report(
        pid=7, listening=True, connected=True, calls=3, calls_waiting=1, calls_max=100, lateness_p99_ms=3.5,
        families=list(counted.families()),
    )  # fmt: skip
    text = metrics([WorkerHealth(1, busy, restarts=2), WorkerHealth(2, None, restarts=1), WorkerHealth(3, busy)])
    samples = dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
    assert samples['realtime_bridge_calls_running{worker="1"}'] == "3.0"
    assert samples['realtime_bridge_calls_refused_total{reason="refused_busy",worker="1"}'] == "2.0"
    assert samples['realtime_bridge_calls_refused_total{reason="refused_busy",worker="3"}'] == "2.0"
    assert samples['realtime_bridge_frame_lateness_p99_seconds{worker="1"}'] == "0.0035"
    assert samples['realtime_bridge_worker_restarts_total{worker="2"}'] == "1.0"
    assert samples['realtime_bridge_worker_ready{worker="2"}'] == "0.0"
    assert 'realtime_bridge_calls_running{worker="2"}' not in samples, (
        "a worker that is not there has no calls, not even none"
    )


def get(path: bytes) -> bytes:
    return b"GET " + path + b" HTTP/1.1\r\nHost: here\r\nUser-Agent: kube-probe/1.31\r\n\r\n"


def test_only_reading_is_possible() -> None:
    assert answer(Request("GET", "/healthz"), []) == Page(200, "ok\n")
    assert answer(Request("HEAD", "/healthz"), []).status == 200
    refused = answer(Request("POST", "/healthz"), [])
    assert (refused.status, refused.headers) == (405, (("Allow", "GET, HEAD"),))


async def test_on_a_port_one_request_a_connection() -> None:
    async with trio.open_nursery() as nursery:
        port = await nursery.start(serve_health, "127.0.0.1:0", lambda: workers(READY))
        for _ in range(2):
            client = await trio.open_tcp_stream("127.0.0.1", port)
            async with client:
                await client.send_all(get(b"/healthz") * 2)
                told = b"".join([data async for data in client])
            assert told.count(b"HTTP/1.1") == 1
        with pytest.raises(ConfigError, match=r"server\.health_address: cannot listen on 127\.0\.0\.1:\d+"):
            await serve_health(f"127.0.0.1:{port}", list)
        nursery.cancel_scope.cancel()


def test_every_call_is_counted_once() -> None:
    counts = CallCounts()
    counts.admit("desk")
    counts.admit("desk")
    counts.refuse(EndReason.REFUSED_BUSY)
    counts.end(EndReason.CALLER_HUNG_UP, "desk")
    assert (counts.admitted, counts.refused, counts.ended) == (2, {"refused_busy": 1}, {"caller_hung_up": 1})
    told = counts.metrics.registry.get_sample_value
    assert told("realtime_bridge_calls_started_total", {"agent": "desk"}) == 2
    ended = {"agent": "desk", "reason": "caller_hung_up", "failed": "0"}
    assert told("realtime_bridge_calls_ended_total", ended) == 1
