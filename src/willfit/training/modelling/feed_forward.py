"""The dense feed-forward part of a layer: gated or plain, with separate or fused matrices."""

from __future__ import annotations

from collections.abc import Sequence

from willfit.architectures.model import Tensor
from willfit.training.modelling.activations import gate_product
from willfit.training.modelling.builder import Builder
from willfit.training.tape import Value


def feed_forward(
    builder: Builder,
    value: Value,
    tensors: Sequence[Tensor],
    gated: bool,
    activation: str,
    dropout: float = 0.0,
) -> Value:
    """Run an MLP (transformers `LlamaMLP`, `Phi3MLP`, `GPT2MLP` and their kin).

    Parameters
    ----------
    builder
        Writes the tape.
    value
        The normed input.
    tensors
        The MLP's tensors: matrices (the last one on their way is the one that is divided along its inputs) and biases.
    gated, activation, dropout
        As in the architecture; dropout of the inner values.
    """
    inward, outward = _matrices(tensors)
    biases = _biases(tensors)
    tape = builder.tape
    if gated and len(inward) == 1:
        both = builder.linear(value, inward[0], biases.get(_module(inward[0])))
        gate, up = tape.split(both, (both.elements // 2,) * 2)
        inner = _gate(builder, gate, up, activation)
    elif gated:
        gate = builder.linear(value, inward[0], biases.get(_module(inward[0])))
        if "swiglu" in builder.step.kernels:
            up = builder.linear(value, inward[1], biases.get(_module(inward[1])))
            inner = _gate(builder, gate, up, activation)
        else:
            inner = _separate(builder, value, gate, inward[1], biases, activation)
    else:
        inner = builder.activation(
            builder.linear(value, inward[0], biases.get(_module(inward[0]))), activation
        )
    for norm in (tensor for tensor in tensors if "sub_norm" in tensor.name):
        inner = builder.norm(inner, norm, "rms", rows=builder.step.tokens)
    inner = tape.dropout(inner, dropout if builder.step.training else 0.0)
    result = builder.linear(inner, outward, biases.get(_module(outward)))
    tape.hold(value)  # by what called it, as every module's input
    return result


def _gate(builder: Builder, gate: Value, up: Value, activation: str) -> Value:
    """The product of an activated gate and the up projection; a fused kernel keeps both and writes over them."""
    if "swiglu" in builder.step.kernels:
        return builder.tape.run(
            "swiglu", (gate, up), gate.elements, gate.dtype, saves=(gate, up), reuses=True
        )
    return gate_product(builder, gate, up, activation, gate_first=False)


def _separate(
    builder: Builder, value: Value, gate: Value, matrix: Tensor, biases: dict[str, Tensor], activation: str
) -> Value:
    """A bent gate times another projection, which is made behind the activation."""
    if activation == "swiglu_clamped":
        return gate_product(
            builder, gate, builder.linear(value, matrix, biases.get(_module(matrix))), activation
        )
    bent = builder.activation(gate, activation)
    return builder.tape.multiply(bent, builder.linear(value, matrix, biases.get(_module(matrix))))


def _matrices(tensors: Sequence[Tensor]) -> tuple[list[Tensor], Tensor]:
    matrices = [tensor for tensor in tensors if tensor.kind == "linear"]
    outward = next((t for t in reversed(matrices) if t.split is not None and t.split.axis == 1), matrices[-1])
    return [tensor for tensor in matrices if tensor is not outward], outward


def _module(tensor: Tensor) -> str:
    return tensor.name.rpartition(".")[0]


def _biases(tensors: Sequence[Tensor]) -> dict[str, Tensor]:
    return {_module(tensor): tensor for tensor in tensors if tensor.kind == "bias"}
