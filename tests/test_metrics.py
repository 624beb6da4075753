"""What /metrics tells: conventional names, and the truth about whole calls."""

from __future__ import annotations

import re

import msgspec
import pytest
import trio
from house import house
from prometheus_client.core import Metric
from prometheus_client.parser import text_string_to_metric_families
from trio.testing import MockClock, memory_stream_pair

from bridge import call_metrics
from bridge.call_metrics import UNDECLARED, CallMetrics
from bridge.call_record import CallRecord, ToolUse
from bridge.health import Report, WorkerHealth, metrics
from bridge.health_server import serve_health
from bridge.lateness import Lateness
from bridge.metrics import PREFIX, Distribution, Metrics
from bridge.record_keeper import RecordCounts
from bridge.usage import UsageTotals
from bridge.worker_link import Receiver
from simulators.model_script import Say, Script

# What promtool checks, and https://prometheus.io/docs/practices/naming: base units, `_total` on counters alone.
UNITS = ("seconds", "dollars", "bytes", "info")
NO_UNITS = {"ms", "milliseconds", "minutes", "percent", "usd", "kilobytes", "count", "gauge", "counter"}


def page_of(*told: Metrics) -> dict[str, Metric]:
    """The page of so many workers, read by Prometheus' own parser."""
    workers = [WorkerHealth(n, Report(pid=n, families=list(it.families()))) for n, it in enumerate(told, 1)]
    return {family.name: family for family in text_string_to_metric_families(metrics(workers))}


def value(told: Metrics, name: str, **labels: str) -> float | None:
    return told.registry.get_sample_value(f"{PREFIX}_{name}", labels)


async def filled() -> Metrics:
    """Every metric with a sample."""
    told = Metrics("1.2.3")
    told.distribution("frame_lateness_seconds", "x", Distribution())
    told.counted("frames_lost", "x", lambda: 1)
    record = CallRecord("id", agent="desk", duration_s=61, model_ready_after_s=0.4, interruptions=2)
    record.tool_uses = [ToolUse(1, "a", "invented", "{}")]
    record.usage = UsageTotals(audio_in_tokens=20, unpriced=1, priced_nano_usd=30_000_000)
    record.uplink_ms.add(0.004)
    await CallMetrics(told).ended(record)
    RecordCounts().show(told)
    return told


async def test_names_are_as_prometheus_wants_them() -> None:
    families = page_of(await filled())
    for name, family in families.items():
        words = name.removeprefix(f"{PREFIX}_").split("_")
        assert re.fullmatch(r"[a-z][a-z0-9_]*", name)
        assert family.documentation.endswith(".") or name.startswith("process_") or family.documentation == "x"
        assert not NO_UNITS & set(words), name
        assert not set(UNITS) & set(words[:-1]), f"{name}: the unit stands at the end"
        assert family.type in ("counter", "gauge", "histogram"), name
        for sample in family.samples:
            assert sample.labels["worker"] == "1"
            assert (family.type == "counter") == sample.name.endswith("_total"), sample.name
            assert set(sample.labels) <= {
                "worker", "agent", "reason", "failed", "span", "tool", "outcome", "kind", "le", "version", "python",
            }  # fmt: skip
        if family.type == "histogram":
            assert words[-1] in UNITS, name


async def test_each_metric_stands_once_whatever_workers_there_are() -> None:
    text = metrics([WorkerHealth(n, Report(pid=n, families=list((await filled()).families()))) for n in (1, 2)])
    names = re.findall(r"(?m)^# TYPE (\w+)", text)
    assert len(names) == len(set(names))
    assert {s.labels["worker"] for s in page_of(await filled(), await filled())[f"{PREFIX}_tokens"].samples} == {
        "1", "2",
    }  # fmt: skip


async def test_a_record_becomes_figures() -> None:
    told = await filled()
    assert value(told, "tokens_total", agent="desk", kind="audio_in") == 20
    assert value(told, "cost_dollars_total", agent="desk") == pytest.approx(0.03)
    assert value(told, "cost_unpriced_total", agent="desk") == 1
    assert value(told, "interruptions_total", agent="desk") == 2
    assert value(told, "tool_calls_total", tool=UNDECLARED, outcome="unanswered") == 1
    assert value(told, "call_duration_seconds_bucket", le="60.0") == 0
    assert value(told, "call_duration_seconds_bucket", le="120.0") == 1
    assert value(told, "uplink_latency_seconds_bucket", le="0.005") == 1


