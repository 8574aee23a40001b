"""What must be in the environment before vLLM is imported; imports neither vLLM nor torch itself."""

import logging
import os
import re
import shutil
import tempfile
from importlib import metadata
from pathlib import Path

from openseer_core.errors import ModelError

_LOG = logging.getLogger(__name__)
CHECKED_VERSIONS = ("0.32",)
"""The minor versions of vLLM that openseer was read against and run with; their patches change nothing that it uses."""
ANY_VERSION = "OPENSEER_ANY_VLLM"
"""Environment: 1 lets another version run, for whoever checks it."""

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


def check_version() -> None:
    """Raises ModelError when vLLM is not installed, or in a version that was not checked and is not asked for."""
    installed = engine_version()
    if not installed:
        raise ModelError("spec.model.engine: found vllm, which is not installed; install it, or use the worker image")
    release = re.fullmatch(r"(\d+\.\d+)\.\d+(\.post\d+)?(\+.*)?", installed)
    if release and release[1] in CHECKED_VERSIONS:
        return
    checked = " and ".join(f"{version}.x" for version in CHECKED_VERSIONS)
    found = f"vLLM {installed} is installed, openseer was checked with {checked}"
    if os.environ.get(ANY_VERSION) != "1":
        raise ModelError(f"{found}; install one of those, or set {ANY_VERSION}=1 to try this one")
    _LOG.warning("%s; it goes on because %s=1", found, ANY_VERSION)


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
