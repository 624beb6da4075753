"""A caller is handed over: found out, told, done; and what becomes of it when somebody speaks, fails or is not there."""

from __future__ import annotations

import msgspec
import pytest
from test_conversation import Rig, acts, call, notices, sent, types

from bridge.agent import Agent
from bridge.destinations import Destination
from bridge.dialogue import Briefed, CheckTransfer, DropSession, EndCall, OpenSession, State, TransferCall
from bridge.ending import EndReason

DESK = Destination(endpoint="PJSIP/600", mode="warm", accept_key="1", decline_key="*")
AGENT = Agent(
    instructions="Be kind.",
    greeting="Say hello.",
    transfers={"desk": DESK, "any": Destination(to="{number}@internal", number="[2-5]\\d\\d")},
)
WANTED = TransferCall("C1", "desk", DESK)
ARGUMENTS = '{"destination":"desk"}'


def asking(*, says_ms: int = 0, keys: dict[str, str] | None = None) -> Rig:
    """The model calls transfer_call, having said something in the same response or not."""
    rig = Rig(msgspec.structs.replace(AGENT, keys=keys or {})).greeted()
    rig.created()
    if says_ms:
        rig.delta(says_ms)
    assert acts(rig.done(output=[call("transfer_call", ARGUMENTS)])) == [CheckTransfer(WANTED)]
    return rig


def test_what_was_not_announced_is_announced_after_the_check_and_done_after_the_words() -> None:
    rig = asking()
    commands = rig.it.transfer_checked(WANTED, "", "2 callers wait there already.", rig.now)
    output, request = sent(commands)
    assert output["item"]["call_id"] == "C1"
    assert "It is possible. 2 callers wait there already." in output["item"]["output"]
    assert "connecting them with desk" in request["response"]["instructions"]
    assert request["response"]["instructions"].startswith("Be kind.")
    assert rig.state() is State.ANNOUNCING
    assert not rig.it.wants_audio
    rig.created("R2")
    rig.delta(200, "R2", "A2")
    assert acts(rig.done("R2")) == []
    assert rig.state() is State.CLOSING
    assert acts(rig.play(100)) == []
    assert acts(rig.play(140)) == [TransferCall("", "desk", DESK)]


def test_what_was_announced_together_with_the_call_is_not_announced_again() -> None:
    rig = asking(says_ms=200)
    commands = rig.it.transfer_checked(WANTED, "", "", rig.now)
    assert sent(commands) == []
    assert rig.state() is State.CLOSING
    assert acts(rig.play(240)) == [WANTED], "its output is the failure, if it comes to that"


def test_what_is_not_possible_is_told_to_the_model_and_the_caller_is_heard_again() -> None:
    rig = asking()
    commands = rig.it.transfer_checked(WANTED, "PJSIP/600 is not registered now", "", rig.now)
    assert types(commands) == ["conversation.item.create", "response.create"]
    assert "Not possible: PJSIP/600 is not registered now" in sent(commands)[0]["item"]["output"]
    assert notices(commands, "transfer_refused") == [
        {"destination": "desk", "message": "PJSIP/600 is not registered now"}
    ]
    assert rig.state() is State.LISTENING
    assert rig.it.wants_audio


def test_a_caller_who_speaks_during_the_check_is_not_sent_away() -> None:
    rig = asking()
    rig.speech_started()
    commands = rig.it.transfer_checked(WANTED, "", "", rig.now)
    assert "the caller started to speak" in sent(commands)[0]["item"]["output"]
    assert rig.state() is State.LISTENING
    assert acts(rig.play(1000)) == []


def test_a_caller_who_says_thank_you_into_the_announcement_does_not_undo_it() -> None:
    rig = asking()
    rig.it.transfer_checked(WANTED, "", "", rig.now)
    rig.created("R2")
    rig.delta(400, "R2", "A2")
    rig.play(100)
    assert sent(rig.speech_started()) == []
    rig.done("R2")
    assert acts(rig.play(500)) == [TransferCall("", "desk", DESK)]


