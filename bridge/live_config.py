"""The settings that serve new calls: those of the start, and after each change of the files those of the files.

    watch     once a second, in a thread: is there another file than before?   no -> again
              two looks that agree: whoever writes it has finished
              read it, check it, load all that it names                        wrong -> told in the log; the old ones stay
              the next generation is in force, for calls that begin from now on

A call keeps the settings that it began with. What is bound to ports, processes and Asterisk's applications can not change
under them: of such a setting the value of the start stays, and the log says which waits for a restart. Of several workers
each does this by itself. Decisions are made here, and reading is `ConfigSource`'s.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import msgspec
import trio

from bridge import hook_bodies
from bridge.agent_tools import AgentTools
from bridge.call import Services
from bridge.call_recording import InThread
from bridge.call_watcher import Follows
from bridge.config import Config, Loaded, warnings_of
from bridge.endpoint import Endpoint, check_agents, endpoint_of
from bridge.errors import BridgeError
from bridge.metrics import Metrics
from bridge.prices import PriceTable, check_budgets, load_prices
from bridge.sound_files import load_sounds
from bridge.sounds import Sounds
from bridge.toml_lines import dotted
from bridge.tools import ToolRegistry
from bridge.watchers import tells
from bridge.webhook_client import WebhookClient

_log = logging.getLogger("bridge.settings")

POLL_S = 1.0
# A file that names another one which is not there yet: nothing tells when it comes.
RETRY_S = 5.0
LIVE = frozenset({"realtime", "limits", "agents", "routes"})
"""The sections that a new call takes as the file has them now. All others are those of the start."""


class ConfigSource(Protocol):
    """Where settings are read again. `stamps` and `load` block, and are called in a thread."""

    def stamps(self) -> object:
        """Equal to the last one as long as no file has changed; never raises."""
        ...

    def load(self) -> Loaded:
        """The settings as they are now. Raises `ConfigError`."""
        ...

    def loaded_stamps(self) -> object:
        """`stamps` as they were before the last `load`."""
        ...

    def common(self) -> Config | None:
        """The settings of the last `load`, for all workers. Does not block."""
        ...

    def warnings(self) -> list[str]:
        """Of the last `load`. Does not block."""
        ...

    def located(self, error: BaseException) -> str:
        """What to tell of an error about one of its settings."""
        ...


@dataclass(frozen=True, slots=True)
class Prepared:
    """What is read and made of settings before the first call, so that nothing is read during one."""

    endpoint: Endpoint
    sounds: Mapping[str, Sounds]
    prices: PriceTable
    tools: AgentTools


def prepare(config: Config, application: ToolRegistry | None = None, client: WebhookClient | None = None) -> Prepared:
    """Load all that the settings name, and find out what can be known to be wrong before the first call. Blocks. Raises
    `ConfigError`."""
    prices = load_prices(config.realtime.prices)
    check_budgets(config, prices)
    sounds = load_sounds(config.agents)
    tools = AgentTools.load(config.agents, application, client)
    hook_bodies.check(config)
    endpoint = endpoint_of(config.realtime)
    check_agents(endpoint, config.agents)
    return Prepared(endpoint, sounds, prices, tools)


@dataclass(frozen=True, slots=True)
class InForce:
    """The settings of a call that begins now. `generation`: 1 for those of the start, one more with each change."""

    generation: int
    config: Config
    services: Services


class LiveConfig:
    """`now` serves the next call. `prepare` is asked with the settings of each new generation, in a thread."""

    def __init__(
        self,
        config: Config,
        services: Services,
        prepare: Callable[[Config], Prepared],
        source: ConfigSource | None,
        metrics: Metrics,
    ) -> None:
        self.now = InForce(1, config, services)
        self._prepare = prepare
        self._source = source
        self._generation = metrics.gauge(
            "config_generation", "Which settings serve new calls: 1 those of the start, one more with each change."
        )
        self._successful = metrics.gauge(
            "config_last_reload_successful", "0 while a changed file is refused, and older settings serve calls."
        )
        self._generation.set(1)
        self._successful.set(1)
        self._told = ""
        self._common = (source.common() if source is not None else None) or config
        self._tells = tells(config)
        self._warned = {*source.warnings(), *warnings_of(config)} if source is not None else set()

    @property
    def config(self) -> Config:
        return self.now.config

    @property
    def services(self) -> Services:
        return self.now.services

    async def watch(self) -> None:
        """Follow the files for ever; without a source there are none to follow."""
        source = self._source
        if source is None:
            return
        run: InThread = self.services.run_blocking
        seen = source.loaded_stamps()
        retry_at: float | None = None
        while True:
            await trio.sleep(POLL_S)
            stamps = await run(source.stamps)
            if stamps == seen:
                if retry_at is None or trio.current_time() < retry_at:
                    continue
            elif await self._still_changing(source, stamps):
                continue
            retry_at = None if await self._reload(source) else trio.current_time() + RETRY_S
            seen = source.loaded_stamps()

    async def _still_changing(self, source: ConfigSource, stamps: object) -> bool:
        """An editor, or a copy over the network, takes a moment; half a file may well be a valid one."""
        await trio.sleep(POLL_S)
        return await self.services.run_blocking(source.stamps) != stamps

    async def _reload(self, source: ConfigSource) -> bool:
        """Put the files' settings in force. Returns whether they are, or are refused for good until a file changes."""
        run: InThread = self.services.run_blocking
        try:
            loaded = await run(source.load)
        except BridgeError as error:
            self._refuse(str(error))
            return False
        except Exception:
            self._failed()
            return True
        try:
            config = _with_sections_of_start(self.config, loaded.config)
            waiting = _waiting(self._common, loaded.common)
            # A hundred agents take 0.1 s, and the media clock is the event loop's.
            prepared, warnings = await run(lambda: (self._prepare(config), warnings_of(config)))
            self._put_in_force(config, prepared)
            self._warn(
                [
                    f"{place}: has changed, and takes effect with a restart only: {loaded.origins.of(place)}"
                    for place in waiting
                ]
                + [*loaded.warnings, *warnings]
            )
        except BridgeError as error:
            self._refuse(source.located(error))
        except Exception:
            self._failed()
        return True

    def _put_in_force(self, config: Config, prepared: Prepared) -> None:
        services = dataclasses.replace(
            self.services,
            realtime=config.realtime,
            limits=config.limits,
            tools_for=prepared.tools.tools_for,
            sounds=prepared.sounds,
            prices=prepared.prices,
        )
        self.now = InForce(self.now.generation + 1, config, services)
        self._told = ""
        self._generation.set(self.now.generation)
        self._successful.set(1)
        facts = {"generation": self.now.generation, "agents": ", ".join(config.agents)}
        _log.info("changed settings serve calls from now on", extra={"facts": facts})
        for watcher in services.watchers:
            if isinstance(watcher, Follows):
                try:
                    watcher.settings_changed(config)
                except Exception:
                    name = type(watcher).__name__
                    _log.exception("a defect of the bridge: %s goes on by the settings before these", name)
        if tells(config) and not self._tells:
            _log.warning("agents: hooks are new here, and nobody delivers them before a restart")

    def _warn(self, warnings: list[str]) -> None:
        """What was not said of the settings before."""
        for warning in warnings:
            if warning not in self._warned:
                _log.warning("%s", warning)
        self._warned = set(warnings)

    def _failed(self) -> None:
        """Never at the cost of the process, which has calls."""
        self._successful.set(0)
        _log.exception("a defect of the bridge: changed settings could not be put in force; the old ones stay")

    def _refuse(self, why: str) -> None:
        """Once for each mistake, however often it is tried."""
        self._successful.set(0)
        if why != self._told:
            self._told = why
            facts = {"generation": self.now.generation}
            _log.error("changed settings refused, the old ones stay in force: %s", why, extra={"facts": facts})


_BOUND = [section for section in Config.__struct_fields__ if section not in LIVE]


def _with_sections_of_start(old: Config, new: Config) -> Config:
    """The new settings with the old ones where those are bound to the process."""
    return msgspec.structs.replace(new, **{section: getattr(old, section) for section in _BOUND})


def _waiting(old: Config, new: Config) -> list[str]:
    """The places of bound settings that are others now."""
    return [
        place
        for section in _BOUND
        for place in _differences(
            msgspec.to_builtins(getattr(old, section)), msgspec.to_builtins(getattr(new, section)), section
        )
    ]


def _differences(old: Any, new: Any, place: str) -> Iterator[str]:
    if isinstance(old, dict) and isinstance(new, dict):
        for key in {**old, **new}:
            yield from _differences(old.get(key), new.get(key), f"{place}.{dotted((key,))}")
    elif old != new:
        yield place
