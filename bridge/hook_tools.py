"""Tools that an HTTP service carries out: `agents.NAME.tool_hook` as `Tool`s.

One call of a tool has one time limit, `timeout_s`, for all its tries. What certainly was not begun (no connection, 429,
502, 503, 504) is tried again, with the same `tool_call_id` in body and `webhook-id`; nothing else is. Every failure is one
short text for the model and one line in the log, and the call goes on.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any
from uuid import uuid4

import httpx
import trio

from bridge import tool_reply
from bridge.errors import ToolError, WebhookError
from bridge.tool_hook import ToolHook
from bridge.tool_schema import ToolContext
from bridge.tools import Tool
from bridge.webhook_client import Receiver, WebhookClient

# A tool's output is cut at 16,000 characters; a service that sends much more than that means something else.
MOST_ANSWER_BYTES = 256_000
_NEVER_CONNECTED = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout)


def hook_tools(
    hook: ToolHook,
    client: WebhookClient | None,
    more: Sequence[Mapping[str, Any]] = (),
) -> list[Tool]:
    """The tools of a hook, none without a `url`. `more`: declarations of further functions that go there. Without a
    `client` they can be looked at, not called."""
    if not hook.url:
        return []
    receiver = Receiver(hook.url, hook.secret, hook.headers)
    origin = f"the tool hook {receiver.where}"

    def tool(name: str, description: str, parameters: Mapping[str, Any]) -> Tool:
        call = partial(_call, client, receiver, hook, name)
        return Tool(name, description, call, parameters, with_context=True, origin=origin)

    return [
        *(tool(it.name, it.description, it.schema()) for it in hook.tools),
        *(
            tool(it["name"], it.get("description") or "", dict(it.get("parameters") or {}) | {"type": "object"})
            for it in more
        ),
    ]


async def _call(
    client: WebhookClient | None,
    receiver: Receiver,
    hook: ToolHook,
    name: str,
    arguments: Mapping[str, Any],
    context: ToolContext,
) -> str:
    """The output of one call. Raises `ToolError`. Cancelled: the service may have done it or not."""
    assert client is not None
    if not context.tool_call_id:
        context = dataclasses.replace(context, tool_call_id=uuid4().hex)
    body = tool_reply.request_of(name, arguments, context)
    deadline = trio.current_time() + hook.timeout_s
    try:
        answer = await client.ask(
            receiver,
            context.tool_call_id,
            body,
            limit_s=hook.timeout_s,
            tries=1 + hook.retries,
            most_bytes=MOST_ANSWER_BYTES,
            may_repeat=lambda error: tool_reply.may_be_repeated(error.status, connected=_connected(error)),
        )
    except WebhookError as error:
        raise ToolError(_told(error, name, hook, in_time=trio.current_time() < deadline)) from error
    return tool_reply.output_of(answer.body, name, context.tool_call_id)


def _connected(error: WebhookError) -> bool:
    return not isinstance(error.__cause__, _NEVER_CONNECTED)


def _told(error: WebhookError, name: str, hook: ToolHook, *, in_time: bool) -> str:
    """What the model is told: nothing about addresses, which it might tell the caller."""
    if error.status is not None and not 200 <= error.status <= 299:
        return f"the service of {name} answered HTTP {error.status}"
    if error.status is not None:
        return f"the service of {name} answered more than can be used"
    if not in_time:
        return f"{name} did not answer within {hook.timeout_s:g} s"
    if not _connected(error):
        return f"the service of {name} can not be reached"
    return f"the service of {name} gave no answer"
