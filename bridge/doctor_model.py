"""What `doctor` asks of the model: does a session stand, for each agent, with the key, model and settings of a call?

Nothing is said in it and no answer is asked for, so it costs nothing. Codes are those of protocol sheet 1.3 and 4.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import trio

from bridge import call_tools, realtime
from bridge.agent import Agent
from bridge.config import Limits, Realtime, realtime_of
from bridge.endpoint import Endpoint
from bridge.errors import ModelError, ModelUnreachable
from bridge.findings import Finding, fail, ok, warn
from bridge.realtime_client import ConnectStream, open_realtime

# These let nobody in without a key.
_HOSTS_WITH_KEYS = frozenset({"api.openai.com", "api.x.ai"})
# Callers hear so much more ringing.
_SLOW_S = 3.0

_KEY = "export OPENAI_API_KEY=sk-... (of a project that may use the Realtime API); elsewhere than OpenAI also realtime.auth"
_MODEL = 'realtime.model = "gpt-realtime-2.1", or another Realtime model of this key (Azure: your deployment\'s name)'
_CREDIT = "add credit, or raise the project's limit, at the provider: the key itself is right"
_LATER = "wait a minute; if it stays, ask the provider to raise the limit"
_URL = "realtime.url must lead to a Realtime server: docs/providers.md has settings to paste"
_REMEDIES: Mapping[str, str] = {
    "invalid_api_key": _KEY,
    "401": _KEY,
    "403": "this key may not use the Realtime API, or this model: give it the permission at the provider",
    "insufficient_permissions": "give this key the permission for the Realtime API at the provider",
    "account_deactivated": "this account is closed: take another key",
    "missing_model": _MODEL,
    "invalid_model": _MODEL,
    "model_not_found": _MODEL,
    "model_load_error": "look into the log of the server: it could not load the model",
    "DeploymentNotFound": "realtime.model must be the name of your deployment at Azure",
    "400": _MODEL,
    "404": f"{_URL}; {_MODEL}",
    "insufficient_quota": _CREDIT,
    "credit_balance_exhausted": _CREDIT,
    "billing_hard_limit_reached": _CREDIT,
    "402": _CREDIT,
    "429": _LATER,
    "rate_limit_exceeded": _LATER,
    "session_limit_reached": "all sessions of this server are in use: stop another client of it",
    "beta_api_shape_disabled": 'realtime.dialect = "ga"',
    "tls": "is the clock of this machine right (`date`), are its CA certificates installed, and is no proxy between?",
    "format_mismatch": "the server does not speak 24 kHz PCM; check realtime.dialect and the agent's session.audio",
    "server_error": "trouble at the server: try again in a moment",
}


async def check_model(
    config: Realtime,
    endpoint: Endpoint,
    agents: Mapping[str, Agent],
    limits: Limits,
    report: Callable[[Finding], None],
    *,
    connect_stream: ConnectStream | None = None,
) -> None:
    """A session for each agent, one after the other; after trouble that all would have, the others are not tried."""
    if not config.api_key and not config.headers and endpoint.host in _HOSTS_WITH_KEYS:
        report(fail("model", f"there is no key for {endpoint.host}", _KEY))
        return
    for name, agent in agents.items():
        place = f"model {name}" if len(agents) > 1 else "model"
        session = realtime.session_update(agent, call_tools.tools_of(agent))
        began = trio.current_time()
        try:
            async with open_realtime(
                realtime_of(agent, config),
                session,
                connect_s=limits.model_connect_s,
                close_s=limits.websocket_close_s,
                connect_stream=connect_stream,
            ) as connection:
                took_s = trio.current_time() - began
                told = connection.session.get("model")
        except ModelError as error:
            report(_explain(place, name, error, endpoint, config.api_key))
            if error.code in _REMEDIES or isinstance(error, ModelUnreachable):
                return  # no other agent would fare better
            continue
        served = f"{told or agent.model or config.model or 'the model'} at {endpoint.host}"
        text = f"{served}: a session of agent {name} stands after {took_s * 1000:.0f} ms"
        if took_s > _SLOW_S:
            remedy = "callers hear so much more ringing: a server that is nearer, or the network's name service?"
            report(warn(place, text, remedy))
        else:
            report(ok(place, text))


def _explain(place: str, agent: str, error: ModelError, endpoint: Endpoint, key: str) -> Finding:
    remedy = _REMEDIES.get(error.code or "")
    if remedy is None and isinstance(error, ModelUnreachable):
        remedy = f"can this machine reach {endpoint.host}? Proxy variables are not used. {_URL}"
    if remedy is None:
        remedy = f"look at [agents.{agent}] and [agents.{agent}.session]; `realtime-bridge check-config` shows what is sent"
    # Servers have been seen to repeat the key.
    told = str(error).replace(key.strip(), "***") if key.strip() else str(error)
    return fail(place, told, remedy)
