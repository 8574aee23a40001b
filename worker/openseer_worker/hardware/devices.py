"""Which of a machine's processors a local worker gets: a core each on a CPU, the next GPUs on a GPU machine."""

import re
from collections.abc import Mapping, MutableMapping, Sequence
from pathlib import Path

from openseer_core.errors import InputError
from openseer_worker.hardware.nvml import list_gpus, load_nvml

VISIBLE = "CUDA_VISIBLE_DEVICES"
ORDER = "CUDA_DEVICE_ORDER"
PCI_ORDER = "PCI_BUS_ID"
"""The order in which NVIDIA's management library counts; CUDA's own default puts the fastest GPU first."""
MIG = "MIG-"
"""Begins the name of a part of a GPU (multi-instance GPU)."""


def core_of(index: int, cores: Sequence[int]) -> int:
    """The core of the `index`-th worker; with more workers than cores they take turns."""
    return cores[index % len(cores)]


def visible_names(environment: Mapping[str, str]) -> list[str] | None:
    """The GPUs that CUDA_VISIBLE_DEVICES names, in its order: numbers, or beginnings of UUIDs. None where it is unset.

    As CUDA does, the list ends before the first entry that names none, such as -1 or NoDevFiles.
    """
    if VISIBLE not in environment:
        return None
    names: list[str] = []
    for entry in environment[VISIBLE].split(","):
        name = entry.strip()
        if not re.fullmatch(r"\d+|(GPU|MIG)-.+", name):
            break
        names.append(name)
    return names


def gpus_of(index: int, count: int, present: Sequence[str], environment: Mapping[str, str]) -> str:
    """The value of CUDA_VISIBLE_DEVICES for the `index`-th worker of `count` GPUs.

    `present`: the machine's GPUs; what the environment makes visible narrows them. Raises InputError when the
    workers together ask for more than there are: two engines on one GPU would run out of its memory. Also when a
    worker of several GPUs would get parts of GPUs: CUDA gives a process one of those at most.
    """
    names = visible_names(environment)
    visible = list(present) if names is None else names
    mine = visible[index * count : (index + 1) * count]
    if len(mine) < count:
        raise InputError(
            f"spec.workers.replicas: worker {index} needs {count} GPU{'s' if count > 1 else ''} of its own, "
            f"and {len(visible)} are visible on this machine; lower replicas or parallelism"
        )
    if count > 1 and any(name.startswith(MIG) for name in mine):
        raise InputError(
            f"spec.workers.parallelism: worker {index} needs {count} GPUs, and {', '.join(mine)} are parts of GPUs "
            "(MIG), which cannot work together; set tensor and pipeline to 1"
        )
    return ",".join(mine)


def pin_to_gpus(index: int, count: int, environment: MutableMapping[str, str]) -> None:
    """Makes `count` GPUs of its own, and no others, visible to the `index`-th worker. Raises InputError, see `gpus_of`.

    Does nothing on a machine without GPUs. By number where nobody chose by name: every version of the engine reads
    numbers.
    """
    present = present_gpus()
    if not present:
        return
    chosen = VISIBLE in environment
    environment[VISIBLE] = gpus_of(index, count, present, environment)
    if chosen:
        # The numbers of whoever chose them mean what nvidia-smi prints, unless the order was chosen, too.
        environment.setdefault(ORDER, PCI_ORDER)
    else:
        environment[ORDER] = PCI_ORDER


def present_gpus(devices: Path = Path("/dev")) -> list[str]:
    """The GPUs of this machine as CUDA_VISIBLE_DEVICES would name them: numbers, and UUIDs of parts (MIG).

    Asked of the management library, which starts nothing on a GPU. Without an answer, the device files are counted:
    their numbers are the kernel's, and in a container with the fourth GPU alone the only one is /dev/nvidia3.
    """
    try:
        return list_gpus(load_nvml())
    except Exception:  # noqa: BLE001 - no library, no driver, no right to ask
        files = [path for path in devices.glob("nvidia*") if re.fullmatch(r"nvidia\d+", path.name)]
        return [str(number) for number in range(len(files))]
