"""Mixers whose state does not grow: Mamba, gated delta nets, linear attention, RWKV, short convolutions.

They differ in their tensors, which the families spell out, and in two numbers that stay: the inputs that
a short convolution remembers and the recurrent state. The constructors below name the published shapes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from willfit.architectures.mixers.base import FixedState


@dataclass(frozen=True, slots=True)
class Recurrent:
    """A mixer that keeps a state of fixed size for each sequence.

    Attributes
    ----------
    kind
        `mamba`, `mamba2`, `gated delta`, `linear attention`, `rwkv`, `short convolution`, ...
    conv_channels, conv_kernel
        Channels of the short convolution and its kernel; it remembers the last `kernel - 1` inputs.
    recurrent
        Elements of the recurrent state.
    heads
        Heads (or channels) into which tensor parallelism can divide the state.
    projected_width, output_width
        See `Mixer`.
    state_dtype
        The dtype that the config states for the recurrent state; empty if the engine decides.
    chunk
        Tokens that are computed at once while a whole sequence is scanned; 0 if the code decides.
    """

    kind: str
    conv_channels: int = 0
    conv_kernel: int = 0
    recurrent: int = 0
    heads: int = 1
    projected_width: int = 0
    output_width: int = 0
    state_dtype: str = ""
    chunk: int = 0

    def cached_elements(self, tokens: Any, source_tokens: Any = 0) -> Any:
        """See `Mixer.cached_elements`: nothing grows."""
        return 0 * tokens

    @property
    def fixed_states(self) -> tuple[FixedState, ...]:
        """See `Mixer.fixed_states`."""
        states = []
        if self.conv_channels:
            states.append(FixedState("conv", self.conv_channels * (self.conv_kernel - 1), self.heads))
        if self.recurrent:
            states.append(FixedState("recurrent", self.recurrent, self.heads, self.state_dtype))
        return tuple(states)


def mamba(inner: int, state: int, kernel: int, rank: int) -> Recurrent:
    """Mamba-1: `inner` channels, each with `state` recurrent elements (Gu and Dao 2023)."""
    return Recurrent("mamba", inner, kernel, inner * state, inner, 2 * inner + rank + 2 * state, inner)


def mamba2(
    heads: int,
    head_dim: int,
    groups: int,
    state: int,
    kernel: int,
    state_dtype: str = "",
    chunk: int = 0,
) -> Recurrent:
    """Mamba-2: a (head_dim, state) matrix per head; the convolution also runs over B and C of each group."""
    inner = heads * head_dim
    channels = inner + 2 * groups * state
    return Recurrent(
        "mamba2", channels, kernel, inner * state, heads, inner + channels + heads, inner, state_dtype, chunk
    )


def gated_delta(
    key_heads: int,
    key_dim: int,
    value_heads: int,
    value_dim: int,
    kernel: int,
    kind: str = "gated delta",
    state_dtype: str = "",
) -> Recurrent:
    """Gated delta rule: a (key_dim, value_dim) matrix per value head; convolutions over q, k and v."""
    keys, values = key_heads * key_dim, value_heads * value_dim
    channels = 2 * keys + values
    recurrent = value_heads * key_dim * value_dim
    return Recurrent(kind, channels, kernel, recurrent, value_heads, channels + values, values, state_dtype)


def linear_attention(heads: int, head_dim: int, kind: str = "linear attention") -> Recurrent:
    """Linear (lightning) attention: a (head_dim, head_dim) matrix per head, no convolution."""
    inner = heads * head_dim
    return Recurrent(
        kind, recurrent=inner * head_dim, heads=heads, projected_width=4 * inner, output_width=inner
    )


def short_convolution(channels: int, kernel: int) -> Recurrent:
    """A gated short convolution (LFM2): it remembers its last inputs and nothing else."""
    return Recurrent("short convolution", channels, kernel, 0, channels, 3 * channels, channels)
