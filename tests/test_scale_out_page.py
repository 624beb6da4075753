"""`docs/scale-out.md` and `deploy/`: what they name exists, and what must be longer than something else is."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from bridge.config import Config, load_config
from bridge.worker_policy import BEYOND_DRAIN_S

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs/scale-out.md").read_text(encoding="utf-8")
UNITS = sorted((ROOT / "deploy").glob("*.service"))
KUBERNETES = (ROOT / "deploy/kubernetes.yaml").read_text(encoding="utf-8")


def test_every_setting_it_names_exists() -> None:
    config = Config()
    for section, key in re.findall(r"`(server|asterisk|limits)\.([a-z_]+)`", PAGE):
        assert hasattr(getattr(config, section), key), f"{section}.{key}"
    for key in ("workers", "max_calls", "max_lateness_ms", "health_address", "audiosocket_port"):
        assert f"`{key}`" in PAGE or f"server.{key}" in PAGE
        assert hasattr(config.server, key)


def test_systemd_and_kubernetes_wait_longer_than_a_drain_takes() -> None:
    longest = Config().limits.drain_s + BEYOND_DRAIN_S
    for unit in UNITS:
        stop = re.search(r"(?m)^TimeoutStopSec=(\d+)$", unit.read_text(encoding="utf-8"))
        assert stop is not None
        assert int(stop[1]) > longest
    grace = re.search(r"terminationGracePeriodSeconds: (\d+)", KUBERNETES)
    assert grace is not None
    assert int(grace[1]) > longest


def test_the_pods_settings_are_settings() -> None:
    names = set(re.findall(r"name: (BRIDGE_\w+)", KUBERNETES)) | set(re.findall(r"BRIDGE_ARI_PASSWORD", KUBERNETES))
    values = {
        "BRIDGE_ARI_APP": "bridge-2",
        "BRIDGE_ARI_URL": "ws://asterisk.example:8088",
        "BRIDGE_AUDIOSOCKET_HOST": "0.0.0.0",
        "BRIDGE_MEDIA_ADDRESS": "10.0.0.7:9092",
        "BRIDGE_HEALTH_ADDRESS": "0.0.0.0:9192",
        "BRIDGE_LOG_FORMAT": "json",
        "BRIDGE_ARI_PASSWORD": "secret",
        "BRIDGE_DATA_DIR": "/var/lib/realtime-bridge",
    }
    assert names == set(values)
    config = load_config("", values)
    assert (config.asterisk.app, config.asterisk.media_address) == ("bridge-2", "10.0.0.7:9092"), "no number is added"
    default = Config().server
    for port in (default.audiosocket_port, int(default.health_address.rpartition(":")[2])):
        assert f"containerPort: {port}" in KUBERNETES


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="no systemd here")
@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.stem)
def test_systemd_accepts_the_units(unit: Path, tmp_path: Path) -> None:
    text = unit.read_text(encoding="utf-8")
    assert "ExecStart=/opt/realtime-bridge/bin/realtime-bridge serve" in text
    # systemd wants the program to exist.
    name = unit.name.replace("@", "@1")
    (tmp_path / unit.name).write_text(text.replace("/opt/realtime-bridge/bin/realtime-bridge", sys.executable))
    told = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(tmp_path / name)], capture_output=True, text=True, check=False
    )
    # It may complain of other units of this machine; and of a key that it does not know, it only warns.
    assert told.returncode == 0
    assert "realtime-bridge" not in told.stderr
