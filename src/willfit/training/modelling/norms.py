"""Normalisations as transformers writes them, which differ in what they keep."""

from __future__ import annotations

from typing import TYPE_CHECKING

from willfit.quantities import DTYPE_BYTES
from willfit.training.tape import Value, Weight

if TYPE_CHECKING:
    from willfit.training.modelling.builder import Builder


def normed(
    builder: Builder, value: Value, weight: Weight | None, bias: Weight | None, rows: int, kind: str
) -> Value:
    """A normalisation of rows.

    Parameters
    ----------
    builder
        Writes the tape.
    value
        Its input.
    weight, bias
        Scale and shift, if it has them.
    rows
        Rows that are normalised each for itself.
    kind
        As in `Traits.norm`, or `rms_power`, which takes the mean square to the power of minus a half, or `rms_copied`,
        which makes a float32 copy of the scale; `rms_power_plain` has none.
    """
    tape, dtype = builder.tape, value.dtype
    if kind == "layer_norm_composed":
        assert weight is not None
        return _composed_layer_norm(builder, value, weight, rows)
    if kind == "layer_norm_plain":
        return tape.cast(_layer_norm(builder, tape.cast(value, "fp32"), None, None, rows), dtype)
    if kind == "layer_norm_offset" and weight is not None:
        shifted = tape.run("1 + weight", (), weight.elements, weight.dtype, weights=(weight,))
        return _layer_norm(builder, value, None, bias, rows, shifted)
    if kind.startswith("layer_norm"):
        return _layer_norm(builder, value, weight, bias, rows)
    if kind.endswith("_plain") or weight is None:
        root = "pow" if kind.startswith("rms_power") else "rsqrt"
        return tape.cast(_divided(builder, tape.cast(value, "fp32"), rows, root), dtype)
    if "rms_norm" in builder.step.kernels:
        return tape.run(
            "rms_norm",
            (value,),
            value.elements,
            dtype,
            saves=(value,),
            kept_bytes=4 * rows,
            weights=(weight,),
        )
    if kind.startswith("rms_mixed"):
        return _mixed(builder, value, weight, rows, kind)
    return _rms_norm(builder, value, weight, rows, kind)


def _layer_norm(
    builder: Builder,
    value: Value,
    weight: Weight | None,
    bias: Weight | None,
    rows: int,
    scale: Value | None = None,
) -> Value:
    """`F.layer_norm`: it keeps its input with a mean and a reciprocal deviation a row, both float32 on a GPU."""
    tape = builder.tape
    if builder.step.autocast:
        value = tape.cast(value, "fp32")
    saves = (value, scale) if scale is not None else (value,)
    return tape.run(
        "layer_norm", saves, value.elements, value.dtype, saves=saves, kept_bytes=2 * 4 * rows,
        weights=tuple(one for one in (weight, bias) if one),
    )  # fmt: skip


def _composed_layer_norm(builder: Builder, value: Value, weight: Weight, rows: int) -> Value:
    """A layer norm written out in float32, which subtracts the mean twice (`CohereLayerNorm`)."""
    tape, dtype = builder.tape, value.dtype
    wide = tape.cast(value, "fp32")
    size = wide.elements
    shifted = tape.run("x - mean", (wide,), size, "fp32", backward_temp=wide.bytes)
    squares = tape.run("pow", (shifted,), size, "fp32", saves=(shifted,), backward_temp=2 * wide.bytes)
    scales = tape.run("rsqrt", (squares,), rows, "fp32", saves_output=True)
    again = tape.run("x - mean", (wide,), size, "fp32", backward_temp=wide.bytes)
    divided = tape.run("mul", (again, scales), size, "fp32", saves=(again, scales), backward_temp=wide.bytes)
    return tape.cast(_scaled_wide(builder, divided, weight, "weight to float"), dtype)


def _rms_norm(builder: Builder, value: Value, weight: Weight, rows: int, kind: str) -> Value:
    """An RMS norm written out: it keeps a float32 copy of its input, and the normalised one for its scale.

    The scale follows in the input's dtype (`LlamaRMSNorm`) or in float32 (`Olmo2RMSNorm`), one added to it or not
    (`GemmaRMSNorm`).
    """
    tape, dtype = builder.tape, value.dtype
    divided = _divided(builder, tape.cast(value, "fp32"), rows, "pow" if kind == "rms_power" else "rsqrt")
    if kind != "rms":
        copied = {"rms_offset": "1 + weight", "rms_power": "weight to float", "rms_copied": "weight to float"}
        return tape.cast(_scaled_wide(builder, divided, weight, copied.get(kind, "")), dtype)
    return _scaled(builder, tape.cast(divided, dtype), weight)


def _mixed(builder: Builder, value: Value, weight: Weight, rows: int, kind: str) -> Value:
    """A float32 square alone: the input itself is multiplied by the float32 root (`T5LayerNorm`)."""
    tape, dtype = builder.tape, value.dtype
    wide = tape.cast(value, "fp32")
    squares = tape.run("pow", (wide,), wide.elements, "fp32", saves=(wide,), backward_temp=2 * wide.bytes)
    scales = tape.run("rsqrt", (squares,), rows, "fp32", saves_output=True)
    divided = tape.run(
        "mul", (value, scales), wide.elements, "fp32", saves=(value, scales), backward_temp=wide.bytes
    )
    if kind == "rms_mixed_float32":
        return tape.cast(_scaled_wide(builder, divided, weight, ""), dtype)
    return _scaled(builder, tape.cast(divided, dtype), weight)


def _scaled(builder: Builder, divided: Value, weight: Weight) -> Value:
    wider = max(divided.dtype, weight.dtype, key=lambda name: DTYPE_BYTES[name])
    return builder.tape.run(
        "mul", (divided,), divided.elements, wider, saves=(divided,) if weight.trained else (),
        weights=(weight,), backward_temp=divided.bytes if weight.trained else 0,
    )  # fmt: skip


def _divided(builder: Builder, wide: Value, rows: int, root: str) -> Value:
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


def _scaled_wide(builder: Builder, divided: Value, weight: Weight, copied: str) -> Value:
    """The product with a scale in float32, of which a copy is kept where the code makes one."""
    tape = builder.tape
    saves = [divided] if weight.trained else []
    inputs = [divided]
    weights: tuple[Weight, ...] = (weight,)
    if copied:
        scale = tape.run(copied, (), weight.elements, "fp32", weights=(weight,))
        inputs.append(scale)
        weights = ()
        if divided.grad:
            saves.append(scale)
    return tape.run(
        "mul", inputs, divided.elements, "fp32", saves=saves, weights=weights,
        backward_temp=divided.bytes if weight.trained else 0,
    )  # fmt: skip
