"""Calls, with what was said, which tools were called, and how long answers took."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sql
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0001"
down_revision = None

_TIME = sql.DateTime(timezone=True)
_ID = sql.BigInteger().with_variant(sql.Integer(), "sqlite")
_JSON = sql.JSON().with_variant(JSONB(), "postgresql")


def _of_call(name: str, *columns: sql.Column[Any]) -> None:
    op.create_table(
        name,
        sql.Column(
            "call", _ID, sql.ForeignKey("calls.id", name=f"{name}_call", ondelete="CASCADE"), primary_key=True,
            autoincrement=False,
        ),
        sql.Column("number", sql.Integer, primary_key=True, autoincrement=False),
        sql.Column("at_s", sql.Double, nullable=False),
        *columns,
    )  # fmt: skip


def upgrade() -> None:
    op.create_table(
        "calls",
        sql.Column("id", _ID, primary_key=True),
        sql.Column("call_id", sql.Text, nullable=False),
        sql.Column("began_at", _TIME, nullable=False),
        sql.Column("duration_s", sql.Double, nullable=False),
        sql.Column("agent", sql.Text, nullable=False),
        sql.Column("direction", sql.Text, nullable=False),
        sql.Column("caller", sql.Text, nullable=False),
        sql.Column("called", sql.Text, nullable=False),
        sql.Column("reason", sql.Text, nullable=False),
        sql.Column("detail", sql.Text, nullable=False),
        sql.Column("completion_reason", sql.Text, nullable=False),
        sql.Column("error_code", sql.Text),
        sql.Column("error_message", sql.Text),
        sql.Column("hangup_cause", sql.Integer, nullable=False),
        sql.Column("media_format", sql.Text, nullable=False),
        sql.Column("model_ready_after_s", sql.Double),
        sql.Column("answered_after_s", sql.Double),
        sql.Column("greeted_after_s", sql.Double),
        sql.Column("replies", sql.Integer, nullable=False),
        sql.Column("interruptions", sql.Integer, nullable=False),
        sql.Column("model_reconnects", sql.Integer, nullable=False),
        sql.Column("turn_p50_ms", sql.Double),
        sql.Column("turn_p95_ms", sql.Double),
        sql.Column("longest_silence_ms", sql.Integer, nullable=False),
        sql.Column("frames_late", sql.Integer, nullable=False),
        sql.Column("frames_lost", sql.Integer, nullable=False),
        sql.Column("audio_to_model_ms", sql.Integer, nullable=False),
        sql.Column("audio_heard_ms", sql.Integer, nullable=False),
        sql.Column("input_tokens", sql.Integer, nullable=False),
        sql.Column("cached_tokens", sql.Integer, nullable=False),
        sql.Column("output_tokens", sql.Integer, nullable=False),
        sql.Column("cost_usd", sql.Double),
        sql.Column("cost_is_complete", sql.Boolean, nullable=False),
        sql.Column("priced_as_of", sql.Text, nullable=False),
        sql.Column("recording_by", sql.Text, nullable=False),
        sql.Column("recording_path", sql.Text, nullable=False),
        sql.Column("recording_ms", sql.Integer, nullable=False),
        sql.Column("host", sql.Text, nullable=False),
        sql.Column("retention_days", sql.Integer, nullable=False),
        sql.Column("facts", _JSON, nullable=False),
        sql.UniqueConstraint("call_id", "began_at", name="calls_once"),
    )
    op.create_index("calls_by_time", "calls", ["began_at"])
    op.create_index("calls_by_agent", "calls", ["agent", "began_at"])
    op.create_index("calls_by_caller", "calls", ["caller", "began_at"])
    op.create_index("calls_by_reason", "calls", ["reason", "began_at"])
    _of_call(
        "turns",
        sql.Column("role", sql.Text, nullable=False),
        sql.Column("text", sql.Text, nullable=False),
        sql.Column("interrupted", sql.Boolean, nullable=False),
    )
    _of_call(
        "tool_calls",
        sql.Column("tool_call_id", sql.Text, nullable=False),
        sql.Column("name", sql.Text, nullable=False),
        sql.Column("arguments", sql.Text, nullable=False),
        sql.Column("output", sql.Text, nullable=False),
        sql.Column("lasted_s", sql.Double),
        sql.Column("failed", sql.Boolean, nullable=False),
    )
    _of_call(
        "latencies",
        sql.Column("began", sql.Text, nullable=False),
        sql.Column("vad_ms", sql.Double),
        sql.Column("commit_ms", sql.Double),
        sql.Column("create_ms", sql.Double),
        sql.Column("model_ms", sql.Double),
        sql.Column("tools_ms", sql.Double),
        sql.Column("bridge_ms", sql.Double),
        sql.Column("total_ms", sql.Double),
    )
    op.create_table(
        "upkeep",
        sql.Column("task", sql.Text, primary_key=True),
        sql.Column("done_at", _TIME, nullable=False),
    )
