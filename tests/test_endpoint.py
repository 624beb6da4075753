"""Where to connect and with which key: every row of the protocol sheet's section 1.1, and what must never be shown."""

from __future__ import annotations

import pytest

from bridge.config import Realtime, load_config, masked_url
from bridge.config_shown import effective
from bridge.dialect import Dialect
from bridge.endpoint import check_agents, endpoint_of
from bridge.errors import ConfigError

KEY = "sk-hush"
JWT = "eyJhbGciOi.eyJhdWQiOi.c2lnbmF0dXJl"
AZURE = "wss://res.openai.azure.com"
PREVIEW = f"{AZURE}/openai/realtime?api-version=2025-04-01-preview"
BEARER = {"Authorization": f"Bearer {KEY}"}
BETA = {"OpenAI-Beta": "realtime=v1"}


@pytest.mark.parametrize(
    ("settings", "url", "headers", "dialect"),
    [
        ({}, "wss://api.openai.com/v1/realtime?model=m", BEARER, "ga"),
        ({"url": "wss://eu.api.openai.com/v1/realtime"}, "wss://eu.api.openai.com/v1/realtime?model=m", BEARER, "ga"),
        ({"url": f"{AZURE}/openai/v1/realtime"}, f"{AZURE}/openai/v1/realtime?model=m", {"api-key": KEY}, "ga"),
        ({"url": PREVIEW}, f"{PREVIEW}&deployment=m", {"api-key": KEY, **BETA}, "beta"),
        ({"url": f"{PREVIEW}&deployment=d"}, f"{PREVIEW}&deployment=d", {"api-key": KEY, **BETA}, "beta"),
        (
            {"url": f"{AZURE}/openai/realtime", "query": {"api-version": "2025-04-01-preview"}},
            f"{PREVIEW}&deployment=m",
            {"api-key": KEY, **BETA},
            "beta",
        ),
        ({"url": "wss://api.x.ai/v1/realtime"}, "wss://api.x.ai/v1/realtime?model=m", BEARER, "xai"),
        (
            {
                "url": "wss://api.inworld.ai/api/v1/realtime/session?protocol=realtime",
                "model": "",
                "query": {"key": "call-1"},
                "headers": {"authorization": "Basic xyz"},
            },
            "wss://api.inworld.ai/api/v1/realtime/session?protocol=realtime&key=call-1",
            {"authorization": "Basic xyz"},
            "ga",
        ),
        ({"url": "ws://box:8080/v1/realtime", "api_key": ""}, "ws://box:8080/v1/realtime?model=m", {}, "ga"),
        ({"url": "ws://u:p@box/v1/realtime"}, "ws://u:p@box/v1/realtime?model=m", {}, "ga"),
        (
            {"url": "ws://box:8000/v1/realtime", "auth": "query", "dialect": "beta"},
            f"ws://box:8000/v1/realtime?model=m&api_key={KEY}",
            BETA,
            "beta",
        ),
        ({"auth": "query", "auth_query": "k"}, f"wss://api.openai.com/v1/realtime?model=m&k={KEY}", {}, "ga"),
        ({"auth": "none"}, "wss://api.openai.com/v1/realtime?model=m", {}, "ga"),
        ({"auth": "bearer", "url": f"{AZURE}/openai/v1/realtime"}, f"{AZURE}/openai/v1/realtime?model=m", BEARER, "ga"),
        ({"api_key": f" {KEY}\n"}, "wss://api.openai.com/v1/realtime?model=m", BEARER, "ga"),
        # What else than a model names a session.
        ({"query": {"call_id": "rtc_1"}}, "wss://api.openai.com/v1/realtime?call_id=rtc_1", BEARER, "ga"),
        ({"query": {"intent": "transcription"}}, "wss://api.openai.com/v1/realtime?intent=transcription", BEARER, "ga"),
        ({"url": "wss://x/v1?model=theirs"}, "wss://x/v1?model=theirs", BEARER, "ga"),
        ({"model": "m 1"}, "wss://api.openai.com/v1/realtime?model=m+1", BEARER, "ga"),
        # As a portal shows it.
        ({"url": "https://api.openai.com"}, "wss://api.openai.com/v1/realtime?model=m", BEARER, "ga"),
        ({"url": "https://res.openai.azure.com/"}, f"{AZURE}/openai/v1/realtime?model=m", {"api-key": KEY}, "ga"),
        ({"url": "http://box/v1/realtime"}, "ws://box/v1/realtime?model=m", BEARER, "ga"),
    ],
)  # fmt: skip
def test_url_headers_and_dialect(
    settings: dict[str, object], url: str, headers: dict[str, str], dialect: str
) -> None:
    endpoint = endpoint_of(Realtime(**{"model": "m", "api_key": KEY} | settings))  # type: ignore[arg-type]
    assert (endpoint.url, dict(endpoint.headers), endpoint.dialect) == (url, headers, dialect)
    assert endpoint.subprotocols == ()


