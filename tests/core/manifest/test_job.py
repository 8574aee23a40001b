"""A manifest is parsed into a job, or reported with one line per problem."""

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from openseer_core.errors import ManifestError
from openseer_core.manifest.job import RolloutJob, Sampling, Spec, default_spec
from openseer_core.manifest.parse import (
    changed_fields,
    changed_results,
    manifest_content,
    manifest_hash,
    parse_job,
)

MINIMAL: dict[str, Any] = {
    "apiVersion": "openseer.dev/v1alpha1",
    "kind": "RolloutJob",
    "metadata": {"name": "arithmetic"},
    "spec": {"model": {"path": "models/tiny"}, "prompts": {"path": "prompts.jsonl"}},
}


def manifest(spec: dict[Any, Any] | None = None, /, **fields: Any) -> dict[str, Any]:
    document = copy.deepcopy(MINIMAL)
    document["spec"].update(spec or {}, **fields)
    return document


def problems(document: object) -> list[str]:
    with pytest.raises(ManifestError) as caught:
        parse_job(document, "job.yaml")
    return list(caught.value.problems)


def test_a_minimal_manifest_has_every_default() -> None:
    job = parse_job(MINIMAL, "job.yaml")
    assert (job.name, job.output_path, job.spec.mode, job.spec.group_size) == (
        "arithmetic",
        "runs/arithmetic",
        "batch",
        8,
    )
    assert job.spec.model.tokenizer_path == "models/tiny"
    assert job.spec.rollout.policy == "context-aware"
    assert not job.spec.needs_lengths
    stated = job.spec.model_dump(by_alias=True, exclude_none=True)
    assert {name: stated[name] for name in default_spec()} == default_spec()


def test_fields_that_kubernetes_adds_are_ignored() -> None:
    document: dict[str, Any] = MINIMAL | {"status": {}}
    document["metadata"] = {"name": "arithmetic", "uid": "u", "managedFields": [], "labels": {"team": "a"}}
    assert parse_job(document, "job.yaml").metadata.labels == {"team": "a"}


def test_a_null_is_an_absent_field() -> None:
    assert parse_job(manifest(sampling=None, output=None), "job.yaml") == parse_job(MINIMAL, "job.yaml")
    assert problems(MINIMAL | {"spec": None}) == ["spec: missing; The specification of the job"]


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        (None, "found nothing, allowed: a map with apiVersion, kind, metadata and spec"),
        ([MINIMAL], "found [{"),
        ("text", 'found "text", allowed: a map'),
        (MINIMAL | {"apiVersion": "v1"}, 'apiVersion: found "v1", allowed: openseer.dev/v1alpha1'),
        (MINIMAL | {"kind": "Pod"}, 'kind: found "Pod", allowed: RolloutJob'),
        (dict[str, Any](), "apiVersion: missing, allowed: openseer.dev/v1alpha1"),
        (MINIMAL | {"spec": [1]}, "spec: found [1], allowed: a map with mode, model"),
        (MINIMAL | {"metadata": {"name": "A_b"}}, 'metadata.name: found "A_b", allowed: at most 50 lower-case'),
        (MINIMAL | {"metadata": {"name": "a" * 51}}, "metadata.name: found"),
    ],
)
def test_a_document_that_is_no_rollout_job_is_refused(document: object, expected: str) -> None:
    assert problems(document)[0].startswith(expected)


