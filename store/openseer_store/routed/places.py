"""Where rows lie in a job's folder: <batch>/<group>/<file>, by the batch and the name that a group was submitted with.

So a group that is carried to another batch finds what it has. A lease's file is named so that the store's chunk of that
lease names it, too; a prompt's by the weights and the tokens that its rows were computed with and from.
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
    """The folder of a job's rows in one that several jobs use. `job`: what tells it from all others there."""
    return Path(root) / digest(job)


def group_folder(folder: Path, group: GroupId) -> Path:
    """The folder of a group in that of its job."""
    first = group.origin or group
    return folder / str(first.batch) / digest(first.name)


def lease_file(request: RequestId, start: int, fence: int, worker: str) -> str:
    """The file of a lease: `start` tokens of response were there when it began; `worker`: "name#boot"."""
    return f"{request.index}.{start}.{fence}.{digest(worker)}"


def prompt_file(version: str, prompt: bytes) -> str:
    """The file of a prompt's rows with weights of a version."""
    return f"prompt.{digest(version.encode() + bytes([0]) + prompt)}"


def context_file(version: str, context: bytes) -> str:
    """The file of rows of tokens that end this context, prompt included, and were appended to a response: another
    response of the group with the same context finds them computed."""
    return f"context.{digest(version.encode() + bytes([0]) + context)}"
