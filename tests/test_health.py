"""The pages for probes and Prometheus, and the little HTTP that carries them."""

from __future__ import annotations

import re

import pytest
import trio
from trio.testing import MockClock, memory_stream_pair

from bridge.ending import EndReason
from bridge.errors import ConfigError
from bridge.health import MAX_REQUEST, CallCounts, Page, Report, WorkerHealth, answer, metrics, page
from bridge.health_server import REQUEST_S, answer_one, serve_health

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
    busy = Report(
        pid=7, listening=True, connected=True, calls=3, calls_waiting=1, calls_max=100, admitted=9,
        refused={"refused_busy": 2}, ended={"agent_hung_up": 4, "caller_hung_up": 1}, lateness_p99_ms=3.5,
    )  # fmt: skip
    text = metrics([WorkerHealth(1, busy, restarts=2), WorkerHealth(2, None, restarts=1)])
    samples = dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
    assert samples['realtime_bridge_calls{worker="1"}'] == "3"
    assert samples['realtime_bridge_calls_refused_total{worker="1",reason="refused_busy"}'] == "2"
    assert samples['realtime_bridge_calls_ended_total{worker="1",reason="agent_hung_up"}'] == "4"
    assert samples['realtime_bridge_frame_lateness_p99_seconds{worker="1"}'] == "0.0035"
    assert samples['realtime_bridge_worker_restarts_total{worker="2"}'] == "1"
    assert samples['realtime_bridge_worker_ready{worker="2"}'] == "0"
    assert 'realtime_bridge_calls{worker="2"}' not in samples, (
        "a worker that is not there has no calls, not even none"
    )


def test_metrics_are_what_prometheus_reads() -> None:
    text = metrics(workers(READY, READY))
    assert text.endswith("\n")
    typed = re.findall(r"(?m)^# TYPE (\w+) (\w+)$", text)
    assert [name for name, kind in typed if (kind == "counter") != name.endswith("_total")] == []
    sample = re.compile(r'[a-z_0-9]+\{(worker="\d+")(,reason="[a-z_]+")?\} [-+0-9.e]+')
    names = set()
    for line in text.splitlines():
        if not line.startswith("#"):
            assert sample.fullmatch(line)
            names.add(line.partition("{")[0])
    assert names <= {name for name, _ in typed}
    for name, _ in typed:  # the samples of one family stand together, behind its type
        assert len(re.findall(rf"(?:^{name}\{{.*\n)+", text, re.MULTILINE)) <= 1


def get(path: bytes, **_: object) -> bytes:
    return b"GET " + path + b" HTTP/1.1\r\nHost: here\r\nUser-Agent: kube-probe/1.31\r\n\r\n"


def ask(request: bytes) -> str:
    told = answer(request, lambda path: page(path, workers(READY)))
    assert told is not None
    return told.decode()


def test_a_probe_is_answered_and_the_connection_closed() -> None:
    told = ask(get(b"/readyz"))
    head, _, body = told.partition("\r\n\r\n")
    assert head.splitlines()[0] == "HTTP/1.1 200 OK"
    assert "Connection: close" in head
    assert f"Content-Length: {len(body)}" in head
    assert ask(get(b"/metrics?x=1")).splitlines()[1].startswith("Content-Type: text/plain; version=0.0.4")


def test_a_request_by_hand_may_have_bare_line_ends() -> None:
    assert "200 OK" in ask(b"GET /healthz HTTP/1.0\n\n")


def test_head_has_the_length_and_no_body() -> None:
    told = ask(b"HEAD /healthz HTTP/1.1\r\n\r\n")
    assert "Content-Length: 3" in told
    assert told.endswith("\r\n\r\n")


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (get(b"/"), "404"),
        (b"POST /healthz HTTP/1.1\r\n\r\n", "405"),
        (b"\x16\x03\x01\x02\r\n\r\n", "400"),
        (b"GET /healthz\r\n\r\n", "400"),
        (b"GET /healthz HTTP/2.0\r\n\r\n", "400"),
        (b"GET /healthz HTTP/1.1 x\r\n\r\n", "400"),
        (b"x" * (MAX_REQUEST + 1), "431"),
    ],
)
def test_what_is_not_a_request_of_ours_is_told_so(request_: bytes, status: str) -> None:
    assert ask(request_).split(" ")[1] == status


def test_a_request_that_is_not_complete_gets_nothing_yet() -> None:
    assert answer(get(b"/healthz")[:-2], lambda path: page(path, [])) is None


async def test_a_request_may_come_in_pieces(autojump_clock: MockClock) -> None:
    ours, theirs = memory_stream_pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(answer_one, ours, lambda: workers(READY))
        for byte in get(b"/readyz"):
            await theirs.send_all(bytes([byte]))
        told = await theirs.receive_some()
    assert told.startswith(b"HTTP/1.1 200 OK")


async def test_a_client_that_dawdles_is_sent_away(autojump_clock: MockClock) -> None:
    ours, theirs = memory_stream_pair()
    began = trio.current_time()
    await theirs.send_all(b"GET /healthz HTTP/1.1\r\n")
    await answer_one(ours, list)
    assert trio.current_time() - began == REQUEST_S


async def test_a_client_that_leaves_harms_nobody(autojump_clock: MockClock) -> None:
    ours, theirs = memory_stream_pair()
    await theirs.send_all(get(b"/healthz"))
    await theirs.aclose()
    await answer_one(ours, list)


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
    counts.admit()
    counts.admit()
    counts.refuse(EndReason.REFUSED_BUSY)
    counts.end(EndReason.CALLER_HUNG_UP)
    assert (counts.admitted, counts.refused, counts.ended) == (2, {"refused_busy": 1}, {"caller_hung_up": 1})
