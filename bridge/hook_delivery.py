"""Carries messages from a folder on disk to the operator's services: at least once, in order, whatever becomes of us.

    keep      files into the spool, in a thread, many in one go; then they wait
    deliver   what is due (`delivery`) -> POST; a few at once to each URL; read before, where it is not in memory any more
    remove    what was taken, many in one go as well: each way to a thread and back costs 0.2 ms of the event loop's core
    look      each 30 s: what dead processes of the same `server.data_dir` left is taken over, what is too old given up

No receiver is waited for by anybody. A file holds the URL only where it is not the settings' own, so that a URL that is put
right in the settings holds for what waits, too; secrets are in the settings alone.
"""

from __future__ import annotations

import enum
import logging
import random
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Literal

import msgspec
import trio

from bridge.call_recording import InThread
from bridge.config import Config
from bridge.delivery import Deliveries, Message
from bridge.errors import ConfigError, SpoolError, WebhookError, WebhookUnreachable
from bridge.hooks import CallHooks, hooks_of
from bridge.spool import Kept, Spool
from bridge.webhook_client import Receiver, WebhookClient

_log = logging.getLogger("bridge.hooks")

FOLDER = "hooks"
LOOK_EACH_S = 30.0
_GONE = 410
# These say that the receiver as a whole has no time. Any other one may be about the one message.
_OVERLOADED = frozenset({429, 502, 503, 504})
_NAMED_CALLS = 5
# What was just written need not be read: most receivers take it at once.
_MOST_FRESH_BYTES = 8_000_000
# What has waited for long is not to take the core from the calls when its receiver is back: with `MOST_AT_ONCE` places, 80
# messages a second and URL.
_OLD_S, _CATCH_UP_S = 60.0, 0.1
# Taken messages are removed so long after that; killed meanwhile, we send them again.
_REMOVE_AFTER_S = 0.1

Kind = Literal["events", "action"]


class Outgoing(msgspec.Struct, frozen=True):
    """One message, as its file holds it. `url` is empty where the settings of the agent tell it."""

    call_id: str
    agent: str
    kind: Kind
    body: msgspec.Raw
    url: str = ""


@dataclass(slots=True)
class HookCounts:
    """Since this process began; `waiting` and `oldest_s` are now. `failed` counts tries. Messages that nobody took in time
    are `given_up`; those that could not be kept, and single events of which there were too many, are `lost`."""

    waiting: int = 0
    oldest_s: float = 0.0
    delivered: int = 0
    failed: int = 0
    given_up: int = 0
    lost: int = 0


class _Outcome(enum.Enum):
    TAKEN = "2xx"
    UNWANTED = "410: nobody wants it any more"
    GONE = "its file is damaged or removed, which was told"


@dataclass(frozen=True, slots=True)
class _Failed:
    """Another try may succeed. `unreachable`: so it is with other calls' messages."""

    unreachable: bool
    retry_after_s: float = 0.0
    why: str = ""


