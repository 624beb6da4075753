"""What a call used and cost: sums that are exact, servers that tell half or nonsense, and budgets."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bridge.prices import load_prices
from bridge.usage import Budget, BudgetState, Cost, Usage, UsageTotals, usd_of
from simulators.model_script import Item
from simulators.realtime_usage import Meter, no_usage, whole_usage

PRICES = load_prices()
MODEL = "gpt-realtime-2.1"


def told(
    text: tuple[int, int, int] = (0, 0, 0),
    audio: tuple[int, int, int] = (0, 0, 0),
    image: tuple[int, int] = (0, 0),
) -> dict[str, Any]:
    """A usage object as OpenAI sends it; each kind is input, cached of it, output."""
    return {
        "total_tokens": text[0] + audio[0] + image[0] + text[2] + audio[2],
        "input_tokens": text[0] + audio[0] + image[0],
        "output_tokens": text[2] + audio[2],
        "input_token_details": {
            "text_tokens": text[0],
            "audio_tokens": audio[0],
            "image_tokens": image[0],
            "cached_tokens": text[1] + audio[1] + image[1],
            "cached_tokens_details": {"text_tokens": text[1], "audio_tokens": audio[1], "image_tokens": image[1]},
        },
        "output_token_details": {"text_tokens": text[2], "audio_tokens": audio[2]},
    }


MILLION = 1_000_000


@pytest.mark.parametrize(
    ("model", "usage", "usd"),
    [
        # The example of section 10 of the protocol sheet, by hand:
        # 26 text at 4, 64 cached text at 0.40, 30 audio at 32; out 10 text at 24, 30 audio at 64, for a million.
        # 104 + 25.6 + 960 + 240 + 1920 = 3249.6 millionths
        (MODEL, told(text=(90, 64, 10), audio=(30, 0, 30)), 0.0032496),
        # All is cached: 0.40 a million for text as for audio.
        (MODEL, told(text=(MILLION, MILLION, 0), audio=(MILLION, MILLION, 0)), 0.80),
        # One minute of both: 600 tokens heard, 1200 said.
        (MODEL, told(audio=(600, 0, 1200)), 0.0192 + 0.0768),
        (MODEL, told(image=(MILLION, 400_000)), 3.0 + 0.2),
        ("gpt-realtime-2.1-mini", told(text=(1000, 500, 1000), audio=(1000, 500, 1000)), 0.02788),
        ("gpt-realtime-1.5", told(text=(0, 0, MILLION)), 16.0),
        ("gpt-realtime-2025-08-28", told(text=(0, 0, MILLION)), 16.0),
        (MODEL, told(), 0.0),
    ],
)
def test_a_response_costs_what_the_sheet_says(model: str, usage: Mapping[str, Any], usd: float) -> None:
    account = Usage(PRICES)
    cost = account.add_response(usage, model)
    assert cost == Cost(round(usd * 1e9))
    assert account.totals.cost_nano_usd == round(usd * 1e9)
    assert (account.totals.responses, account.totals.priced, account.totals.unpriced) == (1, 1, 0)


@pytest.mark.parametrize(
    ("model", "usage", "audio_ms", "nano_usd"),
    [
        ("gpt-transcribe", {"type": "duration", "seconds": 60}, None, 4_500_000),
        ("gpt-transcribe", {"type": "duration", "seconds": 1.48}, None, 111_000),
        ("gpt-live-transcribe", {"type": "duration", "seconds": 3}, None, 850_000),
        # No seconds told: our own length of the turn stands in.
        ("gpt-transcribe", {"type": "tokens", "input_tokens": 90, "output_tokens": 9}, 2000, 150_000),
        ("gpt-transcribe", None, 1999.6, 150_000),
        # 100 audio tokens at 2.50, 20 of text at 10.
        ("gpt-4o-transcribe", {"type": "tokens", "input_tokens": 100, "output_tokens": 20}, 10_000, 450_000),
        (
            "gpt-4o-mini-transcribe",
            {"type": "tokens", "input_tokens": 8, "input_token_details": {"audio_tokens": 8}, "output_tokens": 1},
            None,
            15_000,
        ),
    ],
)
def test_transcripts_are_priced_by_their_own_model(
    model: str, usage: Mapping[str, Any] | None, audio_ms: float | None, nano_usd: int
) -> None:
    account = Usage(PRICES, priced_as=MODEL)
    assert account.add_transcription(usage, model, audio_ms=audio_ms) == Cost(nano_usd)
    assert (account.totals.transcriptions, account.totals.responses) == (1, 0)
    assert account.totals.cost_nano_usd == nano_usd


def test_transcription_tokens_and_seconds_are_kept_apart_from_the_conversation() -> None:
    account = Usage(PRICES)
    account.add_transcription({"type": "duration", "seconds": 1.5}, "gpt-transcribe")
    account.add_transcription({"type": "tokens", "input_tokens": 14, "output_tokens": 5}, "gpt-4o-transcribe")
    totals = account.totals
    assert totals.transcription_ms == 1500
    assert (totals.transcription_audio_in_tokens, totals.transcription_out_tokens) == (14, 5)
    assert (totals.audio_in_tokens, totals.text_out_tokens, totals.other_in_tokens) == (0, 0, 0)


@pytest.mark.parametrize("usage", [None, {}, {"type": "tokens"}, {"type": "duration", "seconds": "2"}, [1]])
def test_a_transcript_without_figures_is_unpriced(usage: Any) -> None:
    account = Usage(PRICES)
    assert account.add_transcription(usage, "gpt-4o-transcribe").unpriced
    assert account.add_transcription(usage, "gpt-transcribe").unpriced
    assert account.add_transcription(usage, "gpt-transcribe", audio_ms=-5).unpriced
    assert account.totals.unpriced == 3


def test_every_response_counts_whatever_became_of_it() -> None:
    account = Usage(PRICES)
    for status in ("completed", "cancelled", "incomplete", "failed", "cancelled"):
        account.add_response(told(text=(0, 0, 1)), MODEL, status=status)
    account.add_response(told(text=(0, 0, 1)), MODEL, out_of_band=True)
    totals = account.totals
    assert (totals.responses, totals.cancelled, totals.incomplete, totals.failed, totals.out_of_band) == (
        6,
        2,
        1,
        1,
        1,
    )
    assert totals.cost_nano_usd == 6 * 24_000


def test_sums_do_not_drift() -> None:
    account = Usage(PRICES)
    for _ in range(1000):
        account.add_response(told(text=(7, 3, 1)), "gpt-realtime-2.1-mini")
    assert account.totals.cost_nano_usd == 1000 * (4 * 600 + 3 * 60 + 2400)
    assert usd_of(account.totals.cost_nano_usd) == 0.00498


def test_an_unknown_model_is_unpriced_and_never_free() -> None:
    account = Usage(PRICES)
    first = account.add_response(told(audio=(10, 0, 10)), "my-deployment")
    again = account.add_response(told(audio=(10, 0, 10)), "my-deployment")
    assert first == Cost(None, "no price for model 'my-deployment'", note="no price for model 'my-deployment'")
    assert again == Cost(None, "no price for model 'my-deployment'", note="")
    assert account.totals.cost_nano_usd is None
    assert (account.totals.audio_in_tokens, account.totals.unpriced) == (20, 2)
    assert first.facts() == {"cost_usd": None, "unpriced": "no price for model 'my-deployment'"}


def test_a_deployment_is_priced_as_the_model_behind_it() -> None:
    account = Usage(PRICES, priced_as=MODEL)
    assert account.add_response(told(audio=(10, 0, 10)), "my-deployment") == Cost(960_000)
    assert account.priced_as_of == PRICES.as_of


def test_prices_that_are_not_confirmed_are_noted_once() -> None:
    account = Usage(PRICES)
    notes = [account.add_response(told(audio=(1, 0, 1)), "gpt-realtime-mini").note for _ in range(3)]
    assert notes == ["prices of gpt-realtime-mini that are not confirmed: audio", "", ""]
    assert account.totals.unpriced == 0


def test_a_kind_without_a_price_makes_the_sum_a_least() -> None:
    account = Usage(PRICES)
    cost = account.add_response(told(text=(0, 0, 10), image=(5, 0)), "gpt-realtime-mini")
    assert (cost.nano_usd, cost.unpriced) == (24_000, "no price for image input of 'gpt-realtime-mini'")
    assert (account.totals.priced, account.totals.unpriced, account.totals.cost_nano_usd) == (1, 1, 24_000)


DETAILS = {"text_tokens": 10, "audio_tokens": 20}


@pytest.mark.parametrize(
    ("usage", "nano_usd", "unpriced"),
    [
        (None, None, "no usage told"),
        ({}, None, "no usage told"),
        ("much", None, "no usage told"),
        # Sums only, as some gateways tell: the kinds differ in price by eight.
        ({"input_tokens": 10, "output_tokens": 5}, 0, "tokens told without their kind"),
        ({"total_tokens": 15}, 0, "no input_tokens, no output_tokens"),
        ({"input_token_details": DETAILS, "output_token_details": DETAILS}, 680_000 + 1_520_000, ""),
        ({"input_tokens": 30, "input_token_details": DETAILS}, 680_000, "no output_tokens"),
        ({"input_tokens": 31, "input_token_details": DETAILS, "output_tokens": 0}, 680_000, "tokens told without"),
        ({"input_token_details": {"text_tokens": "10"}, "output_tokens": 0}, 0, "text_tokens is no count"),
        ({"input_token_details": {"text_tokens": -1}, "output_tokens": 0}, 0, "text_tokens is no count"),
        ({"input_token_details": {"text_tokens": True}, "output_tokens": 0}, 0, "text_tokens is no count"),
        ({"input_token_details": {"text_tokens": 1e300}, "output_tokens": 0}, 0, "text_tokens is no count"),
        ({"input_token_details": {"text_tokens": 10.0}, "output_tokens": 0}, 40_000, ""),
        ({"input_token_details": [1], "output_token_details": 7, "input_tokens": 0, "output_tokens": 0}, 0, ""),
        # More cached than there was: no negative price.
        (
            {"input_token_details": {"text_tokens": 10, "cached_tokens_details": {"text_tokens": 99}},
             "output_tokens": 0}, 4000, "",
        ),
        # Cached in sum only: text first, so that the cost is never too low. 10 text and 5 of the audio were cached.
        ({"input_token_details": {**DETAILS, "cached_tokens": 15}, "output_tokens": 0}, 6000 + 15 * 32_000, ""),
    ],
)  # fmt: skip
def test_half_told_usage_is_taken_for_what_it_says(usage: Any, nano_usd: int | None, unpriced: str) -> None:
    account = Usage(PRICES)
    cost = account.add_response(usage, MODEL)
    assert cost.nano_usd == nano_usd
    assert cost.unpriced == unpriced if unpriced in ("", "no usage told") else unpriced in cost.unpriced
    assert account.totals.unpriced == bool(unpriced)


_KEYS = st.sampled_from(
    ["input_tokens", "output_tokens", "input_token_details", "output_token_details", "text_tokens", "audio_tokens",
     "cached_tokens", "cached_tokens_details", "seconds", "type"]
)  # fmt: skip
_leaf = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3)
_inner = _leaf | st.lists(_leaf, max_size=2) | st.dictionaries(_KEYS, _leaf)
_junk = _inner | st.dictionaries(_KEYS, _inner | st.dictionaries(_KEYS, _inner))


@settings(deadline=None)  # a busy machine is no failure
@given(st.lists(_junk, max_size=4))
def test_nothing_that_a_server_says_raises_or_earns_money(many: list[Any]) -> None:
    account = Usage(PRICES)
    before = 0
    for usage in many:
        account.add_response(usage, MODEL)
        account.add_transcription(usage, "gpt-4o-transcribe")
        account.add_transcription(usage, "gpt-transcribe")
        assert account.totals.priced_nano_usd >= before
        before = account.totals.priced_nano_usd
    assert account.totals.responses == len(many)
    json.dumps(msgspec.to_builtins(account.totals))


def test_a_session_that_is_paid_by_the_minute() -> None:
    account = Usage(PRICES)
    assert account.add_session(90_000, "grok-voice-latest").nano_usd == 120_000_000
    assert account.add_response(None, "grok-voice-latest") == Cost(0)
    assert (account.totals.session_ms, account.totals.unpriced, account.totals.priced) == (90_000, 0, 2)
    # For a model that is paid by tokens the time is only counted.
    assert account.add_session(1000, MODEL) == Cost(0)
    assert account.totals.cost_nano_usd == 120_000_000
    assert account.totals.session_ms == 91_000


def test_the_estimate_is_the_audio_alone() -> None:
    account = Usage(PRICES)
    assert account.estimate_live(60_000, 60_000, MODEL) == 600 * 32_000 + 1200 * 64_000
    assert account.estimate_live(99, 49, MODEL) == 0
    assert account.estimate_live(-100, 50, MODEL) == 64_000
    assert account.estimate_live(1000, 1000, "my-deployment") is None
    assert account.totals == UsageTotals()


def test_totals_add_up_over_calls_and_leave_out_zeros_in_json() -> None:
    account = Usage(PRICES)
    account.add_response(told(audio=(1, 0, 1)), MODEL)
    both = account.totals + account.totals
    assert (both.responses, both.audio_out_tokens, both.cost_nano_usd) == (2, 2, 2 * 96_000)
    assert msgspec.to_builtins(both) == {
        "responses": 2, "audio_in_tokens": 2, "audio_out_tokens": 2, "priced": 2, "priced_nano_usd": 192_000,
    }  # fmt: skip


OK, NEARLY, SPENT = BudgetState.OK, BudgetState.NEARLY_SPENT, BudgetState.SPENT


@pytest.mark.parametrize(
    ("budget_usd", "warning", "costs_usd", "states"),
    [
        (1.0, 0.8, [0, 0.79, 0.8, 0.9, 1.0, 1.1], [OK, OK, NEARLY, OK, SPENT, OK]),
        (1.0, 0.8, [0.5, 5.0, 6.0], [OK, SPENT, OK]),
        (1.0, 1.0, [0.99, 1.0], [OK, SPENT]),
        (0.0, 0.8, [0, 1000.0], [OK, OK]),
        (0.1, 0.8, [None, 0.08, None, 0.1], [OK, NEARLY, OK, SPENT]),
    ],
)
def test_a_budget_warns_once_and_ends_once(
    budget_usd: float, warning: float, costs_usd: list[float | None], states: list[BudgetState]
) -> None:
    budget = Budget(budget_usd, warning)
    checked = [budget.check(None if usd is None else round(usd * 1e9)) for usd in costs_usd]
    assert checked == states


def test_what_the_simulated_server_tells_is_priced_wholly() -> None:
    """Its shapes are those of the sheet; no real server was asked."""
    caller = Item("u", {"type": "message", "role": "user"}, pcm=bytearray(48 * 3000))
    prompt = Meter().prompt({"instructions": "Be brief."}, [caller])
    account = Usage(PRICES)
    cost = account.add_response(whole_usage(prompt, output_text=4, output_audio=20), MODEL)
    # "Be brief.[]" is 3 tokens of text; the caller spoke for 3 s, the agent for one.
    assert cost == Cost(3 * 4000 + 30 * 32_000 + 4 * 24_000 + 20 * 64_000)
    assert account.add_response(no_usage(), MODEL, status="failed") == Cost(0)
