"""Base classes of the protocols' bodies: they ignore unknown fields, and reject refused, misspelt or misplaced ones."""

import difflib
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, ClassVar, cast

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator
from pydantic.alias_generators import to_snake
from pydantic_core import PydanticCustomError

from openseer_api.compat.live.refused_fields import MOST_SHOWN, THE_FLEETS_OWN, Refusals
from openseer_core.manifest.generation import is_off
from openseer_core.token_scores import MOST_LIKELIEST

MOST_UNKNOWN = 16
"""Limit of unknown fields of a body that are compared with the known ones."""
LIKENESS = 0.85
"""Similarity by difflib (0 to 1) at or above which an unknown name counts as a misspelt known one."""


def _whole(value: object) -> object:
    return int(value) if isinstance(value, float) and value.is_integer() else value


WHOLE = BeforeValidator(_whole)
"""Validator of a whole number. It accepts 5.0, because JSON has one kind of number."""
Whole = Annotated[int, WHOLE]
Top = Annotated[int, Field(ge=0, le=MOST_LIKELIEST), WHOLE]
"""Number of likeliest tokens that are requested in addition to each token's own log-probability."""
NOT_STREAMED = "a stream contains new tokens only; remove stream"


class ProtocolModel(BaseModel):
    """A body sent by a client, with strict scalars: neither true nor "5" is a number, and 1 is not true."""

    model_config = ConfigDict(extra="ignore", strict=True)


class RefusingModel(ProtocolModel):
    """A body in which each field of `refused` must be off. `closed`: any unknown field is an error too."""

    refused: ClassVar[Refusals] = {}
    closed: ClassVar[bool] = False

    @classmethod
    def known(cls) -> set[str]:
        """Returns the field names that are supported, refused or deliberately ignored."""
        return {*cls.model_fields, *cls.refused, *THE_FLEETS_OWN}

    @classmethod
    def elsewhere(cls) -> Mapping[str, str]:
        """Returns the names that belong to another place in the body: name → that place."""
        return {}

    @model_validator(mode="before")
    @classmethod
    def _none_refused(cls, value: Any) -> Any:
        if isinstance(value, dict):
            fields = cast("dict[str, Any]", value)
            for name, (off, why) in cls.refused.items():
                found = fields.get(name)
                if not is_off(found, off):
                    parts = {"name": name, "found": f"{found!r:.{MOST_SHOWN}}", "why": why}
                    raise PydanticCustomError("refused", "{name}: found {found}, which openseer refuses: {why}", parts)
            for name, meant in cls._misspelt(fields):
                parts = {"name": f"{name:.{MOST_SHOWN}}", "meant": f"; did you mean {meant}?" if meant else ""}
                raise PydanticCustomError("unknown_field", "{name}: unknown field{meant}", parts)
        return cast("Any", value)

    @classmethod
    def _misspelt(cls, fields: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
        known, elsewhere = cls.known(), cls.elsewhere()
        unknown = [name for name, value in fields.items() if name not in known and value is not None]
        for name in unknown[:MOST_UNKNOWN]:
            near = difflib.get_close_matches(to_snake(name[:MOST_SHOWN]), {*known, *elsewhere}, n=1, cutoff=LIKENESS)
            if near or cls.closed:
                yield name, elsewhere.get(near[0], near[0]) if near else ""
