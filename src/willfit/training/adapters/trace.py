"""Steps of a forward as they are written down: tensors, parameters, and which of them need a gradient."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from willfit.training.adapters.forward import AdapterForward, Step, StepKind, Value

_WIDTH = {"bool": 0, "int64": 1, "float16": 2, "bfloat16": 2, "float32": 3, "float64": 4, "complex64": 5}


@dataclass(slots=True)
class Trace:
    """Steps over one module so far.

    Parameters
    ----------
    inputs, outputs
        Features of the module.
    model
        Dtype of activations and of the module's weight.
    adapter
        Dtype of the adapter's parameters.
    autocast
        Dtype that autocast casts the inputs of products to; None without autocast.
    alike
        The module returns the dtype of its input, whatever it computes in.
    """

    inputs: int
    outputs: int
    model: str
    adapter: str
    autocast: str | None = None
    alike: bool = False
    _steps: list[Step] = field(default_factory=list)
    _parameters: list[Value] = field(default_factory=list)
    _trained: set[str] = field(default_factory=set)
    _needs: set[str] = field(default_factory=lambda: {"x"})
    _held: set[str] = field(default_factory=set)
    _casts: dict[tuple[str, str], Value] = field(default_factory=dict)

    @property
    def x(self) -> Value:
        """The module's input."""
        return Value("x", per_token=self.inputs, dtype=self.model)

    def trained(self, name: str, elements: int, dtype: str | None = None) -> Value:
        """A parameter of the adapter."""
        value = Value(name, fixed=elements, dtype=dtype or self.adapter)
        self._parameters.append(value)
        self._trained.add(name)
        self._needs.add(name)
        return value

    def frozen(self, name: str, elements: int, dtype: str | None = None) -> Value:
        """A kept tensor that is not trained: a projection, or the module's own weight (`W`)."""
        value = Value(name, fixed=elements, dtype=dtype or self.adapter)
        self._parameters.append(value)
        return value

    def weight(self) -> Value:
        """The module's own weight, which is there anyway."""
        return self.frozen("W", self.inputs * self.outputs, self.model)

    def hold(self, value: Value) -> Value:
        """Keep a tensor until the module returns: a Python variable names it."""
        self._held.add(value.name)
        return value

    def _wide(self, values: tuple[Value, ...], made: Value) -> tuple[Value, ...]:
        """Gradients before they are summed to a smaller input, or cast to its dtype: the last one's place is reused."""
        unlike = [
            own for own in values
            if own.name in self._needs and (size_of(own) != size_of(made) or own.dtype != made.dtype)
        ]  # fmt: skip
        wide = [replace(made, name="wide") for _ in unlike]
        if len(unlike) == 2 and size_of(unlike[1]) == size_of(made):
            wide[1] = replace(unlike[1], name="rest")  # its cast follows when the first wide one is gone
        return tuple(wide)

    @property
    def compute(self) -> str:
        """Dtype that products of the adapter are made in."""
        return self.autocast or self.adapter

    def cast(self, value: Value, dtype: str) -> Value:
        """`tensor.to(dtype)`."""
        if value.dtype == dtype:
            return value
        return self._put("cast", (value,), self._like(value, dtype))

    def finish(self, result: Value) -> AdapterForward:
        """The forward, with what it returns."""
        return AdapterForward(
            self._reaching(result), result.name, self.x, tuple(self._parameters), frozenset(self._trained),
            frozenset(self._held),
        )  # fmt: skip

    def _reaching(self, result: Value) -> tuple[Step, ...]:
        """Steps whose results no gradient reaches keep nothing: their graph goes when the module returns."""
        reached = {result.name}
        steps: list[Step] = []
        for step in reversed(self._steps):
            if step.output.name in reached:
                reached |= set(step.gradients)
            else:
                self._held |= set(step.saves)
                step = replace(step, saves=(), gradients=(), backward=())
            steps.append(step)
        return tuple(reversed(steps))

    def _put(
        self,
        kind: StepKind,
        inputs: tuple[Value, ...],
        made: Value,
        saves: tuple[str, ...] = (),
        extras: tuple[Value, ...] = (),
        backward: tuple[Value, ...] = (),
    ) -> Value:
        gradients = tuple(value.name for value in inputs if value.name in self._needs)
        if gradients:
            self._needs.add(made.name)
        names = tuple(value.name for value in inputs)
        self._steps.append(
            Step(
                kind,
                names,
                made,
                saves if gradients else (),
                extras,
                gradients,
                backward if gradients else (),
            )
        )
        return made

    def _factors(self, left: Value, right: Value) -> tuple[str, ...]:
        return tuple(
            own.name for own, partner in ((left, right), (right, left)) if partner.name in self._needs
        )

    def _autocast(self, value: Value) -> Value:
        if self.autocast is None or value.dtype == self.autocast:
            return value
        key = (value.name, self.autocast)
        if value.name in self._trained and key in self._casts:
            return self._casts[key]
        made = self.cast(value, self.autocast)
        if value.name in self._trained:
            self._casts[key] = made
        return made

    def _broadcast(self, left: Value, right: Value) -> Value:
        wide = left if (left.per_token, left.fixed) >= (right.per_token, right.fixed) else right
        return Value(
            self._name(), wide.per_token, 0 if wide.per_token else wide.fixed, wider(left, right),
            wide.per_sample,
        )  # fmt: skip

    def _like(self, value: Value, dtype: str) -> Value:
        return replace(value, name=self._name(), dtype=dtype)

    def _new(self, per_token: int, dtype: str) -> Value:
        return Value(self._name(), per_token=per_token, dtype=dtype)

    def _name(self) -> str:
        return f"t{len(self._steps)}"


def wider(left: Value, right: Value) -> str:
    """The dtype that two are promoted to."""
    return left.dtype if _WIDTH[left.dtype] >= _WIDTH[right.dtype] else right.dtype


def size_of(value: Value) -> tuple[int, int, int]:
    """Elements for each token, for each sequence, and in any case."""
    return value.per_token, value.per_sample, value.fixed
