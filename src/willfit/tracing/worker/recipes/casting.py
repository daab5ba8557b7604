"""Autocast around a model's forward pass, as accelerate puts it there (`accelerator.py: prepare_model`)."""

from __future__ import annotations

from typing import Any

import torch


def under_autocast(model: Any, dtype: torch.dtype, device: torch.device) -> None:
    """Run a model's forward pass under autocast; what it returns in 16 bits becomes float32."""
    inner = model.forward

    def forward(*args: Any, **kwargs: Any) -> Any:
        with torch.autocast(device.type, dtype):
            output = inner(*args, **kwargs)
        return raised(output)

    model.forward = forward


def raised(value: Any) -> Any:
    """A structure with its tensors of 16 bits as float32 (accelerate: `ConvertOutputsToFp32`)."""
    if isinstance(value, torch.Tensor):
        return value.float() if value.dtype in (torch.float16, torch.bfloat16) else value
    if isinstance(value, dict):
        return {key: raised(item) for key, item in value.items()}
    if isinstance(value, (tuple, list)):
        return type(value)(raised(item) for item in value)
    return value
