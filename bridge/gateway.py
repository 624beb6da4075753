"""The gateway endpoint: websocket clients of `/realtime` as calls, admitted, drained, limited and recorded like any call.

    handle(stream)
    |- the handshake             within `limits.identify_s`; refusals are HTTP answers
    |- the first config          a client that says nothing for `CONFIG_WAIT_S` gets the default session, and may change it;
    |                            then the call hook is asked
    |- run_call                  the leg is a `WebSocketLeg`, the control has no channel; `GatewaySession` listens
    `- the last words            why it ended, then a close frame

The protocol's documentation shows `ready` before the config, its code and its clients the other way round: both work.
"""

from __future__ import annotations

import dataclasses
import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NoReturn
from urllib.parse import urlsplit
from uuid import uuid4

import msgspec
import trio
from websockets.server import ServerProtocol

from bridge import gateway_messages as messages
from bridge import routing, telemetry
from bridge.agent import Agent
from bridge.call import Services, run_call
from bridge.call_hook import AskHook
from bridge.call_record import CallRecord
from bridge.config import Config, Limits, Realtime, realtime_of
from bridge.ending import FAREWELLS, EndReason, Farewell
from bridge.errors import GatewayError, MediaError
from bridge.gateway_config import base_of, model_of, profile_of, wish_of
from bridge.gateway_door import PATH, Refusal, Visit, visit_of
from bridge.gateway_handshake import shake_hands
from bridge.gateway_session import GatewaySession, last_error, tools_of
from bridge.health import CallCounts
from bridge.hook_bodies import Question
from bridge.http_server import listen
from bridge.leg import CallerLeg, LegEvent
from bridge.line_rate import StreamRate
from bridge.live_call import LiveCall
from bridge.live_config import InForce, LiveConfig
from bridge.switchboard import NoCallControl, Switchboard
from bridge.tools import Tool
from bridge.turned_away import TurnAway
from bridge.websocket_leg import SEND_BUFFER_BYTES, WebSocketLeg

_log = logging.getLogger("bridge.gateway")

# The printed clients send their config at once; one that waits for `ready` first waits so long.
CONFIG_WAIT_S = 1.0
# So many may be at their handshake, which `limits.identify_s` bounds; more are sent away without a word.
MOST_STRANGERS = 64
LOOK_S = 1.0
_OPENAI = (".api.openai.com", ".openai.azure.com", ".cognitiveservices.azure.com")


@dataclass(frozen=True, slots=True)
class _Prepared:
    """What the first config leads to. `now`: the bridge's settings at that moment; `named`: the client chose its agent."""

    now: InForce
    name: str
    named: bool
    agent: Agent
    model: str
    own: Sequence[Tool]
    form: messages.Form
    warnings: Sequence[tuple[str, str]]


@dataclass(slots=True)
class _Place:
    """Whether a connection is one of `gateway.max_clients`: who has not shown that it may be takes none from those who
    have."""

    taken: bool = False


class GatewayControl(NoCallControl):
    """The control of a client: there is no channel. `answered` is called when the model's session stands."""

    came = "by websocket"
    called = PATH

    def __init__(self, caller: str, answered: Callable[[], None]) -> None:
        super().__init__()
        self.caller = caller
        self._answered = answered

    async def answer(self) -> None:
        """Tell the client that it may speak."""
        await trio.lowlevel.checkpoint()
        self._answered()


class _KeptOpen:
    """A leg that the end of its call leaves open: the client is told why it ended, which the record says."""

    def __init__(self, leg: WebSocketLeg) -> None:
        self._leg = leg
        self.call_id, self.format, self.descriptor = leg.call_id, leg.format, leg.descriptor
        self.send_audio_nowait, self.clear_audio_nowait = leg.send_audio_nowait, leg.clear_audio_nowait

    @property
    def audio_received(self) -> tuple[int, int]:
        """Nothing to judge: a client may send faster than real time, and with gaps."""
        return 0, 0

    def receive_nowait(self) -> list[LegEvent]:
        return self._leg.receive_nowait()

    async def close(self, farewell: Farewell) -> None:
        await trio.lowlevel.checkpoint()


