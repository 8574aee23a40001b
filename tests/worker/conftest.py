"""Small random models that tests of the engine make for themselves."""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from pathlib import Path

import pytest

from openseer_worker.vllm.environment import prepare
from tests.worker.vllm.routing.moe_model import make_moe


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random Llama of 0.2 M parameters whose tokens are characters."""
    prepare()
    import torch  # noqa: PLC0415 - heavy
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers  # noqa: PLC0415 - heavy
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast  # noqa: PLC0415 - heavy

    path = tmp_path_factory.mktemp("model")
    letters = ["<pad>", "<bos>", "<eos>", "~", *map(chr, range(32, 125))]
    core = Tokenizer(models.WordLevel({letter: place for place, letter in enumerate(letters)}, "~"))
    core.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    core.decoder = decoders.Fuse()
    PreTrainedTokenizerFast(tokenizer_object=core, pad_token="<pad>", eos_token="<eos>").save_pretrained(path)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(letters), hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, head_dim=32, max_position_embeddings=1024, initializer_range=0.3,
        tie_word_embeddings=False, bos_token_id=1, eos_token_id=2, pad_token_id=0,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(path)
    return path


@pytest.fixture(scope="session")
def windowed_folder(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random Gemma with the same tokens: five layers attend to the last 64, one to all."""
    import torch  # noqa: PLC0415 - heavy
    from transformers import AutoTokenizer, Gemma3ForCausalLM, Gemma3TextConfig  # noqa: PLC0415 - heavy

    path = tmp_path_factory.mktemp("windowed")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.save_pretrained(path)
    torch.manual_seed(0)
    config = Gemma3TextConfig(
        vocab_size=len(tokenizer), hidden_size=64, intermediate_size=128, num_hidden_layers=6, num_attention_heads=2,
        num_key_value_heads=1, head_dim=32, max_position_embeddings=1024, initializer_range=0.3, sliding_window=64,
        bos_token_id=1, eos_token_id=2, pad_token_id=0,
    )  # fmt: skip
    Gemma3ForCausalLM(config).save_pretrained(path)
    return path


@pytest.fixture(scope="session")
def moe_folder(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random mixture of experts with the same tokens."""
    path = tmp_path_factory.mktemp("moe")
    make_moe(path, folder)
    return path
