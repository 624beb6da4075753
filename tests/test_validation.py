"""What is wrong with a value is said with its exact place, in words that tell what to write."""

from __future__ import annotations

import datetime
import enum
from typing import Annotated, Any, Literal

import msgspec
import pytest

from bridge.errors import ConfigError
from bridge.validation import converted, unplain


class Colour(enum.StrEnum):
    RED = "red"
    BLUE = "blue"


class Leaf(msgspec.Struct, forbid_unknown_fields=True):
    size: Annotated[int, msgspec.Meta(ge=1, le=9)] = 1
    name: str = ""


class Cat(msgspec.Struct, forbid_unknown_fields=True, tag_field="type", tag="cat"):
    lives: int = 9


class Dog(msgspec.Struct, forbid_unknown_fields=True, tag_field="type", tag="dog"):
    bark: float


class Tree(msgspec.Struct, forbid_unknown_fields=True):
    leaves: dict[str, Leaf] = {}
    many: list[Leaf] = []
    colour: Colour = Colour.RED
    pet: Cat | Dog | Literal["fish"] | None = None
    pair: Annotated[list[int], msgspec.Meta(min_length=2, max_length=2)] | None = None
    ruled: Annotated[int, msgspec.Meta(ge=0, extra={"remedy": "must be a number of sheep"})] = 0
    yes: bool = True


@pytest.mark.parametrize(
    ("value", "place", "remedy"),
    [
        ({"leaves": {"a": {}, "b": {"size": 10}}}, "leaves.b.size", "must be 1 to 9"),
        (
            {"leaves": {"a b": {"nome": ""}}},
            'leaves."a b".nome',
            "unknown key; known here: size, name. Did you mean name?",
        ),
        ({"x": 1, "many": []}, "x", "unknown key; known here: leaves, many, colour, pet, pair, ruled, yes"),
        ({"many": [{}, {"size": "x"}]}, "many[1].size", "must be 1 to 9"),
        ({"many": {}}, "many", "must be a list"),
        ({"colour": "green"}, "colour", 'must be "red" or "blue"'),
        ({"pet": {"type": "cow"}}, "pet.type", 'must be "cat" or "dog"'),
        ({"pet": {}}, "pet", 'needs type = "cat" or "dog"'),
        ({"pet": {"type": "dog"}}, "pet", "needs bark"),
        ({"pet": {"type": "cat", "bark": 1}}, "pet.bark", 'goes with type = "dog" only'),
        ({"pet": 5}, "pet", 'must be a table, "fish" or null'),
        ({"pair": [1]}, "pair", "must be a list of 2 entries"),
        ({"pair": [1, 2.5]}, "pair[1]", "must be a whole number"),
        ({"ruled": -1}, "ruled", "must be a number of sheep"),
        ({"yes": "perhaps"}, "yes", "must be true or false"),
        ([], "", "must be a table"),
    ],
)
@pytest.mark.parametrize("strict", [True, False])
def test_the_place_and_what_belongs_there(value: object, place: str, remedy: str, strict: bool) -> None:
    with pytest.raises(ConfigError) as caught:
        converted(value, Tree, strict=strict)
    assert (caught.value.place, str(caught.value)) == (place, remedy)


def test_text_stands_for_numbers_only_where_it_may() -> None:
    text = {"leaves": {"a": {"size": "3"}}, "yes": "false"}
    tree = converted(text, Tree, strict=False)
    assert (tree.leaves["a"].size, tree.yes) == (3, False)
    with pytest.raises(ConfigError, match="must be 1 to 9"):
        converted(text, Tree)
    with pytest.raises(ConfigError, match="must be 1 to 9"):
        converted({"leaves": {"a": {"size": "30"}}}, Tree, strict=False)


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        ({"a": [1, 2.5, "x", None, True, {"b": []}]}, None),
        ({"a": [1, {"b": float("inf")}]}, (("a", 1, "b"), "must be a finite number")),
        ({"a": float("nan")}, (("a",), "must be a finite number")),
        (
            {"a": datetime.date(2026, 11, 21)},
            (("a",), "must be text, a number, true, false, a list or a table, not a date"),
        ),
    ],
)
def test_what_json_can_not_say_is_found(value: Any, problem: object) -> None:
    assert unplain(value) == problem
