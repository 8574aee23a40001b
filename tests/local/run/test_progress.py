"""The progress display: plain lines without a terminal, a redrawn display with one, never an error of its own."""

import io
import subprocess
import sys
from collections.abc import Callable

import pytest
from rich.console import Console

from openseer_driver.run_lines import SampleLine, WorkerSample
from openseer_local.run.progress import ProgressDisplay
from openseer_local.terminal.display import Display


class Clock:
    """A clock that tests move."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def snapshot(
    closed: int, tokens: int, *, waiting: int = 100, inflight: int = 32, left: float | None = None
) -> SampleLine:
    workers = {
        f"worker-{n}": WorkerSample("busy", inflight // 2, 16, 0.5, tokens=tokens // 2, preemptions=n) for n in range(2)
    }
    return SampleLine(0.0, waiting, inflight, closed, 320, tokens, workers, tokens_left=left)


def plain(clock: Callable[[], float]) -> tuple[ProgressDisplay, io.StringIO]:
    text = io.StringIO()
    return ProgressDisplay(Console(file=text, width=200), live=False, clock=clock, tick_seconds=None), text


def test_without_a_terminal_a_line_is_printed_every_few_seconds(clock: Clock) -> None:
    progress, text = plain(clock)

    with progress:
        for second in range(11):
            progress.update(snapshot(12 * second, 2310 * second, left=52_360 - 2310 * second if second else None))
            clock.now += 1

    lines = text.getvalue().splitlines()
    assert lines[0] == "openseer: 0/320 requests  0 %  0 tok/s  2 workers  ETA –"
    assert lines[1] == "openseer: 60/320 requests  18 %  2,310 tok/s  2 workers  ETA 0:18"
    assert lines[2].startswith("openseer: 120/320 requests  37 %  2,310 tok/s  2 workers  ETA 0:1")
    assert len(lines) == 4  # and the last state at the end


def test_phases_of_the_start_are_shown_with_their_durations(clock: Clock) -> None:
    progress, text = plain(clock)

    with progress:
        progress.phase("starting the store")
        clock.now += 0.5
        progress.wait_for_work()
        progress.update(SampleLine(0.0, waiting=320, requests=320))
        clock.now += 12
        progress.tick()
        progress.update(snapshot(0, 0))

    assert text.getvalue().splitlines()[:5] == [
        "openseer: starting the store",
        "openseer: starting the store (0.5 s)",
        "openseer: waiting for the first worker",
        "openseer: waiting for the first worker … 12 s",
        "openseer: waiting for the first worker (12.0 s)",
    ]


def test_the_submission_phase_continues_after_the_first_request_runs(clock: Clock) -> None:
    progress, text = plain(clock)

    with progress:
        progress.phase("submitting")
        progress.detail("256 of 1,000 groups")
        progress.update(snapshot(0, 0))
        clock.now += 6
        progress.tick()
        progress.detail("1,000 of 1,000 groups")
        progress.wait_for_work()

    assert text.getvalue().splitlines()[:3] == [
        "openseer: submitting",
        "openseer: submitting: 256 of 1,000 groups … 6 s",
        "openseer: submitting: 1,000 of 1,000 groups (6.0 s)",
    ]


def test_a_quiet_display_shows_only_long_phases(clock: Clock) -> None:
    text = io.StringIO()

    with Display(Console(file=text), live=False, quiet=True, clock=clock, tick_seconds=None) as display:
        display.phase("reading prompts")
        display.phase("rendering prompts")
        display.detail("1,000 of 9,000 prompts")
        clock.now += 6
        display.tick()

    assert text.getvalue() == "openseer: rendering prompts: 1,000 of 9,000 prompts … 6 s\n"


def test_a_line_is_printed_once_no_request_waits(clock: Clock) -> None:
    progress, text = plain(clock)

    with progress:
        progress.update(snapshot(0, 0))
        clock.now += 1
        progress.update(snapshot(310, 1000, waiting=0, inflight=10))
        clock.now += 1
        progress.update(snapshot(311, 1100, waiting=0, inflight=9))

        assert text.getvalue().count("no request waits; 10 run") == 1


def test_a_resumed_run_does_not_count_old_results_into_its_speed(clock: Clock) -> None:
    progress, text = plain(clock)

    with progress:
        progress.update(snapshot(200, 90_000))
        clock.now += 10
        progress.update(snapshot(210, 91_000, left=11_000.0))

    assert "210/320 requests  65 %  100 tok/s  2 workers  ETA 1:50" in text.getvalue()


def test_messages_keep_their_brackets_and_lines_are_not_wrapped(clock: Clock) -> None:
    text = io.StringIO()

    with ProgressDisplay(Console(file=text, width=40), live=False, clock=clock, tick_seconds=None) as progress:
        progress.message("worker-0 [red]died[/red] " + "x" * 60)

    assert text.getvalue() == "openseer: worker-0 [red]died[/red] " + "x" * 60 + "\n"


def test_a_terminal_shows_a_bar_and_a_table_of_workers(clock: Clock) -> None:
    text = io.StringIO()
    console = Console(file=text, width=120, height=30, force_terminal=True, color_system=None)

    with ProgressDisplay(console, live=True, clock=clock, tick_seconds=None) as progress:
        progress.wait_for_work()
        clock.now += 3
        progress.update(snapshot(0, 0))
        clock.now += 2
        progress.update(snapshot(128, 4000))
        progress.message("worker-1 is slow")

    shown = text.getvalue()
    assert "✓ waiting for the first worker (3.0 s)" in shown
    assert "128/320 requests" in shown
    assert "4,000 tokens" in shown
    assert "worker-1 is slow" in shown
    row = next(line for line in reversed(shown.splitlines()) if "worker-1 " in line and "16/16" in line)
    assert row.split() == ["worker-1", "busy", "16/16", "50%", "1,000", "–", "1"]


def test_a_terminal_shows_the_effect_of_drafts_or_why_there_are_none(clock: Clock) -> None:
    text = io.StringIO()
    console = Console(file=text, width=120, height=30, force_terminal=True, color_system=None)
    drafts = {"draft_steps": 4.0, "steps_refs_1": 10.0, "tokens_refs_1": 18.0}
    workers = {
        "worker-0": WorkerSample("busy", 16, 16, drafting="on", drafts=drafts),
        "worker-1": WorkerSample("busy", 16, 16, drafting="off: sampling.minP"),
    }

    with ProgressDisplay(console, live=True, clock=clock, tick_seconds=None) as progress:
        progress.update(SampleLine(0.0, 100, 32, 8, 320, 900, workers))

    rows = [line.split() for line in text.getvalue().splitlines()]
    assert ["worker-0", "busy", "16/16", "0%", "0", "1.80", "0"] in rows
    assert ["worker-1", "busy", "16/16", "0%", "0", "off", "0"] in rows
    assert ["no", "drafts:", "sampling.minP"] in rows


@pytest.mark.parametrize("live", [False, True])
def test_a_closed_pipe_ends_the_display_and_not_the_run(live: bool) -> None:
    program = f"""
import sys
from openseer_driver.run_lines import SampleLine
from openseer_local.run.progress import ProgressDisplay
from rich.console import Console

sys.stdin.read()
with ProgressDisplay(Console(force_terminal={live}), live={live}) as progress:
    progress.phase("loading")
    progress.update(SampleLine(0.0, inflight=1, closed=1, requests=2, tokens=3))
    progress.message("still here")
sys.exit(17)
"""
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", program], stdin=pipe, stdout=pipe, stderr=pipe) as process:
        assert process.stdout is not None
        process.stdout.close()
        process.stdout = None
        _, errors = process.communicate()

    assert (process.returncode, errors) == (17, b"")


def test_a_closed_file_ends_the_display_and_not_the_run(clock: Clock) -> None:
    progress, text = plain(clock)

    with progress:
        progress.update(snapshot(1, 1))
        text.close()
        clock.now += 60
        progress.tick()
        progress.message("still here")


def test_the_display_refreshes_by_itself() -> None:
    text = io.StringIO()

    with ProgressDisplay(Console(file=text), live=False, tick_seconds=0.001) as progress:
        progress.phase("loading")

    assert text.getvalue() == "openseer: loading\n"
