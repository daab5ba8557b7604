"""Tensors of Mamba and Mamba-2 mixers, which many hybrids name alike."""

from __future__ import annotations

from willfit.architectures.blocks.tensors import column, linear, parameter, row
from willfit.architectures.mixers import Recurrent
from willfit.architectures.mixers.recurrent import mamba2
from willfit.architectures.model import Split, Tensor
from willfit.checkpoints.config import Config
from willfit.quantities import dtype_name


def convolution(
    name: str, channels: int, kernel: int, *, bias: bool = False, split: Split | None = None
) -> tuple[Tensor, ...]:
    """Weight (channels, 1, kernel) of a depthwise convolution over the last inputs, and its bias."""
    weight = Tensor(f"{name}.weight", (channels, 1, kernel), "mixer", "conv", split)
    return (weight, Tensor(f"{name}.bias", (channels,), "mixer", "bias", split)) if bias else (weight,)


def mamba_tensors(
    prefix: str, hidden: int, inner: int, state: int, kernel: int, rank: int, *, conv_bias: bool, bias: bool
) -> tuple[Tensor, ...]:
    """A Mamba-1 mixer; its channels are divided over ranks.

    Parameters
    ----------
    prefix
        Name of the mixer, without a trailing dot.
    hidden, inner, state, kernel, rank
        Widths of the residual stream and of the mixer, recurrent elements of a channel, taps of the
        convolution, rank of the time step.
    conv_bias, bias
        Whether the convolution, and the projections in and out, have biases.
    """
    channels = column(inner)
    return (
        *parameter(f"{prefix}.A_log", (inner, state), "mixer", channels),
        *parameter(f"{prefix}.D", (inner,), "mixer", channels),
        *convolution(f"{prefix}.conv1d", inner, kernel, bias=conv_bias, split=channels),
        *linear(f"{prefix}.in_proj", hidden, 2 * inner, "mixer", bias=bias, split=channels),
        *linear(f"{prefix}.x_proj", inner, rank + 2 * state, "mixer", split=row(inner)),
        *linear(f"{prefix}.dt_proj", rank, inner, "mixer", bias=True, split=channels),
        *linear(f"{prefix}.out_proj", inner, hidden, "mixer", bias=bias, split=row(inner)),
    )


def mamba2_tensors(
    prefix: str,
    hidden: int,
    heads: int,
    head_dim: int,
    groups: int,
    state: int,
    kernel: int,
    *,
    conv_bias: bool,
    bias: bool,
    norm: bool = True,
) -> tuple[Tensor, ...]:
    """A Mamba-2 mixer, divided over ranks by heads, its B and C by groups.

    Parameters
    ----------
    prefix
        Name of the mixer, without a trailing dot.
    hidden, heads, head_dim, groups, state, kernel
        Width of the residual stream, heads and their width, groups that share B and C, recurrent elements
        of a channel, taps of the convolution.
    conv_bias, bias
        Whether the convolution, and the projections in and out, have biases.
    norm
        Whether a gated RMS norm precedes the projection out.
    """
    inner, shared = heads * head_dim, 2 * groups * state
    mixed = Split(0, heads, ((inner, heads), (shared, groups)))
    projected = Split(0, heads, ((2 * inner, heads), (shared, groups), (heads, heads)))
    by_head = column(heads)
    return (
        *parameter(f"{prefix}.dt_bias", (heads,), "mixer", by_head),
        *parameter(f"{prefix}.A_log", (heads,), "mixer", by_head),
        *parameter(f"{prefix}.D", (heads,), "mixer", by_head),
        *convolution(f"{prefix}.conv1d", inner + shared, kernel, bias=conv_bias, split=mixed),
        *linear(f"{prefix}.in_proj", hidden, 2 * inner + shared + heads, "mixer", bias=bias, split=projected),
        *((Tensor(f"{prefix}.norm.weight", (inner,), "norm", "norm", by_head),) if norm else ()),
        *linear(f"{prefix}.out_proj", inner, hidden, "mixer", bias=bias, split=row(heads)),
    )


def hybrid_mamba2(
    config: Config, prefix: str, hidden: int, *, norm: bool = True
) -> tuple[tuple[Tensor, ...], Recurrent]:
    """A Mamba-2 mixer in the spelling of most hybrids (`mamba_n_heads`, `mamba_d_head`, ...).

    Returns
    -------
    tuple
        Its tensors and what it keeps.

    Raises
    ------
    BadInput
        If a field is missing or impossible; the message names it.
    """
    heads = config.integer("mamba_n_heads")
    inner = config.integer("mamba_d_ssm", default=config.integer("mamba_expand", default=2) * hidden)
    head_dim = (
        inner // heads if config.raw("mamba_d_head") in (None, "auto") else config.integer("mamba_d_head")
    )
    groups = config.integer("mamba_n_groups", default=1)
    state = config.integer("mamba_d_state")
    chunk = config.integer("mamba_chunk_size", default=256)
    kernel = config.integer("mamba_d_conv", default=4)
    tensors = mamba2_tensors(
        prefix,
        hidden,
        heads,
        head_dim,
        groups,
        state,
        kernel,
        conv_bias=config.boolean("mamba_conv_bias", default=True),
        bias=config.boolean("mamba_proj_bias", default=False),
        norm=norm,
    )
    return tensors, mamba2(heads, head_dim, groups, state, kernel, state_dtype_of(config), chunk)


def state_dtype_of(config: Config) -> str:
    """The dtype that a config states for recurrent states; empty if it leaves that to the engine."""
    stated = config.text("mamba_ssm_cache_dtype", "mamba_ssm_dtype", default="")
    return dtype_name(stated) if stated and stated != "auto" else ""
