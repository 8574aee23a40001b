"""Synchronous batches for trainers: all groups are whole, and sampled from the requested weights version."""

from collections.abc import Sequence

from openseer_client.client import Client
from openseer_client.errors import GroupsLostError, StaleResultError
from openseer_client.groups import FinishedGroup
from openseer_client.reading import Environment
from openseer_core.wire.batches import BatchSpec, Group

TRIES = 2
"""Limit of the batches in which a group is sampled.
A group is sampled again if it is not whole, for example after workers failed."""


def sample_whole(
    client: Client, spec: BatchSpec, groups: Sequence[Group], environment: Environment | None = None
) -> dict[str, FinishedGroup]:
    """Samples the groups, waits for all of them, and returns them by name. `spec` must contain the weights version.

    Raises GroupsLostError for groups that were not whole in TRIES batches, and StaleResultError for a token of another
    version.
    """
    found: dict[str, FinishedGroup] = {}
    lost: list[FinishedGroup] = []
    for _ in range(TRIES):
        missing = [group for group in groups if group.id not in found]
        if not missing:
            break
        batch = client.open_batch(spec)
        batch.submit(missing)
        if environment is None:
            batch.seal()
        ended = list(batch.groups(environment=environment, seal_after=len(missing)))
        found |= {group.name: group for group in ended if group.whole}
        batch.acknowledge(batch.status().last_cursor)
        lost = [group for group in ended if not group.whole]
    if len(found) < len(groups):
        raise GroupsLostError([group.end for group in lost], TRIES)
    for item in (item for group in found.values() for item in group.results):
        if {span.version for span in item.versions} | {item.weights_version} != {spec.weights_version}:
            raise StaleResultError(item, spec.weights_version or "")
    return found


def forget_leftovers(client: Client, run: str) -> None:
    """Deletes the batches whose metadata contain this run: those of earlier processes of the training."""
    for old in client.batches():
        if old.metadata.get("run") == run:
            client.batch(old.id).forget()
