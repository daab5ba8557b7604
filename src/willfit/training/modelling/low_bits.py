"""Products in 8 or 4 bits: what they keep for the backward pass, and which copies of weights they make.

torchao keeps input and weight in 16 bits and quantizes both anew in each pass (`float8/float8_linear.py:
matmul_with_hp_or_float8_args`, `prototype/moe_training/mxfp8_linear.py`, 0.13 to 0.18), but for NVFP4, which keeps
both quantized (`nvfp4_training/nvfp4_linear.py`). Transformer Engine keeps the input quantized along one axis, and the
weight along both, for kernels before Blackwell read transposed copies (`pytorch/module/linear.py: _Linear.forward`,
`pytorch/utils.py: is_non_tn_fp8_gemm_supported`, 2.8).
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

from willfit.architectures.model import Tensor
from willfit.training.tape import Tape, Value, Weight

#: Bytes of an element with its share of scales: one scale of a byte for 32 elements (MXFP8), of four bytes for 128
#: (1 x 128 blocks of activations; weights have one for 128 x 128), of a byte for 16 (NVFP4).
_PLAIN, _MX, _BLOCKS, _NV = Fraction(1), Fraction(33, 32), Fraction(33, 32), Fraction(9, 16)

#: Parts of a model whose products are quantized: neither router nor head.
_PARTS = ("attention", "mixer", "mlp", "experts")

#: Recipes that are known.
RECIPES = (
    "tensorwise", "rowwise", "rowwise_with_gw_hp", "mxfp8", "mxfp8_cublas", "mxfp8_cublas_rceil", "mxfp8_emulated",
    "nvfp4", "te-delayed", "te-current", "te-blockwise", "te-mxfp8", "te-nvfp4",
)  # fmt: skip

#: Compute capabilities whose kernels take fp8 operands in any layout.
_ANY_LAYOUT = ("10.", "11.", "13.")


@dataclass(frozen=True, slots=True)
class LowBits:
    """How products are quantized.

    Attributes
    ----------
    width
        Bytes of a quantized element.
    keeps
        What is kept for the backward pass is quantized; else operands are kept as they are.
    copies
        Quantized copies of a weight that exist at once.
    cached
        Copies of weights stay between micro-batches.
    shares
        Products of one input are one product (queries, keys and values; gate and up), which keep it once.
    replaces
        There are no other weights: optimizers keep the masters.
    """

    width: Fraction
    keeps: bool
    copies: int = 1
    cached: bool = False
    shares: bool = False
    replaces: bool = False

    def resident(self, elements: int, width: int) -> int:
        """Bytes of weights' copies that stay, beyond `width` bytes of each weight."""
        if not self.cached:
            return 0
        return int(elements * self.copies * self.width) - (elements * width if self.replaces else 0)


def low_bits(name: str | None, framework: str, capability: str, replaces: bool) -> LowBits | None:
    """What a recipe by its name means; None for products in the compute dtype, and for a name that is not known.

    Parameters
    ----------
    name
        As in `PrecisionSettings.float8`.
    framework
        Megatron's modules are Transformer Engine's, hold copies of weights for all micro-batches, and have one matrix
        for queries, keys and values.
    capability
        Compute capability.
    replaces
        Weights are kept in 8 bits alone.
    """
    if name not in RECIPES:
        return None
    megatron = framework == "megatron"
    if not (megatron or name.startswith("te-")):
        return LowBits(_NV, True) if name.startswith("nvfp4") else LowBits(_PLAIN, False)
    widths = {"mxfp8": _MX, "te-blockwise": _BLOCKS, "te-mxfp8": _MX, "nvfp4": _NV, "te-nvfp4": _NV}
    one = name in ("te-delayed", "te-current") and capability.startswith(_ANY_LAYOUT)
    return LowBits(widths.get(name, _PLAIN), True, 1 if one else 2, megatron, megatron, replaces and megatron)


def is_quantized(tensor: Tensor) -> bool:
    """Whether a matrix is one of a layer's whose products are quantized."""
    return tensor.kind == "linear" and tensor.part in _PARTS and min(tensor.shape[-2:]) > 1


def multiplied(
    tape: Tape,
    low: LowBits,
    value: Value,
    weight: Weight,
    elements: int,
    dtype: str,
    shared: dict[int, Value],
    ranks: int = 1,
) -> Value:
    """A product with a weight, in few bits.

    Parameters
    ----------
    tape, low
        Where to, and how.
    value, weight
        The operands.
    elements, dtype
        Of the output.
    shared
        Quantized inputs of products so far, by the number of the input.
    ranks
        Among which the input is divided, where it is gathered again in the backward pass.
    """
    given, matrix = (int(size * low.width) for size in (value.elements, weight.elements))
    result = int(elements * low.width)
    if not low.keeps:
        # Whether the weight is trained or not, both operands are kept, of which the weight is there anyway.
        return tape.run(
            "mm", (value,), elements, dtype, saves=(value,), weights=(weight,), forward_temp=given + matrix,
            backward_temp=result + max(matrix, given),
        )  # fmt: skip
    kept = () if not weight.trained else (_quantized(tape, low, value, shared, ranks),)
    copies = 0 if low.cached else matrix * low.copies
    return tape.run(
        "mm", (value,), elements, dtype, saves=kept, weights=(weight,), kept_bytes=copies,
        forward_temp=given, backward_temp=2 * result,
    )  # fmt: skip


def _quantized(tape: Tape, low: LowBits, value: Value, shared: dict[int, Value], ranks: int) -> Value:
    if not low.shares or value.number not in shared:
        # Counted in bytes, which is what a value of 8 bits has.
        shared[value.number] = tape.run("quantize", (), int(value.elements // ranks * low.width), "fp8_e4m3")
    return shared[value.number]
