"""What `doctor` found: one `Finding` a check, and how people and machines read it. Pure."""

from __future__ import annotations

import enum
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

import msgspec


class Verdict(enum.StrEnum):
    """How a check went. Only FAIL makes `doctor` fail."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"
    SKIPPED = "skipped"


_MARKS = {Verdict.OK: "ok", Verdict.WARN: "WARN", Verdict.FAIL: "FAIL", Verdict.SKIPPED: "-"}


@dataclass(frozen=True, slots=True)
class Finding:
    """One check: what was found in plain words, and on trouble what to do: a command, or a line of configuration.

    Neither text holds a secret.
    """

    name: str
    verdict: Verdict
    text: str
    remedy: str = ""


def ok(name: str, text: str) -> Finding:
    return Finding(name, Verdict.OK, text)


def warn(name: str, text: str, remedy: str) -> Finding:
    return Finding(name, Verdict.WARN, text, remedy)


def fail(name: str, text: str, remedy: str) -> Finding:
    return Finding(name, Verdict.FAIL, text, remedy)


def skipped(name: str, text: str) -> Finding:
    return Finding(name, Verdict.SKIPPED, text)


def shown(finding: Finding, width: int = 118) -> str:
    """A finding for people: mark, name, text, and the remedy below it, indented."""
    head = f"{_MARKS[finding.verdict]:<5} {finding.name:<13} "
    rest = " " * len(head)
    paragraphs = [_filled(finding.text, width, head, rest)]
    if finding.remedy:
        paragraphs.append(_filled(finding.remedy, width, f"{rest}-> ", f"{rest}   "))
    return "\n".join(paragraphs)


def _filled(text: str, width: int, first: str, rest: str) -> str:
    """In lines of `width`; no word is broken: nobody could copy it."""
    return textwrap.fill(
        text, width, initial_indent=first, subsequent_indent=rest, break_long_words=False, break_on_hyphens=False
    )


def summary(findings: Sequence[Finding]) -> str:
    """The last line: how many of what."""
    failed = sum(finding.verdict is Verdict.FAIL for finding in findings)
    warned = sum(finding.verdict is Verdict.WARN for finding in findings)
    warnings = f"{warned} warning{'s' if warned != 1 else ''}" if warned else ""
    if failed:
        return f"{failed} check{'s' if failed != 1 else ''} failed{f', {warnings}' if warnings else ''}."
    return f"Nothing is in the way of calls{f'; {warnings}' if warnings else ''}."


def as_json(findings: Sequence[Finding]) -> str:
    """All findings as a JSON array of objects: name, verdict, text, remedy."""
    return msgspec.json.format(msgspec.json.encode(findings), indent=2).decode()


def failed(findings: Sequence[Finding]) -> bool:
    """Whether anything failed: the exit status."""
    return any(finding.verdict is Verdict.FAIL for finding in findings)
