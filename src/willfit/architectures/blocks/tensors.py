"""Constructors for single tensors. Each returns a tuple, so that families can splice them together."""

from __future__ import annotations

from willfit.architectures.model import Part, Split, Tensor


def column(units: int) -> Split:
    """Output features are divided over ranks (heads, intermediate channels)."""
    return Split(0, units)


def row(units: int) -> Split:
    """Input features are divided over ranks; the bias, if any, stays whole."""
    return Split(1, units)


def linear(
    name: str,
    inputs: int,
    outputs: int,
    part: Part,
    *,
    bias: bool = False,
    split: Split | None = None,
    copies: int = 1,
) -> tuple[Tensor, ...]:
    """Weight (outputs, inputs) of a linear layer called `name`, and its bias.

    A bias is divided with its weight's outputs, and whole if the inputs are divided.
    """
    weight = Tensor(f"{name}.weight", (outputs, inputs), part, "linear", split, copies)
    if not bias:
        return (weight,)
    bias_split = split if split and split.axis == 0 else None
    return (weight, Tensor(f"{name}.bias", (outputs,), part, "bias", bias_split, copies))


def rms_norm(name: str, width: int, part: Part = "norm") -> tuple[Tensor, ...]:
    """Scale of an RMS norm."""
    return (Tensor(f"{name}.weight", (width,), part, "norm"),)


def layer_norm(name: str, width: int, *, bias: bool = True, part: Part = "norm") -> tuple[Tensor, ...]:
    """Scale, and shift unless `bias` is false, of a layer norm."""
    scale = Tensor(f"{name}.weight", (width,), part, "norm")
    return (scale, Tensor(f"{name}.bias", (width,), part, "norm")) if bias else (scale,)


def embedding(name: str, rows: int, width: int, part: Part = "embedding") -> tuple[Tensor, ...]:
    """A look-up table (rows, width), divided over ranks by rows."""
    return (Tensor(f"{name}.weight", (rows, width), part, "embedding", Split(0, rows)),)


def parameter(
    name: str, shape: tuple[int, ...], part: Part, split: Split | None = None
) -> tuple[Tensor, ...]:
    """A parameter that is no linear, norm, convolution or table."""
    return (Tensor(name, shape, part, "other", split),)


def buffer(name: str, shape: tuple[int, ...], part: Part, copies: int = 1) -> tuple[Tensor, ...]:
    """A stored tensor that is no parameter."""
    return (Tensor(name, shape, part, "buffer", None, copies),)
