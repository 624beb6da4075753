"""The shipped dialplan, and those of the pages, know every reason of the table `FAREWELLS` for what it means."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from bridge.ending import FAREWELLS, OF_PLACED_CALLS, ChannelAction, EndReason

ROOT = Path(__file__).parents[1]
# Ends that were agreed, or after which nobody is there.
MEANT = {
    reason for reason, farewell in FAREWELLS.items() if farewell.channel is ChannelAction.HANG_UP
} - OF_PLACED_CALLS
MEANT |= {EndReason.CALLER_HUNG_UP}
# Another worker may well take this caller.
NEXT = {EndReason.REFUSED_BUSY, EndReason.SERVER_DRAINING}


def listed(page: str, target: str) -> list[set[str]]:
    """The reasons of each line that goes to this label by a list of them."""
    text = (ROOT / page).read_text(encoding="utf-8")
    lines = re.findall(rf'BRIDGE_END_REASON}}" =~ "\^\((.*?)\)\$"\]\?{target}\b', text)
    return [set(line.split("|")) for line in lines]


@pytest.mark.parametrize("page", ["asterisk/etc/extensions.conf", "docs/dialplan.md", "docs/freepbx.md"])
def test_an_end_that_was_meant_hangs_up_and_no_other(page: str) -> None:
    assert listed(page, "done")
    assert all(reasons == {reason.value for reason in MEANT} for reasons in listed(page, "done"))


def test_who_was_refused_or_sent_back_goes_to_the_next_worker() -> None:
    assert listed("asterisk/etc/extensions.conf", "next") == [{reason.value for reason in NEXT}]
