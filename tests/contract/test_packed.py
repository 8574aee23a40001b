"""Values packed for Redis keep their bytes, and bytes of an earlier commit keep their meaning."""

from typing import Any

import pytest

from openseer_core.manifest.sampling_json import dump_sampling, parse_sampling
from openseer_core.queue.messages import BatchProgress
from openseer_core.weights.fleet_spec import FleetSpec
from openseer_core.wire.batches import BatchSpec
from openseer_core.worker.heartbeat import WeightsReport
from openseer_store import codec
from tests.contract.forms import filled, replies
from tests.contract.forms.recorded import compare, load

GID = str(filled.GROUP).encode()


@pytest.mark.parametrize("instance", [*filled.FULL, *replies.FULL], ids=lambda instance: type(instance).__name__)
def test_the_samples_leave_no_field_at_its_default(instance: Any) -> None:
    assert filled.unfilled(instance) == []


def test_packed_values_keep_their_bytes() -> None:
    found = {
        "spec": codec.pack_spec(filled.SPEC),
        "plain spec": codec.pack_spec(filled.PLAIN_SPEC),
        "group row": codec.pack_row(filled.SPEC),
        "plain group row": codec.pack_row(filled.PLAIN_SPEC),
        "delta": codec.pack(codec.delta_row(filled.DELTA)),
        "delta bytes": b"".join(codec.delta_bytes([filled.DELTA, filled.DELTA])),
        "rescore": codec.pack(codec.rescore_row(filled.RESCORE)),
        "finish": codec.pack(codec.finish_row(filled.FINISH)),
        "plain finish": codec.pack(codec.finish_row(filled.PLAIN_FINISH)),
        "ask": codec.pack(codec.query_row(filled.ASK)),
        "info": codec.pack_info(filled.INFO),
        "plain info": codec.pack_info(filled.PLAIN_INFO),
    }
    compare("packed", {name: data.hex() for name, data in found.items()})


def test_stored_json_keeps_its_form() -> None:
    found = {
        "orders": filled.ORDERS.model_dump_json(exclude_defaults=True),
        "weights report": filled.REPORT.model_dump_json(exclude_defaults=True),
        "batch spec": filled.BATCH_SPEC.model_dump_json(exclude_defaults=True),
        "last words of a driver": filled.PROGRESS.to_json(),
        "sampling": dump_sampling(filled.SAMPLING),
    }
    compare("kept_json", found)


def test_json_of_an_earlier_commit_keeps_its_meaning() -> None:
    kept = load("kept_json")
    assert FleetSpec.model_validate_json(kept["orders"]) == filled.ORDERS
    assert WeightsReport.model_validate_json(kept["weights report"]) == filled.REPORT
    assert BatchSpec.model_validate_json(kept["batch spec"]) == filled.BATCH_SPEC
    assert BatchProgress.from_json(kept["last words of a driver"]) == filled.PROGRESS
    assert parse_sampling(kept["sampling"]) == filled.SAMPLING


def recorded(name: str) -> bytes:
    return bytes.fromhex(load("packed")[name])


def test_groups_of_an_earlier_commit_are_read() -> None:
    assert codec.read_specs([GID, recorded("spec")]) == {GID: filled.SPEC}
    assert codec.read_specs([GID, recorded("plain spec")]) == {GID: filled.PLAIN_SPEC}


def test_a_heartbeat_of_an_earlier_commit_is_read() -> None:
    assert codec.read_worker(replies.worker_row(recorded("info"))) == replies.WORKER
    assert codec.read_worker(replies.worker_row(recorded("plain info"))).heartbeat == filled.PLAIN_INFO


def test_replies_to_a_worker_are_read() -> None:
    first, second = codec.read_claims(replies.claims_row(recorded("spec")))
    assert first == replies.CLAIM
    assert (second.seed, second.priority.probe, second.bias, second.true_length) == (None, None, -3.0, 20)
    assert codec.read_view(replies.VIEW_ROW) == filled.VIEW
    assert codec.read_reply(replies.REPLY_ROW) == replies.REPLY
    assert codec.read_extend(replies.EXTEND_ROW) == replies.EXTEND
    assert codec.read_siblings(replies.SIBLINGS_ROW) == replies.SIBLINGS


def test_replies_to_a_driver_or_trainer_are_read() -> None:
    assert codec.read_entries(replies.entries_row(recorded("spec"))) == replies.ENTRIES
    assert codec.read_record(filled.REQUEST, replies.RECORD_ROW) == replies.RECORD
    assert codec.read_entry(replies.JOURNAL_ROW) == filled.JOURNAL
    assert codec.read_progress(replies.BATCH_HASH) == filled.PROGRESS
    assert codec.read_batches([12, replies.BATCH_HASH]) == [replies.BATCH]
    assert codec.read_load(replies.LOAD_ROW) == replies.LOAD
