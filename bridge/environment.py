"""The environment variables that the settings know by name, and the setting of each.

Deployment scalars only; secrets come from here, so that no file needs to hold one. Of two names of one setting the first
wins, and each wins over the names that the OpenSIPS AI Voice Connector has for the same (`opensips`).
"""

from __future__ import annotations

VARIABLES: tuple[tuple[str, str], ...] = (
    ("BRIDGE_AUDIOSOCKET_HOST", "server.audiosocket_host"),
    ("BRIDGE_AUDIOSOCKET_PORT", "server.audiosocket_port"),
    ("BRIDGE_MAX_CALLS", "server.max_calls"),
    ("BRIDGE_LOG_FORMAT", "server.log_format"),
    ("BRIDGE_LOG_WORDS", "server.log_words"),
    ("BRIDGE_WORKERS", "server.workers"),
    ("BRIDGE_WORKER", "server.worker"),
    ("BRIDGE_HEALTH_ADDRESS", "server.health_address"),
    ("BRIDGE_CONTROL_ADDRESS", "server.control_address"),
    ("BRIDGE_CONTROL_TOKEN", "server.control_token"),
    ("BRIDGE_DATA_DIR", "server.data_dir"),
    ("BRIDGE_RECORDS_URL", "records.url"),
    ("BRIDGE_ARI_URL", "asterisk.url"),
    ("BRIDGE_ARI_USERNAME", "asterisk.username"),
    ("BRIDGE_ARI_PASSWORD", "asterisk.password"),
    ("BRIDGE_ARI_APP", "asterisk.app"),
    ("BRIDGE_MEDIA_ADDRESS", "asterisk.media_address"),
    ("BRIDGE_MEDIA_FORMAT", "asterisk.format"),
    ("BRIDGE_REALTIME_URL", "realtime.url"),
    ("BRIDGE_REALTIME_MODEL", "realtime.model"),
    ("BRIDGE_REALTIME_API_KEY", "realtime.api_key"),
    ("BRIDGE_HOOKS_SECRET", "hooks.secret"),
    ("BRIDGE_GATEWAY_ENABLED", "gateway.enabled"),
    ("BRIDGE_GATEWAY_ADDRESS", "gateway.address"),
    ("BRIDGE_GATEWAY_TOKEN", "gateway.token"),
    ("BRIDGE_TRACING", "tracing.enabled"),
    ("BRIDGE_TRACING_ENDPOINT", "tracing.endpoint"),
)
