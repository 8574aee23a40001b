"""The number of a request's KV blocks in an engine with several KV groups."""

from hypothesis import given, settings
from hypothesis import strategies as st

from openseer_core.queue.kv_blocks import UNLIMITED, KvGroup, KvLayout, size_of, sizes_to_claim, whole

limits = st.sampled_from([0, 1, 3, 9, UNLIMITED])
groups = st.builds(
    KvGroup, st.sampled_from([1, 16, 48]), st.integers(1, 5), st.integers(0, 3), most=limits, most_computing=limits
)
layouts = st.builds(KvLayout, st.lists(groups, min_size=1, max_size=3).map(tuple))
counts = st.integers(0, 2000)


def test_full_attention_holds_every_token() -> None:
    assert [whole(16).blocks(tokens, tokens) for tokens in (0, 1, 16, 17, 1600)] == [0, 1, 1, 2, 100]


def test_a_window_holds_as_much_of_a_long_response_as_of_a_short_one() -> None:
    window = KvLayout((KvGroup(16, count=5, most=4, most_computing=10),))
    assert [window.blocks(tokens, 0) for tokens in (16, 64, 10_000)] == [5, 20, 20]
    # While the context is computed, more blocks are held, but at most those of the context.
    assert [window.blocks(10_000, computing) for computing in (16, 100, 160, 10_000)] == [20, 35, 50, 50]


@given(layouts, counts, counts, counts)
def test_more_tokens_never_take_fewer_blocks(layout: KvLayout, tokens: int, more: int, computing: int) -> None:
    assert layout.blocks(tokens, computing) <= layout.blocks(tokens + more, computing)
    assert layout.blocks(tokens, computing) <= layout.blocks(tokens, computing + more)


@given(layouts, st.integers(0, 300), st.integers(1, 3000))
def test_the_most_tokens_that_fit_do_fit_and_one_more_does_not(layout: KvLayout, blocks: int, most: int) -> None:
    tokens = layout.tokens(blocks, most)
    assert not tokens or layout.blocks(tokens, tokens) <= blocks
    assert tokens == most or layout.blocks(tokens + 1, tokens + 1) > blocks


@given(layouts, st.integers(0, 300), st.integers(1, 4000), st.integers(1, 8000))
def test_every_size_class_with_a_fitting_request_is_claimed(
    layout: KvLayout, blocks: int, context: int, tokens: int
) -> None:
    fits = tokens < context and layout.blocks(tokens, tokens) <= blocks
    for ends in (True, False):
        sizes = sizes_to_claim(blocks, layout, context, ends=ends)
        assert size_of(tokens) in sizes or not (fits or (tokens >= context and ends))
        assert len(sizes) == len(set(sizes))


@given(layouts, st.integers(1, 4000))
@settings(max_examples=30)
def test_no_size_past_the_context_is_claimed_without_ends(layout: KvLayout, context: int) -> None:
    assert all(2**size < context for size in sizes_to_claim(10**6, layout, context, ends=False))
