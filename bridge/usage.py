"""What one call uses and costs: the server's usage objects summed and priced, and a budget to hold against the sum.

    usage = Usage(load_prices(), priced_as="")
    cost = usage.add_response(response.usage, model, status=response.status)     # every response.done, of any status
    cost = usage.add_transcription(event.usage, model, audio_ms=turn_ms)         # every ...transcription.completed
    state = budget.check(usage.totals.cost_nano_usd)

Facts (section 5 of `docs/realtime-protocol.md`): figures are per response, not cumulative, and the whole conversation
counts again as input each time. `cached_tokens` is a *subset* of the input. Cancelled and out-of-band responses are
billed as well. The object may be null, and a server that is not OpenAI's may put anything there: nothing here raises,
and what can not be priced is told as unpriced, never as free.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Mapping
from decimal import Decimal

import msgspec

from bridge.prices import NANO, ModelPrice, NanoUsd, PriceTable, Rates

# An audio token is 100 ms of the caller, or 50 ms of the assistant (section 5).
CALLER_MS_PER_TOKEN = 100
AGENT_MS_PER_TOKEN = 50
# Beyond this a figure is no count of tokens but garbage.
_MOST_TOKENS = 10**9
_MOST_NOTES = 16


class Cost(msgspec.Struct, frozen=True):
    """What one response or transcription cost.

    `nano_usd` is None when nothing of it could be priced. `unpriced` says what is missing, "" when nothing is: with both,
    the sum is the least it cost. `note` is for people, and comes only the first time that its cause is met in a call.
    """

    nano_usd: NanoUsd | None
    unpriced: str = ""
    note: str = ""

    def facts(self) -> dict[str, object]:
        """For a log line: `cost_usd`, and `unpriced` where something is."""
        told: dict[str, object] = {"cost_usd": usd_of(self.nano_usd)}
        return told | ({"unpriced": self.unpriced} if self.unpriced else {})


def usd_of(nano_usd: NanoUsd | None) -> float | None:
    """Nano-dollars as dollars, to show and to log; sums are made of nano-dollars."""
    return None if nano_usd is None else nano_usd / NANO


class UsageTotals(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a call has used so far; sums of calls are made with `+`. In JSON a figure that is 0 is left out.

    `*_in_tokens` include the cached ones. `other_*` are tokens that a server told in sum only, not by kind.
    `responses` counts all of them; `priced` and `unpriced` count responses, transcriptions and stretches of session;
    one that could be priced in part is in both.
    """

    responses: int = 0
    cancelled: int = 0
    incomplete: int = 0
    failed: int = 0
    out_of_band: int = 0
    transcriptions: int = 0
    text_in_tokens: int = 0
    text_cached_tokens: int = 0
    text_out_tokens: int = 0
    audio_in_tokens: int = 0
    audio_cached_tokens: int = 0
    audio_out_tokens: int = 0
    image_in_tokens: int = 0
    image_cached_tokens: int = 0
    other_in_tokens: int = 0
    other_out_tokens: int = 0
    transcription_text_in_tokens: int = 0
    transcription_audio_in_tokens: int = 0
    transcription_out_tokens: int = 0
    transcription_ms: int = 0
    session_ms: int = 0
    priced: int = 0
    unpriced: int = 0
    priced_nano_usd: NanoUsd = 0

    def __add__(self, other: UsageTotals) -> UsageTotals:
        return UsageTotals(**{name: getattr(self, name) + getattr(other, name) for name in self.__struct_fields__})

    @property
    def cost_nano_usd(self) -> NanoUsd | None:
        """What all that cost; None when there was something and none of it had a price.

        While `unpriced` is not 0, it cost at least this.
        """
        return None if self.unpriced and not self.priced else self.priced_nano_usd


class _Tokens(msgspec.Struct, frozen=True, kw_only=True):
    """One usage object, read. `gap` says what it lacks or what is wrong with it."""

    text_in: int = 0
    text_cached: int = 0
    text_out: int = 0
    audio_in: int = 0
    audio_cached: int = 0
    audio_out: int = 0
    image_in: int = 0
    image_cached: int = 0
    other_in: int = 0
    other_out: int = 0
    gap: str = ""


