"""LitGPT's `Block` and its feed-forward parts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from willfit.architectures.mixers import Attention
from willfit.architectures.model import Architecture, Layer, Tensor
from willfit.architectures.traits import Traits
from willfit.training.modelling.builder import Builder
from willfit.training.modelling.litgpt.attention import attention
from willfit.training.modelling.litgpt.code import Code
from willfit.training.modelling.litgpt.linear import linear
from willfit.training.modelling.litgpt.norms import normed
from willfit.training.modelling.roles import Norm, roles_of
from willfit.training.tape import Value


def block(builder: Builder, value: Value, layer: Layer, architecture: Architecture, code: Code) -> Value:
    """Write a layer's operations.

    Parameters
    ----------
    builder
        Writes the tape.
    value
        The residual stream.
    layer, architecture
        The layer, and the model that it is of.
    code
        The version's code.
    """
    tape, traits, roles = builder.tape, architecture.traits, roles_of(layer)
    norms = list(roles.norms)
    offset = traits.norm == "rms_offset"
    parallel = len(norms) == 1 or traits.block.startswith("parallel")

    def norm(given: Value, by: Norm) -> Value:
        tape.module = "norm"
        return normed(builder, given, by, code, offset)

    before = norm(value, norms[0])
    tape.module = "attention"
    mixer = layer.mixers[0]
    assert isinstance(mixer, Attention)
    rotated = architecture.ropes[0].dim if architecture.ropes else mixer.head_dim
    # A window is a mask of LitGPT's own, for the families that it knows one of.
    if not traits.attention_softcap:
        mixer = replace(mixer, window=0)
    mixed = attention(builder, before, roles.attention, mixer, traits, code, rotated)
    if parallel:
        second = before if len(norms) == 1 else norm(value, norms[1])
        tape.module = "residual"
        early = tape.add(value, mixed) if code.adds_early else None
        tape.module = "mlp"
        fed = _feed(builder, second, roles.mlp, traits, code)
        tape.module = "residual"
        result = tape.add(early, fed) if early else tape.add(tape.add(fed, mixed), value)
        tape.hold(second, mixed)
        return result
    if len(norms) == 4:
        mixed = norm(mixed, norms[1])
    tape.module = "residual"
    value = tape.add(mixed, value)
    second = norm(value, norms[2] if len(norms) == 4 else norms[1])
    tape.module = "mlp"
    fed = _feed(builder, second, roles.mlp, traits, code)
    if len(norms) == 4:
        fed = norm(fed, norms[3])
    tape.module = "residual"
    result = tape.add(fed, value)
    tape.hold(second if code.renames else before, mixed)
    return result


def _feed(builder: Builder, value: Value, tensors: Sequence[Tensor], traits: Traits, code: Code) -> Value:
    """`LLaMAMLP` and `GemmaMLP` (both products first, then the activation), or `GptNeoxMLP`."""
    tape = builder.tape
    matrices = [tensor for tensor in tensors if tensor.kind == "linear"]
    biases = {tensor.name.rpartition(".")[0]: tensor for tensor in tensors if tensor.kind == "bias"}

    def project(given: Value, tensor: Tensor) -> Value:
        return linear(builder, given, tensor, biases.get(tensor.name.rpartition(".")[0]), code)

    if len(matrices) == 2:
        inner = _activated(builder, project(value, matrices[0]), "gelu")
        result = project(inner, matrices[1])
        tape.hold(value, inner)
        return result
    gate, up = project(value, matrices[0]), project(value, matrices[1])
    name = "gelu" if traits.activation.startswith("gelu") else "silu"
    inner = tape.multiply(_activated(builder, gate, name), up)
    result = project(inner, matrices[2])
    tape.hold(value, gate, up, inner)
    return result


def _activated(builder: Builder, value: Value, name: str) -> Value:
    """`torch.nn.functional`'s own: one kernel, which keeps its input, whatever the approximation."""
    return builder.tape.run(name, (value,), value.elements, value.dtype, saves=(value,))
