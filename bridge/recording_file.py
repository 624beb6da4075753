"""The WAV file of one recording, complete and readable after each write. Everything here blocks: run it in a thread.

The samples are written first and the sizes in the header behind them, so that a process that is killed leaves a file which
ends with its last write. Who fills the disk, or takes the file away, is told once, as a `RecordingError`.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Concatenate, ParamSpec

from bridge.errors import RecordingError
from bridge.recording import numbered
from bridge.wav import HEADER_BYTES, MAX_DATA_BYTES, wav_header

# Phone calls are nobody's business but the owner's and their group's.
_FILE_MODE, _FOLDER_MODE = 0o640, 0o750
_CHANNELS = 2
_ROW_BYTES = 2 * _CHANNELS
_NAMES_TRIED = 100

P = ParamSpec("P")


def _one_at_a_time(
    method: Callable[Concatenate[RecordingFile, P], None],
) -> Callable[Concatenate[RecordingFile, P], None]:
    @wraps(method)
    def when_free(file: RecordingFile, /, *arguments: P.args, **named: P.kwargs) -> None:
        with file._in_use:
            method(file, *arguments, **named)

    return when_free


class RecordingFile:
    """Made by `create`; then `write`, and at last `close` or `delete`. All raise `RecordingError`. From several threads one
    waits for the other, so a `close` behind a thread that hangs closes what that has left open."""

    def __init__(self, rate_hz: int, max_bytes: int = 0) -> None:
        self._rate_hz = rate_hz
        self._most = min(max_bytes - HEADER_BYTES, MAX_DATA_BYTES) if max_bytes else MAX_DATA_BYTES
        self._most -= self._most % _ROW_BYTES
        self._number = -1
        self._in_use = threading.RLock()
        self.path = ""
        self.data_bytes = 0

    @property
    def full(self) -> bool:
        """It has the size that it may have."""
        return self.data_bytes >= self._most

    @_one_at_a_time
    def create(self, path: str) -> None:
        """Make a new file, its folders too; another name by `numbered` where there is one of this name already."""
        try:
            Path(path).parent.mkdir(mode=_FOLDER_MODE, parents=True, exist_ok=True)
            for number in range(1, _NAMES_TRIED + 1):
                self.path = numbered(path, number)
                try:
                    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
                    self._number = os.open(self.path, flags, _FILE_MODE)
                    break
                except FileExistsError:
                    continue
            else:
                raise RecordingError(f"{path}: {_NAMES_TRIED} files of this name are there already")
            self._put(wav_header(self._rate_hz, _CHANNELS, 0), 0)
        except OSError as error:
            raise self._told(error) from error

    @_one_at_a_time
    def write(self, samples: bytes) -> None:
        """Add interleaved samples, as many as may be; what does not fit into `max_bytes` is left out (`full`). A file that
        can not be written is closed."""
        try:
            self._still_there()
            samples = samples[: self._most - self.data_bytes]
            try:
                self._put(samples, HEADER_BYTES + self.data_bytes)
            finally:
                self._put(wav_header(self._rate_hz, _CHANNELS, self.data_bytes), 0)
        except (OSError, RecordingError) as error:
            with contextlib.suppress(RecordingError):
                self.close()
            raise self._told(error) if isinstance(error, OSError) else error from error

    @_one_at_a_time
    def close(self) -> None:
        """Idempotent. Some file systems tell only now that something could not be written."""
        if self._number >= 0:
            number, self._number = self._number, -1
            try:
                os.close(number)
            except OSError as error:
                raise self._told(error) from error

    @_one_at_a_time
    def delete(self) -> None:
        """Close and remove it. That somebody else removed it is as good."""
        try:
            self.close()
        finally:
            try:
                Path(self.path).unlink(missing_ok=True)
            except OSError as error:
                raise self._told(error) from error

    def _still_there(self) -> None:
        """Writing into a file without a name would succeed until the last process that has it open ends."""
        if os.fstat(self._number).st_nlink == 0:
            raise RecordingError(f"{self.path}: somebody removed the file while it was written")

    def _put(self, data: bytes, at: int) -> None:
        """Write all of it; samples are counted as far as they were taken."""
        view = memoryview(data)
        while view:
            taken = os.pwrite(self._number, view, at)
            view, at = view[taken:], at + taken
            if at > HEADER_BYTES:
                self.data_bytes = (at - HEADER_BYTES) // _ROW_BYTES * _ROW_BYTES

    def _told(self, error: OSError) -> RecordingError:
        return RecordingError(f"{error.filename or self.path}: {error.strerror or error}")
