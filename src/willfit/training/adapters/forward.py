"""What happens in the forward of an adapted module, as steps that a tape can walk.

A step makes one tensor from named ones, and says what autograd keeps for its backward. Sizes are numbers of a given
module: elements a token, elements a sequence, and elements whatever the batch (weight-sized tensors, `fixed`).
`x` is the module's input, `y` what the module returns without the adapter: the step of kind `base`, which the tape
replaces by the products (and dequantization) of the module itself; a second input is the weight that it uses instead of
its own.

Kinds
-----
`base`         the wrapped module: `y` from its input
`cast`         a copy in another dtype
`linear`       activations times a weight (of the adapter, or a materialised one)
`product`      a matrix product of weights: delta weights, rotations
`dropout`      a copy of the input and a mask of one byte an element
`add`          a sum or difference; its gradient is handed on without a copy
`scale`        times a number, negation
`elementwise`  any other function of elements; its inputs are kept where their partner is trained
`reduce`       sums, means, norms
`copy`         the same elements elsewhere: padding, repetition, gathering, contiguous layout; its gradient is handed on
`view`         no new tensor
`solve`        inverses, decompositions, Fourier and wavelet transforms
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

StepKind = Literal[
    "base", "cast", "linear", "product", "dropout", "add", "scale", "elementwise", "reduce", "copy", "view", "solve"
]  # fmt: skip

#: Bytes of an element.
ITEM = {
    "float32": 4, "bfloat16": 2, "float16": 2, "float64": 8, "bool": 1, "uint8": 1, "int32": 4, "int64": 8,
    "complex64": 8,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Value:
    """A tensor in a forward.

    Attributes
    ----------
    name
        Unique in the forward.
    per_token, per_sample, fixed
        Elements for each token, for each sequence, and in any case.
    dtype
        As torch names it.
    """

    name: str
    per_token: int = 0
    fixed: int = 0
    dtype: str = "float32"
    per_sample: int = 0

    def bytes(self, tokens: int, samples: int = 1) -> int:
        """Bytes with `tokens` tokens in `samples` sequences."""
        count = self.per_token * tokens + self.per_sample * samples + self.fixed
        return count * ITEM[self.dtype]


@dataclass(frozen=True, slots=True)
class Step:
    """One operation.

    Attributes
    ----------
    kind
        See the module.
    inputs
        Names of what it reads, the adapter's own parameters included.
    output
        What it makes. Of a `view` the name of what it shows has the same storage.
    saves
        Names of what autograd keeps for its backward: inputs, the output, or an `extra`.
    extras
        Tensors made beside the output and kept with `saves` (a dropout mask), else dropped.
    gradients
        Inputs that get a gradient. Others are constants.
    backward
        Tensors that its backward makes besides the gradients.
    in_place
        The output is the first input's storage, written anew.
    """

    kind: StepKind
    inputs: tuple[str, ...]
    output: Value
    saves: tuple[str, ...] = ()
    extras: tuple[Value, ...] = ()
    gradients: tuple[str, ...] = ()
    backward: tuple[Value, ...] = ()
    in_place: bool = False

    @property
    def makes(self) -> bool:
        """The output is a tensor of its own."""
        return self.kind != "view" and not self.in_place

    @property
    def hands_gradient_on(self) -> bool:
        """Its inputs' gradients are the output's own tensor where size and dtype agree."""
        return self.kind in ("add", "view", "copy")


@dataclass(frozen=True, slots=True)
class AdapterForward:
    """The forward of an adapted module.

    Attributes
    ----------
    steps
        In order; backward goes through them from the end.
    result
        Name of what the module returns.
    input
        `x`.
    parameters
        Adapter parameters and kept tensors that steps read, as they lie in memory.
    trained
        Those of them that are trained.
    held_to_end
        Names that Python variables keep alive until the module returns.
    wide
        The same with a float32 input, where the module returns what it is given.
    """

    steps: tuple[Step, ...]
    result: str
    input: Value
    parameters: tuple[Value, ...] = ()
    trained: frozenset[str] = frozenset()
    held_to_end: frozenset[str] = frozenset()
    wide: AdapterForward | None = None

    @property
    def runs_base(self) -> bool:
        """The wrapped module's own product is part of it."""
        return any(step.kind == "base" for step in self.steps)

    @property
    def makes_weight(self) -> bool:
        """The wrapped module runs with a weight that is made for it, and nothing follows."""
        return self.steps[-1].kind == "base" and len(self.steps[-1].inputs) > 1

    @property
    def saved(self) -> tuple[Value, ...]:
        """Tensors of its own that stay until its backward, each once; neither `x`, parameters nor the result."""
        made: dict[str, Value] = {}
        alias: dict[str, str] = {}
        for step in self.steps:
            for extra in step.extras:
                made[extra.name] = extra
            if step.makes:
                made[step.output.name] = step.output
            else:
                alias[step.output.name] = alias.get(step.inputs[0], step.inputs[0])
        kept = {alias.get(name, name) for step in self.steps for name in step.saves}
        return tuple(value for name, value in made.items() if name in kept)
