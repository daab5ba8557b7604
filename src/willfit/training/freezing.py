"""What is trained of a model without an adapter: parts, patterns of names, and layers by number."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from fnmatch import fnmatch

from willfit.architectures.model import PARTS, Architecture, Layer, Tensor
from willfit.errors import BadInput
from willfit.training.settings import TrainingSettings

#: `layers.3`, `layers.0-15`, `layers.-2:` (the last two), `layers.:2`; of these `.self_attn` alone.
_LAYERS = re.compile(r"layers\.(?:(\d+)(?:-(\d+))?|(-?\d+):|:(\d+))(?:\.(.+))?$")


def matches(tensor: Tensor, word: str) -> bool:
    """Whether a word names a tensor: its part, a pattern of its name, or a module that it belongs to."""
    pattern = word.removeprefix("^").removesuffix("$")
    return pattern == tensor.part or fnmatch(tensor.name, pattern) or f".{pattern}." in f".{tensor.name}."


def with_chosen_layers(
    architecture: Architecture, settings: TrainingSettings
) -> tuple[Architecture, TrainingSettings]:
    """The model with layers that are named by number marked in their tensors' names, and words that match the marks.

    Raises
    ------
    BadInput
        If a word means nothing in this model.
    """
    words = tuple(dict.fromkeys((*settings.frozen, *settings.trained)))
    chosen = {word: found for word in words if (found := _LAYERS.match(word))}
    for word in words:
        if (
            word not in chosen
            and word not in PARTS
            and not any(matches(one, word) for one in _all(architecture))
        ):
            raise BadInput(
                f"{word!r} is no part, layer or tensor of {architecture.model_type}",
                f"parts: {', '.join(PARTS)}; layers: layers.0-15",
            )
    if not chosen:
        return architecture, settings
    marks = {word: f"chosen{index}" for index, word in enumerate(chosen)}
    ranges = {word: _range(word, found, architecture) for word, found in chosen.items()}
    known: dict[tuple[int, tuple[str, ...]], Layer] = {}
    layers = []
    for index, layer in enumerate(architecture.layers):
        own = tuple(marks[word] for word in chosen if index in ranges[word])
        if own and (id(layer), own) not in known:
            named = (replace(one, name=".".join((*own, one.name))) for one in layer.tensors)
            known[id(layer), own] = replace(layer, tensors=tuple(named))
        layers.append(known[id(layer), own] if own else layer)

    def translated(asked: Sequence[str]) -> tuple[str, ...]:
        return tuple(_pattern(marks[word], chosen[word]) if word in chosen else word for word in asked)

    return replace(architecture, layers=tuple(layers)), replace(
        settings, frozen=translated(settings.frozen), trained=translated(settings.trained)
    )


def _range(word: str, found: re.Match[str], architecture: Architecture) -> range:
    count = len(architecture.layers)
    first, last, behind, before = found.group(1, 2, 3, 4)
    if first is not None:
        selected = range(int(first), int(last or first) + 1)
    else:
        selected = range(count)[int(behind) :] if behind is not None else range(count)[: int(before)]
    if not selected or selected[-1] >= count:
        raise BadInput(f"{word!r}: {architecture.model_type} has layers 0 to {count - 1} here")
    return selected


def _pattern(mark: str, found: re.Match[str]) -> str:
    module = found.group(5)
    return f"*{mark}.*.{module}.*" if module else f"*{mark}.*"


def _all(architecture: Architecture) -> Iterator[Tensor]:
    yield from architecture.embeddings
    yield from architecture.shared
    for tower in architecture.towers:
        yield from tower.tensors
    for layer, _ in (*architecture.encoder_blocks, *architecture.blocks):
        yield from layer.tensors
    yield from architecture.head
