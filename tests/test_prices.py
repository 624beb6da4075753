"""Price files: what is shipped is complete and dated, names find their model, and mistakes are told with their place."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path

import pytest

from bridge.agent import Agent
from bridge.config import Realtime, load_config
from bridge.errors import ConfigError
from bridge.prices import BUNDLED, Rates, check_budgets, load_prices, parse_prices

ROOT = Path(__file__).parent.parent
HEAD = 'as_of = "2026-11-01"\n'


def test_the_shipped_file_is_part_of_the_package() -> None:
    package_data = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]
    assert BUNDLED.name in package_data["package-data"]["bridge"]
    assert BUNDLED.parent == ROOT / "bridge"


def test_the_shipped_file_has_a_date_and_says_where_each_price_is_from() -> None:
    assert load_prices().as_of >= "2026-11-01"
    for name, told in tomllib.loads(BUNDLED.read_text(encoding="utf-8"))["models"].items():
        assert told["source"], name


def test_every_model_that_the_settings_name_has_a_price() -> None:
    prices = load_prices()
    config = load_config((ROOT / "bridge.toml").read_text(encoding="utf-8"), {})
    answering = {Realtime().model, config.realtime.model}
    writing = {Agent().transcription_model, *(agent.transcription_model for agent in config.agents.values())} - {""}
    for model in answering:
        price = prices.price_of(model)
        assert price is not None, model
        assert None not in (price.text.input, price.text.cached, price.text.output), model
        assert None not in (price.audio.input, price.audio.cached, price.audio.output), model
    for model in writing:
        price = prices.price_of(model)
        assert price is not None, model
        assert (price.transcribed_minute, price.audio.input) != (None, None), model


@pytest.mark.parametrize(
    ("model", "found"),
    [
        ("gpt-realtime-2.1", "gpt-realtime-2.1"),
        ("gpt-realtime-2.1-mini", "gpt-realtime-2.1-mini"),
        ("gpt-realtime-2.1-2026-05-06", "gpt-realtime-2.1"),
        ("gpt-realtime-mini-2025-12-15", "gpt-realtime-mini"),
        # Begins with "gpt-realtime-2", too, which costs half as much again for text.
        ("gpt-realtime-2025-08-28", "gpt-realtime"),
        ("grok-voice-latest", "grok-voice"),
        ("gpt-realtime-2.1-nano", None),
        ("gpt-realtime-3", None),
        ("gpt-realtime-2.1-2026-05", None),
        ("GPT-realtime", None),
        ("", None),
    ],
)
def test_a_snapshot_costs_what_its_model_does_and_no_other_name_is_guessed(model: str, found: str | None) -> None:
    price = load_prices().price_of(model)
    assert (price.name if price else None) == found


def test_a_snapshot_may_have_a_price_of_its_own() -> None:
    prices = parse_prices(f"{HEAD}[models.m]\nsession_minute = 1\n[models.m-2026-01-01]\nsession_minute = 2", "f")
    assert (price := prices.price_of("m-2026-01-01")) is not None
    assert price.session_minute == 2_000_000_000


# Section 5 of the protocol sheet, in USD for a million tokens: text, audio, image; each in, cached, out.
SHEET: Mapping[str, tuple[tuple[float | None, ...], ...]] = {
    "gpt-realtime-2.1": ((4, 0.40, 24), (32, 0.40, 64), (5, 0.50, None)),
    "gpt-realtime-2": ((4, 0.40, 24), (32, 0.40, 64), (5, 0.50, None)),
    "gpt-realtime-2.1-mini": ((0.60, 0.06, 2.40), (10, 0.30, 20), (0.80, 0.08, None)),
    "gpt-realtime-1.5": ((4, 0.40, 16), (32, 0.40, 64), (5, 0.50, None)),
    "gpt-realtime": ((4, 0.40, 16), (32, 0.40, 64), (5, 0.50, None)),
    "gpt-realtime-mini": ((0.60, 0.06, 2.40), (10, 0.30, 20), (None, None, None)),
    "gpt-4o-transcribe": ((None, None, 10), (2.50, None, None), (None, None, None)),
    "gpt-4o-mini-transcribe": ((None, None, 5), (1.25, None, None), (None, None, None)),
}


@pytest.mark.parametrize("model", SHEET)
def test_token_prices_are_those_of_the_sheet(model: str) -> None:
    def nano(usd: float | None) -> int | None:
        return None if usd is None else round(usd * 1000)

    price = load_prices().price_of(model)
    assert price is not None
    for rates, usd in zip((price.text, price.audio, price.image), SHEET[model], strict=True):
        assert rates == Rates(input=nano(usd[0]), cached=nano(usd[1]), output=nano(usd[2]))


def test_minute_prices_are_those_of_the_sheet() -> None:
    prices = load_prices()
    transcribed = {name: price.transcribed_minute for name, price in prices.models.items()}
    assert {name: nano for name, nano in transcribed.items() if nano} == {
        "gpt-transcribe": 4_500_000, "gpt-live-transcribe": 17_000_000, "gpt-realtime-whisper": 17_000_000,
    }  # fmt: skip
    sessions = {name: price.session_minute for name, price in prices.models.items()}
    assert {name: nano for name, nano in sessions.items() if nano} == {
        "gpt-live-1": 50_000_000, "grok-voice": 80_000_000,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("as_of = ", "mine.toml: not valid TOML"),
        ("[models.m]\nsession_minute = 1", "mine.toml: top level: Object missing required field `as_of`"),
        ('as_of = "November"\n[models.m]\nsession_minute = 1', "mine.toml: as_of: must be the day"),
        ("as_of = 2026-11-01\n[models.m]\nsession_minute = 1", "mine.toml: as_of: Expected `str`"),
        (HEAD, "mine.toml: top level: Object missing required field `models`"),
        (f"{HEAD}[models]", "mine.toml: models: names no model"),
        (f"{HEAD}[models.m]\nsource = 'x'", 'mine.toml: models."m": has no price; known: text, audio'),
        (f"{HEAD}[models.m]\ntext = {{}}", 'mine.toml: models."m".text: has no price'),
        (f"{HEAD}[models.m]\nvideo = 1", 'mine.toml: models."m": Object contains unknown field `video`'),
        (f"{HEAD}[models.m]\ntext = {{in = 1}}", 'mine.toml: models."m".text: Object contains unknown field `in`'),
        (f"{HEAD}[models.m]\ntext = {{input = 'much'}}", 'mine.toml: models."m".text.input: Invalid decimal'),
        (f"{HEAD}[models.m]\ntext = {{input = -1}}", 'mine.toml: models."m".text.input: -1 must be a price from 0'),
        (f"{HEAD}[models.m]\ntext = {{input = nan}}", 'mine.toml: models."m".text.input: NaN must be a price'),
        (f"{HEAD}[models.m]\ntext = {{input = inf}}", 'mine.toml: models."m".text.input: Infinity must be a price'),
        (
            f"{HEAD}[models.m]\naudio = {{output = 0.0001}}",
            'models."m".audio.output: 0.0001 must be a price from 0 up',
        ),
        (f"{HEAD}[models.m]\nsession_minute = 1\nunconfirmed = ['audio']", "unconfirmed: audio is no price of this"),
    ],
)
def test_mistakes_are_told_with_file_and_key(text: str, says: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_prices(text, "mine.toml")
    assert says in str(caught.value)


def test_a_file_that_can_not_be_read_is_told_by_its_setting(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"realtime\.prices: .*gone\.toml cannot be read"):
        load_prices(str(tmp_path / "gone.toml"))


def test_the_operators_file_replaces_the_shipped_one(tmp_path: Path) -> None:
    mine = tmp_path / "mine.toml"
    mine.write_text('as_of = "2027-01-01"\n[models.deployment]\nsession_minute = 0', encoding="utf-8")
    prices = load_prices(str(mine))
    assert (prices.as_of, list(prices.models)) == ("2027-01-01", ["deployment"])


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[realtime]\nmodel = 'my-deployment'", ""),
        ("[realtime]\nmodel = 'my-deployment'\n[agents.x]\nbudget_usd = 1", "agents.x.budget_usd: model 'my-depl"),
        ("[realtime]\nmodel = ''\n[agents.x]\nbudget_usd = 1", "set realtime.priced_as"),
        ("[realtime]\nmodel = ''\npriced_as = 'gpt-realtime-2.1'\n[agents.x]\nbudget_usd = 1", ""),
        ("[realtime]\npriced_as = 'gpt-realtime-9'", "realtime.priced_as: 'gpt-realtime-9' has no price"),
    ],
)
def test_a_budget_needs_a_price(text: str, says: str) -> None:
    config, prices = load_config(text, {}), load_prices()
    if not says:
        check_budgets(config, prices)
        return
    with pytest.raises(ConfigError) as caught:
        check_budgets(config, prices)
    assert says in str(caught.value)
