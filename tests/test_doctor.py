"""The doctor against the strict fakes: each check in every outcome, in virtual time."""

from __future__ import annotations

import errno
import os
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from uuid import UUID, uuid4

import pytest
import trio
from trio.testing import MockClock

from bridge.config import load_config
from bridge.doctor import examine
from bridge.doctor_model import check_model
from bridge.endpoint import endpoint_of
from bridge.findings import Finding, Verdict
from simulators.ari_server import AriServer
from simulators.caller import Caller
from simulators.memory import MemoryListener, memory_stream_pair
from simulators.model_script import Script
from simulators.realtime_server import REFUSALS, RealtimeServer

RATES_HZ = {"slin": 8000, "slin16": 16000, "slin24": 24000}
SETTINGS = {
    "asterisk.password": "bridge",
    "realtime.url": "ws://model.test/v1/realtime",
    "realtime.api_key": "sk-hush",
    "records.url": "",
}


class Practice:
    """What the doctor is let loose on: an Asterisk, a model, and the ports of this machine."""

    def __init__(self, nursery: trio.Nursery, ari: AriServer) -> None:
        self.nursery = nursery
        self.ari = ari
        self.model = RealtimeServer(Script(), key="sk-hush")
        self.taken: set[int] = set()
        self.unbindable: int = 0
        self.comes = True
        self.also_comes: list[UUID] = []
        self.formats: list[str] = []
        self.addresses: list[str] = []
        self._media = MemoryListener()

    async def listen(self, host: str, port: int) -> list[trio.abc.Listener[trio.abc.Stream]]:
        await trio.lowlevel.checkpoint()
        number = errno.EADDRINUSE if port in self.taken else self.unbindable
        if number:
            raise OSError(number, os.strerror(number))
        self._media = MemoryListener()
        return [self._media]

    def dial(self, host: str, data: str, media_format: str) -> None:
        """What Asterisk does for externalMedia."""
        self.addresses.append(host)
        self.formats.append(media_format)
        for call_id in [*self.also_comes, *([UUID(data)] if self.comes else [])]:
            self.nursery.start_soon(self._dial, call_id, RATES_HZ[media_format])

    async def _dial(self, call_id: UUID, rate_hz: int) -> None:
        caller = await Caller.dial(self._media.connect(), call_id, rate_hz)
        await caller.run()

    async def findings(self, *, model: bool = False, **settings: str) -> dict[str, Finding]:
        """What the doctor says, by name (the last of each); keys are settings with `__` for the dot."""
        given = SETTINGS | {key.replace("__", "."): value for key, value in settings.items()}
        config = load_config("", {}, given)
        found: list[Finding] = []
        listener = await self.model.listen_in_memory(self.nursery)
        await examine(
            config,
            found.append,
            model=model,
            connect_ari=self.ari.connect,
            connect_model=listener.connect,
            listen=self.listen,
            pacing_s=0.2,
        )
        await trio.sleep(3)
        assert not self.ari.channels, "a channel was left in Asterisk"
        assert not self.ari.bridges
        assert "sk-hush" not in "".join(finding.text + finding.remedy for finding in found)
        return {finding.name: finding for finding in found}


@asynccontextmanager
async def practice(**asterisk: str) -> AsyncIterator[Practice]:
    ari = AriServer(app="bridge-1-doctor", **asterisk)
    async with trio.open_nursery() as nursery:
        it = Practice(nursery, ari)
        ari.on_external_media = it.dial
        await nursery.start(ari.run)
        yield it
        nursery.cancel_scope.cancel()


def verdicts(found: Mapping[str, Finding]) -> dict[str, str]:
    return {name: str(finding.verdict) for name, finding in found.items() if finding.verdict is not Verdict.OK}


LATER = ("version", "modules", "ari rights", "application", "media")


async def test_everything_is_right(autojump_clock: MockClock) -> None:
    async with practice() as it:
        found = await it.findings(model=True)
        assert verdicts(found) == {}
        assert list(found) == [
            *("configuration", "port", "asterisk", "version", "modules", "ari rights", "application", "media"),
            *("model", "records", "python", "open files", "memory", "pacing"),
        ]
        assert "Asterisk 22.10.1; calls are asked for as slin16" in found["version"].text
        assert "came to us at 127.0.0.1:9092" in found["media"].text
        assert "a session of agent default stands after" in found["model"].text
        assert [passed.event["type"] for passed in it.model.received] == ["session.update"]
        assert "late by 0.0 ms (p50)" in found["pacing"].text
        assert it.formats == ["slin16"]