@pytest.mark.parametrize(
    "off",
    [
        {"topK": -1},
        {"repetitionPenalty": 1.0},
        {"presencePenalty": 0, "frequencyPenalty": 0.0, "logitBias": {}, "badWords": []},
        {"bestOf": 1, "useBeamSearch": False, "structuredOutputs": None},
        {"minP": 0, "topP": 1, "stop": list[str](), "minTokens": 0},
    ],
)
def test_a_value_that_means_off_changes_nothing(off: dict[str, Any]) -> None:
    plain = parse_job(MINIMAL, "job.yaml")
    job = parse_job(manifest(sampling=off), "job.yaml")
    assert (job, manifest_hash(job)) == (plain, manifest_hash(plain))


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ({"sampling": {"topK": -2}}, "spec.sampling.topK: found -2, allowed: at least -1"),
        ({"sampling": {"repetitionPenalty": True}}, "spec.sampling.repetitionPenalty: not supported"),
        ({"sampling": {"presencePenalty": 1e-9}}, "spec.sampling.presencePenalty: not supported"),
        ({"samplng": {}}, 'spec.samplng: unknown field; did you mean "sampling"?'),
        ({"sampling": {"top_p": 0.5}}, 'spec.sampling.top_p: unknown field; did you mean "topP"?'),
        ({"temperature": 1}, "spec.temperature: unknown field; did you mean spec.sampling.temperature?"),
        ({"output": {"zzz": 1}}, "spec.output.zzz: unknown field, known: path, pvc"),
        ({3: 4}, "spec[3]: unknown field, known: mode, model"),
        ({"sampling": {"topP": 1.5}}, "spec.sampling.topP: found 1.5, allowed: greater than 0 and at most 1"),
        ({"sampling": {"temperature": float("nan")}}, "spec.sampling.temperature: found NaN, allowed: at least 0"),
        ({"sampling": {"maxTokens": "9"}}, 'spec.sampling.maxTokens: found "9", allowed: a whole number, at least 1'),
        ({"sampling": {"minTokens": True}}, "spec.sampling.minTokens: found true, allowed: a whole number"),
        ({"sampling": {"stop": [""]}}, 'spec.sampling.stop[0]: found "", allowed: text, not empty'),
        ({"sampling": {"stop": "END"}}, 'spec.sampling.stop: found "END", allowed: a list, at most 16 entries'),
        ({"sampling": {"n": 2}}, "spec.sampling.n: not supported: set spec.groupSize"),
        ({"sampling": {"presence_penalty": 1}}, "spec.sampling.presence_penalty: not supported: the engine cannot"),
        (
            {"speculation": {"maxTokens": 65}},
            "spec.speculation.maxTokens: found 65, allowed: at least 1 and at most 64",
        ),
        ({"speculation": {"earlierResponses": -1}}, "spec.speculation.earlierResponses: found -1, allowed: at least 0"),
        ({"speculation": {"memoryMegabytes": 8}}, "spec.speculation.memoryMegabytes: found 8, allowed: at least 16"),
        ({"speculation": {"enabled": "yes"}}, 'spec.speculation.enabled: found "yes", allowed: true or false'),
        ({"groupSize": 0}, "spec.groupSize: found 0, allowed: at least 1 and at most 1024"),
        ({"model": {}}, "spec.model.path: missing; Local path or hub id of the model"),
        ({"model": {"path": "m", "engine": "vlm"}}, 'spec.model.engine: found "vlm", allowed: one of vllm, scripted'),
        ({"workers": "two"}, 'spec.workers: found "two", allowed: a map with replicas, min'),
        ({"workers": {"resources": {"limits": {"cpu": "1x"}}}}, 'spec.workers.resources.limits.cpu: found "1x"'),
        ({"workers": {"template": "a"}}, 'spec.workers.template: found "a", allowed: a map'),
        ({"imagePullPolicy": "always"}, 'spec.imagePullPolicy: found "always", allowed: one of Always, IfNotPresent'),
        ({"model": {"path": "m", "cache": {}}}, "spec.model.cache.pvc: missing; A persistent volume"),
        (
            {"failurePolicy": {"rules": [{"onExitCodes": {"operator": "In", "values": [0]}}]}},
            "spec.failurePolicy.rules[0].onExitCodes.values[0]: found 0, allowed: at least 1",
        ),
        (
            {"failurePolicy": {"rules": [{"onPodConditions": list[object]()}]}},
            "spec.failurePolicy.rules[0].onPodConditions: found [], allowed: a list, at least 1 entry",
        ),
        ({"store": {"url": "http://x"}}, 'spec.store.url: found "http://x", allowed: a URL that begins with redis://'),
    ],
)
def test_a_wrong_value_is_reported_with_the_allowed_ones(spec: dict[Any, Any], expected: str) -> None:
    found = problems(manifest(spec))
    assert [line for line in found if line.startswith(expected)], found


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ({"prompts": None}, "spec.prompts: missing; mode batch reads its prompts"),
        ({"mode": "serve"}, "spec.prompts: not used in mode serve"),
        ({"prompts": {}}, "spec.prompts: none given, allowed: exactly one of path"),
        ({"prompts": {"path": "a", "url": "https://b/c"}}, "spec.prompts: found path and url, allowed: only one of"),
        ({"sampling": {"minTokens": 5, "maxTokens": 4}}, "spec.sampling.minTokens: found 5, allowed: at most"),
        ({"rollout": {"leaseSeconds": 2, "checkpointSeconds": 1}}, "spec.rollout.checkpointSeconds: found 1, allowed:"),
        ({"workers": {"min": 3}}, "spec.workers.min: found 3, allowed: at most spec.workers.replicas (1)"),
        ({"workers": {"replicas": 3, "max": 2}}, "spec.workers.replicas: found 3, allowed: at most"),
        ({"workers": {"autoscale": {}}}, "spec.workers.max: missing; it is the upper limit"),
        (
            {"workers": {"max": 2, "autoscale": {}}, "rollout": {"policy": "least-inflight"}},
            "spec.workers.autoscale: conflicts with policy least-inflight",
        ),
        (
            {"workers": {"replicas": 0}, "rollout": {"policy": "round-robin"}},
            "spec.workers.replicas: found 0, allowed: at least 1 with policy round-robin",
        ),
        (
            {"store": {"url": "redis://a", "secretRef": {"name": "a", "key": "b"}}},
            "spec.store: found url and secretRef, allowed: only one of",
        ),
        ({"store": {"url": "redis://a", "persistence": {}}}, "spec.store.persistence: belongs to the Redis that"),
        (
            {"output": {"path": "a", "pvc": {"claimName": "b", "path": "c"}}},
            "spec.output: found path and pvc, allowed: only one of",
        ),
        (
            {"model": {"path": "m", "engineArgs": {"tensor-parallel-size": 2}}},
            "spec.model.engineArgs.tensor-parallel-size: not allowed here; set spec.workers.parallelism.tensor",
        ),
        (
            {"model": {"path": "m", "engineArgs": {"maxModelLen": 2}}},
            "spec.model.engineArgs.maxModelLen: engine arguments have vLLM's own snake_case names; write max_model_len",
        ),
        (
            {"model": {"path": "m", "engineArgs": {"speculative_config": {"method": "ngram"}}}},
            "spec.model.engineArgs.speculative_config: not allowed here; set spec.speculation",
        ),
        (
            {"model": {"path": "m", "engineArgs": {"spec_method": "ngram"}}},
            "spec.model.engineArgs.spec_method: not allowed here; set spec.speculation",
        ),
        (
            {"model": {"path": "m", "engineArgs": {"data-parallel-size": 32}}},
            "spec.model.engineArgs.data-parallel-size: not allowed here; a worker is one engine; set spec.workers.rep",
        ),
        (
            {"model": {"path": "m", "engineArgs": {"enable_expert_parallel": True}}},
            "spec.model.engineArgs.enable_expert_parallel: spreads experts over spec.workers.parallelism.tensor GPUs",
        ),
        ({"model": {"path": "m", "volume": {}}}, "spec.model.volume: none given, allowed: exactly one of pvc, image"),
        (
            {"model": {"path": "m", "volume": {"pvc": {"claimName": "a"}, "image": {"reference": "b"}}}},
            "spec.model.volume: found pvc and image, allowed: only one of pvc, image",
        ),
        (
            {"workers": {"parallelism": {"tensor": 4, "pipeline": 2, "nodes": 3}}},
            "spec.workers.parallelism.nodes: found 3, allowed: a divisor of tensor times pipeline (8)",
        ),
        (
            {"suspend": True, "store": {"persistence": {"medium": "ephemeral"}}},
            "spec.suspend: found true, allowed: false with an ephemeral spec.store.persistence",
        ),
        (
            {"output": {"pvc": {"claimName": "b", "path": "c"}, "storageClass": "fast"}},
            "spec.output: found pvc and storageClass, allowed: only one of",
        ),
        (
            {"failurePolicy": {"rules": [{"action": "Ignore"}]}},
            "spec.failurePolicy.rules[0]: none given, allowed: exactly one of onExitCodes, onPodConditions",
        ),
        (
            {
                "failurePolicy": {
                    "rules": [
                        {
                            "action": "Ignore",
                            "onExitCodes": {"operator": "In", "values": [9]},
                            "onPodConditions": [{"type": "DisruptionTarget"}],
                        }
                    ]
                }
            },
            "spec.failurePolicy.rules[0]: found onExitCodes and onPodConditions, allowed: only one of",
        ),
        (
            {"mode": "serve", "prompts": None, "sampling": {"forceLengths": True}},
            "spec.sampling.forceLengths: reads the lengths",
        ),
        (
            {"sampling": {"logprobs": "none", "topLogprobs": 1}},
            "spec.sampling.topLogprobs: needs log-probabilities",
        ),
        (
            {"groupSize": 2, "sampling": {"scoreFrom": 1}},
            "spec.groupSize: found 2, allowed with spec.sampling.scoreFrom: 1",
        ),
    ],
)
def test_a_broken_rule_over_several_fields_is_reported(spec: dict[str, Any], expected: str) -> None:
    found = problems(manifest(spec))
    assert len(found) == 1
    assert found[0].startswith(expected)


