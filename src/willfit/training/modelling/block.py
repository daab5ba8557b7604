"""A whole layer: norms, token mixer, feed-forward part and residuals, as the family places them."""

from __future__ import annotations

from willfit.architectures.mixers import Attention, LatentAttention
from willfit.architectures.model import Layer
from willfit.architectures.traits import Traits
from willfit.training.modelling.attention import attention
from willfit.training.modelling.builder import Builder
from willfit.training.modelling.experts import experts
from willfit.training.modelling.feed_forward import feed_forward
from willfit.training.modelling.latent import latent_attention
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
    norms = list(roles.norms)
    if traits.block == "sandwich" and len(norms) >= 4:
        places: list[Norm | None] = [norms[0], norms[1], norms[2], norms[3]]
    elif traits.block == "post":
        places = [None, norms[0], None, norms[-1]]
    else:
        places = [norms[0] if norms else None, None, norms[-1] if norms else None, None]
    value = _branch(builder, value, layer, roles, traits, "attention", places[0], places[1])
    if layer.feed_forward is None:
        return value
    return _branch(builder, value, layer, roles, traits, "mlp", places[2], places[3])


def _branch(
    builder: Builder,
    value: Value,
    layer: Layer,
    roles: Roles,
    traits: Traits,
    part: str,
    before: Norm | None,
    after: Norm | None,
) -> Value:
    """One residual branch: norm, what it does, perhaps a norm behind it, dropout, and the sum."""
    tape = builder.tape
    normed = _norm(builder, value, before, traits)
    tape.module = part
    done = (
        _mix(builder, normed, layer, roles, traits)
        if part == "attention"
        else _feed(builder, normed, layer, roles, traits)
    )
    tape.module = "residual"
    done = tape.dropout(done, traits.hidden_dropout if builder.step.training else 0.0)
    done = _norm(builder, done, after, traits)
    tape.module = "residual"
    return tape.add(value, done)


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
    mixer = layer.mixers[0] if layer.mixers else None
    if isinstance(mixer, Attention):
        return attention(builder, value, roles.attention, mixer, traits)
    if isinstance(mixer, LatentAttention):
        return latent_attention(builder, value, roles.attention, mixer, traits)
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
    return builder.tape.add(routed, feed_forward(builder, value, roles.mlp, shape.gated, traits.activation))