@pytest.mark.parametrize("how", ["too late", "failed twice", "session lost"])
def test_an_announcement_that_can_not_be_made_does_not_hold_the_transfer_up(how: str) -> None:
    rig = asking()
    rig.it.transfer_checked(WANTED, "", "", rig.now)
    transfer = TransferCall("", "desk", DESK)
    match how:
        case "too late":
            commands = rig.it.tick(rig.now + 25)
        case "failed twice":
            for number in range(2):
                rig.created(f"R{number + 2}")
                commands = rig.done(f"R{number + 2}", status="failed")
        case _:
            for _ in range(2):
                assert OpenSession() in rig.it.session_lost(EndReason.MODEL_LOST, "gone", None, rig.now)
                rig.it.connected(rig.now, None)
            commands = rig.it.give_up(EndReason.MODEL_LOST, "gone", None, rig.now)
            rig.it.session_lost(EndReason.MODEL_LOST, "gone", None, rig.now)
    assert notices(commands, "transfer_unannounced") == [{"destination": "desk"}]
    assert transfer in acts([*commands, *rig.play(20)])


def briefing() -> Rig:
    """The caller was told, the desk was rung, and has answered."""
    rig = asking(says_ms=100)
    rig.it.transfer_checked(WANTED, "", "", rig.now)
    assert acts(rig.play(200)) == [WANTED]
    (request,) = sent(rig.it.target_answered(WANTED, rig.now))
    words = request["response"]["instructions"]
    assert "not to the caller" in words
    assert "key 1 takes the call, and the star key declines it" in words
    assert rig.state() is State.ANNOUNCING
    return rig


def test_who_takes_over_is_told_and_then_decides() -> None:
    rig = briefing()
    rig.created("R2")
    rig.delta(300, "R2", "A2")
    assert acts(rig.done("R2")) == []
    assert acts(rig.play(200)) == []
    assert acts(rig.play(140)) == [Briefed(True)]
    assert acts(rig.play(5000)) == []
    assert acts(rig.it.tick(rig.now)) == []


def test_a_model_that_stalls_in_a_summary_is_replaced_and_gives_it_anew() -> None:
    rig = briefing()
    rig.created("R2")
    stalled = rig.it.tick(rig.now + 8.5)
    assert [it for it in stalled if isinstance(it, DropSession)] == [
        DropSession(EndReason.MODEL_STALLED, "no answer from the model for 8 s")
    ]
    assert OpenSession() in rig.it.session_lost(EndReason.MODEL_STALLED, "", None, rig.now + 8.5)
    again = rig.it.connected(rig.now + 9, None)
    assert "not to the caller" in sent(again)[-1]["response"]["instructions"]


def test_without_a_summary_the_decision_is_not_theirs() -> None:
    rig = briefing()
    assert acts(rig.it.tick(rig.now + 25)) == [Briefed(False)]


def test_a_transfer_that_was_declined_brings_the_caller_back() -> None:
    rig = briefing()
    rig.created("R2")
    rig.delta(3000, "R2", "A2")
    rig.play(500)
    commands = rig.it.transfer_failed("C1", "desk declined the call", rig.now)
    assert types(commands)[:2] == ["response.cancel", "conversation.item.truncate"], "the rest was not for the caller"
    rig.done("R2", status="cancelled")
    assert rig.state() is State.LISTENING
    assert rig.it.wants_audio
    (output,) = [it["item"]["output"] for it in sent(commands) if it["type"] == "conversation.item.create"]
    assert "desk declined" in output
    assert rig.playout.idle


