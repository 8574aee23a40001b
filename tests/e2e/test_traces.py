"""A served job sends a trainer's batch to a real trace receiver, and its JSON logs contain no prompt."""

import json
import signal

import pytest

from openseer_client import BatchSpec, Group
from tests.e2e.server import Server
from tests.e2e.workbench import END_SECONDS, Workbench
from tests.otlp_receiver import OtlpReceiver, values

pytestmark = [pytest.mark.redis]

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
PROMPT = 262_001
"""A token that stands nowhere else."""


def test_a_trainers_batch_is_traced_below_its_span_without_its_prompt(
    bench: Workbench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENSEER_LOG", "json")
    server = Server(bench)
    server.write()
    with OtlpReceiver() as receiver:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", receiver.url)
        server.start()
        with server.client() as client:
            batch = client.open_batch(BatchSpec(traceparent=f"00-{TRACE}-{SPAN}-01"))
            batch.submit([Group(id=f"g{number}", prompt_token_ids=[PROMPT, number]) for number in range(3)])
            batch.seal()
            responses = sum(item.kind == "result" for item in batch.results(acknowledge=True))
        assert server.process is not None
        server.process.send_signal(signal.SIGTERM)
        server.process.wait(END_SECONDS)
    [told], requests = receiver.named("batch"), receiver.named("request")
    assert (told.trace_id.hex(), told.parent_span_id.hex()) == (TRACE, SPAN)
    assert len(requests) == responses == 12
    assert {span.parent_span_id for span in requests} == {told.span_id}
    assert values(told.attributes)["openseer.ok"] == 12
    for file in bench.run.logs_folder.glob("*.log"):
        text = file.read_text()
        assert str(PROMPT) not in text
        assert all("message" in json.loads(line) for line in text.splitlines())
