"""What names say of GGUF files: which model of the catalogue they hold, and how they are quantized.

Names follow habits, no rule: `Qwen3-14B-Q4_K_M.gguf`, `llama-2-7b-chat.Q5_K_S.gguf`,
`google_gemma-3-27b-it-IQ4_XS.gguf`, `DeepSeek-R1-UD-IQ1_S-00001-of-00003.gguf`. A name is understood only if it
means one model; a finetune that has a name of its own is not taken for the model that it was made from.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache
from typing import NamedTuple

from willfit.checkpoints import catalogue
from willfit.errors import BadInput
from willfit.file_types import LATEST, USUAL, known_quantization

_SHARD = re.compile(r"-\d{5}-of-\d{5}$")
_ENDING = re.compile(r"\.gguf$", re.IGNORECASE)

#: How names call quantizations, at their end.
_QUANT = re.compile(
    r"[-._](?P<mark>i1-|imat-|UD-)?"
    r"(?P<quant>I?Q[1-9](?:_[0-9A-Z]+)*|TQ[12]_0|BF16|F16|FP16|F32|FP32|MXFP4(?:_MOE)?|NVFP4)"
    r"(?:[-._](?:imat|imatrix|pure|i1))?$",
    re.IGNORECASE,
)
#: Words at the end of a name that leave the architecture as it is.
_NOISE = re.compile(
    r"[-._](?:gguf|imat|imatrix|i1|hf|qat|128k|1m|abliterated(?:-v\d+)?|uncensored|heretic|it-qat|bf16|original)$"
)
_TUNED = ("instruct", "it", "chat", "base", "pt")

#: Copies in other formats, which are not what a GGUF file was made from.
_QUANTIZED = re.compile(r"awq|gptq|fp8|bnb|w\d+a\d+|nvfp4|int4|int8|quantized|mxfp4", re.IGNORECASE)

#: Repositories that hold GGUF files of another model.
_OF_FILES = re.compile(r"(?P<base>.+?)[-_.](?:i1[-_.])?gguf", re.IGNORECASE)

#: Names that say nothing; that of the folder may.
_GENERIC = re.compile(r"(?:ggml[-_.])?model|weights|main", re.IGNORECASE)


class Guess(NamedTuple):
    """What a file's name says.

    Attributes
    ----------
    model
        The id of the model in the catalogue.
    quantization
        As llama.cpp's files call it: `Q4_K_M`, `UD-Q4_K_XL`, `F16`.
    """

    model: str
    quantization: str

    @property
    def reference(self) -> str:
        """The model with its quantization, as it is asked for: `Qwen/Qwen3-14B:Q4_K_M`."""
        return f"{self.model}:{self.quantization}"


def guess(path: str) -> Guess | None:
    """What the name of a GGUF file, or of the folder that it lies in, says; None if it does not say one model.

    Parameters
    ----------
    path
        A file's path or name; it need not exist.
    """
    parts = [part for part in re.split(r"[/\\]", path) if part]
    if not parts or not _ENDING.search(parts[-1]):
        return None
    # llama.cpp's own cache writes `organisation_repository-GGUF_file.gguf`.
    stem = re.split(r"[-_.]gguf_", _SHARD.sub("", _ENDING.sub("", parts[-1])), flags=re.IGNORECASE)[-1]
    found = _QUANT.search(f"-{stem}")
    if found is None or known_quantization(_quantization(found)) is None:
        return None
    base = f"-{stem}"[: found.start()].strip("-._")
    if not base or _GENERIC.fullmatch(base):
        # `Qwen3-14B-GGUF/model-Q4_K_M.gguf`
        base = parts[-2] if len(parts) > 1 else ""
    model = named_model(base)
    return Guess(model, _quantization(found)) if model else None


def original(repository: str) -> catalogue.CatalogueEntry | None:
    """The model of the catalogue that a repository of GGUF files was made from; None if its name does not say."""
    organisation, _, name = repository.rpartition("/")
    found = _OF_FILES.fullmatch(name)
    if found is None:
        return None
    return based_on(organisation, found["base"])


def based_on(organisation: str, base: str) -> catalogue.CatalogueEntry | None:
    """The model of the catalogue that a repository's name means without what it says of files; None if none."""
    for candidate in (f"{organisation}/{base}", base.replace("_", "/", 1), base, named_model(base) or ""):
        try:
            entry = catalogue.find(candidate)
        except BadInput:  # several organisations have one
            continue
        if entry is not None:
            return entry
    return None


