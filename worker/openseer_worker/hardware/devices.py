"""Which of a machine's processors a local worker gets: a core each on a CPU, the next GPUs on a GPU machine."""

from collections.abc import Mapping, Sequence

from openseer_core.errors import InputError

VISIBLE = "CUDA_VISIBLE_DEVICES"


def core_of(index: int, cores: Sequence[int]) -> int:
    """The core of the `index`-th worker; with more workers than cores they take turns."""
    return cores[index % len(cores)]


def gpus_of(index: int, count: int, present: Sequence[str], environment: Mapping[str, str]) -> str:
    """The value of CUDA_VISIBLE_DEVICES for the `index`-th worker of `count` GPUs.

    `present`: the machine's GPUs; what the environment makes visible narrows them. Raises InputError when the
    workers together ask for more than there are: two engines on one GPU would run out of its memory.
    """
    visible = [name.strip() for name in environment.get(VISIBLE, ",".join(present)).split(",") if name.strip()]
    mine = visible[index * count : (index + 1) * count]
    if len(mine) < count:
        raise InputError(
            f"spec.workers.replicas: worker {index} needs {count} GPU{'s' if count > 1 else ''} of its own, "
            f"and {len(visible)} are visible on this machine; lower replicas or parallelism"
        )
    return ",".join(mine)
