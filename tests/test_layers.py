"""The layers of the design, enforced: imports point up the table, and the pure layers know neither clock nor socket."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

BRIDGE = Path(__file__).parent.parent / "bridge"
LAYERS: tuple[tuple[str, frozenset[str]], ...] = (
    (
        "words",
        frozenset(
            {
                "errors",
                "config",
                "agent",
                "destinations",
                "findings",
                "toml_lines",
                "validation",
                "mcp_servers",
                "routes",
                "overrides",
            }
        )
        | {"session", "session_schema", "session_flat", "session_advice"}
        | {"keys", "collect", "hangup_cause", "prompt_lint", "recording", "outbound"},
    ),
    (
        "protocols",
        frozenset(
            {
                "audiosocket",
                "audio",
                "playout",
                "realtime",
                "ending",
                "line_rate",
                "prices",
                "usage",
                "tool_schema",
                "sounds",
                "tones",
            }
            | {"dialect", "endpoint", "asterisk_version", "http_exchange", "wav"}
            | {"realtime_mcp", "mcp", "realtime_errors"}
            | {"cached_item", "item_changes", "caller_audio", "event_fields", "message_content"}
        ),
    ),
    (
        "decisions",
        frozenset(
            {
                "history",
                "call_tools",
                "dialogue",
                "conversation",
                "leg",
                "latency",
                "lateness",
                "patience",
                "responses",
                "barge_in",
                "continuity",
                "speech",
                "endgame",
                "talk",
                "caller_turns",
                "caller_keys",
                "collecting",
                "silence",
                "call_limits",
                "hold",
                "tool_use",
                "uplink_audio",
                "takeover",
                "handover",
                "waiting",
                "opening",
                "accounts",
                "application",
            }
            | {"item_cache", "event_stream", "tool_turns"}
            | {"health", "worker_policy"}
            | {"control_door", "next_step", "routing"}
            | {"recording_state", "stereo_track"}
        ),
    ),
    (
        "shells",
        frozenset(
            {"nowait_io", "audiosocket_leg", "websocket_writer", "realtime_client", "uplink", "media_clock"}
            | {
                "ari_client",
                "ari_rest",
                "ari_http",
                "ari_control",
                "ari_app",
                "ari_dial",
                "ari_target",
                "ari_joined",
                "ari_refer",
                "ari_checks",
                "ari_outgoing",
                "tools",
                "telemetry",
                "sound_files",
            }
            | {"session_streams", "health_server", "http_server"}
            | {"recording_file", "ari_recording"}
        ),
    ),
    (
        "one call, or one session of a program",
        frozenset(
            {"switchboard", "call", "transfer", "model_sessions", "live_call", "session_engine", "realtime_session"}
            | {"call_recording", "placed_call"}
        ),
    ),
    (
        "one process, or several",
        frozenset({"worker_link", "server", "control_desk", "plain_calls", "supervisor", "__main__"})
        | {"placing", "call_command"}
        | {"doctor", "doctor_asterisk", "doctor_media", "doctor_host", "doctor_model"},
    ),
)
LAYER_OF = {module: number for number, (_, modules) in enumerate(LAYERS) for module in modules}
# A shell may use another only where the two are one concept in two files, as all that speaks ARI is.
SHELL_FAMILIES = {
    frozenset(pair)
    for pair in (
        ("ari_http", "nowait_io"),
        ("audiosocket_leg", "nowait_io"),
        ("realtime_client", "websocket_writer"),
        ("websocket_writer", "nowait_io"),
        ("health_server", "http_server"),
    )
}
PURE_FORBIDDEN = {"trio", "socket", "time", "random", "logging", "websockets", "asyncio", "threading", "datetime"}


def imports(path: Path) -> set[str]:
    """Every imported module, `from bridge import x` as `bridge.x`."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            if node.module == "bridge":
                found |= {f"bridge.{alias.name}" for alias in node.names}
            else:
                found.add(node.module)
    return found


FILES = sorted(path for path in BRIDGE.glob("*.py") if path.stem != "__init__")


def test_every_module_has_its_layer() -> None:
    assert {path.stem for path in FILES} == set(LAYER_OF)


def test_the_design_names_every_module_and_its_layer() -> None:
    page = (BRIDGE.parent / "docs/design.md").read_text(encoding="utf-8")
    table = page[page.index("## 2. Modules") : page.index("## 3. ")]
    named: dict[str, int] = {}
    layer = -1
    for row in re.findall(r"^\| (\*\*\d|`\w+`)", table, re.MULTILINE):
        if row.startswith("*"):
            layer = int(row[2:])
        else:
            named[row.strip("`")] = layer
    assert named == LAYER_OF


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_imports_point_up_the_table(path: Path) -> None:
    layer = LAYER_OF[path.stem]
    for name in imports(path):
        package, _, module = name.partition(".")
        assert package != "simulators", f"{path.name} imports {name}"
        if package != "bridge" or not module or module == "__version__":
            continue
        other = LAYER_OF[module]
        assert other <= layer, f"{path.name} (layer {layer}) imports {module} (layer {other})"
        if other == layer == 3:
            ari = path.stem.startswith("ari_") and module.startswith("ari_")
            assert ari or frozenset({path.stem, module}) in SHELL_FAMILIES, (
                f"shells {path.stem} and {module} know each other"
            )


@pytest.mark.parametrize("path", [p for p in FILES if LAYER_OF[p.stem] <= 2], ids=lambda path: path.stem)
def test_pure_layers_know_no_clock_and_no_socket(path: Path) -> None:
    top_level = {name.partition(".")[0] for name in imports(path)}
    assert not top_level & PURE_FORBIDDEN
    if path.stem != "audio":
        assert "numpy" not in top_level


def test_simulators_know_the_pure_layers_only() -> None:
    for path in (BRIDGE.parent / "simulators").rglob("*.py"):
        for name in imports(path):
            package, _, module = name.partition(".")
            if package == "bridge" and module:
                assert LAYER_OF[module] <= 2, f"{path.name} imports {name}"
