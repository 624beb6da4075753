"""What `doctor` asks of Asterisk: can we reach it, what is it, has it what we need, and may we control calls?

Nothing of a running bridge is touched: we come with a Stasis app of our own (`<app>-doctor`), since a second websocket for
the same app takes it over (5.18). Measured on 22.10.1: every write of a read-only user is refused with 403, also on what
does not exist; an app without channels is listed only as long as its websocket holds.
"""

from __future__ import annotations

import logging
from base64 import b64encode
from collections.abc import Callable
from urllib.parse import urlsplit
from uuid import uuid4

import msgspec
import trio
from websockets.exceptions import InvalidHandshake, InvalidStatus
from websockets.trio.client import connect

from bridge import asterisk_version
from bridge.ari_client import AriClient, Message
from bridge.asterisk_version import REQUESTS_ON_WEBSOCKET, Choice, Version, media_format, releases
from bridge.config import Asterisk, Server
from bridge.doctor_media import Door, Listen, Report, check_media, listen, open_door
from bridge.errors import ControlError, ControlRefused
from bridge.findings import Finding, fail, ok, skipped, warn

ConnectStream = Callable[[], trio.abc.Stream]

# Asterisk itself gives up on a media connection after 2 s (5.12), and one answer may wait behind that.
_REQUEST_S = 6.0
# Any Asterisk that is well answers within milliseconds. One that is too old for requests on its websocket drops them, which
# is met only where `asterisk.requests` says so.
_FIRST_ANSWER_S = 3.0
# The library logs the headers of the opening handshake, and so our password, at DEBUG.
_library_log = logging.getLogger("bridge.doctor.websocket")
_library_log.setLevel(logging.INFO)

_LATER = ("version", "modules", "ari rights", "application", "media")


async def check_asterisk(
    asterisk: Asterisk,
    server: Server,
    report: Report,
    *,
    connect_ari: ConnectStream | None = None,
    listen: Listen = listen,
) -> None:
    """All checks of Asterisk, each reported when it is done. Leaves nothing behind there, cancelled or not."""
    door = await open_door(server, report, listen)
    try:
        if not asterisk.enabled:
            _tell(door.taken_by_somebody(), report)
            report(skipped("asterisk", "asterisk.enabled = false: calls come by the dialplan alone"))
            return
        if (version := await _check_reach(asterisk, report, connect_ari)) is None:
            _tell(door.taken_by_somebody(), report)
            _skip(_LATER, report)
            return
        await _Examination(asterisk, report, door, listen, connect_ari).run(version)
    finally:
        await door.close()


def _tell(findings: list[Finding], report: Report) -> None:
    for finding in findings:
        report(finding)


def _skip(names: tuple[str, ...], report: Report) -> None:
    for name in names:
        report(skipped(name, "not tried: see above"))


# --- by HTTP: who is there? --------------------------------------------------------------------------------------------


async def _check_reach(asterisk: Asterisk, report: Report, connect_ari: ConnectStream | None) -> Version | None:
    """Ask for the version by plain HTTP, whose errors say most. None: reported why not."""
    url = urlsplit(asterisk.url)
    place = f"{url.hostname}:{url.port or (443 if url.scheme == 'wss' else 80)}"
    credentials = b64encode(f"{asterisk.username}:{asterisk.password}".encode()).decode()
    try:
        async with connect(
            f"{asterisk.url.rstrip('/')}/ari/asterisk/info?only=system",
            stream=connect_ari() if connect_ari else None,
            additional_headers={"Authorization": f"Basic {credentials}"},
            compression=None,
            proxy=None,
            open_timeout=5,
            close_timeout=1,
            logger=_library_log,
        ):
            finding = fail("asterisk", f"{place} is no Asterisk: it opens a websocket anywhere", _URL_REMEDY)
    except InvalidStatus as error:
        answer = error.response
        if answer.status_code == 200 and (version := _version_in(bytes(answer.body or b""))) is not None:
            report(ok("asterisk", f"answers at {place}, and knows user {asterisk.username!r}"))
            return version
        finding = _explain_status(answer.status_code, answer.headers.get("Server", ""), asterisk, place)
    except TimeoutError:
        finding = fail(
            "asterisk",
            f"{place} gave no proper answer within 5 s",
            "is a firewall between, or does Asterisk hang? On its machine: asterisk -rx 'http show status'",
        )
    except (OSError, trio.BrokenResourceError, trio.ClosedResourceError) as error:
        finding = fail("asterisk", f"cannot connect to {place}: {_words(error)}", _REFUSED_REMEDY)
    except (InvalidHandshake, EOFError) as error:
        finding = fail("asterisk", f"{place} does not speak HTTP: {error}", _URL_REMEDY)
    report(finding)
    return None


