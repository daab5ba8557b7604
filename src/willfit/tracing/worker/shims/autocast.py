"""`torch.autocast("cuda")`, which warns and does nothing where there is no card."""

from __future__ import annotations

import torch
import torch.cuda.amp.common


def allow() -> None:
    """Let it be on.

    `torch.cuda.is_available` stays as it is: fake tensors ask it whether they may touch a real device.
    """
    torch.cuda.amp.common.amp_definitely_not_available = lambda: False
    torch.cuda.is_bf16_supported = lambda including_emulation=True: True
