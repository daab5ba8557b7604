"""Sequence parallelism: a stream that ranks divide among them, put together for products."""

from __future__ import annotations

from willfit.training.modelling.builder import Builder
from willfit.training.tape import Value


def gathered(builder: Builder, value: Value) -> Value:
    """All ranks' shares of a value; the value itself without sequence parallelism.

    Products keep what was gathered (PyTorch's `SequenceParallel` with `ColwiseParallel`), or the rank's share, which is
    then gathered again (Megatron-LM `tensor_parallel/layers.py: LinearWithGradAccumulationAndAsyncCommunication`).
    """
    step, tape = builder.step, builder.tape
    if not step.sequence_parallel or step.tensor_ranks == 1:
        return value
    size = value.bytes * step.tensor_ranks
    if not step.regathers:
        return tape.run("gather", (value,), value.elements * step.tensor_ranks, value.dtype)
    # Products in few bits keep a quantized share instead (`low_bits.py`).
    quantized = step.low_bits is not None and step.low_bits.keeps
    whole = tape.run(
        "gather", (value,), value.elements * step.tensor_ranks, value.dtype, saves=() if quantized else (value,),
        forward_temp=size, backward_temp=size,
    )  # fmt: skip
    tape.sizes[whole.storage] = 0
    builder.gathered.add(whole.number)
    return whole


def scattered(builder: Builder, value: Value) -> Value:
    """A rank's share of a sum over ranks (reduce-scatter); the value itself without sequence parallelism."""
    step = builder.step
    if not step.sequence_parallel or step.tensor_ranks == 1:
        return value
    return builder.tape.run("scatter", (value,), value.elements // step.tensor_ranks, value.dtype)
