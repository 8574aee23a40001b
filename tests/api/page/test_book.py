"""Facts from a batch's journal: rows of leases, groups by state, lengths."""

from hypothesis import given
from hypothesis import strategies as some

from openseer_api.page.book import WORDS, BatchBook, LeaseRows, bin_of, edge_of
from openseer_core.ids import GroupId
from openseer_core.queue.group import GroupView
from openseer_core.queue.messages import JournalEntry
from openseer_core.queue.states import Event

SIZE = 3


def view(name: str, size: int = SIZE) -> GroupView:
    return GroupView(GroupId(1, name), 0, 0, size, 1000, 0.0)


def entry(at: float, event: str, request: str, worker: str = "worker-0#a", length: int = 0) -> JournalEntry:
    return JournalEntry(at, event, request, worker, 1, length)


def book_of(*entries: JournalEntry, groups: tuple[str, ...] = ("a", "b")) -> tuple[BatchBook, LeaseRows]:
    leases = LeaseRows()
    book = BatchBook(1, leases)
    book.learn(len(groups), map(view, groups))
    book.note(entries)
    return book, leases


@given(some.lists(some.tuples(some.sampled_from(sorted(WORDS)), some.integers(0, 5), some.integers(0, 2)), max_size=60))
def test_no_two_leases_of_a_worker_share_a_row_at_a_time(events: list[tuple[str, int, int]]) -> None:
    entries = [
        entry(float(at), event, f"1/{'ab'[request // SIZE]}/{request % SIZE}", f"worker-{worker}#a")
        for at, (event, request, worker) in enumerate(events)
    ]
    _, leases = book_of(*entries)
    bars = [*leases.ended, *leases.running.values()]
    for bar in bars:
        for other in bars:
            if bar is not other and (bar.worker, bar.row) == (other.worker, other.row):
                first, second = sorted((bar, other), key=lambda one: one.start)
                assert first.end is not None
                assert first.end <= second.start


@given(some.lists(some.tuples(some.sampled_from(sorted(WORDS)), some.integers(0, 5)), max_size=60))
def test_the_requests_of_a_group_are_each_in_one_state(events: list[tuple[str, int]]) -> None:
    entries = [
        entry(float(at), event, f"1/{'ab'[request // SIZE]}/{request % SIZE}")
        for at, (event, request) in enumerate(events)
    ]
    book, _ = book_of(*entries)
    for group in book.groups.values():
        ended = sum(count for word, count in group.words.items() if word not in ("waiting", "running"))
        assert group.waiting + group.words["running"] + ended == SIZE
        assert min(group.words.values(), default=0) >= 0


def test_an_estimate_is_the_longest_sibling_that_ended_before() -> None:
    ends = [(1.0, 100), (2.0, 300), (3.0, 50)]
    entries = [
        one
        for index, (at, length) in enumerate(ends)
        for one in (entry(0.0, Event.CLAIM, f"1/a/{index}"), entry(at, Event.COMPLETE, f"1/a/{index}", length=length))
    ]
    book, _ = book_of(*entries)
    assert list(book.pairs) == [(100, 300), (300, 50)]
    assert (book.groups["a"].longest, book.groups["a"].estimate) == (300, 300)
    assert book.groups["b"].estimate is None


def test_the_tail_is_the_time_without_waiting_requests() -> None:
    claims = [entry(float(index), Event.CLAIM, f"1/a/{index}") for index in range(SIZE)]
    book, _ = book_of(*claims, groups=("a",))
    assert book.tail_since == SIZE - 1
    book.note([entry(5.0, Event.GIVE_BACK, "1/a/0")])
    assert book.tail_since is None


def test_a_continued_turn_waits_again() -> None:
    steps = [(1.0, Event.CLAIM), (2.0, Event.COMPLETE), (3.0, Event.GO_ON)]
    book, _ = book_of(*(entry(at, event, "1/a/0", length=10) for at, event in steps))
    assert (book.groups["a"].waiting, book.groups["a"].words["ok"]) == (SIZE, 0)


def test_a_group_has_at_least_the_requests_that_its_journal_names() -> None:
    book, _ = book_of(*(entry(float(index), Event.CLAIM, f"1/a/{index}") for index in range(5)), groups=("a",))
    group = book.groups["a"]
    assert (group.view.size, group.waiting, group.words["running"]) == (5, 0, 5)
    book.note([entry(9.0, Event.GIVE_BACK, "1/a/4")])
    assert (group.waiting, book.tail_since) == (1, None)


def test_chunks_of_a_request_are_counted_over_its_leases() -> None:
    steps = [(1.0, Event.CLAIM), (2.0, Event.GIVE_BACK), (3.0, Event.CLAIM)]
    _, leases = book_of(*(entry(at, event, "1/a/0") for at, event in steps))
    assert leases.running["1/a/0"].chunks == 2


def test_ended_leases_beyond_the_limit_are_counted_as_dropped() -> None:
    leases = LeaseRows(2)
    for number in range(5):
        leases.note(entry(float(number), Event.CLAIM, f"1/a/{number}"))
        leases.note(entry(number + 0.5, Event.COMPLETE, f"1/a/{number}"))
    assert (len(leases.ended), leases.dropped) == (2, 3)


@given(some.integers(0, 200_000))
def test_a_length_is_counted_in_the_bin_that_holds_it(length: int) -> None:
    number = bin_of(length)
    assert edge_of(number) <= max(1, length) < edge_of(number + 1)


def test_every_bin_of_a_histogram_has_a_width() -> None:
    claims = [entry(0.0, Event.COMPLETE, f"1/a/{index}", length=index + 1) for index in range(SIZE)]
    book, _ = book_of(*claims, groups=("a",))
    histogram = book.histogram()
    assert histogram.edges == sorted(set(histogram.edges))
    assert sum(histogram.counts) == SIZE


def test_the_expected_length_of_an_ended_response_does_not_change() -> None:
    ends = [(1.0, 100), (2.0, 300), (3.0, 50)]
    entries = [
        one
        for index, (at, length) in enumerate(ends)
        for one in (entry(0.0, Event.CLAIM, f"1/a/{index}"), entry(at, Event.COMPLETE, f"1/a/{index}", length=length))
    ]
    book, _ = book_of(*entries)
    assert book.groups["a"].expected == {0: None, 1: 100, 2: 300}
    book.note([entry(4.0, Event.GO_ON, "1/a/1")])
    assert 1 not in book.groups["a"].expected
