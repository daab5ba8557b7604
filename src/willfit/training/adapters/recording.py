"""Writing a forward down, operation by operation, with autograd's rules for what is kept.

Each method is one operation of PyTorch. What it keeps follows from which inputs need a gradient, as
`tools/autograd/derivatives.yaml` of PyTorch says: a product keeps each factor whose partner needs one.
"""

from __future__ import annotations

from dataclasses import replace

from willfit.training.adapters.forward import Value
from willfit.training.adapters.trace import Trace, wider


class Recorder(Trace):
    """Records the operations of a forward."""

    __slots__ = ()

    def base(self, value: Value, weight: Value | None = None) -> Value:
        """The wrapped module, with a `weight` made for it instead of its own."""
        made = Value(
            "y", per_token=self.outputs, dtype=self.model if self.alike else self.autocast or self.model
        )
        if weight is None:
            return self._put("base", (value,), made)
        return self._put("base", (value, weight), made, self._factors(value, weight))

    def linear(self, value: Value, weight: Value, features: int) -> Value:
        """`F.linear(value, weight)`; under autocast both are cast first, a parameter's copy once."""
        value, weight = self._autocast(value), self._autocast(weight)
        made = self._new(features if value.per_token else 0, value.dtype)
        if not value.per_token:
            made = replace(made, fixed=features)
        return self._put("linear", (value, weight), made, self._factors(value, weight))

    def product(self, left: Value, right: Value, fixed: int) -> Value:
        """`left @ right` of weights."""
        left, right = self._autocast(left), self._autocast(right)
        made = Value(self._name(), fixed=fixed, dtype=wider(left, right))
        return self._put("product", (left, right), made, self._factors(left, right))

    def folded(self, left: Value, right: Value, fixed: int) -> Value:
        """`baddbmm(W, left, right)` with autocast off: a new weight, from factors in the dtype of the old one."""
        made = Value(self._name(), fixed=fixed, dtype=self.model)
        return self._put("product", (left, right), made, self._factors(left, right))

    def dropout(self, value: Value, probability: float) -> Value:
        """`nn.Dropout` in training on a GPU: `native_dropout` keeps its mask."""
        if probability <= 0:
            return value
        mask = replace(self._like(value, "bool"), name=self._name() + "_mask")
        made = self._like(value, value.dtype)
        return self._put("dropout", (value,), made, (mask.name,), extras=(mask,))

    def add(self, left: Value, right: Value) -> Value:
        """`left + right` or `left - right`."""
        return self._put("add", (left, right), self._broadcast(left, right))

    def add_into(self, left: Value, right: Value) -> Value:
        """`left += right`: no new tensor, and the left one's dtype stays."""
        made = self._put("add", (left, right), self._like(left, left.dtype))
        self._steps[-1] = replace(self._steps[-1], in_place=True)
        return made

    def constant(self, fixed: int = 0, per_token: int = 0, dtype: str | None = None) -> Value:
        """A new tensor out of nothing: an identity, zeros."""
        made = Value(self._name(), per_token=per_token, fixed=fixed, dtype=dtype or self.adapter)
        return self._put("copy", (), made)

    def scale(self, value: Value) -> Value:
        """`value * number`, `-value`."""
        return self._put("scale", (value,), self._like(value, value.dtype))

    def shift(self, value: Value) -> Value:
        """`value + number`."""
        return self._put("add", (value,), self._like(value, value.dtype))

    def multiply(self, left: Value, right: Value) -> Value:
        """`left * right`: each is kept if the other needs a gradient."""
        made = self._broadcast(left, right)
        return self._put(
            "elementwise",
            (left, right),
            made,
            self._factors(left, right),
            backward=self._wide((left, right), made),
        )

    def divide(self, left: Value, right: Value) -> Value:
        """`left / right`: the numerator is kept only for the divisor's gradient, which takes two tensors more."""
        made = self._broadcast(left, right)
        kept: tuple[str, ...] = (right.name,)
        wide = self._wide((left, right), made)
        if right.name in self._needs:
            kept = (left.name, right.name)
            wide += (replace(made, name="quotient"), replace(made, name="negated"))
        return self._put("elementwise", (left, right), made, kept, backward=wide)

    def function(self, value: Value, keeps: str = "input", dtype: str | None = None) -> Value:
        """A function of elements that keeps its `input`, its `output`, or nothing (`none`)."""
        made = self._like(value, dtype or value.dtype)
        kept = {"input": (value.name,), "output": (made.name,), "none": ()}[keeps]
        return self._put("elementwise", (value,), made, kept)

    def reduce(
        self, value: Value, *, per_token: int = 0, fixed: int = 0, keeps: tuple[str, ...] = ()
    ) -> Value:
        """A sum, mean or norm over some of the elements; `keeps` of `input`, `output`."""
        made = Value(self._name(), per_token=per_token, fixed=fixed, dtype=value.dtype)
        names = {"input": value.name, "output": made.name}
        return self._put("reduce", (value,), made, tuple(names[keep] for keep in keeps))

    def copy(
        self,
        value: Value,
        *,
        per_token: int = 0,
        fixed: int = 0,
        dtype: str | None = None,
        into: Value | None = None,
        backward: tuple[Value, ...] = (),
    ) -> Value:
        """Padding, repetition, `cat`, gathering, scattering `into` another tensor's copy."""
        made = Value(self._name(), per_token=per_token, fixed=fixed, dtype=dtype or value.dtype)
        return self._put("copy", (value,) if into is None else (value, into), made, backward=backward)

    def linear_solve(self, left: Value, right: Value, area: int, side: int) -> Value:
        """`torch.linalg.solve`: the matrix, its decomposition with pivots, and the solution stay."""
        lu = Value(self._name() + "_lu", fixed=area, dtype=left.dtype)
        pivots = Value(self._name() + "_pivots", fixed=area // side, dtype="int32")
        return self.solve(
            (left, right), area, keeps=(left, lu, pivots), keeps_output=True, extras=(lu, pivots),
            backward=(Value("solved", fixed=area, dtype=left.dtype),),
        )  # fmt: skip

    def view(self, value: Value) -> Value:
        """A view."""
        return self._put("view", (value,), self._like(value, value.dtype))

    def real_part(self, value: Value) -> Value:
        """A view of the real parts of complex numbers."""
        return self._put("view", (value,), self._like(value, "float32"))

    def view_of(self, value: Value, per_token: int) -> Value:
        """A view of some of the features; its gradient is padded to all."""
        return self._put("view", (value,), self._new(per_token, value.dtype))

    def solve(
        self,
        values: tuple[Value, ...],
        fixed: int,
        *,
        keeps: tuple[Value, ...] = (),
        keeps_output: bool = False,
        extras: tuple[Value, ...] = (),
        backward: tuple[Value, ...] = (),
        dtype: str | None = None,
    ) -> Value:
        """Any other operation on weights; `keeps` and `extras` say what stays."""
        made = Value(self._name(), fixed=fixed, dtype=dtype or values[0].dtype)
        kept = (*(value.name for value in keeps), *((made.name,) if keeps_output else ()))
        return self._put("solve", values, made, kept, extras, backward)

    def transform(
        self,
        value: Value,
        weight: Value,
        per_token: int,
        *,
        extras: tuple[Value, ...],
        backward: tuple[Value, ...],
    ) -> Value:
        """A product by way of a transform: an autograd function that keeps both factors."""
        made = self._new(per_token, value.dtype)
        kept = (value.name, weight.name)
        return self._put("solve", (value, weight), made, kept, extras, backward)

    def mixed(self, value: Value, per_sample: int) -> Value:
        """A weight made for each sequence."""
        value = self._autocast(value)
        made = Value(self._name(), dtype=value.dtype, per_sample=per_sample)
        return self._put("product", (value,), made, (value.name,))

    def joined(self, values: tuple[Value, ...], fixed: int) -> Value:
        """`torch.cat` of weights."""
        made = Value(self._name(), fixed=fixed, dtype=values[0].dtype)
        return self._put("copy", values, made)

    def detach(self, value: Value) -> Value:
        """Gradients end here."""
        made = self._put("view", (value,), self._like(value, value.dtype))
        self._needs.discard(made.name)
        last = self._steps[-1]
        self._steps[-1] = replace(last, gradients=())
        return made
