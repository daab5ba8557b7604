"""Checkpoints whose inputs lie on the host.

unsloth: models/_utils.py: Unsloth_Offloaded_Gradient_Checkpointer (2024.8); unsloth_zoo: gradient_checkpointing.py:
UnslothCheckpointFunction (2025.3 to 2026.1).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch

from willfit.tracing.worker.stand_ins.buffers import buffer

#: Elements up to which an input stays, and those of the buffer on the card at first (`MINIMUM_SIZE`, `GPU_BUFFERS`).
SMALL, FIRST = 2 * 1024 * 1024 // 2, 2 * 256 * 2048
#: From these versions on: one buffer takes inputs back, and that of the last layer stays; the first pass moves inputs
#: too, where before it only found out which layer is the last (`FIRST_PASS`).
BUFFERED, MOVES_AT_FIRST = (2025, 3), (2025, 11, 5)


class Host:
    """What a process remembers of its checkpoints."""

    def __init__(self, buffered: bool, moves_at_first: bool) -> None:
        self.buffered, self.moves_at_first = buffered, moves_at_first
        self.first_pass, self.last, self.current = True, 0, 0
        self._held: torch.Tensor | None = None

    def moves(self, rows: torch.Tensor) -> bool:
        """Whether a layer's input goes to the host; counts layers."""
        if not self.buffered:
            return True
        self.current += 1
        if self.first_pass:
            self.last += 1
            if not self.moves_at_first:
                return False
        last = self.current == self.last and not self.first_pass
        if rows.numel() <= SMALL or last:
            return False
        if self._held is None or self._held.numel() < rows.numel():
            self._held = buffer("checkpoint_buffer", rows, (max(FIRST, rows.numel()),), rows.dtype)
        return True

    def back(self, rows: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
        """An input on the card again."""
        if self._held is None:
            return rows.to(like.device)
        return self._held[: rows.numel()].view(rows.shape).copy_(rows)


class Checkpoint(torch.autograd.Function):
    """Keeps a layer's input, here or there, and runs the layer again."""

    @staticmethod
    def forward(ctx, host, function, rows, *others):  # type: ignore[no-untyped-def]
        """Run the layer."""
        kind = rows.device.type
        ctx.autocast = (kind, torch.get_autocast_dtype(kind), torch.is_autocast_enabled(kind))
        ctx.host, ctx.function, ctx.others = host, function, others
        ctx.moved = host.moves(rows)
        with torch.no_grad():
            output = function(rows, *others)
        ctx.save_for_backward(rows.to("cpu") if ctx.moved else rows)
        return output

    @staticmethod
    def backward(ctx, gradient):  # type: ignore[no-untyped-def]
        """Run it again, and backward through it."""
        (rows,) = ctx.saved_tensors
        host = ctx.host
        host.first_pass, host.current = False, 0
        if ctx.moved:
            rows = host.back(rows, gradient)
        rows = rows.detach().requires_grad_(True)
        kind, dtype, enabled = ctx.autocast
        with torch.enable_grad(), torch.autocast(kind, dtype, enabled=enabled):
            output = ctx.function(rows, *ctx.others)
        torch.autograd.backward(output, gradient)
        return (None, None, rows.grad, *(None for _ in ctx.others))


def install(model: Any, version: tuple[int, ...] | None) -> None:
    """Let a model's checkpoints, which are on, be these.

    Parameters
    ----------
    version
        Of Unsloth; the newest known if None.
    """
    host = Host(version is None or version >= BUFFERED, version is None or version >= MOVES_AT_FIRST)
    function: Callable[..., Any] = partial(_checkpoint, host)
    for module in model.modules():
        if getattr(module, "gradient_checkpointing", False):
            module._gradient_checkpointing_func = function


def _checkpoint(host: Host, function: Callable[..., Any], *given: Any) -> Any:
    return Checkpoint.apply(host, function, *given)
