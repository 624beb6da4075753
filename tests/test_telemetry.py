"""What is told: figures of bounded size, one record a call, logs without secrets."""

from __future__ import annotations

import json
import logging
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from bridge.telemetry import CallRecord, ConsoleFormatter, JsonFormatter, Latencies, call_id_of_context


@given(st.lists(st.floats(0, 2), min_size=1, max_size=200), st.sampled_from([50, 99]))
def test_percentiles_are_within_one_bucket(values: list[float], percent: int) -> None:
    latencies = Latencies()
    for value in values:
        latencies.add(value)
    exact = sorted(values)[max(0, -(-len(values) * percent // 100) - 1)] * 1000
    measured = latencies.percentile_ms(percent)
    # Beyond one second everything shares the last bucket.
    assert min(exact, 1000) - 0.26 <= measured <= min(exact, 1000.25) + 0.26
    assert abs(latencies.summary()["max_ms"] - max(values) * 1000) < 0.01


def test_nothing_measured_is_zero() -> None:
    assert Latencies().summary() == {"count": 0, "p50_ms": 0.0, "p99_ms": 0.0, "max_ms": 0.0}


def test_the_record_is_plain_json() -> None:
    record = CallRecord(call_id="c", agent="default")
    record.uplink_ms.add(0.001)
    facts = json.loads(json.dumps(record.facts()))
    assert facts["uplink_ms"]["count"] == 1
    assert facts["reason"] == ""


def line(formatter: logging.Formatter, **extra: Any) -> str:
    record = logging.LogRecord("bridge.call", logging.INFO, "f", 1, "agent_said", None, None)
    record.__dict__.update(extra)
    return formatter.format(record)


def test_json_lines_carry_call_and_facts() -> None:
    told = json.loads(line(JsonFormatter(), call_id="abc", facts={"text": 'with "quotes"\nand lines', "ms": 5}))
    assert (told["event"], told["call_id"], told["text"], told["ms"]) == (
        "agent_said", "abc", 'with "quotes"\nand lines', 5,
    )  # fmt: skip


def test_console_lines_are_short() -> None:
    text = line(ConsoleFormatter(), call_id="0123456789", facts={"text": "two words", "none": None, "ms": 5})
    assert text.endswith("info    [01234567] agent_said text='two words' ms=5")


def test_the_call_id_belongs_to_the_task() -> None:
    assert call_id_of_context.get() == ""
