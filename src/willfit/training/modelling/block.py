"""A whole layer: norms, token mixer, feed-forward part and residuals, as the family places them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from willfit.architectures.mixers import Attention, LatentAttention, Recurrent
from willfit.architectures.model import FeedForward, Layer, Tensor
from willfit.architectures.traits import Traits
from willfit.training.modelling.attention import attention
from willfit.training.modelling.builder import Builder
from willfit.training.modelling.experts import experts
from willfit.training.modelling.feed_forward import feed_forward
from willfit.training.modelling.latent import latent_attention
from willfit.training.modelling.recurrent import recurrent
from willfit.training.modelling.roles import Norm, Roles, roles_of
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
    if traits.block in ("parallel", "parallel_shared_norm"):
        return _parallel(builder, value, layer, roles, traits)
    places = _places(roles.norms, traits.block, bool(layer.mixers))
    if layer.mixers:
        value = _branch(builder, value, layer, roles, traits, "attention", places)
    if layer.feed_forward is None:
        return value
    return _branch(builder, value, layer, roles, traits, "mlp", places)


@dataclass(frozen=True, slots=True)
class _Places:
    """Norms before a branch, behind what it does, and behind its sum with the stream; for attention and MLP."""

    before: dict[str, Norm]
    behind: dict[str, Norm]
    summed: dict[str, Norm]


def _places(norms: Sequence[Norm], block: str, mixes: bool) -> _Places:
    first, last = (norms[0], norms[-1]) if norms else (None, None)
    pair = {part: norm for part, norm in (("attention", first), ("mlp", last)) if norm is not None}
    if block == "sandwich" and len(norms) >= 4:
        return _Places(
            {"attention": norms[0], "mlp": norms[2]}, {"attention": norms[1], "mlp": norms[3]}, {}
        )
    if block == "post_branch":
        return _Places({}, pair, {})
    if block == "post":
        return _Places({}, {}, pair)
    if len(norms) == 1 and mixes:
        pair.pop("mlp")
    return _Places(pair, {}, {})


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
        _mix(builder, given, layer, roles, traits)
        if part == "attention"
        else _feed(builder, given, layer, roles, traits)
    )
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
    return builder.norm(value, norm.weight, traits.norm, norm.bias)


def _mix(builder: Builder, value: Value, layer: Layer, roles: Roles, traits: Traits) -> Value:
    mixer = layer.mixers[0]
    if isinstance(mixer, Attention):
        return attention(builder, value, roles.attention, mixer, traits)
    if isinstance(mixer, LatentAttention):
        return latent_attention(builder, value, roles.attention, mixer, traits)
    if isinstance(mixer, Recurrent):
        return recurrent(builder, value, roles.attention, mixer)
    return value


def _feed(builder: Builder, value: Value, layer: Layer, roles: Roles, traits: Traits) -> Value:
    shape = layer.feed_forward
    assert shape is not None
    if not shape.experts:
        return feed_forward(builder, value, roles.mlp, shape.gated, traits.activation)
    routed = experts(builder, value, roles.router, roles.experts, shape, traits)
    if not shape.width:
        return routed
    builder.tape.module = "mlp"
    return builder.tape.add(routed, _shared(builder, value, roles.mlp, shape, traits))


def _shared(
    builder: Builder, value: Value, tensors: Sequence[Tensor], shape: FeedForward, traits: Traits
) -> Value:
    """Experts that every token visits, times the sigmoid of a gate where there is one (`Qwen2MoeSparseMoeBlock`)."""
    gate = next((tensor for tensor in tensors if tensor.name.endswith("shared_expert_gate.weight")), None)
    matrices = [tensor for tensor in tensors if tensor is not gate]
    done = feed_forward(builder, value, matrices, shape.gated, traits.activation)
    if gate is None:
        return done
    opened = builder.linear(value, gate)
    opened = builder.tape.run("sigmoid", (opened,), opened.elements, opened.dtype, saves_output=True)
    return builder.tape.multiply(opened, done)
