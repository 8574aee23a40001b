"""A manifest's YAML is read as kubectl reads it; every part without a JSON form is refused with its position."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from openseer_core.errors import ManifestError
from openseer_core.manifest.parse import manifest_hash, parse_job
from openseer_core.strict_json import MOST_DEPTH, parse
from openseer_local.main import load
from openseer_local.manifest_yaml import MOST_VALUES, read_yaml
from tests.repository import SOAK

EXAMPLES = 10_000 if SOAK else 100
WORDS = [
    "yes",
    "n",
    "On",
    "~",
    "null",
    "",
    "<<",
    "y",
    "True",
    "tRUE",
    "nan",
    ".nan",
    "-.Inf",
    "*a",
    "&a 1",
    "? a",
    "- a",
]
NUMBERS = [
    "0o17",
    "017",
    "08",
    "1_000",
    "1:30",
    "5e-2",
    "1e3",
    "1.0",
    ".5",
    "1.",
    "-0",
    "0x1F",
    "0b11",
    "1e999",
    "9" * 20,
]
TAGGED = [
    "!!str 1",
    "!!binary aGk=",
    "!!set {a}",
    "!x 1",
    "! 1",
    '"\\ud83d"',
    '"\\0"',
    '"\\x41"',
    "'it''s'",
    "2024-01-01",
]
FIELDS = [
    "model",
    "sampling",
    "prompts",
    "workers",
    "groupSize",
    "stop",
    "seed",
    "temperature",
    "topK",
    "engineArgs",
    "1",
]


def problems(text: str) -> list[str]:
    with pytest.raises(ManifestError) as caught:
        read_yaml(text, "job.yaml")
    return list(caught.value.problems)


@pytest.mark.parametrize(
    ("scalar", "value"),
    [
        *((word, True) for word in ("y", "Yes", "on", "TRUE")),
        *((word, False) for word in ("N", "no", "OFF", "false")),
        *((word, None) for word in ("~", "null", "")),
        *(("0o17", 15), ("017", 15), ("0x1F", 31), ("-0b11", -3), ("+1_000", 1000), ("08", 8)),
        *(("-9223372036854775808", -(2**63)), ("9223372036854775807", 2**63 - 1)),
        *(("5e-2", 0.05), ("1E3", 1000), ("1.0", 1), (".5", 0.5), ("1_0.5", 10.5), ("-.5e-1", -0.05), ("1e300", 1e300)),
        *((text, text) for text in ("1:30", "2024-01-01", "._5", "0o8", "0xg", "tRUE", "nan", "1e", "+", "a_1")),
        *(('"yes"', "yes"), ("'5e-2'", "5e-2"), ("!!str 017", "017")),
        *(("! 1", "1"), ("! '5'", "5"), ("! yes", "yes"), ("!", "")),
        *((r'"\ud83d\ude00"', "\N{GRINNING FACE}"),),
    ],
)  # fmt: skip
def test_a_scalar_is_read_as_by_kubectl(scalar: str, value: object) -> None:
    found = read_yaml(f"a: {scalar}\n", "job.yaml")["a"]
    assert (found, type(found)) == (value, type(value))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("spec:\n  sampling: {}\n  sampling: {}\n", "spec.sampling: found on line 2 and on line 3, allowed: once"),
        ('a: [{b: 1,\n "b": 2}]', "a[0].b: found on line 1 and on line 2, allowed: once"),
        ("a:\n  b: !!timestamp 2024-01-01", "a.b (line 2): found the tag !!timestamp, allowed: JSON's values"),
        ("a: !!binary aGk=", "a (line 1): found the tag !!binary"),
        ("a: !!set {b}", "a (line 1): found the tag !!set"),
        ("a: .nan", "a (line 1): found .nan, allowed: a finite number"),
        ("a: -.Inf", "a (line 1): found -.Inf, allowed: a finite number"),
        ("a: 1e999", "a (line 1): found 1e999, allowed: a number that a double holds"),
        ("a: 9223372036854775808", "a (line 1): found 9223372036854775808, allowed: a whole number of 64 bits"),
        (f"a: {'9' * 9999}", "a (line 1): found 999"),
        ("a:\n  1: b", "a (line 2): found 1 as a key, which YAML reads as 1, allowed: text; put it in quotes"),
        ("yes: b", "the document (line 1): found yes as a key, which YAML reads as true, allowed: text; put"),
        ("n: 2", "the document (line 1): found n as a key, which YAML reads as false, allowed: text; put it in"),
        ("[a]: b", "the document (line 1): found a list, a map or a tag as a key"),
        (r'a: "\ude00"', "a (line 1): not valid text (half of a character)"),
        (r'a: "b\0"', "a (line 1): not valid text (the character 0"),
        (r'a: "\UFFFFFFFF"', "not one YAML document: an escape or a directive has a number out of range"),
        ("a: &x {b: 1}\nc: {b: 2, <<: *x}", "c.<< (line 2): found after other keys, allowed: before them"),
        ("a: {<<: 1}", "a.<< (line 1): found something else, allowed: a map, or a list of maps"),
        ("a: &x [*x]", f"line 1: nested too deeply, allowed: {MOST_DEPTH} "),
        ("[" * 999, f"nested too deeply, allowed: {MOST_DEPTH} "),
        ("a: 1\n---\na: 2", "not one YAML document: line 2, column 1: expected a single document"),
    ],
)  # fmt: skip
def test_yaml_that_kubectl_would_lose_or_change_is_refused(text: str, expected: str) -> None:
    assert [problem for problem in problems(text) if problem.startswith(expected)], problems(text)


def test_aliases_and_merges_are_written_out() -> None:
    text = "a: &x {b: 1, c: 2}\nd: [*x, *x]\ne: {<<: *x, c: 3}\nf: {<<: [{c: 4}, *x], g: 5}\n"
    one = {"b": 1, "c": 2}
    assert read_yaml(text, "job.yaml") == {
        "a": one,
        "d": [one, one],
        "e": {"b": 1, "c": 3},
        "f": {"b": 1, "c": 4, "g": 5},
    }


def test_aliases_of_aliases_stop_at_a_limit() -> None:
    lines = ["a0: &a0 [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 12)]
    [problem] = problems("\n".join(lines))
    assert f"too many values, allowed: {MOST_VALUES}" in problem


def test_only_the_first_problems_are_named() -> None:
    assert problems("\n".join(f"a{n}: .nan" for n in range(30)))[19:] == [
        "a19 (line 20): found .nan, allowed: a finite number",
        "… and 10 more",
    ]


def flow(scalars: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    """YAML in one line with these scalars."""
    return st.recursive(
        scalars,
        lambda inner: (
            st.lists(inner, max_size=4).map(lambda parts: f"[{', '.join(parts)}]")
            | st.lists(st.tuples(st.sampled_from(FIELDS) | scalars, inner), max_size=4).map(
                lambda pairs: "{" + ", ".join(f"{key}: {value}" for key, value in pairs) + "}"
            )
        ),
        max_leaves=12,
    )


ODD = st.sampled_from([*WORDS, *NUMBERS, *TAGGED]) | st.text(max_size=6) | st.text("0123456789_.+-eExob:", max_size=8)


@pytest.mark.timeout(1800)
@settings(max_examples=EXAMPLES, derandomize=not SOAK, deadline=None)
@given(flow(ODD))
def test_a_value_survives_a_round_trip_through_json(text: str) -> None:
    try:
        value = read_yaml(f"a: {text}\n", "job.yaml")
    except ManifestError:
        return
    written = json.dumps(value, allow_nan=False)
    assert json.dumps(read_yaml(written, "job.json")) == written
    assert json.dumps(parse(written)) == written


JOB = """\
apiVersion: openseer.dev/v1alpha1
kind: RolloutJob
metadata: {{name: a}}
spec:
  model: {{path: m, engineArgs: {{a: {0}}}}}
  prompts: {{path: p}}
  sampling: {{{1}: {0}}}
  {2}: {0}
