"""Asks the operator's service about a call before it is answered: which agent, with what else than its profile, or none.

What fails, is late or makes no sense costs the call `hooks.call_timeout_s` at most, and then goes by `hooks.call_required`:
on with the agent of the routes, or back to the dialplan.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import msgspec

from bridge import hook_bodies, telemetry
from bridge.agent import Agent
from bridge.config import Config
from bridge.ending import EndReason
from bridge.errors import ConfigError, WebhookError
from bridge.hook_bodies import CallAnswer, Question
from bridge.profile import agent_with
from bridge.webhook_client import Receiver, WebhookClient

_log = logging.getLogger("bridge.hooks")


@dataclass(frozen=True, slots=True)
class Chosen:
    """Who serves a call. `refusal`: nobody does, and why."""

    agent_name: str
    agent: Agent
    refusal: tuple[EndReason, str] | None = None


AskHook = Callable[[Question, Agent, Config], Awaitable[Chosen]]
"""`ask_about` with its client."""


async def ask_about(question: Question, agent: Agent, config: Config, client: WebhookClient) -> Chosen:
    """The decision about the call of `question`, whose agent by the routes is `agent`. Never raises."""
    hooks = config.hooks
    usual = Chosen(question.agent, agent)
    if not hooks.call_url:
        return usual
    receiver = Receiver(hooks.call_url, hooks.secret, hooks.headers)
    try:
        body = msgspec.json.encode(question)
        answer = await client.ask(receiver, f"call-{question.call_id}", body, limit_s=hooks.call_timeout_s)
        return _chosen(hook_bodies.answer_of(answer.json(receiver.where)), usual, config)
    except (WebhookError, ConfigError) as error:
        # An answer of ours is told from one of theirs by its first word.
        why = str(error) if isinstance(error, WebhookError) else f"{receiver.where} answered {error}"
    except Exception:
        _log.exception("hooks: a defect of the bridge while a call was asked about")
        why = "a defect of the bridge"
    if hooks.call_required:
        return Chosen(question.agent, agent, (EndReason.HOOK_FAILED, f"hooks.call_url: {why}"))
    _log.warning("hooks.call_url: %s; the call goes on with agent %s", why, question.agent)
    return usual


def _chosen(answer: CallAnswer, usual: Chosen, config: Config) -> Chosen:
    """What an answer means. Raises `ConfigError`."""
    if answer.reject:
        why = answer.reject if isinstance(answer.reject, str) else "no reason was given"
        return Chosen(usual.agent_name, usual.agent, (EndReason.HOOK_REJECTED, f"hooks.call_url: {why}"))
    name, agent = usual.agent_name, usual.agent
    if answer.agent and answer.agent != name:
        if answer.agent not in config.agents:
            known = ", ".join(sorted(config.agents))
            raise ConfigError(f"agent: {answer.agent!r} is not defined; known: {known}")
        name, agent = answer.agent, config.agents[answer.agent]
    if answer.profile:
        agent = agent_with(agent, answer.profile, at="profile")
        hook_bodies.check_call(agent)
    telemetry.notice("call_hook", {"agent": name, "settings": ", ".join(answer.profile)})
    return Chosen(name, agent)
