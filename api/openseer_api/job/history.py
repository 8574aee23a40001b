"""Places new groups by the longest response to their prompt in earlier batches."""

from openseer_api.job.context import JobContext
from openseer_core.queue.group import GroupSpec
from openseer_core.queue.siblings import prompt_digest


async def with_earlier(job: JobContext, groups: list[GroupSpec]) -> list[GroupSpec]:
    """Returns the groups with the placement that follows from the longest response to their prompt in earlier batches.

    Returns them unchanged if spec.speculation.earlierResponses is 0.
    """
    size = job.job.spec.speculation.earlier_responses
    if not size or not groups:
        return groups
    lengths = await job.store.longest_earlier([prompt_digest(group.prompt) for group in groups])
    return [job.placement.with_history(group, size, longest) for group, longest in zip(groups, lengths, strict=True)]
