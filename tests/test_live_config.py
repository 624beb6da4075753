"""A changed file serves the calls that begin from then on; a broken one changes nothing, and is told."""

from __future__ import annotations

import logging
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar, cast

import pytest
import trio
from house import House, house
from trio.testing import MockClock

from bridge import live_config
from bridge.call import Services
from bridge.call_watcher import CallWatcher
from bridge.config import Config
from bridge.config_file import ConfigFile
from bridge.errors import ConfigError
from bridge.lateness import Lateness
from bridge.live_config import LiveConfig, prepare
from bridge.media_clock import MediaClock
from bridge.metrics import PREFIX, Metrics
from bridge.outbound import CallOrder
from bridge.sounds import Sound
from simulators.ari_server import Callee
from simulators.model_script import Say, Script

T = TypeVar("T")
CHANGED = "changed settings serve calls from now on"
REFUSED = "changed settings refused, the old ones stay in force: "


class Files:
    """A folder with bridge.toml; each write says a later second than the one before."""

    def __init__(self, folder: Path) -> None:
        self.toml = folder / "bridge.toml"
        self._seconds = 0

    def write(self, text: str, name: str = "bridge.toml") -> None:
        file = self.toml.with_name(name)
        file.write_text(text, encoding="utf-8")
        self._seconds += 1
        os.utime(file, (self._seconds, self._seconds))


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path)


# Whole calls --------------------------------------------------------------------------------------------------------


async def session_of(it: House, begins: Callable[[], Any]) -> dict[str, Any]:
    """The model's session of one more call, when it has greeted."""
    said = len(it.told("agent_said"))
    begun = begins()
    if begun is not None:
        await begun
    await it.hears_of("agent_said", said + 1)
    return it.model.session.config


def voice(session: dict[str, Any]) -> str:
    return str(session["audio"]["output"]["voice"])


PLACED = "[agents.default.outbound]\nnumbers = '600'\nendpoint = 'PJSIP/{number}'\n"


async def test_new_calls_have_the_new_settings_and_running_ones_keep_theirs(
    autojump_clock: MockClock, files: Files
) -> None:
    files.write(f"[agents.default]\nvoice = 'ash'\ninstructions_file = 'a.md'\n{PLACED}")
    files.write("You sell bread.", "a.md")
    soon = {"limits.drain_s": "1"}
    async with house(Script.of(*[Say("Hello!", ms=300)] * 6), file=files.toml, overrides=soon) as it:
        it.ari.callees["PJSIP/600"] = Callee()
        assert voice(await session_of(it, it.stasis_call)) == "ash"
        first = it.model.session
        files.write(
            f"[agents.default]\nvoice = 'sage'\ninstructions_file = 'a.md'\n{PLACED}[agents.night]\nvoice = 'coral'\n"
            "[[routes]]\nagent = 'night'\ncalled = '200'\n"
        )
        assert await it.hears_of(CHANGED) == {"generation": 2, "agents": "default, night"}
        assert voice(await session_of(it, it.stasis_call)) == "sage"
        assert voice(await session_of(it, lambda: it.stasis_call(exten="200"))) == "coral"
        assert voice(await session_of(it, it.plain_call)) == "sage"
        placed = await session_of(it, lambda: it.ready.placing.place(CallOrder(to="600")) and None)
        assert (voice(placed), placed["instructions"]) == ("sage", "You sell bread.")
        # The first call loses its model, and has another one: with what it began with.
        await first.drop()
        await it.hears_of("session_resumed")
        assert voice(it.model.session.config) == "ash"
        files.write("You sell cake.", "a.md")
        await it.hears_of(CHANGED, 2)
        assert (await session_of(it, it.stasis_call))["instructions"] == "You sell cake."


# The watch by itself ------------------------------------------------------------------------------------------------


class Watched:
    """`LiveConfig` of a file, and what it has logged."""

    def __init__(self, live: LiveConfig, metrics: Metrics, log: pytest.LogCaptureFixture) -> None:
        self.live, self._metrics, self._log = live, metrics, log

    def told(self, level: int = logging.WARNING) -> list[str]:
        """The lines since the last question."""
        lines = [record.getMessage() for record in self._log.records if record.levelno >= level]
        self._log.clear()
        return lines

    def gauge(self, name: str) -> float | None:
        return self._metrics.registry.get_sample_value(f"{PREFIX}_{name}")


async def at_once(function: Callable[[], T]) -> T:
    await trio.lowlevel.checkpoint()
    return function()


