"""What a program asks about values, which fake tensors do not have."""

from __future__ import annotations

import torch

#: Whether masks that a program looks at are all ones: batches without padding.
full_masks = True


def answer() -> None:
    """Answer where code reads one value: a truth by `full_masks`, else 1."""
    from torch._subclasses import fake_impls

    def value(mode: object, function: object, tensor: torch.Tensor) -> bool | int | float:
        if tensor.dtype is torch.bool:
            return full_masks
        return 1.0 if tensor.dtype.is_floating_point else 1

    fake_impls.op_implementations_dict[torch.ops.aten._local_scalar_dense.default] = value


def padded(batches_are_padded: bool) -> None:
    """Say whether attention masks have zeros.

    transformers asks whether tensors are fake, and if so prepares for every value; on a device it looks at them.
    """
    from transformers import masking_utils

    global full_masks
    full_masks = not batches_are_padded
    masking_utils.is_tracing = lambda tensor=None: False
