"""Small tokenizers in the files that real ones come in, and what transformers makes of them."""

from __future__ import annotations

import json
import random
from pathlib import Path

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

#: As Qwen's, with tools, reasoning and a loop that breaks.
CHATML = """{%- if tools %}<|im_start|>system
{% for tool in tools %}{{ tool | tojson }}
{% endfor %}<|im_end|>
{% endif %}
{%- set ns = namespace(seen=false) %}
{%- for message in messages %}
    {%- if message.role == 'stop' %}{% break %}{% endif %}
    {%- if message.role == 'user' %}{% set ns.seen = true %}{% endif %}
    {{- '<|im_start|>' + message.role + '\\n' }}
    {%- if message.reasoning_content %}<think>{{ message.reasoning_content }}</think>{% endif %}
    {%- generation %}{{- message.content if message.content is string else message.content[0].text }}{% endgeneration %}
    {{- eos_token + '\\n' }}
{%- endfor %}
{%- if not ns.seen %}{{ raise_exception('nobody asks') }}{% endif %}
{%- if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"""

_TEXT = (
    "the model of a language and its memory on cards where every layer keeps keys values for each token that "
    "people write in long sentences about weather music bread rivers while others count numbers slowly"
)


def prose(characters: int) -> str:
    """Words of a language, as the tokenizers were trained on."""
    drawn, words = random.Random(1), _TEXT.split()
    return " ".join(drawn.choice(words) for _ in range(characters))[:characters]


def symbols(characters: int) -> str:
    """No words at all."""
    drawn = random.Random(2)
    return "".join(drawn.choice("{}[]()<>#$%^&*~|\\/∑∂√≠≤≥αβγ→⇒01") for _ in range(characters))


def byte_level(folder: Path, split: str | None = None, template: str | None = CHATML) -> Tokenizer:
    """Byte-level BPE, as GPT-2's descendants have it.

    Parameters
    ----------
    split
        The expression that splits a text; that of GPT-2 by default.
    """
    tokenizer = Tokenizer(models.BPE(ignore_merges=False))
    bytes_ = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=split is None)
    tokenizer.pre_tokenizer = (
        bytes_
        if split is None
        else pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(split), "isolated"), bytes_])
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=600,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=["<|im_start|>", "<|im_end|>"],
        show_progress=False,
    )
    tokenizer.train_from_iterator([prose(20_000), "it's 1234567 ABCdef don't  two\n\n\tthree ÄÖü"], trainer)
    return _saved(tokenizer, folder, template)


def unigram(folder: Path) -> Tokenizer:
    """Unigram with metaspaces and a normalizer, as T5's descendants have it."""
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Replace("  ", " ")])
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=300,
        special_tokens=["<unk>", "<|im_start|>", "<|im_end|>"],
        unk_token="<unk>",
        show_progress=False,
    )
    tokenizer.train_from_iterator([prose(20_000), symbols(2_000)], trainer)
    return _saved(tokenizer, folder, CHATML)


def _saved(tokenizer: Tokenizer, folder: Path, template: str | None) -> Tokenizer:
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": {"__type": "AddedToken", "content": "<|im_end|>", "special": True},
        "chat_template": template,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return tokenizer


def transformers_count(folder: Path, messages: list[dict], tools: list[dict] | None = None) -> int:
    """Tokens of a chat, by transformers."""
    from transformers import PreTrainedTokenizerFast

    tokenizer = PreTrainedTokenizerFast.from_pretrained(str(folder))
    made = tokenizer.apply_chat_template(messages, tools=tools, add_generation_prompt=True, tokenize=True)
    return len(made["input_ids"] if not isinstance(made, list) else made)
