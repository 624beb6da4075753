"""An OpenAI Realtime voice agent on an Asterisk phone call, and a Realtime client for programs (`docs/library.md`).

The rooms of the house, in the order that data flows; `docs/design.md` tells the duty of every module, and the reasons:

* words: `errors`, `config`, `session` (the model's settings)
* protocols without I/O: `audiosocket`, `audio`, `playout`, `realtime`, `endpoint`, `dialect`, `ending`, `usage`
* decisions without I/O: `conversation` and its parts around `talk`, `responses`, `barge_in`, `continuity`, `history`, `leg`
* shells, on trio: `audiosocket_leg`, `media_clock`, `uplink`, `realtime_client`, `ari_app`, `ari_control`, `tools`
* one call: `switchboard`, `model_sessions`, `live_call`, `call`; one process: `server`, `health_server`
* commands: `__main__`, `doctor`; several processes: `supervisor`, decided in `worker_policy`; what they tell is in `health`
* one session of a program: `realtime_session`, `session_engine`; decided in `item_cache`, `tool_turns`, `event_stream`

"Protocol sheet" and section numbers mean `docs/realtime-protocol.md`, numbers like 5.13 `docs/field-reports.md`.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bridge.cached_item import CachedItem, ItemStatus
    from bridge.config import Limits, Realtime, load_config
    from bridge.errors import (
        BridgeError,
        ConfigError,
        ModelError,
        ModelLost,
        ModelRejected,
        ModelUnreachable,
        RequestRefused,
        ResponseFailed,
        ToolError,
    )
    from bridge.event_stream import EventFilter
    from bridge.item_cache import ItemCache
    from bridge.item_changes import Change, ChangeKind, Delta
    from bridge.message_content import image
    from bridge.realtime_session import RealtimeSession, open_session
    from bridge.session_engine import RawEvent, Trouble
    from bridge.session_streams import EventStream
    from bridge.tools import Tool, ToolContext, ToolRegistry

__version__ = "0.1.0"

__all__ = [
    "BridgeError", "CachedItem", "Change", "ChangeKind", "ConfigError", "Delta", "EventFilter", "EventStream",
    "ItemCache", "ItemStatus", "Limits", "ModelError", "ModelLost", "ModelRejected", "ModelUnreachable", "RawEvent",
    "Realtime", "RealtimeSession", "RequestRefused", "ResponseFailed", "Tool", "ToolContext", "ToolError",
    "ToolRegistry", "Trouble", "__version__", "image", "load_config", "open_session",
]  # fmt: skip

# Loaded when they are asked for: every module of the package runs this file, and most need neither trio nor websockets.
_HOMES = {
    "cached_item": ("CachedItem", "ItemStatus"),
    "config": ("Limits", "Realtime", "load_config"),
    "errors": (
        "BridgeError", "ConfigError", "ModelError", "ModelLost", "ModelRejected", "ModelUnreachable", "RequestRefused",
        "ResponseFailed", "ToolError",
    ),
    "event_stream": ("EventFilter",),
    "item_cache": ("ItemCache",),
    "item_changes": ("Change", "ChangeKind", "Delta"),
    "message_content": ("image",),
    "realtime_session": ("RealtimeSession", "open_session"),
    "session_engine": ("RawEvent", "Trouble"),
    "session_streams": ("EventStream",),
    "tools": ("Tool", "ToolContext", "ToolRegistry"),
}  # fmt: skip


if not TYPE_CHECKING:  # a checker is to find what is misspelt

    def __getattr__(name: str) -> object:
        for module, names in _HOMES.items():
            if name in names:
                value: object = getattr(importlib.import_module(f"bridge.{module}"), name)
                globals()[name] = value
                return value
        raise AttributeError(f"module 'bridge' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
