"""What a model's tokens and minutes cost, from a dated file: `prices.toml` beside this module, or the operator's own.

Money is counted in whole nano-dollars (`NanoUsd`, 1e-9 USD), so that no sum drifts: a price of 0.001 USD for a million
tokens is exactly one nano-dollar a token. `parse_prices` is pure; `load_prices` reads a file, once, at the start.
The facts are those of section 5 of `docs/realtime-protocol.md`.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any, TypeAlias

import msgspec

from bridge.config import Config, realtime_of
from bridge.errors import ConfigError

NanoUsd: TypeAlias = int
NANO = 1_000_000_000

BUNDLED = Path(__file__).with_name("prices.toml")
# Dated snapshots and moving names of one model. Not any longer name: "gpt-realtime-2025-08-28" begins with
# "gpt-realtime-2" as well, and "-mini" costs a third.
_SNAPSHOT = re.compile(r"-(?:\d{4}-\d{2}-\d{2}|latest)$")
_DATE = re.compile(r"\d{4}-\d{2}-\d{2}")


class Rates(msgspec.Struct, frozen=True, kw_only=True):
    """Nano-dollars for one token of a kind; None: this file has no price for it."""

    input: NanoUsd | None = None
    cached: NanoUsd | None = None
    output: NanoUsd | None = None


class ModelPrice(msgspec.Struct, frozen=True, kw_only=True):
    """What one model costs. The minutes are in nano-dollars, too; None: not paid by that minute."""

    name: str
    text: Rates = Rates()
    audio: Rates = Rates()
    image: Rates = Rates()
    transcribed_minute: NanoUsd | None = None
    session_minute: NanoUsd | None = None
    unconfirmed: tuple[str, ...] = ()


class PriceTable(msgspec.Struct, frozen=True, kw_only=True):
    """All prices of one file. `as_of`: the day on which they were true, like "2026-11-01"."""

    as_of: str
    models: Mapping[str, ModelPrice]

    def price_of(self, model: str) -> ModelPrice | None:
        """The price of a model by its name, else by its name without the date of a snapshot; None: not known."""
        return self.models.get(model) or self.models.get(_SNAPSHOT.sub("", model))


class _Rates(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """As the file has it: USD for a million tokens."""

    input: Decimal | None = None
    cached: Decimal | None = None
    output: Decimal | None = None


class _Model(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """As the file has it: USD."""

    source: str = ""
    text: _Rates | None = None
    audio: _Rates | None = None
    image: _Rates | None = None
    transcribed_minute: Decimal | None = None
    session_minute: Decimal | None = None
    unconfirmed: list[str] = []


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    as_of: str
    models: dict[str, dict[str, Any]]


def parse_prices(text: str, source: str) -> PriceTable:
    """A price file's text as a table. Raises `ConfigError`, which names `source` and the key."""
    try:
        tree = tomllib.loads(text, parse_float=Decimal)
    except (tomllib.TOMLDecodeError, ArithmeticError) as error:
        raise ConfigError(f"{source}: not valid TOML: {error}") from error
    file = _convert(tree, _File, source, "")
    if not _DATE.fullmatch(file.as_of):
        raise ConfigError(f'{source}: as_of: must be the day of these prices, like "2026-11-01"')
    if not file.models:
        raise ConfigError(f"{source}: models: names no model")
    models = {name: _model(name, told, source) for name, told in file.models.items()}
    return PriceTable(as_of=file.as_of, models=models)


def load_prices(path: str = "") -> PriceTable:
    """The operator's price file, or the bundled one for an empty path. Raises `ConfigError`."""
    file = Path(path) if path else BUNDLED
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"realtime.prices: {file} cannot be read: {error}") from error
    return parse_prices(text, str(file))


def check_budgets(config: Config, prices: PriceTable) -> None:
    """A budget needs a price. Raises `ConfigError` for an agent with `budget_usd` whose model has none.

    A model that stands only in `realtime.url` is not known by name, so it needs `realtime.priced_as`.
    """
    model = config.realtime.priced_as
    if model and prices.price_of(model) is None:
        raise ConfigError(f"realtime.priced_as: {model!r} has no price (prices of {prices.as_of})")
    for name, agent in config.agents.items():
        realtime = realtime_of(agent, config.realtime)
        model = realtime.priced_as or realtime.model
        if not agent.budget_usd or prices.price_of(model) is not None:
            continue
        raise ConfigError(
            f"agents.{name}.budget_usd: model {model!r} has no price (prices of {prices.as_of}), so the budget "
            "could never be reached: set realtime.priced_as, or add the model to a file of your own (realtime.prices)"
        )


def _convert(tree: object, kind: type[Any], source: str, place: str) -> Any:
    try:
        return msgspec.convert(tree, kind)
    except msgspec.ValidationError as error:
        message, _, where = str(error).partition(" - at `$")
        at = f"{place}{where.rstrip('`')}".lstrip(".") or "top level"
        raise ConfigError(f"{source}: {at}: {message}") from error


def _model(name: str, told: dict[str, Any], source: str) -> ModelPrice:
    place = f'models."{name}"'
    model: _Model = _convert(told, _Model, source, place)

    def rates(kind: str, given: _Rates | None) -> Rates:
        if given is None:
            return Rates()
        if given.input is given.cached is given.output is None:
            raise ConfigError(f"{source}: {place}.{kind}: has no price; leave it out, or say input, cached, output")
        # USD for a million tokens, as nano-dollars for one.
        return Rates(
            input=nano(f"{kind}.input", given.input, 1000),
            cached=nano(f"{kind}.cached", given.cached, 1000),
            output=nano(f"{kind}.output", given.output, 1000),
        )

    def nano(key: str, usd: Decimal | None, factor: int) -> NanoUsd | None:
        if usd is None:
            return None
        if not usd.is_finite() or not 0 <= usd <= 1_000_000 or usd * factor % 1:
            raise ConfigError(
                f"{source}: {place}.{key}: {usd} must be a price from 0 up, in steps of {1 / factor:g} USD"
            )
        return int(usd * factor)

    price = ModelPrice(
        name=name,
        text=rates("text", model.text),
        audio=rates("audio", model.audio),
        image=rates("image", model.image),
        transcribed_minute=nano("transcribed_minute", model.transcribed_minute, NANO),
        session_minute=nano("session_minute", model.session_minute, NANO),
        unconfirmed=tuple(model.unconfirmed),
    )
    priced = {key for key in _PRICES if getattr(model, key) is not None}
    if not priced:
        raise ConfigError(f"{source}: {place}: has no price; known: {', '.join(_PRICES)}")
    if unknown := set(model.unconfirmed) - priced:
        raise ConfigError(f"{source}: {place}.unconfirmed: {', '.join(sorted(unknown))} is no price of this model")
    return price


_PRICES = ("text", "audio", "image", "transcribed_minute", "session_minute")
