"""What `doctor` asks about media: can we listen on our AudioSocket port, and does Asterisk reach us where we say we are?

Where our port is in use, Asterisk is asked to come to another one: the bridge that is running would take our question for a
call. Measured on 22.10.1: a connection to somebody who knows no AudioSocket counts as answered, so only the UUID that
arrives here proves anything; a host that refuses is told at once, as 500.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from functools import partial
from urllib.parse import urlsplit
from uuid import UUID, uuid4

import trio

from bridge.ari_client import AriClient, attempt
from bridge.ari_control import MEDIA_PREFIX
from bridge.audiosocket_leg import identify, part
from bridge.config import Asterisk, MediaFormat, Server
from bridge.errors import ControlError, ControlRefused, MediaError
from bridge.findings import Finding, fail, ok, skipped, warn
from bridge.http_server import port_of

Report = Callable[[Finding], None]
Listeners = list[trio.abc.Listener[trio.abc.Stream]]
Listen = Callable[[str, int], Awaitable[Listeners]]

# Asterisk itself gives up after 2 s (5.12), and answers then; this is for what comes after its answer.
_ARRIVAL_S = 3.0
_IDENTIFY_S = 2.0
_CLEAR_S = 3.0
# What took longer than this was not refused but not answered.
_AT_ONCE_S = 1.0


async def listen(host: str, port: int) -> Listeners:
    """Listen as `serve` does. Raises `OSError`."""
    return list(await trio.open_tcp_listeners(port, host=host))


@dataclass(frozen=True, slots=True)
class Door:
    """Our AudioSocket port. `listeners` are ours on it: none when it is `taken`, or nobody could listen there."""

    server: Server
    listeners: Listeners
    taken: bool = False

    @property
    def place(self) -> str:
        return f"{self.server.audiosocket_host}:{self.server.audiosocket_port}"

    async def close(self) -> None:
        """Stop listening, also when cancelled."""
        with trio.CancelScope(shield=True):
            for listener in self.listeners:
                await listener.aclose()

    def taken_by_somebody(self) -> list[Finding]:
        """What to say where nobody can tell who has our port."""
        if not self.taken:
            return []
        command = f"ss -ltnp 'sport = :{self.server.audiosocket_port}'"
        text = f"{self.place} is in use: right if a bridge is running, else another program has it"
        return [warn("port", text, f"see who it is: {command}")]


async def open_door(server: Server, report: Report, listen: Listen = listen) -> Door:
    """Listen where Asterisk's media connections are to arrive. Reports how that went, unless the port is taken."""
    try:
        door = Door(server, await listen(server.audiosocket_host, server.audiosocket_port))
    except OSError as error:
        door = Door(server, [], taken=error.errno == errno.EADDRINUSE)
        if not door.taken:
            remedy = 'server.audiosocket_host must be an address of this machine (`ip address`), or "0.0.0.0" for all'
            if error.errno in (errno.EACCES, errno.EPERM):
                remedy = "ports below 1024 need root: server.audiosocket_port = 9092"
            report(fail("port", f"cannot listen on {door.place}: {error.strerror or error}", remedy))
    else:
        report(ok("port", f"{door.place} is free for AudioSocket"))
    return door


async def check_media(
    client: AriClient, app: str, asterisk: Asterisk, door: Door, format: MediaFormat, listen: Listen = listen
) -> Finding:
    """Whether Asterisk, asked through `client` for a media channel in `app`, comes to us."""
    address = asterisk.media_address
    host, _, port = address.rpartition(":")
    question = _Question(client, app, asterisk, door.server, format)
    if door.listeners:
        return await question.ask(door.listeners, address)
    if not door.taken or int(port) != door.server.audiosocket_port:
        return skipped("media", f"not tried: {address} leads to a port on which we can not listen now")
    try:
        beside = Door(door.server, await listen(door.server.audiosocket_host, 0))
    except OSError as error:
        return skipped("media", f"not tried: {door.place} is in use, and there is no other port: {error}")
    try:
        other = port_of(beside.listeners)
        finding = await question.ask(beside.listeners, f"{host}:{other}")
    finally:
        await beside.close()
    return replace(finding, text=f"{finding.text} (tried on port {other}, since {port} is in use)")


