"""Recording operations: values, weights, and what is saved for the backward pass.

Rules of PyTorch's autograd that the records stand for (torch 2.13, `tools/autograd/derivatives.yaml`,
`torch/csrc/autograd/engine.cpp`):

- an operation saves what its derivative needs, and only if some input of it needs a gradient;
- views share the storage of what they are views of;
- the backward pass visits operations in the reverse order of their creation; while one runs, the gradient of its
  output, what it saved, the gradients of its inputs and its temporaries are alive; then the first two go;
- a second gradient of the same value is added in place where nothing else holds the first.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from willfit.quantities import DTYPE_BYTES


@dataclass(frozen=True, slots=True)
class Value:
    """A tensor while a layer runs.

    Attributes
    ----------
    number
        Its own.
    storage
        Number of the storage that it lies in; views share one.
    elements, dtype
        Its size. The gradient has the same.
    grad
        Whether a gradient must pass through it.
    """

    number: int
    storage: int
    elements: int
    dtype: str
    grad: bool

    @property
    def bytes(self) -> int:
        """Bytes of its elements."""
        return self.elements * DTYPE_BYTES[self.dtype]


@dataclass(frozen=True, slots=True)
class Weight:
    """A parameter that an operation uses.

    Attributes
    ----------
    elements, dtype
        As it lies in memory while the layer runs.
    trained
        Whether it gets a gradient.
    gradient_dtype
        Of its gradient, if that differs.
    """

    elements: int
    dtype: str
    trained: bool
    gradient_dtype: str = ""

    @property
    def gradient_bytes(self) -> int:
        """Bytes of its gradient; 0 if it is frozen."""
        return self.elements * DTYPE_BYTES[self.gradient_dtype or self.dtype] if self.trained else 0


@dataclass(frozen=True, slots=True)
class Operation:
    """One operation.

    Attributes
    ----------
    name, module
        What it is, and which part of the layer it belongs to.
    inputs, outputs
        Values; of the inputs only those through which gradients may pass, and those that must stay alive until here.
    saved
        Values that are kept for its derivative.
    kept_bytes
        Bytes kept beside them: statistics, masks, log-sum-exp.
    forward_temp, backward_temp
        Bytes that are alive only while it runs, beside inputs, outputs and their gradients.
    weight_bytes
        Bytes of gradients of its own parameters.
    passes
        Gradients of inputs are the output's gradient itself (additions, views).
    reuses
        Gradients of inputs are written over what was saved, or were made in the forward pass, as fused kernels do.
    outlives
        What is saved hangs on the graph itself (an attribute of a Python function's context), so that it goes with the
        graph and not when the operation has been differentiated.
    cached
        Its output is held until the forward pass is over, whether or not it is kept: autocast's copy of a trained
        parameter (`aten/src/ATen/autocast_mode.cpp: cached_cast`).
    differentiates
        Whether the backward pass visits it.
    """

    name: str
    module: str
    inputs: tuple[Value, ...]
    outputs: tuple[Value, ...]
    saved: tuple[Value, ...] = ()
    kept_bytes: int = 0
    forward_temp: int = 0
    backward_temp: int = 0
    weight_bytes: int = 0
    passes: bool = False
    reuses: bool = False
    outlives: bool = False
    cached: bool = False
    differentiates: bool = field(init=False)

    def __post_init__(self) -> None:
        """A backward pass visits an operation if a gradient passes through any of its outputs."""
        object.__setattr__(self, "differentiates", any(value.grad for value in self.outputs))


class Tape:
    """Records the operations of one layer, or of any part of a model that runs as a whole.

    Attributes
    ----------
    operations
        In the order in which they run.
    sizes
        Bytes of each storage.
    module
        Part of the layer that the next operations belong to.
    """

    def __init__(self) -> None:
        self.operations: list[Operation] = []
        self.sizes: list[int] = []
        self.module = ""
        self._values = 0

    def new(self, elements: int, dtype: str, grad: bool) -> Value:
        """A value with a storage of its own."""
        self.sizes.append(elements * DTYPE_BYTES[dtype])
        return self._value(len(self.sizes) - 1, elements, dtype, grad)

    def held(self, elements: int, dtype: str, grad: bool) -> Value:
        """A value that others hold: what is given to all layers, such as an encoder's output."""
        self.sizes.append(0)
        return self._value(len(self.sizes) - 1, elements, dtype, grad)

    def _value(self, storage: int, elements: int, dtype: str, grad: bool) -> Value:
        self._values += 1
        return Value(self._values, storage, elements, dtype, grad)

    def run(
        self,
        name: str,
        inputs: Sequence[Value],
        elements: int,
        dtype: str,
        *,
        saves: Sequence[Value] = (),
        saves_output: bool = False,
        weights: Sequence[Weight] = (),
        kept_bytes: int = 0,
        forward_temp: int = 0,
        backward_temp: int = 0,
        passes: bool = False,
        reuses: bool = False,
        outlives: bool = False,
        cached: bool = False,
    ) -> Value:
        """An operation with one new output.

        Parameters
        ----------
        name
            What to call it.
        inputs
            Values that gradients pass to.
        elements, dtype
            Of the output.
        saves, saves_output, kept_bytes
            What its derivative needs: values, its own output, other bytes.
        weights
            Parameters that it uses; trained ones get gradients.
        forward_temp, backward_temp, passes, reuses, outlives, cached
            See `Operation`.
        """
        grad = any(value.grad for value in inputs) or any(weight.trained for weight in weights)
        output = self.new(elements, dtype, grad)
        self.operations.append(
            Operation(
                name,
                self.module,
                tuple(inputs),
                (output,),
                (*saves, *((output,) if saves_output else ())),
                kept_bytes if grad else 0,
                forward_temp,
                backward_temp,
                sum(weight.gradient_bytes for weight in weights),
                passes,
                reuses,
                outlives,
                cached,
            )
        )
        return output

    def split(self, value: Value, elements: Sequence[int]) -> tuple[Value, ...]:
        """Parts of a value as views: their gradients are put together in a tensor of the whole's size."""
        parts = tuple(self._value(value.storage, count, value.dtype, value.grad) for count in elements)
        self.operations.append(Operation("split", self.module, (value,), parts))
        return parts

    def rewritten(self, value: Value, others: Sequence[Value]) -> Value:
        """The same storage after something was added to it in place; gradients of all are the sum's."""
        inputs = (value, *others)
        found = self._value(value.storage, value.elements, value.dtype, any(one.grad for one in inputs))
        self.operations.append(Operation("add in place", self.module, inputs, (found,), passes=True))
        return found

    def part(self, value: Value, elements: int) -> Value:
        """A slice of a value as a view: its gradient is copied into zeros of the whole's size."""
        return self.split(value, (elements,))[0]

    def hold(self, *values: Value) -> None:
        """Say that values are still referenced here, as a function's local variables are until it returns."""
        self.operations.append(Operation("hold", self.module, values, ()))

    def cast(self, value: Value, dtype: str, cached: bool = False) -> Value:
        """`value.to(dtype)`: nothing if it has that dtype. For `cached` see `Operation`."""
        if value.dtype == dtype:
            return value
        return self.run("cast", (value,), value.elements, dtype, cached=cached)

    def copy(self, value: Value) -> Value:
        """A contiguous copy."""
        return self.run("copy", (value,), value.elements, value.dtype)

    def add(self, one: Value, other: Value) -> Value:
        """A sum. Gradients of both are the sum's."""
        dtype = promoted(one.dtype, other.dtype)
        same = one.dtype == other.dtype
        return self.run("add", (one, other), max(one.elements, other.elements), dtype, passes=same)

    def multiply(self, one: Value, other: Value) -> Value:
        """An elementwise product of two values, which saves each factor that the other's gradient needs."""
        saves = tuple(a for a, b in ((one, other), (other, one)) if b.grad)
        dtype = promoted(one.dtype, other.dtype)
        return self.run("mul", (one, other), max(one.elements, other.elements), dtype, saves=saves)

    def scale(self, value: Value) -> Value:
        """A product with a number."""
        return self.run("scale", (value,), value.elements, value.dtype)

    def dropout(self, value: Value, probability: float) -> Value:
        """Dropout: a mask of one byte an element is kept (`native_dropout` on CUDA)."""
        if not probability:
            return value
        return self.run("dropout", (value,), value.elements, value.dtype, kept_bytes=value.elements)


#: Floating types from the narrowest to the widest, for promotion.
_WIDTHS = ("fp8_e4m3", "fp8_e5m2", "bf16", "fp16", "fp32", "fp64")


def promoted(one: str, other: str) -> str:
    """The dtype of a result of two: the wider; bf16 and fp16 together give fp32."""
    if {one, other} == {"bf16", "fp16"}:
        return "fp32"
    return max(one, other, key=_WIDTHS.index)
