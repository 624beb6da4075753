"""Prints what the ring measured; lends an Asterisk that may be killed."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest

from asterisk import figures
from asterisk.line import free_port
from asterisk.victim import Victim


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    lines = figures.table()
    if lines:
        terminalreporter.section("measured on the real Asterisk")
        for line in lines:
            terminalreporter.write_line(line)


@pytest.fixture(autouse=True)
def _collected() -> None:
    """What earlier tests have left is set aside: a full collection in mid-call would stop bridge and telephones alike, and
    the more tests there are in this process, the longer (telephones missed frames for 227 and 287 ms)."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def _victim() -> Iterator[Victim]:
    exchange = Victim.make(free_port(), free_port())
    try:
        yield exchange
    finally:
        exchange.remove()


@pytest.fixture
def victim(_victim: Victim) -> Victim:
    """Running, whatever the test before has done to it."""
    _victim.start()
    return _victim
