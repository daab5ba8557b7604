"""Copies of gradients that DeepSpeed's step is taken on."""

from __future__ import annotations


def flattened(elements: int, width: int, largest: int) -> int:
    """Bytes of gradients, their flat copy, and that in float32; or of gradients, and one in float64 for its norm.

    `runtime/zero/stage_1_and_2.py: step`, `stage3.py: _prepare_fp32_grad_for_sub_group`, `get_grad_norm_direct`.

    Parameters
    ----------
    elements, width
        Of the gradients, and bytes of each.
    largest
        Elements of the largest one.
    """
    copied = 2 * width + (4 if width < 4 else 0)
    return max(elements * copied, elements * width + 8 * largest)
