"""The base of every JSON object in the store and over HTTP."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

INT32_MAX = 2**31 - 1
INT53_MAX = 2**53 - 1
"""Larger integers are not exact in JSON."""
TokenId = Annotated[int, Field(ge=0, le=INT32_MAX)]
TokenIds = Annotated[list[TokenId], Field(strict=False, fail_fast=True)]
"""A list or tuple of token ids; only the first wrong one is reported."""
GroupName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._:@-]*$", max_length=200)]
KnownGroupName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._:@-]*(~[0-9]+)?$", max_length=220)]
"""Name of an existing group: a carried one has its origin in its name (core's GroupId)."""
VersionName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._:@+-]*$", max_length=128)]


class JsonModel(BaseModel):
    """One JSON object with strict scalars: true is not a number, "5" is not one, and 1 is not true."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        allow_inf_nan=False,
        hide_input_in_errors=True,  # it may be a prompt
        strict=True,
    )
