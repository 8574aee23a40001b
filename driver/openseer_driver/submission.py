"""From a job's prompts to the groups of its batch: read, checked, rendered, and placed by the policy."""

import hashlib
import urllib.request
from collections.abc import Iterable
from pathlib import Path

from openseer_core.errors import InputError, PromptsError
from openseer_core.ids import BATCH_JOB_BATCH, INITIAL_VERSION, GroupId
from openseer_core.manifest.job import RolloutJob
from openseer_core.manifest.prompts import PromptLine, parse_prompts
from openseer_core.manifest.sampling_json import dump_sampling
from openseer_core.queue.group import GroupSpec
from openseer_core.queue.placement import Placement, group_metadata
from openseer_core.tokens import pack_tokens
from openseer_text.rendering import TextCodec, misfit

FETCH_SECONDS = 60.0
MOST_REPORTED = 20


def read_source(job: RolloutJob, mounted: Path | None = None) -> tuple[str, bytes]:
    """The name and content of the prompt source. `mounted`: where a pod finds it, if it is on a volume.

    Raises PromptsError, or InputError for a source only pods have.
    """
    prompts = job.spec.prompts
    if prompts is None:
        raise InputError("spec.prompts: missing; a serving job gets its prompts through the API")
    if mounted is not None:
        return str(mounted), _read("spec.prompts", str(mounted))
    if prompts.path is not None:
        return prompts.path, _read("spec.prompts.path", prompts.path)
    if prompts.url is not None:
        return prompts.url, _fetch(prompts.url)
    raise InputError("spec.prompts: pvc and configMap exist only in Kubernetes; on one machine give path or url")


def _read(field: str, path: str) -> bytes:
    try:
        return Path(path).expanduser().read_bytes()
    except OSError as error:
        where = f"working directory: {Path.cwd()}"
        raise PromptsError(path, [f"{field}: {path} cannot be read: {error.strerror} ({where})"]) from error


def _fetch(url: str) -> bytes:
    try:
        with urllib.request.urlopen(url, timeout=FETCH_SECONDS) as answer:
            return bytes(answer.read())
    except (OSError, ValueError) as error:
        raise PromptsError(url, [f"spec.prompts.url: {url} cannot be fetched: {error}"]) from error


def source_hash(content: bytes) -> str:
    """Equal for two prompt sources that hold the same bytes."""
    return hashlib.sha256(content).hexdigest()


def read_prompts(job: RolloutJob, source: str, content: bytes) -> list[PromptLine]:
    """The prompts of a source, checked against the job. Raises PromptsError."""
    lines = content.split(b"\n")
    spec = job.spec
    prompts = parse_prompts(lines, source, group_size=spec.group_size, need_lengths=spec.needs_lengths)
    if spec.sampling.force_lengths:
        longest = spec.sampling.max_tokens
        problems = [
            f"{source} line {prompt.line}: lengths: found {max(prompt.lengths)}, allowed: at most "
            f"spec.sampling.maxTokens, {longest}"
            for prompt in prompts
            if prompt.lengths and max(prompt.lengths) > longest
        ]
        if problems:
            raise PromptsError(source, problems[:MOST_REPORTED])
    return prompts


def render_groups(
    job: RolloutJob, source: str, prompts: Iterable[PromptLine], codec: TextCodec, now: float
) -> list[GroupSpec]:
    """The batch's groups in order. `now`: seconds of the store's clock. Raises PromptsError, ModelError."""
    placement = Placement.of(job.spec.rollout, job.spec.workers)
    sampling = dump_sampling(job.spec.sampling)
    kept = job.spec.speculation.earlier_responses
    problems: list[str] = []
    groups: list[GroupSpec] = []
    for ordinal, prompt in enumerate(prompts):
        rendered = codec.render(prompt)
        problem = misfit(rendered, codec.context_tokens, job.spec.sampling, prompt.lengths or ())
        if problem:
            problems.append(f"{source} line {prompt.line}: {problem}")
            continue
        group = placement.group(
            GroupId(BATCH_JOB_BATCH, prompt.id),
            INITIAL_VERSION,
            ordinal,
            pack_tokens(rendered.token_ids),
            job.spec.sampling.max_tokens,
            job.spec.group_size,
            now,
            lengths=prompt.lengths or (),
            sampling=sampling,
            metadata=group_metadata(prompt.metadata, template_hash=rendered.template_hash),
        )
        groups.append(placement.with_history(group, kept, 0) if kept else group)
    if problems:
        more = [f"… and {len(problems) - MOST_REPORTED} more"] if len(problems) > MOST_REPORTED else []
        raise PromptsError(source, problems[:MOST_REPORTED] + more)
    return groups
