"""Turns taken apart: who made the caller wait, also where the server is late, silent about it, or out of order."""

from __future__ import annotations

import math
from array import array
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bridge.latency import SPANS, CallLatency, Latencies, Stage, TurnClock, TurnSpans
from simulators.turn_detector import TurnDetector


def played(*events: tuple[Any, ...], silence_ms: int | None = None) -> list[TurnSpans]:
    """The spans that come of (ms, event, *arguments)."""
    clock, answered = TurnClock(silence_ms=silence_ms), []
    for at_ms, event, *arguments in events:
        # Arguments that a method takes before `now` are the ids of tools.
        ids = [it for it in arguments if isinstance(it, str)]
        rest = [it for it in arguments if not isinstance(it, str)]
        if spans := getattr(clock, event)(*ids, at_ms / 1000, *rest):
            answered.append(spans)
    return answered


def one(*events: tuple[Any, ...], silence_ms: int | None = None) -> dict[str, object]:
    (spans,) = played(*events, silence_ms=silence_ms)
    return spans.facts()


STOPPED, COMMITTED, CREATED = "speech_stopped", "committed", "response_created"
DELTA, FRAME = "first_delta", "first_frame"
STARTED, FINISHED = "tool_started", "tool_finished"


@pytest.mark.parametrize(
    ("events", "facts"),
    [
        pytest.param(
            [(1000, STOPPED), (1010, COMMITTED), (1040, CREATED), (1440, DELTA), (1460, FRAME)],
            {"began": "speech_stopped", "commit_ms": 10.0, "create_ms": 30.0, "model_ms": 400.0, "bridge_ms": 20.0,
             "total_ms": 460.0},
            id="a turn",
        ),
        pytest.param(
            [(1000, "prompted"), (1050, CREATED), (1500, DELTA), (1510, FRAME)],
            {"began": "prompted", "create_ms": 50.0, "model_ms": 450.0, "bridge_ms": 10.0, "total_ms": 510.0},
            id="a greeting",
        ),
        pytest.param(
            [(1000, STOPPED), (1500, DELTA), (1520, FRAME)],
            {"began": "speech_stopped", "model_ms": 500.0, "bridge_ms": 20.0, "total_ms": 520.0},
            id="a clone that tells neither commit nor response",
        ),
        pytest.param(
            [(1000, COMMITTED), (1010, CREATED), (1500, DELTA), (1520, FRAME)],
            {"began": "committed", "create_ms": 10.0, "model_ms": 490.0, "bridge_ms": 20.0, "total_ms": 520.0},
            id="push to talk",
        ),
        pytest.param(
            [(1000, CREATED), (1500, DELTA), (1520, FRAME)],
            {"began": "created", "model_ms": 500.0, "bridge_ms": 20.0, "total_ms": 520.0},
            id="a server that tells nothing of the caller",
        ),
        pytest.param(
            [(1000, COMMITTED), (1005, STOPPED), (1040, CREATED), (1440, DELTA), (1460, FRAME)],
            {"began": "speech_stopped", "commit_ms": 0.0, "create_ms": 40.0, "model_ms": 400.0, "bridge_ms": 20.0,
             "total_ms": 460.0},
            id="committed before speech_stopped",
        ),
        pytest.param(
            [(1000, STOPPED), (1040, CREATED), (4000, COMMITTED), (4440, DELTA), (4460, FRAME)],
            {"began": "speech_stopped", "commit_ms": 40.0, "create_ms": 0.0, "model_ms": 3400.0, "bridge_ms": 20.0,
             "total_ms": 3460.0},
            id="committed long after the response",
        ),
        pytest.param(
            [(1000, STOPPED), (1440, DELTA), (1445, CREATED), (1450, DELTA), (1460, FRAME)],
            {"began": "speech_stopped", "create_ms": 440.0, "model_ms": 0.0, "bridge_ms": 20.0, "total_ms": 460.0},
            id="response.created after its audio",
        ),
        pytest.param(
            [(1000, STOPPED), (1100, CREATED), (2100, CREATED), (2500, DELTA), (2520, FRAME)],
            {"began": "speech_stopped", "create_ms": 100.0, "model_ms": 1400.0, "bridge_ms": 20.0, "total_ms": 1520.0},
            id="a failed response and its second try",
        ),
        pytest.param(
            [(1000, STOPPED), (1100, CREATED), (1300, STARTED, "a"), (2300, FINISHED, "a"), (2320, CREATED),
             (2700, DELTA), (2720, FRAME)],
            {"began": "speech_stopped", "create_ms": 100.0, "model_ms": 600.0, "tools_ms": 1000.0, "bridge_ms": 20.0,
             "total_ms": 1720.0},
            id="a tool",
        ),
        pytest.param(
            [(0, STOPPED), (100, CREATED), (200, STARTED, "a"), (300, STARTED, "b"), (600, FINISHED, "a"),
             (700, FINISHED, "b"), (800, CREATED), (900, STARTED, "c"), (1000, FINISHED, "c"), (1100, CREATED),
             (1200, DELTA), (1220, FRAME)],
            {"began": "speech_stopped", "create_ms": 100.0, "model_ms": 500.0, "tools_ms": 600.0, "bridge_ms": 20.0,
             "total_ms": 1220.0},
            id="two tools at once, then a third",
        ),
        pytest.param(
            [(0, STOPPED), (100, CREATED), (200, STARTED, "a"), (400, DELTA), (420, FRAME), (900, FINISHED, "a"),
             (950, CREATED), (1300, DELTA), (1320, FRAME)],
            {"began": "speech_stopped", "create_ms": 100.0, "model_ms": 100.0, "tools_ms": 200.0, "bridge_ms": 20.0,
             "total_ms": 420.0},
            id="a sound while the tool runs, and what follows is no new turn",
        ),
        pytest.param(
            [(0, STOPPED), (100, CREATED), (400, DELTA), (420, FRAME), (500, STARTED, "a"), (900, FINISHED, "a"),
             (950, CREATED), (1300, DELTA), (1320, FRAME)],
            {"began": "speech_stopped", "create_ms": 100.0, "model_ms": 300.0, "bridge_ms": 20.0, "total_ms": 420.0},
            id="let me see, then a tool",
        ),
        pytest.param(
            [(0, STOPPED), (100, CREATED), (200, STARTED, "a"), (500, "interrupted"), (1000, STOPPED), (1100, CREATED),
             (1200, FINISHED, "a"), (1400, DELTA), (1420, FRAME)],
            {"began": "speech_stopped", "create_ms": 100.0, "model_ms": 300.0, "bridge_ms": 20.0, "total_ms": 420.0},
            id="the tool of a turn that was given up",
        ),
        pytest.param(
            [(0, STOPPED), (20, COMMITTED), (300, "interrupted"), (1000, STOPPED), (1100, CREATED), (1400, DELTA),
             (1420, FRAME)],
            {"began": "speech_stopped", "create_ms": 100.0, "model_ms": 300.0, "bridge_ms": 20.0, "total_ms": 420.0},
            id="the caller goes on speaking",
        ),
        pytest.param(
            [(0, STOPPED), (20, COMMITTED), (1000, STOPPED), (1100, CREATED), (1400, DELTA), (1420, FRAME)],
            {"began": "speech_stopped", "create_ms": 100.0, "model_ms": 300.0, "bridge_ms": 20.0, "total_ms": 420.0},
            id="a second end of speech, and nobody told of its start",
        ),
        pytest.param(
            [(0, "prompted"), (100, CREATED), (5000, STOPPED), (5100, CREATED), (5400, DELTA), (5420, FRAME)],
            {"began": "speech_stopped", "create_ms": 100.0, "model_ms": 300.0, "bridge_ms": 20.0, "total_ms": 420.0},
            id="a greeting that never came",
        ),
        pytest.param(
            [(0, "prompted"), (900, STOPPED), (1000, CREATED), (1300, DELTA), (1320, FRAME)],
            {"began": "speech_stopped", "create_ms": 100.0, "model_ms": 300.0, "bridge_ms": 20.0, "total_ms": 420.0},
            id="the caller speaks before the greeting has begun",
        ),
        pytest.param(
            [(0, STOPPED), (50, STARTED, "a"), (650, FINISHED, "a"), (700, CREATED), (1000, DELTA), (1020, FRAME)],
            {"began": "speech_stopped", "create_ms": 700.0, "model_ms": 0.0, "tools_ms": 300.0, "bridge_ms": 20.0,
             "total_ms": 1020.0},
            id="a tool before any response",
        ),
        pytest.param(
            [(0, COMMITTED), (30_000, STOPPED), (30_100, CREATED), (30_400, DELTA), (30_420, FRAME)],
            {"began": "speech_stopped", "create_ms": 100.0, "model_ms": 300.0, "bridge_ms": 20.0, "total_ms": 420.0},
            id="a commit that brought nothing",
        ),
    ],
)  # fmt: skip
def test_spans_of_one_turn(events: list[tuple[Any, ...]], facts: dict[str, object]) -> None:
    assert one(*events) == facts


