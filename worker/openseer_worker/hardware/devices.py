"""Which of a machine's processors a local worker gets: a core each on a CPU, the next GPUs on a GPU machine."""

import logging
import re
import subprocess
import sys
from collections.abc import Mapping, MutableMapping, Sequence
from contextlib import suppress
from pathlib import Path

from openseer_core.errors import InputError
from openseer_worker.hardware.nvml import Gpu, gpus_named, load_nvml, read_list

_LOG = logging.getLogger(__name__)
VISIBLE = "CUDA_VISIBLE_DEVICES"
ORDER = "CUDA_DEVICE_ORDER"
PCI_ORDER = "PCI_BUS_ID"
"""The order in which NVIDIA's management library counts; CUDA's own default puts the fastest GPU first."""
MIG = "MIG-"
"""Begins the name of a part of a GPU (multi-instance GPU)."""
ASK_SECONDS = 10.0
"""Longest wait for the management library: an NVIDIA driver that is loaded only now takes some seconds, one that hangs
never answers."""
KILL_SECONDS = 1.0
"""Longest wait for the end of a process that asks it: within a driver that hangs even SIGKILL may wait."""


def core_of(index: int, cores: Sequence[int]) -> int:
    """The core of the `index`-th worker; with more workers than cores they take turns."""
    return cores[index % len(cores)]


def visible_names(environment: Mapping[str, str]) -> list[str] | None:
    """The GPUs that CUDA_VISIBLE_DEVICES names, in its order: numbers, or beginnings of UUIDs. None where it is unset.

    Numbers come without leading zeros, so that one GPU has one number.
    As CUDA does, the list ends before the first entry that names none, such as -1 or NoDevFiles.
    """
    if VISIBLE not in environment:
        return None
    names: list[str] = []
    for entry in environment[VISIBLE].split(","):
        name = entry.strip()
        if not re.fullmatch(r"[0-9]+|(GPU|MIG)-.+", name):
            break
        names.append((name.lstrip("0") or "0") if name.isdecimal() else name)
    return names


def gpus_of(index: int, count: int, present: Sequence[str], environment: Mapping[str, str]) -> str:
    """The value of CUDA_VISIBLE_DEVICES for the `index`-th worker of `count` GPUs.

    `present`: the machine's GPUs; what the environment makes visible narrows them. Raises InputError when the
    workers together ask for more than there are, or the environment names a GPU twice: two engines on one GPU would
    run out of its memory. Also when a worker of several GPUs would get parts of GPUs: CUDA gives a process one of
    those at most.
    """
    names = visible_names(environment)
    repeated = next((name for name in names or () if (names or []).count(name) > 1), None)
    if repeated is not None:
        raise InputError(f"{VISIBLE}: names the GPU {repeated} twice; name each once, as every worker needs its own")
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


def check_names(names: Sequence[str], gpus: Sequence[Gpu], *, numbered_alike: bool) -> None:
    """Raises InputError for a name that this machine's `gpus` do not bear, or two that mean one GPU.

    `numbered_alike`: CUDA's numbers are the library's. A UUID may always be that of a GPU that cannot tell its own.
    """
    names_of: dict[Gpu, str] = {}
    for name in names:
        found = gpus_named(gpus, name)
        if not found and not name.isdecimal() and not all(gpu.uuid for gpu in gpus):
            continue
        if len(found) != 1:
            there = ", ".join(
                f"{gpu.name} ({gpu.uuid})" if gpu.uuid not in ("", gpu.name) else gpu.name for gpu in gpus
            )
            what = f"{name} fits {len(found)} GPUs" if found else f"this machine has no GPU {name[:80]}"
            raise InputError(f"{VISIBLE}: {what}; choose among {there}, or unset it")
        other = names_of.setdefault(found[0], name)
        if other != name and (numbered_alike or other.isdecimal() == name.isdecimal()):
            raise InputError(
                f"{VISIBLE}: {other} and {name} are one GPU; name each once, as every worker needs its own"
            )


def pin_to_gpus(
    index: int,
    count: int,
    environment: MutableMapping[str, str],
    *,
    devices: Path = Path("/dev"),
    ask_seconds: float = ASK_SECONDS,
) -> None:
    """Makes `count` GPUs of its own, and no others, visible to the `index`-th worker.

    Raises InputError, see `gpus_of` and `check_names`. Does nothing on a machine without GPUs. By number where nobody
    chose by name: every version of the engine reads numbers. Without an answer of the management library, the device
    files are counted: their numbers are the kernel's, and in a container with the fourth GPU alone the only one is
    /dev/nvidia3.
    """
    gpus = ask_gpus(ask_seconds)
    present = count_device_files(devices) if gpus is None else [gpu.name for gpu in gpus]
    if not present:
        return
    names = visible_names(environment)
    if names is not None and gpus is not None:
        # Unless the order was chosen, too, it becomes the library's below.
        check_names(names, gpus, numbered_alike=environment.get(ORDER, PCI_ORDER) == PCI_ORDER)
    environment[VISIBLE] = gpus_of(index, count, present, environment)
    if names is not None:
        # The numbers of whoever chose them mean what nvidia-smi prints, unless the order was chosen, too.
        environment.setdefault(ORDER, PCI_ORDER)
    else:
        environment[ORDER] = PCI_ORDER


def ask_gpus(seconds: float = ASK_SECONDS) -> list[Gpu] | None:
    """The GPUs of this machine, as the management library lists them, which starts nothing on a GPU. None without an
    answer in time: no library, no driver, no right to ask, or a driver that hangs.

    A process of its own asks: one that hangs leaves no lock behind that the engine's processes would inherit.
    """
    if load_nvml() is None:
        return None
    process = subprocess.Popen(
        [sys.executable, "-m", "openseer_worker.hardware.nvml"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        told, _ = process.communicate(timeout=seconds)
        return read_list(told)
    except subprocess.TimeoutExpired:
        _LOG.warning(
            "the NVIDIA driver has not answered for %g s: GPUs are given out by counting device files, "
            "unchecked; see whether nvidia-smi answers, else reset the GPUs or restart the machine",
            seconds,
        )
        process.kill()
        with suppress(subprocess.TimeoutExpired):
            process.wait(KILL_SECONDS)
    except (ValueError, TypeError):
        _LOG.debug("NVML lists no GPUs")  # mostly no driver; the process has ended without a list
    finally:
        if process.stdout is not None:
            process.stdout.close()
    return None


def count_device_files(devices: Path) -> list[str]:
    """As many numbers as the folder has device files of GPUs."""
    files = [path for path in devices.glob("nvidia*") if re.fullmatch(r"nvidia\d+", path.name)]
    return [str(number) for number in range(len(files))]
