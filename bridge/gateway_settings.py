"""The settings of the gateway endpoint, the section `[gateway]`: where websocket clients reach `/realtime`, and who may."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Container, Iterator

import msgspec

ADDRESS = re.compile(r".+:\d{1,5}", re.ASCII)
"""HOST:PORT: a host, and what can be a port."""


class Gateway(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`models` are further models that a client may ask for, `origins` the web pages that may connect."""

    enabled: bool = False
    address: str = "127.0.0.1:3001"
    token: str = ""
    agent: str = "default"
    models: list[str] = []
    max_clients: int = 20
    idle_timeout_s: float = 300.0
    origins: list[str] = []


def problems(gateway: Gateway, agents: Container[str]) -> Iterator[tuple[str, str]]:
    """What is wrong with the section, as (place, remedy); ports and tokens are checked with those of `server`."""
    if gateway.agent not in agents:
        yield "gateway.agent", f"agent {gateway.agent!r} is not defined"
    if gateway.max_clients < 1:
        yield "gateway.max_clients", "must be at least 1; enabled = false closes the door"
    if not gateway.idle_timeout_s > 0:
        yield "gateway.idle_timeout_s", "must be above zero"
    for index, origin in enumerate(gateway.origins):
        if origin != "*" and ("://" not in origin or origin.endswith("/")):
            yield f"gateway.origins[{index}]", 'must be like "https://HOST" as browsers send it, or "*" for any page'
    if not ADDRESS.fullmatch(gateway.address):
        yield "gateway.address", "must be HOST:PORT, an address of this machine; enabled = false closes the door"
    host = gateway.address.rpartition(":")[0].strip("[]")
    if gateway.enabled and not gateway.token and not is_loopback(host):
        yield "gateway.token", f"must be set, since {host} can be reached from elsewhere: `openssl rand -hex 24`"


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches `host`."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
