"""Running one layer forward and back with every storage watched."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Mapping

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map


class Watch(TorchDispatchMode):
    """Counts the bytes of storages from their creation until nothing holds them."""

    def __init__(self):
        super().__init__()
        self.alive, self.now, self.peak, self.at, self.others = {}, 0, 0, "", set()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, torch.Tensor):
                self._see(tensor.untyped_storage())
        if self.now > self.peak:
            self.peak, self.at = self.now, str(function)
        return result

    def _see(self, storage):
        key = storage._cdata
        if key in self.alive or key in self.others:
            return
        self.alive[key] = storage.nbytes()
        self.now += storage.nbytes()
        weakref.finalize(storage, self._drop, key)

    def _drop(self, key):
        self.now -= self.alive.pop(key, 0)

    def ignore(self, tensors):
        self.others |= {tensor.untyped_storage()._cdata for tensor in tensors}


class _End(torch.autograd.Function):
    """Begins the backward pass with a gradient that nobody else holds."""

    @staticmethod
    def forward(ctx, value):
        ctx.shape, ctx.dtype = value.shape, value.dtype
        return value.new_empty(())

    @staticmethod
    def backward(ctx, gradient):
        return torch.empty(ctx.shape, dtype=ctx.dtype, device="meta")


class _Found(Exception):
    pass


def arguments(model, layer, **inputs):
    """What a model gives to one of its layers: the residual stream first."""
    found = {}

    def hook(module, args, kwargs):
        found["args"], found["kwargs"] = args, kwargs
        raise _Found

    handle = layer.register_forward_pre_hook(hook, with_kwargs=True)
    try:
        model(**inputs)
    except _Found:
        pass
    finally:
        handle.remove()
    kwargs = {name: value for name, value in found["kwargs"].items() if "past" not in name}
    # Mappings of other classes hide what is in them.
    kwargs = {name: dict(value) if isinstance(value, Mapping) else value for name, value in kwargs.items()}
    args = found["args"]
    if not args:
        args = (kwargs.pop(next(name for name in kwargs if "hidden" in name)),)
    return args, kwargs


def _cut(value):
    """A leaf in place of what another layer computed."""
    if isinstance(value, torch.Tensor) and value.requires_grad and not isinstance(value, torch.nn.Parameter):
        return value.detach().requires_grad_()
    return value


def trace(layer, args, kwargs):
    """Bytes that a layer keeps, and the peak of its backward pass; parameters and what is shared are left out."""
    (stream, *rest), kwargs = tree_map(_cut, args), tree_map(_cut, kwargs)
    stream = stream.detach().requires_grad_()
    watch = Watch()
    watch.ignore([*layer.parameters(), *layer.buffers(), stream])
    watch.ignore(one for one in tree_leaves((rest, kwargs)) if isinstance(one, torch.Tensor))
    for parameter in layer.parameters():
        parameter.grad = None
    with watch:
        given = [stream.clone(), *rest]
        result = layer(*given, **kwargs)
        del given
        result = result if isinstance(result, torch.Tensor) else result[0]
        end = _End.apply(result)
        del result
        gc.collect()
        kept = watch.now - end.element_size()
        watch.peak = 0
        end.backward()
    return {"kept": kept, "backward": watch.peak - end.element_size(), "at": watch.at}
