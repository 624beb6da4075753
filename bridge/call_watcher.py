"""Whoever looks on at every call of a process: hooks, the keeper of records, traces. See `watchers`."""

from __future__ import annotations

import logging
from collections.abc import MutableSequence, Sequence
from typing import Protocol, runtime_checkable

import trio

from bridge.call_record import CallRecord
from bridge.config import Config
from bridge.live_call import LiveCall

_log = logging.getLogger("bridge.watcher")


class CallWatcher(Protocol):
    """What fails in a watcher is logged and costs no call."""

    async def run(self, task_status: trio.TaskStatus[None]) -> None:
        """Work beside all calls until cancelled; `started` when calls may come. Raises `ConfigError` before that, where
        the settings can not be carried out. Cancelled when the last call has ended."""
        ...

    def begins(self, call: LiveCall) -> None:
        """A call begins; `LiveCall.listen` tells of what happens in it. Synchronous, and quick: the media clock waits."""
        ...

    async def ended(self, record: CallRecord) -> None:
        """A call has ended, also one that never began; its record is complete. The call holds its slot until this
        returns, for `limits.farewell_s` at most, so what is kept here is kept of every call that counts as ended."""
        ...


@runtime_checkable
class Follows(Protocol):
    """A watcher that goes by more of the settings than the agent of each call, which it is shown."""

    def settings_changed(self, config: Config) -> None:
        """Other settings serve new calls from now on (`live_config`). Synchronous; `config` has been checked, and its
        sections that are bound to the process are those of the start."""
        ...


class _Started(trio.TaskStatus[None]):
    """Remembers whether it was told."""

    def __init__(self, status: trio.TaskStatus[None]) -> None:
        self._status = status
        self.told = False

    def started(self, value: None = None) -> None:
        self.told = True
        self._status.started()


async def run_watcher(
    watcher: CallWatcher, watchers: MutableSequence[CallWatcher], *, task_status: trio.TaskStatus[None]
) -> None:
    """`watcher.run`, at nobody's cost: one that fails once it has started is logged and taken out of `watchers`, so that no
    call is told to it or waits for it any more. Raises what it raises before that."""
    status = _Started(task_status)
    try:
        await watcher.run(status)
    except Exception:
        if not status.told:
            raise
        _log.exception("a defect of the bridge: %s has failed, and does nothing more", type(watcher).__name__)
        watchers.remove(watcher)


def tell_of_call(watchers: Sequence[CallWatcher], call: LiveCall) -> None:
    """Tell all watchers that a call begins."""
    for watcher in watchers:
        try:
            watcher.begins(call)
        except Exception:
            _log.exception("a watcher failed at the beginning of a call, which goes on")


async def tell_of_end(watchers: Sequence[CallWatcher], record: CallRecord, limit_s: float) -> None:
    """Tell all watchers side by side how a call ended, shielded, for `limit_s` at most."""
    if not watchers:
        return

    async def tell(watcher: CallWatcher) -> None:
        try:
            await watcher.ended(record)
        except Exception:
            _log.exception("a watcher failed at the end of a call")

    with trio.move_on_after(limit_s, shield=True) as bound:
        async with trio.open_nursery() as nursery:
            for watcher in watchers:
                nursery.start_soon(tell, watcher)
    if bound.cancelled_caught:
        _log.warning("what was to be kept of a call took longer than %g s and was cut short", limit_s)
