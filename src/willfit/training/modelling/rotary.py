"""Rotary positions, by the way in which a family's code turns queries and keys."""

from __future__ import annotations

from willfit.quantities import DTYPE_BYTES
from willfit.training.modelling.builder import Builder
from willfit.training.tape import Value


def rotated(builder: Builder, value: Value, first: bool = False) -> tuple[Value, bool]:
    """Queries or keys with their positions.

    Parameters
    ----------
    builder
        Writes the tape; its manner says how the family turns.
    value
        Queries or keys of all heads.
    first
        The layer's first rotation, which makes its angles where the layer has its own.

    Returns
    -------
    Value
        The turned value.
    bool
        Whether it lies in memory head by head: a concatenation does, sums keep the order of their input, in which the
        heads of a token lie together.
    """
    way = builder.manner.rope
    if "rope" in builder.step.kernels:
        return builder.tape.run("rope", (value,), value.elements, value.dtype, reuses=True), False
    manner = builder.manner
    makes = manner.own_angles > 1 or (manner.own_angles and first)
    angles = 2 * builder.step.length * manner.turned if makes else 0
    if way == "cat":
        # The turned part of each head is put together with what is left as it was.
        turned = _turned(builder, value, "half", angles)
        return builder.tape.run("cat", (turned,), value.elements, turned.dtype), True
    return _turned(builder, value, way, angles), False


def _turned(builder: Builder, value: Value, way: str, angles: int) -> Value:
    """x cos + rotate_half(x) sin: two products and a half turned around (transformers `apply_rotary_pos_emb`).

    Under autocast the angles are float32, and so is the result; some families go to float32 and back in any case.
    """
    tape, step = builder.tape, builder.step
    if way in ("wide", "complex"):
        wide = tape.cast(value, "fp32")
        return tape.cast(_sum(builder, wide, "fp32", 4 * angles), value.dtype)
    dtype = "fp32" if step.autocast and step.wide_angles else value.dtype
    # GPT-J's code makes angles in the dtype of its keys.
    narrow = value.dtype if builder.manner.own_angles > 1 else dtype
    return _sum(builder, value, dtype, DTYPE_BYTES[narrow] * angles)


def _sum(builder: Builder, value: Value, dtype: str, kept: int = 0) -> Value:
    size = value.elements * DTYPE_BYTES[dtype]
    return builder.tape.run(
        "rope",
        (value,),
        value.elements,
        dtype,
        kept_bytes=kept,
        forward_temp=2 * size,
        backward_temp=2 * size,
    )
