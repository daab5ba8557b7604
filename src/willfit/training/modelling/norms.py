"""Normalisations as transformers writes them, which differ in what they keep."""

from __future__ import annotations

from typing import TYPE_CHECKING

from willfit.quantities import DTYPE_BYTES
from willfit.training.tape import Value, Weight

if TYPE_CHECKING:
    from willfit.training.modelling.builder import Builder

#: How the scale meets the normalised value. `rms`: in the input's dtype (`LlamaRMSNorm`); `rms_wide`: in float32, then
#: cast (`Olmo2RMSNorm`, `GptOssRMSNorm`); `rms_offset`: one plus the scale, in float32 (`GemmaRMSNorm`); `rms_pow`: the
#: mean square to the power of minus a half instead of a reciprocal root (`Gemma4RMSNorm`).
_WIDE = ("rms_wide", "rms_offset", "rms_pow")


def layer_norm(builder: Builder, value: Value, weight: Weight | None, bias: Weight | None, rows: int) -> Value:
    """`F.layer_norm`: it keeps its input with a mean and a reciprocal deviation a row, both float32 on a GPU."""
    tape = builder.tape
    if builder.step.autocast:
        value = tape.cast(value, "fp32")
    return tape.run(
        "layer_norm", (value,), value.elements, value.dtype, saves=(value,), kept_bytes=2 * 4 * rows,
        weights=tuple(one for one in (weight, bias) if one),
    )  # fmt: skip


def wide_layer_norm(builder: Builder, value: Value, weight: Weight, rows: int) -> Value:
    """A layer norm written out in float32, which subtracts the mean twice (`CohereLayerNorm`)."""
    tape, dtype = builder.tape, value.dtype
    wide = tape.cast(value, "fp32")
    size = wide.elements
    shifted = tape.run("x - mean", (wide,), size, "fp32", backward_temp=wide.bytes)
    squares = tape.run("pow", (shifted,), size, "fp32", saves=(shifted,), backward_temp=2 * wide.bytes)
    scales = tape.run("rsqrt", (squares,), rows, "fp32", saves_output=True)
    again = tape.run("x - mean", (wide,), size, "fp32", backward_temp=wide.bytes)
    normed = tape.run("mul", (again, scales), size, "fp32", saves=(again, scales), backward_temp=wide.bytes)
    return tape.cast(_scaled_wide(builder, normed, weight, "weight to float"), dtype)


def plain_rms_norm(builder: Builder, value: Value, rows: int) -> Value:
    """An RMS norm without a scale, in float32 (`Llama4TextL2Norm`, `FalconMambaWeightlessRMSNorm`)."""
    return builder.tape.cast(_normed(builder, builder.tape.cast(value, "fp32"), rows, "rsqrt"), value.dtype)


def rms_norm(builder: Builder, value: Value, weight: Weight, rows: int, kind: str) -> Value:
    """An RMS norm written out: it keeps a float32 copy of its input, and the normalised one for its scale."""
    tape, dtype = builder.tape, value.dtype
    normed = _normed(builder, tape.cast(value, "fp32"), rows, "pow" if kind == "rms_pow" else "rsqrt")
    if kind in _WIDE:
        copied = {"rms_offset": "1 + weight", "rms_pow": "weight to float"}.get(kind, "")
        return tape.cast(_scaled_wide(builder, normed, weight, copied), dtype)
    normed = tape.cast(normed, dtype)
    wider = max(dtype, weight.dtype, key=lambda name: DTYPE_BYTES[name])
    return tape.run(
        "mul", (normed,), normed.elements, wider, saves=(normed,) if weight.trained else (),
        weights=(weight,), backward_temp=normed.bytes if weight.trained else 0,
    )  # fmt: skip


def _normed(builder: Builder, wide: Value, rows: int, root: str) -> Value:
    tape = builder.tape
    squares = tape.run("pow", (wide,), wide.elements, "fp32", saves=(wide,), backward_temp=2 * wide.bytes)
    if root == "pow":
        mean = tape.run("mean", (squares,), rows, "fp32")
        scales = tape.run("pow", (mean,), rows, "fp32", saves=(mean,))
    else:
        scales = tape.run("rsqrt", (squares,), rows, "fp32", saves_output=True)
    # The gradient of the scale is made for every element and then summed.
    return tape.run(
        "mul", (wide, scales), wide.elements, "fp32", saves=(wide, scales), backward_temp=wide.bytes
    )


def _scaled_wide(builder: Builder, normed: Value, weight: Weight, copied: str) -> Value:
    """The product with a scale in float32, of which a copy is kept where the code makes one."""
    tape = builder.tape
    saves = [normed] if weight.trained else []
    inputs = [normed]
    weights: tuple[Weight, ...] = (weight,)
    if copied:
        scale = tape.run(copied, (), weight.elements, "fp32", weights=(weight,))
        inputs.append(scale)
        weights = ()
        if normed.grad:
            saves.append(scale)
    return tape.run(
        "mul", inputs, normed.elements, "fp32", saves=saves, weights=weights,
        backward_temp=normed.bytes if weight.trained else 0,
    )  # fmt: skip
