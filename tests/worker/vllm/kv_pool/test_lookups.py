"""The scheduler's side of the connector: a request's fetched and stored blocks; it never waits for the pool."""

import functools
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from openseer_worker.kv_pool import rates
from openseer_worker.kv_pool.breaker import FAILURES
from openseer_worker.kv_pool.directory import DirectoryBlocks
from openseer_worker.kv_pool.places import block_name
from openseer_worker.vllm.environment import is_cpu_build, prepare

pytestmark = [
    pytest.mark.engine,
    # Import warnings of vLLM, torch and their compiled modules.
    pytest.mark.filterwarnings("default"),
    pytest.mark.skipif(not is_cpu_build(), reason="needs the CPU build of vLLM"),
]

BLOCK, LEAST = 16, 48
PLACE = "1/v/g"


@functools.cache
def module() -> Any:
    prepare()
    from openseer_worker.vllm.kv_pool import lookups  # noqa: PLC0415 - heavy

    return lookups


def request(tokens: int, place: str = PLACE, name: str = "one") -> Any:
    """The connector's view of a request of vLLM with so many tokens."""
    hashes = [number.to_bytes(2, "big") for number in range(tokens // BLOCK)]
    params = SimpleNamespace(extra_args={"kv_place": place})
    return SimpleNamespace(
        request_id=name, sampling_params=params, num_tokens=tokens, num_computed_tokens=0, block_hashes=hashes
    )


def block_ids(_name: str) -> tuple[range]:
    return (range(100, 200),)


def scheduled(*names: str, tokens: int = 1, preempted: set[str] | None = None) -> Any:
    """The connector's view of vLLM's output of a step: a request's block n has the id 100 + n."""
    return SimpleNamespace(
        num_scheduled_tokens=dict.fromkeys(names, tokens),
        total_num_scheduled_tokens=tokens * len(names),
        kv_connector_block_state=SimpleNamespace(get_block_ids=block_ids),
        preempted_req_ids=preempted,
    )


@pytest.fixture
def lookups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.setattr(rates, "TRIAL_EVERY", 1)
    made = module().Lookups(DirectoryBlocks(tmp_path), "layout", 1, BLOCK, LEAST)
    yield made
    made.close()


def keep(folder: Path, blocks: int) -> None:
    (folder / PLACE).mkdir(parents=True, exist_ok=True)
    for number in range(blocks):
        (folder / PLACE / block_name(number.to_bytes(2, "big").hex(), "layout", 0)).touch()


REQUESTS: dict[str, Any] = {}
"""Those that `fetched` has made."""


def fetched(lookups: Any, *names: str) -> list[Any]:
    """Running fetches of these requests, of five blocks each, as the worker's side gets them."""
    loads: list[Any] = []
    for number, name in enumerate(names):
        one = REQUESTS[name] = request(200, name=name)
        lookups.add(one)
        assert find(lookups, one) == (5 * BLOCK, True)
        lookups.allocated(one, range(100 * (number + 1), 100 * (number + 1) + 13), 5 * BLOCK)
        loads += lookups.step(scheduled()).loads
    return loads


def find(lookups: Any, found: Any, computed: int = 0) -> tuple[int, bool]:
    """Repeats the lookup until it has an answer."""
    end = time.monotonic() + 60
    while (answer := lookups.find(found, computed))[0] is None:
        assert time.monotonic() < end
        lookups.step(scheduled())
    return answer


def test_existing_blocks_are_found(lookups: Any, tmp_path: Path) -> None:
    keep(tmp_path, 5)
    one = request(200)
    lookups.add(one)
    assert find(lookups, one) == (5 * BLOCK, True)


def test_the_pool_is_opened_before_the_first_request(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reached = threading.Event()

    def reach(*_arguments: Any) -> int:
        reached.set()
        return 0

    monkeypatch.setattr(DirectoryBlocks, "count_present", reach)
    made = module().Lookups(DirectoryBlocks(tmp_path), "layout", 1, BLOCK, LEAST)
    try:
        assert reached.wait(60)
    finally:
        made.close()


def test_the_last_token_is_never_fetched(lookups: Any, tmp_path: Path) -> None:
    keep(tmp_path, 5)
    one = request(5 * BLOCK)
    lookups.add(one)
    assert find(lookups, one) == (4 * BLOCK, True)


def test_blocks_in_the_engines_own_cache_are_not_fetched(lookups: Any, tmp_path: Path) -> None:
    keep(tmp_path, 6)
    one = request(200)
    lookups.add(one)
    assert find(lookups, one, computed=2 * BLOCK) == (4 * BLOCK, True)


@pytest.mark.parametrize(("there", "computed"), [(2, 0), (12, 160), (0, 0)])
def test_a_few_tokens_are_not_worth_a_fetch(lookups: Any, tmp_path: Path, there: int, computed: int) -> None:
    keep(tmp_path, there)
    one = request(200)
    lookups.add(one)
    assert find(lookups, one, computed) == (0, False)


def test_a_request_without_a_place_is_neither_fetched_nor_kept(lookups: Any, tmp_path: Path) -> None:
    keep(tmp_path, 5)
    one = request(200, place="")
    lookups.add(one)
    assert lookups.find(one, 0) == (0, False)
    one.num_computed_tokens = 160
    assert lookups.step(scheduled("one")).saves == []


def test_a_hanging_listing_is_not_waited_for(lookups: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module(), "LOOKUP_SECONDS", 0.05)
    hold = threading.Event()

    def hang(*_arguments: Any) -> int:
        hold.wait()
        return 0

    monkeypatch.setattr(DirectoryBlocks, "count_present", hang)
    try:
        for number in range(FAILURES):
            one = request(200, name=str(number))
            lookups.add(one)
            assert find(lookups, one) == (0, False)
        another = request(200, name="another")
        lookups.add(another)
        assert lookups.find(another, 0) == (0, False), "the pool was read although it is disabled"
    finally:
        hold.set()


def test_a_request_without_free_blocks_is_fetched_later(lookups: Any, tmp_path: Path) -> None:
    keep(tmp_path, 5)
    one = request(200)
    lookups.add(one)
    for _ in range(3):
        assert find(lookups, one) == (5 * BLOCK, True)
    lookups.end("one")
    [load] = fetched(lookups, "one")
    assert (load.request, load.place, load.ids) == ("one", PLACE, [100, 101, 102, 103, 104])
    assert load.hashes == [number.to_bytes(2, "big").hex() for number in range(5)]


def test_a_fetch_is_tried_once(lookups: Any, tmp_path: Path) -> None:
    keep(tmp_path, 5)
    [load] = fetched(lookups, "one")
    lookups.note({"one"}, {103})
    assert lookups.find(REQUESTS[load.request], 0) == (0, False), "a wrong block would be fetched without end"


def is_out(lookups: Any) -> bool:
    """Whether the pool is disabled: another request is not looked up."""
    another = request(200, name="another")
    lookups.add(another)
    answer = lookups.find(another, 0)
    lookups.end("another")
    return bool(answer == (0, False))


def test_each_failed_fetch_of_a_step_counts_as_a_failure(lookups: Any, tmp_path: Path) -> None:
    """Several fetches end in one step. One of them misses a block: the pool has failed once and answered since."""
    keep(tmp_path, 5)
    names = [f"request {number}" for number in range(2 * FAILURES)]
    loads = fetched(lookups, *names)
    lookups.note(names, {loads[0].ids[3]})
    assert not is_out(lookups)
    loads = fetched(lookups, *(again := [f"{name} again" for name in names]))
    lookups.note(again, {load.ids[3] for load in loads})
    assert is_out(lookups)


def test_missing_blocks_of_an_ended_request_are_no_failure(lookups: Any, tmp_path: Path) -> None:
    """New weights abandon all fetches of requests that were aborted before."""
    keep(tmp_path, 5)
    names = [f"request {number}" for number in range(FAILURES)]
    loads = fetched(lookups, *names)
    for name in names:
        lookups.end(name)
    lookups.note(names, {block for load in loads for block in load.ids})
    assert not is_out(lookups)


def test_missing_blocks_of_one_rank_fail_the_fetch_of_all_ranks(lookups: Any, tmp_path: Path) -> None:
    """With several ranks, missing blocks are reported before the last rank has ended."""
    keep(tmp_path, 5)
    names = [f"request {number}" for number in range(FAILURES)]
    for load in fetched(lookups, *names):
        lookups.note((), {load.ids[0]})
        lookups.note({load.request}, ())
    assert is_out(lookups)


def test_blocks_are_stored_once_full(lookups: Any) -> None:
    one = request(200)
    lookups.add(one)
    assert lookups.step(scheduled("one")).saves == []
    one.num_computed_tokens = 5 * BLOCK + 3
    [saved] = lookups.step(scheduled("one")).saves
    assert (saved.place, saved.ids, saved.first) == (PLACE, [100, 101, 102, 103, 104], 0)
    one.num_computed_tokens = 7 * BLOCK
    [saved] = lookups.step(scheduled("one")).saves
    assert (saved.ids, saved.first) == ([105, 106], 5)
    assert lookups.step(scheduled("one")).saves == []
    assert lookups.step(scheduled()).saves == []


def test_cached_blocks_of_another_group_are_stored_once(lookups: Any) -> None:
    """Groups may share prompts; without its first blocks a group could not be fetched elsewhere."""
    for name, kept in (("one", [[100, 101, 102]]), ("sibling", [])):
        one = request(200, name=name)
        lookups.add(one)
        one.num_computed_tokens = 3 * BLOCK  # from the engine's own cache
        assert [saved.ids for saved in lookups.step(scheduled(name)).saves] == kept


def test_fetched_blocks_are_not_stored_again(lookups: Any, tmp_path: Path) -> None:
    keep(tmp_path, 5)
    [load] = fetched(lookups, "one")
    lookups.note({"one"}, ())
    REQUESTS["one"].num_computed_tokens = 5 * BLOCK
    assert lookups.step(scheduled("one")).saves == []
    assert load.first == 0


def test_memory_of_begun_groups_is_limited(lookups: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module(), "MOST_PLACES", 2)
    kept: list[int] = []
    for place in ("a", "b", "c", "c", "a"):
        one = request(200, place, place)
        lookups.add(one)
        one.num_computed_tokens = 3 * BLOCK
        kept.append(len(lookups.step(scheduled(place)).saves))
        lookups.end(place)
    assert kept == [1, 1, 1, 0, 1]


def test_a_block_with_unverified_tokens_is_not_stored(lookups: Any) -> None:
    one = request(4 * BLOCK + 5)
    lookups.add(one)
    lookups.step(scheduled("one"))
    one.num_computed_tokens = 6 * BLOCK  # unverified drafts are computed, too
    [saved] = lookups.step(scheduled("one")).saves
    assert saved.ids == [100, 101, 102, 103]


def test_a_request_that_ends_during_its_fetch_is_reported(lookups: Any, tmp_path: Path) -> None:
    keep(tmp_path, 5)
    fetched(lookups, "one")
    lookups.end("one")
    assert lookups.step(scheduled()).gone == ["one"]
    lookups.note({"one"}, set())
    lookups.end("one")
    assert lookups.step(scheduled()).gone == []


def test_ended_and_preempted_requests_release_their_blocks(lookups: Any) -> None:
    for name in ("one", "two"):
        lookups.add(request(4 * BLOCK, name=name))
    lookups.end("one")
    assert lookups.step(scheduled(preempted={"two", "not in the pool"})).gone == ["one", "two"]