ANSWER = [(2000, COMMITTED), (2000, CREATED), (2300, DELTA), (2320, FRAME)]


@pytest.mark.parametrize(
    ("silence_ms", "audio_end_ms", "appended_ms", "vad_ms"),
    [
        (500, 8000, 8000, 500.0),
        # 40 ms lay on the way when the server decided.
        (500, 8000, 8040, 540.0),
        (200, 8000, 8040, 240.0),
        # Rounded up by the server: still ours.
        (500, 8000, 7980, 500.0),
        # Another clock: wall time, or the session before.
        (500, 8000, 1000, None),
        (500, 8000, 60_000, None),
        (500, None, 8000, None),
        (500, 8000, None, None),
        # Semantic VAD: nobody knows how long it waited.
        (None, 8000, 8040, None),
    ],
)
def test_the_end_of_speech_is_found_on_the_clock_of_the_appended_audio(
    silence_ms: int | None, audio_end_ms: int | None, appended_ms: int | None, vad_ms: float | None
) -> None:
    told = one((2000, STOPPED, audio_end_ms, appended_ms), *ANSWER, silence_ms=silence_ms)
    assert told.get("vad_ms") == vad_ms
    assert told["total_ms"] == 320.0 + (vad_ms or 0)
    assert told["began"] == ("speech_end" if vad_ms else "speech_stopped")