_URL_REMEDY = 'asterisk.url must be where http.conf listens, like "ws://127.0.0.1:8088"'
_REFUSED_REMEDY = (
    "is Asterisk running? http.conf: enabled = yes, bindaddr, bindport = 8088 as in asterisk.url; check there: "
    "asterisk -rx 'http show status'"
)


def _explain_status(status: int, server: str, asterisk: Asterisk, place: str) -> Finding:
    if server.startswith("Asterisk/"):
        who = f"Asterisk {asterisk_version.parse(server.removeprefix('Asterisk/'))}"
    else:
        who = f"{place}, which does not call itself Asterisk,"
    if status == 401:
        name = asterisk.username
        return fail(
            "asterisk",
            f"{who} refuses user {name!r}{' with an empty password' if not asterisk.password else ''} (HTTP 401)",
            f"export BRIDGE_ARI_PASSWORD=...; it must be the password in ari.conf, section [{name}], type = user; "
            "after a change there: asterisk -rx 'module reload res_ari.so'",
        )
    if status == 404:
        return fail(
            "asterisk",
            f"{who} has no ARI at {asterisk.url} (HTTP 404)",
            "ari.conf: enabled = yes; asterisk -rx 'module load res_ari_asterisk.so'; a prefix in http.conf belongs into "
            "asterisk.url too",
        )
    return fail("asterisk", f"{who} answered HTTP {status} to GET /ari/asterisk/info", _URL_REMEDY)


def _version_in(body: bytes) -> Version | None:
    try:
        return asterisk_version.parse(str(msgspec.json.decode(body)["system"]["version"]))
    except (msgspec.DecodeError, LookupError, TypeError):
        return None


def _words(error: BaseException) -> str:
    """The operating system's, which trio hides in the cause."""
    return str(error.__cause__ or error) or type(error).__name__


# What a call by Stasis() needs, and what else comes to grief without.
_NEEDED = {
    "app_stasis.so": "the dialplan has no Stasis()",
    "res_stasis.so": "there is no ARI",
    "res_stasis_answer.so": "callers can not be answered",
    "res_ari_channels.so": "calls can not be controlled",
    "res_ari_bridges.so": "callers can not be joined with their media",
    "res_ari_applications.so": "calls that are left over can not be found",
    "chan_audiosocket.so": "Asterisk can not bring us the audio",
    "res_audiosocket.so": "Asterisk can not bring us the audio",
}
_BRIDGES = ("bridge_simple.so", "bridge_softmix.so")


def _judge_modules(running: set[str], choice: Choice) -> Finding:
    missing = {name: why for name, why in _NEEDED.items() if name not in running}
    if not running.intersection(_BRIDGES):
        missing[_BRIDGES[0]] = "nothing can be joined"
    if choice.format != "slin" and "codec_resample.so" not in running:
        missing["codec_resample.so"] = f"{choice.format} can not be made of what telephones speak"
    if missing:
        listed = "; ".join(f"{name} is not running: {why}" for name, why in missing.items())
        return fail("modules", listed, _load(list(missing)))
    if "func_dialplan.so" not in running:
        text = "func_dialplan.so is not running: a transfer to an extension that does not exist hangs the caller up"
        return warn("modules", text, _load(["func_dialplan.so"]))
    return ok("modules", f"all that calls need are running ({len(_NEEDED)} and a bridge, of {len(running)})")


def _load(names: list[str]) -> str:
    commands = "; ".join(f"asterisk -rx 'module load {name}'" for name in names)
    return f"{commands}; for good, in modules.conf: {', '.join(f'load = {name}' for name in names)}"


# --- by the websocket: may we, and does it? ----------------------------------------------------------------------------


def _explain_silence(version: Version, by_http: bool) -> Finding:
    if by_http:
        text, expected = f"Asterisk {version} answers no requests by HTTP, though it did a moment ago", True
    else:
        text, expected = f"Asterisk {version} takes no requests on its websocket", version.has(REQUESTS_ON_WEBSOCKET)
    if expected:
        return fail("requests", text, "does it hang? asterisk -rx 'core show taskprocessors'")
    since = releases(REQUESTS_ON_WEBSOCKET)
    return fail("requests", f"{text}, which came with {since}", 'asterisk.requests = "auto", which takes HTTP here')


