"""Sends a file's groups for `openseer submit`, and cleans up or advises if the API refuses them."""

import re
from contextlib import suppress

from openseer_client import BatchHandle
from openseer_client.errors import ApiError
from openseer_core.errors import InputError, OpenseerError, PromptsError
from openseer_core.wire.batches import UploadReceipt
from openseer_local.remote.displays import BatchDisplay
from openseer_local.remote.upload import GroupsFile
from openseer_local.terminal.console import ERR


def send(handle: BatchHandle, groups: GroupsFile, display: BatchDisplay, *, is_own: bool) -> UploadReceipt:
    """Sends all groups. `is_own`: the batch was opened only for these groups and is deleted if the API refuses them.

    Raises InputError for a refusal, with file and line if known; else OpenseerError.
    """
    try:
        return handle.submit(display.count("groups sent", groups, groups.count))
    except (OpenseerError, KeyboardInterrupt) as error:
        left = _left_behind(handle, error, is_own=is_own)
        if isinstance(error, OpenseerError) and error.exit_code == InputError.exit_code:
            raise InputError(f"{_placed(error, groups)}\n{left}") from error
        ERR.print(f"note: {left}", highlight=False, markup=False)
        raise


def _left_behind(handle: BatchHandle, error: BaseException, *, is_own: bool) -> str:
    """Deletes the batch if it is `is_own` and a retry would fail, too. Returns a note on the batch."""
    if is_own and isinstance(error, OpenseerError) and not error.retryable:
        with suppress(OpenseerError):
            handle.forget()
            return f"batch {handle.id}, which was opened for them, is cancelled and deleted"
    again = f"the command with --batch {handle.id}" if is_own else "the same command"
    return f"batch {handle.id} has a part of the groups: {again} sends the rest, `openseer cancel {handle.id}` ends it"


def _placed(error: OpenseerError, groups: GroupsFile) -> str:
    """Returns the text of a refusal, after the file and line of the group that it names."""
    detail = error.problem.detail if isinstance(error, ApiError) else None
    named = re.match(r"group (\S+): ", detail or "")
    if detail is None or named is None:
        return str(error)
    with suppress(PromptsError):
        if place := groups.place_of(named[1]):
            return f"{place}: {detail}"
    return detail
