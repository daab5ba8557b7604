"""What attention kernels choose and need."""

from __future__ import annotations

from willfit.architectures.mixers import Attention
from willfit.quantities import round_up
from willfit.training.modelling.step import Step

#: Widest head of flash kernels, and the compute capability from which they run (torch `sdp_utils.cpp`).
_FLASH_HEAD, _FLASH_FROM = 256, 8.0

#: Capabilities whose shared memory is too small for the backward kernel of wide heads, and the widest that they serve:
#: of FlashAttention 1 (torch 2.1 and before), of 2 (`check_requires_grad_and_head_dim_gt192_constraints_on_sm86_89`).
_SMALL, _SMALL_HEAD_BEFORE, _SMALL_HEAD = (8.6, 8.9), 64, 192

#: What is taken of a device that is not NVIDIA's, or of which the size alone is known.
_USUAL_CAPABILITY = 8.0


def capability_of(step: Step) -> float:
    """The compute capability, and for devices that have none that of kernels which all newer ones have."""
    text = step.compute_capability
    return float(text) if text.replace(".", "", 1).isdigit() else _USUAL_CAPABILITY


def chosen_sdpa(step: Step, mixer: Attention, dtype: str) -> str:
    """Which backend `scaled_dot_product_attention` takes: `flash`, `efficient` or `math`.

    Flash takes 16-bit inputs without a mask and heads of up to 256, as wide for values as for keys, on compute
    capability 8.0 and later; the memory-efficient kernel takes masks and float32, but no grouped heads unless these
    were repeated, as they are for masks and wide heads (transformers 5.23 `use_gqa_in_sdpa`). The order is flash,
    efficient, math (torch `aten/src/ATen/native/transformers/cuda/sdp_utils.cpp`).
    """
    capability = capability_of(step)
    narrow = dtype in ("fp16", "bf16")
    widest = _FLASH_HEAD
    if step.training and _SMALL[0] <= capability <= _SMALL[1]:
        widest = _SMALL_HEAD_BEFORE if step.torch and step.torch < (2, 2) else _SMALL_HEAD
    alike = mixer.head_dim == mixer.value_dim
    if narrow and not step.masked and alike and mixer.head_dim <= widest and capability >= _FLASH_FROM:
        return "flash"
    if step.masked or step.repeats_keys or mixer.heads == mixer.kv_heads or mixer.head_dim > _FLASH_HEAD:
        return "efficient"
    return "math"


def flash_workspace(step: Step, heads: int, kv_heads: int, mixer: Attention, kind: str) -> int:
    """Bytes that a backward kernel takes for itself beside the gradients.

    Flash: a row sum and a float32 accumulator of the queries' gradient, rows rounded to 128 and widths to 32; with
    grouped heads also gradients of keys and values for each query head (`flash_api.cpp: mha_bwd`).
    """
    if kind == "efficient":
        return 4 * step.batch * heads * step.length
    rows = step.batch * round_up(step.length, 128) * heads
    size = 4 * rows * (1 + round_up(mixer.head_dim, 32))
    if heads != kv_heads:
        size += step.batch * step.keys * heads * (mixer.head_dim + mixer.value_dim) * step.width
    return size
