"""A wire between the bridge and ARI that a test can cut and mend."""

from __future__ import annotations

from contextlib import suppress

import trio


class Proxy:
    """Passes bytes from `port` to `target_port` of this machine, while it is whole."""

    def __init__(self, target_port: int) -> None:
        self._target_port = target_port
        self.whole = True
        self.accepted = 0
        self._cut = trio.Event()
        self._listener: trio.SocketListener | None = None

    @property
    def port(self) -> int:
        assert self._listener is not None
        return int(self._listener.socket.getsockname()[1])

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Serve until cancelled."""
        [self._listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
        task_status.started()
        await trio.serve_listeners(self._serve, [self._listener])

    def cut(self) -> None:
        """What passes ends without a word; who connects is turned away."""
        self.whole = False
        self._cut.set()
        self._cut = trio.Event()

    def mend(self) -> None:
        """Who connects from now on gets through."""
        self.whole = True

    async def _serve(self, near: trio.SocketStream) -> None:
        self.accepted += self.whole
        if not self.whole:
            return
        cut = self._cut
        with suppress(trio.BrokenResourceError, trio.ClosedResourceError, OSError):
            async with (
                await trio.open_tcp_stream("127.0.0.1", self._target_port) as far,
                trio.open_nursery() as nursery,
            ):

                async def watch() -> None:
                    await cut.wait()
                    nursery.cancel_scope.cancel()

                nursery.start_soon(watch)
                nursery.start_soon(_pass_on, far, near)
                await _pass_on(near, far)
                nursery.cancel_scope.cancel()


async def _pass_on(source: trio.SocketStream, sink: trio.SocketStream) -> None:
    with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
        async for data in source:
            await sink.send_all(data)
