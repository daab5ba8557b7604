"""MobileNet-V5's encoder of 300 million parameters, the vision tower of Gemma 3n.

Source: timm `models/mobilenetv5.py`, `mobilenetv5_300m_enc`. Its stages are fixed; no config names them. All
its norms are RMS norms over channels.
"""

from __future__ import annotations

from willfit.architectures.blocks.tensors import parameter, rms_norm
from willfit.architectures.blocks.towers import convolution
from willfit.architectures.model import Tensor

#: Width of the convolutional stem, and of what the encoder hands over.
_STEM, OUTPUT = 64, 2048

#: Inverted residuals: kernels of the two depthwise convolutions (0: none), expansion, output channels.
_STAGE_1 = ((3, 5, 6, 256), (5, 0, 4, 256), (3, 0, 4, 256), (5, 0, 4, 256), (3, 0, 4, 256))
_STAGE_2 = ((5, 5, 6, 640), *((5, 0, 4, 640),) * 7, (0, 0, 1, 640))
_STAGE_3 = ((5, 5, 6, 1280),)

#: Pairs of multi-query attention and inverted residual that end stages 2 and 3: how many pairs, query heads,
#: width of a head, kernel of the convolution that thins out keys and values (0: none).
_ATTENTION_2 = (14, 12, 64, 3)
_ATTENTION_3 = (19, 16, 96, 0)


def mobilenet_v5(prefix: str) -> tuple[Tensor, ...]:
    """All tensors of the encoder (294,126,912 parameters).

    Parameters
    ----------
    prefix
        Name of the encoder in the checkpoint.
    """
    tensors = (
        *convolution(f"{prefix}.conv_stem.conv", (_STEM, 3, 3, 3), "vision"),
        *rms_norm(f"{prefix}.conv_stem.bn", _STEM, "vision"),
    )
    channels = _STEM
    for index in range(3):
        tensors += _edge_residual(f"{prefix}.blocks.0.{index}", channels, 4 * channels, 128)
        channels = 128
    for stage, residuals, attention in (
        (1, _STAGE_1, None),
        (2, _STAGE_2, _ATTENTION_2),
        (3, _STAGE_3, _ATTENTION_3),
    ):
        index = 0
        for start, middle, expansion, outputs in residuals:
            block = f"{prefix}.blocks.{stage}.{index}"
            tensors += _inverted_residual(block, channels, start, middle, expansion, outputs)
            channels, index = outputs, index + 1
        pairs, heads, head_dim, kernel = attention or (0, 0, 0, 0)
        for _ in range(pairs):
            tensors += _attention(f"{prefix}.blocks.{stage}.{index}", channels, heads, head_dim, kernel)
            tensors += _inverted_residual(f"{prefix}.blocks.{stage}.{index + 1}", channels, 0, 0, 2, channels)
            index += 2
    fused = _STAGE_2[-1][3] + _STAGE_3[-1][3]
    return (
        *tensors,
        *_normed(f"{prefix}.msfa.ffn.pw_exp", 2 * fused, fused, 1),
        *_normed(f"{prefix}.msfa.ffn.pw_proj", OUTPUT, 2 * fused, 1),
        *rms_norm(f"{prefix}.msfa.norm", OUTPUT, "vision"),
    )


def _normed(prefix: str, outputs: int, inputs: int, kernel: int) -> tuple[Tensor, ...]:
    """A convolution (one input channel each if `inputs` is 1) and its norm."""
    return (
        *convolution(f"{prefix}.conv", (outputs, inputs, kernel, kernel), "vision", bias=False),
        *rms_norm(f"{prefix}.bn", outputs, "vision"),
    )


def _edge_residual(prefix: str, inputs: int, inner: int, outputs: int) -> tuple[Tensor, ...]:
    return (
        *convolution(f"{prefix}.conv_exp", (inner, inputs, 3, 3), "vision", bias=False),
        *rms_norm(f"{prefix}.bn1", inner, "vision"),
        *convolution(f"{prefix}.conv_pwl", (outputs, inner, 1, 1), "vision", bias=False),
        *rms_norm(f"{prefix}.bn2", outputs, "vision"),
    )


def _inverted_residual(
    prefix: str, inputs: int, start: int, middle: int, expansion: int, outputs: int
) -> tuple[Tensor, ...]:
    inner = expansion * inputs
    return (
        *(_normed(f"{prefix}.dw_start", inputs, 1, start) if start else ()),
        *_normed(f"{prefix}.pw_exp", inner, inputs, 1),
        *(_normed(f"{prefix}.dw_mid", inner, 1, middle) if middle else ()),
        *_normed(f"{prefix}.pw_proj", outputs, inner, 1),
        *parameter(f"{prefix}.layer_scale.gamma", (outputs,), "vision"),
    )


def _attention(prefix: str, channels: int, heads: int, head_dim: int, kernel: int) -> tuple[Tensor, ...]:
    """Queries of several heads, one key and one value head, thinned out by a depthwise convolution."""
    inner = heads * head_dim
    tensors = (
        *rms_norm(f"{prefix}.norm", channels, "vision"),
        *_pointwise(f"{prefix}.attn.query.proj", inner, channels),
    )
    for name in ("key", "value"):
        if kernel:
            depthwise = (channels, 1, kernel, kernel)
            tensors += convolution(f"{prefix}.attn.{name}.down_conv", depthwise, "vision", bias=False)
            tensors += rms_norm(f"{prefix}.attn.{name}.norm", channels, "vision")
        tensors += _pointwise(f"{prefix}.attn.{name}.proj", head_dim, channels)
    return (
        *tensors,
        *_pointwise(f"{prefix}.attn.output.proj", channels, inner),
        *parameter(f"{prefix}.layer_scale.gamma", (channels,), "vision"),
    )


def _pointwise(name: str, outputs: int, inputs: int) -> tuple[Tensor, ...]:
    return convolution(name, (outputs, inputs, 1, 1), "vision", bias=False)
