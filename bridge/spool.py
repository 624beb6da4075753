"""A folder of JSON files that are to be delivered or stored later, and outlive the process. Everything here blocks: run it
in a thread. Several threads may use one spool.

A file is written under a name that begins with a dot, synced, and then renamed, so that a name without a dot stands for a
whole file. Whatever a process that was killed left half-way is looked at by the next one: a whole JSON object is taken in,
anything else is moved to the folder `damaged` and told as an error, never deleted and never tried again.

Each process has a folder of its own below the spool's: the first of `1`, `2`, ... that nobody holds a lock on (flock, which
ends with the process however it ends). So a restarted process comes into the folder of the dead one, and `adopt` takes what
is in other folders that nobody holds.

Full is a number of files and of bytes: then `put` refuses what is new (`SpoolFull`, counted) and keeps what was promised.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import re
import secrets
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import msgspec

from bridge.errors import SpoolError

_log = logging.getLogger("bridge.spool")

MOST_FILES = 10_000
MOST_BYTES = 200_000_000
# What people said is nobody's business but the owner's and their group's.
_FILE_MODE, _FOLDER_MODE = 0o640, 0o750
_MOST_FOLDERS = 1000
_NAME = re.compile(r"(\d{13})-(\d{6})-[0-9a-f]{6}(-[\w.-]{1,80})?\.json", re.ASCII)
_LABEL = re.compile(r"[\w.-]{0,80}", re.ASCII)
_DAMAGED = "damaged"


class SpoolFull(SpoolError):
    """The spool holds as much as it may; nothing was kept."""


@dataclass(frozen=True, slots=True)
class Kept:
    """A file of the spool. `name` is unique, and begins with the time at which it was put, so that names sort by age."""

    name: str
    size: int

    @property
    def put_unix_s(self) -> float:
        """When it was put, by the clock of the process that did."""
        return int(self.name[:13]) / 1000


@dataclass(frozen=True, slots=True)
class SpoolCounts:
    """How it is. `refused` and `damaged` count since this process began."""

    files: int
    bytes: int
    refused: int
    damaged: int


class Spool:
    """`open` it before anything else, `close` it at the end. All methods but `entries` and `counts` raise `SpoolError`."""

    def __init__(
        self,
        folder: Path,
        *,
        most_files: int = MOST_FILES,
        most_bytes: int = MOST_BYTES,
        unix_s: Callable[[], float] = time.time,
    ) -> None:
        self._parent = folder
        self._most_files, self._most_bytes = most_files, most_bytes
        self._unix_s = unix_s
        self._guard = threading.Lock()
        self._kept: dict[str, int] = {}
        self._bytes = self._refused = self._damaged = 0
        self._last_ms = self._number = 0
        self._token = secrets.token_hex(3)
        self._lock = -1
        self._own: Path | None = None

    # Opening ---------------------------------------------------------------------------------------------------------

    @property
    def folder(self) -> Path:
        """Our own folder, while it is open; else the one of all."""
        return self._own or self._parent

    def open(self) -> list[Kept]:
        """Take a folder of our own; returns what a process before us left in it, oldest first."""
        with self._told(self._parent):
            for number in range(1, _MOST_FOLDERS + 1):
                own = self._parent / str(number)
                own.mkdir(mode=_FOLDER_MODE, parents=True, exist_ok=True)
                if (lock := _locked(own)) is not None:
                    self._lock, self._own = lock, own
                    return self._take_in(own)
        raise SpoolError(f"{self._parent}: {_MOST_FOLDERS} processes have folders in it")

    def adopt(self) -> list[Kept]:
        """Take what dead processes left in other folders, as far as there is room; returns it, oldest first."""
        own = self._folder()
        found: list[Kept] = []
        with self._told(self._parent):
            others = [other for other in self._parent.iterdir() if other.name.isdecimal() and other != own]
            for other in sorted(others, key=lambda it: int(it.name)):
                if _empty(other) or (lock := _locked(other)) is None:
                    continue
                try:
                    found += self._take_in(other)
                finally:
                    os.close(lock)
        return sorted(found, key=lambda it: it.name)

    def close(self) -> None:
        """Give the folder up, with what is in it. Idempotent."""
        if self._lock >= 0:
            lock, self._lock, self._own = self._lock, -1, None
            os.close(lock)

    # Its files -------------------------------------------------------------------------------------------------------

    def put(self, content: bytes, label: str = "", *, sync: bool = True) -> Kept:
        """Keep `content`, one JSON object, and return when it is kept. `label` (letters, digits, _ . -) is for people who
        look into the folder. Without `sync` it outlives the process, but perhaps not a loss of power. Raises `SpoolFull`.
        """
        if not _LABEL.fullmatch(label):
            raise SpoolError(f"{label!r} can be no part of a file's name")
        own = self._folder()
        with self._guard:
            if len(self._kept) >= self._most_files or self._bytes + len(content) > self._most_bytes:
                self._refused += 1
                raise SpoolFull(
                    f"{self._parent}: full, with {len(self._kept)} files of {self._bytes} bytes; what is new is lost"
                )
            self._last_ms = max(int(self._unix_s() * 1000), self._last_ms)
            self._number += 1
            name = f"{self._last_ms:013d}-{self._number % 1_000_000:06d}-{self._token}{label and '-'}{label}.json"
            self._add(name, len(content))
        try:
            with self._told(own):
                _write(own, name, content, sync)
        except SpoolError:
            self._drop(name)
            raise
        return Kept(name, len(content))

    def read(self, name: str) -> bytes | None:
        """The content of a file. None: it is gone or damaged, which was told, and it is no longer in the spool."""
        path = self._folder() / name
        with self._told(path):
            try:
                content = path.read_bytes()
            except FileNotFoundError:
                self._drop(name)
                _log.error("%s: somebody removed this file before it was delivered", path)
                return None
            if _whole(content):
                return content
            self._move_aside(path)
        self._drop(name)
        return None

    def set_aside(self, name: str) -> None:
        """It is no message of ours, or can not be read: it goes to the folder `damaged`, which is told as an error."""
        path = self._folder() / name
        with self._told(path):
            self._move_aside(path)
        self._drop(name)

    def remove(self, name: str) -> None:
        """It has been delivered, or was given up. That it is gone already is as good."""
        path = self._folder() / name
        with self._told(path):
            path.unlink(missing_ok=True)
        self._drop(name)

    def entries(self) -> list[Kept]:
        """What is kept, oldest first."""
        with self._guard:
            return [Kept(name, size) for name, size in sorted(self._kept.items())]

    @property
    def counts(self) -> SpoolCounts:
        with self._guard:
            return SpoolCounts(len(self._kept), self._bytes, self._refused, self._damaged)

    # Inside ----------------------------------------------------------------------------------------------------------

    def _folder(self) -> Path:
        if self._own is None:
            raise SpoolError(f"{self._parent}: not open")
        return self._own

    def _take_in(self, folder: Path) -> list[Kept]:
        """What is in a folder that we hold the lock of; from another folder than ours it is moved into ours."""
        own = self._folder()
        found: list[Kept] = []
        for path in sorted(folder.iterdir()):
            name = path.name.removeprefix(".")
            if not _NAME.fullmatch(name):
                continue
            size = path.stat().st_size
            if folder != own and not self._has_room(size):
                _log.warning("%s: the spool is full, so what is in this folder waits", folder)
                break
            if path.name != name and not _whole(path.read_bytes()):
                self._move_aside(path)
                continue
            if path != own / name:
                path.rename(own / name)
            with self._guard:
                self._add(name, size)
                # What is put from now on comes after it, whatever became of the clock.
                self._last_ms = max(self._last_ms, int(name[:13]) + 1)
            found.append(Kept(name, size))
        if found:
            _sync_folder(own)
        return sorted(found, key=lambda it: it.name)

    def _has_room(self, size: int) -> bool:
        with self._guard:
            return len(self._kept) < self._most_files and self._bytes + size <= self._most_bytes

    def _move_aside(self, path: Path) -> None:
        """It can not be read, and may tell somebody what it was."""
        aside = self._parent / _DAMAGED
        aside.mkdir(mode=_FOLDER_MODE, exist_ok=True)
        path.rename(aside / path.name.removeprefix("."))
        with self._guard:
            self._damaged += 1
        _log.error(
            "%s: half-written by a process that was killed, or damaged; it is not delivered, see %s", path, aside
        )

    def _add(self, name: str, size: int) -> None:
        self._bytes += size - self._kept.get(name, 0)
        self._kept[name] = size

    def _drop(self, name: str) -> None:
        with self._guard:
            self._bytes -= self._kept.pop(name, 0)

    @contextlib.contextmanager
    def _told(self, path: Path) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise SpoolError(f"{error.filename or path}: {error.strerror or error}") from error


def _write(folder: Path, name: str, content: bytes, sync: bool) -> None:
    unfinished = folder / f".{name}"
    number = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, _FILE_MODE)
    try:
        try:
            view = memoryview(content)
            while view:
                view = view[os.write(number, view) :]
            if sync:
                os.fsync(number)
        finally:
            os.close(number)
        unfinished.rename(folder / name)
    except OSError:
        with contextlib.suppress(OSError):
            unfinished.unlink(missing_ok=True)
        raise
    if sync:
        _sync_folder(folder)


def _sync_folder(folder: Path) -> None:
    """A new name is on the disk only when its folder is."""
    number = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(number)
    finally:
        os.close(number)


def _locked(folder: Path) -> int | None:
    """The lock of a folder, held until it is closed; None: another process has it."""
    lock = os.open(folder / "lock", os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, _FILE_MODE)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        return None
    except BaseException:
        os.close(lock)
        raise
    return lock


def _empty(folder: Path) -> bool:
    return not any(_NAME.fullmatch(path.name.removeprefix(".")) for path in _files(folder))


def _files(folder: Path) -> Iterable[Path]:
    return folder.iterdir() if folder.is_dir() else ()


def _whole(content: bytes) -> bool:
    """Whether it is one JSON object: a beginning of one never is."""
    try:
        return isinstance(msgspec.json.decode(content), dict)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return False
