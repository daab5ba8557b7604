"""The short causal convolution in front of recurrent mixers."""

from __future__ import annotations

from collections.abc import Sequence

from willfit.architectures.model import Tensor
from willfit.errors import BadInput
from willfit.training.modelling.builder import Builder
from willfit.training.tape import Value


def named(tensors: Sequence[Tensor], *names: str) -> Tensor | None:
    """The parameter of a module, or of the mixer itself, by the last part of its name."""
    for name in names:
        for tensor in tensors:
            if tensor.name.endswith((f".{name}.weight", f".{name}")):
                return tensor
    return None


def needed(tensors: Sequence[Tensor], *names: str) -> Tensor:
    """A parameter that the mixer cannot do without.

    Raises
    ------
    BadInput
        If it is not there.
    """
    found = named(tensors, *names)
    if found is None:
        raise BadInput(
            f"a recurrent layer has no parameter named {' or '.join(names)}",
            "its checkpoint is written in a way that is not known for training",
        )
    return found


def convolved(
    builder: Builder, value: Value, tensors: Sequence[Tensor], kernel: int, activation: str = "silu"
) -> Value:
    """Convolve each channel over its last inputs, and bend the result.

    PyTorch pads both ends and cuts the surplus off (`F.conv1d(...)[:, :, :length]`), so that what the activation keeps
    is a view of the padded output; the kernel of `causal_conv1d` keeps its input alone.

    Parameters
    ----------
    builder
        Writes the tape.
    value
        All channels of all tokens.
    tensors
        Of the mixer.
    kernel
        Taps.
    activation
        Behind it; empty for none.
    """
    tape, step = builder.tape, builder.step
    weight = named(tensors, "conv1d", "conv")
    weights = (builder.stored(weight).weight,) if weight is not None else ()
    if "causal_conv1d" in step.kernels:
        return tape.run("conv", (value,), value.elements, value.dtype, saves=(value,), weights=weights)
    channels = value.elements // step.tokens
    copied = 0
    if step.autocast:
        # The input takes the weight's dtype first; both are then cast for the convolution, which keeps the casts.
        value = tape.cast(tape.cast(value, "fp32"), step.compute)
        copied = sum(one.elements * step.width for one in weights)
    padded = channels * step.batch * (step.length + kernel - 1)
    output = tape.run(
        "conv", (value,), padded, value.dtype, saves=(value,), weights=weights, kept_bytes=copied
    )
    part = tape.part(output, value.elements)
    return builder.activation(part, activation) if activation else part
