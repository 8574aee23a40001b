"""The base of all manifest models (strict values, camelCase in files), and the value types that they share."""

from typing import Annotated, Any, Literal, cast

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints, WithJsonSchema, model_validator
from pydantic.alias_generators import to_camel

from openseer_core.json_model import INT32_MAX

MOST_WORKERS = 4096
"""Limit of workers of a job, above any real fleet; it bounds the operator's and the gateway's work per job."""
MOST_NODES = 256
"""Limit of nodes of one worker, for the same reason."""
QUANTITY_PATTERN = r"^([0-9]{1,32}(\.[0-9]{0,32})?|\.[0-9]{1,32})([KMGTPE]i|[numkMGTPE]|[eE][+-]?[0-9]{1,2})?$"
"""A Kubernetes quantity with a limited number of digits: code computes with it, and 1e999998 has a million digits."""
_PORT = "(6553[0-5]|655[0-2][0-9]|65[0-4][0-9]{2}|6[0-4][0-9]{3}|[1-5][0-9]{4}|[1-9][0-9]{0,3})"
HOST_PATTERN = rf"^(\*\.)?([a-z0-9_-]{{1,63}}\.)*[a-z0-9_-]{{1,63}}(:{_PORT})?$"
"""A host name in lower case, or *. and a suffix; optionally followed by the only allowed port."""
DNS_LABEL_PATTERN = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"
DNS_SUBDOMAIN_PATTERN = r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$"


class ManifestModel(BaseModel):
    """One map of the manifest. In files the names are camelCase; code may also use the attribute names."""

    model_config = ConfigDict(
        alias_generator=to_camel,
        allow_inf_nan=False,
        extra="forbid",
        frozen=True,
        hide_input_in_errors=True,  # the input may be a secret
        strict=True,
        validate_by_alias=True,
        validate_by_name=True,
    )

    @model_validator(mode="before")
    @classmethod
    def _null_is_absent(cls, value: object) -> object:
        """Drops nulls, as a Kubernetes API server does before it fills in defaults."""
        if not isinstance(value, dict):
            return value
        fields = cast("dict[object, object]", value)
        return {name: entry for name, entry in fields.items() if entry is not None}


def _quantity_text(value: object) -> object:
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


def allowed(text: str) -> dict[str, Any]:
    """Schema entry with the allowed values in words, for error messages about constraints such as patterns."""
    return {"x-allowed": text}


Quantity = Annotated[
    str,
    BeforeValidator(_quantity_text),
    StringConstraints(pattern=QUANTITY_PATTERN),
    WithJsonSchema(
        {
            "anyOf": [{"type": "integer"}, {"type": "string"}],
            "pattern": QUANTITY_PATTERN,
            "x-kubernetes-int-or-string": True,
            "x-allowed": "a Kubernetes quantity such as 2, 500m or 4Gi",
        }
    ),
]
PullPolicy = Literal["Always", "IfNotPresent", "Never"]
Text = Annotated[str, StringConstraints(min_length=1)]
ObjectName = Annotated[
    str,
    StringConstraints(pattern=DNS_SUBDOMAIN_PATTERN, max_length=253),
    Field(json_schema_extra=allowed("the name of a Kubernetes object (lower-case letters, digits, - and .)")),
]
HostPattern = Annotated[
    str,
    StringConstraints(pattern=HOST_PATTERN, max_length=259),
    Field(
        description="A host name, or *. and a suffix; with :PORT that port only.",
        json_schema_extra=allowed("a host name in lower case, or *. and a suffix, optionally with :PORT"),
    ),
]
Positive = Annotated[int, Field(ge=1, le=INT32_MAX)]
NonNegative = Annotated[int, Field(ge=0, le=INT32_MAX)]
WorkerCount = Annotated[int, Field(ge=0, le=MOST_WORKERS)]
NodeCount = Annotated[int, Field(ge=1, le=MOST_NODES)]


class KeyRef(ManifestModel):
    """One key of a ConfigMap or Secret in the job's namespace."""

    name: ObjectName = Field(description="Name of the object, in the job's namespace.")
    key: Text = Field(description="Key within the object.")


class LocalObjectReference(ManifestModel):
    """An object in the job's namespace."""

    name: ObjectName = Field(description="Name of the object, in the job's namespace.")


class VolumeClaim(ManifestModel):
    """A persistent volume."""

    claim_name: ObjectName = Field(description="Name of the PersistentVolumeClaim, in the job's namespace.")


class VolumeClaimPath(VolumeClaim):
    """A path on a persistent volume."""

    path: Text = Field(description="Path on the volume, relative to its root.")
