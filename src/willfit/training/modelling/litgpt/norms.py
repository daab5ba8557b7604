"""LitGPT's RMS norm, operation by operation, and torch's layer norm."""

from __future__ import annotations

from willfit.training.modelling.builder import Builder
from willfit.training.modelling.litgpt.code import Code
from willfit.training.modelling.roles import Norm
from willfit.training.tape import Tape, Value, Weight


def normed(builder: Builder, value: Value, norm: Norm, code: Code, offset: bool, rows: int = 0) -> Value:
    """`model.py: RMSNorm` (`rmsnorm.py` before 2024), or `torch.nn.LayerNorm` where the norm has a shift.

    Parameters
    ----------
    builder
        Writes the tape.
    value, norm
        What is normed, and by which parameters.
    code
        How the version writes it.
    offset
        The weight is added to one (Gemma).
    rows
        Of the value; 0 for the step's tokens.
    """
    assert norm.weight is not None
    if norm.bias is not None:
        return builder.norm(value, norm.weight, "layer_norm", norm.bias)
    tape, dtype = builder.tape, value.dtype
    weight = builder.stored(norm.weight).weight
    rows = rows or builder.step.stream_tokens
    wide = value if code.norm == "narrow" else tape.cast(value, "fp32")
    squares = tape.run("x * x", (wide, wide), wide.elements, wide.dtype, saves=(wide,))
    means = tape.run("mean", (squares,), rows, wide.dtype)
    scales = tape.run("rsqrt", (means,), rows, wide.dtype, saves_output=True)
    result = tape.run(
        "x * rsqrt", (wide, scales), wide.elements, wide.dtype, saves=(wide, scales), backward_temp=wide.bytes
    )
    if code.norm == "cast":
        result = tape.cast(result, dtype)
    return tape.cast(_weighted(tape, result, weight, code, offset), dtype)


def _weighted(tape: Tape, value: Value, weight: Weight, code: Code, offset: bool) -> Value:
    """The product with the weight: its own gradient needs the other factor, and is made for each element first."""
    kept = 0
    if value.grad and (offset or code.norm == "float"):
        # `1 + weight` and `weight.float()` are new tensors.
        kept = weight.elements * (4 if code.norm == "float" else value.bytes // value.elements)
    return tape.run(
        "* weight", (value,), value.elements, value.dtype, saves=(value,) if weight.trained else (),
        kept_bytes=kept, weights=(weight,), backward_temp=value.bytes if weight.trained else 0,
    )  # fmt: skip
