"""The watchers that the settings ask for."""

from __future__ import annotations

from bridge.call_watcher import CallWatcher
from bridge.config import Config


def watchers_of(config: Config) -> list[CallWatcher]:
    """One for each thing that looks on at all calls of this process. Raises `ConfigError`."""
    return []