class Gateway:
    """The clients of one process."""

    def __init__(
        self, live: LiveConfig, switchboard: Switchboard, counts: CallCounts, turn_away: TurnAway, ask: AskHook
    ) -> None:
        self._live = live
        self._settings = live.config.gateway
        self._switchboard = switchboard
        self._counts = counts
        self._turn_away = turn_away
        self._ask = ask
        self._clients = self._strangers = 0

    async def open_listeners(self) -> list[trio.SocketListener]:
        """Raises `ConfigError` when the port is taken."""
        return await listen(self._settings.address, "gateway.address", "gateway.enabled = false")

    async def handle(self, stream: trio.abc.Stream) -> None:
        """One client, from its first byte to its end. Whatever goes wrong stays in this client's call."""
        place = _Place()
        try:
            if (visitor := await self._let_in(stream, place)) is not None:
                await self._admitted(stream, *visitor)
        except Exception:
            _log.exception("a defect of the bridge ended this client's call")
        finally:
            self._clients -= place.taken
            await trio.aclose_forcefully(stream)

    async def _let_in(self, stream: trio.abc.Stream, place: _Place) -> tuple[str, ServerProtocol, Visit] | None:
        """A client's address, and what the handshake made of it; None: it was refused, or did not finish it."""
        if self._strangers >= MOST_STRANGERS:
            return None
        self._strangers += 1
        try:
            peer = _known(stream)
            with trio.fail_after(self._live.config.limits.identify_s):
                visitor = await shake_hands(stream, partial(self._judge, place))
        except (trio.TooSlowError, trio.BrokenResourceError, trio.ClosedResourceError, OSError):
            _log.info("a websocket client left during its handshake, or took too long for it")
            return None
        finally:
            self._strangers -= 1
        return None if visitor is None else (peer, *visitor)

    def _judge(
        self, place: _Place, target: str, headers: Mapping[str, str], offered: Sequence[str]
    ) -> Visit | Refusal:
        """Whether the client may come in; then it has its place."""
        verdict = visit_of(target, headers, offered, self._settings)
        if isinstance(verdict, Refusal):
            return verdict
        refusal: tuple[EndReason, str] | None = self._switchboard.admit(trio.current_time())
        if refusal is None and self._clients >= self._settings.max_clients:
            refusal = EndReason.REFUSED_BUSY, "gateway.max_clients are connected"
        if refusal is not None:
            self._counts.refuse(refusal[0])
            return Refusal(503, f"not now: {refusal[1]}\n")
        place.taken = True
        self._clients += 1
        return verdict

    # One client ------------------------------------------------------------------------------------------------------

    async def _admitted(self, stream: trio.abc.Stream, peer: str, protocol: ServerProtocol, visit: Visit) -> None:
        leg = WebSocketLeg(stream, protocol, uuid4())
        telemetry.call_id_of_context.set(str(leg.call_id))
        reason = EndReason.SERVER_DRAINING  # where nobody says otherwise: cancelled
        with self._switchboard.slot():
            try:
                record = await self._hold(leg, visit, peer)
                reason = EndReason(record.reason)
                self._counts.end(reason, record.agent)
            except Exception:
                reason = EndReason.INTERNAL_ERROR
                raise
            finally:
                leg.send_text(messages.closing(reason.value))
                with trio.move_on_after(self._live.config.limits.farewell_s, shield=True):
                    await leg.close(FAREWELLS[reason])

    async def _hold(self, leg: WebSocketLeg, visit: Visit, peer: str) -> CallRecord:
        """From the first config to the last words."""
        prepared = await self._first_config(leg, visit, peer)
        if isinstance(prepared, tuple):
            name = self._settings.agent
            self._counts.admit(name)
            return await self._turn_away(leg.call_id, name, GatewayControl(peer, lambda: None), *prepared)
        self._counts.admit(prepared.name)
        telemetry.notice(
            "call_arrives", {"channel": "websocket", "caller": peer, "called": PATH, "agent": prepared.name}
        )
        now = prepared.now
        registry = now.services.tools_for(prepared.name, prepared.agent).overlaid(prepared.own)
        session = GatewaySession(
            leg.send_text,
            form=prepared.form,
            agent=prepared.agent,
            tools=registry,
            own=prepared.own,
            model=prepared.model,
            models=self._settings.models,
            any_voice=not _at_openai(now.config),
            warnings=prepared.warnings,
        )
        leg.on_text = session.heard

        def answered() -> None:
            session.ready(leg.early_audio_bytes + leg.audio_received[1])

        own = now.services.of(prepared.agent)
        services = dataclasses.replace(
            own,
            realtime=msgspec.structs.replace(own.realtime, model=prepared.model),
            limits=_limits(own.limits, named=prepared.named),
            answer="when_ready",
            lag_ms=0,
            tools_for=lambda name, agent: registry,
            sounds=now.services.sounds if prepared.named else {},
            on_call=partial(self._attend, leg, now.services),
            watchers=[*now.services.watchers, session],
        )
        control = GatewayControl(peer, answered)
        kept: CallerLeg = _KeptOpen(leg)
        record = await run_call(kept, control, prepared.name, prepared.agent, services)
        if (message := last_error(record)) is not None:
            leg.send_text(message)
        return record

    async def _first_config(self, leg: WebSocketLeg, visit: Visit, peer: str) -> _Prepared | tuple[EndReason, str]:
        """The session that the client wants, or why there is none: it left, or said nothing that could be used, or the
        call hook refused it."""
        wait_s = CONFIG_WAIT_S
        while True:
            try:
                with trio.move_on_after(wait_s) as limit:
                    message = await leg.next_text()
            except MediaError as error:
                return EndReason.CALLER_HUNG_UP, str(error)
            try:
                if limit.cancelled_caught:
                    if wait_s != CONFIG_WAIT_S:
                        return self._gone_idle(leg)
                    return await self._prepared({}, visit, leg, peer)
                if message is None:
                    return EndReason.CALLER_HUNG_UP, "the client left before its session began"
                match messages.decode(message):
                    case messages.Configure(raw=raw):
                        return await self._prepared(raw, visit, leg, peer)
                    case _:
                        _no_session()
            except GatewayError as error:
                leg.send_text(messages.error(error.code, str(error)))
                if error.code != "no_session":
                    wait_s = self._settings.idle_timeout_s  # for a config that can be used

    async def _prepared(
        self, raw: Mapping[str, Any], visit: Visit, leg: WebSocketLeg, peer: str
    ) -> _Prepared | tuple[EndReason, str]:
        """What a config leads to, or why the call hook wants no such call. Raises `GatewayError`."""
        now = self._live.now
        config = now.config
        wish = wish_of(raw, any_voice=not _at_openai(config))
        asked = wish.agent or visit.agent
        name = asked or self._settings.agent
        if name not in config.agents:
            known = ", ".join(sorted(config.agents))
            raise GatewayError("validation_error", f"agent: {name!r} is unknown; there are {known}")
        if _at_openai(config) and _has_no_key(config.realtime):
            raise GatewayError("missing_api_key", messages.CODES["missing_api_key"])
        own, agent = tools_of(wish), config.agents[name]
        wanted = wish.model or visit.model
        model_of(wanted, realtime_of(agent, config.realtime).model, self._settings.models)
        profile_of(base_of(agent, named=bool(asked)), wish)  # what can not be needs no question
        question = Question(call_id=str(leg.call_id), agent=name, caller=peer, called=PATH, channel="websocket")
        chosen = await self._ask(question, agent, config)
        if refusal := chosen.refusal or routing.refusal(chosen.agent_name, chosen.agent):
            return refusal
        model, warning = model_of(wanted, realtime_of(chosen.agent, config.realtime).model, self._settings.models)
        named = bool(asked) or chosen.agent_name != name
        return _Prepared(
            now=now,
            name=chosen.agent_name,
            named=named,
            agent=profile_of(base_of(chosen.agent, named=named), wish),
            model=model,
            own=own,
            form=visit.form or wish.form,
            warnings=[*wish.warnings, *([warning] if warning else [])],
        )

    async def _attend(self, leg: WebSocketLeg, services: Services, live: LiveCall) -> None:
        """Beside the call: the application's own function; how long the client has said nothing, and at what rate it
        speaks."""
        async with trio.open_nursery() as nursery:
            if services.on_call is not None:
                nursery.start_soon(live.attend, services.on_call)
            rate, now = StreamRate(leg.format.rate_hz), trio.current_time()
            while (left_s := leg.last_heard_s + self._settings.idle_timeout_s - now) > 0:
                await trio.sleep(min(left_s, LOOK_S))
                now = trio.current_time()
                if trouble := rate.check(leg.audio_received[1], now):
                    _log.warning("media_format_suspect", extra={"facts": {"detail": trouble}})
                    leg.send_text(messages.warning("audio_rate", trouble))
            live.end_for(*self._gone_idle(leg))

    def _gone_idle(self, leg: WebSocketLeg) -> tuple[EndReason, str]:
        text = f"the client sent nothing for {self._settings.idle_timeout_s:g} s"
        leg.send_text(messages.error("idle_timeout", text))
        return EndReason.CALLER_SILENT, text


