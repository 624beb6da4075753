"""The doctor's message to the services of hooks, in each outcome."""

from __future__ import annotations

from typing import Any

import pytest
from http_peer import Peer, Says

from bridge.config import load_config
from bridge.doctor_hooks import check_hooks
from bridge.findings import Finding

FILE = """
[hooks]
call_url = "http://service.test/hook"
action_url = "http://service.test/hook"
secret = "a secret"
[agents.sales.hooks]
event_url = "http://sales.test/hook"
events = ["all"]
secret = "another secret"
[agents."of me".hooks]
action_url = ""
"""


async def findings(peer: Peer, text: str = FILE) -> list[Finding]:
    config = load_config(text, {})
    found: list[Finding] = []
    async with peer.client() as client:
        await check_hooks(config.hooks, config.agents, found.append, client)
    return found


async def test_each_address_is_sent_one_message_signed_with_its_own_secret(autojump_clock: Any) -> None:
    peer = Peer(secret="a secret another secret".replace(" secret", "-secret"))
    text = FILE.replace("a secret", "a-secret").replace("another secret", "another-secret")
    found = await findings(peer, text)
    assert [str(it.verdict) for it in found] == ["ok", "ok"]
    assert "http://service.test/hook (hooks.call_url, hooks.action_url) took a signed message" in found[0].text
    assert "http://sales.test/hook (agents.sales.hooks.event_url) took a signed message" in found[1].text
    assert [asked.json["type"] for asked in peer.asked] == ["doctor", "doctor"]


@pytest.mark.parametrize(
    ("says", "verdict", "text", "remedy"),
    [
        (Says(401), "fail", "HTTP 401", "the same secret"),
        (Says(404), "warn", "HTTP 404", "is hooks.call_url, hooks.action_url its address"),
        (Says(500), "fail", "HTTP 500", "running"),
        (Says(hangs=True), "fail", "did not answer within 2 s", "running"),
        (Says(302), "warn", "redirects are not followed", "its address"),
    ],
)
async def test_trouble_has_its_remedy(says: Says, verdict: str, text: str, remedy: str, autojump_clock: Any) -> None:
    found = (await findings(Peer([says])))[0]
    assert (found.name, str(found.verdict)) == ("hooks", verdict)
    assert text in found.text
    assert remedy in found.remedy
    assert "a secret" not in str(found)


async def test_where_nobody_is_told_nobody_is_asked(autojump_clock: Any) -> None:
    assert await findings(Peer(), "") == []
