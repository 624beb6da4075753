"""`realtime-bridge calls`: what people and programs read of the calls that were kept."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from kept_calls import BEGAN_S, kept_of

from bridge import call_pages
from bridge.__main__ import main
from bridge.call_record import ToolUse
from bridge.errors import ConfigError
from bridge.record_database import RecordDatabase, url_of
from bridge.record_store import DAY_S, RecordStore
from bridge.records import AgentRecords

Calls = Callable[..., tuple[int, str, str]]


@pytest.fixture(autouse=True)
def utc() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TZ", "UTC")
        time.tzset()
        yield
    time.tzset()


@pytest.fixture
def calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Calls:
    """Runs the command on a folder with four calls; returns its status and what it told on both outputs."""
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith("BRIDGE_")]:
        monkeypatch.delenv(name)
    database = RecordDatabase(url_of("sqlite:///calls.db", "data"), patience_s=1)
    database.open()
    store = RecordStore(database)
    store.write(
        kept_of(1, recording={"by": "bridge", "file": str(tmp_path / "recordings/1.wav"), "length_ms": 91_000})
    )
    store.write(kept_of(2, agent="reminders", direction="outbound", caller="", called="+4917112345", reason="busy"))
    store.write(kept_of(3, AgentRecords(keep_transcript=False, keep_numbers="masked"), cost_usd=None))
    refused: dict[str, Any] = {
        "error": {"code": None, "message": "full"},
        "answered_after_s": None,
        "duration_s": 0.0,
        "transcript": [],
        "tool_uses": [],
    }
    store.write(kept_of(4, reason="refused_busy", detail="=100 calls are running", **refused))
    database.close()

    def run(*arguments: str) -> tuple[int, str, str]:
        try:
            status = main(["calls", *arguments])
        except SystemExit as error:
            status = int(str(error.code))
        told = capsys.readouterr()
        return status, told.out, told.err

    return run


def test_the_list_is_a_table_with_the_newest_first(calls: Calls) -> None:
    status, table, _ = calls("list")
    assert status == 0
    assert table.splitlines() == [
        "began                length  agent           caller         called       ended by           cost  id",
        "2026-11-27 17:24:00    0:00  bakery     in   +493012345678  100          refused_busy    $0.0312  00000004",
        "2026-11-27 17:23:00    1:32  bakery     in   +49301234****  100          caller_hung_up        -  00000003",
        "2026-11-27 17:22:00    1:32  reminders  out  -              +4917112345  busy            $0.0312  00000002",
        "2026-11-27 17:21:00    1:32  bakery     in   +493012345678  100          caller_hung_up  $0.0312  00000001",
    ]
    assert calls("list", "--limit", "1")[1].splitlines() == [
        "began                length  agent       caller         called  ended by         cost  id",
        "2026-11-27 17:24:00    0:00  bakery  in  +493012345678  100     refused_busy  $0.0312  00000004",
    ]
    assert "newest; --limit for more" in calls("list", "--limit", "1")[2]


@pytest.mark.parametrize(
    ("words", "found"),
    [
        (["--agent", "reminders"], [2]),
        (["--caller", "12345"], [4, 2, 1]),
        (["--caller", "0171"], []),
        (["--reason", "caller_hung_up"], [3, 1]),
        (["--since", "2026-11-27 17:23"], [4, 3]),
        (["--since", "2026-11-27T17:22:00+00:00", "--until", "2026-11-27 17:23"], [2]),
    ],
)
def test_the_list_may_be_of_some(calls: Calls, words: list[str], found: list[int]) -> None:
    status, told, _ = calls("list", "--json", *words)
    assert status == 0
    rows = json.loads(told)
    assert sorted(int(row["call_id"][:8]) for row in rows) == sorted(found)
    assert all(row["began_at"].startswith("2026-11-27T17:2") and row["began_at"].endswith("Z") for row in rows)


PAGE = """\
Call 00000001-0000-4000-8000-000000000000

  began      Fri 27 Nov 2026 17:21:00 UTC, lasted 1:32
  line       +493012345678 called 100, agent bakery, slin16
  ended      caller_hung_up
  answered   after 0.8 s, first heard the agent after 1.3 s
  talk       the agent spoke 2 times, 1 interrupted; longest silence 0.0 s
  answers    half of them within 0.82 s, 95 % within 0.82 s
  cost       $0.0312; 120 tokens in (80 cached), 53 out, prices of 2026-11-01