"""
SAMPLING = ["stop", "seed", "topK", "minTokens", "temperature", "ignoreEos", "logprobs", "<<"]


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("manifests") / "job.yaml"


@pytest.mark.timeout(1800)
@settings(max_examples=EXAMPLES, derandomize=not SOAK, deadline=None)
@given(flow(ODD), st.sampled_from(SAMPLING), st.sampled_from(["groupSize", "workers", "output", "model"]))
def test_any_manifest_is_a_job_or_refused(file: Path, odd: str, sampling: str, field: str) -> None:
    file.write_text(JOB.format(odd, sampling, field), "utf-8", errors="replace", newline="")
    try:
        document, job = load(file)
    except ManifestError:
        return
    again: Any = parse(json.dumps(document))
    assert manifest_hash(parse_job(again, "job.json")) == manifest_hash(job)


@pytest.mark.timeout(1800)
@settings(max_examples=EXAMPLES, derandomize=not SOAK, deadline=None)
@given(st.binary(max_size=60) | st.text("a:-[]{}&*!|>%@`\"'\\#? \n\t,0x", max_size=60).map(str.encode))
def test_any_bytes_are_yaml_or_refused(file: Path, data: bytes) -> None:
    file.write_bytes(data)
    with pytest.raises(ManifestError):
        load(file)
