"""Keeps the record of every ended call: in the database at once, or on disk while the database is away. A `CallWatcher`.

    call ended -> redacted -> written, in one transaction -> the call counts as ended
                     | the database is away, locked, or slower than PATIENCE_S
                     `-> a file of the spool, synced -> the call counts as ended
                            `- written as soon as the database answers, once, however often it is tried

So a process that is killed loses no call that counts as ended, and the next one writes what the last one left in the spool.
While the database is known to be away nobody waits for it. What it refuses for good goes into a folder `refused`, and into
the log. All of it happens in threads: `docs/records.md` has what the event loop sees of it.
"""

from __future__ import annotations

import contextlib
import logging
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import msgspec
import trio

from bridge.agent import Agent
from bridge.call_record import CallRecord
from bridge.call_recording import InThread
from bridge.config import Config
from bridge.errors import BridgeError, ConfigError, RecordsAway, RecordsError, RecordsRefused, SpoolError
from bridge.kept_call import KeptCall, kept
from bridge.live_call import LiveCall
from bridge.metrics import Metrics
from bridge.record_database import RecordDatabase, url_of
from bridge.record_retention import keeping_of
from bridge.record_store import DAY_S, RecordStore
from bridge.records import AgentRecords, days_of
from bridge.spool import Kept, Spool

_log = logging.getLogger("bridge.records")

PATIENCE_S = 1.0
"""How long the end of a call waits for the database. Well below `limits.farewell_s`: the spool needs some of that too."""
START_S = 10.0
"""How long the start waits for it, before calls are taken and records wait on disk."""
RETRY_S, MOST_RETRY_S = 5.0, 60.0
PRUNE_EVERY_S = DAY_S
_LOOK_S = 3600.0
# Threads that write at once: a database that hangs leaves the others to the recordings. SQLite has one writer anyway.
_WRITERS = 3
_CLOSE_S = 2.0


@dataclass(slots=True)
class RecordCounts:
    """Since the process began. `spooled` went to the disk first, and count as written when they are; `failed` are in no
    database, and will not be. `waiting` are on the disk now."""

    written: int = 0
    spooled: int = 0
    failed: int = 0
    waiting: int = 0

    def show(self, metrics: Metrics) -> None:
        """To Prometheus."""
        metrics.counted("records_written", "Records of calls written to their database.", lambda: self.written)
        metrics.counted("records_spooled", "Records kept on disk first: the database was away.", lambda: self.spooled)
        metrics.counted("records_failed", "Records in no database: refused, or no room on disk.", lambda: self.failed)
        waiting = metrics.gauge("records_waiting", "Records on disk that wait for their database.")
        waiting.set_function(lambda: self.waiting)


