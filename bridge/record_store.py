"""Records written, found, read and pruned in their database. Everything here blocks: the bridge runs it in a thread."""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import sqlalchemy as sql
from sqlalchemy.dialects import postgresql, sqlite

from bridge.kept_call import KeptCall, Row
from bridge.record_database import RecordDatabase
from bridge.record_tables import OF_CALL, calls, upkeep

DAY_S = 86_400.0
# Calls that are read, or deleted, at a time.
_PAGE = 200
# A machine whose disk has a recording has so long to delete file and call; then anybody deletes the call.
OTHER_HOSTS_S = 7 * DAY_S


@dataclass(frozen=True, slots=True)
class CallFilter:
    """Which calls. `party` is looked for in both numbers; times are unix seconds; empty and None: any."""

    since_s: float | None = None
    until_s: float | None = None
    agent: str = ""
    party: str = ""
    reason: str = ""

    def conditions(self) -> list[sql.ColumnElement[bool]]:
        """For the WHERE of a statement on `calls`."""
        wanted: list[sql.ColumnElement[bool]] = []
        if self.since_s is not None:
            wanted.append(calls.c.began_at >= self.since_s)
        if self.until_s is not None:
            wanted.append(calls.c.began_at < self.until_s)
        if self.agent:
            wanted.append(calls.c.agent == self.agent)
        if self.reason:
            wanted.append(calls.c.reason == self.reason)
        if self.party:
            either = (column.contains(self.party, autoescape=True) for column in (calls.c.caller, calls.c.called))
            wanted.append(sql.or_(*either))
        return wanted


class Deletion(enum.Enum):
    """What became of the file of a recording."""

    DELETED = "deleted"
    NOT_THERE = "not there"
    NOT_OURS = "not ours"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Keeping:
    """For how many days calls are kept: by agent, and of all others what was in force when they were written. 0: for ever.

    `delete_file` is given the path of each recording that a bridge made. Where that FAILED, the call stays too, and is
    tried again; where the file is NOT_THERE and was made on another machine than `host`, the call waits for that one's
    `prune`.
    """

    days_of_agent: Mapping[str, int]
    host: str
    delete_file: Callable[[str], Deletion]


@dataclass(frozen=True, slots=True)
class Pruned:
    """What a `prune` has done. `waiting` calls are too old, and wait until their recordings can be deleted."""

    calls: int = 0
    files: int = 0
    waiting: int = 0


