"""The human at the other end of a transfer or an outbound call: a SIP telephone that is called, or calls.

    async with human(answers(ring_s=0.3)) as it:
        ...                                     # dial it.endpoint, from ARI or by Dial()
        await it.until_answered()
        it.voice.say(pcm_8k); it.voice.press("1")
    assert it.voice.heard.pcm() ...             # and it.invites, it.bye, it.cancel: what Asterisk told it, and when

Signalling is sipp's (`sip_scenarios` has one for each behaviour), voice and keys are `rtp_telephone`'s. Each human has
ports of its own, and takes any number of calls, one after another. At the end of the block its calls are hung up.
"""

from __future__ import annotations

import hashlib
import re
import socket
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from urllib.error import HTTPError

import trio

from asterisk.exchange import ari
from asterisk.line import until
from asterisk.rtp_telephone import Telephone
from asterisk.sip_scenarios import Scenario, answers, calls
from asterisk.sip_trace import Message, Trace, parsed

_ASTERISK = ("127.0.0.1", 5060)
_LOOK_S = 0.01


@dataclass
class Human:
    """A telephone as its test sees it. `messages`: all that went over its line, in order."""

    name: str
    port: int
    voice: Telephone = field(default_factory=lambda: Telephone(live=True))
    messages: list[Message] = field(default_factory=list)

    @property
    def endpoint(self) -> str:
        """What Asterisk dials to reach it, registered or not."""
        return f"PJSIP/sipp/sip:{self.name}@127.0.0.1:{self.port}"

    def seen(self, method: str) -> list[Message]:
        """The requests of this method that came, without those that were sent again."""
        found: dict[tuple[str, str], Message] = {}
        for message in self.messages:
            if message.method == method and not message.sent:
                found.setdefault((message.header("Call-ID"), message.header("CSeq")), message)
        return list(found.values())

    def replies(self, status: int) -> list[Message]:
        """The answers with this status that came."""
        return [message for message in self.messages if message.status == status and not message.sent]

    @property
    def invite(self) -> Message:
        """The first call that came: caller id in From, who transferred it in Referred-By."""
        return self._only("INVITE")

    @property
    def cancel(self) -> Message:
        return self._only("CANCEL")

    @property
    def bye(self) -> Message:
        """It was hung up on; Reason says why."""
        return self._only("BYE")

    @property
    def refer(self) -> Message:
        """It was asked to call somebody else: Refer-To, Referred-By."""
        return self._only("REFER")

    def _only(self, method: str) -> Message:
        assert self.seen(method), f"no {method} came; {[message.begins for message in self.messages]}"
        return self.seen(method)[0]

    @property
    def answered(self) -> bool:
        """Its 200 was acknowledged, or it acknowledged the other side's."""
        return any(message.method == "ACK" for message in self.messages) and any(
            message.status == 200 and message.header("CSeq").endswith("INVITE") for message in self.messages
        )

    async def sees(self, method: str, n: int = 1, *, within_s: float = 10.0) -> Message:
        """The n-th request of this method; waits for it."""
        await self._until(lambda: len(self.seen(method)) >= n, within_s, method)
        return self.seen(method)[n - 1]

    async def until_answered(self, *, within_s: float = 10.0) -> None:
        await self._until(lambda: self.answered, within_s, "answer")

    async def _until(self, condition: Callable[[], bool], within_s: float, what: str) -> None:
        await until(condition, within_s, lambda: f"{what} at {self.name}; {[m.begins for m in self.messages]}")

    def took(self, message: Message) -> None:
        """A message went over the line. With the first SDP of both sides the voice has somewhere to speak to."""
        self.messages.append(message)
        theirs = [m.media for m in self.messages if m.media and not m.sent]
        if theirs and theirs[-1] and any(m.media for m in self.messages if m.sent):
            self.voice.connect(theirs[-1])


@asynccontextmanager
async def human(
    behaviour: Scenario | None = None, *, name: str = "colleague", registered: bool = False
) -> AsyncIterator[Human]:
    """A telephone that can be called; by default one that answers at once and stays.

    `registered`: as the account `human`, so that `PJSIP/human` reaches it too until the end of the block.
    """
    behaviour = behaviour or answers()
    it = Human("human" if registered else name, free_udp_port())
    if registered:
        await trio.to_thread.run_sync(register, it.port)
    try:
        async with _on_the_line(it, behaviour):
            yield it
    finally:
        if registered:
            with trio.move_on_after(5, shield=True):
                await trio.to_thread.run_sync(register, it.port, 0)


@asynccontextmanager
async def sip_caller(
    extension: str, behaviour: Scenario | None = None, *, name: str = "sipp"
) -> AsyncIterator[Human]:
    """A telephone that calls this extension of the context `phones`; by default it stays until it is hung up on."""
    it = Human(name, free_udp_port())
    async with _on_the_line(it, behaviour or calls(), extension):
        yield it


@asynccontextmanager
async def _on_the_line(it: Human, behaviour: Scenario, extension: str = "") -> AsyncIterator[None]:
    async with trio.open_nursery() as nursery:
        if not behaviour.steps:
            await nursery.start(_only_listens, it)
        else:
            rtp_port = await nursery.start(it.voice.run)
            await nursery.start(_signals, it, behaviour, extension, rtp_port)
        try:
            yield
        finally:
            with trio.move_on_after(5, shield=True):
                await trio.to_thread.run_sync(_hang_up, {message.header("Call-ID") for message in it.messages})
            nursery.cancel_scope.cancel()


