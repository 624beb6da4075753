"""What a caller is owed: without it he would hear the wrong thing, or nothing. It is done, if not now then later.

Only this is asked of Asterisk again; whatever else fails, the sweep clears up (`ari_app`).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

import trio

from bridge.ari_client import attempt

if TYPE_CHECKING:
    from bridge.ari_app import AriApp

# How often it is tried again, where Asterisk did not answer.
_TRY_AGAIN_S = 1.0

Step = Callable[[], Awaitable[Any]]
"""One request; made anew at each try."""


class Owed:
    """Of one call. `over`: whether the caller or the call is gone, and so nothing is owed any more."""

    def __init__(self, app: AriApp, over: Callable[[], bool]) -> None:
        self._app = app
        self._over = over
        self._steps: list[Step] = []
        self._trying = False

    async def settle(self, step: Step) -> None:
        """Do this; if Asterisk does not answer, or this is cut short by cancellation, as soon as it can be done. Never
        raises."""
        self._steps.append(step)
        try:
            if await attempt(step()) and step in self._steps:
                self._steps.remove(step)
        finally:
            if self._steps and not self._trying:
                self._trying = True
                self._app.soon(self._settle_later)

    async def _settle_later(self) -> None:
        while self._steps and not self._over():
            await trio.sleep(_TRY_AGAIN_S)
            if self._app.connected:
                await self.settle_rest()
        self._trying = False

    async def settle_rest(self) -> None:
        """Do what is still to be done, once."""
        steps, self._steps = self._steps, []
        if not self._over():
            for step in steps:
                await self.settle(step)
