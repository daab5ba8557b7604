"""Linear layers: plain, with LoRA, or with the scale and bias of LLaMA-Adapter V2."""

from __future__ import annotations

from collections.abc import Sequence

from willfit.architectures.model import Tensor
from willfit.training.modelling.builder import Builder, LowRank, Stored
from willfit.training.modelling.litgpt.code import Code
from willfit.training.tape import Value, Weight

#: Bytes of an index (int64).
INDEX_BYTES = 8


def linear(builder: Builder, value: Value, tensor: Tensor, bias: Tensor | None, code: Code) -> Value:
    """One linear layer with what is added to it (`LoRALinear`, `AdapterV2Linear`)."""
    result = with_low_rank(builder, value, tensor, bias)
    return scaled(builder, result, tensor.shape[0]) if code.scales else result


def with_low_rank(builder: Builder, value: Value, tensor: Tensor, bias: Tensor | None = None) -> Value:
    """A product, and that of a low-rank adapter beside it (`lora.py: LoRALinear`)."""
    tape, adapter = builder.tape, builder.stored(tensor).adapter
    result = builder.linear(value, tensor, bias)
    if adapter is None:
        return result
    dtype, rows = result.dtype, builder.step.tokens
    low = Stored(Weight(adapter.rank * adapter.inputs, adapter.dtype, True))
    high = Stored(Weight(adapter.rank * adapter.outputs, adapter.dtype, True))
    dropped = tape.dropout(tape.cast(value, adapter.dtype), adapter.dropout)
    inner = builder.product(dropped, low, rows * adapter.rank)
    added = tape.scale(builder.product(inner, high, rows * adapter.outputs))
    return tape.cast(tape.add(result, added), dtype)


def scaled(builder: Builder, value: Value, width: int) -> Value:
    """`scale * (value + bias)`; the sum is kept for the scale's gradient (`adapter_v2.py: AdapterV2Linear`)."""
    tape, dtype = builder.tape, value.dtype
    added = Weight(width, dtype, True)
    moved = tape.run("add bias", (value,), value.elements, dtype, weights=(added,), passes=True)
    return tape.run(
        "scale", (moved,), moved.elements, dtype, saves=(moved,), weights=(added,), backward_temp=moved.bytes
    )


def fused(
    builder: Builder,
    value: Value,
    matrices: Sequence[Tensor],
    biases: Sequence[Tensor],
    code: Code,
    rows: int = 0,
) -> Value:
    """Queries, keys and values by one product.

    Parameters
    ----------
    builder
        Writes the tape.
    value
        The normed input.
    matrices, biases
        Of queries, keys and values.
    code
        How adapters are written.
    rows
        Of the input; 0 for the step's tokens.
    """
    rows = rows or builder.step.tokens
    parts = [builder.stored(tensor) for tensor in matrices]
    first = parts[0].weight
    elements = sum(part.weight.elements for part in parts)
    outputs = elements * rows // value.elements
    whole = Stored(
        Weight(elements, first.dtype, first.trained, first.gradient_dtype), sum(p.expanded for p in parts),
        bits=parts[0].bits,
    )  # fmt: skip
    result = builder.product(value, whole, outputs * rows, _bias(builder, biases))
    adapters = [part.adapter for part in parts if part.adapter is not None]
    if adapters:
        result = _low_rank(builder, value, result, adapters, len(adapters) < len(parts), code)
    return scaled(builder, result, outputs) if code.scales else result


def _bias(builder: Builder, biases: Sequence[Tensor]) -> Weight | None:
    weights = [builder.stored(bias).weight for bias in biases]
    if not weights or not weights[0].trained:
        return None
    elements = sum(weight.elements for weight in weights)
    return Weight(elements, weights[0].dtype, True, weights[0].gradient_dtype)


def _low_rank(
    builder: Builder, value: Value, result: Value, adapters: Sequence[LowRank], pads: bool, code: Code
) -> Value:
    """One product inwards for all parts, a convolution outwards for each, zeros for parts without (`LoRAQKVLinear`)."""
    tape, step = builder.tape, builder.step
    first, dtype = adapters[0], result.dtype
    rows = value.elements // first.inputs
    low = Stored(Weight(first.rank * len(adapters) * first.inputs, first.dtype, True))
    inner = builder.product(tape.dropout(value, first.dropout), low, rows * first.rank * len(adapters))
    outputs = sum(adapter.outputs for adapter in adapters)
    high = Weight(first.rank * outputs, first.dtype, True)
    raised = tape.run("conv1d", (inner,), rows * outputs, dtype, saves=(inner,), weights=(high,))
    if len({adapter.outputs for adapter in adapters}) > 1:
        # Parts of unlike widths are convolved one by one and put together.
        raised = tape.run("cat", (raised,), raised.elements, dtype, passes=True)
    if pads:
        raised = _padded(builder, raised, result, outputs, step.batch > 1, code)
    return tape.add(result, tape.scale(raised))


def _padded(builder: Builder, value: Value, like: Value, outputs: int, several: bool, code: Code) -> Value:
    """Zeros where nothing is adapted; the derivative of `index_copy` keeps what was copied for its shape."""
    tape = builder.tape
    if code.pads_by_copy and several:
        value = tape.run("reshape", (value,), value.elements, value.dtype, passes=True)
    return tape.run(
        "index_copy", (value,), like.elements, like.dtype, saves=(value,),
        kept_bytes=INDEX_BYTES * outputs if code.new_indices else 0,
        forward_temp=like.bytes if code.pads_by_copy else 0,
    )  # fmt: skip
