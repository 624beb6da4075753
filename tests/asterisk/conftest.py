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
def victim() -> Iterator[Victim]:
    """Running; started by the first test that asks for it. Whoever kills it starts it again."""
    exchange = Victim.make(free_port(), free_port())
    try:
        exchange.start()
        yield exchange
    finally:
        exchange.remove()
