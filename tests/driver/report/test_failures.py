"""Failed responses by reason in the output, report.json and a pod's log."""

import json
from pathlib import Path

import msgspec

from openseer_core.errors import ResponsesFailedError
from openseer_driver.report.failures import (
    LONGEST_REASON,
    MOST_EXAMPLES,
    MOST_REASONS,
    SHOWN_REASONS,
    FailureCount,
    Failures,
)
from openseer_driver.report.html import page, write_report
from openseer_driver.report.report import make_report
from openseer_driver.report.trace import read_trace
from openseer_driver.run_folder import RunFolder
from tests.driver.sample_runs import Shape, write_run

OUTSIDE = "token {} is not in the vocabulary, allowed: 0 to 255"


def counted(*failed: tuple[str, int, str], ok: int = 0) -> Failures:
    count = FailureCount()
    for index in range(ok):
        count.take("ok", "whole", index, "</s>")
    for group, index, reason in failed:
        count.take("infra_failed", group, index, reason)
    return count.counted()


def test_one_reason_is_one_line_with_its_groups() -> None:
    found = counted(("line-3", 0, OUTSIDE.format(9999)), ("line-3", 1, OUTSIDE.format(9999)), ok=6)
    assert found.text == "2 of 8 failed: token 9999 is not in the vocabulary, allowed: 0 to 255 (line-3)"
    assert counted(ok=6).text == ""


def test_reasons_that_differ_only_in_numbers_are_one() -> None:
    found = counted(*((f"line-{n}", 0, OUTSIDE.format(1000 * n)) for n in (3, 12)))
    [reason] = found.reasons
    assert reason.line == "token … is not in the vocabulary, allowed: 0 to 255 (line-3, line-12)"
    assert [example.reason for example in reason.examples] == [OUTSIDE.format(3000), OUTSIDE.format(12000)]


def test_several_reasons_are_listed_by_frequency() -> None:
    found = counted(("b", 0, "no room"), ("a", 0, "lost 4 times"), ("c", 1, "no room"), ok=1)
    assert found.text.splitlines() == ["3 of 4 failed", "  2: no room (b, c)", "  1: lost 4 times (a)"]


def test_the_first_groups_are_named_in_any_order_of_failure() -> None:
    names = [f"line-{number}" for number in range(1, 3 * MOST_EXAMPLES)]
    found = [counted(*((name, 0, "no room") for name in order)).reasons for order in (names, names[::-1])]
    assert found[0] == found[1]
    assert [example.group for example in found[0][0].examples] == names[:MOST_EXAMPLES]
    assert found[0][0].more_groups
    assert found[0][0].line.endswith(f"{names[MOST_EXAMPLES - 1]}, …)")


def test_a_million_reasons_take_the_memory_of_a_hundred() -> None:
    kinds = ["".join(chr(97 + int(digit)) for digit in str(number)) * 200 for number in range(2 * MOST_REASONS)]
    found = counted(*((f"g{place}", 0, kind) for place, kind in enumerate(kinds)))
    assert (found.failed, len(found.reasons), found.others) == (2 * MOST_REASONS, MOST_REASONS, MOST_REASONS)
    assert max(len(reason.reason) for reason in found.reasons) <= LONGEST_REASON
    shown = found.text.splitlines()
    assert len(shown) == 1 + SHOWN_REASONS + 1
    assert shown[-1] == f"  {2 * MOST_REASONS - SHOWN_REASONS}: see the stop_reason of their results"


def with_failures(path: Path) -> RunFolder:
    """A complete run in which both responses of one group have failed, one of them without a message."""
    write_run(path, Shape(groups=2, size=2, mean=20.0))
    folder = RunFolder(path)
    lines = [json.loads(line) for line in folder.results_file.read_text().splitlines()]
    for line in lines:
        if line["group"] == "prompt-001":
            line |= {"status": "infra_failed", "finish_reason": "infra_failed", "stop_reason": None}
            line |= {"stop_reason": OUTSIDE.format(9999)} if line["index"] else {}
    folder.results_file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def test_report_json_has_each_reason_with_examples(tmp_path: Path) -> None:
    folder = with_failures(tmp_path / "run")
    report = write_report(folder)
    written = json.loads(folder.report_file.read_text())["failures"]
    assert (written["responses"], written["failed"], written["others"]) == (4, 2, 0)
    assert [reason["reason"] for reason in written["reasons"]] == [
        "the result has no reason",
        OUTSIDE.format(9999),
    ]
    assert written["reasons"][1]["examples"] == [{"group": "prompt-001", "index": 1, "reason": OUTSIDE.format(9999)}]
    assert msgspec.convert(written, Failures) == report.failures
    assert OUTSIDE.format(9999) in page(read_trace(folder), report)


def test_the_report_of_a_run_without_failures_has_none(tmp_path: Path) -> None:
    write_run(tmp_path / "run", Shape(groups=2, size=2, mean=20.0))
    assert make_report(read_trace(RunFolder(tmp_path / "run"))).failures == Failures(responses=4)


def test_failed_responses_have_their_own_exit_code() -> None:
    assert ResponsesFailedError.exit_code == 9
