"""Imports and builds the engine that a job names. Importing vLLM takes about 20 s, so only its jobs import it."""

import os
from pathlib import Path
from typing import TYPE_CHECKING

from openseer_core.admission import ModelLimits, limits_of_manifest
from openseer_core.manifest.job import RolloutJob, Spec, Speculation
from openseer_core.worker.speculation_enabled import CPU, speculation_refusal
from openseer_worker.engine import Engine
from openseer_worker.gang import GangPlace
from openseer_worker.scripted.engine import ScriptedEngine
from openseer_worker.settings import WorkerSettings
from openseer_worker.vllm.drafting.no_gain import no_gain_folder
from openseer_worker.vllm.environment import is_cpu_build

if TYPE_CHECKING:
    from openseer_worker.vllm.gang import VllmRank

SICK_FILE = "SCRIPTED_ENGINE_SICK"
"""Environment: path of a file. While it exists, a scripted engine reports a sick GPU, to test a cluster's reaction."""


def warm_up(job: RolloutJob) -> bool:
    """Imports the modules of the job's engine. Returns whether to pin each worker to a core (vLLM's CPU build)."""
    if job.spec.model.engine == "scripted":
        return False
    from openseer_worker.vllm.building import preload  # noqa: PLC0415 - takes about 20 s: only for this engine

    preload(job.spec.model.path)
    return is_cpu_build()


def limits_of(job: RolloutJob) -> ModelLimits:
    """The limits of one request, before an engine is built. Raises ModelError for a model that vLLM cannot use."""
    model = job.spec.model
    if model.engine == "scripted":
        return limits_of_manifest(model)
    from openseer_worker.vllm.model_limits import model_limits  # noqa: PLC0415 - see above

    return model_limits(model).else_by(limits_of_manifest(model))


def build_engine(settings: WorkerSettings, place: GangPlace | None = None) -> Engine:
    """Builds the engine that the job names; in a gang the part of rank 0, at `place`. Takes seconds to minutes."""
    spec = settings.job.spec
    if spec.model.engine == "scripted":
        sick_file = os.environ.get(SICK_FILE)
        return ScriptedEngine(spec.model.scripted, Path(sick_file) if sick_file else None)
    from openseer_worker.vllm.engine import VllmEngine  # noqa: PLC0415 - see above

    return VllmEngine(
        spec.model,
        spec.workers.parallelism,
        spec.sampling,
        cache_salt=settings.cache_salt,
        place=place,
        speculation=_speculation(spec),
        no_drafts=speculation_refusal(spec, _device()),
        no_gain=None if is_cpu_build() else no_gain_folder(),
        pool=settings.pool,
        routes=spec.routing.capture is not None,
    )


def gpus_of_engine(settings: WorkerSettings) -> int:
    """Number of GPUs that the job's engine uses in this pod; 0 for engines that need none."""
    return 0 if settings.job.spec.model.engine == "scripted" or is_cpu_build() else settings.gpus


def build_rank(settings: WorkerSettings, place: GangPlace) -> "VllmRank | None":
    """Builds a follower's part of the engine, at `place`; None for a scripted engine: it runs in its leader alone."""
    spec = settings.job.spec
    if spec.model.engine == "scripted":
        return None
    from openseer_worker.vllm.gang import VllmRank  # noqa: PLC0415 - see above

    return VllmRank(
        spec.model,
        spec.workers.parallelism,
        spec.sampling,
        place,
        _speculation(spec),
        settings.pool,
        routes=spec.routing.capture is not None,
    )


def _speculation(spec: Spec) -> Speculation | None:
    return None if speculation_refusal(spec, _device()) else spec.speculation


def _device() -> str:
    """The device's name in openseer_core/worker/draft_ratios.json (measured cost of drafts)."""
    if is_cpu_build():
        return CPU
    from openseer_worker.vllm.profile import gpu_name  # noqa: PLC0415 - see above

    return gpu_name()
