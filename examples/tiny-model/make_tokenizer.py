"""Builds the model's own tokenizer, in Hugging Face format: 64 tokens, one per character besides special tokens."""

from __future__ import annotations

import argparse
import json
import string
from pathlib import Path

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

SPECIALS = ["<pad>", "<bos>", "<eos>", "<user>", "<assistant>"]
CHARACTERS = list("\n " + string.digits + string.ascii_lowercase + "+-*/=:,;.?!<>()|#&%^~")
UNKNOWN = "~"  # replaces each character outside the alphabet
VOCABULARY = {token: index for index, token in enumerate(SPECIALS + CHARACTERS)}
CHAT_TEMPLATE = (
    "{{ '<bos>' }}{% for m in messages %}"
    "{{ ('<assistant>' + m['content'] + '<eos>') if m['role'] == 'assistant' else ('<user>' + m['content']) }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<assistant>' }}{% endif %}"
)


def build() -> PreTrainedTokenizerFast:
    """Returns the tokenizer. It adds no special tokens to a text; the chat template does."""
    inner = Tokenizer(models.WordLevel(vocab=VOCABULARY, unk_token=UNKNOWN))
    inner.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), behavior="isolated")
    inner.decoder = decoders.Fuse()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=inner,
        pad_token="<pad>",
        bos_token="<bos>",
        eos_token="<eos>",
        unk_token=UNKNOWN,
        additional_special_tokens=["<user>", "<assistant>"],
        clean_up_tokenization_spaces=False,
        model_max_length=4096,
    )
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer


def save(out: Path) -> None:
    """Writes the tokenizer's files, with the names of settings that transformers 4 and 5 both read."""
    build().save_pretrained(out)
    path = out / "tokenizer_config.json"
    config: dict[str, object] = json.loads(path.read_text())
    config.pop("backend", None)
    config["tokenizer_class"] = "PreTrainedTokenizerFast"
    config["additional_special_tokens"] = config.pop("extra_special_tokens")
    path.write_text(json.dumps(config, indent=2) + "\n")


def chat_text(prompt: str) -> str:
    """Returns the model's prompt, equal to that of the chat template for one user message."""
    return f"<bos><user>{prompt}<assistant>"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    save(parser.parse_args().out)


if __name__ == "__main__":
    main()
