"""A publisher's request for new weights: their place, the mode of the move, and the canary."""

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, StringConstraints, model_validator

from openseer_core.json_model import INT53_MAX, JsonModel, TokenIds, VersionName
from openseer_core.weights.url import shown_url, url_problem, without_passwords

PublishMode = Literal["drain", "keep", "abort"]


TransactionPhase = Literal["prefetch", "quiesce", "load", "commit", "rollback", "done", "failed"]


OnFailure = Literal["abort", "replace"]


def _no_url(path: str) -> str:
    if re.match("[A-Za-z][A-Za-z0-9+.-]*:/", path):
        raise ValueError(f"found {without_passwords(path)}, needed: a folder's path; a URL is source.url")
    return path


WeightsPath = Annotated[str, StringConstraints(min_length=1, max_length=4096), AfterValidator(_no_url)]


class Source(JsonModel):
    """The place of new weights; exactly one of path and url.

    path: a folder of safetensors that every worker can read. url: a folder over HTTP(S), on a host that the job allows
    (spec.weights.allowedHosts). It contains model.safetensors, or model.safetensors.index.json and the files that the
    index names. All workers of a machine share one fetch; in a cluster, pods pass the pieces to each other. digest: of
    the files (core's version_digest); a worker refuses files with another digest.
    """

    path: WeightsPath | None = None
    url: Annotated[str, StringConstraints(pattern=r"^[hH][tT]{2}[pP][sS]?://", max_length=4096)] | None = None
    digest: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")] | None = None

    @model_validator(mode="after")
    def _exactly_one(self) -> "Source":
        if (self.path is None) == (self.url is None):
            raise ValueError("exactly one of path and url is needed")
        if self.url is not None and (problem := url_problem(self.url, ())):
            raise ValueError(f"url: {shown_url(self.url)} {problem}")
        return self


class AdapterSpec(JsonModel):
    """Marks a version as a LoRA adapter. Its folder is one that PEFT saves, and it works on one version of the weights.

    name: the adapter's name in batches and requests, the same for all its versions; a new version under this name
    replaces the old one. base: the version that it was trained on; unset: the version that the fleet serves.
    """

    name: VersionName
    base: VersionName | None = None


class Canary(JsonModel):
    """A token sequence that every worker scores with the new weights, and the publisher's scores of it.

    `logprobs`: natural logarithms for token_ids[1:], each given the tokens before it. `tolerance`: greatest allowed
    difference, for log-probabilities below -1 relative to their size; unset: by the engine's number format
    (CANARY_TOLERANCE).
    """

    token_ids: Annotated[TokenIds, Field(min_length=2, max_length=4096)]
    logprobs: Annotated[list[float], Field(strict=False)]
    tolerance: float | None = Field(default=None, gt=0)

    @model_validator(mode="after")
    def _lengths(self) -> "Canary":
        if len(self.logprobs) != len(self.token_ids) - 1:
            raise ValueError(f"logprobs: found {len(self.logprobs)}, needed: one for each token after the first")
        return self


class Deadlines(JsonModel):
    """Time limit of each phase, in seconds; after a failure each new attempt has the same limit."""

    prefetch: float = Field(default=600.0, gt=0, le=86400)
    quiesce: float = Field(default=3600.0, gt=0, le=86400)
    load: float = Field(default=600.0, gt=0, le=86400)


class Publish(JsonModel):
    """New weights for the whole fleet, in one transaction; with `adapter`, a LoRA adapter beside the model's weights.

    `mode`: drain waits until all requests of the old version have ended; keep continues them with the new version, and
    results list the spans; abort ends them, and partial responses are reported. `on_failure`: the reaction when a
    worker still fails to read or load the files, or exceeds the time limit, after `retries` more attempts. abort: the
    fleet returns to the old version. replace: that worker is drained and the transaction continues without it; its
    successor starts with the new version. If all workers fail, or phase quiesce exceeds its limit, the reaction is
    always abort.
    """

    version: VersionName
    source: Source
    mode: PublishMode = "drain"
    on_failure: OnFailure = "abort"
    retries: int = Field(default=1, ge=0, le=10)
    prefetch: bool = Field(default=True, description="Fetch and read the files while the old version still runs.")
    max_staleness: int | None = Field(
        default=None, ge=0, le=INT53_MAX, description="With keep: responses with older tokens are aborted."
    )
    canary: Canary | None = None
    deadlines: Deadlines = Deadlines()
    adapter: AdapterSpec | None = Field(
        default=None, description="The version is a LoRA adapter; requests without it continue meanwhile."
    )

    def is_of(self, other: "Publish") -> bool:
        """Whether both publish the same weights under the same name; the mode and the limits may differ."""
        named = ("version", "source", "canary", "adapter")
        return all(getattr(self, name) == getattr(other, name) for name in named)
