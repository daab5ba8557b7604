"""Attention of a decoder over an encoder's output, or over an image's patches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from willfit.architectures.mixers import Attention, CrossAttention
from willfit.architectures.model import Tensor
from willfit.architectures.traits import Traits
from willfit.training.modelling.attention import head_norms, parts_of
from willfit.training.modelling.builder import Builder
from willfit.training.modelling.scores import attend
from willfit.training.tape import Value


def cross_attention(
    builder: Builder, value: Value, tensors: Sequence[Tensor], mixer: CrossAttention, traits: Traits
) -> Value:
    """Queries of the decoder, keys and values of the source, which all layers share.

    Parameters
    ----------
    builder
        Writes the tape.
    value
        The normed input.
    tensors, mixer, traits
        Of the attention; shape; dropout.
    """
    tape, step = builder.tape, builder.step
    parts = parts_of(tensors)
    length = mixer.source_tokens or step.source or step.length
    rows = step.batch * length
    query, *rest = parts.inward
    width = rest[0].shape[-1]
    source = tape.held(rows * width, value.dtype, True)
    queries = builder.linear(value, query, parts.bias(query))
    found = [builder.linear(source, tensor, parts.bias(tensor), rows=rows) for tensor in rest]
    keys, values = found if len(found) == 2 else tape.split(found[0], (found[0].elements // 2,) * 2)
    shape = Attention(mixer.heads, mixer.kv_heads, mixer.head_dim, mixer.head_dim)
    queries, keys = head_norms(builder, queries, keys, parts.norms, shape, traits)
    looking = builder.stepping(replace(step, keys=length, masked=step.source_masked, attends_back=False))
    by_head = builder.manner.by_head
    if by_head:
        queries, keys, values = (tape.copy(one) for one in (queries, keys, values))
    mixed = attend(looking, queries, keys, values, shape, traits, by_head, own_bias=False)
    return builder.linear(mixed, parts.outward, parts.bias(parts.outward))
