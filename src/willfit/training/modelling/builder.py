"""Writing a layer's operations on a tape: products with their weights, norms and activations."""

from __future__ import annotations

from collections.abc import Callable
from copy import copy
from dataclasses import dataclass

from willfit.architectures.model import Tensor
from willfit.training.adapters.forward import AdapterForward
from willfit.training.modelling.activations import activated
from willfit.training.modelling.adapted import adapted
from willfit.training.modelling.low_bits import is_quantized, multiplied
from willfit.training.modelling.manners import Manner
from willfit.training.modelling.norms import normed
from willfit.training.modelling.quantized import eight_bits, four_bits, packed
from willfit.training.modelling.step import Step
from willfit.training.packing import Packing
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
        What LitGPT adds to the product; see `litgpt/linear.py`.
    forward
        What PEFT's forward of the module does around it; see `adapted.py`.
    bits
        Bits of a matrix that bitsandbytes multiplies; see `quantized.py`. 0 for any other.
    packing
        How a matrix in GPTQ, AWQ or HQQ is multiplied.
    """

    weight: Weight
    expanded: int = 0
    adapter: LowRank | None = None
    forward: AdapterForward | None = None
    bits: int = 0
    packing: Packing | None = None


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
    manner
        How the family's code writes what it does.
    gathered
        Numbers of values that are gathered again in the backward pass.
    """

    def __init__(self, step: Step, storing: Storing, manner: Manner | None = None) -> None:
        self.tape = Tape()
        self.step = step
        self.manner = manner or Manner()
        self._storing = storing
        self._quantized: dict[int, Value] = {}
        self.gathered: set[int] = set()

    def stepping(self, step: Step) -> Builder:
        """A builder of the same tape for a part that runs otherwise."""
        part = copy(self)
        part.step = step
        return part

    @property
    def caches(self) -> bool:
        """Whether autocast keeps its copies of trained parameters."""
        return self.step.autocast and self.step.whole_leaves and not self.step.compiled

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
        trained = self._trained_bias(bias)

        def base(given: Value, weight: Value | None = None) -> Value:
            if weight is not None:
                return self.between(given, weight, outputs, trained)
            apart = stored.expanded or stored.bits or stored.packing
            if self.step.low_bits is not None and is_quantized(tensor) and not apart:
                return self.in_low_bits(given, stored.weight, outputs)
            return self.product(given, stored, outputs, trained)

        if stored.forward is None:
            return base(value)

        return adapted(self.tape, value, base, stored.forward, rows, self.step.batch, self.caches)

    def in_low_bits(self, value: Value, weight: Weight, elements: int) -> Value:
        """The product alone, in few bits."""
        low, step = self.step.low_bits, self.step
        assert low is not None
        given = self.tape.cast(value, step.compute) if step.autocast else value
        ranks = step.tensor_ranks if given.number in self.gathered else 1
        return multiplied(self.tape, low, given, weight, elements, given.dtype, self._quantized, ranks)

    def between(self, value: Value, weight: Value, elements: int, bias: Weight | None = None) -> Value:
        """A product with a weight that was made on the way, and through which gradients may pass."""
        if self.step.autocast:
            value, weight = (self.tape.cast(one, self.step.compute) for one in (value, weight))
        saves = (*((value,) if weight.grad else ()), *((weight,) if value.grad else ()))
        return self.tape.run(
            "mm", (value, weight), elements, value.dtype, saves=saves, weights=(bias,) if bias else ()
        )

    def product(self, value: Value, stored: Stored, elements: int, bias: Weight | None = None) -> Value:
        """The product alone, with `elements` outputs."""
        weight, tape, step = stored.weight, self.tape, self.step
        biases = (bias,) if bias else ()
        if stored.bits == 8:
            return eight_bits(tape, value, weight, elements, biases)
        if stored.bits:
            return four_bits(tape, step, value, weight, stored.expanded, elements, biases)
        if stored.packing is not None:
            return packed(tape, step, value, weight, stored.packing, elements, biases)
        keeps, expanded = weight.trained, stored.expanded
        if not step.autocast:
            return tape.run(
                "mm", (value,), elements, value.dtype, saves=(value,) if keeps else (), weights=(weight, *biases),
                forward_temp=expanded, backward_temp=expanded,
            )  # fmt: skip
        value = tape.cast(value, step.compute)
        if weight.dtype == step.compute or stored.expanded:
            return tape.run(
                "mm", (value,), elements, value.dtype, saves=(value,) if keeps else (), weights=(weight, *biases),
                forward_temp=expanded, backward_temp=expanded,
            )  # fmt: skip
        cast = tape.run(
            "cast weight", (), weight.elements, step.compute, weights=(weight,),
            cached=weight.trained and self.caches,
        )  # fmt: skip
        saves = (*((value,) if weight.trained else ()), *((cast,) if value.grad else ()))
        return tape.run("mm", (value, cast), elements, self.step.compute, saves=saves, weights=biases)

    def _trained_bias(self, bias: Tensor | None) -> Weight | None:
        if bias is None:
            return None
        weight = self.stored(bias).weight
        return weight if weight.trained else None

    def norm(
        self,
        value: Value,
        tensor: Tensor,
        kind: str,
        bias: Tensor | None = None,
        rows: int = 0,
        fixed: bool = False,
    ) -> Value:
        """A normalisation of rows; `kind` as in `Traits.norm`.

        See `norms.py`. `rows` of 0 are the tokens of the residual stream; a `fixed` kind is not the family's to change.
        """
        weight = self.stored(tensor).weight
        rows = rows or self.step.stream_tokens
        if not fixed:
            kind = (self.step.norm if kind == "rms" else "") or self.manner.norm or kind
        return normed(self, value, weight, self._trained_bias(bias), rows, kind)

    def activation(self, value: Value, name: str) -> Value:
        """An activation function by its name in transformers' `ACT2FN`."""
        return activated(self, value, name)
