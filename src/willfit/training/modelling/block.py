"""A whole layer: norms, token mixer, feed-forward part and residuals, as the family places them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from willfit.architectures.mixers import (
    Attention,
    CrossAttention,
    IndexedAttention,
    LatentAttention,
    Mixer,
    Recurrent,
)
from willfit.architectures.model import FeedForward, Layer, Tensor
from willfit.architectures.traits import Traits
from willfit.training.modelling.altup import altup_layer
from willfit.training.modelling.attention import attention
from willfit.training.modelling.builder import Builder
from willfit.training.modelling.cross import cross_attention
from willfit.training.modelling.experts import experts
from willfit.training.modelling.feed_forward import feed_forward
from willfit.training.modelling.gemma import experts_beside, with_own_input
from willfit.training.modelling.latent import latent_attention
from willfit.training.modelling.norms import normed
from willfit.training.modelling.recurrent import recurrent
from willfit.training.modelling.roles import Norm, Roles, mixer_groups, roles_of
from willfit.training.tape import Value


def block(builder: Builder, value: Value, layer: Layer, traits: Traits) -> Value:
    """Write a layer's operations on the builder's tape.

    Parameters
    ----------
    builder
        Writes the tape.
    value
        The residual stream.
    layer, traits
        The layer, and what belongs to its family.

    Returns
    -------
    Value
        The residual stream behind the layer.
    """
    roles = roles_of(layer)
    if traits.block == "altup":
        return altup_layer(
            builder, value, layer, roles, traits,
            lambda given: _mix(builder, given, layer, roles, traits),
            lambda given: _feed(builder, given, layer, roles, traits),
        )  # fmt: skip
    if traits.block in ("parallel", "parallel_shared_norm"):
        return _parallel(builder, value, layer, roles, traits)
    branches = [part for part in ("attention", "cross", "mlp") if _has(layer, part)]
    norms = roles.norms or _unweighted(traits, len(branches))
    kind = traits.block
    if kind == "post_branch" and any(isinstance(mixer, Recurrent) for mixer in layer.mixers):
        # OLMo-Hybrid norms the input of its recurrent layers, and the output of attention.
        kind = "sequential"
    places = _places(norms, kind, branches)
    for part in branches:
        value = _branch(builder, value, layer, roles, traits, part, places)
    if any("per_layer_input_gate" in tensor.name for tensor in layer.tensors):
        value = with_own_input(builder, value, layer, roles, traits)
    return value


def _unweighted(traits: Traits, count: int) -> tuple[Norm, ...]:
    """Norms that have no parameters (OLMo)."""
    return (Norm(None),) * count if traits.norm == "layer_norm_plain" else ()


def _has(layer: Layer, part: str) -> bool:
    """Whether a layer has a residual branch."""
    if part == "mlp":
        # Zamba's hybrid layers have an MLP that all of them share, which is not among their own tensors.
        return layer.feed_forward is not None and any(t.part in ("mlp", "experts") for t in layer.tensors)
    looks_across = [isinstance(mixer, CrossAttention) for mixer in layer.mixers]
    return any(looks_across) if part == "cross" else not all(looks_across)


_NUMBERED = re.compile(r"_[12]\.weight$|per_layer")


@dataclass(frozen=True, slots=True)
class _Places:
    """Norms before a branch, behind what it does, and behind its sum with the stream; for attention and MLP."""

    before: dict[str, Norm]
    behind: dict[str, Norm]
    summed: dict[str, Norm]


def _places(norms: Sequence[Norm], block: str, branches: Sequence[str]) -> _Places:
    if block == "sandwich" and len(norms) >= 2 * len(branches):
        # Norms with numbers, and of a layer's own input, belong to neither branch.
        norms = [n for n in norms if n.weight is None or not _NUMBERED.search(n.weight.name)]
        pairs = {part: norms[2 * index : 2 * index + 2] for index, part in enumerate(branches)}
        return _Places(
            {part: pair[0] for part, pair in pairs.items()},
            {part: pair[1] for part, pair in pairs.items()},
            {},
        )
    alone = dict(zip(branches, norms, strict=False))
    if block == "post_branch":
        return _Places({}, alone, {})
    if block == "post":
        return _Places({}, {}, alone)
    behind = {"mlp": norms[-1]} if len(norms) == len(branches) + 1 else {}
    return _Places(alone, behind, {})


def _branch(
    builder: Builder,
    value: Value,
    layer: Layer,
    roles: Roles,
    traits: Traits,
    part: str,
    places: _Places,
) -> Value:
    """One residual branch: norm, what it does, perhaps a norm behind it, dropout, and the sum."""
    tape = builder.tape
    given = _norm(builder, value, places.before.get(part), traits)
    if traits.block == "normed_residual":
        value = given
    tape.module = part
    done = (
        _feed(builder, given, layer, roles, traits)
        if part == "mlp"
        else _mix(builder, given, layer, roles, traits, part == "cross")
    )
    if part == "mlp" and builder.manner.experts_beside and roles.experts and layer.feed_forward is not None:
        done = experts_beside(builder, value, done, roles, layer.feed_forward, traits)
    tape.module = "residual"
    done = tape.dropout(done, traits.hidden_dropout if builder.step.training else 0.0)
    done = _norm(builder, done, places.behind.get(part), traits)
    tape.module = "residual"
    if traits.residual_multiplier is not None:
        done = tape.scale(done)
    if traits.block == "normed_residual":
        value, done = tape.scale(value), tape.scale(done)
    return _norm(builder, tape.add(value, done), places.summed.get(part), traits)


def _parallel(builder: Builder, value: Value, layer: Layer, roles: Roles, traits: Traits) -> Value:
    """Attention and MLP side by side on the same residual stream."""
    tape = builder.tape
    normed = _norm(builder, value, roles.norms[0], traits)
    tape.module = "attention"
    mixed = _mix(builder, normed, layer, roles, traits)
    if traits.block == "parallel" and len(roles.norms) > 1:
        normed = _norm(builder, value, roles.norms[1], traits)
    tape.module = "mlp"
    fed = _feed(builder, normed, layer, roles, traits)
    tape.module = "residual"
    probability = traits.hidden_dropout if builder.step.training else 0.0
    together = tape.add(tape.dropout(mixed, probability), tape.dropout(fed, probability))
    return tape.add(together, value)


def _norm(builder: Builder, value: Value, norm: Norm | None, traits: Traits) -> Value:
    if norm is None:
        return value
    builder.tape.module = "norm"
    if norm.weight is None:
        return normed(builder, value, None, None, builder.step.stream_tokens, traits.norm)
    return builder.norm(value, norm.weight, traits.norm, norm.bias)


def _mix(
    builder: Builder, value: Value, layer: Layer, roles: Roles, traits: Traits, across: bool = False
) -> Value:
    """What mixes tokens; several kinds side by side are added up."""
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


def _feed(builder: Builder, value: Value, layer: Layer, roles: Roles, traits: Traits) -> Value:
    shape = layer.feed_forward
    assert shape is not None
    if not shape.experts or builder.manner.experts_beside:
        return feed_forward(
            builder, value, roles.mlp, shape.gated, traits.activation, traits.activation_dropout
        )
    if not shape.width:
        return experts(builder, value, roles.router, roles.experts, shape, traits)
    early = _shared(builder, value, roles.mlp, shape, traits) if builder.manner.shared_first else None
    routed = experts(builder, value, roles.router, roles.experts, shape, traits)
    builder.tape.module = "mlp"
    shared = early or _shared(builder, value, roles.mlp, shape, traits)
    return builder.tape.add(routed, _opened(builder, value, shared, roles.mlp))


def _shared(
    builder: Builder, value: Value, tensors: Sequence[Tensor], shape: FeedForward, traits: Traits
) -> Value:
    """Experts that every token visits."""
    builder.tape.module = "mlp"
    matrices = [tensor for tensor in tensors if tensor is not _gate_of(tensors)]
    return feed_forward(builder, value, matrices, shape.gated, traits.activation)


def _opened(builder: Builder, value: Value, done: Value, tensors: Sequence[Tensor]) -> Value:
    """Their output times the sigmoid of a gate, where there is one (`Qwen2MoeSparseMoeBlock`)."""
    gate = _gate_of(tensors)
    if gate is None:
        return done
    opened = builder.linear(value, gate)
    opened = builder.tape.run("sigmoid", (opened,), opened.elements, opened.dtype, saves_output=True)
    return builder.tape.multiply(opened, done)


def _gate_of(tensors: Sequence[Tensor]) -> Tensor | None:
    return next((tensor for tensor in tensors if tensor.name.endswith("shared_expert_gate.weight")), None)
