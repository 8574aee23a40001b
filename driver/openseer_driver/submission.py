"""From a job's prompts to the groups of its batch: read, checked, rendered, and placed by the policy."""

import hashlib
import json
import urllib.request
from collections.abc import Iterable, Sequence
from pathlib import Path

from openseer_core.errors import InputError, PromptsError
from openseer_core.group import GroupSpec, GroupView
from openseer_core.ids import GroupId
from openseer_core.job import RolloutJob, Sampling
from openseer_core.prompts import PromptLine, parse_prompts
from openseer_core.schedule import Lanes, policy
from openseer_core.siblings import prompt_digest
from openseer_core.tokens import pack_tokens
from openseer_driver.text import Rendered, TextCodec
from openseer_worker.job_sampling import dump_sampling
from openseer_worker.settings import INITIAL_VERSION

BATCH = 0
"""A batch job is one batch."""

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
    rollout = job.spec.rollout
    chosen = policy(rollout.policy, probe=rollout.probe, ageing=rollout.ageing_tokens_per_second)
    lanes = Lanes(rollout.policy, max(1, job.spec.workers.replicas))
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
        lengths = prompt.lengths or ()
        group = GroupId(BATCH, prompt.id)
        size, longest = job.spec.group_size, job.spec.sampling.max_tokens
        tokens = pack_tokens(rendered.token_ids)
        groups.append(
            GroupSpec(
                id=group,
                version=INITIAL_VERSION,
                ordinal=ordinal,
                prompt=tokens,
                max_tokens=longest,
                ranks=tuple(chosen.rank(length) for length in lengths) or (chosen.rank(0),) * size,
                lanes=lanes.bind(ordinal, size),
                priority=chosen.priority(GroupView(group, 0, ordinal, size, longest, now)),
                enqueued_at=now,
                lengths=lengths,
                sampling=sampling,
                metadata=json.dumps({"metadata": prompt.metadata, "template_hash": rendered.template_hash}),
                history=prompt_digest(tokens) if kept else "",
                history_size=kept,
            )
        )
    if problems:
        more = [f"… and {len(problems) - MOST_REPORTED} more"] if len(problems) > MOST_REPORTED else []
        raise PromptsError(source, problems[:MOST_REPORTED] + more)
    return groups


def misfit(rendered: Rendered, context: int | None, sampling: Sampling, lengths: Sequence[int] = ()) -> str | None:
    """Why a prompt cannot be run by a model of that context; None when it can."""
    found = len(rendered.token_ids)
    if not found:
        return "the prompt has no tokens; give at least one"
    if context is None:
        return None
    if found >= context:
        return f"the prompt has {found} tokens, and the model's context holds {context} with the response"
    longest = max(lengths, default=0) if sampling.force_lengths else 0
    if found + longest > context:
        return f"the prompt's {found} tokens and a length of {longest} do not fit the model's context of {context}"
    return None
