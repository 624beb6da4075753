"""The folder of what is to be delivered later: what it keeps, what full means, and kill -9 at each step."""

from __future__ import annotations

import logging
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest

from bridge.errors import SpoolError
from bridge.spool import Kept, Spool, SpoolFull

Made = Callable[..., Spool]


@pytest.fixture
def spool(tmp_path: Path) -> Iterator[Made]:
    """Makes spools in one folder, each opened, with what was found at `found`."""
    made: list[Spool] = []

    def make(**limits: int) -> Spool:
        it = Spool(tmp_path / "hooks", unix_s=lambda: 1000.0, **limits)
        made.append(it)
        it.open()
        return it

    yield make
    for it in made:
        it.close()


def content(n: int) -> bytes:
    return msgspec.json.encode({"n": n})


def numbers(spool: Spool, entries: list[Kept] | None = None) -> list[int]:
    read = [spool.read(kept.name) for kept in (spool.entries() if entries is None else entries)]
    return [msgspec.json.decode(it)["n"] for it in read if it is not None]


def test_first_in_first_out(spool: Made) -> None:
    it = spool()
    names = [it.put(content(n), "call-1").name for n in range(3)]
    assert names == sorted(set(names))
    assert "call-1" in names[0]
    assert numbers(it) == [0, 1, 2]
    assert it.entries()[0].put_unix_s == 1000.0
    it.remove(names[0])
    it.remove(names[0])
    assert numbers(it) == [1, 2]
    assert (it.counts.files, it.counts.bytes) == (2, 2 * len(content(0)))


def test_full_is_a_number_of_files_or_of_bytes_and_refuses_what_is_new(spool: Made) -> None:
    it = spool(most_files=2, most_bytes=30)
    first = it.put(content(0))
    with pytest.raises(SpoolFull, match="full"):
        it.put(b'{"n": "%s"}' % (b"x" * 30))
    it.put(content(1))
    with pytest.raises(SpoolFull):
        it.put(content(2))
    assert it.counts.refused == 2
    it.remove(first.name)
    it.put(content(3))
    assert numbers(it) == [1, 3]


def test_what_is_left_is_there_after_a_restart(spool: Made) -> None:
    before = spool()
    for n in range(3):
        before.put(content(n), sync=n != 1)
    before.close()
    after = spool()
    assert numbers(after) == [0, 1, 2]
    after.put(content(3))
    assert numbers(after) == [0, 1, 2, 3]


def test_two_processes_have_a_folder_each_and_one_takes_what_a_dead_one_left(spool: Made) -> None:
    one, two = spool(), spool()
    one.put(content(1))
    two.put(content(2))
    assert numbers(two, two.adopt()) == []  # the other lives
    one.close()
    assert numbers(two, two.adopt()) == [1]
    assert sorted(numbers(two)) == [1, 2]
    assert two.adopt() == []
    assert spool().entries() == []


def test_adopting_stops_where_the_spool_is_full(spool: Made, caplog: pytest.LogCaptureFixture) -> None:
    one, two = spool(), spool(most_files=2)
    for n in range(3):
        one.put(content(n))
    one.close()
    with caplog.at_level(logging.WARNING):
        assert numbers(two, two.adopt()) == [0, 1]
    assert "full" in caplog.text
    two.remove(two.entries()[0].name)
    assert numbers(two, two.adopt()) == [2]


@pytest.mark.parametrize("torn", [b"", b'{"n": ', b'"n"', b"[1]", b'{"n": 1} {', b"\xff{}", b"\x00" * 20])
def test_a_damaged_file_is_set_aside_and_told_once(
    spool: Made, tmp_path: Path, caplog: pytest.LogCaptureFixture, torn: bytes
) -> None:
    it = spool()
    damaged, good = it.put(content(0)), it.put(content(1))
    (tmp_path / "hooks/1" / damaged.name).write_bytes(torn)
    assert it.read(damaged.name) is None
    assert "damaged" in caplog.text
    assert (tmp_path / "hooks/damaged" / damaged.name).read_bytes() == torn
    assert it.entries() == [good]
    assert (it.counts.damaged, it.counts.bytes) == (1, good.size)
    it.close()
    assert spool().entries() == [good]


def test_a_file_that_somebody_removed(spool: Made, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    it = spool()
    kept = it.put(content(0))
    (tmp_path / "hooks/1" / kept.name).unlink()
    assert it.read(kept.name) is None
    assert "removed" in caplog.text
    assert it.counts.files == 0


def test_a_disk_that_refuses_is_told_and_keeps_no_count(spool: Made, tmp_path: Path) -> None:
    it = spool()
    it.close()
    with pytest.raises(SpoolError, match="not open"):
        it.put(content(0))
    (tmp_path / "file").write_text("")
    with pytest.raises(SpoolError, match="file"):
        Spool(tmp_path / "file" / "hooks").open()
    other = spool()
    (tmp_path / "hooks/1").rename(tmp_path / "hooks/away")
    with pytest.raises(SpoolError, match="No such file"):
        other.put(content(0))
    assert other.counts.files == 0


def test_a_label_is_no_path(spool: Made) -> None:
    with pytest.raises(SpoolError, match="part of a file's name"):
        spool().put(content(0), "../x")


def test_threads_share_a_spool(spool: Made) -> None:
    it = spool()

    def work(first: int) -> None:
        for n in range(first, first + 20):
            kept = it.put(content(n), sync=False)
            if n % 2:
                it.remove(kept.name)

    threads = [threading.Thread(target=work, args=(first,)) for first in (0, 100, 200)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(numbers(it)) == [first + n for first in (0, 100, 200) for n in range(0, 20, 2)]
    assert it.counts.bytes == sum(kept.size for kept in it.entries())


# A process that puts two files and dies by its own hand in the third.
_VICTIM = """
import os, pathlib, signal, sys
from bridge import spool
die = lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL)
it = spool.Spool(pathlib.Path(sys.argv[1])); it.open()
it.put(b'{"n": 0}'); it.put(b'{"n": 1}')
write = os.write
match sys.argv[2]:
    case "before": os.write = die
    case "mid-write": os.write = lambda number, view: (write(number, view[:4]), die())
    case "written": os.fsync = die
    case "renamed": spool._sync_folder = die
    case "removing": pathlib.Path.unlink = die; it.remove(it.entries()[0].name)
it.put(b'{"n": 2}')
"""


@pytest.mark.parametrize(
    ("step", "left", "damaged"),
    [
        ("before", [0, 1], 1),
        ("mid-write", [0, 1], 1),
        ("written", [0, 1, 2], 0),  # nobody was promised it, but it is whole
        ("renamed", [0, 1, 2], 0),
        ("removing", [0, 1], 0),
    ],
)
def test_kill_9_at_each_step(
    spool: Made, tmp_path: Path, caplog: pytest.LogCaptureFixture, step: str, left: list[int], damaged: int
) -> None:
    victim = subprocess.run(
        [sys.executable, "-c", _VICTIM, str(tmp_path / "hooks"), step],
        cwd=Path(__file__).parent.parent,
        timeout=30,
        check=False,
    )
    assert victim.returncode == -signal.SIGKILL
    it = spool()
    assert numbers(it) == left
    assert it.counts.damaged == damaged
    assert ("half-written" in caplog.text) == bool(damaged)
    assert len(list((tmp_path / "hooks").glob("damaged/*"))) == damaged
    # Nothing of it comes up again.
    it.close()
    caplog.clear()
    assert numbers(spool()) == left
    assert "half-written" not in caplog.text
