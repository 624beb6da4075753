"""What `doctor` asks of the operator's services: does each URL of hooks take a signed message?

It is sent a message of the type `doctor`, which a service that goes by `type` takes for nothing; no call is told of.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from uuid import uuid4

import trio

from bridge.agent import Agent
from bridge.errors import WebhookError, WebhookUnreachable
from bridge.findings import Finding, fail, ok, warn
from bridge.hooks import CallHooks, Hooks, hooks_of
from bridge.toml_lines import dotted
from bridge.webhook_client import Receiver, WebhookClient

_BODY = b'{"type":"doctor","call_id":"doctor"}'


async def check_hooks(
    hooks: Hooks, agents: Mapping[str, Agent], report: Callable[[Finding], None], client: WebhookClient
) -> None:
    """Each URL once, one after the other."""
    asked: dict[str, tuple[Receiver, float, list[str]]] = {}

    def add(url: str, place: str, by: Hooks | CallHooks, limit_s: float) -> None:
        if url:
            asked.setdefault(url, (Receiver(url, by.secret, by.headers), limit_s, []))[2].append(place)

    add(hooks.call_url, "hooks.call_url", hooks, hooks.call_timeout_s)
    add(hooks.event_url, "hooks.event_url", hooks, hooks.timeout_s)
    add(hooks.action_url, "hooks.action_url", hooks, hooks.timeout_s)
    for name, agent in agents.items():
        own, at = hooks_of(hooks, agent.hooks), f"{dotted(('agents', name))}.hooks"
        if own.event_url != hooks.event_url:
            add(own.event_url, f"{at}.event_url", own, own.timeout_s)
        if own.action_url != hooks.action_url:
            add(own.action_url, f"{at}.action_url", own, own.timeout_s)
    for receiver, limit_s, places in asked.values():
        report(await _asked(receiver, limit_s, places, client))


async def _asked(receiver: Receiver, limit_s: float, places: list[str], client: WebhookClient) -> Finding:
    names = ", ".join(places)
    began = trio.current_time()
    try:
        answer = await client.post(receiver, f"doctor-{uuid4()}", _BODY, limit_s=limit_s, most_bytes=None)
    except WebhookUnreachable as error:
        remedy = f"is the service of {names} running, and reached from this machine? Proxy variables are not used"
        return fail("hooks", str(error), remedy)
    except WebhookError as error:
        if error.status in (401, 403):
            remedy = "has it the same secret (hooks.secret, BRIDGE_HOOKS_SECRET), and are both clocks right?"
            return fail("hooks", str(error), remedy)
        remedy = f"is {names} its address? It has to answer 2xx, also to a type of message that it does not know"
        return warn("hooks", str(error), remedy)
    took_ms = (trio.current_time() - began) * 1000
    signed = "a signed" if receiver.secret else "an unsigned"
    return ok(
        "hooks", f"{receiver.where} ({names}) took {signed} message after {took_ms:.0f} ms (HTTP {answer.status})"
    )
