"""The vocabulary of a GGUF file as a `tokenizer.json`, where it is byte-level BPE.

How a text is split before merges is one of llama.cpp's pre-tokenizers, named by `tokenizer.ggml.pre`
(`src/llama-vocab.cpp`, commit 00ad355e). Those whose expressions are the ones of the models' own `tokenizer.json` are
here. Vocabularies of SentencePiece and others are merged by rules that `tokenizers` does not have.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from willfit.checkpoints.gguf import GgufArray
from willfit.errors import BadInput

_TOKENS, _MERGES, _TYPES = (f"tokenizer.ggml.{name}" for name in ("tokens", "merges", "token_type"))

#: Arrays of a header that hold the vocabulary.
KEYS = (_TOKENS, _MERGES, _TYPES)

_CONTROL, _USER_DEFINED = 3, 4

_CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_REST = r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
_LLAMA3 = rf"{_CONTRACTIONS}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}{{1,3}}|{_REST}"
_QWEN2 = rf"{_CONTRACTIONS}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}|{_REST}"
_QWEN35 = (
    rf"{_CONTRACTIONS}|[^\r\n\p{{L}}\p{{N}}]?[\p{{L}}\p{{M}}]+|\p{{N}}"
    r"| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_UPPER, _LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_CASED = (
    rf"[^\r\n\p{{L}}\p{{N}}]?{_UPPER}*{_LOWER}+%s|[^\r\n\p{{L}}\p{{N}}]?{_UPPER}+{_LOWER}*%s"
    r"|\p{N}%s| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_TEKKEN = _CASED % ("", "", "")
_GPT4O = _CASED % (f"{_CONTRACTIONS}?", f"{_CONTRACTIONS}?", "{1,3}")
_DEEPSEEK3 = (
    r"\p{N}{1,3}",
    "[一-龥\u3040-ゟ゠-ヿ]+",
    r"""[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+"""
    r"""| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+""",
)

#: Names of pre-tokenizers, and the expressions that split a text one after the other.
_SPLITS: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(
        ("llama3", "llama-v3", "llama-bpe", "falcon3", "falcon-h1", "pixtral", "midm-2.0", "lfm2", "jina-v5-nano",
         "dbrx", "smaug-bpe", "glm4", "chatglm-bpe"), (_LLAMA3,)),
    **dict.fromkeys(
        ("qwen2", "deepseek-r1-qwen", "kormo", "f2llmv2", "stablelm2", "hunyuan", "solar-open", "megrez", "grok-2"),
        (_QWEN2,)),
    "qwen35": (_QWEN35,),
    **dict.fromkeys(
        ("gpt-2", "phi-2", "gigachat", "a.x-4.0", "mellum", "modern-bert", "exaone4", "mpt", "olmo", "jais",
         "trillion", "granite-docling"), (_GPT2,)),
    **dict.fromkeys(
        ("starcoder", "refact", "command-r", "smollm", "codeshell", "exaone", "minerva-7b", "mellum2"),
        (r"\p{N}", _GPT2)),
    **dict.fromkeys(("deepseek-v3", "hunyuan-dense", "joyai-llm", "hy_v4"), _DEEPSEEK3),
    **dict.fromkeys(("gpt-4o", "llama4", "kanana2", "talkie", "minimax-m2"), (_GPT4O,)),
    "tekken": (_TEKKEN,),
}  # fmt: skip

#: Pre-tokenizers with which a word that is a token is taken whole, and a text begins with the first token.
_WHOLE_WORDS = frozenset(
    ("llama3", "llama-v3", "llama-bpe", "falcon3", "falcon-h1", "pixtral", "midm-2.0", "lfm2", "jina-v5-nano",
     "tekken")
)  # fmt: skip

#: What a template calls the tokens that a header numbers.
_SPECIAL = {"bos": "bos_token", "eos": "eos_token", "unknown": "unk_token", "padding": "pad_token"}

_OTHER = "give the model's tokenizer.json with --tokenizer"


def tokenizer_of(metadata: Mapping[str, Any], name: str) -> str:
    """The text of a `tokenizer.json` that splits and merges as llama.cpp does with this file.

    Parameters
    ----------
    metadata
        Of its header, with the arrays of `KEYS` kept.
    name
        How to name the file in an error.

    Raises
    ------
    BadInput
        If it has no vocabulary, one that is not byte-level BPE, or a pre-tokenizer that is not known here.
    """
    kind, split = metadata.get("tokenizer.ggml.model"), metadata.get("tokenizer.ggml.pre", "default")
    if kind is None:
        raise BadInput(f"{name} holds no vocabulary", _OTHER)
    if kind != "gpt2":
        raise BadInput(f"{name}: tokens of its vocabulary ({str(kind)[:40]!r}) cannot be counted", _OTHER)
    if split not in _SPLITS:
        raise BadInput(f"{name}: its pre-tokenizer {str(split)[:40]!r} is not known", _OTHER)
    tokens = _strings(metadata, _TOKENS, name)
    merges = [merge.split(" ") for merge in _strings(metadata, _MERGES, name)]
    vocabulary = {token: number for number, token in enumerate(tokens)}
    if len(vocabulary) != len(tokens) or any(len(pair) != 2 for pair in merges):
        raise BadInput(
            f"{name}: its vocabulary repeats a token, or has a merge that is not one of two", _OTHER
        )
    types = metadata.get(_TYPES)
    added = [
        {
            "id": number, "content": tokens[number], "single_word": False, "lstrip": False, "rstrip": False,
            "normalized": False, "special": type_ == _CONTROL,
        }
        for number, type_ in enumerate(types[: len(tokens)] if isinstance(types, tuple) else ())
        if type_ in (_CONTROL, _USER_DEFINED)
    ]  # fmt: skip
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    splits = [
        {"type": "Split", "pattern": {"Regex": expression}, "behavior": "Isolated", "invert": False}
        for expression in _SPLITS[split]
    ]
    return json.dumps(
        {
            "version": "1.0",
            "added_tokens": added,
            "normalizer": None,
            "pre_tokenizer": {"type": "Sequence", "pretokenizers": [*splits, byte_level]},
            "post_processor": _begun(metadata, split in _WHOLE_WORDS),
            "decoder": byte_level,
            "model": {
                "type": "BPE",
                "vocab": vocabulary,
                "merges": merges,
                "ignore_merges": split in _WHOLE_WORDS,
            },
        },
        ensure_ascii=False,
    )


def special_tokens_of(metadata: Mapping[str, Any]) -> dict[str, str]:
    """The special tokens that a header numbers, by their names in a template."""
    tokens = metadata.get(_TOKENS)
    numbers = {name: metadata.get(f"tokenizer.ggml.{kind}_token_id") for kind, name in _SPECIAL.items()}
    return {
        name: tokens[number]
        for name, number in numbers.items()
        if isinstance(tokens, tuple) and isinstance(number, int) and 0 <= number < len(tokens)
    }


def _begun(metadata: Mapping[str, Any], usual: bool) -> dict[str, Any] | None:
    """What puts the first token before a text, if the file asks for it."""
    first = special_tokens_of(metadata).get("bos_token")
    if first is None or not metadata.get("tokenizer.ggml.add_bos_token", usual):
        return None
    number = metadata["tokenizer.ggml.bos_token_id"]
    one, text = {"SpecialToken": {"id": first, "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}
    pair = [one, text, {"Sequence": {"id": "B", "type_id": 1}}]
    return {
        "type": "TemplateProcessing",
        "single": [one, text],
        "pair": pair,
        "special_tokens": {first: {"id": first, "ids": [number], "tokens": [first]}},
    }


def _strings(metadata: Mapping[str, Any], key: str, name: str) -> Sequence[str]:
    found = metadata.get(key)
    if (
        isinstance(found, GgufArray)
        or not isinstance(found, tuple)
        or not all(isinstance(x, str) for x in found)
    ):
        raise BadInput(f"{name}: {key} is missing, or no list of texts", _OTHER)
    return found
