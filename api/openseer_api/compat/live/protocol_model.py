"""The bases of what clients of the protocols send: unknown fields pass, but no refused, misspelt or misplaced one."""

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
"""Unknown fields of a body that are compared with known ones."""
LIKENESS = 0.85
"""From which on an unknown name is taken for a misspelt one, as difflib measures it."""


def _whole(value: object) -> object:
    return int(value) if isinstance(value, float) and value.is_integer() else value


WHOLE = BeforeValidator(_whole)
"""Of a whole number: 5.0 is one in JSON, which has one kind of number."""
Whole = Annotated[int, WHOLE]
Top = Annotated[int, Field(ge=0, le=MOST_LIKELIEST), WHOLE]
"""How many of the likeliest tokens are wanted beside each token's own log-probability."""
NOT_STREAMED = "a stream holds new tokens alone; leave stream out"


class ProtocolModel(BaseModel):
    """What a client sends. Of a scalar true is no number, "5" is none, and 1 is not true."""

    model_config = ConfigDict(extra="ignore", strict=True)


class RefusingModel(ProtocolModel):
    """Fields in `refused` are off, or the body is refused. `closed`: so is the body with any unknown field."""

    refused: ClassVar[Refusals] = {}
    closed: ClassVar[bool] = False

    @classmethod
    def known(cls) -> set[str]:
        """Names of the protocol that are honoured, refused or passed over."""
        return {*cls.model_fields, *cls.refused, *THE_FLEETS_OWN}

    @classmethod
    def elsewhere(cls) -> Mapping[str, str]:
        """Names that belong to another place of the body, with that place."""
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
