"""From prompts to groups: keys of earlier responses, and refused templates."""

from pathlib import Path

import pytest

from openseer_core.admission import ModelLimits
from openseer_core.errors import PromptsError
from openseer_core.manifest.job import Model, RolloutJob
from openseer_core.manifest.parse import parse_job
from openseer_core.manifest.problems import MOST_SHOWN
from openseer_core.manifest.prompts import PromptLine
from openseer_core.queue.siblings import prompt_digest
from openseer_driver.submission import render_groups
from openseer_text.rendering import open_codec
from tests.text.tokenizers_of_tests import byte_level, save

PROMPTS = [PromptLine(f"g{number}", number, prompt_token_ids=(1, 2, number % 2)) for number in range(3)]


def job_with(kept: int) -> RolloutJob:
    return parse_job(
        {
            "apiVersion": "openseer.dev/v1alpha1",
            "kind": "RolloutJob",
            "metadata": {"name": "drafts"},
            "spec": {
                "model": {"path": "none", "engine": "scripted"},
                "prompts": {"path": "prompts.jsonl"},
                "groupSize": 2,
                "sampling": {"maxTokens": 9},
                "speculation": {"earlierResponses": kept},
            },
        },
        "test",
    )


@pytest.mark.parametrize("kept", [0, 4])
def test_earlier_responses_are_kept_by_prompt_digest_if_the_job_asks(kept: int) -> None:
    job = job_with(kept)
    groups = list(render_groups(job, "prompts.jsonl", PROMPTS, open_codec(job.spec.model), ModelLimits(), 0.0))
    assert [group.history_size for group in groups] == [kept] * 3
    assert [group.history for group in groups] == [prompt_digest(group.prompt) if kept else "" for group in groups]
    assert groups[0].history == groups[2].history


def test_all_lines_that_a_chat_template_refuses_are_named_with_their_file(tmp_path: Path) -> None:
    model = Model(path=str(save(byte_level(), tmp_path)))
    messages = [{"role": role, "content": "hi"} for role in ("user", "tool")]
    lines = [
        PromptLine(f"g{number}", number, messages=(messages[number % 2],), place=f"questions.jsonl line {number}")
        for number in range(1, 51)
    ]
    with pytest.raises(PromptsError) as refused:
        list(render_groups(job_with(0), "questions.jsonl", lines, open_codec(model), ModelLimits(), 0.0))
    problems = refused.value.problems
    assert problems[0] == "questions.jsonl line 1: the chat template refuses the messages: no tools"
    assert [problem.split(":")[0] for problem in problems[:-1]] == [
        f"questions.jsonl line {number}" for number in range(1, 2 * MOST_SHOWN, 2)
    ]
    assert problems[-1] == "… and 5 more"
