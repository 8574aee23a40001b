"""The header field traceparent, including malformed and hostile values."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openseer_core.traces.traceparent import TraceParent

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
GOOD = f"00-{TRACE}-{SPAN}-01"


def test_a_field_is_read_and_written_as_it_was() -> None:
    parent = TraceParent.parse(GOOD)
    assert parent == TraceParent(int(TRACE, 16), int(SPAN, 16), sampled=True)
    assert str(parent) == GOOD


@pytest.mark.parametrize(("flags", "sampled"), [("00", False), ("01", True), ("02", False), ("03", True), ("ff", True)])
def test_the_lowest_bit_of_the_flags_marks_a_sampled_trace(flags: str, sampled: bool) -> None:
    parent = TraceParent.parse(f"00-{TRACE}-{SPAN}-{flags}")
    assert parent is not None
    assert parent.sampled is sampled


@pytest.mark.parametrize("more", ["", "-anything", "-a-b"])
def test_a_later_version_may_append_to_it(more: str) -> None:
    assert TraceParent.parse(f"cc-{TRACE}-{SPAN}-01{more}") is not None


@pytest.mark.parametrize(
    "text",
    [
        None,
        "",
        "00",
        GOOD.upper(),
        f" {GOOD}",
        f"{GOOD}\n",
        f"{GOOD}-more",
        f"{GOOD},{GOOD}",
        f"ff-{TRACE}-{SPAN}-01",
        f"cc-{TRACE}-{SPAN}-01more",
        f"00-{'0' * 32}-{SPAN}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE[1:]}-{SPAN}-01",
        f"00-{TRACE}-{SPAN}-1",
        f"00-{TRACE[:-1]}é-{SPAN}-01",
        f"00-{TRACE[:-1]}٣-{SPAN}-01",
        "00-" + "a" * 100_000,
    ],
)
def test_a_malformed_field_is_ignored(text: str | None) -> None:
    assert TraceParent.parse(text) is None


@given(st.text(alphabet="0123456789abcdf-\n \0", max_size=60))
def test_a_written_field_is_read_as_the_same_value(text: str) -> None:
    parent = TraceParent.parse(text)
    assert parent is None or TraceParent.parse(str(parent)) == parent