def test_experts_are_spread_over_the_gpus_of_a_worker() -> None:
    arguments = {"enable_expert_parallel": True, "decode_context_parallel_size": 32}
    workers = {"parallelism": {"tensor": 32, "nodes": 4}}
    job = parse_job(manifest(model={"path": "m", "engineArgs": arguments}, workers=workers), "job.yaml")
    assert job.spec.model.engine_args == arguments


def test_all_problems_are_reported_at_once() -> None:
    found = problems(manifest(groupSize=0, mode="serve", workers={"min": 2, "max": 1}, sampling={"topP": "x"}))
    assert [line.split(":")[0] for line in found] == [
        "spec.groupSize",
        "spec.sampling.topP",
        "spec.prompts",
        "spec.workers.min",
        "spec.workers.min",
    ]


def test_rules_hold_for_jobs_built_in_code_too() -> None:
    with pytest.raises(ValidationError, match="minTokens"):
        Spec.model_validate(manifest(sampling={"minTokens": 5, "maxTokens": 4})["spec"])
    assert Sampling(max_tokens=4).max_tokens == 4


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


@given(st.dictionaries(st.sampled_from(sorted(Spec.model_json_schema(by_alias=True)["properties"])), JSON))
def test_any_spec_is_a_job_or_a_list_of_lines(spec: dict[str, Any]) -> None:
    found = job_or_problems(manifest(spec))
    if isinstance(found, RolloutJob):
        # A worker receives its job in full, nulls and defaults included.
        assert parse_job(found.model_dump(mode="json", by_alias=True), "job.json") == found
    else:
        assert found
        assert all("\n" not in line for line in found)


