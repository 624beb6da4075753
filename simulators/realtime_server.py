"""A strict fake of the Realtime websocket server: scripted for tests, or listening and answering for demos.

The shell around `RealtimeSession`: handshake, one reader and one writer a connection, the record of what passed, and
faults as context managers. Time is trio's clock, so whole calls run in virtual time:

    server = RealtimeServer(Script.of(Say("Hello!", ms=2000)))
    listener = await server.listen_in_memory(nursery)          # client: listener.connect() gives a stream
    await server.wait_for("response.create")
    server.session.speech_started()                            # the caller interrupts now
    assert (await server.wait_for("conversation.item.truncate"))["audio_end_ms"] == 800

`python -m simulators.realtime_server --port 8765` serves real sockets and converses with anybody who speaks the phrases
of the phrasebook. The handshake's refusals follow section 1.3 of the protocol notes: a bad key is not an HTTP 401. Azure's
two paths are served too, and with `beta=True` (`--beta`) the preview dialect for those who ask for it.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial

import msgspec
import trio
from websockets.exceptions import ConnectionClosed
from websockets.frames import Frame, Opcode
from websockets.http11 import Request, Response
from websockets.trio.server import Server, ServerConnection, serve
from websockets.typing import Subprotocol

from simulators.memory import MemoryListener
from simulators.model_script import Brain, Call, Item, Script
from simulators.realtime_beta import DEFAULT_VOICE, BetaEdge
from simulators.realtime_door import http_refusal, offered_subprotocols, refusal, visitor_of
from simulators.realtime_faults import FaultSwitches
from simulators.realtime_schema import Json, Refusal
from simulators.realtime_session import RealtimeSession

# error.code: close code, error.type, message (section 1.3; the close reason is `<type>.<code>`)
_INVALID = "invalid_request_error"
REFUSALS: dict[str, tuple[int, str, str]] = {
    "invalid_api_key": (3000, _INVALID, "Incorrect API key provided."),
    "beta_api_shape_disabled": (
        4000,
        _INVALID,
        "The Realtime Beta API is no longer supported. Please use /v1/realtime.",
    ),
    "missing_model": (4000, _INVALID, "You must provide a model parameter."),
    "invalid_model": (4000, _INVALID, "The model is not supported in realtime mode."),
    "model_not_found": (4004, _INVALID, "The model does not exist or you do not have access to it."),
    "insufficient_permissions": (4003, _INVALID, "You have insufficient permissions for this operation."),
    "insufficient_quota": (1013, "insufficient_quota", "You exceeded your current quota."),
    "credit_balance_exhausted": (1013, "insufficient_quota", "Your credit balance is exhausted."),
    # HF speech-to-speech and LocalAI; their close codes are not known.
    "session_limit_reached": (1013, _INVALID, "The maximum number of sessions is reached."),
    "model_load_error": (1011, "server_error", "The model could not be loaded."),
    "server_error": (1011, "server_error", "The server had an error while processing your request."),
}


@dataclass(frozen=True)
class Passed:
    """One event that passed: when (seconds of trio's clock), on which connection (from 1), and what.

    Of `input_audio_buffer.append` the record keeps the length of the base64 only: `appended_pcm` has the sound.
    """

    at_s: float
    connection: int
    event: Json


class ServedSession:
    """One connection: the pure session and its socket. Tests reach it as `server.session`."""

    def __init__(
        self,
        server: RealtimeServer,
        websocket: ServerConnection,
        core: RealtimeSession,
        number: int,
        edge: BetaEdge | None = None,
    ) -> None:
        self.number = number
        self.core = core
        self.edge = edge  # None: the client speaks GA, as the session does
        self.websocket = websocket
        self._server = server
        self._wake = trio.Event()

    @property
    def items(self) -> list[Item]:
        """The conversation as the server has it."""
        return self.core.items

    @property
    def config(self) -> Json:
        """The effective session."""
        return self.core.config

    @property
    def appended_pcm(self) -> bytes:
        """What the model has heard: PCM16 at 24 kHz."""
        return self.core.appended_pcm

    def speech_started(self) -> str:
        """The caller starts to speak now, whatever the VAD says. Returns the id of the future user item."""
        item_id = self.core.speech_started(trio.current_time())
        self.wake()
        return item_id

    def speech_stopped(self) -> None:
        """The caller has finished: commit and, if the session says so, answer."""
        self.core.speech_stopped(trio.current_time())
        self.wake()

    def send_error(
        self, code: str | None, message: str = "Something happened.", *, kind: str = "server_error"
    ) -> None:
        """An `error` out of the blue; the session lives on."""
        self.core.error(Refusal(code, message, kind=kind), None)
        self.wake()

    def expire(self) -> None:
        """The 60 minutes are over now: `session_expired`, then close 1001."""
        self.core.expire()
        self.wake()

    async def drop(self, code: int | None = None) -> None:
        """End the connection now: without a close frame (None), or politely with `code`."""
        if code is None:
            await trio.aclose_forcefully(self.websocket.stream)
        else:
            self.core.drop(code)
            self.wake()

    def wake(self) -> None:
        """Something changed outside the writer."""
        self._wake.set()
        self._wake = trio.Event()

    async def receive(self) -> None:
        """Read until the connection ends."""
        with contextlib.suppress(ConnectionClosed):
            async for message in self.websocket:
                try:
                    ga = message if self.edge is None else self.edge.from_client(message)
                except Refusal as refused:
                    self.core.error(refused, None)
                else:
                    event = self.core.receive(ga, trio.current_time())
                    self._server._note_received(self.number, event)
                self.wake()

    async def transmit(self) -> None:
        """Write what the session says, when it says it; close when it wants to."""
        with contextlib.suppress(ConnectionClosed):
            while True:
                self.core.advance(trio.current_time())
                if events := self.core.take():
                    for event in events:
                        self._server._note_sent(self.number, event)
                        await self._send(event)
                    continue
                if self.core.closing is not None:
                    code, reason = self.core.closing
                    if code is None:
                        return await trio.aclose_forcefully(self.websocket.stream)
                    return await self.websocket.aclose(code, reason)
                due = self.core.next_due
                with trio.CancelScope(deadline=float("inf") if due is None else due):
                    await self._wake.wait()

    async def _send(self, event: Json) -> None:
        if self.edge is None:
            return await self.websocket.send(msgspec.json.encode(event).decode())
        for told in self.edge.to_client(event):
            await trio.sleep(self.edge.pause_s(told))
            await self.websocket.send(msgspec.json.encode(told).decode())
        return None


@dataclass
class RealtimeServer(FaultSwitches):
    """The server. `brain` chooses answers; `key` is the only accepted one (empty: any that is not empty).

    `beta` lets those in who ask for the preview dialect; sessions and records are GA all the same, and are translated at
    the edge. `query_key` names a query parameter that may hold the key, as at some gateways.
    `observe` sees every event just before it is sent, `observe_received` every client event that was JSON, whole, after
    the session has taken it; `tap` sees both, with "C" or "S" and the connection's number. `recording=False` keeps no
    events and no audio, for a program that runs for long. `problems` holds what went wrong inside the simulator itself
    (websockets only logs it), such as an assertion in `observe`: a test should find it empty at its end.
    """

    brain: Brain = field(default_factory=Script)
    key: str = ""
    beta: bool = False
    query_key: str = ""
    observe: Callable[[Json], object] | None = None
    observe_received: Callable[[Json], object] | None = None
    tap: Callable[[str, int, Json], object] | None = None
    recording: bool = True
    received: list[Passed] = field(default_factory=list)
    sent: list[Passed] = field(default_factory=list)
    log: list[tuple[str, Passed]] = field(default_factory=list)  # both, in order: ("C" or "S", what passed)
    sessions: list[ServedSession] = field(default_factory=list)
    upgrades: list[Request] = field(default_factory=list)  # what was asked for at each connection
    problems: list[Exception] = field(default_factory=list)
    open_connections: int = 0
    _numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1))
    _changed: trio.Event = field(default_factory=trio.Event)

    # Serving

    async def serve(
        self,
        listeners: list[trio.SocketListener],
        *,
        task_status: trio.TaskStatus[Server] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Serve until cancelled. With `nursery.start` it returns websockets' `Server` once it listens."""
        await serve(
            self._connection,
            listeners=listeners,
            process_request=self._answer_upgrade,
            select_subprotocol=_only_realtime,
            compression=None,
            max_size=None,
            task_status=task_status,
        )

    async def listen_in_memory(self, nursery: trio.Nursery) -> MemoryListener:
        """Serve on a listener without a network, in `nursery`; clients take `connect()` of what is returned."""
        listener = MemoryListener()
        await nursery.start(self.serve, [listener.as_socket_listener()])
        return listener

    async def listen_on_tcp(self, nursery: trio.Nursery, port: int = 0, host: str = "127.0.0.1") -> int:
        """Serve on a real port, in `nursery`; returns the port. Raises `OSError` when it is taken."""
        listeners = await trio.open_tcp_listeners(port, host=host)
        await nursery.start(self.serve, listeners)
        return int(listeners[0].socket.getsockname()[1])

    # Looking on

    @property
    def session(self) -> ServedSession:
        """The newest session. Raises `IndexError` before the first."""
        return self.sessions[-1]

    def received_events(self, kind: str, connection: int | None = None) -> list[Json]:
        """All client events of a type, in order of arrival: on one connection (from 1), or on all."""
        return _of(self.received, kind, connection)

    def sent_events(self, kind: str, connection: int | None = None) -> list[Json]:
        """All events of a type that were sent: on one connection (from 1), or on all."""
        return _of(self.sent, kind, connection)

    async def wait_for(self, kind: str, n: int = 1) -> Json:
        """The `n`-th client event of this type, counted from the start; waits for it. Bound it by a cancel scope."""
        await self.until(lambda: len(self.received_events(kind)) >= n)
        return self.received_events(kind)[n - 1]

    async def wait_sent(self, kind: str, n: int = 1) -> Json:
        """The `n`-th server event of this type; waits until it is sent."""
        await self.until(lambda: len(self.sent_events(kind)) >= n)
        return self.sent_events(kind)[n - 1]

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait until `condition`, which is asked again whenever an event passed or a connection opened or ended."""
        while not condition():
            await self._changed.wait()

    # One connection

    def _answer_upgrade(self, websocket: ServerConnection, request: Request) -> Response | None:
        self.upgrades.append(request)
        if self.handshake.http_status:
            return websocket.respond(self.handshake.http_status, "refused by the simulator's fault\n")
        status, body = http_refusal(visitor_of(request, self.query_key), self.key, beta=self.beta)
        return websocket.respond(status, body) if status else None

    async def _connection(self, websocket: ServerConnection) -> None:
        assert websocket.request is not None
        handshake = self.handshake
        if handshake.silent:
            # Read on: websockets' trio connection never ends its close while its full queue has paused its reader.
            with contextlib.suppress(ConnectionClosed):
                async for _ in websocket:
                    pass
            return None
        if handshake.close_at_once:
            return await websocket.aclose(handshake.close_at_once)
        visitor = visitor_of(websocket.request, self.query_key)
        number = next(self._numbers)
        core = RealtimeSession(
            self.brain,
            self.faults,
            model=visitor.model,
            number=number,
            unix_s=int(time.time()),
            recording=self.recording,
        )
        edge = BetaEdge() if visitor.beta and self.beta else None
        if edge is not None:
            core.config["audio"]["output"]["voice"] = DEFAULT_VOICE
        served = ServedSession(self, websocket, core, number, edge)
        full = 0 < handshake.most_sessions <= self.open_connections
        code = handshake.refusing or ("session_limit_reached" if full else refusal(visitor, self.key, beta=self.beta))
        self.sessions.append(served)
        self.open_connections += 1
        if handshake.no_pongs:
            _without_pongs(websocket)
        try:
            if code:
                close_code, kind, message = REFUSALS[code]
                core.refuse(Refusal(code, message, kind=kind), close_code)
            else:
                core.start(trio.current_time())
            async with trio.open_nursery() as nursery:
                nursery.start_soon(served.transmit)
                if handshake.drop_after_s is not None:
                    nursery.start_soon(self._drop_later, served, handshake.drop_after_s, handshake.drop_code)
                await served.receive()
                nursery.cancel_scope.cancel()
        except Exception as problem:
            self.problems.append(problem)
            raise
        finally:
            self.open_connections -= 1
            if not self.recording:
                self.sessions.remove(served)
            self._tell()
        return None

    async def _drop_later(self, served: ServedSession, after_s: float, code: int | None) -> None:
        await trio.sleep(after_s)
        await served.drop(code)

    def _note_received(self, connection: int, event: Json | None) -> None:
        if event is not None:
            if self.observe_received is not None:
                self.observe_received(event)
            if self.tap is not None:
                self.tap("C", connection, event)
        if self.recording and event is not None:
            if event.get("type") == "input_audio_buffer.append":
                event = {**event, "audio": f"({len(str(event.get('audio')))} characters)"}
            self.received.append(passed := Passed(trio.current_time(), connection, event))
            self.log.append(("C", passed))
            self._tell()

    def _note_sent(self, connection: int, event: Json) -> None:
        if self.observe is not None:
            self.observe(event)
        if self.tap is not None:
            self.tap("S", connection, event)
        if self.recording:
            self.sent.append(passed := Passed(trio.current_time(), connection, event))
            self.log.append(("S", passed))
            self._tell()

    def _tell(self) -> None:
        self._changed.set()
        self._changed = trio.Event()


def _only_realtime(websocket: ServerConnection, _offered: Sequence[Subprotocol]) -> Subprotocol | None:
    """Of what a browser offers (its key is among it) only `realtime` is chosen."""
    assert websocket.request is not None
    return Subprotocol("realtime") if "realtime" in offered_subprotocols(websocket.request) else None


def _without_pongs(websocket: ServerConnection) -> None:
    """Swallow the pongs that the protocol sends by itself; it offers no switch for that."""
    send_frame = websocket.protocol.send_frame

    def all_but_pongs(frame: Frame) -> None:
        if frame.opcode is not Opcode.PONG:
            send_frame(frame)

    method = "send_frame"
    setattr(websocket.protocol, method, all_but_pongs)


def _of(passed: list[Passed], kind: str, connection: int | None) -> list[Json]:
    return [one.event for one in passed if one.event.get("type") == kind and connection in (None, one.connection)]


async def run(host: str, port: int, brain: Brain, key: str, *, beta: bool = False, query_key: str = "") -> None:
    """Serve on a real port until cancelled; prints one line when ready."""
    async with trio.open_nursery() as nursery:
        server = RealtimeServer(brain, key=key, beta=beta, query_key=query_key, recording=False)
        bound = await server.listen_on_tcp(nursery, port, host)
        print(f"Realtime simulator ready: ws://{host}:{bound}/v1/realtime?model=gpt-realtime-2.1", flush=True)
        await trio.sleep_forever()


def main(argv: list[str] | None = None) -> None:
    """The command line."""
    from simulators.model_voice import Phrasebook, ToolUser  # noqa: PLC0415  (its audio is loaded only where it is used)

    parser = argparse.ArgumentParser(
        prog="realtime-bridge simulate",
        description="A Realtime server that needs no key and no network. It greets, and answers the recorded sentences of "
        "simulators/phrasebook, which it knows by their sound; whatever else a caller says it does not understand, and "
        "instructions it does not read. With --use it uses a tool of your agent.",
        epilog='Point the bridge at it: realtime.url = "ws://127.0.0.1:8765/v1/realtime" in bridge.toml, or '
        "BRIDGE_REALTIME_URL; OPENAI_API_KEY is any text.",
    )
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8765)
    parser.add_argument("--key", default="", help="the only accepted API key (default: any)")
    parser.add_argument("--beta", action="store_true", help="let clients of the preview dialect in as well")
    parser.add_argument("--query-key", default="", help="a query parameter that may hold the key (default: none)")
    parser.add_argument(
        "--use", nargs=2, action="append", default=[], metavar=("TOOL", "ARGUMENTS"),
        help="in each call greet, use this tool of the agent with these arguments (JSON), tell its answer (the words are "
        "in the transcript, the sound is a tone) and hang up; may be given several times",
    )  # fmt: skip
    options = parser.parse_args(argv)
    book = Phrasebook.load()
    brain: Brain = book
    if options.use:
        for tool, arguments in options.use:
            if not _is_object(arguments):
                parser.error(f"--use {tool} {arguments}: the arguments are a JSON object, such as '{{}}'")
        brain = ToolUser(book, [Call(tool, arguments) for tool, arguments in options.use])
    try:
        serve_them = partial(run, beta=options.beta, query_key=options.query_key)
        trio.run(serve_them, options.host, options.port, brain, options.key)
    except* KeyboardInterrupt:
        pass
    except* OSError as group:
        parser.exit(
            1, f"can not listen on {options.host}:{options.port}: {group.exceptions[0]}; --port takes another\n"
        )


def _is_object(text: str) -> bool:
    try:
        return isinstance(msgspec.json.decode(text), dict)
    except msgspec.DecodeError:
        return False


if __name__ == "__main__":
    main()
