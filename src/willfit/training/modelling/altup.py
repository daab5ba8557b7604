"""Gemma 3n's layers: several predictions of the residual stream, of which one runs through attention and MLP."""

from __future__ import annotations

from collections.abc import Callable

from willfit.architectures.model import Layer, Tensor
from willfit.architectures.traits import Traits
from willfit.training.modelling.builder import Builder
from willfit.training.modelling.roles import Roles
from willfit.training.tape import Value

#: Attention or MLP on a normed value.
Branch = Callable[[Value], Value]


def streams_of(layer: Layer) -> int:
    """How many predictions of the stream a layer is given: 1 in all other models."""
    scale = next((t for t in layer.tensors if t.name.endswith("altup.prediction_coefs.weight")), None)
    return scale.shape[-1] if scale is not None else 1


def altup_layer(
    builder: Builder, value: Value, layer: Layer, roles: Roles, traits: Traits, mix: Branch, feed: Branch
) -> Value:
    """Predict, run one prediction through the layer, and correct all (transformers `Gemma3nTextDecoderLayer`).

    The Gaussian choice of the first layers' MLPs, which keeps the gate once more, is left out: a config says which
    layers have it, an architecture does not.

    Parameters
    ----------
    builder
        Writes the tape.
    value
        All predictions.
    layer, roles, traits
        Of the layer.
    mix, feed
        Its attention and its MLP.
    """
    tape, count = builder.tape, streams_of(layer)
    named = {t.name.split("layer}.")[-1].removesuffix(".weight"): t for t in layer.tensors}
    size = value.elements // count

    def norm(given: Value, name: str) -> Value:
        tape.module = "norm"
        return builder.norm(given, named[name], traits.norm)

    def modalities(given: Value) -> Value:
        seen = norm(given, "altup.router_norm")
        tape.module = "altup"
        routed = builder.linear(tape.scale(seen), named["altup.modality_router"])
        bent = tape.run("tanh", (tape.cast(routed, "fp32"),), routed.elements, "fp32", saves_output=True)
        return tape.cast(bent, given.dtype)

    tape.module = "altup"
    weights = builder.linear(modalities(tape.part(value, size)), named["altup.prediction_coefs"])
    mixed = tape.run("bmm", (value, weights), value.elements, value.dtype, saves=(value, weights))
    predicted = tape.copy(tape.add(mixed, value))
    active = tape.part(predicted, size)
    given = norm(active, "input_layernorm")
    tape.module = "laurel"
    low = builder.linear(given, named["laurel.linear_left"])
    added = norm(builder.linear(low, named["laurel.linear_right"]), "laurel.post_laurel_norm")
    laurel = tape.add(given, added)
    tape.module = "attention"
    attended = norm(mix(given), "post_attention_layernorm")
    stream = tape.scale(tape.add(tape.add(active, attended), laurel))
    given = norm(stream, "pre_feedforward_layernorm")
    tape.module = "mlp"
    fed = norm(feed(given), "post_feedforward_layernorm")
    stream = tape.add(stream, fed)
    tape.module = "altup"
    coefficients = builder.linear(modalities(stream), named["altup.correction_coefs"])
    coefficients = tape.run("add 1", (coefficients,), coefficients.elements, value.dtype, passes=True)
    news = tape.run("repeat", (tape.add(stream, active),), value.elements, value.dtype)
    corrected = tape.add(tape.multiply(news, coefficients), predicted)
    return _with_own_input(builder, corrected, size, named, traits)


def _with_own_input(
    builder: Builder, corrected: Value, size: int, named: dict[str, Tensor], traits: Traits
) -> Value:
    """The layer's own input of each token, added to all predictions but the first."""
    tape = builder.tape
    first = tape.copy(tape.part(corrected, size))
    if "altup.correct_output_scale" in named:
        first = tape.run("mul", (first,), size, first.dtype, saves=(first,), backward_temp=first.bytes)
    bent = builder.activation(builder.linear(first, named["per_layer_input_gate"]), traits.activation)
    own = tape.held(bent.elements, bent.dtype, True)
    done = builder.linear(tape.multiply(bent, own), named["per_layer_projection"])
    tape.module = "norm"
    done = builder.norm(done, named["post_per_layer_input_norm"], traits.norm)
    tape.module = "altup"
    return tape.run("add", (corrected, done), corrected.elements, corrected.dtype, passes=True)
