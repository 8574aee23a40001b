"""The output of a command while it waits for the API."""

import io

import pytest
from rich.console import Console

from openseer_client import Transaction, WeightsError
from openseer_core.weights.fleet_spec import TransactionPhase
from openseer_core.wire.weights import ServedAdapter, WorkerWeights
from openseer_local.remote.displays import WeightsDisplay
from openseer_local.terminal.tables import adapter_lines, transaction_line

CAUSE = "there is no folder /w/v2 on this worker"


def transaction(phase: TransactionPhase, error: str | None = None) -> Transaction:
    return Transaction(
        id=1,
        version="v2",
        previous="v1",
        mode="drain",
        phase=phase,
        attempt=0,
        started_at=10.0,
        finished_at=None if error is None else 11.0,
        message="" if error is None else f"worker-0: {error}",
        workers=[WorkerWeights(worker="worker-0", version="v1", phase=phase, error=error)],
    )


def test_a_failed_publish_prints_its_cause_once() -> None:
    failed = transaction("failed", CAUSE)
    for live in (False, True):
        text = io.StringIO()
        with WeightsDisplay(Console(file=text, width=200, force_terminal=live), live=live) as display:
            display.show(transaction("prefetch"), 10.5)
            display.show(failed, 11.0)
        seen = text.getvalue() + str(WeightsError(failed, "not published"))
        assert seen.count(CAUSE) == 1
    assert seen.count("v1 → v2") > 0


@pytest.mark.parametrize(
    ("previous", "line", "kept"),
    [
        ("", "adapter math m2 (keep): failed", "No adapter math is served until"),
        ("m1", "adapter math m1 → m2 (keep): failed", "Adapter math stays m1 until"),
    ],
)
def test_a_failed_publish_of_an_adapter_names_the_served_version(previous: str, line: str, kept: str) -> None:
    change = {"adapter": "math", "version": "m2", "previous": previous, "mode": "keep"}
    failed = transaction("failed", CAUSE).model_copy(update=change)
    assert transaction_line(failed).plain.startswith(line)
    assert kept in str(WeightsError(failed, "not published"))


def test_adapters_are_shown_with_the_weights_below_them() -> None:
    served = ServedAdapter(name="math", version="m2", base="v1", versions=["m1", "m2"])
    assert [line.plain for line in adapter_lines([served])] == ["adapter math: m2, on weights v1"]


def test_without_a_terminal_each_phase_is_printed_once() -> None:
    text = io.StringIO()
    with WeightsDisplay(Console(file=text, width=200), live=False) as display:
        display.show(transaction("prefetch"), 10.5)
        display.show(transaction("failed", CAUSE), 11.0)
    assert [line.partition(": ")[2] for line in text.getvalue().splitlines()] == [
        "weights v1 → v2 (drain): prefetch, 0.5 s",
        "weights v1 → v2 (drain): failed, 1.0 s",
    ]