class RecordStore:
    """Statements on one database. All methods raise `RecordsAway` and `RecordsRefused`."""

    def __init__(self, database: RecordDatabase) -> None:
        self.database = database
        insert = sqlite.insert if database.is_sqlite else postgresql.insert
        self._insert_call = insert(calls).on_conflict_do_nothing(index_elements=["call_id", "began_at"])
        self._insert_upkeep = insert(upkeep)

    # Writing ---------------------------------------------------------------------------------------------------------

    def write(self, kept: KeptCall) -> bool:
        """Write one call, whole or not at all; False: it was there already."""
        with self.database.transaction() as connection:
            number = connection.execute(self._insert_call.returning(calls.c.id), kept.call).scalar()
            if number is None:
                return False
            for name, table in OF_CALL.items():
                rows: list[Row] = getattr(kept, name)
                if rows:
                    connection.execute(sql.insert(table), [{"call": number, **row} for row in rows])
            return True

    # Reading ---------------------------------------------------------------------------------------------------------

    def newest(self, wanted: CallFilter, limit: int) -> list[Row]:
        """Rows of `calls`, the newest first."""
        with self.database.transaction(reads=True) as connection:
            chosen = (
                sql.select(calls).where(*wanted.conditions()).order_by(calls.c.began_at.desc(), calls.c.id.desc())
            )
            return [dict(row) for row in connection.execute(chosen.limit(limit)).mappings()]

    def starting_with(self, call_id: str, limit: int = 10) -> list[Row]:
        """Rows of `calls` whose id begins so, the newest first."""
        with self.database.transaction(reads=True) as connection:
            chosen = sql.select(calls).where(calls.c.call_id.startswith(call_id.lower(), autoescape=True))
            newest = chosen.order_by(calls.c.began_at.desc()).limit(limit)
            return [dict(row) for row in connection.execute(newest).mappings()]

    def whole(self, row: Row) -> KeptCall:
        """Everything that is kept of a call, from its row of `calls`."""
        with self.database.transaction(reads=True) as connection:
            return self._with_rows(connection, [row])[0]

    def few_facts(self, wanted: CallFilter) -> Iterator[Row]:
        """What sums are made of, of all such calls: a part of the row of each, in no order."""
        columns = (
            calls.c.began_at, calls.c.agent, calls.c.called, calls.c.direction, calls.c.reason, calls.c.duration_s,
            calls.c.error_message, calls.c.cost_usd, calls.c.cost_is_complete, calls.c.turn_p50_ms,
        )  # fmt: skip
        with self.database.transaction(reads=True) as connection:
            chosen = sql.select(*columns).where(*wanted.conditions()).execution_options(yield_per=1000)
            for row in connection.execute(chosen).mappings():
                yield dict(row)

    def each(self, wanted: CallFilter) -> Iterator[KeptCall]:
        """All such calls with everything, the oldest first, some at a time: memory does not grow with their number. Those
        that are written meanwhile may be in it."""
        after: tuple[float, int] | None = None
        while True:
            chosen = sql.select(calls).where(*wanted.conditions()).order_by(calls.c.began_at, calls.c.id)
            if after is not None:
                began_at, number = after
                later = sql.and_(calls.c.began_at == began_at, calls.c.id > number)
                chosen = chosen.where(sql.or_(calls.c.began_at > began_at, later))
            with self.database.transaction(reads=True) as connection:
                rows = [dict(row) for row in connection.execute(chosen.limit(_PAGE)).mappings()]
                found = self._with_rows(connection, rows)
            yield from found
            if len(rows) < _PAGE:
                return
            after = rows[-1]["began_at"], rows[-1]["id"]

    def _with_rows(self, connection: sql.Connection, rows: Sequence[Row]) -> list[KeptCall]:
        numbers = [row["id"] for row in rows]
        lists: dict[int, dict[str, list[Row]]] = {number: {name: [] for name in OF_CALL} for number in numbers}
        for name, table in OF_CALL.items():
            chosen = sql.select(table).where(table.c.call.in_(numbers)).order_by(table.c.call, table.c.number)
            for row in connection.execute(chosen).mappings():
                lists[row["call"]][name].append({key: value for key, value in row.items() if key != "call"})
        return [
            KeptCall(call={key: value for key, value in row.items() if key != "id"}, **lists[row["id"]])
            for row in rows
        ]

    # Retention -------------------------------------------------------------------------------------------------------

    def take_turn(self, task: str, now_s: float, every_s: float) -> bool:
        """Whether it is ours to do what whoever comes first does, once in so long a time. Who is told so has taken it."""
        with self.database.transaction() as connection:
            new = self._insert_upkeep.values(task=task, done_at=now_s)
            due = upkeep.c.done_at <= now_s - every_s
            taken = new.on_conflict_do_update(index_elements=["task"], set_={"done_at": now_s}, where=due)
            return connection.execute(taken.returning(upkeep.c.task)).scalar() is not None

    def prune(self, keeping: Keeping, now_s: float) -> Pruned:
        """Delete what is older than it may be, with its recordings: the file first, then the call, so that no file is left
        without a call that tells of it."""
        done = Pruned()
        for batch in self._too_old(keeping, now_s):
            gone: list[int] = []
            files = waiting = 0
            for row in batch:
                outcome = Deletion.NOT_THERE
                if row["recording_path"] and row["recording_by"] == "bridge":
                    outcome = keeping.delete_file(row["recording_path"])
                    elsewhere = outcome is Deletion.NOT_THERE and row["host"] != keeping.host
                    if outcome is Deletion.FAILED or (elsewhere and row["overdue_s"] < OTHER_HOSTS_S):
                        waiting += 1
                        continue
                files += outcome is Deletion.DELETED
                gone.append(row["id"])
            if gone:
                with self.database.transaction(at_leisure=True) as connection:
                    # Not by the cascade alone, which SQLite wants to be asked for on each connection.
                    for table in OF_CALL.values():
                        connection.execute(sql.delete(table).where(table.c.call.in_(gone)))
                    connection.execute(sql.delete(calls).where(calls.c.id.in_(gone)))
            done = Pruned(done.calls + len(gone), done.files + files, done.waiting + waiting)
        return done

    def count_too_old(self, keeping: Keeping, now_s: float) -> int:
        """How many calls `prune` would look at."""
        return sum(len(batch) for batch in self._too_old(keeping, now_s))

    def _too_old(self, keeping: Keeping, now_s: float) -> Iterator[list[Row]]:
        """What there is to delete, some at a time."""
        own = [(calls.c.agent == agent, days) for agent, days in keeping.days_of_agent.items()]
        days = sql.case(*own, else_=calls.c.retention_days) if own else calls.c.retention_days
        with self.database.transaction(reads=True, at_leisure=True) as connection:
            in_use = connection.execute(sql.select(days.label("days")).distinct()).scalars().all()
        # One query for each number of days: each database has its own arithmetic of times.
        for number in filter(None, in_use):
            limit_s, after = now_s - number * DAY_S, 0
            columns = (calls.c.id, calls.c.began_at, calls.c.recording_path, calls.c.recording_by, calls.c.host)
            chosen = sql.select(*columns).where(days == number, calls.c.began_at < limit_s).order_by(calls.c.id)
            while True:
                with self.database.transaction(reads=True, at_leisure=True) as connection:
                    found = connection.execute(chosen.where(calls.c.id > after).limit(_PAGE)).mappings().all()
                if found:
                    after = found[-1]["id"]
                    yield [{**row, "overdue_s": limit_s - row["began_at"]} for row in found]
                if len(found) < _PAGE:
                    break
