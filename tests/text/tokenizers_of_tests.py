"""Small tokenizers of the kinds that models have; they differ in how they join tokens to text."""

from pathlib import Path
from typing import Any, cast

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

THINK, END, BOS = "</think>", "<|im_end|>", "<s>"
SPECIALS = [BOS, THINK, END]
TEMPLATE = (
    "{{ '<s>' }}{% for m in messages %}{% if m['role'] == 'tool' %}{{ raise_exception('no\ntools') }}{% endif %}"
    "[{{ m['content'] }}]{% endfor %}{% if mood %}({{ mood }}){% endif %}"
    "{% if reasoning_effort %}({{ reasoning_effort }}, {{ enable_thinking }}){% endif %}"
    "{% for t in tools or [] %}<{{ t['function']['name'] }}>{% endfor %}"
    "{% for d in documents or [] %}<{{ d['text'] }}>{% endfor %}{% if add_generation_prompt %}>{% endif %}"
)


def byte_level(*, opens: bool = False) -> PreTrainedTokenizerFast:
    """Tokens are bytes and a few words, as of GPT-2, Qwen or Llama 3. `opens`: BOS stands before every text."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    merges = [("s", "t"), ("o", "p"), ("st", "op"), ("Ġ", "a"), ("Ġ", ".")]
    vocabulary = {word: number for number, word in enumerate(letters + [a + b for a, b in merges])}
    inner = Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    inner.decoder = decoders.ByteLevel()
    return _whole(inner, opens=opens)


def pieces() -> PreTrainedTokenizerFast:
    """Words begin with ▁ and rare characters are bytes, as of Llama 2 and Mistral; BOS stands before every text."""
    words = ["▁", "▁a", "a", "b", "▁stop", "st", "op", ".", "\n", "<0xE2>", "<0x82>", "<0xAC>", "é", "<unk>"]
    inner = Tokenizer(models.BPE({word: place for place, word in enumerate(words)}, [], unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    strip = decoders.Strip(content=" ", left=1)
    replace = decoders.Replace("▁", " ")
    inner.decoder = decoders.Sequence([replace, decoders.ByteFallback(), decoders.Fuse(), strip])
    return _whole(inner, opens=True)


def words(*, cleans: bool = True) -> PreTrainedTokenizerFast:
    """Tokens are words with spaces between, as of BERT; the space before a full stop is removed."""
    vocabulary = ["a", "b", "stop", ".", "!", "##op", "st", "n't", "do", "[UNK]"]
    inner = Tokenizer(models.WordLevel({word: place for place, word in enumerate(vocabulary)}, unk_token="[UNK]"))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    inner.decoder = decoders.WordPiece(cleanup=False)
    return _whole(inner, clean_up_tokenization_spaces=cleans)


def save(tokenizer: PreTrainedTokenizerFast, folder: Path) -> Path:
    """Writes a model's folder: the tokenizer, and a configuration with the length of a context."""
    cast("Any", tokenizer).save_pretrained(folder)
    (folder / "config.json").write_text('{"model_type": "llama", "max_position_embeddings": 64}')
    return folder


def _whole(inner: Tokenizer, *, opens: bool = False, **options: Any) -> PreTrainedTokenizerFast:
    cast("Any", inner).add_special_tokens([AddedToken(word, normalized=False) for word in SPECIALS])
    if opens:
        bos = inner.token_to_id(BOS)
        inner.post_processor = processors.TemplateProcessing(single=f"{BOS} $A", special_tokens=[(BOS, bos)])
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=inner, bos_token=BOS, eos_token=END, **options)
    tokenizer.chat_template = TEMPLATE
    return tokenizer
