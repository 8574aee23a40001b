"""How long a group's responses are expected to be (Seer, section 3.2), how long they may be, when news is told."""

from openseer_core.queue.group import GroupView

STEP = 1.25
"""A running response is reported as a lower bound each time it grew by this factor: O(log length) writes."""

POSSIBLE = 6
"""How many times as long as the longest sibling so far a response may be, as far as the order goes: two standard
deviations where the lengths of a group spread by a factor of 2.4 about their typical one (docs/decisions/0028)."""

POSSIBLE_OF_KNOWN = 4
"""The same where responses of earlier batches to the prompt are known, and the longest of them counts like a sibling:
a whole group tells more than its first ones."""

FIRST_BOUND = 64
"""Below this many tokens a running response says nothing about its group."""


def estimate(view: GroupView) -> int:
    """Expected length in tokens: the longest finished response; before the first one the longest of earlier batches
    to the same prompt, where one is kept, else max_tokens.

    A running sibling that is longer already raises it, which the paper's estimate does not use.
    """
    known = view.longest_finished if view.finished else view.longest_earlier or view.max_tokens
    return min(max(known, view.longest_running), view.max_tokens)


def expected_of(view: GroupView, unfinished: int) -> tuple[int, int]:
    """Of so many unfinished responses of a group: of how many the length is known, all or none, and their tokens."""
    if not view.finished and not view.longest_earlier:
        return 0, 0
    return unfinished, unfinished * estimate(view)


def longest_possible(view: GroupView) -> int:
    """The most tokens that a response of the group is to be reckoned with: max_tokens until anything is known of it."""
    if view.longest_earlier:
        return min(POSSIBLE_OF_KNOWN * max(estimate(view), view.longest_earlier), view.max_tokens)
    return min(POSSIBLE * estimate(view), view.max_tokens)


def is_news(view: GroupView, generated: int) -> bool:
    """Whether a running response at `generated` tokens would change its group's estimate by a full step.

    Never while the estimate is max_tokens, which no response exceeds.
    """
    return generated >= FIRST_BOUND and generated >= STEP * estimate(view)