def asked_quantization(tag: str, entry: catalogue.CatalogueEntry) -> str | None:
    """The quantization that a tag of a repository of a model's GGUF files means; None if that is not known.

    Parameters
    ----------
    tag
        A quantization, the name of a file, or `latest`: the file that llama.cpp takes where none is named.
    """
    if tag.lower() == LATEST:
        native = entry.config.get("quantization_config") or {}
        return "MXFP4_MOE" if native.get("quant_method") == "mxfp4" else USUAL[0]
    found = _QUANT.search(f"-{_SHARD.sub('', _ENDING.sub('', tag))}") if _ENDING.search(tag) else None
    quantization = _quantization(found) if found else tag
    return quantization if known_quantization(quantization) else None


def _quantization(found: re.Match[str]) -> str:
    quant = found["quant"].upper().replace("FP16", "F16").replace("FP32", "F32")
    return f"UD-{quant}" if (found["mark"] or "").upper() == "UD-" else quant


def named_model(name: str) -> str | None:
    """The one model of the catalogue that a name means."""
    name = name.lower()
    names = [name]
    while (shorter := _NOISE.sub("", names[-1])) != names[-1]:
        names.append(shorter)
    # `Qwen_Qwen3-14B`: the organisation stands in front.
    names += [one.partition("_")[2] for one in list(names) if "_" in one]
    for one in names:
        found = _named(one)
        if found:
            return found
    for one in names:
        # Tuning for answers leaves the architecture as it is, and not all of these are in the catalogue.
        bare = re.sub(rf"[-._]({'|'.join(_TUNED)})$", "", one)
        for other in (bare, *(f"{bare}-{word}" for word in _TUNED)):
            found = _named(other)
            if found:
                return found
    return None


def _named(name: str) -> str | None:
    """The model of a name, or else of one that files shorten to it."""
    exact, shortened = _by_name()
    key = _key(name)
    return _only(exact.get(key, ())) or _only(shortened.get(key, ()))


def _only(ids: Sequence[str]) -> str | None:
    """The model that several ids of one name mean; None if they may mean different ones."""
    if len(ids) < 2:
        return ids[0] if ids else None
    entries = [entry for entry in map(catalogue.find, ids) if entry is not None]
    originals = [entry for entry in entries if "mirror_of" not in entry.facts] or entries
    same = all(entry.config == originals[0].config for entry in originals)
    return originals[0].id if same else None


def _key(name: str) -> str:
    """A name as it is compared: case, dashes and blanks do not count, `1_5` is `1.5`."""
    return re.sub(r"[-_ ]", "", re.sub(r"(?<=\d)_(?=\d)", ".", name.lower()))


@cache
def _by_name() -> tuple[dict[str, list[str]], dict[str, list[str]]]:
    """The ids of the catalogue by their names, and by those that files shorten these to."""
    exact: dict[str, list[str]] = {}
    shortened: dict[str, list[str]] = {}
    for model in catalogue.catalogue_ids():
        name = model.partition("/")[2].lower()
        if _QUANTIZED.search(name):
            continue
        exact.setdefault(_key(name), []).append(model)
        short = re.sub(r"-(hf|bf16)$", "", name)
        for key in {_key(short), _key(re.sub(r"^(meta|nvidia)-", "", short))} - {_key(name)}:
            shortened.setdefault(key, []).append(model)
    return exact, shortened
