"""The watchers that the settings ask for."""

from __future__ import annotations

from bridge.call_recording import InThread
from bridge.call_watcher import CallWatcher
from bridge.config import Config
from bridge.errors import ConfigError
from bridge.hook_watcher import HookWatcher
from bridge.metrics import Metrics
from bridge.webhook_client import WebhookClient


def watchers_of(
    config: Config, metrics: Metrics, run_blocking: InThread, webhooks: WebhookClient
) -> list[CallWatcher]:
    """One for each thing that looks on at all calls of this process. What it counts of its own it adds to `metrics`.
    Raises `ConfigError`."""
    found: list[CallWatcher] = []
    if tells(config):
        found.append(HookWatcher(config, run_blocking, webhooks, metrics))
    if config.records.url:
        # SQLAlchemy takes 0.4 s and 15 MB: not from who keeps no records.
        from bridge.record_keeper import RecordKeeper  # noqa: PLC0415

        found.append(RecordKeeper(config, metrics, run_blocking))
    if config.tracing.enabled:
        try:
            from bridge.tracing import CallTracing  # noqa: PLC0415 - half a second and 20 MB that only it needs
        except ImportError as error:
            raise ConfigError(
                f"tracing.enabled: {error}; pip install 'asterisk-realtime-bridge[otel]'", place="tracing.enabled"
            ) from error
        try:
            found.append(CallTracing(config.tracing, worker=config.server.worker, run_blocking=run_blocking))
        except ValueError as error:
            raise ConfigError(f"tracing: one of the OTEL_* variables can not be read: {error}") from error
    return found


def tells(config: Config) -> bool:
    """Whether somebody is told of calls, or may be: the call hook can name somebody for one call."""
    hooks = config.hooks
    own = [agent.hooks for agent in config.agents.values()]
    return bool(hooks.call_url or hooks.event_url or hooks.action_url) or any(
        it.event_url or it.action_url for it in own
    )
