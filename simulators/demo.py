"""The demo: a simulated caller phones the voice agent, is answered, interrupts it once, and says goodbye.

    caller (here) <- AudioSocket -> Asterisk <- AudioSocket + ARI -> realtime-bridge serve <- websocket -> model

The bridge runs as its users run it, as a process of its own with a configuration file; what is printed comes from its
log. The model is the Realtime simulator in this process, which recognises what the caller says, or with `--model openai`
the real one. Without Asterisk the caller dials the bridge directly, as Asterisk would.
"""

from __future__ import annotations

import argparse
import base64
import json
import math
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import trio

from bridge.audio import resampler
from bridge.errors import BridgeError
from simulators.caller import Caller
from simulators.model_voice import Phrasebook
from simulators.realtime_server import RealtimeServer

BUILD = Path("build/demo")
ARI = "http://127.0.0.1:8088/ari"
START_S = 20.0
CALL_S = 120.0
# A pause of the agent that is longer than those inside its sentences.
TURN_MS = 900

CONFIG = """\
# Written by the demo.
[server]
audiosocket_port = {media_port}
log_format = "json"
log_words = true
health_address = ""
control_address = ""
[asterisk]
enabled = {asterisk}
password = "bridge"
media_address = "127.0.0.1:{media_port}"
[realtime]
url = "{url}"
model = "{model}"
[agents.default]
instructions = "You answer the telephone of a small shop. Open Monday and Tuesday nine to five, Wednesday nine to one, \
Thursday ten to eight, Friday nine to four, Saturday ten to two. When the caller says goodbye, say goodbye and hang up."
greeting = "Greet the caller and ask how you can help."
[agents.default.transfers.reception]
to = "600@phones"
description = "a human"
"""


class DemoFailed(Exception):
    """The demo can not go on; the message says why and what to look at."""


def say(text: str, since: float | None = None) -> None:
    stamp = f"{time.monotonic() - since:6.2f} s  " if since is not None else ""
    print(f"{stamp}{text}", flush=True)


class Watcher:
    """Reads the bridge's log: prints the dialogue, keeps the events, and knows when something happened."""

    def __init__(self, log_path: Path) -> None:
        self.began = time.monotonic()
        self.events: list[dict[str, Any]] = []
        self._log_path = log_path
        self._changed = trio.Event()

    async def read(self, pipe: trio.abc.ReceiveStream) -> None:
        """Until the bridge's log ends."""
        rest = b""
        with self._log_path.open("wb") as log:
            async for data in pipe:
                log.write(data)
                log.flush()
                *lines, rest = (rest + data).split(b"\n")
                for line in lines:
                    try:
                        event = json.loads(line)
                    except ValueError:
                        event = {"event": line.decode(errors="replace")}
                    self.events.append(event)
                    self._print(event)
                self._changed.set()
                self._changed = trio.Event()

    async def until(self, *starts: str) -> dict[str, Any]:
        """The first event whose name starts with one of these, past or coming."""
        while True:
            for event in self.events:
                if str(event.get("event")).startswith(starts):
                    return event
            await self._changed.wait()

    def _print(self, event: dict[str, Any]) -> None:
        match event.get("event"):
            case "agent_starts":
                spent = "".join(f", {event[key]:g} ms {who}" for key, who in _SPENT if key in event)
                say(f"  (the agent starts to speak{spent})", self.began)
            case "agent_said" if event["heard_ms"] < event["received_ms"]:
                told = f"heard {event['heard_ms'] / 1000:.2f} of {event['received_ms'] / 1000:.2f} s"
                say(f"agent:  {event['text']} --  [interrupted: {told}]", self.began)
            case "agent_said":
                say(f"agent:  {event['text']}", self.began)
            case "caller_said":
                say(f"  (the model understood: {event['text']!r})", self.began)
            case "tool_called":
                say(f"  (the agent calls the tool {event['name']})", self.began)


_SPENT = (("model_ms", "in the model"), ("bridge_ms", "in the bridge"))


