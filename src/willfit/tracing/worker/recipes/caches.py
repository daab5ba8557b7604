"""What `generate` keeps from token to token: names for it, and growth by its own code."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch

from willfit.tracing.worker.tracer import Tracer

#: Outputs of a model that hold what it keeps (transformers `generation/utils.py`: `ALL_CACHE_NAMES`).
NAMES = ("past_key_values", "cache_params", "state", "mems", "past_buckets_states")
#: Tensors of a layer of `cache_utils.py`, by attribute; of some there are several, by number.
TENSORS = ("keys", "values", "indexer_keys", "conv_states", "recurrent_states")
#: A cache grows in at most so many steps: what an allocator keeps of them is then what it keeps of all (tests).
_GROWTHS = 64


def of(outputs: Any) -> Any:
    """What a forward pass returns to be handed to the next one; `()` if nothing."""
    for name in NAMES:
        found = getattr(outputs, name, None)
        if found is not None:
            return found
    return ()


def layers(cache: Any) -> list[Any]:
    """A cache's layers; of an encoder-decoder's those that grow come first. Empty if it is no `Cache`."""
    if hasattr(cache, "self_attention_cache"):
        return [*layers(cache.self_attention_cache), *layers(cache.cross_attention_cache)]
    return list(getattr(cache, "layers", ()))


def label(cache: Any, tracer: Tracer) -> None:
    """Name a cache's tensors."""
    for layer in layers(cache):
        for name, tensor in tensors(layer):
            tracer.label(tensor, "kv_cache", name)


def tensors(layer: Any) -> Iterator[tuple[str, torch.Tensor]]:
    """A layer's tensors with what they are."""
    for name in TENSORS:
        held = getattr(layer, name, None)
        for tensor in held.values() if isinstance(held, dict) else (held,):
            if isinstance(tensor, torch.Tensor):
                yield name, tensor


def recurrent(cache: Any) -> bool:
    """Whether any layer keeps a recurrent state."""
    return any(name == "recurrent_states" for layer in layers(cache) for name, _ in tensors(layer))


def grows(cache: Any) -> bool:
    """Whether a cache can be made longer here: its layers keep keys and values on the device as they are, or states."""
    from transformers.cache_utils import BaseQuantizedLayer

    inner = getattr(cache, "self_attention_cache", cache)
    return bool(layers(inner)) and not (
        inner.offloading or any(isinstance(layer, BaseQuantizedLayer) for layer in inner.layers)
    )


def grow(cache: Any, tokens: int, tracer: Tracer) -> None:
    """Make a cache longer, layer after layer, as steps of decoding do.

    Parameters
    ----------
    tokens
        By so many, one at a time if they are few enough.
    """
    inner = getattr(cache, "self_attention_cache", cache)
    left = tokens
    at_once = -(-tokens // _GROWTHS)
    while left:
        here = min(at_once, left)
        for layer in inner.layers:
            _longer(layer, here)
        label(inner, tracer)
        left -= here


def _longer(layer: Any, tokens: int) -> None:
    """One layer by some tokens."""
    # No name here holds the old keys and values while there are new ones.
    if getattr(layer, "keys", None) is None or not layer.keys.numel():
        return
    # What a full window is given beyond a token would only be held for a moment, which no step of decoding does.
    room = _room(layer)
    given = tokens if room is None else max(1, min(tokens, room))
    layer.update(_tokens(layer.keys, given, -2), _tokens(layer.values, given, -2))
    for name in ("cumulative_length", "cumulative_length_int"):
        if isinstance(getattr(layer, name, None), int):
            setattr(layer, name, getattr(layer, name) + tokens - given)
    if getattr(layer, "is_indexer_initialized", False):
        layer.update_indexer(_tokens(layer.indexer_keys, tokens, 1))


def _tokens(held: torch.Tensor, tokens: int, dim: int) -> torch.Tensor:
    """As much as so many tokens add to a tensor, in the bytes of one: a step of decoding has no more at a time."""
    shape = list(held.shape)
    shape[dim] = 1
    one = held.new_empty(shape)
    shape[dim] = tokens
    return one.expand(shape)


def _room(layer: Any) -> int | None:
    """Tokens until a layer's window is full; None if it has none."""
    if not getattr(layer, "is_sliding", False):
        return None
    return int(layer.get_max_length() - layer.get_seq_length())
