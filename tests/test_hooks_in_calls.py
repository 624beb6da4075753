"""Hooks in whole calls, in virtual time: what the services are asked and told, and what becomes of the callers."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import trio
from house import House, house
from http_peer import Asked, Peer

from simulators.model_script import Say, Script

TOLD = """
[hooks]
event_url = "http://service.test/told"
events = ["call.*", "transcript.final", "playback.*"]
action_url = "http://service.test/told"
secret = "a secret"
"""


@asynccontextmanager
async def hooked(folder: Path, peer: Peer, settings: str, *script: Any, **options: Any) -> AsyncIterator[House]:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(peer.run)
        async with house(
            Script.of(*script),
            settings=settings,
            overrides={"server.data_dir": str(folder)},
            http=peer.transport(),
            **options,
        ) as it:
            yield it
        nursery.cancel_scope.cancel()


def left(folder: Path) -> list[str]:
    return [path.name for path in folder.glob("hooks/*/*.json")]


def events(asked: list[Asked]) -> list[dict[str, Any]]:
    return [event for it in asked for event in it.json.get("events", [])]


async def test_a_call_is_told_from_its_start_to_its_end(tmp_path: Path, autojump_clock: Any) -> None:
    peer = Peer()
    async with hooked(tmp_path, peer, TOLD, Say("Hello there!", ms=400)) as it:
        channel, _ = await it.stasis_call(exten="200")
        await it.hears_of("agent_said")
        channel.hang_up()
        record = await it.ended()
        await it.until(lambda: bool(peer.asked) and peer.asked[-1].json["type"] == "call.action")
    told = events(peer.asked)
    assert [event["type"] for event in told] == [
        "call.started", "call.answered", "playback.started", "playback.stopped", "transcript.final", "call.ended",
    ]  # fmt: skip
    assert [event["seq"] for event in told] == [1, 2, 3, 4, 5, 6]
    assert {event["call_id"] for event in told} == {record["call_id"]}
    action = peer.asked[-1].json
    assert (action["call_id"], action["last_seq"]) == (record["call_id"], 6)
    assert (action["reason"], action["completion_reason"]) == ("caller_hung_up", "normal conversation end")
    assert [said["text"] for said in action["transcript"]] == ["Hello there!"]
    assert action["duration_s"] == action["record"]["duration_s"] == record["duration_s"]
    assert action["usage"]["responses"] == 1
    assert left(tmp_path) == []
