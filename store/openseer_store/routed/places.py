"""The folders of rows: <batch>/<group>/<file>, with the batch and the name with which the group was submitted.

So the rows of a group that was carried to another batch are found. The name of a lease's file is computed from the
store's chunk of the lease. The name of a prompt's file is computed from the weights version and the prompt's tokens.
"""

from hashlib import blake2b
from pathlib import Path

from openseer_core.ids import GroupId, RequestId

_DIGEST_BYTES = 12


def digest(text: str | bytes) -> str:
    """A short name for a text: 24 hexadecimal digits of its hash."""
    data = text.encode() if isinstance(text, str) else text
    return blake2b(data, digest_size=_DIGEST_BYTES).hexdigest()


def job_folder(root: str, job: str) -> Path:
    """The folder of a job's rows within `root`. `job`: a name that is unique among the jobs that share `root`."""
    return Path(root) / digest(job)


def group_folder(folder: Path, group: GroupId) -> Path:
    """The folder of a group within its job's folder."""
    first = group.origin or group
    return folder / str(first.batch) / digest(first.name)


def lease_file(request: RequestId, start: int, fence: int, worker: str) -> str:
    """The file of a lease. `start`: tokens of the response at the start of the lease; `worker`: "name#boot"."""
    return f"{request.index}.{start}.{fence}.{digest(worker)}"


def prompt_file(version: str, prompt: bytes) -> str:
    """The file of a prompt's rows for a weights version."""
    return f"prompt.{digest(version.encode() + bytes([0]) + prompt)}"


def context_file(version: str, context: bytes) -> str:
    """The file with the rows of appended tokens, which are the last tokens of `context` (prompt included). Another
    response of the group with the same context reuses the file."""
    return f"context.{digest(version.encode() + bytes([0]) + context)}"
