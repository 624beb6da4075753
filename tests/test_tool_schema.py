"""Python functions as tools: what the model is told of them, and how its arguments come back."""

from __future__ import annotations

import dataclasses
import datetime
import enum
import functools
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal, NotRequired, TypedDict

import msgspec
import pytest

from bridge.errors import ConfigError
from bridge.tool_schema import ArgumentError, FunctionSchema, ToolContext

Json = dict[str, Any]


class Size(enum.Enum):
    SMALL = "small"
    LARGE = "large"


class Topping(TypedDict):
    name: str
    grams: NotRequired[int]


@dataclasses.dataclass
class Address:
    street: str
    number: int = 1


class Guest(msgspec.Struct):
    name: str
    home: Address | None = None


class Chain(msgspec.Struct):
    next: Chain | None = None


STRING, INTEGER = {"type": "string"}, {"type": "integer"}
ADDRESS = {
    "type": "object",
    "properties": {"street": STRING, "number": {"type": "integer", "default": 1}},
    "required": ["street"],
}


def of(hint: object, default: object = ...) -> FunctionSchema:
    """The schema of `f(x: hint)`."""
    parameters = {"default": default} if default is not ... else {}

    def f(x: Any) -> None: ...

    if parameters:
        f.__defaults__ = (default,)
    f.__annotations__ = {"x": hint, "return": None}
    return FunctionSchema.of(f)


@pytest.mark.parametrize(
    ("hint", "schema"),
    [
        (str, STRING),
        (int, INTEGER),
        (float, {"type": "number"}),
        (bool, {"type": "boolean"}),
        (Literal["a", "b"], {"type": "string", "enum": ["a", "b"]}),
        (Literal[1, 2], {"type": "integer", "enum": [1, 2]}),
        (Size, {"type": "string", "enum": ["large", "small"]}),
        (int | None, {"anyOf": [INTEGER, {"type": "null"}]}),
        (list[str], {"type": "array", "items": STRING}),
        (dict[str, int], {"type": "object", "additionalProperties": INTEGER}),
        (dict, {"type": "object"}),
        (tuple[str, int], {"type": "array", "items": {"anyOf": [STRING, INTEGER]}, "minItems": 2, "maxItems": 2}),
        (
            Topping,
            {"type": "object", "properties": {"name": STRING, "grams": INTEGER}, "required": ["name"]},
        ),
        (Address, ADDRESS),
        (
            list[Guest],
            {
                "type": "array",
                "items": {
                    "type": "object",
                    "properties": {"name": STRING, "home": {"anyOf": [ADDRESS, {"type": "null"}], "default": None}},
                    "required": ["name"],
                },
            },
        ),
        (Annotated[int, msgspec.Meta(ge=1, le=9)], {"type": "integer", "minimum": 1, "maximum": 9}),
        (Annotated[int, "how many"], {"type": "integer", "description": "how many"}),
        (datetime.date, {"type": "string", "format": "date"}),
        (Any, {}),
    ],
    ids=str,
)
def test_types_become_a_schema_without_references(hint: object, schema: Json) -> None:
    parameters = of(hint).parameters
    assert parameters["properties"]["x"] == schema
    assert parameters["required"] == ["x"]


def test_a_parameter_with_a_default_is_not_required_and_shows_it() -> None:
    assert of(int, 3).parameters["properties"]["x"] == {"type": "integer", "default": 3}
    assert of(Size, Size.SMALL).parameters["properties"]["x"]["default"] == "small"
    assert "default" not in of(int | None, None).parameters["properties"]["x"]
    assert of(int, 3).parameters["required"] == []


GOOGLE = """Book a table.

    It is held
    for 15 minutes.

    Args:
        day (str): Which day,
            like "monday".
        seats: How many: 1 to 8.

    Returns:
        seats: not a parameter here

    Ask first.
    """
REST = """Book a table. It is held for 15 minutes.

    Ask first.

    :param day: Which day,
        like "monday".
    :param int seats: How many: 1 to 8.
    :returns: a number
    :raises ValueError: if closed
    """


@pytest.mark.parametrize("docstring", [GOOGLE, REST], ids=["google", "rest"])
def test_words_come_from_the_docstring(docstring: str) -> None:
    def book(day: str, seats: int) -> str:
        return ""

    book.__doc__ = docstring
    schema = FunctionSchema.of(book)
    told = schema.parameters["properties"]
    assert told["day"]["description"] == 'Which day, like "monday".'
    assert told["seats"]["description"] == "How many: 1 to 8."
    assert " ".join(schema.description.split()) == "Book a table. It is held for 15 minutes. Ask first."


def test_annotated_words_win_over_the_docstring_and_given_ones_over_all() -> None:
    def book(day: Annotated[str, "monday to friday"]) -> None:
        """Book.

        Args:
            day: Which day.
        """

    schema = FunctionSchema.of(book, name="reserve", description="Reserve a table.")
    assert schema.parameters["properties"]["day"]["description"] == "monday to friday"
    assert (schema.name, schema.description) == ("reserve", "Reserve a table.")


def test_a_function_without_parameters_and_words() -> None:
    def ping() -> None: ...

    schema = FunctionSchema.of(ping)
    assert schema.parameters == {"type": "object", "properties": {}, "required": [], "additionalProperties": False}
    assert schema.description == ""
    assert schema.returns_nothing


