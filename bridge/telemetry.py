"""What is told about calls: one log line per event, and one `CallRecord` per call, whatever happened to it.

Logs go to standard error, as text for people or as one JSON object a line (`server.log_format`). Every line of a call
carries its id. What a caller keys in is never logged, nor is any secret: facts are given by name, one by one.
"""

from __future__ import annotations

import contextvars
import logging
import sys
from collections.abc import Mapping
from typing import Any, Literal

import msgspec

from bridge.call_record import CallRecord

call_id_of_context: contextvars.ContextVar[str] = contextvars.ContextVar("call_id", default="")

_log = logging.getLogger("bridge.call")


def notice(event: str, facts: Mapping[str, object]) -> None:
    """Log one event of the current call."""
    _log.info(event, extra={"facts": facts})


def call_ended(record: CallRecord, *, failure: bool) -> None:
    """Log the one line that says how a call ended; a warning when something failed."""
    _log.log(logging.WARNING if failure else logging.INFO, "call_ended", extra={"facts": record.facts()})


class _OriginFilter(logging.Filter):
    """Puts the id of the current call, and the number of this worker, on every line, whoever logs it."""

    def __init__(self, worker: int) -> None:
        super().__init__()
        self._worker = worker

    def filter(self, record: logging.LogRecord) -> bool:
        record.call_id = call_id_of_context.get()
        record.worker = self._worker
        return True


class JsonFormatter(logging.Formatter):
    """One JSON object a line."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": record.created,
            "level": record.levelname.lower(),
            "logger": record.name,
            "event": record.getMessage(),
        }
        for name in ("worker", "call_id"):
            if value := getattr(record, name, ""):
                line[name] = value
        for name, value in getattr(record, "facts", {}).items():
            line.setdefault(name, value)  # no fact may take a line away from its call
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return msgspec.json.encode(line, enc_hook=str).decode()


class ConsoleFormatter(logging.Formatter):
    """One line for people: time, level, the first characters of the call's id, the event and its facts.

    Shorter than the JSON line: no empty facts, of figures the half and the longest (`284..294`), of tables no tables.
    """

    def format(self, record: logging.LogRecord) -> str:
        stamp = self.formatTime(record, "%H:%M:%S") + f".{int(record.msecs):03}"
        worker, call_id = getattr(record, "worker", 0), getattr(record, "call_id", "")
        origin = (f" w{worker}" if worker else "") + (f" [{call_id[:8]}]" if call_id else "")
        facts = getattr(record, "facts", {})
        told = "".join(
            f" {name}={_short(value)}"
            for name, value in facts.items()
            if value not in (None, "", {}, []) and name != "call_id" and not _uncounted(value)
        )
        text = f"{stamp} {record.levelname.lower():7}{origin} {record.getMessage()}{told}"
        return f"{text}\n{self.formatException(record.exc_info)}" if record.exc_info else text


def _uncounted(value: object) -> bool:
    """Figures of something that never happened."""
    return isinstance(value, dict) and value.get("count") == 0


def _short(value: object) -> str:
    if isinstance(value, dict):
        if "p50_ms" in value:
            return f"{value['p50_ms']:g}..{value['max_ms']:g}"
        flat = {key: it for key, it in value.items() if not isinstance(it, dict) or "p50_ms" in it}
        return "/".join(f"{key}:{_short(inner)}" for key, inner in flat.items())
    return repr(value) if isinstance(value, str) and " " in value else str(value)


def set_up_logging(log_format: Literal["console", "json"], level: int = logging.INFO, *, worker: int = 0) -> None:
    """Send all logs of the process to standard error in one of the two formats; `worker` is its number, 0: it has none."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if log_format == "json" else ConsoleFormatter())
    handler.addFilter(_OriginFilter(worker))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    # The libraries' own stories of connections are ours to tell, in our words.
    logging.getLogger("websockets").setLevel(logging.WARNING)
    logging.getLogger("httpx").setLevel(logging.WARNING)
