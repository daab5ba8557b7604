"""`torch.compile`, which is left out: what a compiled model keeps is the partitioner's choice, not followed here."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

_NOTE = (
    "torch.compile was left out: a compiled model keeps less for the backward pass and fuses temporaries away"
)


def is_not(note: Callable[[str], None]) -> None:
    """Let models and functions run as they are."""

    def same(model: Any = None, **_: Any) -> Any:
        note(_NOTE)
        return (lambda function: function) if model is None else model

    def nothing(self: torch.nn.Module, *_: Any, **__: Any) -> None:
        note(_NOTE)

    torch.compile = same
    torch.nn.Module.compile = nothing
