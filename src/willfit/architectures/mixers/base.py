"""The interface of a token mixer.

A mixer keeps two sorts of things for a sequence: a cache that grows with its tokens and is stored in
the KV-cache dtype, and a state of fixed size with a dtype of its own. An engine decides the dtypes; the
element counts are the architecture's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, Protocol


@dataclass(frozen=True, slots=True)
class FixedState:
    """A state of fixed size that each running sequence holds.

    Attributes
    ----------
    name
        `conv` (the last inputs of a short convolution, in the model's dtype) or `recurrent` (in fp32
        unless an engine or the config says otherwise).
    elements
        Elements for one sequence in one layer.
    units
        How many indivisible heads or channels tensor parallelism can divide it into.
    dtype
        The dtype that the config states for it; empty if the engine decides.
    """

    name: Literal["conv", "recurrent"]
    elements: int
    units: int = 1
    dtype: str = ""


class Mixer(Protocol):
    """What every kind of token mixer answers. Token counts may be integers or integer arrays."""

    @property
    def kind(self) -> str:
        """What a reader would call it: `full attention`, `sliding attention 1024`, `mla`, `mamba2`, ..."""
        ...

    def cached_elements(self, tokens: Any, source_tokens: Any = 0) -> Any:
        """Elements of cache that one sequence must hold, in the KV-cache dtype.

        Parameters
        ----------
        tokens
            Tokens of the sequence so far (prompt and generated).
        source_tokens
            Encoder positions that cross-attention looks at.
        """
        ...

    @property
    def fixed_states(self) -> tuple[FixedState, ...]:
        """States of fixed size, empty for attention."""
        ...

    @property
    def projected_width(self) -> int:
        """Elements per token that its input projections produce (queries, keys, values, gates)."""
        ...

    @property
    def output_width(self) -> int:
        """Elements per token before its output projection."""
        ...
