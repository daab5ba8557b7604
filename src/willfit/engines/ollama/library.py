"""Models of Ollama's library by name and tag: which model that is, and how Ollama stores it."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from difflib import get_close_matches
from functools import cache
from importlib.resources import files
from typing import Literal

from willfit.architectures.build import build
from willfit.checkpoints.catalogue import find
from willfit.checkpoints.config import Config
from willfit.engines.ollama.facts import Vision
from willfit.engines.ollama.stored import Stored, encoder_of
from willfit.errors import BadInput

#: The mix at the end of a tag: `8b-instruct-q4_K_M`.
_MIX = re.compile(
    r"(?:^|-)(i?q\d(?:_[01k])?(?:_[sml])?|iq\d_\w+|fp16|f16|fp32|f32|bf16|mxfp4)$", re.IGNORECASE
)
#: Names under which floats go.
_FLOATS = {"FP16": "F16", "FP32": "F32"}
#: Trained for four bits: the matrices in Q4_0, the token table as it was.
_TRAINED = "-qat"
#: Words that say how a model was trained, which does not change its layers.
_TRAINING = re.compile(
    r"-(instruct|chat|text|code|python|base|it|pt|v[\d.]+|\d{4}|thinking|nonthinking|preview|distill|qwen|llama|"
    r"128k|4k|fast|uncensored)\b.*$"
)
_LATEST = "latest"
#: Whose models these are; names with another owner are not in the library.
_OWNERS = ("library/", "registry.ollama.ai/library/", "ollama.com/library/", "https://ollama.com/library/")
#: Hosts whose repositories Ollama takes files from.
_HOSTS = re.compile(
    r"^(?:https?://)?(?:hf\.co|huggingface\.co)/(?P<repo>[^/:]+/[^/:]+)(?::(?P<quant>[^:]+))?$"
)
#: The mix that Ollama takes of a repository if none is named.
_USUAL = "Q4_K_M"


@dataclass(frozen=True, slots=True)
class Known:
    """A model that Ollama's name stands for.

    Attributes
    ----------
    name
        As it is called.
    model
        The model whose layers it has.
    stored
        How Ollama stores it.
    in_library
        The name is one of Ollama's library.
    """

    name: str
    model: str
    stored: Stored
    in_library: bool = True

    @classmethod
    def of_path(cls, path: str, quant: str | None = None) -> Known:
        """A GGUF file, or a folder with a model that is quantized."""
        mix = _mix(quant) if quant and not path.endswith(".gguf") else ""
        return cls(path, path, Stored(quant=mix), in_library=False)

    @property
    def file(self) -> str:
        """The model with its mix, as files of a repository are named: `Qwen/Qwen3-14B:Q4_K_M`."""
        return f"{self.model}:{self.stored.quant}" if self.stored.quant else self.model

    @property
    def encoder(self) -> Vision | None:
        """Its image encoder, where the model is bundled."""
        entry = find(self.model) if self.stored.encoder else None
        return encoder_of(build(Config(entry.config, entry.id)), self.stored) if entry is not None else None

    def quantized(self, quant: str) -> Known:
        """The same in another mix."""
        return replace(self, stored=replace(self.stored, quant=_mix(quant), types=()))


@dataclass(frozen=True, slots=True)
class _Line:
    tags: tuple[str, ...]
    model: str
    stored: Stored


def _mix(text: str) -> str:
    """A mix as llama.cpp names it: `Q4_K_M`, `F16`.

    Raises
    ------
    BadInput
        If it is none.
    """
    if not _MIX.fullmatch(text):
        raise BadInput(f"there is no quantization {text[:40]!r}", "known: q4_K_M, q4_K_S, q8_0, f16, ...")
    return _FLOATS.get(text.upper(), text.upper())


def known(name: str) -> Known:
    """The model that a name stands for.

    Parameters
    ----------
    name
        `qwen3`, `qwen3:14b`, `llama3.1:8b-instruct-q8_0`, `hf.co/owner/repository:Q4_K_M`.

    Raises
    ------
    BadInput
        If it is not known what that is.
    """
    repository = _HOSTS.match(name)
    if repository is not None:
        quant = repository["quant"] or _LATEST
        stored = Stored(quant=_USUAL if quant == _LATEST else quant, own_rules=False)
        return Known(name, repository["repo"], stored, in_library=False)
    bare = name
    for owner in _OWNERS:
        bare = bare.removeprefix(owner)
    family, _, tag = bare.partition(":")
    lines = _library().get(family.lower())
    if lines is None:
        close = get_close_matches(family, _library(), 1)
        meant = f"do you mean {close[0]}? " if close else ""
        raise BadInput(
            f"{name}: it is not known which model of Ollama's library that is",
            f"{meant}hf.co/owner/repository:Q4_K_M and GGUF files work too",
        )
    if tag.endswith("cloud"):
        raise BadInput(f"{name} runs on Ollama's own servers", "it takes no memory here; name another tag")
    return _tagged(name, lines, tag or _LATEST)


def _tagged(name: str, lines: tuple[_Line, ...], tag: str) -> Known:
    """The model of a tag."""
    exact = next((line for line in lines if tag in line.tags), None)
    if exact is not None:
        return Known(name, exact.model, exact.stored)
    found = _MIX.search(tag)
    mix = found[1].upper() if found else ""
    size = tag[: found.start()] if found else tag
    trained = size.endswith(_TRAINED)
    size = size.removesuffix(_TRAINED)
    line = _of_size(lines, size)
    if line is None:
        tags = ", ".join(one for line in lines for one in line.tags if one != _LATEST)
        raise BadInput(
            f"{name}: tag {tag!r} is not known", f"known: {tags}, each also with a mix such as -q8_0"
        )
    stored = line.stored
    if mix and _FLOATS.get(mix, mix) != stored.quant:
        stored = replace(stored, quant=_FLOATS.get(mix, mix), types=())
    elif trained:
        stored = replace(stored, quant="Q4_0", types=((r"^token_embd\.weight$", "F16"),))
    return Known(name, line.model, stored)


def _of_size(lines: tuple[_Line, ...], size: str) -> _Line | None:
    """The line whose tag a size begins with; the latest where there is no size."""
    best = max(
        ((tag, line) for line in lines for tag in line.tags if size == tag or size.startswith(f"{tag}-")),
        key=lambda one: len(one[0]),
        default=None,
    )
    if best is not None:
        return best[1]
    bare = _TRAINING.sub("", f"-{size}") if size else ""
    return next((line for line in lines if _LATEST in line.tags), None) if not bare else None


@cache
def _library() -> dict[str, tuple[_Line, ...]]:
    """The table, by family."""
    text = files("willfit.engines.ollama").joinpath("library.txt").read_text(encoding="utf-8")
    found: dict[str, tuple[_Line, ...]] = {}
    for line in text.splitlines():
        if line and not line.startswith("#"):
            name, tags, model, quant, *flags = line.split()
            found[name] = (*found.get(name, ()), _Line(tuple(tags.split(",")), model, _stored(quant, flags)))
    return found


def _stored(quant: str, flags: list[str]) -> Stored:
    pairs = dict(flag.split("=", 1) for flag in flags if "=" in flag)
    architecture = pairs.pop("arch", "")
    words = int(pairs.pop("words", 0))
    encoder: Literal["", "inline", "file"] = ""
    if "inline" in flags:
        encoder = "inline"
    elif "file" in flags:
        encoder = "file"
    types = tuple((re.escape(pattern), kind) for pattern, kind in pairs.items())
    whole_heads = "whole-heads" in flags
    return Stored(
        architecture=architecture,
        encoder=encoder,
        quant=quant,
        types=types,
        own_rules=not whole_heads and "plain" not in flags,
        whole_heads=whole_heads,
        drafts="apart" if "drafts-apart" in flags else "none" if "no-drafts" in flags else "",
        untied="untied" in flags,
        words=words,
    )
