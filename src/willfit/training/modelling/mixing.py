"""What mixes tokens in a layer: which code runs which kind of mixer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from willfit.architectures.mixers import (
    Attention,
    CrossAttention,
    IndexedAttention,
    LatentAttention,
    Mixer,
    Recurrent,
)
from willfit.architectures.model import Layer, Tensor
from willfit.architectures.traits import Traits
from willfit.training.modelling.attention import attention
from willfit.training.modelling.builder import Builder
from willfit.training.modelling.cross import cross_attention
from willfit.training.modelling.latent import latent_attention
from willfit.training.modelling.recurrent import recurrent
from willfit.training.modelling.roles import Roles, mixer_groups
from willfit.training.tape import Value


def mix(
    builder: Builder, value: Value, layer: Layer, roles: Roles, traits: Traits, across: bool = False
) -> Value:
    """Run a layer's mixers; several side by side are added up.

    Parameters
    ----------
    builder
        Writes the tape.
    value
        The normed input.
    layer, roles, traits
        The layer.
    across
        Those that look at another sequence, instead of those that look at their own.
    """
    groups = mixer_groups(roles.attention, len(layer.mixers))
    found: Value | None = None
    # Tensors that several layers share are not among the layer's own, nor is what uses them (Zamba).
    for mixer, tensors in zip(layer.mixers[-len(groups) :] if groups else (), groups, strict=False):
        if isinstance(mixer, CrossAttention) != across:
            continue
        done = _mixed(builder, value, mixer, tensors, traits)
        found = done if found is None else builder.tape.add(found, done)
    return value if found is None else found


def _mixed(builder: Builder, value: Value, mixer: Mixer, tensors: Sequence[Tensor], traits: Traits) -> Value:
    if isinstance(mixer, CrossAttention):
        return cross_attention(builder, value, tensors, mixer, traits)
    if isinstance(mixer, Attention):
        return attention(builder, value, tensors, mixer, traits)
    if isinstance(mixer, IndexedAttention):
        return _indexed(builder, value, mixer, tensors, traits)
    if isinstance(mixer, LatentAttention):
        return latent_attention(builder, value, tensors, mixer, traits)
    if isinstance(mixer, Recurrent):
        return recurrent(builder, value, tensors, mixer)
    return value


def _indexed(
    builder: Builder, value: Value, mixer: IndexedAttention, tensors: Sequence[Tensor], traits: Traits
) -> Value:
    """Attention to blocks that an indexer chooses for each head, which masks what it leaves out (MiniMax-M3).

    The indexer runs with the model but no gradient passes it: a choice has none.
    """
    step = builder.step
    shape = Attention(mixer.heads, mixer.kv_heads, mixer.head_dim, mixer.value_dim)
    heads = max(1, mixer.heads // step.tensor_ranks)
    masked = step if step.flash else replace(step, masked=True, mask_heads=heads)
    own = [tensor for tensor in tensors if ".index_" not in tensor.name and ".indexer." not in tensor.name]
    return attention(builder.stepping(masked), value, own, shape, traits)