@dataclass(frozen=True, slots=True)
class _Question:
    """Asks Asterisk to come."""

    client: AriClient
    app: str
    asterisk: Asterisk
    server: Server
    format: MediaFormat

    async def ask(self, listeners: Listeners, address: str) -> Finding:
        """Have Asterisk open an external media channel to `address`, and wait for it on `listeners`; closes both."""
        asked = uuid4()
        channel = f"{MEDIA_PREFIX}{asked}"
        arrival = _Arrival(asked)
        began = trio.current_time()
        refused: ControlError | None = None
        async with trio.open_nursery() as nursery:
            nursery.start_soon(partial(trio.serve_listeners, handler=arrival.handle, listeners=listeners))
            try:
                await self.client.request(
                    "POST",
                    "channels/externalMedia",
                    app=self.app,
                    external_host=address,
                    encapsulation="audiosocket",
                    transport="tcp",
                    connection_type="client",
                    format=self.format.value,
                    data=str(asked),
                    channelId=channel,
                )
                with trio.move_on_after(_ARRIVAL_S):
                    await arrival.came.wait()
            except ControlError as error:
                refused = error
            finally:
                with trio.move_on_after(_CLEAR_S, shield=True):
                    await attempt(self.client.request("DELETE", f"channels/{channel}"))
                    await arrival.finished()
            nursery.cancel_scope.cancel()
        if arrival.came.is_set():
            took_ms = (arrival.at - began) * 1000
            return ok(
                "media", f"Asterisk came to us at {address} and named the call, {took_ms:.0f} ms after the question"
            )
        return self._explain(address, refused, trio.current_time() - began)

    def _explain(self, address: str, refused: ControlError | None, after_s: float) -> Finding:
        remedy = self._remedy(address)
        if refused is None:
            return fail("media", f"somebody took Asterisk's connection to {address}, but it was not us", remedy)
        if not isinstance(refused, ControlRefused) or refused.status != 500:
            return fail("media", str(refused), remedy)
        if after_s < _AT_ONCE_S:
            why = "the connection is refused, the name unknown, or there is no way"
            return fail("media", f"Asterisk found nobody at {address}: seen from there, {why}", remedy)
        return fail("media", f"Asterisk got no answer from {address} for {after_s:.0f} s", f"a firewall? {remedy}")

    def _remedy(self, address: str) -> str:
        """What asterisk.media_address should be, as far as that can be known from here."""
        port = self.server.audiosocket_port
        there = urlsplit(self.asterisk.url).hostname or ""
        own = _own_address_towards(there)
        if own is None:
            return (
                f'asterisk.media_address must be this process as Asterisk sees it: "127.0.0.1:{port}" on one machine; '
                f'where Asterisk is in a container, "host.docker.internal:{port}" or docker0\'s address, and then '
                'server.audiosocket_host = "0.0.0.0" behind a firewall'
            )
        settings = f'asterisk.media_address = "{own}:{port}"'
        if self.server.audiosocket_host not in ("0.0.0.0", "::", own):
            settings += f' and server.audiosocket_host = "{own}"'
        return f"{settings}: this machine as {there} sees it, unless NAT is between"


def _own_address_towards(host: str) -> str | None:
    """Our address on the way to `host`; None where that is this machine itself, or not known. Nothing is sent."""
    try:
        family, kind, protocol, _, place = socket.getaddrinfo(host, 9, type=socket.SOCK_DGRAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.connect(place)
            own = str(probe.getsockname()[0])
    except OSError:
        return None
    return None if own == place[0] else own


class _Arrival:
    """Waits for the connection that says it is `asked`; each is ended in order, so that a stray call goes on."""

    def __init__(self, asked: UUID) -> None:
        self._asked = asked
        self._open = 0
        self._closed = trio.Event()
        self.came = trio.Event()
        self.at = 0.0

    async def handle(self, stream: trio.abc.Stream) -> None:
        """One connection. Never raises."""
        self._open += 1
        try:
            with trio.move_on_after(_IDENTIFY_S):
                leg = await identify(stream)
                if leg.call_id == self._asked:
                    self.at = trio.current_time()
                    self.came.set()
        except MediaError:
            pass  # a scanner, or somebody who went away
        finally:
            with trio.move_on_after(_CLEAR_S, shield=True):
                await part(stream)
            self._open -= 1
            self._closed.set()
            self._closed = trio.Event()

    async def finished(self) -> None:
        """Wait until no connection is left."""
        while self._open:
            await self._closed.wait()
