"""docs/operations.md and deploy/: dashboard, alerts and compose name what /metrics really serves, and what exists."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import msgspec
import pytest
from prometheus_client.parser import text_string_to_metric_families

from bridge import (
    audiosocket,
    control_commands,
    control_messages,
    control_stream,
    gateway,
    gateway_config,
    gateway_messages,
    gateway_session,
    hook_tools,
    http_exchange,
    live_call,
    realtime_client,
    spool,
    tools,
    uplink,
    webhook_client,
    websocket_leg,
)
from bridge.config import Config, load_config
from bridge.health import Report, WorkerHealth, metrics
from bridge.metrics import PREFIX
from bridge.server import Bridge, Seams
from bridge.tools import ToolRegistry
from bridge.worker_policy import BEYOND_DRAIN_S

ROOT = Path(__file__).parent.parent
DEPLOY = ROOT / "deploy"
PAGE = (ROOT / "docs/operations.md").read_text(encoding="utf-8")
RULES = DEPLOY / "prometheus/bridge-rules.yml"
DASHBOARD = json.loads((DEPLOY / "grafana/dashboards/realtime-bridge.json").read_text(encoding="utf-8"))
# Everything that counts something of its own is on.
SETTINGS = '[hooks]\nevent_url = "http://127.0.0.1:1/"\nevents = ["all"]\n[records]\nurl = "sqlite:///calls.db"\n'
ENDINGS = {"counter": ("_total",), "gauge": ("",), "histogram": ("_bucket", "_sum", "_count")}
# Prometheus' own words, and what it or Grafana adds to each series.
ADDED = {"instance", "job", "le"}


@cache
def served() -> dict[str, str]:
    """The metrics of a whole process: family -> kind; counters with their `_total`."""
    bridge = Bridge(load_config(SETTINGS, {}), Seams(), ToolRegistry(), None, None)
    text = metrics([WorkerHealth(1, Report(pid=1, families=list(bridge.metrics.families())))])
    return {
        family.name + ("_total" if family.type == "counter" else ""): family.type
        for family in text_string_to_metric_families(text)
    }


@cache
def series() -> frozenset[str]:
    return frozenset(
        name.removesuffix("_total") + ending for name, kind in served().items() for ending in ENDINGS[kind]
    )


@cache
def labels() -> frozenset[str]:
    """All labels that anything has."""
    declared = [metric._labelnames for metric in _counters()]
    return frozenset({"worker"} | {label for names in declared for label in names} | ADDED)


def _counters() -> Iterator[Any]:
    bridge = Bridge(load_config("", {}), Seams(), ToolRegistry(), None, None)
    yield from (it for it in bridge.metrics.registry._collector_to_names if hasattr(it, "_labelnames"))


def expressions() -> list[tuple[str, str]]:
    """Every expression of rules and dashboard, with where it stands."""
    found = []
    for group in msgspec.yaml.decode(RULES.read_bytes())["groups"]:
        found += [(rule["alert"], rule["expr"]) for rule in group["rules"]]
    for panel in DASHBOARD["panels"]:
        found += [(panel["title"], target["expr"]) for target in panel.get("targets", ())]
    return found


def names_in(expression: str) -> set[str]:
    return set(re.findall(rf"\b(?:{PREFIX}|process)_\w+", expression))


def test_the_page_has_every_metric_and_no_other() -> None:
    rows = "".join(re.findall(r"(?m)^\| (`[^|]+) \|", PAGE[PAGE.index("## Metrics") : PAGE.index("## Prometheus")]))
    assert set(re.findall(r"`(\w+)`", rows)) == {name.removeprefix(f"{PREFIX}_") for name in served()}


@pytest.mark.parametrize(("where", "expression"), expressions())
def test_every_expression_is_about_what_is_served(where: str, expression: str) -> None:
    assert names_in(expression) or expression == 'up{job="realtime-bridge"} == 0'
    assert names_in(expression) <= series(), where
    used = re.findall(r"[{,]\s*(\w+)\s*(?:=~|!~|!=|=)", expression)
    for names in re.findall(r"\b(?:by|on)\s*\(([^)]*)\)", expression):
        used += re.findall(r"\w+", names)
    assert set(used) <= labels(), where
    for opened, closed in ("()", "{}", "[]"):
        assert expression.count(opened) == expression.count(closed), where
    for counter in [name for name in names_in(expression) if name.endswith(("_total", "_bucket", "_sum", "_count"))]:
        assert re.search(rf"(rate|increase)\({counter}\b", expression), f"{where}: {counter} only grows"


def test_the_dashboard_is_whole() -> None:
    panels = DASHBOARD["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        at = panel["gridPos"]
        assert at["x"] + at["w"] <= 24
        places = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert not places & taken, panel["title"]
        taken |= places
    for variable in DASHBOARD["templating"]["list"][1:]:
        assert names_in(variable["definition"]) <= series()
    shown = {name for _, expression in expressions() for name in names_in(expression)}
    unseen = {name for name in served() if not any(it.startswith(name) for it in shown)}
    assert unseen <= {
        "process_virtual_memory_bytes", "process_start_time_seconds",
        f"{PREFIX}_config_generation", f"{PREFIX}_records_spooled_total", f"{PREFIX}_cost_unpriced_total",
    }  # fmt: skip


def test_every_alert_says_what_and_whom_it_concerns_and_is_on_the_page() -> None:
    for group in msgspec.yaml.decode(RULES.read_bytes())["groups"]:
        for rule in group["rules"]:
            assert rule["labels"]["severity"] in ("page", "ticket")
            assert "$labels.instance" in rule["annotations"]["summary"]
            assert f"`{rule['alert']}`" in PAGE


def test_prometheus_asks_where_the_bridge_answers() -> None:
    scrape = msgspec.yaml.decode((DEPLOY / "prometheus/prometheus.yml").read_bytes())
    assert scrape["rule_files"] == [RULES.name]
    [job] = scrape["scrape_configs"]
    assert job["static_configs"][0]["targets"] == [Config().server.health_address]
    assert job["job_name"] == "realtime-bridge"


@pytest.mark.skipif(not shutil.which("promtool"), reason="no promtool here")
def test_promtool_accepts_scrape_and_rules() -> None:
    subprocess.run(["promtool", "check", "config", str(DEPLOY / "prometheus/prometheus.yml")], check=True)


def test_the_compose_file_names_what_exists_and_waits_for_calls() -> None:
    compose = msgspec.yaml.decode((DEPLOY / "compose.yaml").read_bytes())
    assert set(compose["services"]) == {"bridge", "asterisk", "prometheus", "grafana"}
    for service in compose["services"].values():
        for volume in service.get("volumes", ()):
            source = volume.partition(":")[0]
            assert source in compose["volumes"] or (DEPLOY / source).exists(), volume
    bridge = compose["services"]["bridge"]
    assert int(bridge["stop_grace_period"].rstrip("s")) > Config().limits.drain_s + BEYOND_DRAIN_S
    settings = {name: "bridge-1" for name in bridge["environment"] if name.startswith("BRIDGE_")}
    config = load_config("", settings | {"BRIDGE_LOG_FORMAT": bridge["environment"]["BRIDGE_LOG_FORMAT"]})
    assert (config.asterisk.app, config.server.log_format) == ("bridge-1", "json")
    assert (ROOT / bridge["build"]["dockerfile"]).exists()


def test_the_image_has_what_its_file_copies_and_no_root() -> None:
    dockerfile = (DEPLOY / "Dockerfile").read_text(encoding="utf-8")
    allowed = (ROOT / ".dockerignore").read_text(encoding="utf-8")
    for line in re.findall(r"(?m)^COPY (?!--from)(.+) \S+$", dockerfile):
        for name in line.split():
            assert (ROOT / name).exists()
            assert f"!{name}\n" in allowed, "the build would not see it"
    assert re.search(r"(?m)^USER [1-9]\d+:\d+$", dockerfile), "a number, for runAsNonRoot"
    assert "STOPSIGNAL SIGTERM" in dockerfile
    folder = re.search(r"(?m)^VOLUME (\S+)$", dockerfile)
    assert folder is not None
    assert f"BRIDGE_DATA_DIR={folder[1]}\n" in dockerfile


def test_the_bounds_on_the_page_are_those_of_the_code() -> None:
    bounds = PAGE[PAGE.index("## Bounds") : PAGE.index("## systemd")]
    for words, figure in {
        "64 MB": realtime_client.MOST_MESSAGE_BYTES / 1e6,
        "256, and 25 of audio": uplink.MAX_WAITING,
        "25 of audio": uplink.MAX_WAITING_AUDIO,
        "65,535 bytes": audiosocket.MAX_PAYLOAD_BYTES,
        "8 kB of head": http_exchange.MAX_HEAD / 1024,
        "64 kB of body": http_exchange.MAX_BODY / 1024,
        "1 MB where": control_commands.MAX_BODY / 2**20,
        "32, each": control_stream.MOST_CLIENTS,
        "1,024 waiting": control_messages.MOST_EVENTS,
        "10 MB of frames": websocket_leg.MOST_MESSAGE_BYTES / 2**20,
        "1 MB of JSON": gateway_messages.MOST_MESSAGE_BYTES / 2**20,
        "4,000,000 characters": gateway_session.MOST_WRITTEN,
        "128 chunks": http_exchange.MOST_CHUNKS,
        "64 keys": gateway_messages.MOST_KEYS,
        "128 functions": gateway_config.MOST_TOOLS,
        "64, beside": gateway.MOST_STRANGERS,
        "512 |": live_call.WAITING_EVENTS,
        "16,000 characters": tools.MAX_OUTPUT_CHARS,
        "1 MB; of": webhook_client.MOST_ANSWER_BYTES / 1e6,
        "256 kB": hook_tools.MOST_ANSWER_BYTES / 1e3,
        "10,000 files": spool.MOST_FILES,
        "200 MB": spool.MOST_BYTES / 1e6,
    }.items():
        assert words in bounds
        assert float(re.sub(r"[^0-9].*", "", words.replace(",", "") if "," in words[:3] else words)) == figure, words
