"""Provides the lengths for a plan: from earlier runs, or from a named distribution."""

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from openseer_core.admission import limits_of_manifest
from openseer_core.errors import InputError
from openseer_core.manifest.job import RolloutJob
from openseer_driver.run_folder import RunFolder
from openseer_sim.recorded import length_notes, read_results, read_run
from openseer_sim.work import GroupLengths, LengthModel

SHAPES: dict[str, LengthModel] = {
    "even": LengthModel(0, 0, spread=0.02, correlation=0.0),
    "mild": LengthModel(0, 0, spread=0.5, correlation=0.5),
    "reasoning": LengthModel(0, 0, spread=1.0, correlation=0.8),
    "heavy": LengthModel(0, 0, spread=1.4, correlation=0.8),
}
"""Distributions by name (see LengthModel). The mean is given with the name, the limit is the job's."""
DRAWN_GROUPS = 2_000
"""Number of groups of a history that is drawn from a named distribution."""
PROMPT = 256
"""Tokens of each prompt of a history that is drawn from a named distribution."""
FEW_GROUPS = 30
"""Number of groups of a history below which its draws are too similar; a note then says so."""


@dataclass(frozen=True, slots=True)
class LengthHistory:
    """Groups to draw from. `source`: their origin, as text; `drafted`: mean tokens per step with drafts and mean draft
    length, None without drafts; `notes`: limitations for the reader; `invented`: the groups are drawn from a
    distribution, so that their number is arbitrary; `partial`: some responses were cut or did not finish, and their
    full lengths are larger."""

    groups: list[GroupLengths]
    source: str
    drafted: tuple[float, float] | None = None
    notes: tuple[str, ...] = ()
    invented: bool = False
    partial: bool = False

    def draw(self, groups: int, size: int, cap: int, seed: int, context: int | None = None) -> list[GroupLengths]:
        """Draws `groups` groups with replacement, the same for the same seed. A drawn group that does not have `size`
        responses gets `size` lengths, drawn from its own with replacement. Limits of a length, in tokens: `cap`, and
        `context` for prompt and response together."""
        chance = random.Random(seed)
        drawn: list[GroupLengths] = []
        for group in chance.choices(self.groups, k=groups):
            lengths = group.lengths if len(group.lengths) == size else chance.choices(group.lengths, k=size)
            most = cap if context is None else min(cap, max(1, context - group.prompt))
            drawn.append(GroupLengths(group.prompt, tuple(min(most, length) for length in lengths)))
        return drawn


def history_of(job: RolloutJob, runs: Sequence[Path] = (), shape: str = "") -> LengthHistory:
    """The lengths for the plan of `job`: from `runs` (folders of runs, or files of `openseer results`), or from `shape`
    (a distribution `NAME:MEAN`); if neither is given, from the job's own last run. Raises InputError if both are given,
    or if neither is given and the job has no run."""
    own = Path(job.output_path)
    if runs and shape:
        raise InputError("found --history and --lengths, allowed: one of them")
    if runs:
        return _of_runs(job, runs)
    if shape:
        return _of_shape(job, shape)
    if RunFolder(own).exists() and RunFolder(own).results_file.is_file():
        return _of_runs(job, [own])
    raise InputError(
        f"{job.name}: no lengths are known: {own} holds no run; pass --history RUN, of a run of the same model with "
        f"similar prompts, or --lengths NAME:MEAN with NAME one of {', '.join(SHAPES)} and the mean length in tokens"
    )


def group_count(job: RolloutJob) -> int | None:
    """Number of prompts in the job's prompt file if it is a local file of plain JSON lines; else None."""
    path = job.spec.prompts.path if job.spec.prompts is not None else None
    if path is None or not path.endswith(".jsonl") or not Path(path).is_file():
        return None
    with Path(path).open("rb") as file:
        return sum(1 for line in file if line.strip()) or None


def _of_runs(job: RolloutJob, paths: Sequence[Path]) -> LengthHistory:
    files = [path for path in paths if path.is_file() and not _is_of_run(path)]
    folders = [path.parent if path.is_file() else path for path in paths if path not in files]
    runs = [read_run(RunFolder(path)) for path in folders]
    cut: list[str] = []
    notes: list[str] = []
    cap, size = job.spec.sampling.max_tokens, job.spec.group_size
    for run in runs:
        name, other = run.folder.name, run.job.spec
        cut += [f"{name}: {note}" for note in length_notes(run.report)]
        if other.model.path != job.spec.model.path:
            notes.append(f"{name} is a run of the model {other.model.path}, the job is of {job.spec.model.path}")
        if other.sampling.max_tokens < cap:
            notes.append(f"{name} ended responses at {other.sampling.max_tokens:,} tokens, the job does at {cap:,}")
    drafted = [run.report.drafting for run in runs if run.report.drafting is not None]
    best = max(drafted, key=lambda report: report.row_steps, default=None)
    groups = [group for run in runs for group in run.groups]
    for path in files:
        found, reasons = read_results(path)
        groups += found
        cut += [f"{path}: {reason}" for reason in reasons]
    if others := sum(len(group.lengths) != size for group in groups):
        notes.append(
            f"{others:,} of {len(groups):,} groups of the history do not have {size} responses as those of the job: "
            "lengths are drawn within them with replacement"
        )
    source = f"{len(groups):,} groups of " + ", ".join(str(path) for path in paths)
    if len(groups) < FEW_GROUPS:
        notes.append(f"{len(groups):,} groups are few: intervals are narrower than they would be with {FEW_GROUPS}")
    tokens = (best.acceptance_length, best.draft_length) if best else None
    return LengthHistory(groups, source, tokens, (*cut, *notes), partial=bool(cut))


def _is_of_run(path: Path) -> bool:
    """Whether the path is the results.jsonl of a run folder."""
    folder = RunFolder(path.parent)
    return folder.exists() and folder.results_file == path


def _of_shape(job: RolloutJob, text: str) -> LengthHistory:
    name, _, given = text.partition(":")
    try:
        mean = float(given)
    except ValueError:
        mean = 0.0
    cap, context = job.spec.sampling.max_tokens, limits_of_manifest(job.spec.model).context_tokens
    cap = cap if context is None else min(cap, max(1, context - PROMPT))
    if name not in SHAPES or not 1 <= mean < cap:
        raise InputError(
            f"--lengths: found {text}, allowed: NAME:MEAN with NAME one of {', '.join(SHAPES)} and MEAN from 1 to "
            f"below the job's longest response, {cap:,} tokens (sampling.maxTokens, or the engine's context without a "
            f"prompt of {PROMPT})"
        )
    model = replace(SHAPES[name], mean=mean, cap=cap)
    groups = model.draw(DRAWN_GROUPS, job.spec.group_size, seed=0, prompt=PROMPT)
    return LengthHistory(
        groups,
        f"the distribution {name} with mean {mean:,.0f} and prompts of {PROMPT} tokens, which was not "
        "measured for this job",
        invented=True,
    )