class RecordKeeper:
    """For one process."""

    def __init__(self, config: Config, metrics: Metrics, run_blocking: InThread) -> None:
        """Raises `ConfigError` for a database that can not be used here."""
        self._config = config
        self._run = run_blocking
        self.counts = RecordCounts()
        self.counts.show(metrics)
        data_dir = config.server.data_dir
        self._folder = Path(data_dir) / "records"
        # A statement gives up before its thread is given up.
        self._database = RecordDatabase(url_of(config.records.url, data_dir), patience_s=PATIENCE_S * 0.8)
        self._store = RecordStore(self._database)
        self._spool = Spool(self._folder)
        self._keeping = keeping_of(config)
        self._settings: dict[str, AgentRecords] = {}
        self._away = False
        self._writers = trio.CapacityLimiter(_WRITERS)
        self._wanted = trio.Event()

    def settings_changed(self, config: Config) -> None:
        """Agents may have their records kept otherwise, and otherwise long, from now on."""
        self._config, self._keeping = config, keeping_of(config)

    # A call ----------------------------------------------------------------------------------------------------------

    def begins(self, call: LiveCall) -> None:
        """Its agent's settings hold for it, whatever they are when it ends."""
        self._settings[call.call_id] = call.agent.records

    async def ended(self, record: CallRecord) -> None:
        """Returns when the record is in the database or on the disk."""
        config = self._config
        agent = config.agents.get(record.agent, Agent())
        settings = self._settings.pop(record.call_id, agent.records)
        call = await self._run(
            partial(
                kept,
                record,
                settings,
                retention_days=days_of(settings, config.records),
                host=self._keeping.host,
            )
        )
        if not self._away and await self._written(call):
            return
        await self._put(call)

    async def _written(self, call: KeptCall) -> bool:
        """Whether it needs no spool."""
        try:
            with trio.fail_after(PATIENCE_S):
                async with self._writers:
                    await self._run(partial(self._store.write, call))
        except RecordsAway as error:
            self._goes_away(str(error))
        except trio.TooSlowError:
            self._goes_away(f"{self._database.name}: no answer within {PATIENCE_S:g} s")
        except Exception as error:
            await self._is_refused(_encoded(call), call.call["call_id"], error)
            return True
        else:
            self.counts.written += 1
            return True
        return False

    async def _put(self, call: KeptCall) -> None:
        try:
            await self._run(partial(self._spool.put, _encoded(call), call.call["call_id"]))
        except SpoolError as error:
            self.counts.failed += 1
            _log.error("the record of a call is lost: %s", error)
            return
        self.counts.spooled += 1
        self._count_waiting()
        self._wanted.set()

    async def _is_refused(self, content: bytes, call_id: str, error: Exception) -> None:
        """No use in asking again: kept as a file, for people."""
        self.counts.failed += 1
        exc_info = None if isinstance(error, RecordsRefused | msgspec.MsgspecError) else error
        _log.error("the record of call %s is not written: %s", call_id, error, exc_info=exc_info)

        def set_aside() -> None:
            refused = Spool(self._folder / "refused")
            try:
                refused.open()
                refused.put(content, call_id)
            finally:
                refused.close()

        try:
            await self._run(set_aside)
        except SpoolError as trouble:
            _log.error("the record of a call is lost: %s", trouble)

    def _goes_away(self, why: str) -> None:
        if not self._away:
            self._away = True
            _log.warning("records wait on disk until the database is back: %s", why)
        self._wanted.set()

    def _count_waiting(self) -> None:
        self.counts.waiting = self._spool.counts.files

    # Beside the calls ------------------------------------------------------------------------------------------------

    async def run(self, task_status: trio.TaskStatus[None]) -> None:
        """Open the database, and keep it in order. Raises `ConfigError` before it has started."""
        try:
            await self._begin()
            task_status.started()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._catch_up)
                nursery.start_soon(self._prune_daily)
        finally:
            with trio.move_on_after(_CLOSE_S, shield=True):
                await self._run(self._database.close)
            self._spool.close()

    async def _begin(self) -> None:
        try:
            left = await self._run(self._open_spool)
        except SpoolError as error:
            raise ConfigError(
                f"server.data_dir: {error}; the records of calls wait there while their database is away: make it "
                'writable, choose another folder, or keep no records by records.url = ""',
                place="server.data_dir",
            ) from error
        try:
            with trio.fail_after(START_S):
                await self._run(self._database.open)
        except RecordsAway as error:
            self._goes_away(str(error))
        except trio.TooSlowError:
            # A name that nobody resolves, or another worker that changes large tables: not for callers to wait for.
            self._goes_away(f"{self._database.name}: no answer within {START_S:g} s")
        self._count_waiting()
        if left:
            _log.info("records of a process before this one wait on disk", extra={"facts": {"records": len(left)}})

    def _open_spool(self) -> list[Kept]:
        # Before anybody makes it for all to read.
        with contextlib.suppress(OSError):
            self._folder.parent.mkdir(mode=0o750, parents=True, exist_ok=True)
            self._folder.mkdir(mode=0o750, exist_ok=True)
        return self._spool.open()

    async def _catch_up(self) -> None:
        """Write what waits on disk, and find out when the database is back."""
        pause_s = 0.0
        while True:
            await trio.sleep(pause_s)
            try:
                if self._away:
                    await self._run(self._database.open)
                await self._run(self._spool.adopt)
                for entry in self._spool.entries():
                    await self._write_spooled(entry)
                pause_s = RETRY_S
                if self._away:
                    self._away = False
                    _log.info("the database of records is back")
                    continue  # some may have come to the disk meanwhile
            except (RecordsError, ConfigError, SpoolError) as error:
                pause_s = min(MOST_RETRY_S, max(RETRY_S, pause_s * 2))
                _log.log(logging.DEBUG if isinstance(error, RecordsAway) else logging.ERROR, "%s", error)
            except Exception:  # of a library's, which must not end this for all later records
                pause_s = min(MOST_RETRY_S, max(RETRY_S, pause_s * 2))
                _log.exception("a defect of the bridge: records that wait on disk are tried again in %g s", pause_s)
            self._count_waiting()
            if not self._spool.counts.files and not self._away:
                self._wanted = trio.Event()
                with trio.move_on_after(_LOOK_S):  # and then for what another process may have left
                    await self._wanted.wait()

    async def _write_spooled(self, entry: Kept) -> None:
        """Raises `RecordsAway`, and `SpoolError`."""
        content = await self._run(partial(self._spool.read, entry.name))
        if content is not None:
            try:
                call = msgspec.json.decode(content, type=KeptCall)
                await self._run(partial(self._store.write, call))
            except RecordsAway:
                raise
            except Exception as error:
                await self._is_refused(content, entry.name, error)
            else:
                self.counts.written += 1
            await self._run(partial(self._spool.remove, entry.name))
        self._count_waiting()

    async def _prune_daily(self) -> None:
        """Once a day on each machine, by whichever of its workers looks first."""
        task = f"prune {self._keeping.host}"
        while True:
            if not self._away:
                try:
                    now_s = time.time()
                    if await self._run(partial(self._store.take_turn, task, now_s, PRUNE_EVERY_S)):
                        done = await self._run(partial(self._store.prune, self._keeping, now_s))
                        if done.calls or done.waiting:
                            facts = {"calls": done.calls, "recordings": done.files, "waiting": done.waiting}
                            _log.info("old calls deleted", extra={"facts": facts})
                except BridgeError as error:
                    _log.warning("old calls are not deleted now: %s", error)
                except Exception:
                    _log.exception("a defect of the bridge: old calls are not deleted now")
            await trio.sleep(_LOOK_S)


def _encoded(call: KeptCall) -> bytes:
    return msgspec.json.encode(call)
