"""Assigns a machine's processors to local workers: one core each without GPUs, otherwise GPUs in their order."""

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
"""Prefix of the name of a GPU's part (multi-instance GPU, MIG)."""
ASK_SECONDS = 10.0
"""Timeout of the management library's answer, in seconds: loading an NVIDIA driver takes some seconds, and a hanging
driver never answers."""
KILL_SECONDS = 1.0
"""Timeout for the end of a killed process that queries the library, in seconds: inside a hanging driver even SIGKILL
may not end it."""


def core_of(index: int, cores: Sequence[int]) -> int:
    """Returns the core of the `index`-th worker; if there are more workers than cores, they share cores round-robin."""
    return cores[index % len(cores)]


def visible_names(environment: Mapping[str, str]) -> list[str] | None:
    """Returns the GPUs in CUDA_VISIBLE_DEVICES, in its order: numbers, or prefixes of UUIDs; None if it is unset.

    Leading zeros of numbers are removed, so that one GPU has one number. As in CUDA, the list ends before the first
    entry that is neither, such as -1 or NoDevFiles.
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
    """Returns the value of CUDA_VISIBLE_DEVICES for the `index`-th worker, if each worker has `count` GPUs.

    `present`: the machine's GPUs; CUDA_VISIBLE_DEVICES in `environment` selects among them. Raises InputError if this
    worker needs more GPUs than are left, if the environment names a GPU twice (two engines would exceed its memory),
    or if a worker of several GPUs would get parts of GPUs (CUDA gives a process one part at most).
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
    """Raises InputError for a name that matches none or several of this machine's `gpus`, or two names of one GPU.

    `numbered_alike`: CUDA numbers the GPUs as the library does. If a GPU's UUID cannot be read, an unknown UUID passes:
    it may be that GPU's.
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
    """Sets `environment` so that the `index`-th worker can use exactly the `count` GPUs assigned to it.

    Raises InputError, see `gpus_of` and `check_names`. Does nothing on a machine without GPUs. Uses numbers unless
    CUDA_VISIBLE_DEVICES has names, since every version of the engine reads numbers. If the management library does not
    answer, the device files are counted. The numbers in their names are the kernel's, and not used: in a container with
    the fourth GPU alone the only file is /dev/nvidia3.
    """
    gpus = ask_gpus(ask_seconds)
    present = count_device_files(devices) if gpus is None else [gpu.name for gpu in gpus]
    if not present:
        return
    names = visible_names(environment)
    if names is not None and gpus is not None:
        # If CUDA_DEVICE_ORDER is unset, the code below sets it to the library's order.
        check_names(names, gpus, numbered_alike=environment.get(ORDER, PCI_ORDER) == PCI_ORDER)
    environment[VISIBLE] = gpus_of(index, count, present, environment)
    if names is not None:
        # The user's numbers follow nvidia-smi's order, unless CUDA_DEVICE_ORDER is set, too.
        environment.setdefault(ORDER, PCI_ORDER)
    else:
        environment[ORDER] = PCI_ORDER


def ask_gpus(seconds: float = ASK_SECONDS) -> list[Gpu] | None:
    """Returns the GPUs of this machine, from the management library, which uses no GPU. None without an answer within
    `seconds`: no library, no driver, no permission, or a driver that hangs.

    A separate process queries the library, so that the engine's processes cannot inherit the lock of a hanging call.
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
        listed, _ = process.communicate(timeout=seconds)
        return read_list(listed)
    except subprocess.TimeoutExpired:
        _LOG.warning(
            "the NVIDIA driver has not answered for %g s: GPUs are assigned by counting device files, "
            "without a check; see whether nvidia-smi answers, else reset the GPUs or restart the machine",
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
    """Returns the numbers from 0 on, one for each GPU device file in the folder."""
    files = [path for path in devices.glob("nvidia*") if re.fullmatch(r"nvidia\d+", path.name)]
    return [str(number) for number in range(len(files))]
