"""Events and ends of calls on their way to services that are slow, dead or wrong, in virtual time; the disk is real."""

from __future__ import annotations

import logging
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import trio
from house import Disk
from http_peer import OK, Asked, Peer, Says

from bridge.call_events import CallEvent
from bridge.call_record import CallRecord, Said, ToolUse
from bridge.config import load_config
from bridge.errors import ConfigError
from bridge.event_stream import EventFilter
from bridge.hook_watcher import LAST_S, MOST_EVENTS, HookWatcher
from bridge.webhook_client import WebhookClient

BOTH = """
[hooks]
event_url = "http://service.test/hook"
events = ["all", "-rate_limits.updated"]
action_url = "http://service.test/hook"
secret = "a secret"
[agents.sales.hooks]
event_url = "http://sales.test/events"
events = ["call.*"]
[agents.quiet.hooks]
event_url = ""
action_url = ""
"""
# trio's clock of tests begins at 0, the world's here.
EPOCH_S = 1_700_000_000.0


@dataclass
class Call:
    """What a watcher needs of a `LiveCall`."""

    call_id: str
    agent_name: str
    agent: Any
    heard: list[tuple[EventFilter, Callable[[CallEvent], None]]] = field(default_factory=list)

    def listen(self, words: Iterable[str], heard: Callable[[CallEvent], None]) -> None:
        self.heard.append((EventFilter.parse(words), heard))

    def tell(self, kind: str, /, source: Any = "call", **data: Any) -> None:
        now = trio.current_time()
        for wanted, heard in self.heard:
            if wanted.takes(kind):
                heard(CallEvent(source, now, kind, data, EPOCH_S + now))


class Bridge:
    """One process: its watcher, which can be stopped and killed."""

    def __init__(self, folder: Path, peer: Peer, nursery: trio.Nursery, settings: str) -> None:
        self.config = load_config(settings, {}, {"server.data_dir": str(folder)})
        self.disk = Disk()
        client = WebhookClient(peer.transport(), unix_s=lambda: EPOCH_S + trio.current_time())
        self.watcher = HookWatcher(
            self.config,
            self.disk.run,
            client,
            unix_s=lambda: EPOCH_S + trio.current_time(),
            chance=lambda: 1.0,
        )
        self._nursery = nursery
        self._scope = trio.CancelScope()
        self.stopped = trio.Event()

    async def start(self) -> None:
        async def run(task_status: trio.TaskStatus[None]) -> None:
            with self._scope:
                await self.watcher.run(task_status)
            self.stopped.set()

        await self._nursery.start(run)

    async def stop(self) -> None:
        self._scope.cancel()
        await self.stopped.wait()

    def begins(self, call_id: str = "1", agent: str = "default") -> Call:
        call = Call(call_id, agent, self.config.agents[agent])
        self.watcher.begins(call)  # type: ignore[arg-type]
        return call

    async def ends(self, call: Call, **record: Any) -> None:
        await self.watcher.ended(CallRecord(call_id=call.call_id, agent=call.agent_name, **record))

    @property
    def counts(self) -> tuple[int, int, int, int]:
        """Delivered, waiting, given up, lost."""
        it = self.watcher.counts
        return it.delivered, it.waiting, it.given_up, it.lost


Start = Callable[..., Any]


@pytest.fixture
def peer() -> Peer:
    return Peer(secret="a secret", unix_s=lambda: EPOCH_S + trio.current_time())


@asynccontextmanager
async def processes(folder: Path, peer: Peer) -> AsyncIterator[Start]:
    """Starts bridges on one folder; at the end all are stopped."""
    started: list[Bridge] = []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(peer.run)

        async def start(settings: str = BOTH) -> Bridge:
            bridge = Bridge(folder, peer, nursery, settings)
            started.append(bridge)
            await bridge.start()
            return bridge

        yield start
        for bridge in started:
            await bridge.stop()
        nursery.cancel_scope.cancel()


def told(peer: Peer, call_id: str = "1") -> list[str]:
    """The types of a call's events as its receiver has them, and `END`."""
    types: list[str] = []
    for asked in peer.asked:
        if asked.json["call_id"] == call_id:
            types += [event["type"] for event in asked.json["events"]] if "events" in asked.json else ["END"]
    return types


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("hooks/*/*.json"))


