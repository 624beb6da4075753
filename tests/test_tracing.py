"""One trace a call: its spans, what they tell and what they must not, and their way to a collector."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import TypeVar

import pytest
import trio
from house import FAST, house
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from talking import voice
from trio.testing import MockClock

from bridge import tracing
from bridge.call_record import CallRecord
from bridge.call_trace import CallTrace
from bridge.config import Tracing, load_config
from bridge.errors import ConfigError
from bridge.tools import ToolRegistry
from bridge.tracing import CallTracing
from simulators.model_script import Call, Say, Script

_T = TypeVar("_T")


async def at_once(function: Callable[[], _T]) -> _T:
    await trio.lowlevel.checkpoint()
    return function()


def in_memory(settings: Tracing = Tracing()) -> tuple[CallTracing, InMemorySpanExporter]:  # noqa: B008 - frozen
    spans = InMemorySpanExporter()
    return CallTracing(settings, processor=SimpleSpanProcessor(spans), run_blocking=at_once), spans


def test_a_turn_comes_apart_as_its_latency_does() -> None:
    facts = {
        "began": "speech_end", "vad_ms": 500.0, "commit_ms": 10.0, "create_ms": 20.0,
        "model_ms": 300.0, "tools_ms": 100.0, "bridge_ms": 5.0, "total_ms": 935.0,
    }  # fmt: skip
    [turn] = CallTrace().heard("turn", facts, 1000.0)
    assert turn.name == "turn"
    assert turn.ended_s - turn.began_s == pytest.approx(0.935)
    assert [part.name for part in turn.parts] == ["vad", "commit", "create", "tools", "model", "bridge"]
    assert turn.parts[0].began_s == turn.began_s
    assert turn.parts[-1].ended_s == pytest.approx(turn.ended_s)


def test_a_transfer_lasts_to_its_failure_or_to_the_end() -> None:
    trace = CallTrace(frozenset({"transfer_call"}))
    called = {"name": "transfer_call", "tool_call_id": "a"}
    assert list(trace.heard("tool.called", called, 1.0)) == []
    [failed] = trace.heard("transfer_refused", {"message": "+4930123456 is not registered"}, 3.0)
    assert (failed.name, failed.began_s, failed.ended_s, failed.trouble) == ("transfer", 1.0, 3.0, "transfer_refused")
    assert list(trace.heard("tool.called", called | {"tool_call_id": "b"}, 5.0)) == []
    record = CallRecord("id", began_unix_s=0.0, duration_s=9.0, reason="transferred", model_ready_after_s=0.5)
    told = {span.name: span for span in trace.ended(record)}
    assert (told["transfer"].ended_s, told["transfer"].trouble) == (9.0, "")


def test_what_is_open_is_bounded_and_closed_at_the_end() -> None:
    trace = CallTrace()
    for number in range(200):
        assert list(trace.heard("tool.called", {"name": f"made_up_{number}", "tool_call_id": str(number)}, 1.0)) == []
    spans = list(trace.ended(CallRecord("id", duration_s=2.0)))
    assert 50 < len(spans) < 100
    assert {span.name for span in spans} == {"execute_tool undeclared", "model.connect"}
    assert all(span.trouble for span in spans)


async def test_a_whole_call_is_one_trace_without_a_word_of_it(autojump_clock: MockClock) -> None:
    tools = ToolRegistry()

    @tools.add
    async def order_status(number: str) -> str:
        """The status of an order."""
        await trio.sleep(0.3)
        return "secret-output"

    watcher, exporter = in_memory()
    script = Script.of(
        Say("secret-greeting"),
        Call("order_status", {"number": "secret-argument"}),
        Say("secret-answer", pace=FAST),
        transcripts=["secret-question"],
    )
    async with house(script, tools=tools, watchers=[watcher]) as it:
        channel, caller = await it.stasis_call(caller=("secret-caller", "Alice"))
        await it.hears_of("agent_stops")
        caller.say(voice(800))
        await it.hears_of("turn", 2)
        await trio.sleep(1)
        await it.model.session.drop()
        await it.hears_of("session_resumed")
        channel.hang_up()
        record = await it.ended()
    spans = {span.name: span for span in exporter.get_finished_spans()}
    root = spans["call"]
    assert {
        "call",
        "model.connect",
        "answer",
        "greeting",
        "turn",
        "execute_tool order_status",
        "model.reopen",
    } <= set(spans)
    assert root.context is not None
    assert {span.context.trace_id for span in spans.values() if span.context} == {root.context.trace_id}
    for name, span in spans.items():
        if name not in ("call", "vad", "commit", "create", "tools", "model", "bridge"):
            assert span.parent is not None, name
            assert span.parent.span_id == root.context.span_id
    turn = spans["turn"]
    assert turn.context is not None
    assert spans["tools"].parent is not None
    assert spans["tools"].parent.span_id == turn.context.span_id
    assert lasted_s(spans["execute_tool order_status"]) == pytest.approx(0.3, abs=0.05)
    assert lasted_s(root) == pytest.approx(record["duration_s"], abs=1)
    assert root.attributes is not None
    assert root.attributes["realtime_bridge.reason"] == "caller_hung_up"
    assert "secret" not in "".join(span.to_json() for span in exporter.get_finished_spans())


def lasted_s(span: ReadableSpan) -> float:
    assert span.end_time is not None
    assert span.start_time is not None
    return (span.end_time - span.start_time) / 1e9


async def test_a_call_that_was_turned_away_has_its_trace_and_a_sampled_share_is_whole() -> None:
    watcher, exporter = in_memory()
    await watcher.ended(
        CallRecord("id", began_unix_s=5.0, reason="refused_busy", error={"code": None, "message": "x"})
    )
    [span] = exporter.get_finished_spans()
    assert (span.name, span.status.description) == ("call", "refused_busy")
    watcher, exporter = in_memory(Tracing(sample_ratio=0.5))
    for number in range(200):
        record = CallRecord(str(number), began_unix_s=5.0, duration_s=1.0, model_ready_after_s=0.5)
        await watcher.ended(record)
    spans = exporter.get_finished_spans()
    assert 60 < sum(span.name == "call" for span in spans) < 140
    assert sum(span.name == "call" for span in spans) * 2 == len(spans)


class _Sink(HTTPServer):
    """A collector: keeps what it was sent."""

    got: list[tuple[str, dict[str, str], bytes]]


class _Handler(BaseHTTPRequestHandler):
    server: _Sink

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.got.append((self.path, dict(self.headers), body))
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def sink() -> Iterator[_Sink]:
    server = _Sink(("127.0.0.1", 0), _Handler)
    server.got = []
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


async def test_spans_reach_a_collector_when_the_process_ends() -> None:
    with sink() as server:
        endpoint = f"http://127.0.0.1:{server.server_port}/v1/traces"
        watcher = CallTracing(Tracing(endpoint=endpoint, headers={"authorization": "Bearer x"}), worker=2)
        async with trio.open_nursery() as nursery:
            await nursery.start(watcher.run)
            await watcher.ended(CallRecord("id", began_unix_s=5.0, duration_s=1.0, model_ready_after_s=0.2))
            nursery.cancel_scope.cancel()
    [(path, headers, body)] = server.got
    assert path == "/v1/traces"
    assert headers["authorization"] == "Bearer x"
    [told] = ExportTraceServiceRequest.FromString(body).resource_spans
    about = {it.key: it.value.string_value for it in told.resource.attributes}
    assert (about["service.name"], about["service.instance.id"]) == ("realtime-bridge", "2")
    assert {span.name for scope in told.scope_spans for span in scope.spans} == {"call", "model.connect"}


async def test_a_collector_that_is_away_costs_no_call_and_does_not_hold_up_the_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(tracing, "FLUSH_S", 0.1)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "1")  # for the thread that is left behind
    with sink() as server:
        port = server.server_port
    watcher = CallTracing(Tracing(endpoint=f"http://127.0.0.1:{port}/v1/traces"))
    began = trio.current_time()
    async with trio.open_nursery() as nursery:
        await nursery.start(watcher.run)
        for number in range(3000):  # more than the queue holds
            await watcher.ended(CallRecord(str(number), began_unix_s=5.0))
        nursery.cancel_scope.cancel()
    assert trio.current_time() - began < 3


def test_nothing_of_it_is_imported_when_it_is_off() -> None:
    program = (
        "import sys, bridge.server\n"
        "from bridge.config import load_config\nfrom bridge.metrics import Metrics\n"
        "from bridge.watchers import watchers_of\nfrom bridge.webhook_client import WebhookClient\n"
        "watchers_of(load_config('', {}), Metrics(), lambda function: None, WebhookClient())\n"
        "assert not [name for name in sys.modules if name.startswith('opentelemetry')]\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"tracing.endpoint": "http://user:pass@host/v1/traces"}, "without user, password or query"),
        ({"tracing.endpoint": "host:4318"}, "must be a URL like"),
        ({"tracing.sample_ratio": "0"}, "must be above 0"),
    ],
)
def test_settings_that_can_not_be(settings: dict[str, str], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        load_config("", {}, settings)


def test_headers_are_read_from_the_environment() -> None:
    config = load_config("[tracing]\nheaders = {authorization = '$TOKEN'}", {"TOKEN": "Bearer y"})
    assert config.tracing.headers == {"authorization": "Bearer y"}
