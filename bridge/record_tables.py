"""The tables of the records, as they are now. How a database comes to them is in `migrations`; a test compares the two.

`docs/records.md` explains each column to who writes SQL.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sql
from sqlalchemy.dialects.postgresql import JSONB

REVISION = "0001"
"""The newest migration."""


class UtcTime(sql.TypeDecorator[float]):
    """Unix seconds here; a time with its zone in PostgreSQL, and in SQLite a text in UTC, to the microsecond."""

    impl = sql.DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: float | None, dialect: sql.Dialect) -> datetime | None:
        return None if value is None else datetime.fromtimestamp(value, UTC)

    def process_result_value(self, value: Any | None, dialect: sql.Dialect) -> float | None:
        if value is None:
            return None
        return float((value if value.tzinfo else value.replace(tzinfo=UTC)).timestamp())


_json = sql.JSON().with_variant(JSONB(), "postgresql")
# SQLite counts rows up by itself for INTEGER only.
_id = sql.BigInteger().with_variant(sql.Integer(), "sqlite")


def _text(name: str) -> sql.Column[str]:
    return sql.Column(name, sql.Text, nullable=False)


def _number(name: str, kind: type[sql.types.TypeEngine[Any]] = sql.Integer) -> sql.Column[Any]:
    return sql.Column(name, kind, nullable=False)


def _maybe(name: str, kind: type[sql.types.TypeEngine[Any]] = sql.Double) -> sql.Column[Any]:
    return sql.Column(name, kind)


metadata = sql.MetaData()

calls = sql.Table(
    "calls",
    metadata,
    sql.Column("id", _id, primary_key=True),
    _text("call_id"),
    sql.Column("began_at", UtcTime, nullable=False),
    _number("duration_s", sql.Double),
    _text("agent"),
    _text("direction"),
    _text("caller"),
    _text("called"),
    _text("reason"),
    _text("detail"),
    _text("completion_reason"),
    _maybe("error_code", sql.Text),
    _maybe("error_message", sql.Text),
    _number("hangup_cause"),
    _text("media_format"),
    _maybe("model_ready_after_s"),
    _maybe("answered_after_s"),
    _maybe("greeted_after_s"),
    _number("replies"),
    _number("interruptions"),
    _number("model_reconnects"),
    _maybe("turn_p50_ms"),
    _maybe("turn_p95_ms"),
    _number("longest_silence_ms"),
    _number("frames_late"),
    _number("frames_lost"),
    _number("audio_to_model_ms"),
    _number("audio_heard_ms"),
    _number("input_tokens"),
    _number("cached_tokens"),
    _number("output_tokens"),
    _maybe("cost_usd"),
    _number("cost_is_complete", sql.Boolean),
    _text("priced_as_of"),
    _text("recording_by"),
    _text("recording_path"),
    _number("recording_ms"),
    _text("host"),
    _number("retention_days"),
    sql.Column("facts", _json, nullable=False),
    sql.UniqueConstraint("call_id", "began_at", name="calls_once"),
    sql.Index("calls_by_time", "began_at"),
    sql.Index("calls_by_agent", "agent", "began_at"),
    sql.Index("calls_by_caller", "caller", "began_at"),
    sql.Index("calls_by_reason", "reason", "began_at"),
)


def _of_call(name: str, *columns: sql.Column[Any]) -> sql.Table:
    """A table with some rows for each call, numbered from 1."""
    call = sql.ForeignKey("calls.id", name=f"{name}_call", ondelete="CASCADE")
    return sql.Table(
        name,
        metadata,
        sql.Column("call", _id, call, primary_key=True, autoincrement=False),
        sql.Column("number", sql.Integer, primary_key=True, autoincrement=False),
        _number("at_s", sql.Double),
        *columns,
    )


turns = _of_call("turns", _text("role"), _text("text"), _number("interrupted", sql.Boolean))

tool_calls = _of_call(
    "tool_calls",
    _text("tool_call_id"),
    _text("name"),
    _text("arguments"),
    _text("output"),
    _maybe("lasted_s"),
    _number("failed", sql.Boolean),
)

latencies = _of_call(
    "latencies",
    _text("began"),
    _maybe("vad_ms"),
    _maybe("commit_ms"),
    _maybe("create_ms"),
    _maybe("model_ms"),
    _maybe("tools_ms"),
    _maybe("bridge_ms"),
    _maybe("total_ms"),
)

OF_CALL = {"turns": turns, "tool_calls": tool_calls, "latencies": latencies}

upkeep = sql.Table(
    "upkeep",
    metadata,
    sql.Column("task", sql.Text, primary_key=True),
    sql.Column("done_at", UtcTime, nullable=False),
)
"""When something that is to be done once a day was done last, by whomever."""