def test_an_entra_token_is_a_bearer_at_azure() -> None:
    endpoint = endpoint_of(Realtime(url=f"{AZURE}/openai/v1/realtime", api_key=JWT))
    assert endpoint.headers == {"Authorization": f"Bearer {JWT}"}


@pytest.mark.parametrize(("dialect", "more"), [("ga", ()), ("beta", ("openai-beta.realtime-v1",))])
def test_the_key_as_a_subprotocol(dialect: str, more: tuple[str, ...]) -> None:
    config = Realtime(url="ws://box/v1/realtime", api_key=KEY, auth="subprotocol", dialect=Dialect(dialect).value)
    endpoint = endpoint_of(config)
    assert endpoint.subprotocols == ("realtime", f"openai-insecure-api-key.{KEY}", *more)
    assert "Authorization" not in endpoint.headers


@pytest.mark.parametrize(
    ("settings", "remedy"),
    [
        ({"url": "wss://box"}, "most servers have it at wss://box/v1/realtime"),
        ({"url": "wss:///v1/realtime"}, "names no host"),
        ({"url": f"wss://box:{KEY}/v1/realtime"}, "a port that is none"),
        ({"url": f"wss://[{KEY}/v1/realtime"}, "names no host"),
        ({"url": f"{AZURE}/openai/realtime"}, "needs an api-version"),
        ({"dialect": "beta"}, 'set realtime.dialect = "ga"'),
        ({"headers": {"openai-beta": "realtime=v1"}}, "take OpenAI-Beta out of realtime.headers"),
        ({"auth": "api-key", "api_key": ""}, "set OPENAI_API_KEY or BRIDGE_REALTIME_API_KEY"),
        ({"auth": "bearer", "headers": {"authorization": "Bearer x"}}, "keep one of them"),
        ({"api_key": f"{KEY} # mine"}, "was more than the key copied"),
        ({"api_key": f"{KEY}\u2026"}, "was more than the key copied"),
        ({"api_key": f"{KEY}/=", "auth": "subprotocol"}, 'choose another "auth"'),
        ({"url": f"wss://{KEY}@box/v1/realtime"}, "user name without a password"),
    ],
)
def test_what_can_not_work_is_said_with_a_remedy_and_without_the_key(settings: dict[str, str], remedy: str) -> None:
    with pytest.raises(ConfigError) as caught:
        endpoint_of(Realtime(**{"api_key": KEY} | settings))  # type: ignore[arg-type]
    assert remedy in str(caught.value)
    assert KEY not in str(caught.value)


@pytest.mark.parametrize(
    ("agent", "dialect", "remedy"),
    [
        (
            "[[agents.a.mcp]]\nserver_label = 'x'\nserver_url = 'https://x/mcp'\nrequire_approval = 'never'",
            "beta",
            "agents.a.mcp: MCP servers need the GA dialect",
        ),
        ("[agents.a.turn_detection]\ntype = 'semantic_vad'", "xai", "agents.a.turn_detection.type: xAI knows"),
    ],
)
def test_what_an_agent_wants_and_a_dialect_can_not_say(agent: str, dialect: str, remedy: str) -> None:
    text = f"{agent}\n[realtime]\nurl = 'ws://box/v1/realtime'\ndialect = '{dialect}'"
    config = load_config(text, {})
    with pytest.raises(ConfigError, match=remedy):
        check_agents(endpoint_of(config.realtime), config.agents)
    config = load_config(text.replace(dialect, "ga"), {})
    check_agents(endpoint_of(config.realtime), config.agents)


@pytest.mark.parametrize("auth", ["bearer", "api-key", "query", "subprotocol"])
def test_an_endpoint_shows_no_key(auth: str) -> None:
    endpoint = endpoint_of(Realtime(url="wss://box/v1/realtime?token=hush-too", api_key=KEY, auth=auth))  # type: ignore[arg-type]
    for shown in (str(endpoint), repr(endpoint), f"{endpoint}", endpoint.host):
        assert "hush" not in shown
    assert "model=gpt-realtime" in str(endpoint)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("wss://u:hush@h:1/p?model=m&key=hush", "wss://***@h:1/p?model=m&key=***"),
        ("wss://h/p?hush", "wss://h/p?***"),
        ("wss://h/p?api-version=1&deployment=d#hush", "wss://h/p?api-version=1&deployment=d"),
        ("wss://h/p", "wss://h/p"),
        ("wss://h", "wss://h"),
    ],
)
def test_masked_urls(url: str, shown: str) -> None:
    assert masked_url(url) == shown


def test_check_config_shows_no_key_of_a_url() -> None:
    text = "[realtime]\nurl = 'wss://u:hush@h/p?key=hush'\nquery = { token = 'hush' }"
    shown = dict(effective(load_config(text, {})))
    assert "hush" not in str(shown)
    assert shown["realtime.url"] == '"wss://***@h/p?key=***"'
    assert shown["realtime.query"] == "(set, hidden)"
