"""What is trained of a model without an adapter: parts and patterns, the last layers, and blocks that take turns.

LLaMA-Factory: model/adapter.py: _setup_freeze_tuning, train/trainer_utils.py: BAdam; ms-swift and LMFlow: LISA
(DynamicLayerActivationCallback).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from fnmatch import fnmatch

from willfit.architectures.model import PARTS, Architecture, Tensor
from willfit.errors import BadInput
from willfit.training.parameters import Parameter

#: Parts that stay trained while layers take turns in LISA: embedding, head, and the final norm with it.
ALWAYS = ("embedding", "head")


def parameters(architecture: Architecture) -> tuple[Parameter, ...]:
    """All parameters of a model, alike ones of alike layers together."""
    return tuple(_gathered(architecture, None))


def trained(
    architecture: Architecture, frozen: Sequence[str] = (), only: Sequence[str] = ()
) -> tuple[Parameter, ...]:
    """Parameters that are trained.

    Parameters
    ----------
    architecture
        The model.
    frozen
        Parts (`embedding`, `vision`), patterns of names (`*.mlp.*`), or layers (`layers.0-15`) that are not trained.
    only
        The same, of what alone is trained.

    Raises
    ------
    BadInput
        A word means nothing in this model, or nothing is left to train.
    """
    for word in (*frozen, *only):
        if not any(_means(word, name, tensor, index) for name, tensor, index in _all(architecture)):
            raise BadInput(f"{word!r} is no part, layer or tensor of {architecture.model_type}")
    kept = {
        (name, index)
        for name, tensor, index in _all(architecture)
        if not any(_means(word, name, tensor, index) for word in frozen)
        and (not only or any(_means(word, name, tensor, index) for word in only))
    }
    if not kept:
        raise BadInput("nothing is left to train: everything is frozen")
    return tuple(_gathered(architecture, kept))


def last_layers(architecture: Architecture, count: int) -> tuple[Parameter, ...]:
    """The last layers (the first with a negative number), as LLaMA-Factory's `freeze_trainable_layers`."""
    layers = len(architecture.layers)
    if count == 0 or abs(count) > layers:
        raise BadInput(
            f"trainable layers must be 1 to {layers}, or -1 to -{layers} for the first, got {count}"
        )
    places = f"layers.{layers - count}-{layers - 1}" if count > 0 else f"layers.0-{-count - 1}"
    return trained(architecture, only=(places,))


def lisa(architecture: Architecture, active: int) -> tuple[Parameter, ...]:
    """Embedding, head and as many layers as are active at once, the largest; others have neither gradient nor state."""
    layers = len(architecture.layers)
    if not 1 <= active <= layers:
        raise BadInput(f"LISA: active layers must be 1 to {layers}, got {active}")
    sizes = sorted(range(layers), key=lambda index: -_size(architecture.layers[index].tensors))
    words = tuple(f"layers.{index}-{index}" for index in sizes[:active])
    return trained(architecture, only=(*(part for part in ALWAYS if _has(architecture, part)), *words))


def badam_block(architecture: Architecture, with_embedding: bool = True) -> tuple[Parameter, ...]:
    """The largest block that BAdam trains at once: a layer, or the embedding, or the head."""
    layers = range(len(architecture.layers))
    largest = max(layers, key=lambda index: _size(architecture.layers[index].tensors))
    blocks = [trained(architecture, only=(f"layers.{largest}-{largest}",))]
    if with_embedding:
        blocks.extend(trained(architecture, only=(part,)) for part in ALWAYS if _has(architecture, part))
    return max(blocks, key=lambda block: sum(parameter.elements for parameter in block))


def _size(tensors: Iterable[Tensor]) -> int:
    return sum(tensor.elements for tensor in tensors if tensor.kind != "buffer")


def _has(architecture: Architecture, part: str) -> bool:
    return any(tensor.part == part for _, tensor, _ in _all(architecture))


def _all(architecture: Architecture) -> Iterator[tuple[str, Tensor, int | None]]:
    """Every parameter with its layer; those of an encoder-decoder's encoder count as layers of their own names."""
    for tensor in (*architecture.embeddings, *architecture.shared):
        yield tensor.name, tensor, None
    for layers in (architecture.encoder, architecture.layers):
        for index, layer in enumerate(layers):
            for tensor in layer.tensors:
                if tensor.kind != "buffer":
                    yield tensor.name, tensor, index
    for tensor in architecture.head:
        yield tensor.name, tensor, None
    for tower in architecture.towers:
        for tensor in tower.tensors:
            yield tensor.name, tensor, None


def _means(word: str, name: str, tensor: Tensor, index: int | None) -> bool:
    if word in PARTS:
        return tensor.part == word
    if word.startswith("layers."):
        first, _, last = word.removeprefix("layers.").partition("-")
        if first.isdigit() and (not last or last.isdigit()):
            return index is not None and int(first) <= index <= int(last or first)
    full = name if index is None else name.replace("{layer}", str(index))
    return fnmatch(full, word) or f".{word}." in f".{full}."


def _gathered(architecture: Architecture, kept: set[tuple[str, int | None]] | None) -> Iterator[Parameter]:
    counts: dict[tuple[str, tuple[int, ...]], int] = {}
    kinds: dict[tuple[str, tuple[int, ...]], Tensor] = {}
    for name, tensor, index in _all(architecture):
        if tensor.kind == "buffer" or (kept is not None and (name, index) not in kept):
            continue
        key = (name, tensor.shape)
        counts[key] = counts.get(key, 0) + tensor.copies
        kinds[key] = tensor
    for (name, shape), copies in counts.items():
        yield Parameter(name, shape, kinds[name, shape].part, kinds[name, shape].kind, copies)
