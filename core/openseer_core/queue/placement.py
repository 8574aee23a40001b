"""Builds a group of the queue from a prompt: the group's priority, and the bias and lane of each request.

No other code builds a `GroupSpec` from a prompt: the driver, the trainers' uploads and the compatible routes use this
module.
"""

import heapq
import json
from dataclasses import dataclass, replace
from typing import Any

from openseer_core.ids import GroupId
from openseer_core.manifest.fleet import LEAST_INFLIGHT, ROUND_ROBIN, RolloutSpec, Workers
from openseer_core.manifest.sampling_json import parse_sampling
from openseer_core.queue.group import SHARED_LANE, GroupSpec, GroupView
from openseer_core.queue.policy import Policy, policy_of
from openseer_core.queue.siblings import prompt_digest


class Lanes:
    """Assigns each request a lane at submission; one object per batch.

    round-robin: each whole group to the next worker. least-inflight: each request to the worker with the fewest
    submitted requests; if several workers have equally few, to the worker of the group's previous request if it is one
    of them. All other policies: the shared lane.
    """

    def __init__(self, policy_name: str, workers: int) -> None:
        self._policy = policy_name
        self._loads = [0] * workers
        self._least = [(0, worker) for worker in range(workers)]

    def bind(self, ordinal: int, size: int) -> tuple[str, ...]:
        """The lane of each of a group's requests; a lane's name is the number of its worker."""
        if self._policy == ROUND_ROBIN:
            return (str(ordinal % len(self._loads)),) * size
        if self._policy == LEAST_INFLIGHT:
            return self._least_inflight(size)
        return (SHARED_LANE,) * size

    def _least_inflight(self, size: int) -> tuple[str, ...]:
        lanes: list[str] = []
        for _ in range(size):
            while self._least[0][0] != self._loads[self._least[0][1]]:
                heapq.heappop(self._least)  # outdated entry: the worker has received more requests since
            load, worker = self._least[0]
            if lanes and self._loads[int(lanes[-1])] == load:
                worker = int(lanes[-1])
            self._loads[worker] += 1
            heapq.heappush(self._least, (load + 1, worker))
            lanes.append(str(worker))
        return tuple(lanes)


@dataclass(frozen=True, slots=True)
class Placement:
    """Builds the groups of one job with its policy and its lanes."""

    policy: Policy
    lanes: Lanes

    @staticmethod
    def of(rollout: RolloutSpec, workers: Workers) -> "Placement":
        """The placement for a manifest's policy and number of workers."""
        return Placement(policy_of(rollout), Lanes(rollout.policy, max(1, workers.replicas)))

    def group(
        self,
        gid: GroupId,
        version: str,
        ordinal: int,
        prompt: bytes,
        max_tokens: int,
        size: int,
        enqueued_at: float,
        *,
        sampling: str,
        metadata: str,
        lengths: tuple[int, ...] = (),
        tier: int = 0,
        batch_ordinal: int = 0,
        seeds: tuple[int | None, ...] = (),
    ) -> GroupSpec:
        """Returns the group to submit.

        `prompt`: int32 token ids. `ordinal`: the group's place in its batch. `enqueued_at`: seconds of the store's
        clock. `batch_ordinal`: the batch's place in the order of opening. `lengths`: forced response lengths in tokens,
        one per request, for benchmarks and simulations; otherwise empty.
        """
        view = GroupView(gid, 0, ordinal, size, max_tokens, enqueued_at, tier=tier, batch_ordinal=batch_ordinal)
        return GroupSpec(
            id=gid,
            version=version,
            ordinal=ordinal,
            prompt=prompt,
            max_tokens=max_tokens,
            biases=tuple(self.policy.bias(length) for length in lengths) or (self.policy.bias(0),) * size,
            lanes=self.lanes.bind(ordinal, size),
            priority=self.policy.priority(view),
            enqueued_at=enqueued_at,
            lengths=lengths,
            sampling=sampling,
            metadata=metadata,
            tier=tier,
            seeds=seeds,
            batch_ordinal=batch_ordinal,
        )

    def grown(self, group: GroupSpec, seeds: tuple[int | None, ...]) -> GroupSpec:
        """The group with further requests, one for each of `seeds`."""
        return replace(
            group,
            biases=group.biases + (self.policy.bias(0),) * len(seeds),
            lanes=group.lanes + self.lanes.bind(group.ordinal, len(seeds)),
            seeds=group.seeds + seeds,
        )

    def with_history(self, group: GroupSpec, size: int, longest: int) -> GroupSpec:
        """The group with the history of its prompt.

        `size`: number of the newest responses that the store keeps for later batches. `longest`: tokens of the longest
        response that it keeps now. A policy that uses this length computes the priority from it. A group that scores
        given tokens is returned unchanged: such tokens are not a response of the model to the prompt.
        """
        if parse_sampling(group.sampling).score_from is not None:
            return group
        known = replace(group, history=prompt_digest(group.prompt), history_size=size, longest_earlier=longest)
        return replace(known, priority=self.policy.priority(known.view()))


def queued_at(group: GroupSpec, now: float, policy: Policy) -> GroupSpec:
    """The group with submission time `now`, in seconds of the store's clock, and the priority that follows from it.

    The group was built earlier and may have been spooled.
    """
    stamped = replace(group, enqueued_at=now)
    return replace(stamped, priority=policy.priority(stamped.view()))


def group_metadata(metadata: Any, **more: Any) -> str:
    """The JSON that is stored with a group and returned with its results: the submitter's metadata, and `more`."""
    return json.dumps({"metadata": metadata, **more})
