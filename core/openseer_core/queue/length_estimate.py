"""The expected and the longest possible length of a group's responses, learned while the group runs.

Problem: a rollout ends with its longest response, so long responses must start early; but no length is known before the
response ends.

Idea: responses to one prompt have similar lengths. The first request of each group, the probe, is queued ahead of all
its siblings. The length of the longest finished response is the group's *estimate*; a longer running sibling raises the
estimate. The order does not use the estimate itself but the *longest possible* length, a multiple of the estimate,
because a response several times as long as its siblings must not start last (docs/decisions/0028).

Example: max_tokens 32768. Before a response has finished, estimate and longest possible are 32768. The probe finishes
with 2000 tokens: the estimate becomes 2000, longest possible 6 * 2000 = 12000. A running sibling reaches 2500 =
1.25 * 2000 tokens: its worker reports it, the estimate becomes 2500, longest possible 15000. The next report follows at
3125 tokens. Since each report needs 1.25 times the previous length, a running response costs O(log length) reports. A
second sibling finishes with 900 tokens: nothing changes, because the estimate is the longest response.

If the store keeps responses of earlier batches to the prompt, the longest of them counts from the start: if it has 4000
tokens, the estimate is 4000 and longest possible 4 * 4000 = 16000 before any sibling has finished. If the first sibling
then finishes with 900 tokens, the estimate becomes 900; longest possible stays 16000, because it also counts the
earlier responses. Source: Seer, section 3.2, where the estimate is the longest finished response of the group.
"""

from openseer_core.queue.group import GroupView

STEP = 1.25
"""A running response is reported when it has STEP times its group's estimate, so O(log length) times."""

POSSIBLE = 6
"""Ratio of the longest possible response to the longest sibling so far. Chosen among simulated values from 1 to 8
(docs/decisions/0028)."""

POSSIBLE_OF_KNOWN = 4
"""The same ratio if responses of earlier batches to the prompt are known; the longest of them counts as a sibling.
Smaller than POSSIBLE: all lengths of an earlier group are known, but in a running group the short responses finish
first."""

FIRST_BOUND = 64
"""Length in tokens below which a running response is not reported."""


def estimate(view: GroupView) -> int:
    """Expected length in tokens: that of the longest finished response; before the first one that of the longest
    response of earlier batches to the same prompt, or max_tokens if none is known.

    A longer running sibling raises it; the paper's estimate does not use running siblings.
    """
    known = view.longest_finished if view.finished else view.longest_earlier or view.max_tokens
    return min(max(known, view.longest_running), view.max_tokens)


def expected_of(view: GroupView, unfinished: int) -> tuple[int, int]:
    """Expected tokens of `unfinished` responses of a group.

    Returns (number of them that have an estimate: `unfinished` or 0, their expected total tokens at their end).
    """
    if not view.finished and not view.longest_earlier:
        return 0, 0
    return unfinished, unfinished * estimate(view)


def longest_possible(view: GroupView) -> int:
    """The longest possible response of the group, in tokens, for the order; max_tokens while no length is known."""
    if view.longest_earlier:
        return min(POSSIBLE_OF_KNOWN * max(estimate(view), view.longest_earlier), view.max_tokens)
    return min(POSSIBLE * estimate(view), view.max_tokens)


def is_news(view: GroupView, generated: int) -> bool:
    """Whether a running response of `generated` tokens would raise its group's estimate by the factor STEP.

    False while the estimate is max_tokens, which no response exceeds.
    """
    return generated >= FIRST_BOUND and generated >= STEP * estimate(view)
