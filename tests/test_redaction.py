"""What is taken out of texts before they are kept, and what a record is without."""

from __future__ import annotations

import time

import pytest

from bridge.call_record import CallRecord, Said, ToolUse
from bridge.config import load_config, warnings_of
from bridge.config_shown import effective
from bridge.errors import ConfigError
from bridge.kept_call import MOST_CHARACTERS, kept
from bridge.records import KINDS, AgentRecords
from bridge.redaction import Redactor, kept_number


@pytest.mark.parametrize(
    ("words", "said", "stays"),
    [
        (["card_numbers"], "It is 4111 1111 1111 1111, thanks.", "It is [card number], thanks."),
        (["card_numbers"], "4111-1111-1111-1111 and 5500005555555559", "[card number] and [card number]"),
        (["card_numbers"], "Order 4111 1111 1111 1112.", "Order 4111 1111 1111 1112."),  # fails the check of cards
        (["digits"], "The PIN is 4711, at 10 to 12.", "The PIN is [digits], at 10 to 12."),
        (["digits"], "4 7 1 1", "[digits]"),
        (["emails"], "Write to jo.do+x@mail.example.com.", "Write to [e-mail address]."),
        (["emails"], "jo at example dot com", "[e-mail address]"),
        (["emails"], "I am at home. Good.", "I am at home. Good."),
        (["ibans"], "From DE89 3704 0044 0532 0130 00 please", "From [IBAN] please"),
        (["phone_numbers"], "Call +49 (30) 123-4567 or 030/1234567.", "Call [phone number] or [phone number]."),
        (["phone_numbers"], "Room 12, at 7:30", "Room 12, at 7:30"),
        (["card_numbers", "digits"], "4111111111111111 and 0815", "[card number] and [digits]"),
        (["/sourdough|rye/"], "two sourdough, one rye", "two [redacted], one [redacted]"),
        ([], "4111 1111 1111 1111", "4111 1111 1111 1111"),
    ],
)
def test_what_is_said_is_kept_without(words: list[str], said: str, stays: str) -> None:
    assert Redactor(words).text(said) == stays


def test_json_stays_json() -> None:
    redactor = Redactor(["digits"])
    assert redactor.json_text('{"pin": 4711, "n": 3, "of": ["a 4712", true, null]}') == (
        '{"pin":"[digits]","n":3,"of":["a [digits]",true,null]}'
    )
    assert redactor.json_text('{"n": 3}') == '{"n": 3}', "as it was where nothing is found"
    assert redactor.json_text('{"pin": 4711') == '{"pin": [digits]'


def test_no_text_takes_long() -> None:
    # The media clock waits while an expression is searched for. What each takes here is 1 to 7 ms.
    redactor = Redactor(KINDS)
    for text in (
        "1" * 16_000,
        "a" * 16_000,
        "a at " * 3_200,
        "1 " * 8_000,
        "+" * 16_000,
        "AA11 1111" * 1_700,
        "a.b." * 4_000,
    ):
        took = []
        for _ in range(3):
            began = time.process_time()
            redactor.text(text)
            took.append(time.process_time() - began)
        assert min(took) < 0.04, text[:10]


@pytest.mark.parametrize(
    ("number", "masked"),
    [
        ("+493012345678", "+49301234****"),
        ("030-1234 Alice", "030-****"),
        ("600", "***"),
        ("alice", "a****"),
        ("PJSIP/+4917112345@trunk2", "PJSIP/+491711****@trunk2"),
        ("", ""),
    ],
)
def test_numbers_are_kept_as_the_agent_says(number: str, masked: str) -> None:
    assert kept_number(number, "masked") == masked
    assert kept_number(number, "whole") == number
    assert kept_number(number, "none") == ""


def call(**changes: object) -> CallRecord:
    record = CallRecord(call_id="c1", caller="+49301234567", called="100", began_unix_s=1e9, agent="sales")
    record.detail = "no route to +49301234567"
    record.transcript = [Said(0.5, "agent", "Hello."), Said(2.0, "caller", "I am +49301234567, PIN 4711")]
    record.tool_uses = [ToolUse(3.0, "t1", "look_up", '{"who":"+49301234567"}', "found 4711", 0.25)]
    for name, value in changes.items():
        setattr(record, name, value)
    return record