def job_or_problems(document: object) -> RolloutJob | tuple[str, ...]:
    try:
        return parse_job(document, "job.yaml")
    except ManifestError as error:
        return error.problems


def test_the_hash_omits_fields_that_do_not_change_the_results() -> None:
    job = parse_job(MINIMAL, "job.yaml")
    moved = manifest(
        suspend=True,
        activeDeadlineSeconds=5,
        image="example.com/worker:2",
        model={"path": "models/tiny", "offline": True, "cache": {"pvc": {"claimName": "cache"}}},
        rollout={"quantumTokens": 512},
        speculation={"enabled": False, "maxTokens": 4},
        workers={
            "replicas": 3,
            "max": 4,
            "tailRelease": False,
            "maxUnavailable": 2,
            "resources": {"limits": {"cpu": 1}},
            "template": {"spec": {}},
        },
        driver={"resources": {"limits": {"cpu": 1}}},
        store={"url": "redis://elsewhere"},
        output={"path": "elsewhere"},
        failurePolicy={
            "driverRestarts": 1,
            "rules": [{"action": "Ignore", "onExitCodes": {"operator": "In", "values": [9]}}],
        },
    )
    assert manifest_hash(parse_job(moved, "job.yaml")) == manifest_hash(job)
    spelled_out = manifest(groupSize=8, sampling={"temperature": 1})
    assert manifest_hash(parse_job(spelled_out, "job.yaml")) == manifest_hash(job)


