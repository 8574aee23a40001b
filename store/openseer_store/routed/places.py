"""The folders of rows: <batch>/<group>/<file>, by the batch and the name that a group was submitted with.

So a group carried to another batch finds its rows. The name of a lease's file follows from the store's chunk of the
lease; that of a prompt's file from the weights and the tokens that its rows were computed from.
"""

from hashlib import blake2b
from pathlib import Path

from openseer_core.ids import GroupId, RequestId

_DIGEST_BYTES = 12


def digest(text: str | bytes) -> str:
    """A short name, 24 hexadecimal digits."""
    data = text.encode() if isinstance(text, str) else text
    return blake2b(data, digest_size=_DIGEST_BYTES).hexdigest()


def job_folder(root: str, job: str) -> Path:
    """The folder of a job's rows within `root`, which several jobs share. `job`: unique among them."""
    return Path(root) / digest(job)


def group_folder(folder: Path, group: GroupId) -> Path:
    """The folder of a group within its job's."""
    first = group.origin or group
    return folder / str(first.batch) / digest(first.name)


def lease_file(request: RequestId, start: int, fence: int, worker: str) -> str:
    """The file of a lease: the response had `start` tokens when it began; `worker`: "name#boot"."""
    return f"{request.index}.{start}.{fence}.{digest(worker)}"


def prompt_file(version: str, prompt: bytes) -> str:
    """The file of a prompt's rows for a weights version."""
    return f"prompt.{digest(version.encode() + bytes([0]) + prompt)}"


def context_file(version: str, context: bytes) -> str:
    """The file of rows of tokens that were appended to a response and end this context, prompt included: another
    response of the group with the same context reuses them."""
    return f"context.{digest(version.encode() + bytes([0]) + context)}"
