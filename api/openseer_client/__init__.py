"""Clients of the API for trainers, sync and async, and adapters for existing trainers.

An import of this package loads only httpx and pydantic; adapters (`trl`, `verl` and others) are imported by name.

Read `client`, `async_client`, `groups` and `reading` (results), `checkpoint`, `errors`, `settings`, `http`; then the
adapters and their shared parts, `torch_grpo`, `torch_weights`, `whole_groups`, `ranks`; `rewards`. Tests: tests/client.
"""

from openseer_client.async_client import AsyncBatchHandle, AsyncClient
from openseer_client.checkpoint import Checkpoint, Position
from openseer_client.client import BatchHandle, Client
from openseer_client.errors import (
    AnswerError,
    ApiError,
    BadRequestError,
    BusyError,
    ConflictError,
    FleetError,
    ForbiddenError,
    GroupsLostError,
    NotFoundError,
    RewardError,
    StaleResultError,
    SubmissionLostError,
    TooLargeError,
    UnauthorizedError,
    UnavailableError,
    WeightsError,
)
from openseer_client.groups import FinishedGroup
from openseer_client.http.retry import Limits
from openseer_client.rewards import RewardPool
from openseer_core.manifest.generation import Sampling
from openseer_core.weights.publish import AdapterSpec, Canary, Deadlines, Publish, Source
from openseer_core.wire.batches import Batch, BatchSpec, Group, Target
from openseer_core.wire.fleet import Acquire, Release
from openseer_core.wire.results import GroupItem, ResultItem
from openseer_core.wire.weights import Transaction

__all__ = [
    "Acquire",
    "AdapterSpec",
    "AnswerError",
    "ApiError",
    "AsyncBatchHandle",
    "AsyncClient",
    "BadRequestError",
    "Batch",
    "BatchHandle",
    "BatchSpec",
    "BusyError",
    "Canary",
    "Checkpoint",
    "Client",
    "ConflictError",
    "Deadlines",
    "FinishedGroup",
    "FleetError",
    "ForbiddenError",
    "Group",
    "GroupItem",
    "GroupsLostError",
    "Limits",
    "NotFoundError",
    "Position",
    "Publish",
    "Release",
    "ResultItem",
    "RewardError",
    "RewardPool",
    "Sampling",
    "Source",
    "StaleResultError",
    "SubmissionLostError",
    "Target",
    "TooLargeError",
    "Transaction",
    "UnauthorizedError",
    "UnavailableError",
    "WeightsError",
]
