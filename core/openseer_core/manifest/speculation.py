"""The speculation part of the manifest: whether and how workers draft."""

from pydantic import Field

from openseer_core.manifest.base import ManifestModel


class Speculation(ManifestModel):
    """Settings of drafting: workers propose tokens ahead of the engine, which verifies them."""

    enabled: bool | None = Field(
        default=None,
        description="Whether workers draft tokens from earlier tokens of the group, which the engine then "
        "verifies several at a time; the distribution of the responses stays the same. Unset: on devices where a "
        "measurement showed a gain, so far CPUs. Never with sampling.minP, which the engine ignores when it verifies "
        "drafts.",
    )
    max_tokens: int = Field(
        default=16,
        ge=1,
        le=64,
        description="Limit of tokens drafted for one request in one step; the drafter chooses the length in each step.",
    )
    earlier_responses: int = Field(
        default=0,
        ge=0,
        le=64,
        description="Number of the newest responses of earlier batches to the same prompt that a group drafts from and "
        "that its length estimate uses; 0: none are kept.",
    )
    memory_megabytes: int = Field(
        default=1024,
        ge=16,
        le=65536,
        description="Memory limit of a worker for draft sources, in MiB; when it is full, groups that no longer "
        "run are dropped first.",
    )