async def demo(arguments: argparse.Namespace) -> None:
    """The whole demo. Raises `DemoFailed`; cancelled, it stops the bridge, and with it the call."""
    async with trio.open_nursery() as nursery:
        phrases = Phrasebook.load()
        if arguments.model == "openai":
            url, model = "wss://api.openai.com/v1/realtime", "gpt-realtime-2.1"
            say("model: OpenAI (this way of running the demo has never been tried: its makers had no key)")
        else:
            port = await RealtimeServer(phrases).listen_on_tcp(nursery)
            url, model = f"ws://127.0.0.1:{port}/v1/realtime", "gpt-realtime-2.1"
            say("model: the Realtime simulator, which really listens, but only knows a phrasebook")
        media_port = _free_port()
        config = CONFIG.format(media_port=media_port, asterisk=str(arguments.asterisk).lower(), url=url, model=model)
        (BUILD / "bridge.toml").write_text(config, encoding="utf-8")
        watcher = Watcher(BUILD / "bridge.log")
        async with _bridge(nursery, watcher, keep_key=arguments.model == "openai"):
            with trio.move_on_after(START_S) as start:
                await watcher.until("listening for AudioSocket")
                if arguments.asterisk:
                    await watcher.until("ARI connected")
            if start.cancelled_caught:
                raise DemoFailed("the bridge did not get ready")
            async with _caller(arguments, nursery, media_port, watcher) as caller:
                with trio.move_on_after(CALL_S) as limit:
                    await _talk(caller, phrases, watcher)
                    record = await watcher.until("call_ended")
                if limit.cancelled_caught:
                    raise DemoFailed(f"the call did not end within {CALL_S:g} s")
                wav = BUILD / time.strftime("call-%Y%m%d-%H%M%S.wav")
                caller.write_wav(wav)
                _summary(record, caller, wav)
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def _bridge(nursery: trio.Nursery, watcher: Watcher, *, keep_key: bool) -> AsyncIterator[None]:
    """The bridge as a process; ended when the block ends, however it ends."""
    command = [sys.executable, "-m", "bridge", "serve", "--config", str(BUILD / "bridge.toml")]
    # The key of a real model stays away from the simulator; nothing else of the environment may change the demo.
    environment = {key: value for key, value in os.environ.items() if not key.startswith("BRIDGE_")}
    if not keep_key:
        environment["OPENAI_API_KEY"] = "demo"
    process = await trio.lowlevel.open_process(
        command, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL, env=environment, start_new_session=True
    )
    assert process.stderr is not None
    nursery.start_soon(watcher.read, process.stderr)
    try:
        yield
    finally:
        with trio.move_on_after(8, shield=True):
            process.terminate()
            process.terminate()  # the second ends running calls at once, each with its farewell
            await process.wait()
        if process.returncode is None:
            process.kill()


@asynccontextmanager
async def _caller(
    arguments: argparse.Namespace, nursery: trio.Nursery, media_port: int, watcher: Watcher
) -> AsyncIterator[Caller]:
    """A caller whose call has just been placed; hangs up when the block ends."""
    if arguments.asterisk:
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        port = listeners[0].socket.getsockname()[1]
        say("the caller dials 100 on Asterisk", watcher.began)
        await trio.to_thread.run_sync(_originate, port)
        with trio.move_on_after(5):
            stream: trio.SocketStream = await listeners[0].accept()
            caller = await Caller.answer(stream, rate_hz=16000)
        await listeners[0].aclose()
    else:
        say("the caller dials the bridge directly, without Asterisk", watcher.began)
        stream = await trio.open_tcp_stream("127.0.0.1", media_port)
        caller = await Caller.dial(stream, uuid4(), 16000)
    nursery.start_soon(caller.run)
    try:
        yield caller
    finally:
        with trio.move_on_after(3, shield=True):
            await caller.hang_up()


def _originate(port: int) -> None:
    """Let Asterisk call: the near end is our AudioSocket, the far end is extension 100. Raises `DemoFailed`."""
    body = {
        "endpoint": f"AudioSocket/127.0.0.1:{port}/{uuid4()}/c(slin16)",
        "extension": "100",
        "context": "phones",
        "priority": 1,
        "callerId": "Demo <1000>",
        "formats": "slin16",
    }
    request = urllib.request.Request(f"{ARI}/channels", json.dumps(body).encode(), method="POST")
    request.add_header("Content-Type", "application/json")
    request.add_header("Authorization", "Basic " + base64.b64encode(b"bridge:bridge").decode())
    try:
        urllib.request.urlopen(request, timeout=10).close()
    except (urllib.error.URLError, OSError) as error:
        raise DemoFailed(f"Asterisk did not place the call: {error}; look at `make asterisk-logs`") from error


