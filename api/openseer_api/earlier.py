"""What earlier batches say of a new group: where its responses are kept, and how long the ones before were."""

from dataclasses import replace

from openseer_api.jobs import JobContext
from openseer_core.group import GroupSpec
from openseer_core.siblings import prompt_digest


async def with_earlier(job: JobContext, groups: list[GroupSpec]) -> list[GroupSpec]:
    """The groups as they are submitted, placed by the longest response of earlier batches to their prompt.

    As they were where spec.speculation.earlierResponses is 0.
    """
    size = job.job.spec.speculation.earlier_responses
    if not size or not groups:
        return groups
    digests = [prompt_digest(group.prompt) for group in groups]
    lengths = await job.store.longest_earlier(digests)
    known = zip(groups, digests, lengths, strict=True)
    return [_placed(job, replace(group, history=digest, history_size=size), length) for group, digest, length in known]


def _placed(job: JobContext, group: GroupSpec, length: int) -> GroupSpec:
    told = replace(group, longest_earlier=length)
    return replace(told, priority=job.policy.priority(told.view()))
