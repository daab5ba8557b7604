"""The feed-forward branch of a layer: an MLP, experts, or both."""

from __future__ import annotations

from collections.abc import Sequence

from willfit.architectures.model import FeedForward, Layer, Tensor
from willfit.architectures.traits import Traits
from willfit.training.modelling.builder import Builder
from willfit.training.modelling.experts import experts
from willfit.training.modelling.feed_forward import feed_forward
from willfit.training.modelling.roles import Roles
from willfit.training.modelling.sequence import gathered, scattered
from willfit.training.tape import Value


def feed(builder: Builder, value: Value, layer: Layer, roles: Roles, traits: Traits) -> Value:
    """Run it.

    Parameters
    ----------
    builder
        Writes the tape.
    value
        The normed input, of which sequence-parallel ranks have a share each. An MLP, whose matrices they divide, sees
        all of it; experts are spread whole, and see the rank's share (Megatron-LM
        `transformer/moe/token_dispatcher.py: MoEAlltoAllTokenDispatcher`).
    layer, roles, traits
        The layer.
    """
    shape = layer.feed_forward
    if shape is None:
        return value
    if not shape.experts or builder.manner.experts_beside:
        whole = gathered(builder, value)
        done = feed_forward(
            builder, whole, roles.mlp, shape.gated, traits.activation, traits.activation_dropout
        )
        return scattered(builder, done)
    if not shape.width:
        return _routed(builder, value, roles, shape, traits)
    early = _shared(builder, value, roles.mlp, shape, traits) if builder.manner.shared_first else None
    routed = _routed(builder, value, roles, shape, traits)
    builder.tape.module = "mlp"
    shared = early or _shared(builder, value, roles.mlp, shape, traits)
    return builder.tape.add(routed, _opened(builder, value, shared, roles.mlp))


def _routed(builder: Builder, value: Value, roles: Roles, shape: FeedForward, traits: Traits) -> Value:
    """Routed experts, which may be narrower than the stream (Nemotron 3 Super, Kimi K3)."""
    if len(roles.latents) < 2:
        return experts(builder, value, roles.router, roles.experts, shape, traits)
    inward, outward = roles.latents[0], roles.latents[-1]
    builder.tape.module = "experts"
    narrow = builder.linear(value, inward)
    done = experts(builder, narrow, roles.router, roles.experts, shape, traits, value)
    return builder.linear(done, outward)


def _shared(
    builder: Builder, value: Value, tensors: Sequence[Tensor], shape: FeedForward, traits: Traits
) -> Value:
    """Experts that every token visits."""
    builder.tape.module = "mlp"
    matrices = [tensor for tensor in tensors if tensor is not _gate_of(tensors)]
    done = feed_forward(builder, gathered(builder, value), matrices, shape.gated, traits.activation)
    return scattered(builder, done)


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
