"""The part of the manifest that says whether and how workers draft."""

from pydantic import Field

from openseer_core.manifest.base import ManifestModel


class Speculation(ManifestModel):
    """How workers draft tokens ahead of the engine, which verifies them."""

    enabled: bool | None = Field(
        default=None,
        description="Whether workers draft tokens from what the group has generated so far, which the engine then "
        "verifies several at a time; the distribution of the responses stays the same. Unset: where a measurement "
        "says that it pays, so far on CPUs. Never with sampling.minP, which the engine ignores when it verifies "
        "drafts.",
    )
    max_tokens: int = Field(
        default=16,
        ge=1,
        le=64,
        description="Most tokens drafted for one request in one step; how many are worth it is decided step by step.",
    )
    earlier_responses: int = Field(
        default=0,
        ge=0,
        le=64,
        description="Responses of earlier batches to the same prompt, the newest ones, that a group drafts from and "
        "that its length is estimated by; 0: none are kept.",
    )
    memory_megabytes: int = Field(
        default=1024,
        ge=16,
        le=65536,
        description="Most memory of a worker for what it drafts from, in MiB; when it is full, groups that no longer "
        "run are dropped first.",
    )
