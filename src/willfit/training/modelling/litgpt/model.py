"""A model as LitGPT has it."""

from __future__ import annotations

from dataclasses import replace

from willfit.architectures.mixers import Attention
from willfit.architectures.model import Architecture, Layer, Tensor
from willfit.training.modelling.roles import roles_of


def is_dense(architecture: Architecture) -> bool:
    """Whether all layers are attention and a dense MLP."""
    return all(
        len(layer.mixers) == 1
        and isinstance(layer.mixers[0], Attention)
        and layer.feed_forward is not None
        and not layer.feed_forward.experts
        for layer, _ in architecture.blocks
    )


def as_litgpt(architecture: Architecture) -> Architecture:
    """The model as LitGPT has it: a head of its own, and matrices by what they make.

    `litgpt/scripts/convert_hf_checkpoint.py` copies a tied head; `LLaMAMLP` has two matrices inwards.
    """
    known: dict[int, Layer] = {}
    for layer in architecture.layers:
        known.setdefault(id(layer), _split(layer))
    head = architecture.head
    if architecture.tied:
        table = next(tensor for tensor in architecture.embeddings if tensor.kind == "embedding")
        head = (*head, replace(table, name="lm_head.weight", part="head", kind="linear"))
    return replace(
        architecture, layers=tuple(known[id(layer)] for layer in architecture.layers), head=head, tied=False
    )


def _split(layer: Layer) -> Layer:
    mixer = layer.mixers[0] if layer.mixers else None
    if not isinstance(mixer, Attention):
        return layer
    query, key = mixer.heads * mixer.head_dim, mixer.kv_heads * mixer.head_dim
    roles = roles_of(layer)
    inward = [tensor for tensor in roles.attention if tensor.kind == "linear"]
    mlp = [tensor for tensor in roles.mlp if tensor.kind == "linear"]
    gated = layer.feed_forward is not None and layer.feed_forward.gated
    found: list[Tensor] = []
    for tensor in layer.tensors:
        if len(inward) == 2 and tensor is inward[0]:
            found.extend(_parts(tensor, {"q_proj": query, "k_proj": key, "v_proj": key}))
        elif gated and len(mlp) == 2 and tensor is mlp[0]:
            half = tensor.shape[0] // 2
            found.extend(_parts(tensor, {"gate_proj": half, "up_proj": half}))
        else:
            found.append(tensor)
    return replace(layer, tensors=tuple(found))


def _parts(tensor: Tensor, rows: dict[str, int]) -> list[Tensor]:
    parent = tensor.name.rsplit(".", 2)[0]
    return [
        replace(tensor, name=f"{parent}.{name}.weight", shape=(count, *tensor.shape[1:]), split=None)
        for name, count in rows.items()
    ]
