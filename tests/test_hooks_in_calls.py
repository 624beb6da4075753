"""Hooks in whole calls, in virtual time: what the services are asked and told, and what becomes of the callers."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
import trio
from house import House, house
from http_peer import Asked, Peer, Says

from bridge.outbound import CallOrder
from simulators.ari_server import Callee, Place
from simulators.model_script import Fail, Say, Script

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


async def test_a_rate_limit_that_ends_a_call_arrives_as_jambonz_has_it(tmp_path: Path, autojump_clock: Any) -> None:
    peer = Peer()
    async with hooked(tmp_path, peer, TOLD, *[Fail.rate_limited(7)] * 4) as it:
        await it.stasis_call()
        await it.ended()
        await it.until(lambda: bool(peer.asked) and peer.asked[-1].json["type"] == "call.action")
    action = peer.asked[-1].json
    assert (action["completion_reason"], action["reason"]) == ("server failure", "model_failed")
    assert action["error"]["code"] == "rate_limit_exceeded"
    assert "7s" in action["error"]["message"]
    ended = events(peer.asked)[-1]
    assert (ended["type"], ended["data"]["error"]) == ("call.ended", action["error"])


# Before a call is answered ---------------------------------------------------------------------------------------------

ASKED = """
[hooks]
call_url = "http://service.test/calls"
action_url = "http://service.test/ends"
[agents.sales]
voice = "cedar"
greeting = "Greet as sales."
[agents.default.outbound]
numbers = "\\\\d+"
endpoint = "PJSIP/{number}"
[[routes]]
agent = "default"
called = "100"
variables = { TENANT = "_." }
"""


def service(answer: Any, after_s: float = 0.0) -> Peer:
    """Answers questions about calls with this, and takes everything else."""
    content = msgspec.json.encode(answer)
    return Peer(
        choose=lambda asked: Says(body=content, after_s=after_s) if asked.path == "/calls" else Says(),
    )


def voice_of(it: House) -> str:
    """That of the last session that was asked for."""
    updates = [passed.event for passed in it.model.received if passed.event["type"] == "session.update"]
    return str(updates[-1]["session"]["audio"]["output"]["voice"])


async def test_the_service_chooses_agent_and_settings_of_a_call_by_stasis(
    tmp_path: Path, autojump_clock: Any
) -> None:
    peer = service({"agent": "sales", "profile": {"voice": "ash"}})
    async with hooked(tmp_path, peer, ASKED, Say("Hello!")) as it:
        channel, _ = await it.stasis_call("gold", "voice=echo")
        await it.hears_of("agent_said")
        assert voice_of(it) == "ash"
        channel.hang_up()
        assert (await it.ended())["agent"] == "sales"
    question = peer.asked[0].json
    assert (question["caller"], question["caller_name"], question["called"]) == ("1001", "Alice", "100")
    assert (question["agent"], question["arguments"]) == ("default", ["gold", "voice=echo"])
    assert question["variables"] == {"TENANT": ""}
    assert question["channel"].startswith("PJSIP/alice-")
    assert peer.asked[-1].json["call_id"] == question["call_id"]


@pytest.mark.parametrize(
    ("answer", "more", "reason", "detail"),
    [
        ({"reject": "not today"}, "", "hook_rejected", "hooks.call_url: not today"),
        ({"agent": "x"}, "call_required = true", "hook_failed", "hooks.call_url: http://service.test/calls answered"),
        ({"profile": {"disabled": True}}, "", "agent_disabled", "agents.default.disabled is true"),
    ],
)
async def test_a_call_that_is_rejected_goes_on_in_the_dialplan_unanswered(
    answer: Any, more: str, reason: str, detail: str, tmp_path: Path, autojump_clock: Any
) -> None:
    peer = service(answer)
    async with hooked(tmp_path, peer, ASKED.replace("[hooks]", f"[hooks]\n{more}")) as it:
        channel = it.ari.incoming_call()
        record = await it.ended()
        assert record["reason"] == reason
        assert record["detail"].startswith(detail)
        await it.until(lambda: channel.dialplan is not None)
        assert isinstance(channel.dialplan, Place)
        assert channel.state == "Ring", "never answered"
        assert channel.variables["BRIDGE_END_REASON"] == reason
        await it.until(lambda: len(peer.asked) == 2)
        assert peer.asked[1].json["reason"] == reason
    assert it.dials == 0


async def test_a_slow_service_delays_a_call_and_no_more(tmp_path: Path, autojump_clock: Any) -> None:
    peer = service({"agent": "sales"}, after_s=60)
    async with hooked(tmp_path, peer, ASKED, Say("Hello!")) as it:
        began = trio.current_time()
        channel, _ = await it.stasis_call()
        assert 2 <= trio.current_time() - began < 2.5
        await it.hears_of("agent_said")
        assert voice_of(it) == "marin"
        channel.hang_up()


async def test_a_caller_who_hangs_up_meanwhile_is_gone_and_costs_no_session(
    tmp_path: Path, autojump_clock: Any
) -> None:
    async with hooked(tmp_path, service({}, after_s=1), ASKED) as it:
        channel = it.ari.incoming_call()
        await trio.sleep(0.5)
        channel.hang_up()
        assert (await it.ended())["reason"] == "caller_hung_up"
        assert it.dials == 0


@pytest.mark.parametrize("way", ["stasis", "plain", "placed"])
async def test_a_process_that_ends_meanwhile_sends_the_caller_on(
    way: str, tmp_path: Path, autojump_clock: Any
) -> None:
    settings = ASKED.replace("[hooks]", "[limits]\ndrain_s = 1\n[hooks]\ncall_timeout_s = 10")
    peer = service({}, after_s=60)
    async with hooked(tmp_path, peer, settings) as it:
        match way:
            case "stasis":
                channel = it.ari.incoming_call()
            case "plain":
                await it.plain_call()
            case "placed":
                it.ready.placing.place(CallOrder(to="4930123", agent="default"))
        await peer.has(1)
        it.ready.drain()
        record = await it.ended()
        assert (record["reason"], record["agent"], it.dials) == ("server_draining", "default", 0)
        if way == "stasis":
            assert channel.dialplan == Place()


@pytest.mark.parametrize("answer", [{"agent": "sales"}, {"reject": "no"}])
async def test_a_plain_call_is_asked_about_while_its_line_is_kept(
    answer: Any, tmp_path: Path, autojump_clock: Any
) -> None:
    peer = service(answer, after_s=1.5)
    async with hooked(tmp_path, peer, ASKED, Say("Hello!")) as it:
        began = trio.current_time()
        caller = await it.plain_call()
        if "reject" in answer:
            record = await it.ended()
            assert (record["reason"], it.dials) == ("hook_rejected", 0)
        else:
            await it.hears_of("agent_said")
            assert voice_of(it) == "cedar"
            waited = [at for at, _ in caller.heard_frames if at - began < 1.5]
            assert len(waited) > 70, "20 ms frames from the first moment on"
            await caller.hang_up()
            assert (await it.ended())["agent"] == "sales"
    assert peer.asked[0].json == {
        "type": "call.incoming", "call_id": peer.asked[0].json["call_id"], "direction": "inbound", "agent": "default",
        "caller": "", "caller_name": "", "called": "", "channel": "AudioSocket", "arguments": [], "variables": {},
    }  # fmt: skip


async def test_a_plain_caller_who_leaves_meanwhile(tmp_path: Path, autojump_clock: Any) -> None:
    async with hooked(tmp_path, service({}, after_s=1), ASKED) as it:
        caller = await it.plain_call()
        await trio.sleep(0.5)
        await caller.hang_up()
        assert (await it.ended())["reason"] == "caller_hung_up"


async def test_a_placed_call_is_asked_about_before_it_rings(tmp_path: Path, autojump_clock: Any) -> None:
    peer = service({"agent": "sales"}, after_s=1)
    async with hooked(tmp_path, peer, ASKED, Say("Hello!")) as it:
        it.ari.callees["PJSIP/4930123"] = Callee()
        placed = it.ready.placing.place(CallOrder(to="4930123", agent="default", facts="Their name is Bob."))
        await it.callee_hears(placed)
        await placed.until_answered()
        await it.hears_of("agent_said")
        assert voice_of(it) == "cedar"
        placed.hang_up()
        assert (await placed.until_ended()).agent == "sales"
    question = peer.asked[0].json
    assert (question["type"], question["direction"], question["called"]) == ("call.outgoing", "outbound", "4930123")


async def test_a_placed_call_that_is_rejected_never_rings(tmp_path: Path, autojump_clock: Any) -> None:
    async with hooked(tmp_path, service({"reject": "on the list"}), ASKED) as it:
        placed = it.ready.placing.place(CallOrder(to="4930123", agent="default"))
        record = await placed.until_ended()
        assert (record.reason, record.detail, it.dials) == ("hook_rejected", "hooks.call_url: on the list", 0)
