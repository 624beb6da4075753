"""`realtime-bridge call NUMBER`: asks the running bridge, at its control door, to call somebody.

Exit status: 0, the call was placed, or with --wait it was answered by somebody; 1, it was not, or can not be now (full, no
bridge there); 2, something is to be changed first (no token, a number that may not be called). With --wait Ctrl-C hangs up.
"""

from __future__ import annotations

import argparse
import http.client
import sys
import time
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from bridge.config import Config
from bridge.ending import EndReason
from bridge.errors import BridgeError, ConfigError

# How often the bridge is asked how a call goes.
_LOOK_S = 0.3
# The bridge answers at once or not at all.
_ANSWER_S = 10.0
_ENDED = "ended"


class NotNow(BridgeError):
    """No call can be placed now: the bridge is full, drains, has no Asterisk, or is not there."""


def add_arguments(command: argparse.ArgumentParser) -> None:
    """What `call` takes, beside what all commands take."""
    command.add_argument("to", metavar="NUMBER", help="whom to call: a number, or an endpoint such as PJSIP/600")
    command.add_argument("--agent", default="default", help="who calls: an agent of the settings (default: default)")
    command.add_argument(
        "--caller-id", default="", metavar="X", help='shown to the callee: a number, or "Name <number>"'
    )
    command.add_argument(
        "--variable", action="append", default=[], metavar="A=B", help="a channel variable; __A=B is inherited"
    )
    command.add_argument(
        "--fact", action="append", default=[], metavar="TEXT", help="what the agent is to know before it speaks"
    )
    command.add_argument("--ring", type=float, default=0.0, metavar="SECONDS", help="how long it may ring")
    command.add_argument("--wait", action="store_true", help="tell how it goes until its end; Ctrl-C hangs up")


def order_of(arguments: argparse.Namespace) -> dict[str, Any]:
    """The JSON object of the request. Raises `ConfigError`."""
    variables = {}
    for pair in arguments.variable:
        name, equals, value = pair.partition("=")
        if not equals:
            raise ConfigError(f"--variable {pair}: write it as NAME=VALUE")
        variables[name] = value
    return {
        "to": arguments.to,
        "agent": arguments.agent,
        "caller_id": arguments.caller_id,
        "ring_s": arguments.ring,
        "variables": variables,
        "facts": "\n".join(arguments.fact),
    }


def run(config: Config, arguments: argparse.Namespace) -> int:
    """Place the call; returns the exit status. Raises `ConfigError` for what has to be changed first."""
    order = order_of(arguments)
    door, call = _place(config, order)
    call_id = call["id"]
    print(f"{call_id}: calling {call['called']}", flush=True)
    if not arguments.wait:
        return 0
    try:
        end = _follow(door, call)
    except KeyboardInterrupt:
        door.ask("POST", f"/calls/{call_id}/hang_up", {"reason": "Ctrl-C"})
        end = _follow(door, call)
        _tell_end(end)
        return 130
    _tell_end(end)
    return 0 if end["answered"] and end["reason"] != EndReason.ANSWERING_MACHINE else 1


def _place(config: Config, order: Mapping[str, Any]) -> tuple[Door, dict[str, Any]]:
    """Ask one worker after another, as long as each is only full or about to end."""
    refused: NotNow | None = None
    for door in doors_of(config):
        try:
            return door, door.ask("POST", "/calls", order)
        except NotNow as error:
            refused = error
    assert refused is not None
    raise refused


def doors_of(config: Config) -> Iterator[Door]:
    """The doors of the process, or of its workers. Raises `ConfigError`."""
    server = config.server
    if not server.control_address:
        raise ConfigError(
            "server.control_address: calls are placed by the control door, which is off; set it, HOST:PORT"
        )
    if not server.control_token:
        raise ConfigError(
            "server.control_token: none is set; give this command the token that the bridge has: BRIDGE_CONTROL_TOKEN=..."
        )
    for number in range(1, server.workers + 1):
        address = (config.for_worker(number) if server.workers > 1 else config).server.control_address
        yield Door(address, server.control_token)


class Door:
    """The control door of one process."""

    def __init__(self, address: str, token: str) -> None:
        host, _, port = address.rpartition(":")
        # All addresses of this machine, one of which is this one.
        self.host = {"0.0.0.0": "127.0.0.1", "": "127.0.0.1", "[::]": "::1"}.get(host, host.strip("[]"))
        self._port = int(port)
        self.address = address
        self._token = token

    def ask(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """One request; returns what it answers. Raises `NotNow`, and `ConfigError` for what has to be changed first."""
        connection = http.client.HTTPConnection(self.host, self._port, timeout=_ANSWER_S)
        try:
            connection.request(
                method,
                path,
                body=None if body is None else msgspec.json.encode(body),
                headers={"Authorization": f"Bearer {self._token}", "Content-Type": "application/json"},
            )
            answer = connection.getresponse()
            status, content = answer.status, answer.read()
        except (OSError, http.client.HTTPException) as error:
            raise NotNow(
                f"no bridge answers at {self.address} (server.control_address): {error}; does `realtime-bridge serve` run?"
            ) from error
        finally:
            connection.close()
        return self._understood(status, content)

    def _understood(self, status: int, content: bytes) -> dict[str, Any]:
        try:
            told = msgspec.json.decode(content, type=dict[str, Any])
        except msgspec.DecodeError as error:
            raise ConfigError(
                f"server.control_address: is that a bridge at {self.address}? HTTP {status}, and no JSON"
            ) from error
        match status:
            case 200 | 202:
                return told
            case 401 | 403:
                raise ConfigError(
                    f"server.control_token: the bridge at {self.address} does not take this token; BRIDGE_CONTROL_TOKEN "
                    f"must be the one that it was started with ({told.get('error')})"
                )
            case 503:
                raise NotNow(str(told.get("error")))
            case _:
                raise ConfigError(str(told.get("error", f"HTTP {status}")))


def _follow(door: Door, call: dict[str, Any]) -> dict[str, Any]:
    """Tell each state that the call comes to; returns its last view."""
    state = ""
    while True:
        if call["state"] != state:
            state = call["state"]
            if state != _ENDED:
                print(f"{call['seconds']:7.1f} s  {state}", flush=True)
        if state == _ENDED:
            return call
        time.sleep(_LOOK_S)
        call = door.ask("GET", f"/calls/{call['id']}")


def _tell_end(call: Mapping[str, Any]) -> None:
    detail = f": {call['detail']}" if call["detail"] else ""
    print(f"{call['seconds']:7.1f} s  {call['reason']}{detail}", file=sys.stdout, flush=True)
