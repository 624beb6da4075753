"""The database of records: its URL understood, connections set up, tables brought up to date. Everything here blocks.

SQLite: WAL, so that readers and the writer do not wait for each other; each commit is synced, so that it outlives a loss of
power; a writer takes the lock when it begins (`BEGIN IMMEDIATE`): one that asks for it in the middle is refused at once.
PostgreSQL: psycopg, with limits for connecting and for each statement, so that a thread comes back from a server that is
gone. Errors hold no values: those are what people said.
"""

from __future__ import annotations

import fcntl
import logging
import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import resources
from pathlib import Path
from typing import Any

import sqlalchemy as sql
from sqlalchemy import event, exc

from bridge.config import masked_url
from bridge.errors import ConfigError, RecordsAway, RecordsRefused
from bridge.record_tables import REVISION
from bridge.records import POSTGRESQL

_log = logging.getLogger("bridge.records")

# How long workers that start together wait for the one that migrates.
MIGRATION_S = 60.0
# For one statement that nobody waits for.
LEISURE_S = 60.0
# A number that nobody else takes for a lock in this database: "bridge" as letters of a telephone.
_LOCK = 274343
_FOLDER_MODE, _FILE_MODE = 0o750, 0o640
READS = {"reads": True}
"""The execution options of a connection that only reads."""


def url_of(url: str, data_dir: str) -> sql.URL:
    """`records.url` with its driver; a relative SQLite file in `data_dir`. Raises `ConfigError`."""
    scheme, _, rest = url.partition("://")
    try:
        if scheme in POSTGRESQL:
            return sql.make_url(f"postgresql+psycopg://{rest}")
        found = sql.make_url(url)
        return found.set(database=str((Path(data_dir) / str(found.database)).absolute()))
    except (exc.ArgumentError, ValueError) as error:
        raise ConfigError(f"records.url: {masked_url(url)} is no URL of a database", place="records.url") from error


