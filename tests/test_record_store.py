"""One suite for SQLite and PostgreSQL: what is written is found, read, pruned; several processes; what goes wrong."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sql
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from databases import postgresql
from kept_calls import BEGAN_S, kept_of

from bridge import record_store
from bridge.config import load_config
from bridge.doctor_records import check_records
from bridge.errors import ConfigError, RecordsAway, RecordsRefused
from bridge.record_database import RecordDatabase, url_of
from bridge.record_retention import delete_recording, keeping_of
from bridge.record_store import DAY_S, CallFilter, Deletion, Keeping, Pruned, RecordStore
from bridge.record_tables import OF_CALL, REVISION, metadata

MIGRATIONS = Path(__file__).parent.parent / "bridge/migrations"
PAGE = (MIGRATIONS.parent.parent / "docs/records.md").read_text(encoding="utf-8")
EVERYBODY = CallFilter()


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with postgresql() as url:
        yield url


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Of an empty database."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/data/calls.db"
    found: str = request.getfixturevalue("server")
    database = RecordDatabase(url_of(found, ""), patience_s=5)
    with database.transaction() as connection:
        connection.exec_driver_sql("DROP SCHEMA public CASCADE")
        connection.exec_driver_sql("CREATE SCHEMA public")
    database.close()
    return found


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RecordDatabase]:
    """With its tables."""
    folder = tmp_path_factory.mktemp("calls")
    url = "sqlite:///calls.db" if request.param == "sqlite" else request.getfixturevalue("server")
    database = RecordDatabase(url_of(url, str(folder)), patience_s=5)
    if request.param == "postgresql":
        # Another one than that of the tests which begin without tables.
        with database._engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.exec_driver_sql("CREATE DATABASE filled")
        database.close()
        database = RecordDatabase(url_of(url, "").set(database="filled"), patience_s=5)
    database.open()
    yield database
    database.close()


@pytest.fixture
def store(database: RecordDatabase) -> RecordStore:
    """With its tables, and nothing in them."""
    with database.transaction() as connection:
        for table in reversed(metadata.sorted_tables):
            connection.execute(table.delete())
    return RecordStore(database)


def test_the_migrations_make_the_tables_that_the_code_knows(store: RecordStore) -> None:
    with store.database.transaction() as connection:
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []
    assert ScriptDirectory(str(MIGRATIONS)).get_current_head() == REVISION
    packages = tomllib.loads((MIGRATIONS.parent.parent / "pyproject.toml").read_text())["tool"]["setuptools"][
        "packages"
    ]
    assert {"bridge.migrations", "bridge.migrations.versions"} <= set(packages), "they are installed too"


def test_the_page_names_every_column_and_its_examples_run(store: RecordStore) -> None:
    tables = dict(re.findall(r"(?m)^\| `(\w+)` \|[^|]*\|\n\| --- \| --- \|\n((?:\|.*\n)+)", PAGE))
    assert set(tables) == {"calls", *OF_CALL}
    for name, rows in tables.items():
        named = {word for row in rows.splitlines() for word in re.findall(r"`(\w+)`", row.split("|")[1])}
        assert named == {column.name for column in metadata.tables[name].columns}
    (examples,) = re.findall(r"(?s)```sql\n(.*?)```", PAGE)
    store.write(kept_of(1, answered_turns=[{"at_s": 2.0, "began": "speech_end", "total_ms": 3001.0}]))
    found = []
    with store.database.transaction(reads=True) as connection:
        for statement in examples.split(";")[:-1]:
            found.append(connection.execute(sql.text(statement)).all())
    assert [len(rows) for rows in found] == [1, 1, 1, 1, 0]


def test_what_is_written_is_read_again_once(store: RecordStore) -> None:
    call = kept_of(1)
    assert store.write(call)
    assert not store.write(call), "it was there already"
    (found,) = store.each(EVERYBODY)
    assert found == call
    again = kept_of(1, began_unix_s=BEGAN_S + 9000)
    assert store.write(again), "a dialplan may use a UUID twice"
    assert store.whole(store.starting_with(call.call["call_id"][:6])[0]) == again, "the newest"


def test_calls_are_found_by_what_is_known_of_them(store: RecordStore) -> None:
    for number in range(1, 6):
        store.write(kept_of(number))
    store.write(kept_of(6, agent="reminders", direction="outbound", caller="100", called="+49177%_99", reason="busy"))

    def found(**wanted: object) -> list[int]:
        return [int(row["call_id"][:8]) for row in store.newest(CallFilter(**wanted), 10)]  # type: ignore[arg-type]

    assert found() == [6, 5, 4, 3, 2, 1]
    assert found(agent="reminders") == found(reason="busy") == found(party="%_9") == found(party="177") == [6]
    assert found(since_s=BEGAN_S + 180, until_s=BEGAN_S + 300) == [4, 3]
    assert found(party="5678", since_s=BEGAN_S + 300) == [5]
    assert [row["call_id"][:8] for row in store.newest(EVERYBODY, 2)] == ["00000006", "00000005"]
    assert store.starting_with("%") == []
    assert [row["agent"] for row in store.few_facts(CallFilter(reason="busy"))] == ["reminders"]


def test_all_of_them_come_page_by_page(store: RecordStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(record_store, "_PAGE", 2)
    for number in (1, 2, 3, 4, 5):
        # All at the same moment: pages then go by the number of the row.
        store.write(kept_of(number, began_unix_s=BEGAN_S))
    assert [call.call["call_id"][7:8] for call in store.each(EVERYBODY)] == ["1", "2", "3", "4", "5"]


def test_each_call_goes_when_its_agent_says(store: RecordStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(record_store, "_PAGE", 2)
    for number, agent, days in ((1, "a", 0), (2, "a", 1), (3, "b", 0), (4, "b", 90), (5, "gone", 2), (6, "gone", 0)):
        store.write(kept_of(number, agent=agent, days=days, began_unix_s=BEGAN_S))
    keeping = Keeping({"a": 1, "b": 30}, "here", lambda _: Deletion.DELETED)

    def left(days: float) -> list[int]:
        now_s = BEGAN_S + days * DAY_S
        count = store.count_too_old(keeping, now_s)
        assert store.prune(keeping, now_s) == Pruned(calls=count)
        return sorted(int(row["call_id"][:8]) for row in store.newest(EVERYBODY, 10))

    assert left(0.9) == [1, 2, 3, 4, 5, 6]
    assert left(1.1) == [3, 4, 5, 6], "what the settings say now, not what they said then"
    assert left(2.1) == [3, 4, 6], "of an agent that is no more: what they said then"
    assert left(400) == [6]
    with store.database.transaction() as connection:
        assert connection.execute(sql.text("SELECT count(*) FROM turns")).scalar() == 3, "and what was said goes too"


@pytest.mark.parametrize(
    ("outcome", "host", "days", "pruned"),
    [
        (Deletion.DELETED, "here", 2, Pruned(calls=1, files=1)),
        (Deletion.DELETED, "elsewhere", 2, Pruned(calls=1, files=1)),  # a container that has another name now
        (Deletion.NOT_THERE, "here", 2, Pruned(calls=1)),
        (Deletion.NOT_OURS, "here", 2, Pruned(calls=1)),
        (Deletion.FAILED, "here", 400, Pruned(waiting=1)),
        (Deletion.NOT_THERE, "elsewhere", 2, Pruned(waiting=1)),
        (Deletion.NOT_THERE, "elsewhere", 9, Pruned(calls=1)),
    ],
)
def test_the_recording_goes_first(tmp_path: Path, outcome: Deletion, host: str, days: float, pruned: Pruned) -> None:
    database = RecordDatabase(url_of("sqlite:///calls.db", str(tmp_path)), patience_s=1)
    database.open()
    store, asked = RecordStore(database), []

    def delete(path: str) -> Deletion:
        asked.append(path)
        return outcome

    store.write(kept_of(1, days=1, recording={"by": "bridge", "file": "/r/1.wav", "length_ms": 5}))
    store.write(kept_of(2, days=0, recording={"by": "bridge", "file": "/r/2.wav", "length_ms": 5}))
    assert store.prune(Keeping({}, host, delete), BEGAN_S + days * DAY_S) == pruned
    assert asked == ["/r/1.wav"]
    store.write(kept_of(3, days=1, recording={"by": "asterisk", "file": "3.wav", "length_ms": 5}))
    assert store.prune(Keeping({}, host, lambda _: Deletion.FAILED), BEGAN_S + 500 * DAY_S).calls == 1, "not our disk"
    database.close()


def test_only_recordings_of_ours_are_deleted(tmp_path: Path) -> None:
    folder, outside = tmp_path / "recordings", tmp_path / "other"
    (folder / "day").mkdir(parents=True)
    outside.mkdir()
    for path in (folder / "day/1.wav", folder / "day/notes.txt", outside / "2.wav"):
        path.touch()
    (folder / "link.wav").symlink_to(outside / "2.wav")
    keeping = keeping_of(
        load_config("[agents.x.recording]\nby = 'bridge'\n[records]\nretention_days = 3", {}, folder=tmp_path)
    )
    assert keeping.days_of_agent == {"default": 3, "x": 3}
    delete = keeping.delete_file
    assert delete(str(folder / "day/notes.txt")) is Deletion.NOT_OURS
    assert delete(str(folder / "day")) is Deletion.NOT_OURS
    assert delete(str(folder / "../other/2.wav")) is Deletion.NOT_OURS
    assert delete(str(folder / "link.wav")) is Deletion.NOT_OURS
    assert delete("") is Deletion.NOT_OURS
    assert (outside / "2.wav").exists()
    assert delete(str(folder / "day/1.wav")) is Deletion.DELETED
    assert delete(str(folder / "day/1.wav")) is Deletion.NOT_THERE
    assert (folder / "day").is_dir(), "there is something in it still"
    (folder / "day/notes.txt").rename(folder / "day/3.wav")
    assert delete_recording(str(folder / "day/3.wav"), [str(folder)]) is Deletion.DELETED
    assert not (folder / "day").exists()
    assert folder.exists()


def test_what_is_done_once_a_day_is_done_by_one(store: RecordStore) -> None:
    assert store.take_turn("prune", 1000.0, DAY_S)
    assert not store.take_turn("prune", 1000.0 + DAY_S - 1, DAY_S)
    assert store.take_turn("other", 1000.0, DAY_S)
    assert store.take_turn("prune", 1000.0 + DAY_S, DAY_S)


_WORKERS = """
import os, sys
from kept_calls import kept_of
from bridge.record_database import RecordDatabase, url_of
from bridge.record_store import RecordStore

