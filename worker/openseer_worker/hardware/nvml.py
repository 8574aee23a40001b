"""NVIDIA's management library (NVML): loads it, and finds the GPUs that a process computes on.

The library ignores CUDA_VISIBLE_DEVICES: it lists every GPU of the machine, or of the pod.
"""

import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from importlib import import_module
from typing import Any, TypeVar

GPU_IS_LOST, RESET_REQUIRED = 15, 16
"""Error codes of an unusable GPU: it does not answer on its bus, or needs a reset."""
LIBRARY_NOT_FOUND = 12
"""Error code of the Python module: this machine lacks the library, so no later call will find a GPU."""
MIG_GPU = "MIG-GPU-"
"""Prefix of a part's name in drivers before R470: MIG-GPU-<uuid>/<GPU instance>/<compute instance>."""

_Answer = TypeVar("_Answer")


@dataclass(frozen=True, slots=True)
class Gpu:
    """A GPU, or a part of one (MIG). `index`: the GPU's number in the library. `whole`: the GPU's handle; None if the
    GPU could not be opened.

    `part`: a part's handle; `instance`: its (GPU instance, compute instance); both None for a whole GPU. `uuid`: of the
    GPU or part; `whole_uuid`: of the GPU; "" if it cannot be read. `lost`: the GPU is unusable, see `is_lost`.
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
        """The name in CUDA_VISIBLE_DEVICES: a GPU's number, or a part's UUID."""
        return str(self.index) if self.instance is None else self.uuid

    @property
    def handle(self) -> Any:
        """The handle for readings that exist per part."""
        return self.whole if self.part is None else self.part


def load_nvml() -> Any:
    """The Python module of the library, not yet initialised; None where it is not installed."""
    try:
        return import_module("pynvml")
    except ImportError:
        return None


def is_lost(error: BaseException) -> bool:
    """Whether the error means that the GPU is unusable. An "unknown error" does not mean that: a container that has
    lost its device permissions gets this error, while its processes can still compute."""
    return getattr(error, "value", None) in (GPU_IS_LOST, RESET_REQUIRED)


def find_gpus(library: Any, names: Sequence[str] | None, most: int | None = None) -> list[Gpu]:
    """Returns the GPUs that CUDA shows a process: the first `most` GPUs in `names` (None: of all GPUs).

    `library` is initialised. As in CUDA, the list ends before a name that matches no GPU or several. A UUID without a
    match is assigned to a GPU that could not be opened, a lost one first, because its UUID cannot be read. Raises the
    library's error if it cannot count the GPUs; a GPU that cannot be opened does not prevent the use of others.
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
    """Returns the GPUs that a name in CUDA_VISIBLE_DEVICES matches: a number without leading zeros, or a prefix of a
    UUID. The number of a GPU with parts means its first part, as in CUDA."""
    fitting = [gpu for gpu in gpus if _fits(gpu, name)]
    return fitting[:1] if name.isdecimal() else fitting


def list_gpus(library: Any) -> list[Gpu]:
    """Initialises the library and returns all GPUs and parts. Raises its error if it cannot count them."""
    library.nvmlInit()
    try:
        return _every_gpu(library)
    finally:
        library.nvmlShutdown()


def read_list(text: str) -> list[Gpu]:
    """Parses the output of `main`: the GPUs, without handles. Raises ValueError or TypeError for any other text."""
    return [
        Gpu(index, None, None, instance and (instance[0], instance[1]), uuid, whole_uuid, lost)
        for index, instance, uuid, whole_uuid, lost in json.loads(text)
    ]


def _every_gpu(library: Any) -> list[Gpu]:
    every: list[Gpu] = []
    for index in range(library.nvmlDeviceGetCount()):
        try:
            every += _open(library, index)
        except Exception as error:  # noqa: BLE001 - the GPU is lost, or another pod's
            every.append(Gpu(index, None, lost=is_lost(error)))
    return every


def _open(library: Any, index: int) -> list[Gpu]:
    """Opens a GPU; returns it, or its parts."""
    whole = library.nvmlDeviceGetHandleByIndex(index)
    uuid = _uuid(library, whole)
    if _is_in_parts(library, whole):
        return [replace(part, whole_uuid=uuid) for part in _parts(library, index, whole)]
    return [Gpu(index, whole, uuid=uuid, whole_uuid=uuid)]


def _is_in_parts(library: Any, whole: Any) -> bool:
    return _or(lambda: library.nvmlDeviceGetMigMode(whole)[0] == library.NVML_DEVICE_MIG_ENABLE, default=False)


def _parts(library: Any, index: int, whole: Any) -> list[Gpu]:
    """Returns the parts that this process may use. In a pod these are its own parts, without those of other pods."""
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
    except Exception:  # noqa: BLE001 - older drivers and virtual GPUs lack some readings
        return default


def main() -> None:
    """`python -m openseer_worker.hardware.nvml`: prints the GPUs for `read_list`."""
    gpus = list_gpus(load_nvml())
    rows = [(gpu.index, gpu.instance, gpu.uuid, gpu.whole_uuid, gpu.lost) for gpu in gpus]
    sys.stdout.write(json.dumps(rows))


if __name__ == "__main__":
    main()