def _no_session() -> NoReturn:
    raise GatewayError("no_session", messages.CODES["no_session"])


def _limits(limits: Limits, *, named: bool) -> Limits:
    """A client that sends no audio writes texts, or its user does not hold the button: that is no broken media. One that
    did not choose an agent is not asked whether it is still there, either."""
    limits = msgspec.structs.replace(limits, media_silent_s=math.inf, first_frame_s=0.0)
    if named:
        return limits
    return msgspec.structs.replace(limits, caller_silent_prompt_s=0.0, caller_silent_s=math.inf)


def _at_openai(config: Config) -> bool:
    """Whether the model's server is OpenAI's or Azure's, whose voices are known and which want a key."""
    return f".{urlsplit(config.realtime.url).hostname or ''}".endswith(_OPENAI)


def _has_no_key(realtime: Realtime) -> bool:
    own = {name.lower() for name in realtime.headers} & {"authorization", "api-key"}
    return not (realtime.api_key or own or realtime.auth == "none" or "@" in realtime.url)


def _known(stream: trio.abc.Stream) -> str:
    """The client's address; its socket is made to hold back little. Raises `OSError` when the client is gone already."""
    if not isinstance(stream, trio.SocketStream):
        return ""
    stream.setsockopt(trio.socket.SOL_SOCKET, trio.socket.SO_SNDBUF, SEND_BUFFER_BYTES)
    return str(stream.socket.getpeername()[0])
