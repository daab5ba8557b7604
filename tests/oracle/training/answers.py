"""What a program asks about values, which fake tensors do not have, and the batches that it is given."""

from __future__ import annotations

from typing import Any

import torch


def install(padded: bool) -> None:
    """Answer as a batch would whose attention mask has zeros (`padded`) or only ones.

    transformers asks whether tensors are fake, and if so prepares for every value; on a device it looks at them.
    """
    from torch._subclasses import fake_impls
    from transformers import masking_utils

    def value(mode: object, function: object, tensor: torch.Tensor) -> bool | int | float:
        if tensor.dtype is torch.bool:
            return not padded
        return 1.0 if tensor.dtype.is_floating_point else 1

    fake_impls.op_implementations_dict[torch.ops.aten._local_scalar_dense.default] = value
    masking_utils.is_tracing = lambda tensor=None: False


def batch(settings: dict[str, Any], device: str) -> dict[str, torch.Tensor]:
    """A batch as transformers' collators make it: tokens, the mask of padding, and a label for each token or, to
    classify, each sequence, in int64."""
    shape = (settings["micro_batch"], settings["seq_len"])
    shapes = {
        "input_ids": shape,
        "attention_mask": shape,
        "labels": shape[:1] if settings.get("classes") else shape,
    }
    return {name: torch.ones(size, dtype=torch.int64, device=device) for name, size in shapes.items()}
