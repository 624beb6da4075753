"""The watchers that the settings ask for."""

from __future__ import annotations

from bridge.call_recording import InThread
from bridge.call_watcher import CallWatcher
from bridge.config import Config
from bridge.metrics import Metrics


def watchers_of(config: Config, metrics: Metrics, run_blocking: InThread) -> list[CallWatcher]:
    """One for each thing that looks on at all calls of this process. What it counts of its own it adds to `metrics`.
    Raises `ConfigError`."""
    watchers: list[CallWatcher] = []
    if config.records.url:
        # SQLAlchemy takes 0.4 s and 25 MB: not from who keeps no records.
        from bridge.record_keeper import RecordKeeper  # noqa: PLC0415

        watchers.append(RecordKeeper(config, metrics, run_blocking))
    return watchers