def worker(first):
    database = RecordDatabase(url_of(sys.argv[1], ""), patience_s=10)
    database.open()
    for number in range(first, first + 15):
        RecordStore(database).write(kept_of(number))
        RecordStore(database).write(kept_of(1000))
    database.close()

children = []
for first in (100, 200, 300):
    if not (child := os.fork()):
        worker(first)
        os._exit(0)
    children.append(child)
sys.exit(max(os.waitpid(child, 0)[1] for child in children))
"""


def test_several_processes_make_the_tables_and_write_at_once(url: str) -> None:
    environ = {"PYTHONPATH": f"{MIGRATIONS.parent.parent}:{Path(__file__).parent}"}
    done = subprocess.run(
        [sys.executable, "-c", _WORKERS, url], env=environ, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    database = RecordDatabase(url_of(url, ""), patience_s=5)
    assert len(RecordStore(database).newest(EVERYBODY, 1000)) == 46
    database.close()


def test_a_database_of_a_newer_bridge_is_refused(url: str) -> None:
    database = RecordDatabase(url_of(url, ""), patience_s=5)
    database.open()
    with database.transaction() as connection:
        connection.execute(sql.text("UPDATE alembic_version SET version_num = '9999'"))
    for ask in (database.open, database.look):
        with pytest.raises(
            ConfigError, match=r"are of a newer bridge \(9999; this one knows up to \d+\): install that"
        ):
            ask()
    database.close()


def test_a_database_of_another_program_is_refused(url: str) -> None:
    database = RecordDatabase(url_of(url, ""), patience_s=5)
    database.open()
    with database.transaction() as connection:
        connection.execute(sql.text("UPDATE alembic_version SET version_num = '0a1b2c'"))
    with pytest.raises(ConfigError, match=r"of another program \(0a1b2c\): give the bridge a database of its own"):
        database.open()
    database.close()


def test_what_the_database_refuses_is_refused_whole_and_tells_no_secret(store: RecordStore) -> None:
    broken = kept_of(1)
    broken.turns[1]["role"] = None
    with pytest.raises(RecordsRefused) as error:
        store.write(broken)
    assert "4711" not in str(error.value)
    assert store.newest(EVERYBODY, 5) == [], "nothing of it, when one row is wrong"


def test_a_file_that_somebody_removes_is_made_again(tmp_path: Path) -> None:
    database = RecordDatabase(url_of("sqlite:///calls.db", str(tmp_path)), patience_s=1)
    assert not database.look()
    database.open()
    store = RecordStore(database)
    store.write(kept_of(1))
    for path in tmp_path.iterdir():
        path.unlink()
    with pytest.raises(RecordsAway, match="somebody has removed or replaced this file"):
        store.write(kept_of(2))
    database.open()
    assert store.write(kept_of(2))
    database.close()


def test_a_file_that_is_no_database_is_away(tmp_path: Path) -> None:
    (tmp_path / "calls.db").write_bytes(b"half of a backup" * 1000)
    database = RecordDatabase(url_of("sqlite:///calls.db", str(tmp_path)), patience_s=1)
    for ask in (database.open, database.look):
        with pytest.raises(RecordsAway, match="file is not a database"):
            ask()
    database.close()


def test_a_locked_file_is_waited_for_only_so_long(tmp_path: Path) -> None:
    first, second = (RecordDatabase(url_of("sqlite:///c.db", str(tmp_path)), patience_s=0.1) for _ in range(2))
    first.open()
    second.open()
    with first.transaction():
        assert RecordStore(second).newest(EVERYBODY, 1) == [], "who reads need not wait"
        with pytest.raises(RecordsAway, match="database is locked"):
            RecordStore(second).write(kept_of(1))
    first.close()
    second.close()


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("postgresql://me:secret@127.0.0.1:1/calls", "PostgreSQL database calls at 127.0.0.1: connection"),
        ("postgres://me:secret@/calls?host=/nowhere", "PostgreSQL database calls at /nowhere: connection"),
    ],
)
def test_a_server_that_is_not_there_is_away_and_its_password_hidden(url: str, says: str) -> None:
    database = RecordDatabase(url_of(url, ""), patience_s=1)
    with pytest.raises(RecordsAway) as error:
        database.open()
    assert says in str(error.value)
    assert "secret" not in str(error.value)
    database.close()


def test_a_file_that_can_not_be_there_is_the_operators_to_change(tmp_path: Path) -> None:
    (tmp_path / "data").touch()
    database = RecordDatabase(url_of("sqlite:///calls.db", str(tmp_path / "data")), patience_s=1)
    with pytest.raises(ConfigError, match=r"records.url: .*data.*: make the folder writable, choose another"):
        database.open()
    database.close()


async def test_the_doctor_looks_at_the_database_and_makes_nothing(url: str, tmp_path: Path) -> None:
    folder = tmp_path / "data"

    async def told(url: str = url) -> tuple[str, str]:
        finding = await check_records(load_config("", {}, {"server.data_dir": str(folder), "records.url": url}))
        return str(finding.verdict), finding.text + finding.remedy

    verdict, text = await told()
    assert (verdict, "makes its tables when it starts" in text) == ("ok", True)
    assert not folder.exists()
    database = RecordDatabase(url_of(url, ""), patience_s=5)
    database.open()
    assert "no calls yet" in (await told())[1]
    RecordStore(database).write(kept_of(1))
    assert "there are calls in it" in (await told())[1]
    with database.transaction() as connection:
        connection.execute(sql.text("UPDATE alembic_version SET version_num = '9999'"))
    database.close()
    verdict, text = await told()
    assert (verdict, "of a newer bridge" in text) == ("fail", True)
    verdict, text = await told("postgresql://me:secret@127.0.0.1:1/calls")
    assert (verdict, "records would wait on disk" in text, "secret" in text) == ("warn", True, False)
    assert await told("") == ("ok", 'none are kept: records.url is ""')
    folder.mkdir(exist_ok=True)
    (folder / "file").touch()
    folder /= "file"
    assert "this user may not write in" in (await told())[1]
