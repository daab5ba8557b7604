"""What Gemma 4's layers have beside attention and MLP: experts next to the MLP, and inputs of each layer's own."""

from __future__ import annotations

from willfit.architectures.model import FeedForward, Layer
from willfit.architectures.traits import Traits
from willfit.training.modelling.builder import Builder
from willfit.training.modelling.experts import experts
from willfit.training.modelling.norms import normed
from willfit.training.modelling.roles import Norm, Roles
from willfit.training.tape import Value


def experts_beside(
    builder: Builder, stream: Value, fed: Value, roles: Roles, shape: FeedForward, traits: Traits
) -> Value:
    """Experts on the residual stream itself, with norms of their own, added to the MLP's output.

    transformers `Gemma4TextDecoderLayer`, `Gemma4TextRouter`: the router's input is normed without a scale and then
    multiplied by one.

    Parameters
    ----------
    builder
        Writes the tape.
    stream, fed
        The residual stream in front of the MLP, and what the MLP made of it.
    roles, shape, traits
        Of the layer.
    """
    tape, rows = builder.tape, builder.step.tokens
    fed = _norm(builder, fed, roles, "post_feedforward_layernorm_1", traits)
    tape.module = "router"
    seen = normed(builder, stream, None, None, rows, "rms_power_plain")
    seen = tape.scale(tape.run("scale", (seen,), seen.elements, seen.dtype, saves=(seen,)))
    given = _norm(builder, stream, roles, "pre_feedforward_layernorm_2", traits)
    routed = experts(builder, given, roles.router, roles.experts, shape, traits, seen)
    routed = _norm(builder, routed, roles, "post_feedforward_layernorm_2", traits)
    return tape.add(fed, routed)


def with_own_input(builder: Builder, stream: Value, layer: Layer, roles: Roles, traits: Traits) -> Value:
    """A gated product with an input that the layer has of each token, projected back onto the stream.

    `per_layer_input_gate` and `per_layer_projection` (Gemma 3n and 4); the inputs of all layers are one tensor.
    """
    named = {t.name.split(".")[-2]: t for t in layer.tensors if t.kind == "linear"}
    gate, back = named["per_layer_input_gate"], named["per_layer_projection"]
    tape = builder.tape
    tape.module = "layer input"
    bent = builder.activation(builder.linear(stream, gate), traits.activation)
    own = tape.held(bent.elements, bent.dtype, True)
    done = builder.linear(tape.multiply(bent, own), back)
    done = _norm(builder, done, roles, "post_per_layer_input_norm", traits)
    return tape.add(stream, done)


def _norm(builder: Builder, value: Value, roles: Roles, name: str, traits: Traits) -> Value:
    norm = next((one for one in roles.norms if _leaf(one) == name), None)
    if norm is None or norm.weight is None:
        return value
    builder.tape.module = "norm"
    return builder.norm(value, norm.weight, traits.norm, norm.bias)


def _leaf(norm: Norm) -> str:
    return norm.weight.name.split(".")[-2] if norm.weight is not None else ""