async def test_events_go_in_batches_and_the_end_comes_behind_them(
    tmp_path: Path, peer: Peer, autojump_clock: Any
) -> None:
    async with processes(tmp_path, peer) as start:
        bridge = await start()
        call = bridge.begins()
        call.tell("call.started", agent="default")
        await trio.sleep(0.1)
        call.tell("transcript.final", text="Hello")
        call.tell("rate_limits.updated", source="server")
        first = (await peer.has(1))[0]
        assert (first.path, round(first.at, 3)) == ("/hook", 0.5)
        assert first.json == {
            "type": "call.events",
            "call_id": "1",
            "agent": "default",
            "events": [
                {"seq": 1, "call_id": "1", "at": EPOCH_S, "source": "call", "type": "call.started",
                 "data": {"agent": "default"}},
                {"seq": 2, "call_id": "1", "at": EPOCH_S + 0.1, "source": "call", "type": "transcript.final",
                 "data": {"text": "Hello"}},
            ],
        }  # fmt: skip
        call.tell("call.ended")
        await bridge.ends(
            call,
            reason="caller_hung_up",
            completion_reason="normal conversation end",
            duration_s=9.5,
            transcript=[Said(1.0, "caller", "Hello")],
            tool_uses=[ToolUse(2.0, "call_1", "weather", "{}", "sunny", 0.1)],
        )
        events, action = (await peer.has(3))[1:]
        assert told(peer) == ["call.started", "transcript.final", "call.ended", "END"]
        assert events.json["events"][0]["seq"] == action.json["last_seq"] == 3
        assert (action.path, action.json["type"]) == ("/hook", "call.action")
        end = action.json
        assert (end["reason"], end["error"]) == ("caller_hung_up", None)
        assert end["completion_reason"] == "normal conversation end"
        assert (end["duration_s"], end["transcript"][0]["text"], end["tool_uses"][0]["output"]) == (
            9.5,
            "Hello",
            "sunny",
        )
        assert end["record"]["media_format"] == ""
        await trio.sleep(1)
        assert bridge.counts == (3, 0, 0, 0)
    assert files(tmp_path) == []
    assert len({asked.message_id for asked in peer.asked}) == 3


async def test_many_events_are_many_posts_in_order(tmp_path: Path, peer: Peer, autojump_clock: Any) -> None:
    peer.choose = lambda asked: Says(after_s=0.3)
    async with processes(tmp_path, peer) as start:
        bridge = await start()
        call = bridge.begins()
        for number in range(120):
            call.tell(f"number.n{number}")
        await bridge.ends(call)
        posts = [asked.json for asked in await peer.has(4)]
        assert [len(post.get("events", [])) for post in posts] == [50, 50, 20, 0]
        assert told(peer)[:120] == [f"number.n{number}" for number in range(120)]


async def test_large_events_share_no_post(tmp_path: Path, peer: Peer, autojump_clock: Any) -> None:
    async with processes(tmp_path, peer) as start:
        call = (await start()).begins()
        for size in (100_000, 100_000, 100_000, 300_000, 10, 10):
            call.tell("error", source="server", text="x" * size)
        posts = [asked.json["events"] for asked in await peer.has(4)]
        assert [len(post) for post in posts] == [2, 1, 1, 2]


@pytest.mark.parametrize(
    ("agent", "hosts"),
    [("sales", ["sales.test", "service.test"]), ("quiet", []), ("default", ["service.test", "service.test"])],
)
async def test_each_agents_calls_are_told_to_its_own(
    tmp_path: Path, peer: Peer, autojump_clock: Any, agent: str, hosts: list[str]
) -> None:
    async with processes(tmp_path, peer) as start:
        bridge = await start()
        call = bridge.begins(agent=agent)
        call.tell("call.started")
        call.tell("error", source="server")
        await bridge.ends(call)
        await trio.sleep(1)
        assert [asked.headers["host"] for asked in peer.asked] == hosts
        assert told(peer) == {"sales": ["call.started", "END"], "quiet": []}.get(
            agent, ["call.started", "error", "END"]
        )


async def test_a_call_that_never_began_has_its_end(tmp_path: Path, peer: Peer, autojump_clock: Any) -> None:
    async with processes(tmp_path, peer) as start:
        bridge = await start()
        await bridge.watcher.ended(CallRecord("9", agent="nobody", reason="refused_busy"))
        assert (await peer.has(1))[0].json["reason"] == "refused_busy"


