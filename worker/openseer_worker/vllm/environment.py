"""What must be in the environment before vLLM is imported; imports neither vLLM nor torch itself."""

import os
import shutil
import tempfile
from importlib import metadata
from pathlib import Path

_QUIET = {
    "VLLM_NO_USAGE_STATS": "1",
    "DO_NOT_TRACK": "1",
    "TOKENIZERS_PARALLELISM": "false",
}
# One thread per engine: vLLM's own choice binds every engine of a machine to the same core, and OpenMP threads that
# wait for one another by spinning make an engine tens of times slower on a busy machine. The log-probabilities would
# otherwise be compiled at the first request, which takes longer than it ever saves.
_CPU = {
    "OMP_NUM_THREADS": "1",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "TORCH_COMPILE_DISABLE": "1",
    # Its warnings there are about optional libraries.
    "VLLM_LOGGING_LEVEL": "ERROR",
}

_GPU = {"VLLM_LOGGING_LEVEL": "WARNING"}
_COMPILED = "OPENSEER_COMPILED"
"""Environment: where an image keeps the drafter's compiled loops."""


def is_cpu_build() -> bool:
    """True when the installed vLLM is the build for CPUs."""
    return _installed("vllm-cpu") is not None


def engine_version() -> str:
    """The version of the installed vLLM, or "" when there is none."""
    return _installed("vllm-cpu") or _installed("vllm") or ""


def prepare(model_path: str = "") -> None:
    """Sets what vLLM reads when it is imported. What is set already stays as it is.

    A model in a local folder needs no hub, so none is asked then.
    """
    wanted = _QUIET | (_CPU if is_cpu_build() else _GPU)
    if model_path and Path(model_path).is_dir():
        wanted["HF_HUB_OFFLINE"] = "1"
    for name, value in wanted.items():
        os.environ.setdefault(name, value)
    _place_compiled()


def set_host(address: str) -> None:
    """Says under which address the other nodes of an engine reach this one; what is set already stays."""
    os.environ.setdefault("VLLM_HOST_IP", address)


def _place_compiled() -> None:
    """Copies what the image compiled to where numba can write, for it reads from nowhere else."""
    kept = os.environ.get(_COMPILED)
    if kept and "NUMBA_CACHE_DIR" not in os.environ:
        folder = Path(tempfile.gettempdir()) / "openseer-compiled"
        shutil.copytree(kept, folder, dirs_exist_ok=True)
        os.environ["NUMBA_CACHE_DIR"] = str(folder)


def _installed(distribution: str) -> str | None:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None