@asynccontextmanager
async def watched(file: Path, log: pytest.LogCaptureFixture, *watchers: CallWatcher) -> AsyncIterator[Watched]:
    log.set_level(logging.INFO)
    source = ConfigFile(file, {}, {}, required=True)
    config, metrics = source.load().config, Metrics()
    services = Services(
        realtime=config.realtime,
        limits=config.limits,
        clock=MediaClock(Lateness(10.0).note),
        run_blocking=at_once,
        watchers=watchers,
    )
    live = LiveConfig(config, services, prepare, source, metrics)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(live.watch)
        yield Watched(live, metrics, log)
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[limits]\ntool_s = 0", "bridge.toml:2: limits.tool_s: must be above zero"),
        ("[limits", "bridge.toml:1: not valid TOML"),
        ("[agents.x]\ninstructions_file = 'b.md'", "bridge.toml:2: agents.x.instructions_file: "),
        ("[agents.x.sounds]\nbusy = 'b.wav'", "bridge.toml:2: agents.x.sounds.busy: "),
        ("[agents.x]\ntools = ['b.py']", "bridge.toml:2: agents.x.tools[0]: "),
        ("[agents.x]\nbudget_usd = 1\n[realtime]\nmodel = 'm'", "bridge.toml:2: agents.x.budget_usd: model 'm'"),
        ("[realtime]\nurl = 'wss://host'", "bridge.toml:2: realtime.url: has no path"),
        (
            "[agents.x]\ninstructions_file = 'a\\u0000'".replace("'", '"'),
            "bridge.toml:2: agents.x.instructions_file: ",
        ),
        ("", "bridge.toml: is empty now"),
        (None, "bridge.toml: no such file"),
    ],
)
async def test_a_broken_file_is_refused_with_its_line_and_the_old_settings_stay(
    autojump_clock: MockClock, files: Files, caplog: pytest.LogCaptureFixture, text: str | None, says: str
) -> None:
    files.write("[agents.default]\nvoice = 'ash'")
    async with watched(files.toml, caplog) as it:
        before = it.live.now
        if text is None:
            files.toml.unlink()
        else:
            files.write(text)
        await trio.sleep(30)
        (line,) = it.told()
        assert line.startswith(
            f"{REFUSED}{files.toml.with_name(says.partition(':')[0])}{says.removeprefix('bridge.toml')}"
        )
        assert it.live.now is before
        assert (it.gauge("config_generation"), it.gauge("config_last_reload_successful")) == (1, 0)
        files.write("[agents.default]\nvoice = 'sage'")
        await trio.sleep(5)
        assert it.told(logging.INFO) == [CHANGED]
        assert it.live.config.agents["default"].voice == "sage"
        assert (it.gauge("config_generation"), it.gauge("config_last_reload_successful")) == (2, 1)


async def test_what_needs_a_restart_is_named_and_stays_as_it_was(
    autojump_clock: MockClock, files: Files, caplog: pytest.LogCaptureFixture
) -> None:
    files.write("[server]\nmax_calls = 10\n[limits]\ntool_s = 10\n[asterisk]\npassword = 'hush-1'")
    async with watched(files.toml, caplog) as it:
        files.write("[server]\nmax_calls = 20\n[limits]\ntool_s = 20\n[asterisk]\npassword = 'hush-2'")
        await trio.sleep(5)
        assert it.told() == [
            f"server.max_calls: has changed, and takes effect with a restart only: {files.toml}:2",
            f"asterisk.password: has changed, and takes effect with a restart only: {files.toml}:6",
        ]
        config = it.live.config
        assert (config.server.max_calls, config.asterisk.password, config.limits.tool_s) == (10, "hush-1", 20)
        assert it.live.services.limits.tool_s == 20
        files.write("[server]\nmax_calls = 20\n[limits]\ntool_s = 30\n[asterisk]\npassword = 'hush-2'")
        await trio.sleep(5)
        assert (it.told(), it.live.now.generation) == ([], 3), "what was said is not said again"


async def test_a_worker_names_what_is_the_supervisors_too(
    autojump_clock: MockClock, files: Files, caplog: pytest.LogCaptureFixture
) -> None:
    files.write("[server]\nworkers = 2\nworker = 2\naudiosocket_port = 9100")
    async with watched(files.toml, caplog) as it:
        files.write("[server]\nworkers = 3\nworker = 2\naudiosocket_port = 9100")
        await trio.sleep(5)
        assert it.told() == [
            f"server.workers: has changed, and takes effect with a restart only: {files.toml}:2 (worker 2)"
        ]
        assert it.live.config.server.audiosocket_port == 9101


async def test_watchers_follow_and_hooks_that_nobody_delivers_are_named(
    autojump_clock: MockClock, files: Files, caplog: pytest.LogCaptureFixture
) -> None:
    class Follower:
        """A watcher, as far as settings are concerned."""

        def settings_changed(self, config: Config) -> None:
            told.append(config.agents["default"].voice)

    class Broken(Follower):
        def settings_changed(self, config: Config) -> None:
            raise RuntimeError("its own defect")

    told: list[str] = []
    files.write("[agents.default]\nvoice = 'ash'")
    followers = [cast("CallWatcher", Broken()), cast("CallWatcher", Follower())]
    async with watched(files.toml, caplog, *followers) as it:
        files.write("[agents.default]\nvoice = 'sage'\nhooks = { event_url = 'https://crm.test/events' }")
        await trio.sleep(5)
        assert told == ["sage"], "whatever becomes of another one"
        assert it.told()[:2] == [
            "a defect of the bridge: Broken goes on by the settings before these",
            "agents: hooks are new here, and nobody delivers them before a restart",
        ]