def test_a_masked_number_stands_nowhere_else_either() -> None:
    it = kept(call(), AgentRecords(keep_numbers="masked"))
    assert (it.call["caller"], it.call["called"]) == ("+4930123****", "100")
    assert "34567" not in str(it)
    assert "34567" not in str(kept(call(), AgentRecords(keep_numbers="none")))
    outbound = kept(
        call(direction="outbound", caller="100", called="+49301234567"), AgentRecords(keep_numbers="none")
    )
    assert (outbound.call["caller"], outbound.call["called"]) == ("100", "")


def test_what_an_agent_does_not_keep_is_not_there() -> None:
    it = kept(call(), AgentRecords(keep_transcript=False, keep_tool_arguments=False))
    assert it.turns == []
    assert (it.tool_calls[0]["name"], it.tool_calls[0]["arguments"], it.tool_calls[0]["output"]) == (
        "look_up",
        "",
        "",
    )
    redacted = kept(call(), AgentRecords(redact=["digits"]))
    assert "4711" not in str(redacted)
    assert redacted.turns[1]["text"] == "I am +[digits], PIN [digits]"
    assert redacted.call["caller"] == "+49301234567", "that is keep_numbers' to say"


def test_whatever_was_said_can_be_stored() -> None:
    it = kept(
        call(
            transcript=[Said(0.0, "caller", "a\0b\ud800"), Said(1.0, "agent", "x" * (MOST_CHARACTERS + 7))],
            cost_usd=1e400,
        ),
        AgentRecords(),
    )
    assert it.turns[0]["text"] == "a\ufffdb\ufffd"
    assert it.turns[1]["text"].endswith("x... (7 more characters)")
    assert it.call["cost_usd"] is None


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[records]\nurl = 'calls.db'", "records.url: must be sqlite:///FILE"),
        ("[records]\nurl = 'mysql://h/d'", "records.url: must be sqlite:///FILE"),
        ("[records]\nurl = 'sqlite:///:memory:'", "records.url: must be sqlite:///FILE"),
        ("[records]\nurl = 'postgresql://h'", "records.url: must be sqlite:///FILE"),
        ("[records]\nretention_days = -1", "records.retention_days: must be 1 to 36500, or 0 for ever"),
        ("[agents.x.records]\nretention_days = -2", "agents.x.records.retention_days: must be 1 to 36500"),
        ("[agents.x.records]\nredact = ['card_number']", "agents.x.records.redact[0]: must be one of card_numbers, "),
        ("[agents.x.records]\nredact = ['digits', '/[/']", "agents.x.records.redact[1]: is no regular expression"),
        (
            "[agents.x.records]\nredact = ['/a*/']",
            "agents.x.records.redact[0]: must not match where there is nothing",
        ),
        ("[agents.x.records]\nkeep_numbers = 'no'", 'keep_numbers: must be "masked", "none" or "whole"'),
    ],
)
def test_wrong_settings_say_what_to_do(text: str, says: str) -> None:
    with pytest.raises(ConfigError) as error:
        load_config(text, {})
    assert says in str(error.value)


def test_the_password_of_the_database_is_hidden() -> None:
    config = load_config("", {"BRIDGE_RECORDS_URL": "postgresql://me:secret@db.test/calls?password=secret"})
    shown = dict(effective(config))
    assert shown["records.url"] == '"postgresql://***@db.test/calls?password=***"'


def test_a_name_of_a_file_with_the_number_is_worth_a_word() -> None:
    text = "[agents.x.recording]\nby = 'bridge'\n{}\n[agents.x.records]\nkeep_numbers = 'masked'"
    (warning,) = warnings_of(load_config(text.format(""), {}))
    assert "agents.x.recording.file: holds a number" in warning
    assert warnings_of(load_config(text.format("file = 'r/{call_id}.wav'"), {})) == []