async def test_whoever_declares_tools_without_end_makes_no_labels_without_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(call_metrics, "MOST_TOOLS", 2)
    registry = Metrics("1.2.3")
    watcher = CallMetrics(registry)
    for name in ("a", "b", "c", "a"):
        watcher._tools["1"] = frozenset({name})
        await watcher.ended(CallRecord(call_id="1", duration_s=1.0, tool_uses=[ToolUse(0.0, "t", name, "{}")]))
    told = registry
    assert value(told, "tool_calls_total", tool="a", outcome="unanswered") == 2
    assert value(told, "tool_calls_total", tool=UNDECLARED, outcome="unanswered") == 1


def test_all_frames_are_in_the_distribution_and_lost_ones_apart() -> None:
    lateness = Lateness(10)
    lateness.note(3, 0.0004, 1.0)
    lateness.note(2, 0.012, 1.1)
    lateness.note(4, float("inf"), 1.2)
    buckets = dict(lateness.sent.buckets())
    assert (buckets["0.001"], buckets["0.01"], buckets["0.02"], buckets["+Inf"]) == (3, 3, 5, 5)
    assert lateness.lost == 4
    assert lateness.sent.sum_s == pytest.approx(0.0252)


async def latest(stream: trio.abc.ReceiveStream) -> Report:
    """The newest report with metrics of those that have come."""
    found, receiver = Report(pid=0), Receiver(stream, Report)
    with trio.move_on_after(0.01):
        while (report := await receiver.receive()) is not None:
            found = report if report.families is not None else found
    return found


async def test_whole_calls_are_counted_and_reported(autojump_clock: MockClock) -> None:
    ours, theirs = memory_stream_pair()
    async with house(Script.of(*[Say("Hello")] * 3), supervisor=theirs) as it:
        channel, _ = await it.stasis_call()
        await it.hears_of("turn")
        await it.model.session.drop()
        await it.hears_of("session_resumed")
        await trio.sleep(6)
        page = metrics([WorkerHealth(1, await latest(ours))])
        early = {
            s.labels["kind"]: s.value
            for family in text_string_to_metric_families(page)
            for s in family.samples
            if family.name == f"{PREFIX}_tokens"
        }
        channel.hang_up()
        record = await it.ended()
        receiver, families = Receiver(ours, Report), None
        while families is None or not any(s.value for s in families[f"{PREFIX}_calls_ended"].samples):
            report = await receiver.receive()
            assert report is not None
            if report.families is not None:
                page = metrics([WorkerHealth(1, report)])
                families = {family.name: family for family in text_string_to_metric_families(page)}
        await ours.send_all(msgspec.json.encode({"order": "drain"}) + b"\n")
    ended = {s.labels["reason"]: s.value for s in families[f"{PREFIX}_calls_ended"].samples}
    assert ended == {"caller_hung_up": 1, "internal_error": 0}, "what an alert watches is there before it happens"
    spent = {s.labels["kind"]: s.value for s in families[f"{PREFIX}_tokens"].samples}
    assert spent["audio_out"] == record["usage"]["audio_out_tokens"], (
        "counted once, though told in mid-call and at the end"
    )
    assert early["audio_out"] == spent["audio_out"]
    [resumed] = families[f"{PREFIX}_model_reconnects"].samples
    assert resumed.value == 1
    counts = {s.name: s.value for s in families[f"{PREFIX}_prompted_latency_seconds"].samples if "le" not in s.labels}
    assert counts[f"{PREFIX}_prompted_latency_seconds_count"] == 1
    assert any(s.value > 0 for s in families["process_resident_memory_bytes"].samples)


async def test_a_process_that_writes_its_own_page_lets_others_run_in_between() -> None:
    told = await filled()
    runs = 0

    async def clock() -> None:
        nonlocal runs
        while True:
            await trio.lowlevel.checkpoint()
            runs += 1

    async def get(path: str) -> str:
        async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
            await stream.send_all(f"GET {path} HTTP/1.1\r\nHost: here\r\n\r\n".encode())
            return b"".join([data async for data in stream]).decode().partition("\r\n\r\n")[2]

    async with trio.open_nursery() as nursery:
        alone = WorkerHealth(1, Report(pid=1), families=told.families())
        port = await nursery.start(serve_health, "127.0.0.1:0", lambda: [alone])
        assert await get("/healthz") == "ok\n"
        nursery.start_soon(clock)
        text = await get("/metrics")
        nursery.cancel_scope.cancel()
    expected = metrics([WorkerHealth(1, Report(pid=1, families=list(told.families())))])
    assert text == expected, "a probe has collected nothing"
    assert runs > text.count("# TYPE")
