"""What is told about calls: one log line per event, and one `CallRecord` per call, whatever happened to it.

Logs go to standard error, as text for people or as one JSON object a line (`server.log_format`). Every line of a call
carries its id. What a caller keys in is never logged, nor is any secret: facts are given by name, one by one. What caller
and agent say is in the log only where `server.log_words` wants it: callers spell their card's number.
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


def call_ended(record: CallRecord) -> None:
    """Log the one line that says how a call ended; a warning when something failed."""
    _log.log(logging.WARNING if record.error else logging.INFO, "call_ended", extra={"facts": record.facts()})


class OriginFilter(logging.Filter):
    """Puts the id of the current call, and the number of this worker, on every line, whoever logs it."""

    def __init__(self, worker: int) -> None:
        super().__init__()
        self._worker = worker

    def filter(self, record: logging.LogRecord) -> bool:
        record.call_id = call_id_of_context.get()
        record.worker = self._worker
        return True


# The events with words in them, and the facts that hold them.
_WORDS = {"caller_said": "text", "agent_said": "text"}


def _facts(record: logging.LogRecord, words: bool) -> Mapping[str, Any]:
    facts: Mapping[str, Any] = getattr(record, "facts", {})
    hidden = None if words else _WORDS.get(record.getMessage())
    if hidden in facts:
        return {("characters" if it == hidden else it): len(v) if it == hidden else v for it, v in facts.items()}
    return facts


def _traceback(formatter: logging.Formatter, record: logging.LogRecord) -> str:
    """The exception's; or one that whoever logs it has written out himself, since not all of it is for the log."""
    written = getattr(record, "traceback", "")
    return str(written or (formatter.formatException(record.exc_info) if record.exc_info else ""))


class JsonFormatter(logging.Formatter):
    """One JSON object a line."""

    def __init__(self, *, words: bool = False) -> None:
        super().__init__()
        self._words = words

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
        for name, value in _facts(record, self._words).items():
            line.setdefault(name, value)  # no fact may take a line away from its call
        if told := _traceback(self, record):
            line["traceback"] = told
        return msgspec.json.encode(line, enc_hook=str).decode()


class ConsoleFormatter(logging.Formatter):
    """One line for people: time, level, the first characters of the call's id, the event and its facts.

    Shorter than the JSON line: no empty facts, of figures the half and the longest (`284..294`), of tables no tables.
    """

    def __init__(self, *, words: bool = False) -> None:
        super().__init__()
        self._words = words

    def format(self, record: logging.LogRecord) -> str:
        stamp = self.formatTime(record, "%H:%M:%S") + f".{int(record.msecs):03}"
        worker, call_id = getattr(record, "worker", 0), getattr(record, "call_id", "")
        origin = (f" w{worker}" if worker else "") + (f" [{call_id[:8]}]" if call_id else "")
        facts = _facts(record, self._words)
        told = "".join(
            f" {name}={_short(value)}"
            for name, value in facts.items()
            if value not in (None, "", {}, []) and name != "call_id" and not _uncounted(value)
        )
        text = f"{stamp} {record.levelname.lower():7}{origin} {record.getMessage()}{told}"
        told = _traceback(self, record)
        return f"{text}\n{told}" if told else text


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


def set_up_logging(
    log_format: Literal["console", "json"], level: int = logging.INFO, *, worker: int = 0, words: bool = False
) -> None:
    """Send all logs of the process to standard error in one of the two formats; `worker` is its number, 0: it has none.
    `words`: with what caller and agent say."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter((JsonFormatter if log_format == "json" else ConsoleFormatter)(words=words))
    handler.addFilter(OriginFilter(worker))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    quieten_libraries()


def quieten_libraries() -> None:
    """The libraries' own stories of connections are ours to tell, in our words: theirs hold whole URLs and headers."""
    for name in ("websockets", "httpx", "httpcore", "hpack", "urllib3", "sqlalchemy", "alembic"):
        logging.getLogger(name).setLevel(logging.WARNING)
