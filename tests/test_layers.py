"""The layers of the design, enforced: imports point up the table, and the pure layers know neither clock nor socket."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

BRIDGE = Path(__file__).parent.parent / "bridge"
DESIGN = (BRIDGE.parent / "docs/design.md").read_text(encoding="utf-8")


def _layer_of() -> dict[str, int]:
    """Module -> layer, as the table of the design says it."""
    table = DESIGN[DESIGN.index("## 2. Modules") : DESIGN.index("## 3. ")]
    named: dict[str, int] = {}
    layer = -1
    for row in re.findall(r"^\| (\*\*\d|`\w+`)", table, re.MULTILINE):
        if row.startswith("*"):
            layer = int(row[2:])
        else:
            assert named.setdefault(row.strip("`"), layer) == layer, f"{row} stands twice"
    return named


LAYER_OF = _layer_of()
# A shell may use another only where the two are one concept in two files, as all that speaks ARI is.
SHELL_FAMILIES = {
    frozenset(pair)
    for pair in (
        ("http_transport", "nowait_io"),
        ("ari_http", "http_transport"),
        ("webhook_client", "http_transport"),
        ("audiosocket_leg", "nowait_io"),
        ("websocket_leg", "nowait_io"),
        ("gateway_handshake", "websocket_leg"),
        ("realtime_client", "websocket_writer"),
        ("websocket_writer", "nowait_io"),
        ("health_server", "http_server"),
        ("record_store", "record_database"),
        ("record_store", "record_tables"),
        ("record_database", "record_tables"),
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


def test_the_design_names_every_module_and_its_layer() -> None:
    assert {path.stem for path in FILES} == set(LAYER_OF)
    assert set(LAYER_OF.values()) == {0, 1, 2, 3, 4, 5}


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
