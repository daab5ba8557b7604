"""Cross entropy whose gradient overwrites the logits, and the same fused with the head's product.

liger_kernel/ops/cross_entropy.py, ops/fused_linear_cross_entropy.py, transformers/model/loss_utils.py (0.8.5).
"""

from __future__ import annotations

import torch
from torch.nn import functional

from willfit.tracing.worker.stand_ins.buffers import buffer, on_card

#: Labels of no token.
IGNORED = -100
#: Compute capability from which products add to a gradient in place.
ADDS_IN_PLACE = 8
HALF = (torch.float16, torch.bfloat16)


def chunk_rows(rows: int, vocabulary: int, hidden: int) -> int:
    """Rows whose logits exist at once: about as many bytes as all rows' hidden states, rounded up to a power of 2."""
    chunks = -(-vocabulary // hidden)
    wanted = -(-rows // chunks)
    return min(rows, 1 << (wanted - 1).bit_length())


class CrossEntropy(torch.autograd.Function):
    """Of whole logits, which become their gradient on the way forward."""

    @staticmethod
    def forward(ctx, logits, target):  # type: ignore[no-untyped-def]
        """The loss."""
        losses = torch.zeros(logits.shape[0], dtype=logits.dtype, device=logits.device)
        counted = target != IGNORED
        counted.sum()
        (target * counted).max()
        (target * counted).min()
        if logits.stride(-1) != 1:
            logits = logits.contiguous()
        total = torch.sum(losses)
        if ctx.needs_input_grad[0]:
            ctx.save_for_backward(logits.detach())
        return total

    @staticmethod
    def backward(ctx, gradient):  # type: ignore[no-untyped-def]
        """What the logits have become."""
        (logits,) = ctx.saved_tensors
        return logits, None


def cross_entropy(logits, target, *_, **__):  # type: ignore[no-untyped-def]
    """In place of `torch.nn.functional.cross_entropy` (transformers/functional.py: liger_cross_entropy)."""
    return CrossEntropy.apply(logits, target)


class FusedLinearCrossEntropy(torch.autograd.Function):
    """The head's product, loss and gradients, chunk by chunk, all on the way forward."""

    @staticmethod
    def forward(ctx, rows, weight, target):  # type: ignore[no-untyped-def]
        """The loss; the gradients of rows and weight are kept."""
        with_gradients = ctx.needs_input_grad[0] or ctx.needs_input_grad[1]
        count, hidden = rows.shape
        vocabulary = weight.shape[0]
        size = chunk_rows(count, vocabulary, hidden)
        of_rows = torch.zeros_like(rows)
        needed = ctx.needs_input_grad[0] and ctx.needs_input_grad[1]
        of_weight = torch.zeros_like(weight) if needed else None
        losses = torch.zeros(count, dtype=torch.float32, device=rows.device)
        counted = target != IGNORED
        counted.sum()
        plain = _as_it_is(rows, weight)
        held = buffer("logits", rows, (size, vocabulary), rows.dtype) if plain else None
        for first in range(0, count, size):
            part = rows[first : first + size]
            if held is not None:
                logits = held[: part.shape[0]]
                torch.mm(part, weight.t(), out=logits)
            else:
                logits = part @ weight.t()
            if ctx.needs_input_grad[0]:
                if plain and logits.dtype == of_rows.dtype:
                    torch.mm(logits, weight, out=of_rows[first : first + size])
                else:
                    of_rows[first : first + size] = logits @ weight
            if of_weight is not None:
                _add(of_weight, logits, part)
            del logits, part
        del held
        total = torch.sum(losses)
        if of_weight is not None:
            of_weight = of_weight.to(weight.dtype)
        if with_gradients:
            ctx.save_for_backward(of_rows.detach(), None if of_weight is None else of_weight.detach())
        return total

    @staticmethod
    def backward(ctx, gradient):  # type: ignore[no-untyped-def]
        """What was made on the way forward, scaled in place."""
        of_rows, of_weight = ctx.saved_tensors
        return of_rows, of_weight, None


def _as_it_is(rows: torch.Tensor, weight: torch.Tensor) -> bool:
    """`_can_use_mm_out`: whether the head's product runs in the dtype of both operands, into a buffer made before."""
    if not on_card(rows) or rows.dtype != weight.dtype:
        return False
    if torch.is_autocast_enabled(rows.device.type):
        return rows.dtype is torch.get_autocast_dtype(rows.device.type)
    return True


def _add(of_weight: torch.Tensor, logits: torch.Tensor, rows: torch.Tensor) -> None:
    """Add a chunk's gradient of the weight: in place where the dtypes allow."""
    in_place = (
        on_card(of_weight)
        and torch.cuda.get_device_capability(of_weight.device)[0] >= ADDS_IN_PLACE
        and logits.dtype in HALF
        and of_weight.dtype in (torch.float32, logits.dtype)
    )
    if in_place:
        aligned = rows if rows.dtype is logits.dtype else rows.to(logits.dtype)
        del aligned  # `addmm` with `out`
    else:
        of_weight += torch.mm(logits.t(), rows).float()


def causal_loss(hidden: torch.Tensor, weight: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """`LigerForCausalLMLoss`: labels are padded and moved, rows laid end to end."""
    labels = functional.pad(labels, (0, 1), value=IGNORED)
    moved = labels[..., 1:].contiguous()
    return FusedLinearCrossEntropy.apply(hidden.view(-1, hidden.shape[-1]), weight, moved.view(-1))
