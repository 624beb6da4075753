"""How long calls are kept, by the settings, and which files may be deleted with them. Blocks: run it in a thread."""

from __future__ import annotations

import contextlib
import logging
import platform
from collections.abc import Iterable
from pathlib import Path

from bridge.config import Config
from bridge.record_store import Deletion, Keeping
from bridge.recording import SUFFIX, fixed_folder
from bridge.records import days_of

_log = logging.getLogger("bridge.records")


def keeping_of(config: Config) -> Keeping:
    """What `RecordStore.prune` is to keep, by the settings of this machine."""
    folders = {
        fixed_folder(agent.recording.file) for agent in config.agents.values() if agent.recording.by != "asterisk"
    }
    return Keeping(
        days_of_agent={name: days_of(agent.records, config.records) for name, agent in config.agents.items()},
        host=platform.node(),
        delete_file=lambda path: delete_recording(path, folders),
    )


def delete_recording(path: str, folders: Iterable[str]) -> Deletion:
    """Delete the file of a recording, if it is one of ours: a WAV file below a folder that some agent records into. Links
    are followed first, so that none leads out of there. Its own folder, a day's, goes with the last file in it."""
    try:
        real = Path(path).resolve()
        if not real.exists():
            return Deletion.NOT_THERE
        within = [folder for folder in map(_resolved, folders) if real.is_relative_to(folder)]
        if not within or real.suffix != SUFFIX or not real.is_file():
            _log.warning("%s is in no folder that an agent records into, or no recording: it is not deleted", path)
            return Deletion.NOT_OURS
        real.unlink()
        if real.parent not in within:
            with contextlib.suppress(OSError):  # not empty
                real.parent.rmdir()
    except OSError as error:
        _log.warning("%s cannot be deleted: %s", path, error.strerror or error)
        return Deletion.FAILED
    return Deletion.DELETED


def _resolved(folder: str) -> Path:
    return Path(folder).resolve()
