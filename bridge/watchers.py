"""The watchers that the settings ask for."""

from __future__ import annotations

from bridge.call_watcher import CallWatcher
from bridge.config import Config
from bridge.metrics import Metrics


def watchers_of(config: Config, metrics: Metrics) -> list[CallWatcher]:
    """One for each thing that looks on at all calls of this process. What it counts of its own it adds to `metrics`.
    Raises `ConfigError`."""
    return []
