"""A drafter with an engine's table of texts beside it, driven step by step."""

from collections.abc import Sequence

import numpy as np

from openseer_draft.drafter import Drafter

PROMPT = [90, 91, 92, 93]
LONGEST_TEXT = 4096


def pack(tokens: Sequence[int]) -> bytes:
    return np.array(tokens, "<i4").tobytes()


class Desk:
    """A drafter and its live requests; each request has its own row of the table."""

    def __init__(
        self, *, slots: int = 16, max_tokens: int = 8, memory_bytes: int = 16 * 2**20, adaptive: bool = False
    ) -> None:
        self.drafter = Drafter(slots=slots, max_tokens=max_tokens, memory_bytes=memory_bytes, adaptive=adaptive)
        self._texts = np.zeros((slots, LONGEST_TEXT), np.int32)
        self._lengths: dict[int, int] = {}

    def open(self, group: str, index: int, tokens: Sequence[int] = (), prompt: Sequence[int] = PROMPT) -> int:
        context = np.array([*prompt, *tokens], np.int32)
        slot = self.drafter.open(group, index, context, len(prompt))
        self._texts[slot, : len(context)] = context
        self._lengths[slot] = len(context)
        return slot

    def close(self, slot: int) -> None:
        del self._lengths[slot]
        self.drafter.close(slot)

    def step(self, gained: dict[int, Sequence[int]], seconds: float = 0.0) -> dict[int, list[int]]:
        """Appends the gained tokens to the live requests; returns the drafts that follow them, by slot."""
        for slot, tokens in gained.items():
            start = self._lengths[slot]
            self._texts[slot, start : start + len(tokens)] = tokens
            self._lengths[slot] += len(tokens)
        slots = np.array(sorted(self._lengths), np.int32)
        ends = np.array([self._lengths[slot] for slot in slots.tolist()], np.int32)
        drafts = self.drafter.step(slots, self._texts, slots, ends, seconds)
        return {
            slot: row[:length]
            for slot, row, length in zip(slots.tolist(), drafts.tokens.tolist(), drafts.lengths.tolist(), strict=True)
        }

    def play(self, slot: int, response: Sequence[int], done: int = 0, seconds: float = 0.0) -> int:
        """Generates a whole response as an engine that accepts right drafts; returns the number of steps."""
        drafts = self.step({}, seconds)[slot]
        steps = 0
        while done < len(response):
            accepted = 0
            while (
                accepted < min(len(drafts), len(response) - done - 1) and drafts[accepted] == response[done + accepted]
            ):
                accepted += 1
            gained = response[done : done + accepted + 1]
            done += len(gained)
            steps += 1
            drafts = self.step({slot: gained}, seconds)[slot]
        return steps
