"""Tokens from which a group's responses are drafted: of siblings on other workers, and of earlier batches.

The siblings' tokens are read from the logs that `extend` writes. A reader names its position in each log, so it misses
no token and gets none twice; a new reader starts at 0. Reading needs no writes. Earlier responses are stored per
prompt, the newest first.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import NamedTuple

from openseer_core.ids import GroupId

EARLIER_SECONDS = 48 * 3600
"""Time in seconds after which the responses to a prompt expire. Chosen to be longer than most passes of a
training over its prompts."""
EARLIER_TOKENS = 32_768
"""Limit of stored tokens per response. The first tokens are stored, because the next response to the prompt is drafted
from its start on."""
DIGEST_BYTES = 16


@dataclass(frozen=True, slots=True)
class SiblingQuery:
    """A worker's query for the tokens of a group's responses that other workers generate.

    `known`: for each response that the worker does not run, its index and its number of known tokens; the reply
    contains the later tokens. `earlier`: also query the responses of earlier batches to the same prompt.
    """

    group: GroupId
    known: tuple[tuple[int, int], ...] = ()
    earlier: bool = False


class SiblingTokens(NamedTuple):
    """New int32 tokens of one response, from token `position` on; `response_index`: its index within the group."""

    response_index: int
    position: int
    tokens: bytes


@dataclass(frozen=True, slots=True)
class Siblings:
    """The reply to a query. `news`: the new tokens of each response that has any.

    `earlier`: responses of earlier batches, int32 tokens, newest first; None if the query did not include them, or if
    the reply had no room for them: query again.
    """

    group: GroupId
    news: tuple[SiblingTokens, ...] = ()
    earlier: tuple[bytes, ...] | None = None


def prompt_digest(prompt: bytes) -> str:
    """The key of the responses to a prompt (int32 tokens); equal for equal tokens."""
    return blake2b(prompt, digest_size=DIGEST_BYTES).hexdigest()


def shares(needs: Sequence[int], room: int) -> list[int]:
    """The number of new tokens that each of several logs may return, `room` in total.

    If the room suffices, all new tokens; otherwise short logs return all their tokens and long logs equal numbers.
    """
    given = [0] * len(needs)
    for done, log in enumerate(sorted(range(len(needs)), key=needs.__getitem__)):
        given[log] = min(needs[log], room // (len(needs) - done))
        room -= given[log]
    return given