class _Examination:
    """The checks that need the websocket, in order."""

    def __init__(
        self,
        asterisk: Asterisk,
        report: Report,
        door: Door,
        listen: Listen,
        connect_ari: ConnectStream | None,
    ) -> None:
        self._asterisk = asterisk
        self._report = report
        self._door = door
        self._listen = listen
        self._app = f"{asterisk.app}-doctor"
        self._settled = trio.Event()
        self._client = AriClient(
            msgspec.structs.replace(asterisk, app=self._app),
            _REQUEST_S,
            _unheard,
            self._connected,
            self._settled.set,
            connect_stream=connect_ari,
        )

    async def _connected(self, after_replaced: bool) -> None:
        self._settled.set()
        await trio.sleep_forever()

    async def run(self, version: Version) -> None:
        """All the checks. Cancelled, the websocket stays until our channel is cleared by it, which is bounded."""
        holding = trio.CancelScope(shield=True)

        async def hold() -> None:
            with holding:
                await self._client.run()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(hold)
            try:
                await self._settled.wait()
                await self._examine(version)
            finally:
                holding.cancel()

    async def _examine(self, version: Version) -> None:
        if not self._client.connected:
            remedy = "asterisk -rx 'module load res_http_websocket.so'; asterisk -rx 'module load res_ari_events.so'"
            self._report(fail("websocket", f"HTTP works, the websocket does not: {self._client.trouble}", remedy))
            return self._give_up(*_LATER)
        try:
            modules = None
            with trio.move_on_after(_FIRST_ANSWER_S):
                modules = await self._modules()
        except ControlError as error:
            self._report(fail("modules", str(error), "asterisk -rx 'module load res_ari_asterisk.so'"))
            return self._give_up("version", "ari rights", "application", "media")
        by = self._client.requests_by
        by_http = by is not None and by.http
        if modules is None:
            self._report(_explain_silence(version, by_http))
            return self._give_up(*_LATER)
        if by is not None and by_http:
            self._report(ok("requests", f"go by HTTP, and are answered there: {by.why}"))
        choice = media_format(self._asterisk.format, version, resampler="codec_resample.so" in modules)
        self._report_version(version, choice)
        self._report(_judge_modules(modules, choice))
        report = self._report
        try:
            allowed = await self._check_rights()
            await self._check_application()
            if allowed:
                app, listen = self._app, self._listen
                report(await check_media(self._client, app, self._asterisk, self._door, choice.format, listen))
            else:
                _skip(("media",), self._report)
        except ControlError as error:
            self._report(fail("ari", str(error), "try again; look into Asterisk's log: asterisk -rvvv"))
        return None

    def _give_up(self, *names: str) -> None:
        _tell(self._door.taken_by_somebody(), self._report)
        _skip(names, self._report)

    def _report_version(self, version: Version, choice: Choice) -> None:
        text = f"Asterisk {version}; calls are asked for as {choice.format}"
        known = asterisk_version.advice(version)
        handled = [one.text for one in known if not one.remedy]
        if handled:
            text += f". Known of it, and taken care of: {'; '.join(handled)}"
        if choice.why:
            setting = f'asterisk.format = "{choice.format}" says so openly'
            remedy = f"upgrade Asterisk for better sound; {setting}" if version.known else setting
            self._report(warn("version", f"{text}. {choice.why}", remedy))
        else:
            self._report(ok("version", text))
        for one in known:
            if one.remedy:
                self._report(warn("version", one.text, one.remedy))

    async def _modules(self) -> set[str]:
        """The names of those that run."""
        listed = await self._client.request("GET", "asterisk/modules")
        return {str(module["name"]) for module in listed if module["status"] == "Running"}

    async def _check_rights(self) -> bool:
        """Whether this user may change something: tried on a channel that can not exist."""
        try:
            await self._client.request("POST", f"channels/realtime-doctor-{uuid4()}/answer")
        except ControlRefused as error:
            if error.status == 404:
                self._report(ok("ari rights", f"user {self._asterisk.username!r} may control calls"))
                return True
            if error.status != 403:
                raise
        self._report(
            fail(
                "ari rights",
                f"user {self._asterisk.username!r} may look on only: Asterisk refuses whatever changes something",
                f"ari.conf, section [{self._asterisk.username}]: read_only = no; then asterisk -rx "
                "'module reload res_ari.so'",
            )
        )
        return False

    async def _check_application(self) -> None:
        """Who serves our Stasis app now, and so, who may have our port."""
        name, report = self._asterisk.app, self._report
        try:
            held = len((await self._client.request("GET", f"applications/{name}"))["channel_ids"])
        except ControlRefused as error:
            if error.status != 404:
                raise
            _tell(self._door.taken_by_somebody(), report)
            report(ok("application", f"{name} is free: no bridge serves it now"))
            return
        calls = f"{held} channel{'s' if held != 1 else ''} in it"
        if self._door.taken:
            report(ok("port", f"{self._door.place} is in use: a bridge is running"))
            report(ok("application", f"{name} is served, {calls}"))
        else:
            report(
                warn(
                    "application",
                    f"{name} is in use, {calls}, though no bridge listens on {self._door.place}: a bridge elsewhere has "
                    "it, or one that is gone left its calls there",
                    "nothing to do if that bridge is gone: the next `serve` clears up. Else give this one a name of "
                    'its own: asterisk.app = "bridge-2", and Stasis(bridge-2) in the dialplan',
                )
            )


def _unheard(event: Message) -> None:
    """Events of our own channel: what matters is whether its connection arrives."""
