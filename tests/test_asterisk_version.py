"""The version table: what each release is known for, and what is chosen for it."""

from __future__ import annotations

import pytest

from bridge.asterisk_version import (
    FACTS,
    UNKNOWN,
    WIDEBAND,
    Version,
    advice,
    media_format,
    parse,
    releases,
    requests_by,
)
from bridge.config import FormatChoice, MediaFormat, RequestsChoice


@pytest.mark.parametrize(
    ("text", "release", "shown"),
    [
        ("22.10.1", (22, 10), "22.10.1"),
        ("22.10.1+dfsg+~cs6.17.60671434-1", (22, 10), "22.10.1"),  # Debian, as the container tells it
        ("20.6.0~dfsg+~cs6.13.40431414-2build5", (20, 6), "20.6.0"),  # Ubuntu 24.04
        ("18.26.0", (18, 26), "18.26.0"),
        ("23.5.0-rc1", (23, 5), "23.5.0-rc1"),
        ("certified/20.7-cert3", (20, 7), "certified/20.7-cert3"),
        ("certified-18.9-cert5", (18, 9), "certified-18.9-cert5"),
        ("Asterisk/22.4.0", (22, 4), "Asterisk/22.4.0"),
        ("GIT-22-22.0.0-pre1-212-g08e19d081", (None, None), "GIT-22-22.0.0-pre1-212-g08e19d081"),
        ("GIT-master-f0c1c1a", (None, None), "GIT-master-f0c1c1a"),
        ("", (None, None), "of unknown version"),
        ("20", (None, None), "20"),
    ],
)
def test_versions_are_read_as_asterisk_tells_them(
    text: str, release: tuple[int | None, int | None], shown: str
) -> None:
    version = parse(text)
    assert (version.series, version.minor) == release
    assert version.known is (release[0] is not None)
    assert str(version) == shown


@pytest.mark.parametrize(
    ("text", "has"),
    [
        *(("20.16.9", False), ("20.17.0", True), ("21.11.0", False), ("21.12.0", True), ("22.6.2", False)),
        *(("22.7.0", True), ("23.0.0", False), ("23.1.0", True), ("24.0.0", True), ("18.26.4", False)),
        *(("19.8.1", False), ("certified/20.7-cert3", False), ("GIT-22-abc", False)),
    ],
)
def test_a_release_of_any_series_is_placed(text: str, has: bool) -> None:
    assert parse(text).has(WIDEBAND) is has


def breaks(text: str) -> set[int]:
    """The rows of the table that concern this version."""
    return {row for row, fact in enumerate(FACTS) if fact.concerns(parse(text))}


OLD = {0, 1, 2, 3, 4, 8}  # everything before spring 2025


@pytest.mark.parametrize(
    ("text", "rows"),
    [
        *(("18.26.4", OLD), ("20.6.0", OLD), ("20.13.0", OLD), ("22.3.0", OLD), ("certified/20.7-cert3", OLD)),
        *(("20.14.0", {1, 4, 5, 8}), ("22.4.0", {1, 4, 5, 8}), ("21.9.0", {1, 4, 5, 8})),
        *(("20.15.0", {1, 5, 8}), ("22.5.0", {1, 5, 8}), ("23.0.0", {1, 5, 8})),
        *(("20.17.0", {6, 7, 8}), ("22.8.0", {6, 7, 8}), ("23.1.0", {6, 7, 8}), ("21.12.2", {6, 7, 8})),
        *(("20.19.0", {7, 8}), ("22.9.0", {7, 8}), ("23.3.0", {7, 8})),
        *(("20.20.1", {7}), ("22.10.1", {7}), ("23.4.1", {7}), ("24.0.0", set())),
    ],
)
def test_what_concerns_a_version(text: str, rows: set[int]) -> None:
    assert breaks(text) == rows
    assert len(advice(parse(text))) == len(rows)


def test_every_row_says_what_the_bridge_or_a_person_does() -> None:
    assert all(fact.bridge or fact.operator for fact in FACTS)


def test_nothing_is_left_to_do_for_the_newest_releases() -> None:
    for text in ("20.20.1", "22.10.1", "23.4.1", "24.0.0"):
        assert [known.remedy for known in advice(parse(text)) if known.remedy] == []


def test_a_build_without_a_release_number_is_told_once_with_its_remedy() -> None:
    (told,) = advice(parse("GIT-master-f0c1c1a"))
    assert "GIT-master-f0c1c1a" in told.text
    assert "20.17, 21.12, 22.7 or 23.1" in told.remedy


def test_releases_leave_out_a_series_without_one() -> None:
    assert releases((19, None, 9, 3)) == "20.19, 22.9 or 23.3"


NEW, OLD_ONE = parse("22.10.1"), parse("20.6.0")


@pytest.mark.parametrize(
    ("wanted", "version", "resampler", "chosen", "why"),
    [
        ("auto", NEW, True, "slin24", ""),
        ("auto", NEW, False, "slin", "codec_resample is not loaded"),
        ("auto", OLD_ONE, True, "slin", "Asterisk 20.6.0 knows 8 kHz only"),
        ("auto", UNKNOWN, True, "slin", "not known whether"),
        ("slin16", NEW, True, "slin16", ""),
        ("slin24", NEW, False, "slin24", ""),
        ("slin16", OLD_ONE, True, "slin", "wideband needs 20.17, 21.12, 22.7 or 23.1"),
        ("slin24", OLD_ONE, True, "slin", "knows 8 kHz only"),
        ("slin16", UNKNOWN, True, "slin16", ""),
        ("slin", NEW, True, "slin", ""),
        ("slin", OLD_ONE, True, "slin", ""),
        ("slin16", Version("24.1.0", 24, 1), True, "slin16", ""),
    ],
)
def test_the_media_format_suits_the_version(
    wanted: FormatChoice, version: Version, resampler: bool, chosen: str, why: str
) -> None:
    choice = media_format(wanted, version, resampler=resampler)
    assert choice.format is MediaFormat(chosen)
    assert why in choice.why
    assert bool(choice.why) is bool(why)


@pytest.mark.parametrize(
    ("wanted", "text", "answered", "chosen"),
    [
        ("auto", "20.13.0", None, True),
        ("auto", "20.14.0", None, False),
        ("auto", "21.8.0", None, True),
        ("auto", "21.9.0", None, False),
        ("auto", "22.3.0", None, True),
        ("auto", "22.4.0", None, False),
        ("auto", "23.0.0", None, False),
        ("auto", "19.8.1", None, True),
        ("auto", "certified/20.7-cert3", None, True),
        ("auto", "GIT-22-ab", None, None),
        ("auto", "GIT-22-ab", True, False),
        ("auto", "GIT-22-ab", False, True),
        ("auto", "", None, None),
        ("http", "22.10.1", None, True),
        ("websocket", "", None, False),
        ("websocket", "20.6.0", None, False),
    ],
)
def test_requests_go_by_http_where_the_websocket_takes_none(
    wanted: RequestsChoice, text: str, answered: bool | None, chosen: bool | None
) -> None:
    by = requests_by(wanted, parse(text), answered=answered)
    assert (by.http if by else None) is chosen
    assert by is None or by.why
