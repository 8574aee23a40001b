"""The spans of a batch job, from `openseer run` to a receiver."""

import json
from pathlib import Path

import pytest

from openseer_core.traces.traceparent import TraceParent
from tests.e2e.workbench import Workbench
from tests.otlp_receiver import OtlpReceiver, values
from tests.ports import reserved_port

pytestmark = pytest.mark.redis

CALLER = TraceParent(0x4BF92F3577B34DA6A3CE929D0E0E4736, 0x00F067AA0BA902B7)
GROUPS, SIZE = 3, 4


@pytest.fixture
def bench(tmp_path: Path) -> Workbench:
    bench = Workbench(tmp_path)
    bench.write(groups=GROUPS, length=60)
    return bench


def test_a_run_sends_one_span_per_response_below_the_callers_span(
    bench: Workbench, monkeypatch: pytest.MonkeyPatch
) -> None:
    with OtlpReceiver() as receiver:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", receiver.url)
        monkeypatch.setenv("TRACEPARENT", str(CALLER))
        ended = bench.call("run", "job.yaml")
    assert ended.returncode == 0, ended.stdout
    [batch], requests = receiver.named("batch"), receiver.named("request")
    assert (int(batch.trace_id.hex(), 16), int(batch.parent_span_id.hex(), 16)) == (CALLER.trace_id, CALLER.span_id)
    assert {span.parent_span_id for span in requests} == {batch.span_id}
    told = {
        (one["openseer.group"], one["openseer.index"]): one for one in (values(span.attributes) for span in requests)
    }
    lines = [json.loads(line) for line in bench.run.results_file.read_text().splitlines()]
    assert len(lines) == len(requests) == len(told) == GROUPS * SIZE
    for line in lines:
        attributes = told[line["group"], line["index"]]
        assert attributes["gen_ai.usage.output_tokens"] == len(line["token_ids"])
        assert attributes["openseer.leases"] == len(line["chunks"])
        assert attributes["openseer.job"] == "default/bench"
    assert min(span.start_time_unix_nano for span in requests) >= batch.start_time_unix_nano


def test_a_run_without_its_receiver_is_whole_and_counts_lost_spans(
    bench: Workbench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{reserved_port()}")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "1")
    ended = bench.call("run", "job.yaml")
    assert ended.returncode == 0, ended.stdout
    bench.assert_whole(GROUPS * SIZE)
    assert "spans lost so far" in ended.stdout


def test_a_runs_logs_are_json_on_request(bench: Workbench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENSEER_LOG", "json")
    monkeypatch.setenv("HF_TOKEN", "sesame-open")
    ended = bench.call("run", "job.yaml")
    assert ended.returncode == 0, ended.stdout
    for number in range(2):
        text = (bench.run.logs_folder / f"worker-{number}.log").read_text()
        lines = [json.loads(line) for line in text.splitlines()]
        assert any(line["message"].startswith(f"worker-{number}#") for line in lines)
        about = {(line["job"], line["worker"]) for line in lines if "worker" in line}
        assert about == {("default/bench", f"worker-{number}")}
        assert "sesame" not in text
