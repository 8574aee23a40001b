"""Tokens that the responses of a group share: those of siblings elsewhere, and responses of earlier batches.

The tokens come from the logs that `extend` writes, read by position: sharing writes nothing, so no token is lost or
delivered twice, and a late reader starts from 0. Earlier responses are stored per prompt, the newest first.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import NamedTuple

from openseer_core.ids import GroupId

EARLIER_SECONDS = 48 * 3600
"""Time in seconds after which responses to a prompt expire. Longer than one pass over the training data, in which each
prompt occurs once."""
EARLIER_TOKENS = 32_768
"""Limit of stored tokens per response: its first ones, because the next response to the prompt begins there."""
DIGEST_BYTES = 16


@dataclass(frozen=True, slots=True)
class SiblingQuery:
    """A worker's query for the tokens of a group's responses that other workers generate.

    `known`: for each response that the worker does not run, its index and its number of known tokens; the reply holds
    the tokens after these. `earlier`: also the responses of earlier batches to the same prompt.
    """

    group: GroupId
    known: tuple[tuple[int, int], ...] = ()
    earlier: bool = False


class SiblingTokens(NamedTuple):
    """New int32 tokens of one response of a group, from token `position` on; `response_index`: within the group."""

    response_index: int
    position: int
    tokens: bytes


@dataclass(frozen=True, slots=True)
class Siblings:
    """The reply to a query. `news`: the new tokens of each response that has any.

    `earlier`: responses of earlier batches, int32 tokens, newest first; None where the query did not ask for them, or
    where the reply had no room: query again.
    """

    group: GroupId
    news: tuple[SiblingTokens, ...] = ()
    earlier: tuple[bytes, ...] | None = None


def prompt_digest(prompt: bytes) -> str:
    """The key of the responses to a prompt (int32 tokens); equal for equal tokens."""
    return blake2b(prompt, digest_size=DIGEST_BYTES).hexdigest()


def shares(needs: Sequence[int], room: int) -> list[int]:
    """The number of new tokens that each of several logs may return, `room` in total.

    All new tokens where the room suffices; otherwise short logs return all of theirs and long ones equal numbers.
    """
    given = [0] * len(needs)
    for done, log in enumerate(sorted(range(len(needs)), key=needs.__getitem__)):
        given[log] = min(needs[log], room // (len(needs) - done))
        room -= given[log]
    return given
