"""The compiler's plan of buffers: which tensors of a forward pass share storage.

Storages are planned for the longest part of a prompt (`StaticPlanBlockMemory`): a tensor takes the smallest free
storage that is large enough, else the largest smaller one, which grows, as long as the two are not further apart than
a factor of 16; else a new one. What comes out is checked against logs of `mlc_llm compile` in the tests.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from willfit.architectures.mixers import Attention, Mixer
from willfit.architectures.model import Architecture, Layer
from willfit.quantities import ceil_div

#: How much larger or smaller a storage may be that a tensor takes.
_RANGE = 16

#: Widths that the fused kernel for an addition and a norm divides among its threads.
_THREADS = 1024


@dataclass
class Storage:
    """A storage of so many elements for each token."""

    size: int


@dataclass
class Plan:
    """Storages of a forward pass.

    Attributes
    ----------
    storages
        All of them.
    free
        Those that no tensor has now.
    """

    storages: list[Storage] = field(default_factory=list)
    free: list[Storage] = field(default_factory=list)

    def take(self, size: int) -> Storage:
        """A storage for a tensor."""
        fitting = [one for one in self.free if size <= one.size <= size * _RANGE]
        smaller = [one for one in self.free if size // _RANGE <= one.size < size]
        if not fitting and not smaller:
            self.storages.append(Storage(size))
            return self.storages[-1]
        found = min(fitting, key=lambda one: one.size) if fitting else max(smaller, key=lambda one: one.size)
        self.free.remove(found)
        found.size = max(found.size, size)
        return found

    def give(self, *storages: Storage | None) -> None:
        """Tensors are needed no more."""
        self.free += [one for one in storages if one is not None]

    @property
    def elements(self) -> int:
        """Elements for each token."""
        return sum(one.size for one in self.storages)


@dataclass
class _Stream:
    """Hidden states on their way through the layers.

    Attributes
    ----------
    normed, residual
        The norm of what the layers made so far, and their sum; None for the sum while it is the model's input.
    fused
        Whether an addition and the norm after it are one kernel with two outputs.
    """

    plan: Plan
    hidden: int
    fused: bool
    normed: Storage
    residual: Storage | None = None

    def add(self, output: Storage, norms_output: bool) -> None:
        """Add what a part of a layer gave, and norm the sum for the next."""
        plan = self.plan
        if norms_output:
            plain, output = output, plan.take(self.hidden)
            plan.give(plain)
        if self.fused:
            normed, added = plan.take(self.hidden), plan.take(self.hidden)
            plan.give(output, self.residual)
            self.normed, self.residual = normed, added
        else:
            # An addition is part of the matrix product before it, or of the norm.
            plan.give(self.residual)
            self.residual, self.normed = output, plan.take(self.hidden)


def planned(architecture: Architecture, ranks: int) -> int:
    """Elements for each token of a part of a prompt that the plan of a forward pass has, without scores."""
    hidden, plan = architecture.hidden_size, Plan()
    stream = _Stream(plan, hidden, hidden % _THREADS == 0, plan.take(hidden))
    for layer in architecture.layers:
        norms_heads, norms_outputs = _norms(layer)
        for mixer in layer.mixers:
            mixed = _mixed(plan, mixer, hidden, ranks, stream.normed, norms_heads)
            stream.add(mixed, norms_outputs)
        ffn = layer.feed_forward
        if ffn is not None and ffn.experts:
            width = ceil_div(ffn.expert_width, ranks)
            stream.add(_experts(plan, ffn.top_k, width, hidden, stream.normed), norms_outputs)
        elif ffn is not None:
            width, halves = ceil_div(ffn.width, ranks), 2 if ffn.gated else 1
            stream.add(_dense(plan, width, halves, hidden, stream.normed), norms_outputs)
    return plan.elements


def usual(architecture: Architecture) -> bool:
    """Whether layers are attention and an MLP as in Llama or Qwen3, for which logs show the plan."""
    return all(
        len(layer.mixers) == 1
        and isinstance(layer.mixers[0], Attention)
        and not layer.mixers[0].gated
        and layer.feed_forward is not None
        and layer.feed_forward.gated
        and not layer.feed_forward.experts
        and not _norms(layer)[1]
        for layer, _ in architecture.blocks
    )


def _norms(layer: Layer) -> tuple[bool, bool]:
    """Whether heads are normed, and whether outputs are before they are added."""
    names = [tensor.name for tensor in layer.tensors]
    heads = any("q_norm" in name for name in names)
    outputs = any(
        "pre_feedforward_layernorm" in name or "post_feedforward_layernorm" in name for name in names
    )
    return heads, outputs


def _mixed(plan: Plan, mixer: Mixer, hidden: int, ranks: int, normed: Storage, norms_heads: bool) -> Storage:
    """What attention gives, or another mixer."""
    if isinstance(mixer, Attention):
        queries = ceil_div(mixer.heads, ranks) * mixer.head_dim
        keys = ceil_div(mixer.kv_heads, ranks) * mixer.head_dim
        return _attention(plan, queries, keys, hidden, normed, norms_heads)
    projected = plan.take(ceil_div(mixer.projected_width, ranks))
    plan.give(normed)
    mixed = plan.take(ceil_div(mixer.output_width, ranks))
    plan.give(projected)
    output = plan.take(hidden)
    plan.give(mixed)
    return output


def _attention(plan: Plan, queries: int, keys: int, hidden: int, normed: Storage, norms: bool) -> Storage:
    joined = plan.take(queries + 2 * keys)
    plan.give(normed)
    if norms:
        parts = [plan.take(size) for size in (queries, keys, keys)]
        plan.give(joined)
        turned = []
        for part, size in zip(parts[:2], (queries, keys), strict=True):
            turned.append(plan.take(size))
            plan.give(part)
        joined = plan.take(queries + 2 * keys)
        plan.give(*turned, parts[2])
    mixed = plan.take(queries)
    plan.give(joined)
    output = plan.take(hidden)
    plan.give(mixed)
    return output


def _dense(plan: Plan, width: int, halves: int, hidden: int, normed: Storage) -> Storage:
    wide = plan.take(halves * width)
    plan.give(normed)
    product = plan.take(width)
    plan.give(wide)
    output = plan.take(hidden)
    plan.give(product)
    return output


def _experts(plan: Plan, top: int, width: int, hidden: int, normed: Storage) -> Storage:
    rows = plan.take(top * hidden)
    plan.give(normed)
    wide = plan.take(top * 2 * width)
    plan.give(rows)
    product = plan.take(top * width)
    plan.give(wide)
    down = plan.take(top * hidden)
    plan.give(product)
    scattered = plan.take(top * hidden)
    plan.give(down)
    weighted = plan.take(top * hidden)
    plan.give(scattered)
    output = plan.take(hidden)
    plan.give(weighted)
    return output
