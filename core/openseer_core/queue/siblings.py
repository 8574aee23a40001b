"""What a group's responses share: the tokens of those that run elsewhere, and responses of earlier batches.

The tokens come from the same logs that `extend` writes, read by position: nothing is written for it, nothing can be
lost or come twice, and whoever joins late starts from 0. Earlier responses are kept per prompt, the newest first.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import NamedTuple

from openseer_core.ids import GroupId

EARLIER_SECONDS = 48 * 3600
"""How long responses to a prompt stay after the last one was kept: a prompt comes again once an epoch."""
EARLIER_TOKENS = 32_768
"""What is kept of one response: its first tokens, for that is where the next one to the prompt begins."""
DIGEST_BYTES = 16


@dataclass(frozen=True, slots=True)
class SiblingQuery:
    """A worker's query for the tokens that a group's responses have elsewhere.

    `known`: index and number of known tokens of each response that it does not run itself; the reply has what follows.
    `earlier`: also the responses of earlier batches to the same prompt.
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
    where the reply had no room for them: query again.
    """

    group: GroupId
    news: tuple[SiblingTokens, ...] = ()
    earlier: tuple[bytes, ...] | None = None


def prompt_digest(prompt: bytes) -> str:
    """The name under which responses to a prompt (int32 tokens) are kept; equal for equal tokens."""
    return blake2b(prompt, digest_size=DIGEST_BYTES).hexdigest()


def shares(needs: Sequence[int], room: int) -> list[int]:
    """How many tokens each of several logs may give of what is new in it, `room` in all.

    All of it where there is room; otherwise short ones give all, and long ones equally much.
    """
    given = [0] * len(needs)
    for done, log in enumerate(sorted(range(len(needs)), key=needs.__getitem__)):
        given[log] = min(needs[log], room // (len(needs) - done))
        room -= given[log]
    return given