async def test_a_wrong_password_is_told_without_showing_it(autojump_clock: MockClock) -> None:
    async with practice() as it:
        found = await it.findings(asterisk__password="secret-word")
        assert verdicts(found) == {"asterisk": "fail", **dict.fromkeys(LATER, "skipped"), "model": "skipped"}
        assert "Asterisk 22.10.1 refuses user 'bridge' (HTTP 401)" in found["asterisk"].text
        assert "section [bridge]" in found["asterisk"].remedy
        assert "secret-word" not in str(found)
        assert "with an empty password" in (await it.findings(asterisk__password=""))["asterisk"].text


async def test_asterisk_out_of_reach(autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> trio.abc.Stream:
        raise ConnectionRefusedError(errno.ECONNREFUSED, "Connection refused")

    async with practice() as it:
        monkeypatch.setattr(it.ari, "connect", refuse)
        found = await it.findings()
        assert verdicts(found) == {"asterisk": "fail", **dict.fromkeys(LATER, "skipped"), "model": "skipped"}
        assert "Connection refused" in found["asterisk"].text
        assert "http show status" in found["asterisk"].remedy


async def test_something_that_says_nothing(autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch) -> None:
    async with practice() as it:
        pairs = [memory_stream_pair()]
        monkeypatch.setattr(it.ari, "connect", lambda: pairs[0][0])
        found = await it.findings()
        assert "gave no proper answer within 5 s" in found["asterisk"].text


async def test_something_that_is_no_web_server(autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch) -> None:
    async with practice() as it:
        ours, theirs = memory_stream_pair()
        await theirs.send_all(b"SSH-2.0-OpenSSH_9.2\r\n")
        await theirs.send_eof()
        monkeypatch.setattr(it.ari, "connect", lambda: ours)
        found = await it.findings()
        assert found["asterisk"].verdict is Verdict.FAIL
        assert "does not speak HTTP" in found["asterisk"].text
        assert "asterisk.url" in found["asterisk"].remedy


async def test_a_web_server_without_ari(autojump_clock: MockClock) -> None:
    async with practice() as it:
        it.ari.enabled = False
        found = await it.findings()
        assert "Asterisk 22.10.1 has no ARI" in found["asterisk"].text
        assert "ari.conf: enabled = yes" in found["asterisk"].remedy


async def test_http_without_the_websocket(autojump_clock: MockClock) -> None:
    async with practice() as it:
        it.ari.has_events = False
        found = await it.findings()
        assert verdicts(found) == {"websocket": "fail", **dict.fromkeys(LATER, "skipped"), "model": "skipped"}
        assert "module load res_ari_events.so" in found["websocket"].remedy


async def test_an_asterisk_that_takes_no_requests_on_its_websocket_is_asked_by_http(
    autojump_clock: MockClock,
) -> None:
    async with practice(version="20.6.0") as it:
        found = await it.findings()
        assert verdicts(found) == {"version": "warn", "model": "skipped"}
        assert found["requests"].text == (
            "go by HTTP, and are answered there: Asterisk 20.6.0 takes none on its websocket"
        )
        assert it.ari.dropped == 0
        assert it.formats == ["slin"]


@pytest.mark.parametrize(
    ("version", "requests", "says", "remedy"),
    [
        ("20.6.0", "websocket", "takes no requests on its websocket", 'asterisk.requests = "auto"'),
        ("22.10.1", "websocket", "takes no requests on its websocket", "does it hang?"),
        ("22.10.1", "auto", "answers no requests by HTTP", "does it hang?"),
        ("20.6.0", "auto", "answers no requests by HTTP", "does it hang?"),
    ],
)
async def test_an_asterisk_that_answers_no_requests(
    autojump_clock: MockClock, version: str, requests: str, says: str, remedy: str
) -> None:
    async with practice(version=version) as it:
        with it.ari.never_answers(""):
            found = await it.findings(asterisk__requests=requests)
        assert verdicts(found) == {"requests": "fail", **dict.fromkeys(LATER, "skipped"), "model": "skipped"}
        assert f"Asterisk {version} {says}" in found["requests"].text
        assert remedy in found["requests"].remedy


async def test_an_old_version_is_asked_for_8_khz_and_its_faults_are_told(autojump_clock: MockClock) -> None:
    async with practice(version="20.15.0") as it:
        found = await it.findings()
        assert verdicts(found) == {"version": "warn", "model": "skipped"}
        assert it.formats == ["slin"]
        assert "comfort noise" in found["version"].text


@pytest.mark.parametrize(
    ("module", "media_format", "verdict"),
    [
        ("chan_audiosocket.so", "slin", "fail"),
        ("app_stasis.so", "slin", "fail"),
        ("codec_resample.so", "slin16", "fail"),
        ("codec_resample.so", "slin", "ok"),
        ("codec_resample.so", "auto", "ok"),
        ("func_dialplan.so", "slin", "warn"),
    ],
)
async def test_a_module_that_is_missing(
    autojump_clock: MockClock, module: str, media_format: str, verdict: str
) -> None:
    async with practice() as it:
        it.ari.modules[module] = "Not Running"
        found = await it.findings(asterisk__format=media_format)
        assert found["modules"].verdict == verdict
        if verdict != "ok":
            assert f"module load {module}" in found["modules"].remedy
        assert (found["version"].verdict is Verdict.WARN) is (media_format == "auto")


async def test_a_user_that_may_only_look_on(autojump_clock: MockClock) -> None:
    async with practice() as it:
        it.ari.read_only = True
        found = await it.findings()
        assert verdicts(found) == {"ari rights": "fail", "media": "skipped", "model": "skipped"}
        assert "section [bridge]: read_only = no" in found["ari rights"].remedy


async def test_beside_a_running_bridge_nothing_of_it_is_touched(autojump_clock: MockClock) -> None:
    async with practice() as it:
        it.taken.add(9092)
        it.ari.other_apps["bridge-1"] = ["1795256384.2", "realtime-media-x"]
        found = await it.findings()
        assert verdicts(found) == {"model": "skipped"}
        assert found["port"].text == "127.0.0.1:9092 is in use: a bridge is running"
        assert found["application"].text == "bridge-1 is served, 2 channels in it"
        assert "since 9092 is in use" in found["media"].text
        assert it.addresses == ["127.0.0.1:0"], "another port"


async def test_an_application_that_another_bridge_has(autojump_clock: MockClock) -> None:
    async with practice() as it:
        it.ari.other_apps["bridge-1"] = []
        found = await it.findings()
        assert verdicts(found) == {"application": "warn", "model": "skipped"}
        assert 'asterisk.app = "bridge-2"' in found["application"].remedy


async def test_a_port_that_another_program_has(autojump_clock: MockClock) -> None:
    async with practice() as it:
        it.taken.add(9092)
        found = await it.findings()
        assert verdicts(found) == {"port": "warn", "model": "skipped"}
        assert "ss -ltnp 'sport = :9092'" in found["port"].remedy


async def test_a_taken_port_behind_another_address_is_not_tried(autojump_clock: MockClock) -> None:
    async with practice() as it:
        it.taken.add(9092)
        found = await it.findings(asterisk__media_address="pbx-side.example:19092")
        assert verdicts(found) == {"port": "warn", "media": "skipped", "model": "skipped"}
        assert it.addresses == []


@pytest.mark.parametrize(
    ("number", "remedy"), [(errno.EADDRNOTAVAIL, "must be an address of this machine"), (errno.EACCES, "need root")]
)
async def test_a_port_on_which_nobody_can_listen(autojump_clock: MockClock, number: int, remedy: str) -> None:
    async with practice() as it:
        it.unbindable = number
        found = await it.findings()
        assert verdicts(found) == {"port": "fail", "media": "skipped", "model": "skipped"}
        assert remedy in found["port"].remedy


async def test_media_that_asterisk_can_not_bring(autojump_clock: MockClock) -> None:
    def refuse(host: str, uuid: str, media_format: str) -> None:
        raise ConnectionRefusedError

    async with practice() as it:
        it.ari.on_external_media = refuse
        found = await it.findings(asterisk__media_address="10.0.0.99:9092")
        assert verdicts(found) == {"media": "fail", "model": "skipped"}
        assert "Asterisk found nobody at 10.0.0.99:9092" in found["media"].text
        assert 'asterisk.media_address must be this process as Asterisk sees it: "127.0.0.1:9092"' in (
            found["media"].remedy
        )


async def test_media_that_goes_to_somebody_else(autojump_clock: MockClock) -> None:
    async with practice() as it:
        it.comes = False
        found = await it.findings()
        assert verdicts(found) == {"media": "fail", "model": "skipped"}
        assert "it was not us" in found["media"].text


async def test_media_that_asterisk_never_answers_for(autojump_clock: MockClock) -> None:
    async with practice() as it:
        with it.ari.never_answers("POST channels/externalMedia"):
            found = await it.findings()
        assert verdicts(found) == {"media": "fail", "model": "skipped"}
        assert "no answer to POST channels/externalMedia" in found["media"].text


async def test_a_stray_call_at_our_port_is_no_answer_and_no_trouble(autojump_clock: MockClock) -> None:
    async with practice() as it:
        it.also_comes = [uuid4()]
        assert verdicts(await it.findings()) == {"model": "skipped"}
        it.comes = False
        assert verdicts(await it.findings()) == {"media": "fail", "model": "skipped"}


async def test_of_several_workers_the_first_is_tried(autojump_clock: MockClock) -> None:
    async with practice() as it:
        found = await it.findings(server__workers="3")
        assert verdicts(found) == {"model": "skipped"}
        assert "Worker 1 of 3 is tried" in found["configuration"].text
        assert "300 calls" in found["memory"].text
        assert it.addresses == ["127.0.0.1:9092"]


async def test_without_ari_only_the_port_is_asked_for(autojump_clock: MockClock) -> None:
    async with practice() as it:
        found = await it.findings(asterisk__enabled="false")
        assert verdicts(found) == {"asterisk": "skipped", "model": "skipped"}
        assert found["port"].verdict is Verdict.OK
        assert it.ari.requests == []


async def test_a_doctor_that_is_sent_away_leaves_nothing(autojump_clock: MockClock) -> None:
    """Ctrl-C in the middle of the question to Asterisk."""
    async with practice() as it:
        it.comes = False
        with trio.move_on_after(2):
            await it.findings()
            raise AssertionError("it should have waited for the media")
        assert it.addresses == ["127.0.0.1:9092"]
        await trio.sleep(1)
        assert not it.ari.channels


async def test_a_setting_that_can_not_work_ends_the_examination(autojump_clock: MockClock) -> None:
    async with practice() as it:
        found = await it.findings(realtime__url="wss://box")
        assert verdicts(found) == {"configuration": "fail"}
        assert "realtime.url: has no path" in found["configuration"].text


# The model


async def model_findings(server: RealtimeServer, text: str = "", **settings: str) -> list[Finding]:
    given = SETTINGS | {key.replace("__", "."): value for key, value in settings.items()}
    config = load_config(text, {}, given)
    found: list[Finding] = []
    async with trio.open_nursery() as nursery:
        listener = await server.listen_in_memory(nursery)
        await check_model(
            *(config.realtime, endpoint_of(config.realtime), config.agents, config.limits, found.append),
            connect_stream=listener.connect,
        )
        await server.until(lambda: server.open_connections == 0)
        nursery.cancel_scope.cancel()
    return found


@pytest.mark.parametrize(
    ("code", "remedy"),
    [
        ("invalid_api_key", "export OPENAI_API_KEY"),
        ("invalid_model", "realtime.model ="),
        ("missing_model", "realtime.model ="),
        ("model_not_found", "realtime.model ="),
        ("insufficient_permissions", "permission"),
        ("insufficient_quota", "credit"),
        ("credit_balance_exhausted", "credit"),
        ("beta_api_shape_disabled", 'realtime.dialect = "ga"'),
        ("session_limit_reached", "all sessions"),
        ("model_load_error", "log of the server"),
        ("server_error", "try again"),
    ],
)
async def test_each_refusal_of_the_model_has_its_remedy(autojump_clock: MockClock, code: str, remedy: str) -> None:
    assert code in REFUSALS
    server = RealtimeServer(Script())
    with server.refusing(code):
        (finding,) = await model_findings(server, "[agents.sales]")  # the same for every agent: said once
    assert finding.verdict is Verdict.FAIL
    assert remedy in finding.remedy


async def test_a_server_that_repeats_the_key_does_not_make_us_show_it(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    close, kind, _ = REFUSALS["invalid_api_key"]
    monkeypatch.setitem(REFUSALS, "invalid_api_key", (close, kind, "Incorrect API key provided: sk-hush."))
    (finding,) = await model_findings(RealtimeServer(Script(), key="another"))
    assert "Incorrect API key provided: ***" in finding.text


async def test_a_session_for_each_agent(autojump_clock: MockClock) -> None:
    server = RealtimeServer(Script(), key="sk-hush")
    found = await model_findings(server, "[agents.sales]\nvoice = 'cedar'")
    assert [(finding.name, finding.verdict) for finding in found] == [
        ("model default", Verdict.OK),
        ("model sales", Verdict.OK),
    ]
    assert [passed.event["type"] for passed in server.received] == ["session.update"] * 2


async def test_no_key_where_one_is_needed(autojump_clock: MockClock) -> None:
    server = RealtimeServer(Script())
    (finding,) = await model_findings(server, realtime__url="wss://api.openai.com", realtime__api_key="")
    assert (finding.verdict, finding.text) == (Verdict.FAIL, "there is no key for api.openai.com")
    assert server.received == []


async def test_a_model_that_is_slow_or_silent(autojump_clock: MockClock) -> None:
    server = RealtimeServer(Script())
    server.faults.created_after_s = 4.0
    (finding,) = await model_findings(server)
    assert finding.verdict is Verdict.WARN
    assert "after 4000 ms" in finding.text
    server.faults.created_after_s = 60.0
    (finding,) = await model_findings(server)
    assert finding.verdict is Verdict.FAIL
    assert "no session in time" in finding.text
    assert "can this machine reach model.test?" in finding.remedy