async def test_secrets_of_the_session_do_not_leave(tmp_path: Path, peer: Peer, autojump_clock: Any) -> None:
    async with processes(tmp_path, peer) as start:
        bridge = await start()
        tool = {"type": "mcp", "server_label": "crm", "authorization": "a key", "headers": {"X": "a key"}}
        bridge.begins().tell("session.update", source="client", session={"tools": [tool]})
        sent = (await peer.has(1))[0].body.decode()
        assert "crm" in sent
        assert "a key" not in sent


async def test_a_dead_receiver_costs_nothing_and_gets_everything_in_order_when_it_lives(
    tmp_path: Path, peer: Peer, autojump_clock: Any, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "bridge.hooks")
    peer.up = False
    async with processes(tmp_path, peer) as start:
        bridge = await start()
        for number in range(20):
            call = bridge.begins(str(number))
            call.tell("call.started")
            before = trio.current_time()
            await bridge.ends(call)
            assert trio.current_time() == before
        await trio.sleep(600)
        assert bridge.counts == (0, 40, 0, 0)
        assert 8 <= bridge.watcher.counts.failed <= 25
        assert bridge.watcher.counts.oldest_s == pytest.approx(600, abs=1)
        assert sum("no answer from http://service.test/" in line for line in caplog.messages) <= 2
        peer.up = True
        await peer.has(40)
        assert all(told(peer, str(number)) == ["call.started", "END"] for number in range(20))
        await trio.sleep(1)
        assert bridge.counts == (40, 0, 0, 0)
        assert "takes messages again" in caplog.text
    assert files(tmp_path) == []


async def test_a_slow_receiver_holds_up_nobody_else(tmp_path: Path, peer: Peer, autojump_clock: Any) -> None:
    peer.choose = lambda asked: Says(hangs=True) if asked.headers["host"] == "sales.test" else OK
    async with processes(tmp_path, peer) as start:
        bridge = await start()
        for number in range(20):
            slow, good = bridge.begins(f"s{number}", "sales"), bridge.begins(f"g{number}")
            slow.tell("call.started")
            good.tell("call.started")
            await bridge.ends(good)
        await trio.sleep(1)
        assert all(told(peer, f"g{number}") == ["call.started", "END"] for number in range(20))


@pytest.mark.parametrize("status", [400, 404, 500])
async def test_what_is_refused_holds_up_its_own_call_only_and_is_tried_again(
    tmp_path: Path, peer: Peer, autojump_clock: Any, status: int
) -> None:
    bad = 3

    def choose(asked: Asked) -> Says:
        nonlocal bad
        if asked.json["call_id"] == "bad" and bad:
            bad -= 1
            return Says(status)
        return OK

    peer.choose = choose
    async with processes(tmp_path, peer) as start:
        bridge = await start()
        for name in ("bad", "good"):
            call = bridge.begins(name)
            call.tell("call.started")
            await bridge.ends(call)
        await trio.sleep(0.6)
        assert told(peer, "good") == ["call.started", "END"]
        await trio.sleep(10)
        assert told(peer, "bad") == ["call.started"] * 4 + ["END"]
        assert len({asked.message_id for asked in peer.asked if "events" in asked.json}) == 2, (
            "a repetition can be told"
        )


