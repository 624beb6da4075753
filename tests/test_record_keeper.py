"""Every ended call has its record, whatever becomes of the database, the bridge, or the call."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import msgspec
import pytest
import trio
import trio.testing
from house import Disk, house
from kept_calls import BEGAN_S, record_of
from trio.testing import MockClock

from bridge.agent import Agent
from bridge.call_watcher import Follows
from bridge.config import Config, load_config
from bridge.errors import ConfigError, RecordsAway
from bridge.kept_call import KeptCall
from bridge.metrics import Metrics
from bridge.record_database import RecordDatabase, url_of
from bridge.record_keeper import MOST_RETRY_S, PATIENCE_S, RETRY_S, START_S, RecordKeeper
from bridge.record_store import DAY_S, CallFilter, RecordStore
from bridge.spool import Spool
from simulators.model_script import Call, Say, Script, tone

ROOT = Path(__file__).parent.parent
T = TypeVar("T")


def config_of(tmp_path: Path, text: str = "") -> Config:
    return load_config(text, {}, {"server.data_dir": str(tmp_path / "data")})


def calls_in(tmp_path: Path) -> list[KeptCall]:
    database = RecordDatabase(url_of("sqlite:///calls.db", str(tmp_path / "data")), patience_s=1)
    try:
        return list(RecordStore(database).each(CallFilter())) if database.look() else []
    finally:
        database.close()


async def test_a_call_and_one_that_is_turned_away_are_kept(autojump_clock: MockClock, tmp_path: Path) -> None:
    overrides = {
        "records.url": "sqlite:///calls.db",
        "server.data_dir": str(tmp_path / "data"),
        "server.max_calls": "1",
    }
    script = Script.of(
        Say("Smith's bakery.", ms=1500),
        [Say("Goodbye!", ms=1500), Call("hang_up", {"reason": "all said"})],
        transcripts=["I am Jo, 4711. Thanks, goodbye."],
    )
    settings = "[agents.default.records]\nredact = ['digits']"
    async with house(script, settings=settings, overrides=overrides, media_format="slin24") as it:
        _channel, caller = await it.stasis_call(caller=("030123456", "Alice"))
        await it.hears_of("agent_said")
        it.ari.incoming_call(caller=("030999999", "Bob"))
        await it.ended(1)
        caller.say(tone(300, 1000))
        facts = await it.ended(2)
        await it.until(lambda: len(calls_in(tmp_path)) == 2)
    turned_away, call = sorted(calls_in(tmp_path), key=lambda kept: kept.call["duration_s"])
    assert (turned_away.call["reason"], turned_away.call["caller"]) == ("refused_busy", "030999999 Bob")
    assert call.call["call_id"] == facts["call_id"]
    assert (call.call["reason"], call.call["caller"], call.call["replies"]) == ("agent_hung_up", "030123456 Alice", 2)
    assert call.call["facts"]["duration_s"] == call.call["duration_s"] == facts["duration_s"]
    assert [(turn["role"], turn["text"]) for turn in call.turns] == [
        ("agent", "Smith's bakery."),
        ("caller", "I am Jo, [digits]. Thanks, goodbye."),
        ("agent", "Goodbye!"),
    ]
    assert [(use["name"], use["arguments"]) for use in call.tool_calls] == [("hang_up", '{"reason": "all said"}')]
    assert [it["began"] for it in call.latencies] == ["prompted", "speech_end"]
    assert call.latencies[1]["total_ms"] == call.call["facts"]["turns"]["total_ms"]["max_ms"]


class _Away:
    """A database that does not answer, or is slow, until it is `back`."""

    def __init__(self, keeper: RecordKeeper, monkeypatch: pytest.MonkeyPatch) -> None:
        self.back = False
        self.asked = 0
        write, opens = keeper._store.write, keeper._database.open

        def refusing(do: Callable[[], T]) -> T:
            self.asked += 1
            if not self.back:
                raise RecordsAway("calls.db: database is locked")
            return do()

        monkeypatch.setattr(keeper._store, "write", lambda call: refusing(lambda: write(call)))
        monkeypatch.setattr(keeper._database, "open", lambda: refusing(opens))


async def test_what_can_not_be_written_waits_on_disk_and_is_written_once(
    autojump_clock: MockClock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, nursery: trio.Nursery
) -> None:
    settings = "[agents.bakery.records]\nredact = ['digits']"
    keeper = RecordKeeper(config_of(tmp_path, settings), Metrics(), Disk().run)
    away = _Away(keeper, monkeypatch)
    await nursery.start(keeper.run)
    await trio.testing.wait_all_tasks_blocked()
    asked = away.asked
    for number in (1, 2, 2):
        await keeper.ended(record_of(number))
    assert away.asked == asked, "nobody waits for what is known to be away"
    assert (keeper.counts.written, keeper.counts.spooled, keeper.counts.waiting) == (0, 3, 3)
    assert calls_in(tmp_path) == []
    files = list((tmp_path / "data/records").glob("[0-9]*/[0-9]*.json"))
    assert len(files) == 3
    assert not [file for file in files if b"4711" in file.read_bytes()], "redacted before it is stored anywhere"
    away.back = True
    await trio.sleep(61)
    assert [call.call["call_id"][7:8] for call in calls_in(tmp_path)] == ["1", "2"]
    assert (keeper.counts.written, keeper.counts.failed, keeper.counts.waiting) == (3, 0, 0)
    await keeper.ended(record_of(3))
    assert len(calls_in(tmp_path)) == 3, "at once again"
    nursery.cancel_scope.cancel()


async def test_a_slow_database_costs_the_end_of_a_call_a_second_at_most(
    autojump_clock: MockClock, tmp_path: Path, nursery: trio.Nursery
) -> None:
    slow_s = {"write": 0.0}

    async def run(function: Callable[[], T]) -> T:
        if getattr(getattr(function, "func", None), "__name__", "") == "write":
            await trio.sleep(slow_s["write"])
        return function()

    keeper = RecordKeeper(config_of(tmp_path), Metrics(), run)
    await nursery.start(keeper.run)
    slow_s["write"] = 30.0
    began = trio.current_time()
    await keeper.ended(record_of(1))
    assert trio.current_time() - began == pytest.approx(PATIENCE_S)
    await keeper.ended(record_of(2))
    assert trio.current_time() - began == pytest.approx(PATIENCE_S), "the next one does not try"
    assert keeper.counts.waiting == 2
    await trio.sleep(RETRY_S + 2 * 30 + 1)
    assert len(calls_in(tmp_path)) == 2
    nursery.cancel_scope.cancel()


async def test_a_start_waits_for_the_database_only_so_long(
    autojump_clock: MockClock, tmp_path: Path, nursery: trio.Nursery
) -> None:
    slow = {"open": True}

    async def run(function: Callable[[], T]) -> T:
        if slow["open"] and getattr(function, "__name__", "") == "open":
            await trio.sleep_forever()
        return function()

    keeper = RecordKeeper(config_of(tmp_path), Metrics(), run)
    began = trio.current_time()
    await nursery.start(keeper.run)
    assert trio.current_time() - began == pytest.approx(START_S)
    await keeper.ended(record_of(1))
    assert keeper.counts.waiting == 1
    nursery.cancel_scope.cancel()


async def test_what_the_database_refuses_is_kept_as_a_file(
    autojump_clock: MockClock, tmp_path: Path, nursery: trio.Nursery
) -> None:
    keeper = RecordKeeper(config_of(tmp_path), Metrics(), Disk().run)
    await nursery.start(keeper.run)
    for reason in (None, "busy"):
        await keeper.ended(record_of(1, reason=reason))
    assert (keeper.counts.written, keeper.counts.failed) == (1, 1)
    (file,) = (tmp_path / "data/records/refused").glob("*/*.json")
    assert msgspec.json.decode(file.read_bytes())["call"]["call_id"] == record_of(1).call_id
    nursery.cancel_scope.cancel()


async def test_a_database_that_is_overwritten_costs_no_call_and_no_record(
    autojump_clock: MockClock, tmp_path: Path, nursery: trio.Nursery, caplog: pytest.LogCaptureFixture
) -> None:
    keeper = RecordKeeper(config_of(tmp_path), Metrics(), Disk().run)
    await nursery.start(keeper.run)
    (file,) = (tmp_path / "data").glob("calls.db")
    for path in (tmp_path / "data").glob("calls.db*"):
        path.unlink()
    file.write_bytes(b"half of a backup" * 1000)
    await keeper.ended(record_of(1))
    await trio.sleep(RETRY_S * 3)  # the database is tried, and is none
    await keeper.ended(record_of(2))
    assert keeper.counts.waiting == 2
    file.unlink()
    await trio.sleep(MOST_RETRY_S * 2)
    assert (keeper.counts.waiting, len(calls_in(tmp_path))) == (0, 2)
    assert "a defect of the bridge" not in caplog.text
    nursery.cancel_scope.cancel()


async def test_a_full_disk_is_told_and_counted(
    autojump_clock: MockClock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, nursery: trio.Nursery
) -> None:
    keeper = RecordKeeper(config_of(tmp_path), Metrics(), Disk().run)
    _Away(keeper, monkeypatch)
    keeper._spool = Spool(tmp_path / "small", most_files=1)
    await nursery.start(keeper.run)
    for number in (1, 2):
        await keeper.ended(record_of(number))
    assert (keeper.counts.spooled, keeper.counts.failed) == (1, 1)
    nursery.cancel_scope.cancel()


async def test_the_settings_of_a_call_are_those_that_it_began_with(
    autojump_clock: MockClock, tmp_path: Path, nursery: trio.Nursery
) -> None:
    text = "[agents.bakery.records]\nkeep_transcript = false\nkeep_numbers = 'masked'\nretention_days = 9"
    keeper = RecordKeeper(config_of(tmp_path, text), Metrics(), Disk().run)
    await nursery.start(keeper.run)

    class Call:
        call_id, agent = record_of(2).call_id, Agent()

    keeper.begins(Call)  # type: ignore[arg-type]
    await keeper.ended(record_of(1))
    await keeper.ended(record_of(2))
    keeper.settings_changed(config_of(tmp_path, text.replace("9", "8")))
    await keeper.ended(record_of(3))
    first, second, third = calls_in(tmp_path)
    assert third.call["retention_days"] == 8
    assert isinstance(keeper, Follows)
    assert (tmp_path / "data").stat().st_mode & 0o777 == 0o750, "nobody else's business"
    assert (first.turns, first.call["caller"], first.call["retention_days"]) == ([], "+49301234****", 9)
    assert (len(second.turns), second.call["caller"], second.call["retention_days"]) == (3, "+493012345678", 0)
    nursery.cancel_scope.cancel()


async def test_old_calls_go_by_themselves_once_a_day(
    autojump_clock: MockClock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, nursery: trio.Nursery
) -> None:
    began = trio.current_time()
    monkeypatch.setattr(time, "time", lambda: BEGAN_S + trio.current_time() - began)
    keepers = [
        RecordKeeper(config_of(tmp_path, "[records]\nretention_days = 2"), Metrics(), Disk().run) for _ in range(2)
    ]
    prunes = 0
    for keeper in keepers:
        prune = keeper._store.prune

        def counted(*arguments: object, prune: Callable[..., object] = prune) -> object:
            nonlocal prunes
            prunes += 1
            return prune(*arguments)

        monkeypatch.setattr(keeper._store, "prune", counted)
        await nursery.start(keeper.run)
    await keepers[0].ended(record_of(1))
    await trio.sleep(2 * DAY_S - 3600)
    assert len(calls_in(tmp_path)) == 1
    await trio.sleep(DAY_S + 7200)
    assert calls_in(tmp_path) == []
    assert prunes == 4, "by one of the two, at the start and each day"
    nursery.cancel_scope.cancel()


async def test_a_folder_that_can_not_be_written_is_told_before_the_first_call(tmp_path: Path) -> None:
    (tmp_path / "data").touch()
    with pytest.raises(ConfigError, match=r"server.data_dir: .*make it writable, choose another folder, or keep no"):
        await RecordKeeper(config_of(tmp_path), Metrics(), Disk().run).run(trio.TASK_STATUS_IGNORED)


_KILLED = """
import sys, trio
from kept_calls import record_of
from bridge.call_recording import in_thread
from bridge.config import load_config
from bridge.metrics import Metrics
from bridge.record_keeper import RecordKeeper

