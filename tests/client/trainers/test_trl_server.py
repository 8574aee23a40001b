"""TRL's own client for its server mode, unchanged: shape of the fleet, generation, weights."""

from pathlib import Path
from typing import Any

import pytest

from tests.api.served import TOKEN, serving_job
from tests.api.threaded import ThreadedServer

# TRL and its dependencies emit warnings about their own code.
pytestmark = [pytest.mark.slow, pytest.mark.engine, pytest.mark.filterwarnings("default")]
TOOL = {"type": "function", "function": {"name": "look", "parameters": {"type": "object", "properties": {}}}}


@pytest.fixture(scope="module")
def client() -> Any:
    with ThreadedServer(serving_job()) as server:
        yield client_of(server)


def client_of(server: ThreadedServer) -> Any:
    from trl.generation.vllm_client import VLLMClient  # noqa: PLC0415 - fifteen seconds of imports

    return VLLMClient(base_url=server.url.replace("http://", f"http://trl:{TOKEN}@"), connection_timeout=120.0)


def test_trl_reads_the_fleets_shape(client: Any) -> None:
    found = client.get_server_info()
    assert found["model_config"] == {"model": "none", "dtype": "torch.float32", "max_model_len": 32768}
    assert found["parallel_config"]["tensor_parallel_size"] == 1
    assert client.get_world_size() == 2
    client.reset_prefix_cache()


def test_trl_generates_by_token_ids(client: Any) -> None:
    answer = client.generate([[1, 2, 3], [4, 5, 6]], n=2, max_tokens=12, temperature=1.0, logprobs=0)
    assert answer["prompt_ids"] == [[1, 2, 3], [4, 5, 6]]
    assert len(answer["completion_ids"]) == 4
    for tokens, logprobs, ids in zip(
        answer["completion_ids"], answer["logprobs"], answer["logprob_token_ids"], strict=True
    ):
        assert 0 < len(tokens) <= 12
        assert [of[0] for of in ids] == tokens
        assert all(of[0] < 0 for of in logprobs)


def test_trl_chats_with_tools_that_it_reads_itself(client: Any) -> None:
    messages = [[{"role": "user", "content": "ab"}], [{"role": "user", "content": "cd"}]]
    answer = client.chat(messages, n=2, max_tokens=5, tools=[TOOL], chat_template_kwargs={"enable_thinking": False})
    assert answer["prompt_ids"] == [[97, 98], [99, 100]]
    assert len(answer["completion_ids"]) == 4


def test_without_a_receiver_trl_gets_a_clear_refusal(client: Any) -> None:
    with pytest.raises(RuntimeError, match="has no weight-transfer engine"):
        client.init_communicator("cpu")


def test_trl_finds_a_receiver_and_fails_only_for_lack_of_a_gpu(tmp_path: Path) -> None:
    job = serving_job(weights={"transfer": {"backend": "nccl", "folder": str(tmp_path)}})
    with ThreadedServer(job) as server:
        client = client_of(server)
        assert client.get_world_size() == 1  # one of the two workers receives
        with pytest.raises(NotImplementedError, match="needs a CUDA device"):
            client.init_communicator("cpu")


def test_trl_gets_a_teachers_scores_of_given_and_likeliest_tokens(client: Any) -> None:
    scored = client.get_sequence_logprobs([[1, 2, 3], [4, 5, 6, 7]], [1, 2], top_logprobs=0)
    assert scored["actual_token_ids"] == [[[2], [3]], [[6], [7]]]
    assert all(-100 < value[0] < 0 for values in scored["actual_logprobs"] for value in values)
    assert scored["logprobs"] == [[[], []], [[], []]]
    top = client.get_sequence_logprobs([[1, 2, 3]], [1], top_logprobs=3)
    assert top["logprob_token_ids"] == [[[2, 3, 4], [3, 4, 5]]]
    assert top["logprobs"][0][0] == sorted(top["logprobs"][0][0], reverse=True)
    with pytest.raises(Exception, match="prompt_logprobs: found 100"):
        client.get_sequence_logprobs([[1, 2, 3]], [1])