def test_changed_fields_are_named() -> None:
    old = parse_job(MINIMAL, "job.yaml")
    new = parse_job(manifest(groupSize=4, sampling={"seed": 1, "topP": 0.5}), "job.yaml")
    assert manifest_hash(old) != manifest_hash(new)
    assert changed_fields(manifest_content(old), manifest_content(new)) == [
        "spec.groupSize",
        "spec.sampling.seed",
        "spec.sampling.topP",
    ]
    assert changed_fields(manifest_content(old), manifest_content(old)) == []


def test_a_stored_field_that_no_longer_counts_is_no_change() -> None:
    content = manifest_content(parse_job(MINIMAL, "job.yaml"))
    stored = copy.deepcopy(content)
    stored["spec"]["workers"]["startSeconds"] = 120  # as stored by a release in which the field counted
    assert changed_results(stored, content) == []
    stored["spec"]["groupSize"] += 1
    assert changed_results(stored, content) == ["spec.groupSize"]


@pytest.mark.parametrize("text", ["1e999998", "1E+100", "9" * 33, "0." + "1" * 33, "1e-999999"])
def test_a_quantity_with_extreme_digits_or_exponent_is_refused(text: str) -> None:
    found = problems(manifest(store={"resources": {"limits": {"memory": text}}}))
    assert len(found) == 1
    assert found[0].startswith("spec.store.resources.limits.memory: found")


@pytest.mark.parametrize("text", ["1e3", "1E-3", "2.", ".5", "0.25", "128974848", "129e6", "123Mi", "9" * 19, "100m"])
def test_a_quantity_in_kubernetes_notation_is_accepted(text: str) -> None:
    parse_job(manifest(store={"resources": {"limits": {"memory": text}}}), "a.yaml")


@pytest.mark.parametrize("workers", [{"replicas": 4097}, {"max": 4097}, {"replicas": 4097, "min": 4097}])
def test_a_fleet_of_more_than_4096_workers_is_refused(workers: dict[str, int]) -> None:
    assert any("4096" in line for line in problems(manifest(workers=workers)))
    parse_job(manifest(workers=dict.fromkeys(workers, 4096)), "a.yaml")


def test_a_gang_of_more_than_256_nodes_is_refused() -> None:
    found = problems(manifest(workers={"parallelism": {"tensor": 257, "nodes": 257}}))
    assert any("spec.workers.parallelism.nodes" in line and "256" in line for line in found)


@pytest.mark.parametrize("levels", [70, 300, 900])
def test_a_spec_that_is_nested_too_deeply_is_reported_in_one_line(levels: int) -> None:
    nested: Any = 1
    for _ in range(levels):
        nested = {"a": nested}
    assert problems(manifest(workers={"template": {"spec": nested}})) == [
        "spec: maps and lists are nested deeper than the 64 levels allowed"
    ]
