"""Token mixers with a state: which code runs which kind."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from willfit.architectures.mixers import Recurrent
from willfit.architectures.model import Tensor
from willfit.training.modelling.builder import Builder
from willfit.training.modelling.delta import gated_delta
from willfit.training.modelling.kimi_delta import kimi_delta
from willfit.training.modelling.lightning import linear_attention
from willfit.training.modelling.mamba import mamba
from willfit.training.modelling.mamba2 import mamba2
from willfit.training.modelling.short_convolution import short_convolution
from willfit.training.tape import Value

#: By `Recurrent.kind`.
KINDS: dict[str, Callable[[Builder, Value, Sequence[Tensor], Recurrent], Value]] = {
    "gated delta": gated_delta,
    "kimi delta": kimi_delta,
    "linear attention": linear_attention,
    "mamba": mamba,
    "mamba2": mamba2,
    "short convolution": short_convolution,
}


def recurrent(builder: Builder, value: Value, tensors: Sequence[Tensor], mixer: Recurrent) -> Value:
    """Run a mixer of a kind by its name.

    Parameters
    ----------
    builder
        Writes the tape.
    value
        The normed input.
    tensors, mixer
        Of the mixer.
    """
    written = KINDS.get(mixer.kind, _any_other)
    return written(builder, value, tensors, mixer)


def _any_other(builder: Builder, value: Value, tensors: Sequence[Tensor], mixer: Recurrent) -> Value:
    """A mixer whose code is not known: its projections, and an output as wide as its state is read.

    Inputs of products are kept, what they give is kept once more, and the state's output as well.
    """
    tape, rows = builder.tape, builder.step.tokens
    matrices = [tensor for tensor in tensors if tensor.kind == "linear"]
    outward = next((t for t in reversed(matrices) if t.split is not None and t.split.axis == 1), None)
    found = [
        builder.linear(value, t)
        for t in matrices
        if t is not outward and t.shape[-1] == value.elements // rows
    ]
    if not found or outward is None:
        return value
    mixed = tape.run(
        mixer.kind, found, rows * mixer.output_width // builder.step.tensor_ranks, value.dtype, saves=found,
        saves_output=True,
    )  # fmt: skip
    return builder.linear(mixed, outward)
