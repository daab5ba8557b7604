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


def batch(scenario: dict[str, Any], device: str, model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """A batch as transformers' collators make it: tokens, labels and the mask of padding, in int64."""
    settings = scenario["settings"]
    shape = (settings["micro_batch"], settings["seq_len"])
    names = scenario.get("also", {}).get("inputs", ("input_ids", "attention_mask", "labels"))
    return {name: torch.ones(shape, dtype=torch.int64, device=device) for name in names}
