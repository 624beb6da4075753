"""What `import bridge` offers, and what it costs."""

from __future__ import annotations

import subprocess
import sys

import pytest

import bridge

NAMES = {
    "open_session", "RealtimeSession", "Realtime", "Limits", "load_config",
    "Tool", "ToolContext", "ToolError", "ToolRegistry", "image",
    "CachedItem", "ItemCache", "ItemStatus", "Change", "ChangeKind", "Delta",
    "EventFilter", "EventStream", "RawEvent", "Trouble",
    "BridgeError", "ConfigError", "ModelError", "ModelLost", "ModelRejected", "ModelUnreachable", "RequestRefused",
    "ResponseFailed", "__version__",
}  # fmt: skip


def test_the_public_names_are_these() -> None:
    assert set(bridge.__all__) == NAMES
    assert set(dir(bridge)) >= NAMES


@pytest.mark.parametrize("name", sorted(NAMES))
def test_every_public_name_is_there(name: str) -> None:
    assert getattr(bridge, name)


def test_other_names_are_not() -> None:
    with pytest.raises(AttributeError, match="no attribute 'open_sesame'"):
        bridge.open_sesame  # type: ignore[attr-defined]  # noqa: B018


def test_the_package_alone_loads_nothing_heavy() -> None:
    code = "import sys, bridge; print([name for name in ('trio', 'websockets', 'numpy', 'msgspec') if name in sys.modules])"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert told.stdout.strip() == "[]"
