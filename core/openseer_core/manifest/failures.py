"""The failure policy of a manifest: how many failures are allowed, and the reaction to each kind."""

from typing import Annotated, Literal

from pydantic import Field

from openseer_core.manifest.base import ManifestModel, NonNegative, Positive, Text

FailureAction = Literal["FailJob", "Ignore", "Count"]
CodeOperator = Literal["In", "NotIn"]
RESTART_WINDOW_SECONDS = 21600
"""Default of failurePolicy.restartWindowSeconds: the time after which one failure is forgotten, in seconds."""
ConditionStatus = Literal["True", "False", "Unknown"]


class ExitCodes(ManifestModel):
    """A test of the exit code of the container that failed."""

    operator: CodeOperator = Field(description="Whether the exit code must be among values (In) or not (NotIn).")
    values: tuple[Annotated[int, Field(ge=1, le=255)], ...] = Field(
        min_length=1, max_length=255, strict=False, description="Exit codes, from 1 to 255."
    )


class PodCondition(ManifestModel):
    """A condition that a pod must have."""

    type: Text = Field(description="Type of the pod's condition, DisruptionTarget for one.")
    status: ConditionStatus = Field(default="True", description='Status that it must have, in quotes: "True".')


class FailureRule(ManifestModel):
    """The reaction to one kind of failure."""

    action: FailureAction = Field(
        description="FailJob: the job fails at once. Ignore: the pod is created again and nothing is counted. Count: "
        "the "
        "failure counts towards workerRestarts or driverRestarts."
    )
    on_exit_codes: ExitCodes | None = Field(
        default=None, description="Applies to the exit code of openseer's container; excludes onPodConditions."
    )
    on_pod_conditions: tuple[PodCondition, ...] | None = Field(
        default=None,
        min_length=1,
        max_length=20,
        strict=False,
        description="Applies when the pod has one of these conditions; excludes onExitCodes.",
    )


class FailurePolicy(ManifestModel):
    """Limits of failures, and the reaction to each kind."""

    worker_restarts: NonNegative = Field(
        default=3, description="Restarts of one worker before the job fails; see restartWindowSeconds."
    )
    driver_restarts: NonNegative = Field(
        default=6, description="Restarts of the driver before the job fails; read only in Kubernetes."
    )
    # No default here: job.json contains the field only if it is set, because older images refuse it.
    restart_window_seconds: Positive | None = Field(
        default=None,
        description="Time after which one of the failures that count towards workerRestarts and driverRestarts is "
        "forgotten, so that a job that serves for months fails by frequent failures, not by their sum. Unset: 21600, "
        "six hours.",
    )
    request_retries: NonNegative = Field(
        default=3,
        description="Leases that one request may lose to a worker's death before it is reported as infra_failed.",
    )
    rules: tuple[FailureRule, ...] = Field(
        default=(),
        max_length=16,
        strict=False,
        description="The reaction to a failed pod; the first rule that applies wins. Before them: exit code 8, a sick "
        "GPU, is not counted. After them: exit codes 2 (wrong input), 5 (the store lost the job) and 6 (the audit "
        "found a violation) fail the job; a pod that was evicted or lost with its node is not counted; any other "
        "failure counts. Read only in Kubernetes.",
    )

    def remembered(self, count: int, since: float, now: float) -> tuple[int, float]:
        """The failures that still count at `now`, and the start of the present window.

        Of `count` failures at `since`, one is forgotten per restartWindowSeconds. Times are in seconds.
        """
        seconds = self.restart_window_seconds or RESTART_WINDOW_SECONDS
        windows = max(0, int((now - since) // seconds)) if count else 0
        return max(0, count - windows), since + windows * seconds
