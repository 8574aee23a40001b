"""Adapters that a worker refuses before it loads them, and the messages."""

from pathlib import Path
from typing import Any

import pytest

from openseer_core.errors import LoadError
from openseer_core.manifest.generation import Lora, Model
from openseer_worker.weights.adapter_files import AdapterCheck
from openseer_worker.weights.hashing import digest
from tests.repository import ROOT
from tests.worker.weights.adapters import write_adapter
from tests.worker.weights.made import write_weights

LORA = Lora(max_rank=4)
MODEL = Model(path="org/model", lora=LORA)
TINY = Model(path=str(ROOT / "examples" / "tiny-model" / "model"), lora=LORA)


def test_a_fitting_adapter_is_accepted(tmp_path: Path) -> None:
    AdapterCheck(MODEL)(write_adapter(tmp_path / "a", dtype="BF16", use_rslora=True, init_lora_weights="gaussian"))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"rank": 8}, r"found rank 8, allowed: at most 4 \(spec.model.lora.maxRank\)"),
        (
            {"module": "base_model.model.lm_head"},
            r"found lm_head, allowed: q_proj, .*\(spec.model.lora.targetModules\)",
        ),
        ({"module": "model.layers.0.q_proj"}, r"tensor model.layers.0.q_proj.lora_A.weight: allowed: base_model.model"),
        ({"dtype": "I16"}, r"found I16 \[2, 8\], allowed: two dimensions of F32, F16, BF16"),
        ({"use_dora": True}, "use_dora: found True, allowed: False; engines do not compute it; merge"),
        ({"modules_to_save": ["lm_head"]}, r"modules_to_save: found \['lm_head'\]"),
        (
            {"module": "lm_head"},
            r"lm_head.lora_A.weight: .*train without its module \(target_modules\), or merge",
        ),
        ({"bias": "all"}, "bias: found 'all', allowed: 'none'"),
        ({"peft_type": "IA3"}, "peft_type: found 'IA3', allowed: 'LORA'"),
        ({"init_lora_weights": "pissa"}, "init_lora_weights: found 'pissa'.*path_initial_model"),
        ({"lora_alpha": 0}, "lora_alpha: found 0, allowed: a number above 0"),
        ({"base_model_name_or_path": "org/other"}, "found 'org/other', needed: the job's model, org/model"),
        ({"kasa_config": {"beta": 1e-4}}, "kasa_config: found {'beta': 0.0001}; this release does not support it"),
        ({"r": 8}, r"module model.layers.0.self_attn.q_proj: found rank 2, needed: 8, by .*r, rank_pattern"),
        ({"rank_pattern": {"layers.0.self_attn.q_proj": 1}}, "found rank 2, needed: 1"),
        ({"alpha_pattern": {"(": 1}}, r"alpha_pattern: found key '\(', needed: a regular expression"),
        ({"lora_alpha": float("inf")}, "lora_alpha: found Infinity, allowed: a number"),
    ],
)
def test_an_adapter_is_refused_by_field_value_and_remedy(tmp_path: Path, changes: dict[str, Any], words: str) -> None:
    with pytest.raises(LoadError, match=words):
        AdapterCheck(MODEL)(write_adapter(tmp_path / "a", **changes))


def test_ranks_follow_the_pattern_that_matches_first_as_in_peft(tmp_path: Path) -> None:
    pattern = {"elf_attn.q_proj": 4, r"layers\.\d+\.self_attn\.q_proj": 2, "q_proj": 3}
    AdapterCheck(MODEL)(write_adapter(tmp_path / "a", r=16, rank_pattern=pattern))


def test_fields_that_change_no_result_may_have_any_value(tmp_path: Path) -> None:
    harmless: dict[str, Any] = {
        "lora_dropout": 0.1,
        "eva_config": {"rho": 2.0},
        "exclude_modules": ["lm_head"],
        "inference_mode": True,
    }
    AdapterCheck(MODEL)(write_adapter(tmp_path / "a", **harmless, of_the_future=None, other_config={}))


def test_an_adapter_of_another_model_is_refused_by_its_shapes(tmp_path: Path) -> None:
    with pytest.raises(LoadError, match=r"its update has shape \[8, 8\], the job's model \[256, 256\]"):
        AdapterCheck(TINY)(write_adapter(tmp_path / "a"))
    with pytest.raises(LoadError, match="the job's model has no such module"):
        AdapterCheck(TINY)(write_adapter(tmp_path / "b", module="base_model.model.model.layers.9.self_attn.q_proj"))


def test_a_folder_without_an_adapter_is_refused(tmp_path: Path) -> None:
    write_weights(tmp_path / "weights", "w")
    for folder in (tmp_path, tmp_path / "weights"):
        with pytest.raises(LoadError, match=r"holds no adapter: needed adapter_config.json and"):
            AdapterCheck(MODEL)(folder)
    with pytest.raises(LoadError, match="there is no folder"):
        AdapterCheck(MODEL)(tmp_path / "none")
    with pytest.raises(LoadError, match=r"set spec\.model\.lora"):
        AdapterCheck(Model(path="none"))(write_adapter(tmp_path / "a"))


def test_the_digest_of_an_adapter_covers_its_configuration(tmp_path: Path) -> None:
    one, other = write_adapter(tmp_path / "a"), write_adapter(tmp_path / "b", lora_alpha=8)
    assert digest(one) != digest(other)
