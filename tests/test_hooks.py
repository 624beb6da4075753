"""The settings of hooks: what may stand there, what holds for one call, and what nobody gets to see."""

from __future__ import annotations

import re

import pytest

from bridge.config import load_config, warnings_of
from bridge.config_shown import effective
from bridge.errors import ConfigError
from bridge.hooks import CallHooks, advice, hooks_of

FILE = """
[hooks]
event_url = "https://all.test/events?key=hidden"
events = ["all"]
action_url = "https://all.test/action"
secret = "$SECRET"
headers = { Authorization = "$TOKEN" }
[agents.sales.hooks]
event_url = "http://sales.test:8000/"
events = ["call.*"]
secret = "hidden too"
[agents.private.hooks]
event_url = ""
action_url = ""
"""
ENVIRON = {"SECRET": "whsec_aGlkZGVu", "TOKEN": "Bearer hidden"}


def test_what_an_agent_says_takes_the_place_of_what_all_have() -> None:
    config = load_config(FILE, ENVIRON)
    both = {"Authorization": "Bearer hidden"}
    everybody = CallHooks(
        "https://all.test/events?key=hidden", ("all",), "https://all.test/action", "whsec_aGlkZGVu", both, 10.0
    )
    assert hooks_of(config.hooks) == hooks_of(config.hooks, config.agents["default"].hooks) == everybody
    sales = hooks_of(config.hooks, config.agents["sales"].hooks)
    assert (sales.event_url, sales.events, sales.secret) == ("http://sales.test:8000/", ("call.*",), "hidden too")
    assert (sales.action_url, sales.headers) == ("https://all.test/action", both)
    private = hooks_of(config.hooks, config.agents["private"].hooks)
    assert (private.event_url, private.action_url) == ("", "")
    assert "hidden" not in repr(everybody)


def test_secrets_are_shown_nowhere() -> None:
    rows = dict(effective(load_config(FILE, ENVIRON)))
    assert rows["hooks.secret"] == rows["hooks.headers"] == rows["agents.sales.hooks.secret"] == "(set, hidden)"
    assert rows["hooks.event_url"] == '"https://all.test/events?key=***"'
    assert not [value for value in rows.values() if "hidden" in value and value != "(set, hidden)"]
    assert "agents.default.hooks.secret" not in rows, "what an agent does not say is as for all"


def test_the_secret_may_come_from_the_environment_alone() -> None:
    assert load_config("", {"BRIDGE_HOOKS_SECRET": "from there"}).hooks.secret == "from there"


@pytest.mark.parametrize(
    ("text", "warned"),
    [
        ("", []),
        ("event_url = 'https://a.test/'\nsecret = 'x'", ["hooks.events: names no event"]),
        ("event_url = 'https://a.test/'\nevents = ['all']", ["hooks.secret: none is set"]),
        ("call_url = 'https://a.test/'", ["hooks.secret: none is set"]),
        ("event_url = 'https://a.test/'\nsecret = 'x'\n[agents.a.hooks]\nevents = ['all']", []),
    ],
)
def test_what_will_not_do_what_is_wanted_is_warned_of(text: str, warned: list[str]) -> None:
    config = load_config(f"[hooks]\n{text}", {})
    found = advice(config.hooks, {name: agent.hooks for name, agent in config.agents.items()})
    assert [told for told in warnings_of(config) if "hooks" in told] == found
    assert len(found) == len(warned)
    assert all(told.startswith(begin) for told, begin in zip(found, warned, strict=True))


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("call_url = 'service.test'", "hooks.call_url: must be like https://"),
        ("event_url = 'ftp://service.test/'", "hooks.event_url: must be like https://"),
        ("action_url = 'http:///x'", "hooks.action_url: must be like https://"),
        ("action_url = 'http://[x/'", "hooks.action_url: must be like https://"),
        ("action_url = 'http://x:99999/'", "hooks.action_url: must be like https://"),
        ("secret = 'whsec_???'", "hooks.secret: a secret that begins with"),
        ("secret = '$NOBODY'", "hooks.secret: the environment variable 'NOBODY' is not set"),
        ("headers = { X = '$NOBODY' }", "hooks.headers.X: the environment variable 'NOBODY' is not set"),
        ("headers = { 'X Y' = 'a' }", "hooks.headers: 'X Y' is no name"),
        ('headers = { X = "a\\nb" }', "hooks.headers.X: must be printable ASCII in one line"),
        ("headers = { Webhook-Id = 'a' }", "hooks.headers: 'Webhook-Id' is the bridge's own"),
        ("call_timeout_s = 11", "hooks.call_timeout_s: must be above 0, at most 10"),
        ("timeout_s = 0", "hooks.timeout_s: must be above 0"),
        ("batch_ms = -1", "hooks.batch_ms: must be 0"),
        ("batch_events = 0", "hooks.batch_events: must be 1 to 500"),
        ("give_up_after_s = 1", "hooks.give_up_after_s: must be 60"),
        ("url = 'https://service.test/'", "hooks.url: unknown key"),
    ],
)
def test_what_is_wrong_is_told_with_its_line(line: str, says: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(f"bridge.toml:2: {says}")):
        load_config(f"[hooks]\n{line}\n", {})


@pytest.mark.parametrize(
    "line", ["event_url = 'x'", "timeout_s = 99", "secret = 'whsec_'", "call_url = 'https://a/'"]
)
def test_an_agents_own_are_checked_as_well(line: str) -> None:
    with pytest.raises(ConfigError, match=r"bridge\.toml:2: agents\.sales\.hooks\."):
        load_config(f"[agents.sales.hooks]\n{line}\n", {})