def _hang_up(calls: set[str]) -> None:
    """Hang up these calls in Asterisk, where they are still there."""
    for channel in ari("GET", "channels"):
        if channel["protocol_id"] in calls:
            with suppress(HTTPError):
                ari("DELETE", f"channels/{channel['id']}")


async def _only_listens(it: Human, task_status: trio.TaskStatus[None]) -> None:
    with trio.socket.socket(trio.socket.AF_INET, trio.socket.SOCK_DGRAM) as line:
        await line.bind(("127.0.0.1", it.port))
        task_status.started()
        while True:
            datagram = await line.recv(65536)
            it.took(parsed(datagram.decode(errors="replace"), at_s=trio.current_time(), sent=False))


async def _signals(
    it: Human, behaviour: Scenario, extension: str, rtp_port: int, task_status: trio.TaskStatus[None]
) -> None:
    """Run sipp until cancelled, and take its messages as they come."""
    with tempfile.TemporaryDirectory(prefix="sipp-") as folder:
        scenario, trace, errors = (Path(folder) / file for file in ("scenario.xml", "messages.log", "errors.log"))
        scenario.write_text(behaviour.xml())
        command = [
            *("sipp", f"{_ASTERISK[0]}:{_ASTERISK[1]}", "-sf", str(scenario), "-nostdin"),
            *("-i", "127.0.0.1", "-p", str(it.port), "-key", "contact", it.name, "-key", "rtp_port", str(rtp_port)),
            *("-trace_msg", "-message_file", str(trace), "-trace_err", "-error_file", str(errors)),
            *(("-s", extension, "-m", "1") if extension else ()),
        ]
        read = Trace(trace, trio.current_time() - time.time())
        process = await trio.lowlevel.open_process(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=folder
        )
        try:
            await until(lambda: _listens(it.port) or process.poll() is not None, 5, lambda: "sipp listens")
            assert process.poll() in (None, 0), errors.read_text() if errors.exists() else "sipp did not start"
            task_status.started()
            while True:
                for message in read.news():
                    it.took(message)
                await trio.sleep(_LOOK_S)
        finally:
            process.kill()
            with trio.move_on_after(5, shield=True):
                await process.wait()
            for message in read.news():
                it.took(message)


def _listens(port: int) -> bool:
    """Somebody has this UDP port; asked of the kernel, since trying to bind it would be in sipp's way."""
    return f" 0100007F:{port:04X} " in Path("/proc/net/udp").read_text()


def free_udp_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def register(port: int, expires_s: int = 300) -> None:
    """Register (0: unregister) the account `human` at this port; blocks some ms. RuntimeError if Asterisk does not take it.

    Sent from that port, which nobody may have yet: Asterisk takes the contact from where a packet came (`rewrite_contact`).
    """
    uri, via = f"sip:{_ASTERISK[0]}", f"SIP/2.0/UDP 127.0.0.1:{port}"
    authorization = ""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as line:
        line.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        line.bind(("127.0.0.1", port))
        line.settimeout(5)
        for number in (1, 2):
            line.sendto(
                "\r\n".join(
                    [
                        f"REGISTER {uri} SIP/2.0",
                        f"Via: {via};branch=z9hG4bK{port}-{expires_s}-{number};rport",
                        f"From: <sip:human@127.0.0.1>;tag={port}",
                        "To: <sip:human@127.0.0.1>",
                        f"Call-ID: {port}-{expires_s}@127.0.0.1",
                        f"CSeq: {number} REGISTER",
                        f"Contact: <sip:human@127.0.0.1:{port}>",
                        f"Expires: {expires_s}",
                        "Max-Forwards: 70",
                        *([authorization] if authorization else []),
                        "Content-Length: 0",
                        "\r\n",
                    ]
                ).encode(),
                _ASTERISK,
            )
            answer = parsed(line.recv(65536).decode(), at_s=0, sent=False)
            if answer.status == 200:
                return
            authorization = _authorization(answer.header("WWW-Authenticate"), uri)
    raise RuntimeError(f"Asterisk does not register human: {answer.begins}")


def _authorization(challenge: str, uri: str) -> str:
    """RFC 2617 digest with qop=auth, as user and password human."""
    asked = dict(re.findall(r'(\w+)="?([^",]+)"?', challenge))
    who, what = (_md5(text) for text in (f"human:{asked['realm']}:human", f"REGISTER:{uri}"))
    response = _md5(f"{who}:{asked['nonce']}:00000001:0a4f113b:auth:{what}")
    opaque = f', opaque="{asked["opaque"]}"' if "opaque" in asked else ""
    return (
        f'Authorization: Digest username="human", realm="{asked["realm"]}", nonce="{asked["nonce"]}", uri="{uri}", '
        f'response="{response}", algorithm=MD5, qop=auth, nc=00000001, cnonce="0a4f113b"{opaque}'
    )


def _md5(text: str) -> str:
    return hashlib.md5(text.encode()).hexdigest()
