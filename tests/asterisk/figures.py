"""What the ring measured, kept for the table at its end (`conftest.py` prints it)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from statistics import median
from typing import Any

SET_UP = "set-up: StasisStart to first audible reply, without the model's time"
BRIDGED_WEBSOCKET = "StasisStart to bridged media, requests on the websocket"
BRIDGED_HTTP = "the same, requests by HTTP"
BRIDGED_HTTP_FIRST = "the same, requests by HTTP, the first call"
ANSWER = "answered after the media came"
UPLINK_P50 = "caller to model, added by the bridge: p50 of a call"
UPLINK_P99 = "caller to model, added by the bridge: p99 of a call"
REPLY = "model to caller, added by the bridge: first delta to first frame"
LATENESS = "20 ms frames late by: p99 of a call"
BARGE_IN = "barge-in: speech_started to the last sample of the reply"
TRUNCATE = "barge-in: audio_end_ms less what the recording holds"
HANG_UP = "last sample of the goodbye to the end of the line"
RESUMED = "model lost: session_lost to session_resumed, without the model's time"
CUT = "model lost in mid-reply: silence in the line, without the model's time"
SWAP = "rollover: silence before the answer, more than at the turn before"
SWAP_GAP = "rollover in mid-reply: longest gap in the recorded reply"
JITTER = "RTP to a SIP telephone: most delayed packet behind the least delayed one"
WAITS = "a silent model: silence until the bridge's own sound, above limits.caller_waits_s"

_ORDER = (
    SET_UP,
    BRIDGED_WEBSOCKET,
    BRIDGED_HTTP,
    BRIDGED_HTTP_FIRST,
    ANSWER,
    UPLINK_P50,
    UPLINK_P99,
    REPLY,
    LATENESS,
    BARGE_IN,
    TRUNCATE,
    HANG_UP,
    RESUMED,
    CUT,
    SWAP,
    SWAP_GAP,
    WAITS,
    JITTER,
)
_ENOUGH = 100
_FORMATS = ("slin", "slin16", "slin24")
_noted: dict[tuple[str, str], list[float]] = defaultdict(list)


def note(measure: str, media_format: str, ms: float) -> None:
    """Keep one measured value."""
    _noted[measure, media_format].append(ms)


def note_record(record: Mapping[str, Any]) -> None:
    """Keep what the record of a call says about latencies."""
    media_format = record["media_format"]
    if record["answered_after_s"] is not None and record["caller"]:
        note(ANSWER, media_format, record["answered_after_s"] * 1000)
    # The p99 of a short call is its one worst frame.
    if record["uplink_ms"]["count"] >= _ENOUGH:
        note(UPLINK_P50, media_format, record["uplink_ms"]["p50_ms"])
        note(UPLINK_P99, media_format, record["uplink_ms"]["p99_ms"])
    if record["frame_lateness_ms"]["count"] >= _ENOUGH:
        note(LATENESS, media_format, record["frame_lateness_ms"]["p99_ms"])


def table() -> list[str]:
    """Lines: measure, and for each format median, worst (farthest from zero) and number of values."""
    width = max(len(measure) for measure in _ORDER)
    lines = [f"{'ms: median / worst (calls)':{width}}" + "".join(f"{name:>22}" for name in _FORMATS)]
    for measure in _ORDER:
        cells = []
        for media_format in _FORMATS:
            values = _noted.get((measure, media_format), [])
            cells.append(f"{median(values):.1f} / {max(values, key=abs):.1f} ({len(values)})" if values else "-")
        lines.append(f"{measure:{width}}" + "".join(f"{cell:>22}" for cell in cells))
    return lines if _noted else []
