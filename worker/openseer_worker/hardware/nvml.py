"""NVIDIA's management library (NVML): loading it, and finding the GPUs that a process computes on.

The library knows nothing of CUDA_VISIBLE_DEVICES: it shows every GPU of the machine, or of the pod.
"""

import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from importlib import import_module
from typing import Any, TypeVar

GPU_IS_LOST, RESET_REQUIRED = 15, 16
"""Errors that say that a GPU is of no use: it no longer answers on its bus, or has to be reset."""
LIBRARY_NOT_FOUND = 12
"""Error of the Python module: this machine has no such library, so that no later call will find a GPU."""
MIG_GPU = "MIG-GPU-"
"""Begins the name of a part as drivers before R470 wrote it: MIG-GPU-<uuid>/<GPU instance>/<compute instance>."""

_Answer = TypeVar("_Answer")


@dataclass(frozen=True, slots=True)
class Gpu:
    """A GPU, or a part of one (MIG). `index`: of the GPU, as the library counts. `whole`: the GPU's handle.

    `part` and `instance` (GPU instance, compute instance): of a part. `whole` is None where the GPU could not be
    opened, `lost` says that it never will be. `uuid`: its own, `whole_uuid`: its GPU's; "" where it does not tell.
    """

    index: int
    whole: Any
    part: Any = None
    instance: tuple[int, int] | None = None
    uuid: str = ""
    whole_uuid: str = ""
    lost: bool = False

    @property
    def name(self) -> str:
        """How CUDA_VISIBLE_DEVICES names it: by number, a part by UUID."""
        return str(self.index) if self.instance is None else self.uuid

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

    `library` is initialised. Like CUDA's, the list ends before a name that fits none or several. A UUID that fits none
    is taken for that of a GPU that could not be opened, a lost one first: such a GPU cannot tell its own. Raises what
    the library raises when it is asked for their number; a GPU that cannot be opened hides no other.
    """
    every = _every_gpu(library)
    if names is None:
        return every[:most]
    found: list[Gpu] = []
    for name in names:
        fitting = gpus_named(every, name)
        if not fitting and not name.isdecimal():
            closed = [gpu for gpu in every if gpu.whole is None and gpu not in found]
            fitting = sorted(closed, key=lambda gpu: not gpu.lost)[:1]
        if len(fitting) != 1 or fitting[0] in found:
            break
        found += fitting
    return found[:most]


def gpus_named(gpus: Sequence[Gpu], name: str) -> list[Gpu]:
    """Which of the GPUs a name of CUDA_VISIBLE_DEVICES fits: a number without leading zeros, or the beginning of a
    UUID. Of a GPU in parts a number means the first one, as for CUDA."""
    fitting = [gpu for gpu in gpus if _fits(gpu, name)]
    return fitting[:1] if name.isdecimal() else fitting


def list_gpus(library: Any) -> list[Gpu]:
    """All that there are. Raises what the library raises."""
    library.nvmlInit()
    try:
        return _every_gpu(library)
    finally:
        library.nvmlShutdown()


def read_list(text: str) -> list[Gpu]:
    """The GPUs that `main` wrote, without handles. Raises ValueError or TypeError for anything else."""
    return [
        Gpu(index, None, None, instance and (instance[0], instance[1]), uuid, whole_uuid, lost)
        for index, instance, uuid, whole_uuid, lost in json.loads(text)
    ]


def _every_gpu(library: Any) -> list[Gpu]:
    every: list[Gpu] = []
    for index in range(library.nvmlDeviceGetCount()):
        try:
            every += _open(library, index)
        except Exception as error:  # noqa: BLE001 - lost; or only this one cannot be asked, such as a neighbour's
            every.append(Gpu(index, None, lost=is_lost(error)))
    return every


def _open(library: Any, index: int) -> list[Gpu]:
    """The GPU, or its parts."""
    whole = library.nvmlDeviceGetHandleByIndex(index)
    uuid = _uuid(library, whole)
    if _is_in_parts(library, whole):
        return [replace(part, whole_uuid=uuid) for part in _parts(library, index, whole)]
    return [Gpu(index, whole, uuid=uuid, whole_uuid=uuid)]


def _is_in_parts(library: Any, whole: Any) -> bool:
    return _or(lambda: library.nvmlDeviceGetMigMode(whole)[0] == library.NVML_DEVICE_MIG_ENABLE, default=False)


def _parts(library: Any, index: int, whole: Any) -> list[Gpu]:
    """The parts that this process may use; a pod sees the GPU of its part, too, and not the parts of others."""
    parts: list[Gpu] = []
    for place in range(library.nvmlDeviceGetMaxMigDeviceCount(whole)):
        part = _or(lambda place=place: library.nvmlDeviceGetMigDeviceHandleByIndex(whole, place), default=None)
        if part is not None:
            instance = library.nvmlDeviceGetGpuInstanceId(part), library.nvmlDeviceGetComputeInstanceId(part)
            parts.append(Gpu(index, whole, part, instance, _uuid(library, part)))
    return parts


def _fits(gpu: Gpu, name: str) -> bool:
    if name.isdecimal():
        return str(gpu.index) == name
    if name.startswith(MIG_GPU) and gpu.instance is not None:
        uuid, *instance = name.removeprefix("MIG-").split("/")
        return gpu.whole_uuid == uuid and instance == [str(number) for number in gpu.instance]
    return gpu.uuid.startswith(name)


def _uuid(library: Any, handle: Any) -> str:
    try:
        return str(library.nvmlDeviceGetUUID(handle))
    except Exception as error:
        if is_lost(error):
            raise
        return ""


def _or(ask: Callable[[], _Answer], default: _Answer) -> _Answer:
    try:
        return ask()
    except Exception:  # noqa: BLE001 - older drivers and virtual GPUs leave questions unanswered
        return default


def main() -> None:
    """`python -m openseer_worker.hardware.nvml`: writes what `read_list` reads."""
    gpus = list_gpus(load_nvml())
    told = [(gpu.index, gpu.instance, gpu.uuid, gpu.whole_uuid, gpu.lost) for gpu in gpus]
    sys.stdout.write(json.dumps(told))


if __name__ == "__main__":
    main()
