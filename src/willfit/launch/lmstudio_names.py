"""Models by the keys that LM Studio lists them under.

`qwen/qwen3-coder-30b` is the repository's name in few words: sizes of experts, dates and `instruct` are left out. A
key of a file that a user loaded is the file's name.
"""

from __future__ import annotations

import re
from functools import cache
from typing import NamedTuple

from willfit.checkpoints import catalogue
from willfit.checkpoints.gguf_names import named_model
from willfit.errors import BadInput
from willfit.file_types import known_quantization

#: Words that keys leave out: how a model was tuned, parameters in use, dates, sizes, how it is stored.
_LEFT_OUT = re.compile(r"instruct|it|chat|hf|bf16|a?\d+(\.\d+)?b|\d{4}|nvidia|v\d+(\.\d+)*")
#: What stands in front of models of vectors that a user loaded.
_VECTORS = "text-embedding-"
_SPLIT = re.compile(r"[-_ ]+")


#: Variants behind a key: a file type of llama.cpp, or the bits of MLX.
_BITS = re.compile(r"([2-8])bit", re.IGNORECASE)
#: Trained for four bits, and stored so.
_TRAINED, _TRAINED_TYPE = "-qat", "Q4_0"


class Meant(NamedTuple):
    """A model as it is found.

    Attributes
    ----------
    name
        The model, with a file type if one is meant.
    format_name
        The format of files for MLX; None for others.
    notes
        What was taken.
    """

    name: str
    format_name: str | None = None
    notes: tuple[str, ...] = ()


def meant(key: str) -> Meant:
    """The model that a key means, with its variant: `qwen/qwen3-14b`, `qwen/qwen3-14b@q8_0`, a path.

    What is not known stands for itself.
    """
    name, _, variant = key.partition("@")
    bits = _BITS.fullmatch(variant)
    quantization = known_quantization(variant.upper()) if variant else None
    if variant and quantization is None and bits is None:
        return Meant(key)
    if "\\" in name or name.count("/") > 1 or name.lower().endswith(".gguf"):
        return Meant(key)
    found = _found(name) or name
    notes = () if found.lower() == name.lower() else (f"{name} is taken for {found}",)
    if bits is not None:
        return Meant(found, f"mlx{bits[1]}", notes)
    kind = quantization.label if quantization else _TRAINED_TYPE if name.lower().endswith(_TRAINED) else ""
    return Meant(f"{found}:{kind}" if kind else found, None, notes)


def _found(name: str) -> str | None:
    """The model of the catalogue; None if its name says several, or none."""
    try:
        entry = catalogue.find(name)
    except BadInput:
        return None
    if entry is not None:
        return entry.id
    bare = name.rpartition("/")[2].removeprefix(_VECTORS)
    return named_model(bare) or _abridged(bare)


def _abridged(name: str) -> str | None:
    """The model whose name has all words of a shorter one, and no others but those that are left out."""
    wanted = _words(name)
    found: dict[int, list[str]] = {}
    for words, model in _models():
        if wanted <= words and all(_LEFT_OUT.fullmatch(word) for word in words - wanted):
            found.setdefault(len(words - wanted), []).append(model)
    if not found:
        return None
    entries = [entry for entry in map(catalogue.find, found[min(found)]) if entry is not None]
    originals = [entry for entry in entries if "mirror_of" not in entry.facts] or entries
    alike = all(entry.config == originals[0].config for entry in originals)
    return originals[0].id if alike else None


@cache
def _models() -> tuple[tuple[frozenset[str], str], ...]:
    return tuple((_words(model.partition("/")[2]), model) for model in catalogue.catalogue_ids())


def _words(name: str) -> frozenset[str]:
    """The words of a name; `4.0` is `4`."""
    return frozenset(word.removesuffix(".0") for word in _SPLIT.split(name.lower()) if word)
