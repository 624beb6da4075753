"""The doctor's look at this machine, and how findings are shown: plain functions of numbers."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from trio.testing import MockClock

from bridge import doctor_host
from bridge.config import Server
from bridge.doctor_media import Door
from bridge.findings import Finding, Verdict, as_json, fail, failed, ok, shown, skipped, summary, warn


@pytest.mark.parametrize(
    ("calls", "limit", "verdict"),
    [(100, 364, "ok"), (100, 363, "fail"), (1000, 1024, "fail"), (1000, -1, "ok")],
)
def test_open_files(calls: int, limit: int, verdict: str) -> None:
    finding = doctor_host.check_files(calls, limit)
    assert finding.verdict == verdict
    if verdict == "fail":
        assert f"ulimit -n {calls * 3 + 64}" in finding.remedy


@pytest.mark.parametrize(("free_mb", "verdict"), [(300, "ok"), (299, "warn"), (20, "warn")])
def test_memory(free_mb: int, verdict: str) -> None:
    finding = doctor_host.check_memory(100, free_mb)
    assert finding.verdict == verdict
    if verdict == "warn":
        assert f"server.max_calls to {max((free_mb - 100) // 2, 1)}" in finding.remedy


def test_free_memory_is_what_the_container_may_have_if_that_is_less(tmp_path: Path) -> None:
    assert doctor_host._free_memory_mb(tmp_path) is None
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/meminfo").write_text("MemTotal: 4096000 kB\nMemAvailable:    2048000 kB\n")
    assert doctor_host._free_memory_mb(tmp_path) == 2000
    group = tmp_path / "sys/fs/cgroup"
    group.mkdir(parents=True)
    (group / "memory.current").write_text(str(100 * 2**20))
    (group / "memory.max").write_text("max\n")
    assert doctor_host._free_memory_mb(tmp_path) == 2000
    (group / "memory.max").write_text(str(512 * 2**20))
    assert doctor_host._free_memory_mb(tmp_path) == 412


@pytest.mark.parametrize(
    ("late_ms", "lost", "resolution_s", "verdict"),
    [
        ([0.2] * 99 + [4.9], 0, 1e-9, "ok"),
        ([0.2] * 95 + [6.0] * 5, 0, 1e-9, "warn"),
        ([0.2] * 95 + [25.0] * 5, 0, 1e-9, "fail"),
        ([0.2] * 100, 3, 1e-9, "fail"),
        ([0.2] * 100, 0, 0.016, "fail"),
        ([], 0, 1e-9, "fail"),
    ],
)
def test_pacing_is_judged_by_its_late_frames(
    late_ms: list[float], lost: int, resolution_s: float, verdict: str
) -> None:
    finding = doctor_host.judge_pacing(late_ms, lost, resolution_s)
    assert finding.verdict == verdict
    assert bool(finding.remedy) is (verdict != "ok")


async def test_pacing_runs_the_clock_of_all_calls(autojump_clock: MockClock) -> None:
    finding = await doctor_host.check_pacing(2.0)
    assert finding == ok("pacing", "frames leave each 20 ms, late by 0.0 ms (p50), 0.0 ms (p99), 0.0 ms at most")


def test_this_python_is_told() -> None:
    assert "3." in doctor_host.check_python().text


def test_a_door_that_is_free_has_nothing_to_tell() -> None:
    assert Door(Server(), []).taken_by_somebody() == []
    (finding,) = Door(Server(), [], taken=True).taken_by_somebody()
    assert finding.verdict is Verdict.WARN


def test_a_finding_is_a_line_with_its_remedy_below() -> None:
    finding = fail("media", "Asterisk found nobody", 'asterisk.media_address = "10.0.0.7:9092"')
    assert shown(finding) == (
        'FAIL  media         Asterisk found nobody\n                    -> asterisk.media_address = "10.0.0.7:9092"'
    )
    assert shown(ok("port", "free")) == "ok    port          free"
    long = shown(ok("port", "word " * 60), width=60)
    assert all(len(line) <= 60 for line in long.splitlines())
    assert long.splitlines()[1].startswith(" " * 20 + "word")


@pytest.mark.parametrize(
    ("findings", "says", "status"),
    [
        ([ok("a", "")], "Nothing is in the way of calls.", False),
        ([ok("a", ""), warn("b", "", "")], "Nothing is in the way of calls; 1 warning.", False),
        ([fail("a", "", ""), warn("b", "", ""), warn("c", "", "")], "1 check failed, 2 warnings.", True),
        ([fail("a", "", ""), fail("b", "", ""), skipped("c", "")], "2 checks failed.", True),
    ],
)
def test_the_summary_and_the_exit_status(findings: list[Finding], says: str, status: bool) -> None:
    assert summary(findings) == says
    assert failed(findings) is status


def test_machines_get_json() -> None:
    assert json.loads(as_json([warn("a", "text", "do")])) == [
        {"name": "a", "verdict": "warn", "text": "text", "remedy": "do"}
    ]
