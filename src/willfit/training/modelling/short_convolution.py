"""The gated short convolution of LFM2."""

from __future__ import annotations

from collections.abc import Sequence

from willfit.architectures.mixers import Recurrent
from willfit.architectures.model import Tensor
from willfit.training.modelling.builder import Builder
from willfit.training.modelling.convolution import convolved, needed
from willfit.training.tape import Value


def short_convolution(builder: Builder, value: Value, tensors: Sequence[Tensor], mixer: Recurrent) -> Value:
    """Three projections: one gates the convolution's input, one its output (transformers `Lfm2ShortConv`).

    Parameters
    ----------
    builder
        Writes the tape.
    value
        The normed input.
    tensors, mixer
        Of the mixer.
    """
    tape = builder.tape
    inward, outward = needed(tensors, "in_proj"), needed(tensors, "out_proj")
    projected = builder.linear(value, inward)
    before, behind, given = tape.split(projected, (projected.elements // 3,) * 3)
    mixed = convolved(builder, tape.multiply(before, given), tensors, mixer.conv_kernel, "")
    return builder.linear(tape.copy(tape.multiply(behind, mixed)), outward)