def test_the_context_is_filled_by_us_and_unknown_to_the_model() -> None:
    def who(ctx: ToolContext, city: str, more: ToolContext | None = None) -> str:
        return ""

    schema = FunctionSchema.of(who)
    assert list(schema.parameters["properties"]) == ["city"]
    context = ToolContext(call_id="1", caller="0301")
    assert schema.bind({"city": "Oslo"}, context)["ctx"] is context
    assert schema.bind({"city": "Oslo"})["ctx"] == ToolContext()
    with pytest.raises(ArgumentError, match="no parameter 'ctx'"):
        schema.bind({"city": "Oslo", "ctx": {"caller": "forged"}})


def test_types_of_an_enclosing_function_are_found() -> None:
    class Colour(enum.Enum):
        RED = "red"

    def paint(colour: Colour) -> Colour:
        return colour

    assert FunctionSchema.of(paint).bind({"colour": "red"}) == {"colour": Colour.RED}


def test_methods_partials_and_objects_are_functions_too() -> None:
    class Desk:
        def open(self, day: str) -> None:
            """Open."""

        def __call__(self, day: str) -> None:
            """Call."""

    def book(seats: int, day: str) -> None:
        """Book."""

    for function, description in (
        (Desk().open, "Open."),
        (Desk(), "Call."),
        (functools.partial(book, 2), "Book."),
    ):
        schema = FunctionSchema.of(function, name="it")
        assert list(schema.parameters["properties"]) == ["day"]
        assert schema.description == description


def positional(x: int, /) -> None: ...
def several(*names: str) -> None: ...
def anything(**values: str) -> None: ...
def untyped(x) -> None: ...  # type: ignore[no-untyped-def]
def custom(x: object) -> None: ...
def bare_list(x: list) -> None: ...  # type: ignore[type-arg]
def lists_of_lists(x: list[list]) -> None: ...  # type: ignore[type-arg]
def recursive(x: Chain) -> None: ...
def two_objects(x: Address | Guest) -> None: ...
def misspelt(x: datetime.dat) -> None: ...  # type: ignore[name-defined]
def unknown(x: NoSuchType) -> None: ...  # type: ignore[name-defined]  # noqa: F821


@pytest.mark.parametrize(
    ("function", "says"),
    [
        (
            positional,
            "tool positional: parameter 'x' is positional-only, and models name what they give: remove the `/`",
        ),
        (several, "parameter '*names' takes any number of values: write one parameter like `names: list[str]`"),
        (anything, "parameter '**values' takes any names: write one parameter like"),
        (untyped, "parameter 'x' has no type: write `x: str`"),
        (custom, "parameter 'x' can not be described to a model: type <class 'object'> is not supported; use str"),
        (bare_list, "a list of what? Write `list[str]`"),
        (lists_of_lists, "a list of what? Write `list[str]`"),
        (recursive, "Chain contains itself"),
        (two_objects, "more than one dict-like type"),
        (misspelt, "tool misspelt: its annotations can not be read: module 'datetime' has no attribute 'dat'"),
        (dict.get, "tool get: parameter 'self' is positional-only"),
        (iter, "tool iter: Python does not know its parameters"),
        (unknown, "its annotations use 'NoSuchType', which is not known"),
        (lambda: None, "give one with name="),
        (Address, "a class is no tool"),
    ],
)
def test_what_a_model_can_not_be_told_is_refused_with_the_remedy(function: Callable[..., object], says: str) -> None:
    with pytest.raises(ConfigError) as refused:
        FunctionSchema.of(function)
    assert says in str(refused.value)


@pytest.mark.parametrize(
    ("hint", "given", "taken"),
    [
        (int, "3", 3),
        (int, 3.0, 3),
        (float, "2.5", 2.5),
        (float, 2, 2.0),
        (bool, "true", True),
        (str, 10115, "10115"),
        (str | None, 10115, "10115"),
        (str | None, None, None),
        (Size, "small", Size.SMALL),
        (Address, {"street": "A", "number": "7"}, Address("A", 7)),
        (list[int], [1, "2"], [1, 2]),
        (dict[int, int], {"1": 2}, {1: 2}),
        (datetime.date, "2026-11-21", datetime.date(2026, 11, 21)),
    ],
    ids=str,
)
def test_arguments_become_what_the_signature_says(hint: object, given: object, taken: object) -> None:
    bound = of(hint).bind({"x": given})["x"]
    assert bound == taken
    assert type(bound) is type(taken)


@pytest.mark.parametrize(
    ("hint", "arguments", "says"),
    [
        (int, {"x": "many"}, "x: expected `int`, got `str`"),
        (int, {"x": 2.5}, "x: expected `int`, got `float`"),
        (str, {"x": True}, "x: expected `str`, got `bool`"),
        (Annotated[int, msgspec.Meta(le=9)], {"x": 10}, "x: expected `int` <= 9"),
        (Size, {"x": "huge"}, "x: invalid enum value 'huge'"),
        (Guest, {"x": {"name": "A", "home": {}}}, "x.home: object missing required field `street`"),
        (int, {}, "'x' is missing. Parameters: x"),
        (int, {"y": 1, "z": 2}, "there is no parameter 'y'; there is no parameter 'z'; 'x' is missing"),
    ],
)
def test_a_mismatch_tells_the_model_everything_that_is_wrong(
    hint: object, arguments: Mapping[str, object], says: str
) -> None:
    with pytest.raises(ArgumentError) as refused:
        of(hint).bind(arguments)
    assert says in str(refused.value)


def test_what_the_model_leaves_out_has_the_functions_own_default() -> None:
    assert of(list[str], []).bind({}) == {}
