"""What `doctor` asks of the database of records: whether it answers, and is one that this bridge can use. Makes nothing."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path

import trio

from bridge.config import Config
from bridge.errors import BridgeError, RecordsAway
from bridge.findings import Finding, fail, ok, warn
from bridge.record_database import RecordDatabase, url_of
from bridge.record_store import CallFilter, RecordStore

_PATIENCE_S = 5.0
_NAME = "records"


async def check_records(config: Config) -> Finding:
    """Whether ended calls can be kept."""
    if not config.records.url:
        return ok(_NAME, 'none are kept: records.url is ""')
    return await trio.to_thread.run_sync(partial(_look, config), abandon_on_cancel=True)


def _look(config: Config) -> Finding:
    folder = config.server.data_dir
    try:
        database = RecordDatabase(url_of(config.records.url, folder), patience_s=_PATIENCE_S)
    except BridgeError as error:
        return fail(_NAME, str(error), "see docs/records.md")
    try:
        for path in [folder, *([str(Path(str(database.url.database)).parent)] if database.is_sqlite else [])]:
            if not _may_write(Path(path)):
                return fail(
                    _NAME,
                    f"this user may not write in {path}",
                    'make it writable, choose another folder by server.data_dir, or keep none by records.url = ""',
                )
        if not database.look():
            return ok(_NAME, f"{database.name}: the bridge makes its tables when it starts")
        newest = RecordStore(database).newest(CallFilter(), 1)
    except RecordsAway as error:
        return warn(
            _NAME,
            f"{error}; records would wait on disk in {folder}",
            "see that the database runs, lets this user in, and stands right in BRIDGE_RECORDS_URL (records.url)",
        )
    except BridgeError as error:
        return fail(_NAME, str(error), "docs/records.md tells of the tables")
    finally:
        database.close()
    return ok(_NAME, f"{database.name}: {'there are calls in it' if newest else 'no calls yet'}")


def _may_write(folder: Path) -> bool:
    """In the folder, or in the one that it would be made in."""
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    return folder.is_dir() and os.access(folder, os.W_OK | os.X_OK)