class HookDelivery:
    """`open` it, `run` it in a task, `keep` what is to be delivered, `close` it."""

    def __init__(
        self,
        config: Config,
        run_blocking: InThread,
        client: WebhookClient,
        *,
        unix_s: Callable[[], float] = time.time,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._config = config
        self._run_blocking = run_blocking
        self._unix_s = unix_s
        self._spool = Spool(Path(config.server.data_dir) / FOLDER, unix_s=unix_s)
        self._client = client
        self._deliveries = Deliveries(config.hooks.give_up_after_s, chance)
        self._changed = trio.Event()
        self._under_way = 0
        self._troubled: set[str] = set()
        self._fresh: dict[str, tuple[Outgoing, int]] = {}
        self._fresh_bytes = 0
        self._taken: list[str] = []
        self._taken_some = trio.Event()
        self._counts = HookCounts()

    @property
    def counts(self) -> HookCounts:
        """How it is now."""
        oldest = self._deliveries.oldest_unix_s
        age_s = 0.0 if oldest is None else max(0.0, self._unix_s() - oldest)
        return replace(self._counts, waiting=len(self._deliveries), oldest_s=age_s)

    def lost(self, number: int) -> None:
        """So much was lost on its way here."""
        self._counts.lost += number

    def settings_changed(self, config: Config) -> None:
        """Go by these agents from now on."""
        self._config = config

    def hooks_of_agent(self, name: str) -> CallHooks:
        """By the settings; of an agent that is no longer there those of all."""
        agent = self._config.agents.get(name)
        return hooks_of(self._config.hooks, agent.hooks if agent else None)

    async def open(self) -> None:
        """Take over what is left on disk. Raises `ConfigError` where nothing can be kept."""
        try:
            left = await self._run_blocking(self._spool.open)
            self._take_in(await self._run_blocking(partial(self._read_all, left)))
        except SpoolError as error:
            raise ConfigError(
                f"server.data_dir: what hooks are to deliver can not be kept there: {error}; make it writable for the "
                "bridge's user, or choose another folder",
                place="server.data_dir",
            ) from error

    async def close(self) -> None:
        """Idempotent. What waits stays on disk."""
        with trio.move_on_after(1, shield=True):
            await self._remove_taken()
            await self._run_blocking(self._spool.close)

    async def keep(self, running: Sequence[Outgoing], ended: Sequence[Outgoing] = ()) -> None:
        """Have these delivered, each call's in this order; returns when they are kept. Those of calls that have `ended`
        outlive a loss of power, those of running ones the process only. What can not be kept is lost, and told."""
        kept, troubles = await self._run_blocking(partial(self._put_all, running, ended))
        for it, message in kept:
            if self._fresh_bytes + it.size <= _MOST_FRESH_BYTES:
                self._fresh[it.name] = message, it.size
                self._fresh_bytes += it.size
        self._add(kept)
        if troubles:
            self.lost(len(troubles))
            calls = sorted({message.call_id for message, _ in troubles})
            _log.error("hooks: %d messages are lost, of %s: %s", len(troubles), _some(calls), troubles[0][1])

    # Delivering ------------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Deliver for ever. Cancelled, what is under way may have been taken or not, and is sent again some time."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._look_each)
            nursery.start_soon(self._remove_each)
            while True:
                self._changed = trio.Event()
                for message in self._deliveries.take(trio.current_time()):
                    self._under_way += 1
                    nursery.start_soon(self._deliver, message)
                with trio.move_on_at(self._deliveries.next_at()):
                    await self._changed.wait()

    async def until_idle(self) -> None:
        """Wait until nothing is under way, and nothing can be tried now."""
        while self._under_way or self._deliveries.next_at() <= trio.current_time():  # noqa: ASYNC110 - once, at the end
            await trio.sleep(0.02)

    async def _deliver(self, message: Message) -> None:
        try:
            try:
                outcome = await self._try(message)
            except Exception:
                # One message that a library trips over must not end all others, or the calls.
                _log.exception("hooks: a defect of the bridge; this message is tried again later")
                outcome = _Failed(unreachable=False)
            try:
                await self._settle(message, outcome)
            except Exception:
                _log.exception("hooks: a defect of the bridge; this message waits for the next process")
        finally:
            self._under_way -= 1
            self._changed.set()

    async def _try(self, message: Message) -> _Failed | _Outcome:
        """One POST."""
        try:
            file = await self._file_of(message)
        except SpoolError as error:
            _log.error("hooks: %s", error)
            return _Failed(unreachable=False)
        if file is None:
            return _Outcome.GONE
        hooks = self.hooks_of_agent(file.agent)
        # Headers were meant for the addresses of the settings: they may be passwords.
        receiver = Receiver(message.url, hooks.secret, {} if file.url else hooks.headers)
        message_id = message.name.removesuffix(".json")
        try:
            await self._client.post(receiver, message_id, bytes(file.body), limit_s=hooks.timeout_s, most_bytes=None)
        except WebhookUnreachable as error:
            overloaded = error.status is None or error.status in _OVERLOADED
            return _Failed(overloaded, error.retry_after_s or 0.0, str(error))
        except WebhookError as error:
            return _Outcome.UNWANTED if error.status == _GONE else _Failed(unreachable=False, why=str(error))
        if self._unix_s() - message.put_unix_s > _OLD_S:
            await trio.sleep(_CATCH_UP_S)
        return _Outcome.TAKEN

    async def _settle(self, message: Message, outcome: _Failed | _Outcome) -> None:
        where = Receiver(message.url).where
        match outcome:
            case _Outcome.TAKEN:
                self._counts.delivered += 1
                self._deliveries.delivered(message)
                if message.url in self._troubled:
                    self._troubled.discard(message.url)
                    _log.info("hooks: %s takes messages again, %d wait", where, len(self._deliveries))
                self._taken.append(message.name)
                self._taken_some.set()
            case _Outcome.GONE:
                self.lost(1)
                self._deliveries.dropped(message)
            case _Outcome.UNWANTED:
                self._counts.failed += 1
                self._deliveries.dropped(message)
                await self._give_up([message], f"{where} is gone for good (HTTP 410)")
            case _Failed(unreachable, retry_after_s, why):
                self._counts.failed += 1
                wait_s = self._deliveries.failed(
                    message, trio.current_time(), unreachable=unreachable, retry_after_s=retry_after_s
                )
                if why and message.url not in self._troubled:
                    self._troubled.add(message.url)
                    _log.warning("hooks: %s; tried again in %.0f s, and then with longer pauses", why, wait_s)

    async def _file_of(self, message: Message) -> Outgoing | None:
        """None: it is gone, or damaged, which was told. Raises `SpoolError`."""
        if file := self._forget(message):
            return file
        content = await self._run_blocking(partial(self._spool.read, message.name))
        return None if content is None else msgspec.json.decode(content, type=Outgoing)

    def _forget(self, message: Message) -> Outgoing | None:
        file, size = self._fresh.pop(message.name, (None, 0))
        self._fresh_bytes -= size
        return file

    async def _remove_each(self) -> None:
        while True:
            await self._taken_some.wait()
            self._taken_some = trio.Event()
            await trio.sleep(_REMOVE_AFTER_S)
            try:
                await self._remove_taken()
            except Exception:
                _log.exception("hooks: a defect of the bridge; deliveries go on")

    async def _remove_taken(self) -> None:
        if self._taken:
            names, self._taken = self._taken, []
            await self._remove(names)

    async def _remove(self, names: Iterable[str]) -> None:
        def remove() -> None:
            for name in names:
                self._spool.remove(name)

        try:
            await self._run_blocking(remove)
        except SpoolError as error:
            _log.error("hooks: a message that is done with could not be removed, and may be sent again: %s", error)

    async def _give_up(self, messages: Sequence[Message], why: str) -> None:
        self._counts.given_up += len(messages)
        for message in messages:
            self._forget(message)
        calls = sorted({message.call_id for message in messages})
        _log.error("hooks: %d messages are given up, of %s: %s", len(messages), _some(calls), why)
        await self._remove([message.name for message in messages])

    # The folder ------------------------------------------------------------------------------------------------------

    async def _look_each(self) -> None:
        while True:
            try:
                await self._look()
            except Exception:
                _log.exception("hooks: a defect of the bridge; deliveries go on")
            await trio.sleep(LOOK_EACH_S)

    async def _look(self) -> None:
        try:
            found = await self._run_blocking(lambda: self._read_all(self._spool.adopt()))
            if found:
                _log.info("hooks: %d messages of a process that has ended are taken over", len(found))
            self._take_in(found)
        except SpoolError as error:
            _log.error("hooks: %s", error)
        by_url: dict[str, list[Message]] = defaultdict(list)
        for message in self._deliveries.given_up(self._unix_s()):
            by_url[message.url].append(message)
        for url, messages in by_url.items():
            hours = self._config.hooks.give_up_after_s / 3600
            await self._give_up(messages, f"{Receiver(url).where} has not taken them within {hours:.3g} hours")

    def _put_all(
        self, running: Sequence[Outgoing], ended: Sequence[Outgoing]
    ) -> tuple[list[tuple[Kept, Outgoing]], list[tuple[Outgoing, SpoolError]]]:
        """In a thread."""
        kept, troubles = [], []
        for message, sync in [*((it, False) for it in running), *((it, True) for it in ended)]:
            label = f"{message.call_id}-{message.kind}"
            try:
                kept.append((self._spool.put(msgspec.json.encode(message), label, sync=sync), message))
            except SpoolError as error:
                troubles.append((message, error))
        return kept, troubles

    def _read_all(self, left: Iterable[Kept]) -> list[tuple[Kept, Outgoing]]:
        """In a thread. What is there and no message of ours is set aside."""
        found = []
        for kept in left:
            content = self._spool.read(kept.name)
            if content is not None:
                try:
                    found.append((kept, msgspec.json.decode(content, type=Outgoing)))
                except msgspec.DecodeError:
                    self._spool.set_aside(kept.name)
        return found

    def _add(self, found: Iterable[tuple[Kept, Outgoing]]) -> None:
        self._deliveries.add(
            *(
                Message(kept.name, self._url_of(file), file.call_id, file.kind, kept.put_unix_s)
                for kept, file in found
            )
        )
        self._changed.set()

    def _take_in(self, found: Sequence[tuple[Kept, Outgoing]]) -> None:
        nowhere = [kept for kept, file in found if not self._url_of(file)]
        if nowhere:
            _log.error(
                "hooks: %d messages of a process before this one wait for a URL that the settings no longer hold; they are "
                "kept in %s until it does, or somebody deletes them",
                len(nowhere),
                self._spool.folder,
            )
        self._add((kept, file) for kept, file in found if self._url_of(file))

    def _url_of(self, file: Outgoing) -> str:
        hooks = self.hooks_of_agent(file.agent)
        return file.url or (hooks.event_url if file.kind == "events" else hooks.action_url)


def _some(calls: Sequence[str]) -> str:
    more = f" and {len(calls) - _NAMED_CALLS} more" if len(calls) > _NAMED_CALLS else ""
    return f"calls {', '.join(calls[:_NAMED_CALLS])}{more}"
