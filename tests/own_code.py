"""A model with code of its authors, as on hubs: configuration, layers and tokenizer."""

import json
import shutil
from pathlib import Path
from typing import Any

CODE = """
from transformers import LlamaConfig, LlamaForCausalLM, LlamaModel, PreTrainedTokenizerFast

class OwnConfig(LlamaConfig):
    model_type = "own"

class OwnModel(LlamaModel):
    config_class = OwnConfig

class OwnForCausalLM(LlamaForCausalLM):
    config_class = OwnConfig

class OwnTokenizer(PreTrainedTokenizerFast):
    \"\"\"Reads and writes a for b, and b for a.\"\"\"
    SWAP = str.maketrans("ab", "ba")

    def _encode_plus(self, text, *args, **kwargs):
        return super()._encode_plus(text.translate(self.SWAP), *args, **kwargs)

    def _decode(self, *args, **kwargs):
        return super()._decode(*args, **kwargs).translate(self.SWAP)
"""
_CLASSES = {"AutoConfig": "own.OwnConfig", "AutoModel": "own.OwnModel", "AutoModelForCausalLM": "own.OwnForCausalLM"}


def with_own_code(model: Path, folder: Path, **config: Any) -> Path:
    """Copies a Llama to a folder as a model with its own code; `config` replaces parts of its configuration."""
    shutil.copytree(model, folder)
    (folder / "own.py").write_text(CODE)
    changed = {"model_type": "own", "auto_map": _CLASSES, **config}
    _change(folder / "config.json", **changed)
    own = [None, "own.OwnTokenizer"]
    _change(folder / "tokenizer_config.json", tokenizer_class="OwnTokenizer", auto_map={"AutoTokenizer": own})
    return folder


def _change(path: Path, **values: Any) -> None:
    known: dict[str, Any] = json.loads(path.read_text())
    path.write_text(json.dumps(known | values))
