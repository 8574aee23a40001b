"""Computes the limits of one request on this machine before an engine runs."""

import subprocess
import sys

from openseer_core.admission import ModelLimits, limits_of_manifest
from openseer_core.errors import InputError, ModelError
from openseer_core.manifest.job import Model
from openseer_process.logs import error_in
from openseer_worker.vllm.environment import engine_version

LIMITS_SECONDS = 300.0
"""Timeout for computing vLLM's configuration, in seconds; the import of vLLM takes a minute on a busy machine."""


def computed_limits(model: Model, *, routes: bool = False) -> ModelLimits:
    """Returns the limits by vLLM's configuration, computed in another process. Returns the manifest's limits for the
    scripted engine, without vLLM, and if the computation fails or takes longer than LIMITS_SECONDS.

    Raises ModelError for a model that vLLM cannot use; with `routes` also if its experts cannot be captured.
    """
    stated = limits_of_manifest(model)
    if model.engine == "scripted" or not engine_version():
        return stated
    command = [sys.executable, "-m", "openseer_worker.vllm.model_limits", *(["--routes"] if routes else [])]
    given = model.model_dump_json(by_alias=True)
    try:
        ended = subprocess.run(
            command, input=given, capture_output=True, text=True, timeout=LIMITS_SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        return stated
    if ended.returncode == InputError.exit_code:
        errors = [error for line in ended.stderr.splitlines() if (error := error_in(line)) is not None]
        raise ModelError(errors[-1] if errors else ended.stderr.strip())
    return stated if ended.returncode else ModelLimits.from_json(ended.stdout).else_by(stated)
