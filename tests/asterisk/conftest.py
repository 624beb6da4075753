"""Prints what the ring measured; lends an Asterisk that may be killed."""

from __future__ import annotations

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
