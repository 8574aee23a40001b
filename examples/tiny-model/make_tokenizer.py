"""Builds the model's own tokenizer: one token per character, 64 in all, saved in Hugging Face format."""

from __future__ import annotations

import argparse
import json
import string
from pathlib import Path

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

SPECIALS = ["<pad>", "<bos>", "<eos>", "<user>", "<assistant>"]
CHARACTERS = list("\n " + string.digits + string.ascii_lowercase + "+-*/=:,;.?!<>()|#&%^~")
UNKNOWN = "~"  # anything outside the alphabet reads as this
VOCABULARY = {token: index for index, token in enumerate(SPECIALS + CHARACTERS)}
CHAT_TEMPLATE = (
    "{{ '<bos>' }}{% for m in messages %}"
    "{{ ('<assistant>' + m['content'] + '<eos>') if m['role'] == 'assistant' else ('<user>' + m['content']) }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<assistant>' }}{% endif %}"
)


def build() -> PreTrainedTokenizerFast:
    """The tokenizer; it adds nothing to a text: the chat template writes the text around it."""
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
    """Writes the tokenizer's files; its configuration with the names that transformers 4 and 5 both read."""
    build().save_pretrained(out)
    path = out / "tokenizer_config.json"
    config: dict[str, object] = json.loads(path.read_text())
    config.pop("backend", None)
    config["tokenizer_class"] = "PreTrainedTokenizerFast"
    config["additional_special_tokens"] = config.pop("extra_special_tokens")
    path.write_text(json.dumps(config, indent=2) + "\n")


def chat_text(prompt: str) -> str:
    """What the model is prompted with: the same as the chat template makes of one user message."""
    return f"<bos><user>{prompt}<assistant>"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    save(parser.parse_args().out)


if __name__ == "__main__":
    main()
