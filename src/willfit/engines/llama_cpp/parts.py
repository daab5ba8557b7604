"""What each device holds of a model whose tensors are divided among them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from willfit.engines.llama_cpp.cache.layers import layer_caches
from willfit.engines.llama_cpp.graph.network import LayerCache
from willfit.engines.llama_cpp.graph.scheduler import Backend
from willfit.engines.llama_cpp.graph.tensor import Node, Shape
from willfit.engines.llama_cpp.loading.slices import Slices
from willfit.engines.llama_cpp.plan import ContextSettings, Model, cache_buffers


@dataclass(frozen=True, slots=True)
class Part:
    """Bytes of one device.

    Attributes
    ----------
    place
        Name of its buffers.
    weights, whole
        Its weights, and how much of them every device has.
    keys_values, states
        Its part of the caches and of the recurrent states.
    """

    place: str
    weights: int
    whole: int
    keys_values: int
    states: int


def parts_of(
    model: Model, settings: ContextSettings, slices: Slices, backends: Sequence[Backend]
) -> tuple[Part, ...]:
    """What each device holds.

    Parameters
    ----------
    model, settings
        Placed on one device that stands for all.
    backends
        The devices, then the processor.
    """
    devices = backends[:-1]
    weights, whole = [0] * len(devices), [0] * len(devices)
    for one in model.placed:
        if one.buffer.device is None or one.shared:
            continue
        shapes = slices.shapes(one.tensor.name, one.tensor.type, one.ne)
        for index, size in enumerate(_sizes(devices, one.tensor.type, shapes)):
            weights[index] += size
            whole[index] += size if shapes[index] == one.ne else 0
    kept = settings.cache.keeps_drafts
    buffers = cache_buffers(model, settings.kv_offload, settings.drafts, kept)
    caches = layer_caches(
        model.architecture, settings.cache.of(model.meta, model.architecture), buffers, settings.drafts
    )
    keys_values, states = [0] * len(devices), [0] * len(devices)
    seen: set[int] = set()
    for layer, (cache, buffer) in enumerate(zip(caches, buffers, strict=True)):
        if buffer.device is None or id(cache) in seen:
            continue
        seen.add(id(cache))
        for sums, tensors in ((keys_values, cache.keys_values()), (states, cache.states())):
            for tensor in tensors:
                shapes = slices.shapes(f"{_name(cache, tensor)}_l{layer}", tensor.type, tensor.ne)
                for index, size in enumerate(_sizes(devices, tensor.type, shapes)):
                    sums[index] += size
    return tuple(
        Part(backend.place, *found)
        for backend, *found in zip(devices, weights, whole, keys_values, states, strict=True)
    )


def _name(cache: LayerCache, tensor: Node) -> str:
    """What a tensor of a cache is called; those that are not divided have no name of their own here."""
    names = {id(cache.k): "cache_k", id(cache.v): "cache_v", id(cache.r): "cache_r", id(cache.s): "cache_s"}
    return names.get(id(tensor), "cache_whole")


def _sizes(devices: Sequence[Backend], kind: str, shapes: Sequence[Shape]) -> list[int]:
    found = []
    for backend, shape in zip(devices, shapes, strict=True):
        size = backend.bytes(Node("none", kind, shape)) if all(shape) else 0
        found.append(-(-size // backend.alignment) * backend.alignment)
    return found