What was said
   0:01.3  agent   Smith's bakery, good morning.
   0:04.0  caller  When are you open? My number is 4711.
   0:05.0  tool    opening_hours {"day": "saturday"} -> 7 to 13 (0.42 s)
   0:07.5  agent   On Saturday from seven to -- (interrupted)

How long the caller waited for each answer, in ms
       at   total     vad  commit  create   model   tools  bridge
   0:07.5     820     500       -       -     300       -      20
"""


def test_one_call_is_a_page_to_read(calls: Calls, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    status, page, _ = calls("show", "00000001")
    assert status == 0
    path = f"{tmp_path}/recordings/1.wav"
    before, _, recording = page.partition("  recording  ")
    recording, _, after = recording.partition("\n\n")
    assert f"{before}\n{after}" == PAGE
    assert recording.split() == [path, "(1:31", "on", "here)"]
    monkeypatch.setenv("COLUMNS", "50")
    assert max(map(len, calls("show", "00000002")[1].splitlines())) <= 66, "the table of times has its own width"
    whole = json.loads(calls("show", "00000001", "--json")[1])
    assert [turn["role"] for turn in whole["turns"]] == ["agent", "caller", "agent"]
    assert whole["facts"]["usage"]["audio_in_tokens"] == 120


def test_without_an_id_it_is_the_newest(calls: Calls) -> None:
    newest = json.loads(calls("list", "--json", "--limit", "1")[1])[0]["call_id"]
    assert calls("show")[1].startswith(f"Call {newest}\n")
    assert calls("show", "--json")[0] == 0


@pytest.mark.parametrize(("reason", "note"), [("agent_hung_up", ""), ("model_lost", " (was not answered)")])
def test_the_tool_that_ends_a_call_needs_no_answer(reason: str, note: str) -> None:
    use = ToolUse(4.0, "c", "hang_up", "{}")
    page = "\n".join(call_pages.page(kept_of(5, reason=reason, tool_uses=[use]), 80))
    assert f"tool    hang_up {{}}{note}\n" in page


def test_what_is_not_kept_is_said(calls: Calls) -> None:
    page = calls("show", "00000003")[1]
    assert "Tools (what was said is not kept, or nothing was)" in page
    assert "cost       not known, no price" in page
    page = calls("show", "00000004")[1]
    assert "ended      refused_busy: =100 calls are running" in page
    assert "answered   never" in page
    assert "Nothing was said, or nothing of it is kept." in page


def test_an_id_that_is_not_enough(calls: Calls) -> None:
    status, _, told = calls("show", "0000")
    assert status == 1
    assert "several calls' ids begin with 0000" in told
    assert told.count("-0000-4000-8000-000000000000") == 4
    status, _, told = calls("show", "ffff")
    assert (status, told) == (
        1,
        "realtime-bridge: no call's id begins with ffff; `realtime-bridge calls list` has the newest\n",
    )


def test_calls_are_summed_up(calls: Calls) -> None:
    assert calls("totals")[1].splitlines() == [
        "day         calls  failed  minutes   cost  a minute",
        "2026-11-27      4       1      4.6  $0.09   $0.0203",
        "all             4       1      4.6  $0.09   $0.0203",
    ]
    assert calls("totals", "--by", "agent,reason")[1].splitlines() == [
        "agent      reason          calls  failed  minutes   cost  a minute",
        "bakery     caller_hung_up      2       0      3.1  $0.03   $0.0101",
        "bakery     refused_busy        1       1      0.0  $0.03         -",
        "reminders  busy                1       0      1.5  $0.03   $0.0203",
        "all                            4       1      4.6  $0.09   $0.0203",
    ]
    assert (
        json.loads(calls("totals", "--by", "called", "--agent", "reminders", "--json")[1])[0]["called"]
        == "+4917112345"
    )
    assert calls("totals", "--caller", "nobody")[1:] == ("", "no calls\n")
    assert "--by hour: must be of day, month" in calls("totals", "--by", "hour")[2]


def test_all_of_them_can_be_taken_elsewhere(calls: Calls, tmp_path: Path) -> None:
    status, told, _ = calls("export", "--agent", "bakery")
    assert status == 0
    lines = [json.loads(line) for line in told.splitlines()]
    assert [line["call_id"][:8] for line in lines] == ["00000001", "00000003", "00000004"]
    assert lines[0]["tool_calls"][0]["output"] == "7 to 13"
    assert calls("export", "--format", "csv", "-o", "calls.csv") == (0, "", "4 calls written to calls.csv\n")
    with (tmp_path / "calls.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["caller"] for row in rows] == ["+493012345678", "", "+49301234****", "+493012345678"]
    assert rows[3]["detail"] == "'=100 calls are running", "no formula"
    assert (tmp_path / "calls.csv").stat().st_mode & 0o777 == 0o640
    assert calls("export", "-o", "/nowhere/calls")[0] == 2


def test_old_ones_are_deleted_with_their_recordings(
    calls: Calls, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "recordings").mkdir()
    (tmp_path / "recordings/1.wav").touch()
    monkeypatch.setattr(time, "time", lambda: BEGAN_S + 10 * DAY_S)
    assert "calls are kept for ever" in calls("prune")[2]
    (tmp_path / "bridge.toml").write_text("[agents.bakery.records]\nretention_days = 9\n")
    assert calls("prune", "--dry-run")[1] == "3 calls are older than they may be; none was deleted\n"
    assert (tmp_path / "recordings/1.wav").exists()
    assert calls("prune")[1] == "3 calls and 1 recordings deleted\n"
    assert not (tmp_path / "recordings/1.wav").exists()
    assert calls("list")[1].count("\n") == 2


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["list", "--since", "soon"], "--since soon: must be like 2026-11-27, '2026-11-27 14:30', today"),
        (["list", "--reason", "bored"], "--reason bored: must be one of agent_"),
        (["list", "--limit", "0"], "--limit 0: must be at least 1"),
        (["list", "--set", "records.url="], "records.url: is empty, so no records of calls are kept"),
        (
            ["list", "--set", "records.url=sqlite:///other.db"],
            "other.db: there are no calls yet; the bridge makes it when",
        ),
        (["export", "--format", "xml"], "invalid choice: 'xml'"),
    ],
)
def test_what_is_wrong_is_said(calls: Calls, words: list[str], says: str) -> None:
    status, told, trouble = calls(*words)
    assert status == (1 if "no calls yet" in says else 2)
    assert told == ""
    assert says in trouble


def test_records_that_wait_on_disk_are_told(calls: Calls, tmp_path: Path) -> None:
    (tmp_path / "data/records/1").mkdir(parents=True)
    (tmp_path / "data/records/1/1795800000000-000001-aaaaaa-x.json").touch()
    assert "the records of 1 more calls wait on disk" in calls("list")[2]


@pytest.mark.parametrize(
    ("text", "ago_s"), [("90m", 5400), ("24h", 86_400), ("7d", 604_800), ("4w", 2_419_200), ("today", 63_000)]
)
def test_times_as_people_write_them(text: str, ago_s: float) -> None:
    now_s = 1_795_800_000.0 - 600  # 17:10 less 20 min
    midnight_s = now_s - now_s % 86_400
    wanted = midnight_s if text == "today" else now_s - ago_s
    assert call_pages.time_of(text, now_s, "--since") == wanted
    with pytest.raises(ConfigError):
        call_pages.time_of("7x", now_s, "--since")


def test_a_reader_that_has_seen_enough_is_no_error(calls: Calls, tmp_path: Path) -> None:
    command = f"{sys.executable} -m bridge calls export | head -c 1"
    done = subprocess.run(
        ["bash", "-c", f"set -o pipefail; {command}"], cwd=tmp_path, capture_output=True, check=False,
        env={"PYTHONPATH": str(Path(__file__).parent.parent), "PATH": os.environ["PATH"]},
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, b"")


def test_a_postgresql_that_is_away_is_told_with_what_to_look_at(
    calls: Calls, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("psycopg")
    monkeypatch.setenv("BRIDGE_RECORDS_URL", "postgresql://bridge:secret@127.0.0.1:1/calls")
    status, _, told = calls("list")
    assert status == 1
    assert "see that the database runs, lets this user in, and stands right in records.url" in told
    assert "secret" not in told