async def test_what_the_new_file_names_is_loaded_with_it_and_followed(
    autojump_clock: MockClock, files: Files, caplog: pytest.LogCaptureFixture
) -> None:
    def tools(it: Watched) -> list[str]:
        agent = it.live.config.agents["default"]
        return [tool["name"] for tool in it.live.services.tools_for("default", agent).declarations()]

    files.write("# nothing")
    async with watched(files.toml, caplog) as it:
        files.write("def open_hours() -> str:\n    'When we are open.'\n    return 'always'\n", "t.py")
        files.write('as_of = "2026-11-01"\n[models.m]\nsource = "us"\ntext = { input = 1, output = 2 }\n', "p.toml")
        files.write(
            "[realtime]\nmodel = 'm'\nprices = 'p.toml'\n"
            "[agents.default]\nbudget_usd = 1\ntools = ['t.py']\n[agents.default.sounds]\nbusy = 'none'\n"
        )
        await trio.sleep(5)
        services = it.live.services
        assert (tools(it), list(services.prices.models), services.realtime.model) == (["open_hours"], ["m"], "m")
        assert Sound.BUSY not in services.sounds["default"].lengths_s
        files.write("def prices() -> str:\n    'What bread costs.'\n    return 'much'\n", "t.py")
        await trio.sleep(5)
        assert (tools(it), it.live.now.generation) == (["prices"], 3)
        files.write("def prices(:\n", "t.py")
        await trio.sleep(5)
        assert (tools(it), it.live.now.generation) == (["prices"], 3)
        assert f"{files.toml}:6: agents.default.tools[0]: " in it.told(logging.ERROR)[0]


async def test_half_a_file_is_not_read_and_no_change_is_missed(
    autojump_clock: MockClock, files: Files, caplog: pytest.LogCaptureFixture
) -> None:
    files.write("[agents.default]\nvoice = 'ash'")
    async with watched(files.toml, caplog) as it:
        for _ in range(10):  # somebody writes and writes
            files.write("[agents.default]\n")
            await trio.sleep(0.9)
        assert it.live.now.generation == 1
        files.write("[agents.default]\nvoice = 'sage'\n")
        await trio.sleep(5)
        assert (it.live.now.generation, it.live.config.agents["default"].voice) == (2, "sage")
        await trio.sleep(60)
        assert it.live.now.generation == 2, "an unchanged file is no news"


async def test_a_defect_of_ours_costs_no_call_and_no_process(
    autojump_clock: MockClock, files: Files, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(config: Config) -> list[str]:
        raise ZeroDivisionError("oops")

    files.write("[agents.default]\nvoice = 'ash'")
    async with watched(files.toml, caplog) as it:
        with monkeypatch.context() as patch:
            patch.setattr(live_config, "warnings_of", broken)
            files.write("[agents.default]\nvoice = 'sage'")
            await trio.sleep(5)
        (line,) = it.told(logging.ERROR)
        assert line.startswith("a defect of the bridge")
        assert (it.live.config.agents["default"].voice, it.gauge("config_last_reload_successful")) == ("ash", 0)
        files.write("[agents.default]\nvoice = 'coral'")
        await trio.sleep(5)
        assert it.live.config.agents["default"].voice == "coral"


async def test_a_file_that_comes_after_the_one_that_names_it_is_found(
    autojump_clock: MockClock, files: Files, caplog: pytest.LogCaptureFixture
) -> None:
    files.write("# nothing")
    async with watched(files.toml, caplog) as it:
        files.write("[agents.default]\ninstructions_file = 'late.md'")
        await trio.sleep(20)
        assert len(it.told(logging.ERROR)) == 1
        files.write("Better late.", "late.md")
        await trio.sleep(8)
        assert it.live.config.agents["default"].instructions == "Better late."


def test_a_change_between_two_looks_of_one_load_is_seen_by_the_next(
    files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    files.write("# one")
    it = ConfigFile(files.toml, {}, {}, required=False)
    read = Path.read_text

    def read_and_edit(path: Path, encoding: str) -> str:
        text = read(path, encoding=encoding)
        files.write("# two")
        return text

    monkeypatch.setattr(Path, "read_text", read_and_edit)
    it.load()
    assert it.loaded_stamps() != it.stamps()


def test_a_file_that_nobody_named_may_be_missing_until_it_was_there_once(files: Files) -> None:
    it = ConfigFile(files.toml, {}, {}, required=False)
    assert it.load().config.agents["default"].voice == "marin"
    files.write("# here")
    it.load()
    files.toml.unlink()
    with pytest.raises(ConfigError, match="no such file"):
        it.load()
