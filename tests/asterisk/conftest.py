"""Prints what the ring measured."""

from __future__ import annotations

import pytest

from asterisk import figures


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    lines = figures.table()
    if lines:
        terminalreporter.section("measured on the real Asterisk")
        for line in lines:
            terminalreporter.write_line(line)
