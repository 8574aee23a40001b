"""The automaton compared with brute force: the count and the most frequent next token of every substring."""

from collections import Counter

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from tests.draft.automata import Automaton

TEXTS = st.lists(st.lists(st.integers(0, 2), max_size=12), min_size=1, max_size=4)
PIECES = st.lists(st.tuples(st.integers(0, 3), st.lists(st.integers(0, 2), min_size=1, max_size=4)), max_size=10)


def substrings(texts: list[list[int]]) -> Counter[tuple[int, ...]]:
    return Counter(
        tuple(text[start:stop])
        for text in texts
        for start in range(len(text))
        for stop in range(start + 1, len(text) + 1)
    )


def check_against_brute_force(automaton: Automaton, texts: list[list[int]]) -> None:
    counts = substrings(texts)
    for text, count in counts.items():
        assert automaton.count(text) == count, text
        following = {token: counts[(*text, token)] for token in range(3)}
        best = automaton.best_next(text)
        if max(following.values()):
            assert best is not None
            assert following[best] == max(following.values()), text
        else:
            assert best is None


@given(TEXTS)
def test_every_substring_has_its_count_and_most_frequent_next_token(texts: list[list[int]]) -> None:
    automaton = Automaton()
    for number, text in enumerate(texts):
        automaton.append(number, text)
    check_against_brute_force(automaton, texts)


@given(PIECES)
def test_texts_that_grow_in_turns_equal_texts_appended_whole(pieces: list[tuple[int, list[int]]]) -> None:
    automaton = Automaton()
    texts: dict[int, list[int]] = {}
    for number, piece in pieces:
        automaton.append(number, piece)
        texts.setdefault(number, []).extend(piece)
    check_against_brute_force(automaton, list(texts.values()))


@given(TEXTS)
def test_a_sequence_that_does_not_occur_is_not_found(texts: list[list[int]]) -> None:
    automaton = Automaton()
    for number, text in enumerate(texts):
        automaton.append(number, text)
    counts = substrings(texts)
    for text in ([0, 1, 2, 0, 1], [2, 2, 2, 2], [1, 0, 1, 0, 1, 0]):
        assert automaton.count(text) == counts[tuple(text)]


@given(TEXTS)
def test_the_end_of_a_text_has_its_longest_suffix_found_elsewhere(texts: list[list[int]]) -> None:
    automaton = Automaton()
    for number, text in enumerate(texts):
        automaton.append(number, text)
    counts = substrings(texts)
    for number, text in enumerate(texts):
        if not text:
            continue
        repeated = [n for n in range(1, len(text) + 1) if counts[tuple(text[-n:])] > counts[tuple(text)]]
        assert automaton.longest_match(number) == max(repeated, default=0)


@given(st.lists(TEXTS, min_size=2, max_size=5))
def test_memory_of_freed_groups_is_reused_without_old_data(batches: list[list[list[int]]]) -> None:
    automaton = Automaton(memory_bytes=200_000)
    for texts in batches:
        for number, text in enumerate(texts):
            automaton.append(number, text)
        check_against_brute_force(automaton, texts)
        automaton.free()
    assert automaton.used_bytes() == 0


def test_a_full_memory_is_reported_and_stored_texts_stay_exact() -> None:
    automaton = Automaton(memory_bytes=60_000)
    chance = np.random.default_rng(1)
    text = [int(token) for token in chance.integers(0, 3, 5_000)]
    done = automaton.append(0, text)
    assert 100 < done < len(text)
    assert automaton.used_bytes() <= 60_000
    head = text[:40]
    assert automaton.count(head) == 1


def test_a_long_run_of_one_token_costs_no_more_per_token_than_other_text() -> None:
    automaton = Automaton()
    automaton.append(0, [1] * 20_000)
    assert automaton.count([1]) >= 1
    assert automaton.best_next([1] * 100) == 1
    assert automaton.longest_match(0) == 19_999
    assert automaton.count([1] * 19_990) == 11