class Usage:
    """The account of one call. Models are given with each entry, since a call may change its model."""

    def __init__(self, prices: PriceTable, *, priced_as: str = "") -> None:
        """`priced_as`: the model to price responses as, where the server's name is not the model's (Azure)."""
        self._prices = prices
        self._priced_as = priced_as
        self._noted: set[str] = set()
        self.totals = UsageTotals()

    @property
    def priced_as_of(self) -> str:
        """The date of the prices."""
        return self._prices.as_of

    def add_response(
        self,
        usage: Mapping[str, object] | None,
        model: str,
        *,
        status: str = "completed",
        out_of_band: bool = False,
    ) -> Cost:
        """Count one `response.done` of any status; returns what it cost. Never raises, whatever `usage` is."""
        tokens = _read(usage)
        name = self._priced_as or model
        price = self._prices.price_of(name)
        cost = _cost_of_tokens(tokens, price, name)
        self.totals += UsageTotals(
            responses=1,
            cancelled=int(status == "cancelled"),
            incomplete=int(status == "incomplete"),
            failed=int(status == "failed"),
            out_of_band=int(out_of_band),
            text_in_tokens=tokens.text_in,
            text_cached_tokens=tokens.text_cached,
            text_out_tokens=tokens.text_out,
            audio_in_tokens=tokens.audio_in,
            audio_cached_tokens=tokens.audio_cached,
            audio_out_tokens=tokens.audio_out,
            image_in_tokens=tokens.image_in,
            image_cached_tokens=tokens.image_cached,
            other_in_tokens=tokens.other_in,
            other_out_tokens=tokens.other_out,
        )
        return self._charge(cost, price)

    def add_transcription(
        self, usage: Mapping[str, object] | None, model: str, *, audio_ms: float | None = None
    ) -> Cost:
        """Count one transcript of the caller; returns what it cost. Never raises, whatever `usage` is.

        `audio_ms` is the length of the caller's turn as we know it: what a model that is paid by the minute is priced
        by where the server tells no seconds.
        """
        usage = usage if isinstance(usage, Mapping) else {}
        price = self._prices.price_of(model)
        told_ms = _milliseconds(usage.get("seconds"))
        if told_ms is None and price is not None and price.transcribed_minute is not None:
            told_ms = None if audio_ms is None else _milliseconds(audio_ms / 1000)
        if told_ms is not None:
            tokens = _Tokens()
            rate = price.transcribed_minute if price else None
            if price is None or rate is None:
                cost = Cost(None, f"no price for a minute of {model!r}")
            else:
                cost = Cost(_rounded(rate * told_ms, 60_000))
        else:
            tokens = _read_transcription(usage)
            cost = _cost_of_tokens(tokens, price, model)
        self.totals += UsageTotals(
            transcriptions=1,
            transcription_text_in_tokens=tokens.text_in,
            transcription_audio_in_tokens=tokens.audio_in,
            transcription_out_tokens=tokens.text_out,
            transcription_ms=told_ms or 0,
        )
        return self._charge(cost, price)

    def add_session(self, open_ms: int, model: str) -> Cost:
        """Count so many more ms of an open session: for models that are paid by them; for others it is only counted."""
        price = self._prices.price_of(self._priced_as or model)
        self.totals += UsageTotals(session_ms=open_ms)
        if price is None or price.session_minute is None:
            return Cost(0)
        return self._charge(Cost(_rounded(price.session_minute * open_ms, 60_000)), price)

    def estimate_live(self, caller_ms: int, agent_ms: int, model: str) -> NanoUsd | None:
        """An ESTIMATE of what audio will cost that no `response.done` has told of yet; None without a price.

        Too low by the rest of the conversation, which counts as input again. Never part of `totals`.
        """
        price = self._prices.price_of(self._priced_as or model)
        if price is None or price.audio.input is None or price.audio.output is None:
            return None
        heard, said = max(0, caller_ms) // CALLER_MS_PER_TOKEN, max(0, agent_ms) // AGENT_MS_PER_TOKEN
        return heard * price.audio.input + said * price.audio.output

    def _charge(self, cost: Cost, price: ModelPrice | None) -> Cost:
        self.totals += UsageTotals(
            priced=int(cost.nano_usd is not None),
            unpriced=int(bool(cost.unpriced)),
            priced_nano_usd=cost.nano_usd or 0,
        )
        note = cost.unpriced
        if not note and price is not None and price.unconfirmed:
            note = f"prices of {price.name} that are not confirmed: {', '.join(price.unconfirmed)}"
        if not note or note in self._noted or len(self._noted) >= _MOST_NOTES:
            return cost
        self._noted.add(note)
        return msgspec.structs.replace(cost, note=note)


class BudgetState(enum.Enum):
    OK = "nothing new"
    NEARLY_SPENT = "the agent should come to an end"
    SPENT = "say goodbye and end the call"


class Budget:
    """What a call may cost. Each warning is given once; who asks acts upon it."""

    def __init__(self, budget_usd: float, warning: float = 0.8) -> None:
        """`budget_usd` 0: no limit. `warning`: the part of it, 0 to 1, at which it is nearly spent."""
        self.limit_nano_usd: NanoUsd = int(Decimal(str(budget_usd)) * NANO)
        self._warning_nano_usd: NanoUsd = int(Decimal(str(warning)) * self.limit_nano_usd)
        self._told = BudgetState.OK

    def check(self, cost_nano_usd: NanoUsd | None) -> BudgetState:
        """What is new, given the whole cost of the call so far (None: unknown, so nothing). SPENT skips the warning."""
        if not self.limit_nano_usd or cost_nano_usd is None or self._told is BudgetState.SPENT:
            return BudgetState.OK
        if cost_nano_usd >= self.limit_nano_usd:
            self._told = BudgetState.SPENT
            return self._told
        if cost_nano_usd >= self._warning_nano_usd and self._told is BudgetState.OK:
            self._told = BudgetState.NEARLY_SPENT
            return self._told
        return BudgetState.OK


