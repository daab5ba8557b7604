"""The audio encoder of Gemma 3n and Gemma 4: a convolutional stem and conformer layers.

Source: transformers `models/gemma3n/modeling_gemma3n.py`, `models/gemma4/modeling_gemma4.py`. The two name
the same layer differently.
"""

from __future__ import annotations

from dataclasses import dataclass

from willfit.architectures.blocks.tensors import column, linear, parameter, rms_norm, row
from willfit.architectures.blocks.towers import TowerShape, convolution, stacked
from willfit.architectures.model import Tensor
from willfit.quantities import ceil_div


@dataclass(frozen=True, slots=True)
class ConformerNames:
    """Names inside a conformer layer.

    Attributes
    ----------
    stem
        The two convolutional blocks of the stem.
    layer
        A layer, below the encoder, with `{layer}`.
    halves
        The half-step MLPs before and after.
    linear
        What follows the name of a linear layer that clips its inputs.
    attention, output, positions
        The projections' module, the output projection, and the projection of relative positions.
    norms
        Before attention, after attention, and at the end of the layer.
    """

    stem: tuple[str, str]
    layer: str
    halves: tuple[str, str]
    linear: str
    attention: str
    output: str
    positions: str
    norms: tuple[str, str, str]


def conformer(
    prefix: str, shape: TowerShape, names: ConformerNames, *, stem: tuple[int, int], bins: int, kernel: int
) -> tuple[Tensor, ...]:
    """The stem and the layers.

    Parameters
    ----------
    prefix
        Name of the encoder in the checkpoint.
    shape
        Its widths; `width` is that of each half-step MLP.
    stem
        Channels of the stem's two convolutions, each of kernel 3 and stride 2 over time and frequency.
    bins
        Frequencies of the spectrogram.
    kernel
        Of the depthwise convolution in each layer.
    """
    projection = f"{prefix}.subsample_conv_projection"
    remaining = ceil_div(bins, 4)  # each of the two convolutions halves the frequencies
    tensors = (
        *convolution(f"{projection}.{names.stem[0]}.conv", (stem[0], 1, 3, 3), "audio", bias=False),
        *rms_norm(f"{projection}.{names.stem[0]}.norm", stem[0], "audio"),
        *convolution(f"{projection}.{names.stem[1]}.conv", (stem[1], stem[0], 3, 3), "audio", bias=False),
        *rms_norm(f"{projection}.{names.stem[1]}.norm", stem[1], "audio"),
        *linear(f"{projection}.input_proj_linear", stem[1] * remaining, shape.hidden, "audio"),
    )
    return tensors + stacked(_layer(f"{prefix}.{names.layer}", shape, names, kernel), shape.layers)


def _layer(prefix: str, shape: TowerShape, names: ConformerNames, kernel: int) -> tuple[Tensor, ...]:
    hidden, heads = shape.hidden, shape.heads
    inner, suffix = heads * shape.head_dim, names.linear
    attention = f"{prefix}.{names.attention}"
    before, after, last = (f"{prefix}.{name}" for name in names.norms)
    mixing = f"{prefix}.lconv1d"
    return (
        *_half(f"{prefix}.{names.halves[0]}", shape, suffix),
        *rms_norm(before, hidden, "audio"),
        *parameter(f"{attention}.per_dim_scale", (shape.head_dim,), "audio"),
        *(
            tensor
            for name in ("q_proj", "k_proj", "v_proj")
            for tensor in linear(f"{attention}.{name}{suffix}", hidden, inner, "audio", split=column(heads))
        ),
        *linear(f"{prefix}.{names.positions}", hidden, inner, "audio", split=column(heads)),
        *linear(f"{prefix}.{names.output}{suffix}", inner, hidden, "audio", split=row(heads)),
        *rms_norm(after, hidden, "audio"),
        *rms_norm(f"{mixing}.pre_layer_norm", hidden, "audio"),
        *linear(f"{mixing}.linear_start{suffix}", hidden, 2 * hidden, "audio"),
        *convolution(f"{mixing}.depthwise_conv1d", (hidden, 1, kernel), "audio", bias=False),
        *rms_norm(f"{mixing}.conv_norm", hidden, "audio"),
        *linear(f"{mixing}.linear_end{suffix}", hidden, hidden, "audio"),
        *_half(f"{prefix}.{names.halves[1]}", shape, suffix),
        *rms_norm(last, hidden, "audio"),
    )


def _half(prefix: str, shape: TowerShape, suffix: str) -> tuple[Tensor, ...]:
    hidden, width = shape.hidden, shape.width
    return (
        *rms_norm(f"{prefix}.pre_layer_norm", hidden, "audio"),
        *linear(f"{prefix}.ffw_layer_1{suffix}", hidden, width, "audio", split=column(width)),
        *linear(f"{prefix}.ffw_layer_2{suffix}", width, hidden, "audio", split=row(width)),
        *rms_norm(f"{prefix}.post_layer_norm", hidden, "audio"),
    )