class RecordDatabase:
    """Connections to one database. `open` or `look` first; all methods may be used by several threads at once.

    `patience_s`: how long one statement, or the lock of another writer, may take.
    """

    def __init__(self, url: sql.URL, *, patience_s: float) -> None:
        self.url = url
        self.is_sqlite = url.get_backend_name() == "sqlite"
        self._patience_s = patience_s
        self._file: tuple[int, int] | None = None
        try:
            self._engine = self._sqlite() if self.is_sqlite else self._postgresql()
        except ImportError as error:
            raise ConfigError(
                "records.url: PostgreSQL needs psycopg: pip install 'asterisk-realtime-bridge[postgres]'",
                place="records.url",
            ) from error

    @property
    def name(self) -> str:
        """For messages: where it is, without a password."""
        if self.is_sqlite:
            return str(self.url.database)
        return (
            f"PostgreSQL database {self.url.database} at {self.url.host or self.url.query.get('host') or 'localhost'}"
        )

    def _sqlite(self) -> sql.Engine:
        # No pool: whoever is still at work in a thread when the database is closed would give an open file back to nobody.
        engine = sql.create_engine(
            self.url, connect_args={"timeout": self._patience_s}, poolclass=sql.NullPool, hide_parameters=True
        )

        @event.listens_for(engine, "connect")
        def _connected(connection: Any, _record: Any) -> None:
            # No transactions by the driver's own rules, which begin none for a SELECT or a CREATE TABLE.
            connection.isolation_level = None
            connection.execute("PRAGMA foreign_keys = ON")

        @event.listens_for(engine, "begin")
        def _begins(connection: sql.Connection) -> None:
            reads = connection.get_execution_options().get("reads")
            connection.exec_driver_sql("BEGIN" if reads else "BEGIN IMMEDIATE")

        return engine

    def _postgresql(self) -> sql.Engine:
        patience_ms = round(self._patience_s * 1000)
        ours = {
            "connect_timeout": str(max(2, round(self._patience_s))),  # libpq takes nothing below 2
            "tcp_user_timeout": str(patience_ms),
            "application_name": "realtime-bridge",
            "options": f"-c statement_timeout={patience_ms} -c lock_timeout={patience_ms}",
        }
        arguments = {name: value for name, value in ours.items() if name not in self.url.query}
        # pre_ping: a connection that a firewall or a restart has ended is exchanged, not told as an error.
        return sql.create_engine(
            self.url,
            connect_args=arguments,
            pool_size=4,
            max_overflow=4,
            pool_timeout=self._patience_s,
            pool_pre_ping=True,
            hide_parameters=True,
        )

    @contextmanager
    def transaction(self, *, reads: bool = False, at_leisure: bool = False) -> Iterator[sql.Connection]:
        """A connection in a transaction, committed at the end. `at_leisure`: its statements may take a minute. Raises
        `RecordsAway` where another try may succeed, `RecordsRefused` where the database will not have what was asked."""
        with self.told():
            self._check_file()
            connection = self._engine.connect()
            with connection:
                if reads:
                    connection = connection.execution_options(**READS)
                with connection.begin():
                    if at_leisure and not self.is_sqlite:
                        connection.exec_driver_sql(f"SET LOCAL statement_timeout = {round(LEISURE_S * 1000)}")
                    yield connection

    def _check_file(self) -> None:
        """What is written into a file that somebody has removed is gone with the process. Raises `RecordsAway`."""
        if self._file is not None and self._file != _identity(self.url.database):
            self._engine.dispose()
            self._file = None
            raise RecordsAway(f"{self.name}: somebody has removed or replaced this file; it is opened again")

    @contextmanager
    def told(self) -> Iterator[None]:
        """What goes wrong with the database inside, as our own errors."""
        try:
            yield
        except (exc.OperationalError, exc.InterfaceError, exc.InternalError, exc.TimeoutError, OSError) as error:
            raise RecordsAway(f"{self.name}: {_reason(error)}") from error
        except exc.ProgrammingError as error:  # no such table, no right to it: somebody else can change that
            raise RecordsAway(f"{self.name}: {_reason(error)}") from error
        except sqlite3.Error as error:  # from what is asked of the driver itself: no database, damaged, read-only
            raise RecordsAway(f"{self.name}: {_reason(error)}") from error
        except exc.SQLAlchemyError as error:
            # DatabaseError itself, and none of its kinds: SQLite's word for a file that is damaged, or no database.
            kind = RecordsAway if type(error) is exc.DatabaseError else RecordsRefused
            raise kind(f"{self.name}: {_reason(error)}") from error

    def open(self) -> None:
        """Make what is missing: folder, file, tables; bring older tables up to date, one process at a time. Raises
        `RecordsAway`, and `ConfigError` for a file that can not be used or tables that a newer bridge has made."""
        try:
            with self.told(), self._alone() as connection:
                found = self._revision(connection)
                if found != REVISION:
                    self._migrate(connection, found)
                    _log.info("tables of records made" if found is None else "tables of records brought up to date")
        except RecordsAway:
            self._engine.dispose()  # else the next try would look at the same open file, whatever stands there then
            raise
        self._file = _identity(self.url.database) if self.is_sqlite else None

    def look(self) -> bool:
        """Whether there are tables of ours; then older ones are brought up to date. Raises as `open` does."""
        if self.is_sqlite and not Path(str(self.url.database)).exists():
            return False
        with self.transaction(reads=True) as connection:
            found = self._revision(connection)
        if found not in (None, REVISION):
            self.open()
        return found is not None

    def close(self) -> None:
        """Give up all connections. Idempotent."""
        self._engine.dispose()

    def _migrate(self, connection: sql.Connection, found: str | None) -> None:
        logging.getLogger("alembic").setLevel(logging.WARNING)  # we tell it in our words
        # 0.15 s to import, and needed at the first start and after an update only.
        from alembic import command  # noqa: PLC0415
        from alembic.config import Config  # noqa: PLC0415
        from alembic.util.exc import CommandError  # noqa: PLC0415

        settings = Config()
        settings.set_main_option("script_location", str(resources.files("bridge") / "migrations"))
        settings.attributes["connection"] = connection
        try:
            command.upgrade(settings, "head")
        except CommandError as error:
            raise ConfigError(
                f"records.url: {self.name} has a table alembic_version of another program ({found}): give the bridge a "
                "database of its own",
                place="records.url",
            ) from error

    def _revision(self, connection: sql.Connection) -> str | None:
        """The newest migration that the tables have seen; None: there are none of ours. Raises `ConfigError`."""
        if not sql.inspect(connection).has_table("alembic_version"):
            return None
        found = connection.execute(sql.text("SELECT version_num FROM alembic_version")).scalar()
        if found is not None and str(found).isdecimal() and str(found) > REVISION:
            raise ConfigError(
                f"records.url: the tables in {self.name} are of a newer bridge ({found}; this one knows up to {REVISION}): "
                "install that version again, or give another database",
                place="records.url",
            )
        return None if found is None else str(found)

    @contextmanager
    def _alone(self) -> Iterator[sql.Connection]:
        """A connection in a transaction, for one process at a time."""
        if self.is_sqlite:
            with self._folder_locked(), self._engine.connect() as connection, connection.begin():
                yield connection
        else:
            with self._engine.connect() as connection, connection.begin():
                connection.exec_driver_sql(f"SET LOCAL lock_timeout = {round(MIGRATION_S * 1000)}")
                connection.exec_driver_sql(f"SET LOCAL statement_timeout = {round(MIGRATION_S * 1000)}")
                connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_LOCK})")
                yield connection

    @contextmanager
    def _folder_locked(self) -> Iterator[None]:
        """The change to WAL is refused while others use the file, whatever our patience: so the folder is locked first."""
        path = Path(str(self.url.database))
        try:
            path.parent.mkdir(mode=_FOLDER_MODE, parents=True, exist_ok=True)
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, _FILE_MODE))
            folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise ConfigError(
                f"records.url: {error.filename or path}: {error.strerror}; the records of calls are to be kept there: "
                'make the folder writable, choose another by server.data_dir, or keep none by records.url = ""',
                place="records.url",
            ) from error
        try:
            give_up_at = time.monotonic() + MIGRATION_S
            while True:
                try:
                    fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if time.monotonic() > give_up_at:
                        raise RecordsAway(f"{path.parent}: another process has had it locked for too long") from None
                    time.sleep(0.02)
            with self._engine.connect() as connection:
                raw: Any = connection.connection.dbapi_connection
                raw.execute("PRAGMA journal_mode = WAL")
            yield
        finally:
            os.close(folder)


def _reason(error: BaseException) -> str:
    """The driver's own first line, without the statement and its values: those are what people said."""
    told = str(getattr(error, "orig", None) or error).strip().splitlines()
    return told[0] if told else type(error).__name__


def _identity(path: str | None) -> tuple[int, int] | None:
    try:
        found = Path(str(path)).stat()
    except FileNotFoundError:
        return 0, 0
    return found.st_dev, found.st_ino