@pytest.mark.parametrize("silence_ms", [200, 500])
def test_the_end_of_speech_agrees_with_the_simulated_vad(silence_ms: int) -> None:
    """Against our own simulator only, which was built from the same sheet."""
    detector, clock = TurnDetector(), TurnClock(silence_ms=silence_ms)
    settings = {"type": "server_vad", "silence_duration_ms": silence_ms}
    loud = array("h", (round(9000 * math.sin(n / 5)) for n in range(480))).tobytes()
    appended_ms, network_s, spans = 0, 0.080, None
    for frame in range(100):
        # Half a second of speech; what is appended at `now` is in the server's hands `network_s` later.
        appended_ms += 20
        for started, at_ms in detector.feed(loud if frame < 25 else bytes(960), settings):
            if not started:
                now = appended_ms / 1000 + network_s
                clock.speech_stopped(now, at_ms, appended_ms + round(network_s * 1000))
                clock.first_delta(now)
                spans = clock.first_frame(now)
    assert spans is not None
    assert spans.vad_ms == silence_ms + 80


def test_each_turn_is_told_once_and_only_with_an_answer() -> None:
    turn = [(0, STOPPED), (100, CREATED), (400, DELTA), (420, FRAME)]
    assert len(played(*turn, (440, FRAME), (450, DELTA), (460, FRAME))) == 1
    assert played((0, FRAME), (10, DELTA), (20, FRAME)) == []
    assert played((0, STOPPED), (100, CREATED), (200, FRAME)) == []
    again = [(ms + 5000, *rest) for ms, *rest in turn]
    assert played(*turn, *again) == played(*turn) * 2


def test_what_follows_a_tool_is_no_turn_but_the_next_prompt_is() -> None:
    spans = played(
        (0, STOPPED), (100, CREATED), (400, DELTA), (420, FRAME), (500, STARTED, "a"), (600, FINISHED, "a"),
        (700, CREATED), (800, DELTA), (820, FRAME), (9000, "prompted"), (9100, CREATED), (9200, DELTA), (9210, FRAME),
    )  # fmt: skip
    assert [it.began for it in spans] == [Stage.SPEECH_STOPPED, Stage.PROMPTED]


_EVENTS = st.sampled_from(
    [STOPPED, COMMITTED, CREATED, DELTA, FRAME, "prompted", "interrupted", "started", "finished"]
)


@settings(deadline=None)  # a busy machine is no failure
@given(
    st.lists(st.tuples(_EVENTS, st.integers(0, 3000), st.sampled_from(["a", "b"]), st.integers(-500, 20_000))),
    st.sampled_from([None, 0, 500]),
)
def test_no_order_of_events_raises_and_spans_always_add_up(
    events: list[tuple[str, int, str, int]], silence_ms: int | None
) -> None:
    clock, now = TurnClock(silence_ms=silence_ms), 0.0
    for event, wait_ms, call_id, behind_ms in events:
        now += wait_ms / 1000
        if event in ("started", "finished"):
            getattr(clock, f"tool_{event}")(call_id, now)
        elif event == STOPPED:
            clock.speech_stopped(now, 50_000, 50_000 + behind_ms)
        elif spans := getattr(clock, event)(now):
            measured = spans.measured()
            assert min(measured.values()) >= 0
            parts = [value for name, value in measured.items() if name != "total_ms"]
            assert sum(parts) == pytest.approx(spans.total_ms, abs=0.4)  # each is rounded to 0.1


def test_a_calls_turns_in_sum() -> None:
    latency = CallLatency()
    for ms in range(1, 101):
        latency.add(TurnSpans(began=Stage.SPEECH_STOPPED, model_ms=float(10 * ms), total_ms=float(20 * ms)))
    latency.add(TurnSpans(began=Stage.PROMPTED, model_ms=7777.0, total_ms=8888.0))
    summary = latency.summary()
    assert list(summary) == ["model_ms", "total_ms", "prompted_ms"]
    assert summary["model_ms"] == {"count": 100, "p50_ms": 501.0, "p95_ms": 951.0, "max_ms": 1000.0}
    # Two seconds are no longer than they are.
    assert summary["total_ms"] == {"count": 100, "p50_ms": 1001.0, "p95_ms": 1901.0, "max_ms": 2000.0}
    assert summary["prompted_ms"] == {"count": 1, "p50_ms": 8888.0, "p95_ms": 8888.0, "max_ms": 8888.0}


def test_nothing_measured_is_nothing_told() -> None:
    assert CallLatency().summary() == {}


def test_every_span_is_a_field() -> None:
    assert set(SPANS) == set(TurnSpans.__dataclass_fields__) - {"began"}


@settings(deadline=None)  # a busy machine is no failure
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
