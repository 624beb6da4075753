"""Calls as OpenTelemetry traces: one a call, to a collector by OTLP over HTTP. Imported only where `tracing.enabled`.

Spans are ended with the times of the call's own events, so whatever else the process does at that moment is not in them.
The SDK's batch processor queues them (2,048; what comes when it is full is dropped and told in the log) and its thread
sends them: the event loop never waits for the collector, and a call costs the same whether that answers or not.

The standard environment is honoured by the SDK: `OTEL_EXPORTER_OTLP_(TRACES_)ENDPOINT`, `_HEADERS`, `_TIMEOUT`,
`_CERTIFICATE`, `_COMPRESSION`, `OTEL_SERVICE_NAME`, `OTEL_RESOURCE_ATTRIBUTES`, `OTEL_TRACES_SAMPLER(_ARG)`, `OTEL_BSP_*`,
`OTEL_SDK_DISABLED`. What is set in `[tracing]` comes first.
"""

from __future__ import annotations

import logging
import os
import time

import trio
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_NAME, Resource
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased
from opentelemetry.trace import Span as OtelSpan
from opentelemetry.trace import SpanKind, Status, StatusCode, Tracer, set_span_in_context

from bridge import __version__
from bridge.call_events import CallEvent
from bridge.call_record import CallRecord
from bridge.call_recording import InThread, in_thread
from bridge.call_trace import WORDS, CallTrace, Span
from bridge.config import Tracing
from bridge.live_call import LiveCall

_log = logging.getLogger("bridge.tracing")

# To send what is queued when the process ends.
FLUSH_S = 3.0
_DEFAULT_NAME = "realtime-bridge"


def exporter_of(settings: Tracing) -> SpanProcessor:
    """What sends spans to the collector, from a thread of its own."""
    exporter = OTLPSpanExporter(endpoint=settings.endpoint or None, headers=dict(settings.headers) or None)
    return BatchSpanProcessor(exporter)


class CallTracing:
    """A `CallWatcher`. `processor`: where spans go; tests give one of their own."""

    def __init__(
        self,
        settings: Tracing,
        *,
        worker: int = 0,
        processor: SpanProcessor | None = None,
        run_blocking: InThread = in_thread,
    ) -> None:
        named = settings.service_name or os.environ.get("OTEL_SERVICE_NAME") or _DEFAULT_NAME
        about = {SERVICE_NAME: named, "service.version": __version__}
        if worker:
            about["service.instance.id"] = str(worker)
        sampler = None if settings.sample_ratio >= 1 else ParentBased(TraceIdRatioBased(settings.sample_ratio))
        # Not at exit: that would wait for a collector that is away.
        self._provider = TracerProvider(sampler=sampler, resource=Resource.create(about), shutdown_on_exit=False)
        self._provider.add_span_processor(processor or exporter_of(settings))
        self._tracer: Tracer = self._provider.get_tracer("bridge", __version__)
        self._run_blocking = run_blocking
        self._calls: dict[str, tuple[OtelSpan, CallTrace]] = {}

    async def run(self, task_status: trio.TaskStatus[None]) -> None:
        task_status.started()
        try:
            await trio.sleep_forever()
        finally:
            with trio.move_on_after(FLUSH_S, shield=True) as bound:
                await self._run_blocking(self._provider.shutdown)
            if bound.cancelled_caught:
                _log.warning("the last spans were not sent within %g s", FLUSH_S)

    def begins(self, call: LiveCall) -> None:
        root = self._tracer.start_span("call", kind=SpanKind.SERVER, start_time=time.time_ns())
        trace = CallTrace(call.tool_names)
        self._calls[call.call_id] = root, trace
        if root.is_recording():

            def heard(event: CallEvent) -> None:
                for span in trace.heard(event.type, event.event, event.at_unix_s):
                    self._tell(root, span)

            call.listen(WORDS, heard, wire=False)

    async def ended(self, record: CallRecord) -> None:
        await trio.lowlevel.checkpoint()
        root, trace = self._calls.pop(record.call_id, (None, CallTrace()))
        if root is None:  # it was turned away, or its media never came
            root = self._tracer.start_span("call", kind=SpanKind.SERVER, start_time=_ns(record.began_unix_s))
        if root.is_recording():
            for span in trace.ended(record):
                self._tell(root, span)
            root.set_attributes(trace.of_call(record))
            if record.error is not None:
                root.set_status(Status(StatusCode.ERROR, record.reason))
        root.end(_ns(record.began_unix_s + record.duration_s))

    def _tell(self, parent: OtelSpan, span: Span) -> None:
        told = self._tracer.start_span(
            span.name,
            set_span_in_context(parent),
            kind=SpanKind.INTERNAL,
            attributes=span.attributes,
            start_time=_ns(span.began_s),
        )
        for part in span.parts:
            self._tell(told, part)
        if span.trouble:
            told.set_status(Status(StatusCode.ERROR, span.trouble))
        told.end(_ns(span.ended_s))


def _ns(seconds: float) -> int:
    return round(seconds * 1e9)