async def main():
    keeper = RecordKeeper(load_config("", {}, {"server.data_dir": sys.argv[1]}), Metrics(), in_thread)
    async with trio.open_nursery() as nursery:
        await nursery.start(keeper.run)
        number = 0
        async def calls(first):
            for number in range(first, first + 1000):
                if number % 100 == 5:
                    keeper._away = number % 1000 < 500   # what comes now waits on disk
                await keeper.ended(record_of(number))
                print(number, flush=True)
        for first in (1000, 2000, 3000):
            nursery.start_soon(calls, first)

trio.run(main)
"""


async def test_a_bridge_that_is_killed_loses_no_call_that_had_ended(tmp_path: Path) -> None:
    environ = {"PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"}
    process = subprocess.Popen(  # noqa: ASYNC220 - a test waits for it
        [sys.executable, "-c", _KILLED, str(tmp_path / "data")], env=environ, stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    with process.stdout as told:
        ended = [int(told.readline()) for _ in range(120)]
        os.kill(process.pid, signal.SIGKILL)
        ended += [int(line) for line in told.read().splitlines()]
    process.wait()
    waiting = len(list((tmp_path / "data/records").glob("[0-9]*/[0-9]*.json")))
    written = len(calls_in(tmp_path))
    assert waiting > 0
    assert written > 0
    keeper = RecordKeeper(config_of(tmp_path), Metrics(), Disk().run)
    async with trio.open_nursery() as nursery:
        await nursery.start(keeper.run)
        with trio.fail_after(10):
            while keeper.counts.waiting:  # noqa: ASYNC110 - nobody tells of it
                await trio.sleep(0.01)
        nursery.cancel_scope.cancel()
    kept = [int(call.call["call_id"][:8], 16) for call in calls_in(tmp_path)]
    assert len(kept) == len(set(kept)), "each once"
    assert set(ended) <= set(kept)
