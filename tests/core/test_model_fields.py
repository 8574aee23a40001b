"""The fields of an object inside a pydantic model, for messages about a missing or unknown field."""

from typing import Any

import pytest
from pydantic import BaseModel, Field, ValidationError

from openseer_core.json_words import first_problem
from openseer_core.model_fields import fields_at


class InnerObject(BaseModel, extra="forbid"):
    """A part. Its second sentence is left out."""

    count: int = Field(description="Number of pieces. More about it.")
    name: str = ""


class OuterObject(BaseModel, extra="forbid"):
    """A model with a field for each way to another object."""

    part: InnerObject | None = None
    parts: list[InnerObject] = Field(default_factory=list[InnerObject])
    other: InnerObject = InnerObject(count=1)
    free: dict[str, int] = Field(default_factory=dict[str, int])


@pytest.mark.parametrize("place", [("part",), ("parts", 3), ("other",)])
def test_the_fields_of_an_inner_object_are_found(place: tuple[str | int, ...]) -> None:
    assert fields_at(OuterObject, place) == {"count": "Number of pieces", "name": ""}


def test_a_field_without_a_description_has_that_of_its_object() -> None:
    assert fields_at(OuterObject, ()) == {"part": "", "parts": "", "other": "A part", "free": ""}


@pytest.mark.parametrize("place", [("free",), ("free", "a"), ("part", "count"), ("gone",), ("parts", 0, "name")])
def test_a_place_without_fixed_fields_has_none(place: tuple[str | int, ...]) -> None:
    assert fields_at(OuterObject, place) == {}


def test_messages_name_the_missing_and_the_meant_field() -> None:
    mistakes: tuple[tuple[dict[str, Any], str], ...] = (
        ({"parts": [{}]}, "parts.0.count: missing (Number of pieces)"),
        ({"part": {"count": 1, "nam": "a"}}, 'part.nam: unknown field; did you mean "name"?'),
        ({"zzz": 1}, "zzz: unknown field, known: part, parts, other, free"),
    )
    for value, expected in mistakes:
        with pytest.raises(ValidationError) as caught:
            OuterObject.model_validate(value)
        assert first_problem(caught.value, OuterObject) == expected
