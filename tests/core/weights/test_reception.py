"""The fleet spec during the transfer of weights that a trainer sends."""

import pytest

from openseer_core.errors import InputError
from openseer_core.weights.reception import MAX_UPDATE_BYTES, MAX_UPDATES, Reception
from openseer_core.worker.heartbeat import ReceptionReport

JOINED = Reception(id=3, worker="w0", boot="b", init={})


def test_a_round_has_updates_and_an_end() -> None:
    once = JOINED.begun().announced({"names": ["a"]})
    twice = once.announced({"names": ["b"]})
    assert (twice.round, twice.updates, twice.update) == (1, 2, {"names": ["b"]})
    ended = twice.ended()
    assert (ended.finished, ended.update) == (True, None)
    assert ended.ended() is ended
    again = ended.begun()
    assert (again.round, again.updates, again.finished) == (2, 0, False)


def test_steps_out_of_order_are_refused() -> None:
    with pytest.raises(InputError, match="call /start_weight_update first"):
        JOINED.announced({})
    with pytest.raises(InputError, match="nothing to finish"):
        JOINED.begun().ended()
    with pytest.raises(InputError, match="call /start_weight_update first"):
        JOINED.begun().announced({}).ended().announced({})


def test_the_size_of_an_update_and_the_number_per_round_have_limits() -> None:
    with pytest.raises(InputError, match="send the tensors in parts"):
        JOINED.begun().announced({"names": ["a" * MAX_UPDATE_BYTES]})
    full = JOINED.begun().model_copy(update={"updates": MAX_UPDATES})
    with pytest.raises(InputError, match="send more tensors with each"):
        full.announced({})


def test_a_report_follows_once_it_states_every_step() -> None:
    reception = JOINED.begun().announced({})
    report = ReceptionReport(id=3, round=1, updates=1)
    assert not reception.is_followed(report)
    assert reception.is_followed(report.model_copy(update={"joined": True}))
    assert not reception.ended().is_followed(report.model_copy(update={"joined": True}))
    assert not reception.is_followed(report.model_copy(update={"joined": True, "id": 4}))
