"""Kept calls as people read them: a table, a page, the lines of a spreadsheet. Times are those of this machine's zone."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from bridge.ending import EndReason
from bridge.errors import ConfigError
from bridge.kept_call import KeptCall, Row

_AGO = re.compile(r"(\d{1,6})([mhdw])")
TIMES = "2026-11-27, '2026-11-27 14:30', today, yesterday, or so long ago: 90m, 24h, 7d, 4w"
_UNITS_S = {"m": 60, "h": 3600, "d": 86_400, "w": 604_800}
# Enough to tell the calls of any table apart, and to type.
ID_CHARACTERS = 8
_MOST_CELL = 22
_LABEL = 11


# Times -----------------------------------------------------------------------------------------------------------------


def time_of(text: str, now_s: float, option: str) -> float:
    """Unix seconds of a time as people write it: `2026-11-27`, `2026-11-27 14:30`, `today`, `yesterday`, or so long ago:
    `90m`, `24h`, `7d`, `4w`. Raises `ConfigError`."""
    if ago := _AGO.fullmatch(text):
        return now_s - int(ago[1]) * _UNITS_S[ago[2]]
    midnight = datetime.fromtimestamp(now_s).replace(hour=0, minute=0, second=0, microsecond=0)
    if text in ("today", "yesterday"):
        return (midnight - timedelta(days=int(text == "yesterday"))).timestamp()
    try:
        return datetime.fromisoformat(text).timestamp()
    except ValueError:
        raise ConfigError(f"{option} {text}: must be like {TIMES}") from None


def _local(unix_s: float) -> datetime:
    return datetime.fromtimestamp(unix_s).astimezone()


def _clock(seconds: float, decimals: int = 0) -> str:
    """`1:32`, `1:02:05`; with decimals `0:04.2`."""
    tenths = round(seconds * 10**decimals)
    whole, rest = divmod(tenths, 10**decimals)
    minutes, second = divmod(whole, 60)
    hours, minute = divmod(minutes, 60)
    shown = f"{hours}:{minute:02}:{second:02}" if hours else f"{minute}:{second:02}"
    return f"{shown}.{rest:0{decimals}}" if decimals else shown


# For machines ----------------------------------------------------------------------------------------------------------


def plain(call: Row) -> Row:
    """A row of `calls` for JSON and spreadsheets: its time as ISO 8601 in UTC, without the facts, which repeat it."""
    began_at = datetime.fromtimestamp(call["began_at"], UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return {key: value for key, value in call.items() if key not in ("id", "facts")} | {"began_at": began_at}


def whole(call: KeptCall) -> Row:
    """Everything of a call, for JSON."""
    lists = {"turns": call.turns, "tool_calls": call.tool_calls, "latencies": call.latencies}
    return {**plain(call.call), **lists, "facts": call.call["facts"]}


def cells(call: Row) -> list[object]:
    """A line of a spreadsheet. A text that it would take for a formula is given an apostrophe; the + of a telephone number
    is none."""
    return [
        f"'{it}" if isinstance(it, str) and it.startswith(("=", "@", "-", "\t")) else it
        for it in plain(call).values()
    ]


# The table -------------------------------------------------------------------------------------------------------------


def table(calls: Iterable[Row]) -> list[str]:
    """One line a call, below a heading."""
    rows = [("began", "length", "agent", "", "caller", "called", "ended by", "cost", "id")]
    rows += [
        (
            f"{_local(call['began_at']):%Y-%m-%d %H:%M:%S}",
            _clock(call["duration_s"]),
            call["agent"] or "-",
            "out" if call["direction"] == "outbound" else "in",
            call["caller"] or "-",
            call["called"] or "-",
            call["reason"],
            _dollars(call),
            call["call_id"][:ID_CHARACTERS],
        )
        for call in calls
    ]
    return _columns(rows, {1, 7})


def _columns(rows: Sequence[Sequence[str]], right: Collection[int]) -> list[str]:
    """Lines of equal columns; those whose numbers are in `right` are figures."""
    short = [[_shortened(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*short, strict=True)]
    return [
        "  ".join(
            cell.rjust(width) if index in right else cell.ljust(width)
            for index, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in short
    ]


def _shortened(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= _MOST_CELL else f"{text[: _MOST_CELL - 2]}.."


def _dollars(call: Row, decimals: int = 4) -> str:
    if call["cost_usd"] is None:
        return "-"
    return f"{'' if call['cost_is_complete'] else '>'}${call['cost_usd']:.{decimals}f}"


# Sums ------------------------------------------------------------------------------------------------------------------

GROUPS = ("day", "month", "agent", "called", "direction", "reason")


def totals(calls: Iterable[Row], by: Sequence[str]) -> list[Row]:
    """How many calls, minutes and dollars, for each of what `by` (of `GROUPS`) tells apart, in their order; the last row is
    of all. `failed` are calls that something went wrong in."""
    sums: dict[tuple[str, ...], Row] = {}
    everything = _nothing()
    for call in calls:
        key = tuple(_group(call, name) for name in by)
        for it in (sums.setdefault(key, _nothing()), everything):
            it["calls"] += 1
            it["failed"] += call["error_message"] is not None
            it["minutes"] += call["duration_s"] / 60
            it["cost_usd"] += call["cost_usd"] or 0.0
            it["cost_is_complete"] &= bool(call["cost_is_complete"])
    rows = [dict(zip(by, key, strict=True)) | sums[key] for key in sorted(sums)]
    return [*rows, dict.fromkeys(by, "") | everything] if rows else []


def _nothing() -> Row:
    return {"calls": 0, "failed": 0, "minutes": 0.0, "cost_usd": 0.0, "cost_is_complete": True}


def _group(call: Row, name: str) -> str:
    match name:
        case "day":
            return f"{_local(call['began_at']):%Y-%m-%d}"
        case "month":
            return f"{_local(call['began_at']):%Y-%m}"
    return str(call[name])


def totals_table(rows: Sequence[Row], by: Sequence[str]) -> list[str]:
    """One line for each row of `totals`, below a heading."""
    shown = [(*by, "calls", "failed", "minutes", "cost", "a minute")]
    for row in rows:
        each = _dollars(row | {"cost_usd": row["cost_usd"] / row["minutes"]}) if row["minutes"] else "-"
        names = [row[name] or "-" for name in by] if row is not rows[-1] else ["all", *[""] * (len(by) - 1)]
        figures = (str(row["calls"]), str(row["failed"]), f"{row['minutes']:.1f}", _dollars(row, 2), each)
        shown.append((*names, *figures))
    return _columns(shown, set(range(len(by), len(by) + 5)))


# The page --------------------------------------------------------------------------------------------------------------


def page(call: KeptCall, width: int = 100) -> list[str]:
    """Everything that is kept of a call, for reading."""
    return [
        f"Call {call.call['call_id']}",
        "",
        *_facts(call.call, width),
        "",
        *_conversation(call, width),
        *_latencies(call.latencies),
    ]


def _facts(it: Row, width: int) -> Iterable[str]:
    began = _local(it["began_at"])
    yield from _field("began", f"{began:%a %d %b %Y %H:%M:%S %Z}, lasted {_clock(it['duration_s'])}", width)
    yield from _field("line", _line(it), width)
    detail = f": {it['detail']}" if it["detail"] else ""
    yield from _field("ended", f"{it['reason']}{detail}", width)
    for also in it["facts"].get("also") or ():
        yield from _field("", f"then also {also}", width)
    if it["error_message"]:
        code = f" ({it['error_code']})" if it["error_code"] else ""
        if it["error_message"] != it["detail"] or code:
            yield from _field("error", f"{it['error_message']}{code}", width)
    if it["answered_after_s"] is None:
        yield from _field("answered", "never", width)
    else:
        greeted = f", first heard the agent after {it['greeted_after_s']:.1f} s" if it["greeted_after_s"] else ""
        yield from _field("answered", f"after {it['answered_after_s']:.1f} s{greeted}", width)
        silence = f"longest silence {it['longest_silence_ms'] / 1000:.1f} s"
        counts = f"the agent spoke {_count(it['replies'], 'time')}, {it['interruptions']} interrupted; {silence}"
        yield from _field("talk", counts, width)
    if it["turn_p50_ms"] is not None:
        half, most = it["turn_p50_ms"] / 1000, it["turn_p95_ms"] / 1000
        yield from _field("answers", f"half of them within {half:.2f} s, 95 % within {most:.2f} s", width)
    if troubles := _troubles(it):
        yield from _field("troubles", troubles, width)
    yield from _field("cost", _cost(it), width)
    if it["recording_path"]:
        by = "" if it["recording_by"] == "bridge" else f", by {it['recording_by']}"
        place = f" on {it['host']}" if it["host"] else ""
        yield from _field(
            "recording", f"{it['recording_path']} ({_clock(it['recording_ms'] / 1000)}{by}{place})", width
        )


def _line(it: Row) -> str:
    if not it["caller"] and not it["called"]:
        return f"nothing is known of the caller; agent {it['agent'] or 'unknown'}, {it['media_format'] or 'no media'}"
    caller, called = it["caller"] or "an unknown number", it["called"] or "an unknown number"
    if it["direction"] == "outbound":
        who = f"agent {it['agent']} called {called}" + (f" as {it['caller']}" if it["caller"] else "")
    else:
        who = f"{caller} called {called}, agent {it['agent'] or 'unknown'}"
    return f"{who}, {it['media_format']}" if it["media_format"] else who


def _troubles(it: Row) -> str:
    lost = it["facts"].get("audio_dropped_ms", 0)
    told = (
        (it["model_reconnects"], f"{_count(it['model_reconnects'], 'new session')} in mid-call"),
        (it["frames_late"], f"{_count(it['frames_late'], 'frame')} late"),
        (it["frames_lost"], f"{_count(it['frames_lost'], 'frame')} lost"),
        (lost, f"{lost} ms of the caller's audio never reached the model"),
    )
    return ", ".join(text for count, text in told if count)


def _cost(it: Row) -> str:
    tokens = f"{it['input_tokens']:,} tokens in ({it['cached_tokens']:,} cached), {it['output_tokens']:,} out"
    if it["cost_usd"] is None:
        return f"not known, no price; {tokens}"
    least = "" if it["cost_is_complete"] else "at least "
    prices = f", prices of {it['priced_as_of']}" if it["priced_as_of"] else ""
    return f"{least}${it['cost_usd']:.4f}; {tokens}{prices}"


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def _field(label: str, text: str, width: int) -> list[str]:
    return textwrap.wrap(
        text,
        max(width, 40),
        initial_indent=f"  {label:{_LABEL}}",
        subsequent_indent=" " * (_LABEL + 2),
        break_long_words=False,
        break_on_hyphens=False,
    )


def _conversation(call: KeptCall, width: int) -> Iterable[str]:
    said: list[tuple[float, str, str]] = [
        (turn["at_s"], turn["role"], turn["text"] + (" -- (interrupted)" if turn["interrupted"] else ""))
        for turn in call.turns
    ]
    said += [(it["at_s"], "tool", _tool(it, call.call["reason"])) for it in call.tool_calls]
    if not said:
        yield "Nothing was said, or nothing of it is kept."
        return
    yield "What was said" if call.turns else "Tools (what was said is not kept, or nothing was)"
    for at_s, who, text in sorted(said, key=lambda it: it[0]):
        lead = f"  {_clock(at_s, 1):>7}  {who:6}  "
        yield from textwrap.wrap(
            text or "(nothing)",
            max(width, 40),
            initial_indent=lead,
            subsequent_indent=" " * len(lead),
            break_on_hyphens=False,
        )


# A tool of the bridge that ends the call is not answered to the model: nobody is to speak any more.
_ENDING = {("hang_up", EndReason.AGENT_HUNG_UP), ("transfer_call", EndReason.TRANSFERRED)}


def _tool(it: Mapping[str, Any], reason: str) -> str:
    asked = f"{it['name']} {it['arguments']}".strip()
    if it["lasted_s"] is None and (it["name"], reason) in _ENDING:
        return asked
    lasted = "was not answered" if it["lasted_s"] is None else f"{it['lasted_s']:.2f} s"
    failed = ", failed" if it["failed"] else ""
    answer = f" -> {it['output']}" if it["output"] else ""
    return f"{asked}{answer} ({lasted}{failed})"


_SPANS = ("total_ms", "vad_ms", "commit_ms", "create_ms", "model_ms", "tools_ms", "bridge_ms")


def _latencies(turns: Sequence[Row]) -> Iterable[str]:
    if not turns:
        return
    yield ""
    yield "How long the caller waited for each answer, in ms"
    yield "  " + " ".join(["     at", *(f"{name.removesuffix('_ms'):>7}" for name in _SPANS)])
    for turn in turns:
        spans = (turn[name] for name in _SPANS)
        figures = ["      -" if it is None else f"{it:7.0f}" for it in spans]
        note = "" if turn["began"] in ("speech_end", "speech_stopped", "committed") else "  not of the caller's words"
        yield "  " + " ".join([f"{_clock(turn['at_s'], 1):>7}", *figures]) + note
