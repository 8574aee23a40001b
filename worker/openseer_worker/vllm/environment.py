"""Sets the environment before vLLM is imported; imports neither vLLM nor torch itself."""

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
"""The minor versions of vLLM that openseer was checked with, by reading and running; patch releases need no check."""
ANY_VERSION = "OPENSEER_ANY_VLLM"
"""Environment variable: 1 allows other versions, to check them."""

_QUIET = {
    "VLLM_NO_USAGE_STATS": "1",
    "DO_NOT_TRACK": "1",
    "TOKENIZERS_PARALLELISM": "false",
}
# One thread per engine, not bound to a core: vLLM's default binds every engine of a machine to the same core, and
# OpenMP threads that spin while they wait make an engine tens of times slower on a busy machine. No compilation:
# compiling the log-probabilities at the first request takes longer than it saves.
_CPU = {
    "OMP_NUM_THREADS": "1",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "TORCH_COMPILE_DISABLE": "1",
    # On a CPU vLLM's warnings are about optional libraries.
    "VLLM_LOGGING_LEVEL": "ERROR",
}

_GPU = {"VLLM_LOGGING_LEVEL": "WARNING"}
_COMPILED = "OPENSEER_COMPILED"
"""Environment variable: an image's folder of the drafter's compiled loops."""


def is_cpu_build() -> bool:
    """Whether the installed vLLM is the build for CPUs."""
    return _installed("vllm-cpu") is not None


def engine_version() -> str:
    """The version of the installed vLLM; "" without one."""
    return _installed("vllm-cpu") or _installed("vllm") or ""


def check_version() -> None:
    """Raises ModelError if vLLM is not installed, or its version is not checked and ANY_VERSION is not 1."""
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
    _LOG.warning("%s; it is used because %s=1", found, ANY_VERSION)


def prepare(model_path: str = "") -> None:
    """Sets the variables that vLLM reads at its import; a variable that is set already keeps its value.

    For a model in a local folder it disables the Hugging Face hub.
    """
    wanted = _QUIET | (_CPU if is_cpu_build() else _GPU)
    if model_path and Path(model_path).is_dir():
        wanted["HF_HUB_OFFLINE"] = "1"
    for name, value in wanted.items():
        os.environ.setdefault(name, value)
    _place_compiled()


def set_host(address: str) -> None:
    """Sets the address at which the other nodes of an engine reach this one, unless it is set already."""
    os.environ.setdefault("VLLM_HOST_IP", address)


def _place_compiled() -> None:
    """Copies the image's compiled loops to a writable folder: numba uses no read-only cache folder."""
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
