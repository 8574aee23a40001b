"""The base class of all JSON objects in the store and over HTTP."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

INT32_MAX = 2**31 - 1
INT53_MAX = 2**53 - 1
"""Greatest integer that all JSON readers represent exactly (2^53 - 1)."""
TokenId = Annotated[int, Field(ge=0, le=INT32_MAX)]
TokenIds = Annotated[list[TokenId], Field(strict=False, fail_fast=True)]
"""A list or tuple of token ids; only the first wrong id is reported."""
GroupName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._:@-]*$", max_length=200)]
KnownGroupName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._:@-]*(~[0-9]+)?$", max_length=220)]
"""Name of an existing group; the name of a carried group contains its origin (GroupId.carried)."""
VersionName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._:@+-]*$", max_length=128)]


class JsonModel(BaseModel):
    """One JSON object. Scalars are not converted: neither true nor "5" is accepted as a number, nor 1 as true."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        allow_inf_nan=False,
        hide_input_in_errors=True,  # the input may be a prompt
        strict=True,
    )
