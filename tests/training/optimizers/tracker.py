"""Bytes of tensors' storages that live while an optimizer steps, counted on real tensors."""

from __future__ import annotations

import weakref

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class Tracker(TorchDispatchMode):
    """Counts every storage that an operation makes until it is freed.

    Attributes
    ----------
    live, peak
        Bytes that live now, and the most that did.
    """

    def __init__(self):
        super().__init__()
        self.live = self.peak = 0
        self._known = set()

    def ignore(self, tensors):
        """Take tensors for known: they are not counted."""
        self._known |= {tensor.untyped_storage()._cdata for tensor in tensors}

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        made = function(*args, **(kwargs or {}))
        for leaf in tree_leaves(made):
            # A tensor that wraps others has no storage of its own.
            if type(leaf) in (torch.Tensor, torch.nn.Parameter):
                self._count(leaf.untyped_storage())
        return made

    def _count(self, storage):
        key = storage._cdata
        if key in self._known:
            return
        size = storage.nbytes()
        self._known.add(key)
        self.live += size
        self.peak = max(self.peak, self.live)
        weakref.finalize(storage, self._freed, key, size)

    def _freed(self, key, size):
        self.live -= size
        self._known.discard(key)


#: Parameters of a small model in the order in which one lists them; an embedding whose rows no block divides.
SHAPES = {
    "model.embed_tokens.weight": (97, 64),
    "model.layers.{}.self_attn.q_proj.weight": (64, 64),
    "model.layers.{}.self_attn.k_proj.weight": (32, 64),
    "model.layers.{}.self_attn.v_proj.weight": (32, 64),
    "model.layers.{}.self_attn.o_proj.weight": (64, 64),
    "model.layers.{}.mlp.up_proj.weight": (160, 64),
    "model.layers.{}.mlp.down_proj.weight": (64, 160),
    "model.layers.{}.input_layernorm.weight": (64,),
    "model.norm.weight": (64,),
    "lm_head.weight": (97, 64),
}
LAYERS = 2


def named_parameters(dtype):
    """That model's parameters by name."""
    blocks = [name for name in SHAPES if "{}" in name]
    names = ["model.embed_tokens.weight"]
    names += [block.format(layer) for layer in range(LAYERS) for block in blocks]
    names += ["model.norm.weight", "lm_head.weight"]
    shapes = {name.format(layer): shape for name, shape in SHAPES.items() for layer in range(LAYERS)}
    torch.manual_seed(0)
    return [(name, torch.nn.Parameter(torch.randn(shapes[name]).to(dtype))) for name in names]


def measure(make, dtype=torch.float32, steps=8):
    """Step an optimizer.

    Parameters
    ----------
    make
        From named parameters to the optimizer.
    steps
        How often; each has new gradients.

    Returns
    -------
    Bytes that stay after the last step, and those beyond them at the fullest of each step: of the first, and of the
    later ones.
    """
    named = named_parameters(dtype)
    parameters = [parameter for _, parameter in named]
    tracker = Tracker()
    with tracker:
        tracker.ignore(parameters)
        optimizer = make(named)
    # These are kept, so that the address of none is that of another storage later.
    gradients = [torch.empty_like(parameter) for parameter in parameters]
    tracker.ignore(gradients)
    beyond = []
    for _ in range(steps):
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.grad = gradient.normal_()
        with tracker:
            tracker.peak = tracker.live
            optimizer.step()
            beyond.append(tracker.peak)
    stays = tracker.live
    return stays, beyond[0] - stays, max(beyond[1:]) - stays