async def _talk(caller: Caller, phrases: Phrasebook, watcher: Watcher) -> None:
    """What the caller does: wait for the greeting, ask, interrupt the long answer, thank, wait for the end."""

    async def speak(name: str) -> None:
        phrase = phrases.phrases[name]
        to_line = resampler(24000, caller.format.rate_hz)
        say(f"caller: {phrase.text}", watcher.began)
        caller.say(to_line.process(phrase.pcm) + to_line.flush())
        await caller.said()

    await caller.hears_speech()
    await caller.hears_quiet(TURN_MS)
    await speak("ask_hours")
    await caller.hears_speech()
    await trio.sleep(4.0)
    say("  (the caller interrupts)", watcher.began)
    await speak("interrupt_saturday")
    await caller.hears_speech()
    await caller.hears_quiet(TURN_MS)
    await speak("thanks_goodbye")
    await caller.ended.wait()
    say("  (the line is closed)", watcher.began)


def _summary(record: dict[str, Any], caller: Caller, wav: Path) -> None:
    def spread(name: str) -> str:
        figures = record[name]
        return f"{figures['p50_ms']:g} ms (half), {figures['max_ms']:g} ms (longest) of {figures['count']}"

    heard = caller.heard_pcm()
    print(
        f"""
the call ended:      {record["reason"]} ({record["detail"] or "no detail"}): {record["completion_reason"]}
duration:            {record["duration_s"]:g} s, answered after {record["answered_after_s"]:g} s, \
greeted after {record["greeted_after_s"]:g} s
reply, model:        {spread("model_reply_ms")}
reply, added by us:  {spread("bridge_reply_ms")}
caller to model:     {spread("uplink_ms")} frames
20 ms frames:        late by {spread("frame_lateness_ms")}; longest gap at the caller {caller.max_gap_ms():.1f} ms
interruptions:       {record["interruptions"]}; speech heard {record["audio_heard_ms"] / 1000:.1f} s; \
audio dropped {record["audio_dropped_ms"]} ms
recording:           {wav} ({len(heard) / caller.format.bytes_per_ms / 1000:.1f} s; left the caller, right the agent)
log of the bridge:   {BUILD / "bridge.log"}
its record:          realtime-bridge calls show {record["call_id"][:8]} --config {BUILD / "bridge.toml"}""",
        flush=True,
    )
    if record["reason"] != "agent_hung_up" or record["interruptions"] != 1 or not math.isfinite(caller.max_gap_ms()):
        raise DemoFailed("the call did not go as it should: one interruption, and the agent hangs up")


def _free_port() -> int:

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def main(argv: list[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m simulators demo", description=__doc__.split("\n")[0])
    parser.add_argument("--asterisk", action="store_true", help="through the Asterisk of `make asterisk-up`")
    parser.add_argument("--model", choices=("simulator", "openai"), default="simulator")
    arguments = parser.parse_args(argv)
    if arguments.model == "openai" and not os.environ.get("OPENAI_API_KEY"):
        parser.error("--model openai needs OPENAI_API_KEY in the environment")
    BUILD.mkdir(parents=True, exist_ok=True)
    try:
        trio.run(demo, arguments)
    except KeyboardInterrupt:
        print("\ninterrupted: the call was hung up", file=sys.stderr)
        return 130
    except BaseExceptionGroup as group:
        interrupted, rest = group.split(KeyboardInterrupt)
        if interrupted is not None and rest is None:
            print("\ninterrupted: the call was hung up", file=sys.stderr)
            return 130
        known, unknown = group.split((DemoFailed, BridgeError))
        if unknown is not None or known is None:
            raise
        error: BaseException = known
        while isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]
        print(f"demo: {error}; the bridge's log is {BUILD / 'bridge.log'}", file=sys.stderr)
        return 1
    return 0
