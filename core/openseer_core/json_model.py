"""The base of every JSON object that is stored or crosses HTTP."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

INT32_MAX = 2**31 - 1
INT53_MAX = 2**53 - 1
"""Integers beyond this are not exact in JSON."""
TokenId = Annotated[int, Field(ge=0, le=INT32_MAX)]
TokenIds = Annotated[list[TokenId], Field(strict=False, fail_fast=True)]
"""A list or a tuple of them; of a million wrong ones the first is told."""
GroupName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._:@-]*$", max_length=200)]
KnownGroupName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._:@-]*(~[0-9]+)?$", max_length=220)]
"""Of a group that is there: a carried one has its origin in its name (core's GroupId)."""
VersionName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._:@+-]*$", max_length=128)]


class JsonModel(BaseModel):
    """One JSON object. Of a scalar true is no number, "5" is none, and 1 is not true."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        allow_inf_nan=False,
        hide_input_in_errors=True,  # it may be a prompt
        strict=True,
    )
