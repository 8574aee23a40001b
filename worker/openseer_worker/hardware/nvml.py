"""NVIDIA's management library (NVML): loading it, and finding the GPUs that a process computes on.

The library knows nothing of CUDA_VISIBLE_DEVICES: it shows every GPU of the machine, or of the pod.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any, TypeVar

GPU_IS_LOST, RESET_REQUIRED = 15, 16
"""Errors that say that a GPU is of no use: it no longer answers on its bus, or has to be reset."""
MIG_GPU = "MIG-GPU-"
"""Begins the name of a part as drivers before R470 wrote it: MIG-GPU-<uuid>/<GPU instance>/<compute instance>."""

_Answer = TypeVar("_Answer")


@dataclass(frozen=True, slots=True)
class Gpu:
    """A GPU, or a part of one (MIG). `index`: of the GPU, as the library counts. `whole`: the GPU's handle.

    `part` and `instance` (GPU instance, compute instance): of a part. `whole` is None where the GPU was lost before.
    """

    index: int
    whole: Any
    part: Any = None
    instance: tuple[int, int] | None = None

    @property
    def handle(self) -> Any:
        """What is asked for readings that a part has of its own."""
        return self.whole if self.part is None else self.part


def load_nvml() -> Any:
    """The Python module of the library, not yet initialised; None where it is not installed."""
    try:
        return import_module("pynvml")
    except ImportError:
        return None


def is_lost(error: BaseException) -> bool:
    """Whether the library's answer means that the GPU is of no use. An "unknown error" does not: a container whose
    device rights were taken away gets it, and what computes there goes on."""
    return getattr(error, "value", None) in (GPU_IS_LOST, RESET_REQUIRED)


def find_gpus(library: Any, names: Sequence[str] | None, most: int | None = None) -> list[Gpu]:
    """The GPUs that CUDA shows a process: the first `most` of those that `names` (None: all that there are) name.

    `library` is initialised. Like CUDA's, the list ends before a name that fits none or several. Raises what the
    library raises.
    """
    every = _every_gpu(library)
    if names is None:
        return every[:most]
    found: list[Gpu] = []
    for name in names:
        fitting = [gpu for gpu in every if _fits(library, gpu, name)]
        if name.isdecimal():
            fitting = fitting[:1]  # of a GPU in parts CUDA takes the first one
        if len(fitting) != 1 or fitting[0] in found:
            break
        found += fitting
    return found[:most]


def list_gpus(library: Any) -> list[str]:
    """How CUDA_VISIBLE_DEVICES names all that there are. Raises what the library raises."""
    library.nvmlInit()
    try:
        return [
            str(gpu.index) if gpu.part is None else str(library.nvmlDeviceGetUUID(gpu.part))
            for gpu in _every_gpu(library)
        ]
    finally:
        library.nvmlShutdown()


def _every_gpu(library: Any) -> list[Gpu]:
    every: list[Gpu] = []
    for index in range(library.nvmlDeviceGetCount()):
        try:
            whole = library.nvmlDeviceGetHandleByIndex(index)
        except Exception as error:
            if not is_lost(error):
                raise
            every.append(Gpu(index, None))
            continue
        every += _parts(library, index, whole) if _is_in_parts(library, whole) else [Gpu(index, whole)]
    return every


def _is_in_parts(library: Any, whole: Any) -> bool:
    return _or(lambda: library.nvmlDeviceGetMigMode(whole)[0] == library.NVML_DEVICE_MIG_ENABLE, default=False)


def _parts(library: Any, index: int, whole: Any) -> list[Gpu]:
    """The parts that this process may use; a pod sees the GPU of its part, too, and not the parts of others."""
    parts: list[Gpu] = []
    for place in range(library.nvmlDeviceGetMaxMigDeviceCount(whole)):
        part = _or(lambda place=place: library.nvmlDeviceGetMigDeviceHandleByIndex(whole, place), default=None)
        if part is not None:
            instance = library.nvmlDeviceGetGpuInstanceId(part), library.nvmlDeviceGetComputeInstanceId(part)
            parts.append(Gpu(index, whole, part, instance))
    return parts


def _fits(library: Any, gpu: Gpu, name: str) -> bool:
    if name.isdecimal():
        return gpu.index == int(name)
    if name.startswith(MIG_GPU) and gpu.instance is not None:
        uuid, *instance = name.removeprefix("MIG-").split("/")
        return _uuid(library, gpu.whole) == uuid and instance == [str(number) for number in gpu.instance]
    return _uuid(library, gpu.handle).startswith(name)


def _uuid(library: Any, handle: Any) -> str:
    return _or(lambda: str(library.nvmlDeviceGetUUID(handle)), default="")


def _or(ask: Callable[[], _Answer], default: _Answer) -> _Answer:
    try:
        return ask()
    except Exception:  # noqa: BLE001 - older drivers and virtual GPUs leave questions unanswered
        return default