async def test_a_defect_about_one_message_holds_up_no_other_call(
    tmp_path: Path, peer: Peer, autojump_clock: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def trip(*_: object) -> None:
        raise KeyError("a message that was never there")

    async with processes(tmp_path, peer) as start:
        bridge = await start()
        with monkeypatch.context() as broken:
            broken.setattr(bridge.watcher._delivery, "_settle", trip)
            await bridge.ends(bridge.begins("bad"))
            await trio.sleep(1)
        await bridge.ends(bridge.begins("good"))
        await trio.sleep(1)
        assert told(peer, "good") == ["END"]
        assert bridge.counts == (1, 1, 0, 0)


async def test_gone_for_good_is_given_up_at_once(
    tmp_path: Path, peer: Peer, autojump_clock: Any, caplog: pytest.LogCaptureFixture
) -> None:
    peer.script = [Says(410)]
    async with processes(tmp_path, peer) as start:
        bridge = await start()
        await bridge.ends(bridge.begins())
        await trio.sleep(1)
        assert bridge.counts == (0, 0, 1, 0)
    assert files(tmp_path) == []
    assert "given up, of calls 1: http://service.test/hook is gone for good" in caplog.text


async def test_what_nobody_takes_is_given_up_in_the_end(
    tmp_path: Path, peer: Peer, autojump_clock: Any, caplog: pytest.LogCaptureFixture
) -> None:
    peer.up = False
    async with processes(tmp_path, peer) as start:
        bridge = await start(BOTH.replace("[hooks]", "[hooks]\ngive_up_after_s = 3600"))
        for number in range(7):
            await bridge.ends(bridge.begins(str(number)))
        await trio.sleep(3500)
        assert bridge.counts == (0, 7, 0, 0)
        await trio.sleep(160)
        assert bridge.counts == (0, 0, 7, 0)
    assert files(tmp_path) == []
    assert "7 messages are given up, of calls 0, 1, 2, 3, 4 and 2 more" in caplog.text


async def test_what_a_process_left_is_delivered_by_the_next_with_the_same_ids(
    tmp_path: Path, peer: Peer, autojump_clock: Any
) -> None:
    peer.script = [Says(503)]
    async with processes(tmp_path, peer) as start:
        bridge = await start()
        call = bridge.begins()
        call.tell("call.started")
        await bridge.ends(call)
        await trio.sleep(1)
        before = trio.current_time()
        await bridge.stop()
        assert trio.current_time() - before <= LAST_S
        (tried,) = {asked.message_id for asked in peer.asked}
        del peer.asked[:]
        peer.script = [OK]
        await start()
        assert (await peer.has(2))[0].message_id == tried
        assert told(peer) == ["call.started", "END"]


# A process whose call ends while nobody takes messages, and which then dies by its own hand.
_VICTIM = """
import os, signal, sys, types, trio
from bridge.call_events import CallEvent
from bridge.call_record import CallRecord
from bridge.call_recording import in_thread
from bridge.config import load_config
from bridge.hook_watcher import HookWatcher
from bridge.webhook_client import WebhookClient

async def main():
    config = load_config(sys.argv[2], {}, {"server.data_dir": sys.argv[1]})
    watcher = HookWatcher(config, in_thread, WebhookClient())
    async with trio.open_nursery() as nursery:
        await nursery.start(watcher.run)
        heard = []
        call = types.SimpleNamespace(call_id="1", agent_name="default", agent=config.agents["default"])
        call.listen = lambda words, tell: heard.append(tell)
        watcher.begins(call)
        for number in range(60):
            heard[0](CallEvent("call", 0.0, "call.n", {"number": number}))
        await watcher.ended(CallRecord("1", agent="default", reason="caller_hung_up"))
        os.kill(os.getpid(), signal.SIGKILL)

trio.run(main)
"""


async def test_kill_9_right_after_the_end_of_a_call_loses_nothing(
    tmp_path: Path, peer: Peer, autojump_clock: Any
) -> None:
    # Port 9 is nobody's: its messages fail at once, while the process lives.
    dead = BOTH.replace("http://service.test/hook", "http://127.0.0.1:9/hook")
    victim = subprocess.run(  # noqa: ASYNC221 - virtual time waits
        [sys.executable, "-c", _VICTIM, str(tmp_path), dead],
        cwd=Path(__file__).parent.parent,
        timeout=60,
        check=False,
    )
    assert victim.returncode == -signal.SIGKILL
    async with processes(tmp_path, peer) as start:
        # It died in the world's time, long after that of these tests has begun.
        bridge = await start("[hooks]\ngive_up_after_s = 2592000" + BOTH.replace("[hooks]", ""))
        await peer.has(3)
        await trio.sleep(1)
        assert told(peer) == ["call.n"] * 60 + ["END"]
        assert bridge.counts == (3, 0, 0, 0)
    assert files(tmp_path) == []


async def test_what_a_dead_worker_left_is_taken_over_by_a_living_one(
    tmp_path: Path, peer: Peer, autojump_clock: Any
) -> None:
    peer.up = False
    async with processes(tmp_path, peer) as start:
        dying, living = await start(), await start()
        call = dying.begins()
        call.tell("call.started")
        await dying.ends(call)
        await dying.stop()
        peer.up = True
        await peer.has(2)
        await trio.sleep(1)
        assert living.counts[0] == 2
        assert told(peer) == ["call.started", "END"]


async def test_a_process_that_ends_delivers_what_it_can(tmp_path: Path, peer: Peer, autojump_clock: Any) -> None:
    async with processes(tmp_path, peer) as start:
        bridge = await start()
        call = bridge.begins()
        call.tell("call.started")
        await bridge.ends(call)
        await bridge.stop()
        assert told(peer) == ["call.started", "END"]


async def test_a_url_that_is_put_right_holds_for_what_waits(tmp_path: Path, peer: Peer, autojump_clock: Any) -> None:
    peer.choose = lambda asked: OK if asked.path == "/right" else Says(404)
    async with processes(tmp_path, peer) as start:
        bridge = await start()
        await bridge.ends(bridge.begins())
        await bridge.stop()
        await start(BOTH.replace("/hook", "/right"))
        assert (await peer.has(2))[1].path == "/right"


async def test_a_url_of_one_call_only_outlives_the_process(tmp_path: Path, peer: Peer, autojump_clock: Any) -> None:
    peer.up = False
    async with processes(tmp_path, peer) as start:
        bridge = await start()
        call = bridge.begins()
        call.agent = bridge.config.agents["sales"]  # as the call hook may have it
        bridge.watcher.begins(call)
        call.tell("call.started")
        await bridge.ends(call)
        await bridge.stop()
        peer.up = True
        await start()
        hosts = [asked.headers["host"] for asked in await peer.has(2)]
        assert hosts[0] == "sales.test"


async def test_while_the_disk_stands_still_memory_is_bounded_and_what_is_lost_shows(
    tmp_path: Path, peer: Peer, autojump_clock: Any, caplog: pytest.LogCaptureFixture
) -> None:
    async with processes(tmp_path, peer) as start:
        bridge = await start()
        call = bridge.begins()
        bridge.disk.slow_s = 100
        call.tell("first")
        await trio.sleep(1)
        for _ in range(MOST_EVENTS + 10):
            call.tell("second")
        assert bridge.counts[3] == 10
        assert "the disk takes nothing; events of call 1 are lost" in caplog.text
        bridge.disk.slow_s = 0
        await peer.has(1 + MOST_EVENTS // 50)
        call.tell("third")
        await bridge.ends(call)
        last = (await peer.has(3 + MOST_EVENTS // 50))[-2:]
        assert last[0].json["events"][0]["seq"] == last[1].json["last_seq"] == MOST_EVENTS + 12, "a gap is seen"


async def test_a_full_or_broken_disk_loses_messages_loudly_and_no_call(
    tmp_path: Path, peer: Peer, autojump_clock: Any, caplog: pytest.LogCaptureFixture
) -> None:
    async with processes(tmp_path, peer) as start:
        bridge = await start()
        (tmp_path / "hooks/1").rename(tmp_path / "away")
        await bridge.ends(bridge.begins())
        assert bridge.counts == (0, 0, 0, 1)
        assert "1 messages are lost, of calls 1:" in caplog.text


async def test_a_folder_that_can_not_be_is_told_before_any_call(
    tmp_path: Path, peer: Peer, autojump_clock: Any
) -> None:
    (tmp_path / "hooks").write_text("a file")
    async with trio.open_nursery() as nursery:
        with pytest.raises(ConfigError, match=r"server\.data_dir: what hooks are to deliver"):
            await Bridge(tmp_path, peer, nursery, BOTH).watcher.run(trio.TASK_STATUS_IGNORED)


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("events = ['-call.ended']", "hooks.events: event filter: only exclusions"),
        ("events = ['caller_said']", "hooks.events: event filter: 'caller_said' is a word of the log"),
        ("events = ['Call']", "hooks.events: event filter: 'Call'"),
        ("events = ['response.output_audio.delta']", "hooks.events: 'response.output_audio.delta' is audio"),
    ],
)
def test_words_that_are_wrong_are_told(line: str, says: str, tmp_path: Path) -> None:
    for table in ("hooks", "agents.sales.hooks"):
        config = load_config(f"[{table}]\n{line}", {}, {"server.data_dir": str(tmp_path)})
        with pytest.raises(ConfigError, match=says.replace("hooks", table, 1)):
            HookWatcher(config, Disk().run, WebhookClient())
