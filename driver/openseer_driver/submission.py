"""Turns a job's prompts into the groups of its batch, in a stream: reads, checks, renders and places them."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from openseer_core.admission import ModelLimits, check_stops, misfit
from openseer_core.ids import BATCH_JOB_BATCH, INITIAL_VERSION, GroupId
from openseer_core.manifest.job import RolloutJob
from openseer_core.manifest.problems import Problems
from openseer_core.manifest.prompts import PromptLine, PromptRules, parse_prompts
from openseer_core.manifest.sampling_json import dump_sampling
from openseer_core.queue.group import GroupSpec
from openseer_core.queue.placement import Placement, group_metadata
from openseer_core.tokens import pack_tokens
from openseer_driver.prompts.source import PromptSource
from openseer_text.rendering import RenderError, TextCodec

NOTE_EVERY = 1000
"""Number of prompts between two progress notes."""

Note = Callable[[str], None]
"""A function that receives the progress of the present step as text."""


@dataclass(frozen=True, slots=True)
class CheckedPrompts:
    """A source whose rows are valid prompts of the job. `count`: number of prompts; `sha256`: the source's digest."""

    source: PromptSource
    count: int
    sha256: str


def check_prompts(job: RolloutJob, source: PromptSource, note: Note) -> CheckedPrompts:
    """Reads and checks all prompts of a source. Raises PromptsError, which lists the problems."""
    sha256, count = source.digest(), 0
    with source.unchanged(sha256):
        for count, _ in enumerate(parse_prompts(source.rows(), source.name, PromptRules.of(job.spec)), start=1):
            if count % NOTE_EVERY == 0:
                note(f"{count:,} prompts")
    return CheckedPrompts(source, count, sha256)


def read_groups(
    job: RolloutJob, checked: CheckedPrompts, codec: TextCodec, limits: ModelLimits, now: float
) -> Iterator[GroupSpec]:
    """Reads a checked source again and renders its groups with `render_groups`.

    Raises PromptsError also if the source has changed since the check.
    """
    source = checked.source
    with source.unchanged(checked.sha256):
        prompts = parse_prompts(source.rows(), source.name, PromptRules.of(job.spec))
        yield from render_groups(job, source.name, prompts, codec, limits, now)


def render_groups(
    job: RolloutJob, source: str, prompts: Iterable[PromptLine], codec: TextCodec, limits: ModelLimits, now: float
) -> Iterator[GroupSpec]:
    """The batch's groups in order. `now`: seconds of the store's clock.

    Raises PromptsError after the last prompt, with the problems of all prompts, so the caller must read all groups
    before it submits the first. Raises InputError, ModelError.
    """
    check_stops(job.spec.sampling, limits)
    placement = Placement.of(job.spec.rollout, job.spec.workers)
    sampling = dump_sampling(job.spec.sampling)
    kept = job.spec.speculation.earlier_responses
    problems = Problems(source)
    for ordinal, prompt in enumerate(prompts):
        try:
            rendered = codec.render(prompt)
        except RenderError as error:
            problems.add(str(error), prompt.place)
            continue
        problem = misfit(rendered.token_ids, job.spec.sampling, limits, prompt.lengths or ())
        if problem:
            problems.add(problem, prompt.place)
            continue
        group = placement.group(
            GroupId(BATCH_JOB_BATCH, prompt.id),
            INITIAL_VERSION,
            ordinal,
            pack_tokens(rendered.token_ids),
            job.spec.sampling.most_added,
            job.spec.group_size,
            now,
            lengths=prompt.lengths or (),
            sampling=sampling,
            metadata=group_metadata(prompt.metadata, template_hash=rendered.template_hash),
        )
        yield placement.with_history(group, kept, 0) if kept else group
    problems.require_none()