# --- reading -------------------------------------------------------------------------------------------------------


def _count(value: object) -> int | None:
    """A number of tokens; None for anything else."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= _MOST_TOKENS:
        return value
    return None


def _milliseconds(seconds: object) -> int | None:
    if isinstance(seconds, bool) or not isinstance(seconds, int | float):
        return None
    return round(seconds * 1000) if math.isfinite(seconds) and 0 <= seconds <= 1_000_000 else None


def _part(told: object, key: str) -> Mapping[str, object]:
    inner = told.get(key) if isinstance(told, Mapping) else None
    return inner if isinstance(inner, Mapping) else {}


def _read(usage: object) -> _Tokens:
    """A response's usage object. Details are believed before sums; what a sum has beyond its details is `other`."""
    if not isinstance(usage, Mapping) or not usage:
        return _Tokens(gap="no usage told")
    into, out = _part(usage, "input_token_details"), _part(usage, "output_token_details")
    gaps: list[str] = []

    def count(told: Mapping[str, object], key: str) -> int:
        found = _count(told.get(key))
        if found is None and told.get(key) is not None:
            gaps.append(f"{key} is no count")
        return found or 0

    text_in, audio_in, image_in = (count(into, f"{kind}_tokens") for kind in ("text", "audio", "image"))
    text_out, audio_out = (count(out, f"{kind}_tokens") for kind in ("text", "audio"))
    total_in, total_out = count(usage, "input_tokens"), count(usage, "output_tokens")
    if usage.get("input_tokens") is None and not into:
        gaps.append("no input_tokens")
    if usage.get("output_tokens") is None and not out:
        gaps.append("no output_tokens")
    cached = _part(into, "cached_tokens_details")
    if cached:
        split = [count(cached, f"{kind}_tokens") for kind in ("text", "audio", "image")]
    else:
        # Told in sum only. The prefix that is cached begins with the instructions, and text saves least: never too low.
        left, split = count(into, "cached_tokens"), []
        for available in (text_in, audio_in, image_in):
            split.append(min(left, available))
            left -= split[-1]
    return _Tokens(
        text_in=text_in,
        text_cached=min(split[0], text_in),
        text_out=text_out,
        audio_in=audio_in,
        audio_cached=min(split[1], audio_in),
        audio_out=audio_out,
        image_in=image_in,
        image_cached=min(split[2], image_in),
        other_in=max(0, total_in - text_in - audio_in - image_in),
        other_out=max(0, total_out - text_out - audio_out),
        gap=", ".join(gaps),
    )


def _read_transcription(usage: Mapping[str, object]) -> _Tokens:
    """As `_read`; what goes in is speech and what comes out is text, where the details do not say."""
    tokens = _read(usage)
    return msgspec.structs.replace(
        tokens,
        audio_in=tokens.audio_in + tokens.other_in,
        text_out=tokens.text_out + tokens.other_out,
        other_in=0,
        other_out=0,
    )


# --- pricing -------------------------------------------------------------------------------------------------------


def _cost_of_tokens(tokens: _Tokens, price: ModelPrice | None, model: str) -> Cost:
    if price is None:
        return Cost(None, f"no price for model {model!r}")
    if price.session_minute is not None:
        return Cost(0)
    if tokens.gap == "no usage told":
        return Cost(None, tokens.gap)
    missing = [tokens.gap] if tokens.gap else []
    nano_usd = 0

    def charge(count: int, rate: NanoUsd | None, what: str) -> None:
        nonlocal nano_usd
        if count and rate is None:
            missing.append(f"no price for {what} of {model!r}")
        nano_usd += count * (rate or 0)

    kinds: tuple[tuple[str, Rates, int, int, int], ...] = (
        ("text", price.text, tokens.text_in, tokens.text_cached, tokens.text_out),
        ("audio", price.audio, tokens.audio_in, tokens.audio_cached, tokens.audio_out),
        ("image", price.image, tokens.image_in, tokens.image_cached, 0),
    )
    for kind, rates, all_in, cached, out in kinds:
        charge(all_in - cached, rates.input, f"{kind} input")
        charge(cached, rates.cached, f"cached {kind} input")
        charge(out, rates.output, f"{kind} output")
    if tokens.other_in or tokens.other_out:
        missing.append("tokens told without their kind")
    return Cost(nano_usd, "; ".join(missing))


def _rounded(numerator: int, denominator: int) -> int:
    """The nearest whole number, halves up."""
    return (2 * numerator + denominator) // (2 * denominator)