def test_the_model_gives_a_number_only_where_it_may() -> None:
    rig = Rig(AGENT).greeted()
    rig.created()
    number = '{"destination":"any","number":"301"}'
    wanted = TransferCall("C1", "any", AGENT.transfers["any"].at("301"))
    assert acts(rig.done(output=[call("transfer_call", number)])) == [CheckTransfer(wanted)]
    assert wanted.destination.to == "301@internal"
    rig.it.transfer_checked(wanted, "no", "", rig.now)
    rig.created("R2")
    commands = rig.done("R2", output=[call("transfer_call", '{"destination":"any","number":"0900123"}', "C2")])
    assert acts(commands) == []
    assert "can not be connected with the number '0900123'" in sent(commands)[0]["item"]["output"]


@pytest.mark.parametrize(
    ("number", "taken"),
    [("301", True), ("301&PJSIP/0900", False), ("9@trunk", False), ("３０１", False), ("", False)],
)
def test_a_pattern_that_is_too_wide_lets_nobody_call_somebody_else(number: str, taken: bool) -> None:
    assert Destination(endpoint="PJSIP/{number}@trunk", number=".*").takes(number) is taken


def test_hang_up_and_transfer_in_one_breath() -> None:
    rig = Rig(AGENT).greeted()
    rig.created()
    rig.delta(100)
    commands = rig.done(output=[call("hang_up"), call("transfer_call", ARGUMENTS, "C2")])
    assert acts(commands) == []
    assert sent(commands)[0]["item"] == {
        "type": "function_call_output",
        "call_id": "C2",
        "output": "Not done: the call is ending.",
    }


def test_a_caller_who_puts_us_on_hold_does_not_stop_the_words_to_who_takes_over() -> None:
    rig = briefing()
    rig.created("R2")
    rig.delta(400, "R2", "A2")
    rig.done("R2")
    rig.play(100)
    rig.it.caller_held(True, rig.now)
    assert Briefed(True) in acts(rig.play(400))
    rig.it.transfer_failed("C1", "desk declined the call", rig.now)
    rig.created("R3")
    rig.delta(100, "R3", "A3")
    rig.done("R3")
    rig.play(300)
    assert not rig.playout.idle, "but what is for the caller waits for his return"
    rig.it.caller_held(False, rig.now)
    rig.play(140)
    assert rig.playout.idle


# Somebody else decides meanwhile ---------------------------------------------------------------------------------------

END = EndCall(EndReason.AGENT_HUNG_UP, "closing time")


def test_an_application_hangs_up_instead_of_a_transfer_that_was_announced() -> None:
    rig = asking(says_ms=200)
    rig.it.transfer_checked(WANTED, "", "", rig.now)
    assert acts(rig.it.application_ends(END, rig.now)) == []
    assert acts(rig.play(240)) == [END], "when everything said so far was heard"


def test_an_application_hangs_up_while_it_rings() -> None:
    rig = asking(says_ms=100)
    rig.it.transfer_checked(WANTED, "", "", rig.now)
    assert acts(rig.play(200)) == [WANTED]
    assert acts(rig.it.application_ends(END, rig.now)) == [END]


def test_the_key_that_hangs_up_does_so_while_it_rings() -> None:
    rig = asking(says_ms=100, keys={"9": "hang_up"})
    rig.it.transfer_checked(WANTED, "", "", rig.now)
    assert acts(rig.play(200)) == [WANTED]
    end = EndCall(EndReason.AGENT_HUNG_UP, "the caller pressed the key that ends the call")
    assert acts(rig.it.caller_digit("9", rig.now)) == [end]


def test_an_application_hangs_up_while_a_colleague_is_told() -> None:
    assert acts(briefing().it.application_ends(END, 0.0)) == [END]


def test_a_second_transfer_does_not_take_the_words_of_the_first_away() -> None:
    rig = briefing()
    refused = rig.it.application_ends(TransferCall("", "any", DESK), rig.now)
    assert [it["destination"] for it in notices(refused, "transfer_refused")] == ["any"]
    rig.created("R2")
    rig.delta(100, "R2", "A2")
    rig.done("R2")
    assert acts(rig.play(140)) == [Briefed(True)], "else nobody would ever ask for the decision"
