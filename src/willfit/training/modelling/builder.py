"""Writing a layer's operations on a tape: products with their weights, norms and activations."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from willfit.architectures.model import Tensor
from willfit.quantities import DTYPE_BYTES
from willfit.training.modelling.step import Step
from willfit.training.tape import Tape, Value, Weight


@dataclass(frozen=True, slots=True)
class Stored:
    """How a parameter lies on a rank while its layer runs.

    Attributes
    ----------
    weight
        Its elements, dtype and whether it is trained.
    expanded
        Bytes of the full-precision copy that a product with a quantized matrix makes, forward and back.
    adapter
        What is added to the product, if it is adapted; see `adapted.py`.
    """

    weight: Weight
    expanded: int = 0
    adapter: LowRank | None = None


@dataclass(frozen=True, slots=True)
class LowRank:
    """A low-rank adapter of one matrix on a rank.

    Attributes
    ----------
    rank, inputs, outputs
        Its sizes.
    dtype
        Of its two matrices.
    dropout
        Probability; 0 for none.
    """

    rank: int
    inputs: int
    outputs: int
    dtype: str
    dropout: float = 0.0


#: How a tensor of the layer lies on the rank.
Storing = Callable[[Tensor], Stored]


class Builder:
    """A tape being written for one rank's pass.

    Attributes
    ----------
    tape
        What has been written.
    step
        How the pass runs.
    """

    def __init__(self, step: Step, storing: Storing) -> None:
        self.tape = Tape()
        self.step = step
        self._storing = storing

    def stored(self, tensor: Tensor) -> Stored:
        """How a tensor lies on the rank."""
        return self._storing(tensor)

    def entering(self, elements: int, dtype: str, grad: bool = True) -> Value:
        """The value that the layer is given."""
        return self.tape.new(elements, dtype, grad)

    def linear(self, value: Value, tensor: Tensor, bias: Tensor | None = None, rows: int = 0) -> Value:
        """`F.linear`: a matrix product with a weight, and what adapts it.

        The derivative keeps the input if the weight is trained, and the weight, of which autocast makes a copy.

        Parameters
        ----------
        value
            Input of `rows` times the weight's inputs.
        tensor, bias
            Of the architecture.
        rows
            Rows of the input; 0 for the step's tokens.
        """
        stored = self.stored(tensor)
        rows = rows or self.step.tokens
        outputs = rows * (stored.weight.elements * rows // value.elements or 1)
        result = self.product(value, stored, outputs, self._trained_bias(bias))
        if stored.adapter is not None:
            result = self._adapted(value, result, stored.adapter, rows)
        return result

    def product(self, value: Value, stored: Stored, elements: int, bias: Weight | None = None) -> Value:
        """The product alone, with `elements` outputs."""
        weight, tape, step = stored.weight, self.tape, self.step
        biases = (bias,) if bias else ()
        keeps = weight.trained or (bool(stored.expanded) and step.keeps_quantized_input)
        backward, forward = self.expansion(stored, value.bytes), self.expansion(stored, elements * step.width)
        if not step.autocast:
            return tape.run(
                "mm", (value,), elements, value.dtype, saves=(value,) if keeps else (), weights=(weight, *biases),
                forward_temp=forward, backward_temp=backward, outlives=bool(stored.expanded),
            )  # fmt: skip
        value = tape.cast(value, step.compute)
        if weight.dtype == step.compute or stored.expanded:
            return tape.run(
                "mm", (value,), elements, value.dtype, saves=(value,) if keeps else (), weights=(weight, *biases),
                forward_temp=forward, backward_temp=backward, outlives=bool(stored.expanded),
            )  # fmt: skip
        cast = tape.run("cast weight", (), weight.elements, self.step.compute, weights=(weight,))
        saves = (*((value,) if weight.trained else ()), *((cast,) if value.grad else ()))
        return tape.run("mm", (value, cast), elements, self.step.compute, saves=saves, weights=biases)

    def expansion(self, stored: Stored, output: int) -> int:
        """Bytes of a quantized matrix in full precision beside a product's output, or the gradient of its input.

        Where it is made in one dtype and cast to another, both are alive before there is an output.
        """
        if not self.step.expands_twice:
            return stored.expanded
        return max(stored.expanded, 2 * stored.expanded - output)

    def _trained_bias(self, bias: Tensor | None) -> Weight | None:
        if bias is None:
            return None
        weight = self.stored(bias).weight
        return weight if weight.trained else None

    def _adapted(self, value: Value, result: Value, adapter: LowRank, rows: int) -> Value:
        """LoRA: the input in the adapter's dtype, two products, a scaled sum in the result's dtype."""
        tape, dtype = self.tape, result.dtype
        low = Stored(Weight(adapter.rank * adapter.inputs, adapter.dtype, True))
        high = Stored(Weight(adapter.rank * adapter.outputs, adapter.dtype, True))
        cast = tape.dropout(tape.cast(value, adapter.dtype), adapter.dropout)
        inner = self.product(cast, low, rows * adapter.rank)
        added = tape.scale(self.product(inner, high, rows * adapter.outputs))
        return tape.cast(tape.add(result, added), dtype)

    def norm(
        self, value: Value, tensor: Tensor, kind: str, bias: Tensor | None = None, rows: int = 0
    ) -> Value:
        """A normalisation of rows; `kind` as in `Traits.norm`.

        Composite RMS norms (transformers `LlamaRMSNorm`, `GemmaRMSNorm`) keep a float32 copy of their input and the
        normalised one; layer norms and fused kernels keep the input and statistics.
        """
        weight = self.stored(tensor).weight
        rows = rows or self.step.stream_tokens
        if kind.startswith("layer_norm"):
            return self._layer_norm(value, weight, self._trained_bias(bias), rows)
        if "rms_norm" in self.step.kernels:
            return self.tape.run(
                "rms_norm", (value,), value.elements, value.dtype, saves=(value,), kept_bytes=4 * rows,
                weights=(weight,),
            )  # fmt: skip
        return self._rms_norm(value, weight, rows, offset=kind == "rms_offset")

    def _layer_norm(self, value: Value, weight: Weight, bias: Weight | None, rows: int) -> Value:
        if self.step.autocast:
            value = self.tape.cast(value, "fp32")
        return self.tape.run(
            "layer_norm", (value,), value.elements, value.dtype, saves=(value,), kept_bytes=2 * 4 * rows,
            weights=(weight, *((bias,) if bias else ())),
        )  # fmt: skip

    def _rms_norm(self, value: Value, weight: Weight, rows: int, offset: bool) -> Value:
        tape, dtype = self.tape, value.dtype
        wide = tape.cast(value, "fp32")
        squares = tape.run("pow", (wide,), wide.elements, "fp32", saves=(wide,), backward_temp=2 * wide.bytes)
        scales = tape.run("rsqrt", (squares,), rows, "fp32", saves_output=True)
        # The gradient of the scale is made for every element and then summed.
        normed = tape.run(
            "mul", (wide, scales), wide.elements, "fp32", saves=(wide, scales), backward_temp=wide.bytes
        )
        if offset:
            shifted = tape.run("1 + weight", (), weight.elements, "fp32", weights=(weight,))
            saves = (*((normed,) if weight.trained else ()), *((shifted,) if value.grad else ()))
            scaled = tape.run(
                "mul", (normed, shifted), wide.elements, "fp32", saves=saves,
                backward_temp=wide.bytes if weight.trained else 0,
            )  # fmt: skip
            return tape.cast(scaled, dtype)
        normed = tape.cast(normed, dtype)
        wider = max(dtype, weight.dtype, key=lambda name: DTYPE_BYTES[name])
        return tape.run(
            "mul", (normed,), normed.elements, wider, saves=(normed,) if weight.trained else (),
            weights=(weight,), backward_temp=normed.bytes if weight.trained else 0,
        )  # fmt: skip

    def activation(self, value: Value, name: str) -> Value:
        """An activation function by its name in transformers' `ACT2FN`."""
        tape, size, dtype = self.tape, value.elements, value.dtype
        if name in ("gelu_new", "gelu_fast", "gelu_python", "gelu_10", "gelu_accurate"):
            # 0.5 x (1 + tanh(...)), written out: half of x, the polynomial, tanh, and tanh plus one.
            half = tape.scale(value)
            # Autocast runs powers in float32, and what follows with them.
            wide = tape.cast(value, "fp32") if self.step.autocast else value
            cubed = tape.run("pow", (wide,), size, wide.dtype, saves=(wide,), backward_temp=2 * wide.bytes)
            inner = tape.scale(tape.add(value, tape.scale(cubed)))
            bent = tape.run("tanh", (inner,), size, wide.dtype, saves_output=True)
            return tape.multiply(half, tape.run("add 1", (bent,), size, wide.dtype, passes=True))
        if name == "quick_gelu":
            bent = tape.run("sigmoid", (tape.scale(value),), size, dtype, saves_output=True)
            return tape.multiply(value, bent)
        if name == "relu":
            return tape.run("relu", (value,), size, dtype, saves_output=True)
        if name in ("relu2", "relu_squared"):
            bent = tape.run("relu", (value,), size, dtype, saves_output=True)
            return tape.run("pow", (bent,), size, dtype, saves=(bent,), backward_temp=2 * bent.bytes)
        return tape.run(name, (value,), size, dtype, saves=(value,))
