"""The key map: what a caller's key does before the model hears of it, at any moment of a call."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
import trio
from house import FAST, House, house
from talking import heard_ms, kinds
from trio.testing import MockClock

from bridge import keys
from bridge.config import load_config
from bridge.errors import ConfigError
from simulators.ari_channels import HUNG_UP, FakeChannel, Place
from simulators.model_script import Call, Say, Script

RECEPTION = Place("phones", "600", "1")
SETTINGS = """
[agents.default.transfers.reception]
to = "600@phones"
[agents.default.keys]
0 = "transfer reception"
9 = "hang_up"
"*" = "ask: Please repeat that."
"#" = "ignore"
"""
STORY = Say("A long story.", ms=20_000, pace=FAST)


# The settings ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "action"),
    [
        ("transfer reception", keys.Transfer("reception")),
        ("transfer  the front desk ", keys.Transfer("the front desk")),
        ("hang_up", keys.HangUp()),
        ("ask: Please repeat that.", keys.Say("Please repeat that.")),
        ("ignore", keys.Ignore()),
    ],
)
def test_a_value_says_what_the_key_does(text: str, action: keys.KeyAction) -> None:
    assert keys.action_of(text) == action


@pytest.mark.parametrize("text", ["", "transfer", "hang_up now", "ask:", "ask", "ignore it", "call reception"])
def test_any_other_value_is_refused_with_the_forms(text: str) -> None:
    with pytest.raises(ValueError, match=r"must be .transfer NAME., .hang_up., .ask: TEXT. or .ignore."):
        keys.action_of(text)


@pytest.mark.parametrize(
    ("table", "told"),
    [
        ('0 = "transfer nobody"', "keys.0: there is no destination 'nobody' in this agent's transfers"),
        ('10 = "ignore"', "keys.10: must be one key of"),
        ('5 = "dance"', 'keys.5: must be "transfer NAME"'),
    ],
)
def test_errors_name_the_key_and_the_remedy(table: str, told: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(f"[agents.default.keys]\n{table}\n", {})
    assert told in str(caught.value)
    assert str(caught.value).startswith("bridge.toml:2: ")


@pytest.mark.parametrize(("kind", "refused"), [("manual", True), ("server_vad", False)])
def test_the_keys_of_manual_turns_are_taken_where_turns_are_manual(kind: str, refused: bool) -> None:
    text = f'[agents.default]\nkeys = {{"#" = "ignore"}}\nturn_detection.type = "{kind}"\n'
    if refused:
        with pytest.raises(ConfigError, match=r"is turn_detection\.send_key already"):
            load_config(text, {})
    else:
        assert load_config(text, {}).agents["default"].keys == {"#": "ignore"}


# In calls --------------------------------------------------------------------------------------------------------------


async def pressing(it: House, *, at: str) -> FakeChannel:
    """A caller at this moment of a call."""
    it.ari.dialplan.add(("phones", "600", "1"))
    if at == "ringing":
        it.model.faults.created_after_s = 5.0
    channel, _ = await it.stasis_call()
    match at:
        case "ringing":
            await trio.sleep(1)
            assert channel.state == "Ring"
        case "greeting":
            await it.hears_of("agent_starts")
            await trio.sleep(1)
        case "goodbye" | "announcing":
            await it.hears_of("tool_called")
            await trio.sleep(1)
        case "reconnecting":
            await it.hears_of("agent_said")
            it.model_up = False
            await it.model.session.drop()
            await it.hears_of("session_lost")
            await trio.sleep(1)
        case _:
            await it.hears_of("agent_said")
            await trio.sleep(1)
    return channel


SCRIPTS: Mapping[str, Script] = {
    "ringing": Script.of(Say("Hello!")),
    "greeting": Script.of(STORY),
    "listening": Script.of(Say("Hello!")),
    "reconnecting": Script.of(Say("Hello!")),
    "goodbye": Script.of([STORY, Call("hang_up")]),
    "announcing": Script.of(Call("transfer_call", {"destination": "reception"}), STORY),
}
MOMENTS = pytest.mark.parametrize("at", SCRIPTS)


@MOMENTS
async def test_the_transfer_key_hands_over_at_once(autojump_clock: MockClock, at: str) -> None:
    script = Script.of(*SCRIPTS[at].answers)
    async with house(script, settings=SETTINGS) as it:
        channel = await pressing(it, at=at)
        pressed_at = trio.current_time()
        channel.press("0")
        record = await it.ended()
        assert (record["reason"], record["detail"]) == ("transferred", "reception")
        assert channel.dialplan == RECEPTION
        assert trio.current_time() - pressed_at < 0.6, "nobody listens to the end"
        assert it.told("caller_key") == [{"action": "transfer", "destination": "reception"}]
        assert it.told("caller_pressed") == []


@MOMENTS
async def test_the_hang_up_key_ends_the_call_at_once(autojump_clock: MockClock, at: str) -> None:
    script = Script.of(*SCRIPTS[at].answers)
    async with house(script, settings=SETTINGS) as it:
        channel = await pressing(it, at=at)
        pressed_at = trio.current_time()
        channel.press("9")
        record = await it.ended()
        assert record["reason"] == "agent_hung_up"
        assert channel.dialplan == HUNG_UP
        assert trio.current_time() - pressed_at < 0.6


async def test_a_transfer_by_key_that_fails_leaves_the_caller_with_the_agent_who_knows_why(
    autojump_clock: MockClock,
) -> None:
    script = Script.of(STORY, Say("Nobody is at the reception. What can I do?", ms=900))
    async with house(script, settings=SETTINGS) as it:
        channel, _ = await it.stasis_call()
        await it.hears_of("agent_starts")
        await trio.sleep(1)
        channel.press("0")
        await it.hears_of("transfer_failed")
        await it.hears_of("agent_said", 2)
        written = [item.text for item in it.model.session.items if item.role in ("user", "system")]
        assert written[0] == "(The caller pressed the key for: reception.)"
        assert "transfer failed" in written[1]
        (truncate,) = it.model.received_events("conversation.item.truncate")
        assert 900 <= truncate["audio_end_ms"] <= 1100
        channel.hang_up()
        assert (await it.ended())["reason"] == "caller_hung_up"


async def test_a_transfer_by_key_that_fails_without_a_session_opens_another(autojump_clock: MockClock) -> None:
    script = Script.of(Say("Hello!"), Say("Nobody is there."))
    async with house(script, settings=SETTINGS) as it:
        channel = await pressing(it, at="reconnecting")
        it.ari.dialplan.clear()
        channel.press("0")
        await it.hears_of("transfer_failed")
        it.model_up = True
        await it.hears_of("agent_said", 2)
        assert any("transfer failed" in item.text for item in it.model.session.items)
        channel.hang_up()
        await it.ended()


async def test_the_ask_key_interrupts_and_is_answered(autojump_clock: MockClock) -> None:
    script = Script.of(STORY, Say("In short: once upon a time.", ms=800))
    async with house(script, settings=SETTINGS) as it:
        channel, caller = await it.stasis_call()
        await it.hears_of("agent_starts")
        await trio.sleep(1)
        channel.press("*")
        await it.hears_of("agent_said", 2)
        assert heard_ms(caller) < 3000
        assert [item.text for item in it.model.session.items if item.role == "user"] == ["Please repeat that."]
        assert len(it.model.sent_events("response.created")) == 2
        channel.hang_up()
        assert (await it.ended())["interruptions"] == 1


async def test_the_ask_key_while_it_rings_is_answered_after_the_greeting(autojump_clock: MockClock) -> None:
    async with house(Script.of(Say("Hello!"), Say("Hello again!")), settings=SETTINGS) as it:
        channel = await pressing(it, at="ringing")
        channel.press("*")
        await it.hears_of("agent_said", 2)
        assert [facts["text"] for facts in it.told("agent_said")] == ["Hello!", "Hello again!"]
        channel.hang_up()
        await it.ended()


async def test_an_ignored_key_does_nothing(autojump_clock: MockClock) -> None:
    async with house(Script.of(STORY), settings=SETTINGS) as it:
        channel, _ = await it.stasis_call()
        await it.hears_of("agent_starts")
        await trio.sleep(1)
        channel.press("#")
        await it.hears_of("agent_said")
        await trio.sleep(3)
        assert kinds(it, "conversation.item.create", "conversation.item.truncate") == []
        channel.hang_up()
        await it.ended()


async def test_keys_that_are_not_in_the_map_are_told_to_the_model(autojump_clock: MockClock) -> None:
    async with house(Script.of(Say("Hello!"), Say("Forty-two.")), settings=SETTINGS) as it:
        channel, _ = await it.stasis_call()
        await it.hears_of("agent_said")
        channel.press("4")
        channel.press("2")
        await it.hears_of("agent_said", 2)
        told = [item.text for item in it.model.session.items if item.role == "user"]
        assert told == ["(The caller pressed these keys: 4 2)"]
        channel.hang_up()
        await it.ended()


async def test_a_key_on_the_media_connection_counts_where_there_is_no_other(autojump_clock: MockClock) -> None:
    async with house(Script.of(STORY), settings=SETTINGS) as it:
        caller = await it.plain_call()
        await it.hears_of("agent_starts")
        caller.press("9")
        assert (await it.ended())["reason"] == "agent_hung_up"
