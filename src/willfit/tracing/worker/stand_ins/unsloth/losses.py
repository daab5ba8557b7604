"""Cross entropy of whole logits: kernels/cross_entropy_loss.py: Fast_CrossEntropyLoss; models/llama.py:
_CausalLM_fast_forward."""

from __future__ import annotations

import torch

from willfit.tracing.worker.stand_ins.buffers import buffer

#: Labels of no token.
IGNORED = -100
#: Entries of the vocabulary that a kernel takes at once (`MAX_FUSED_SIZE`).
WIDEST = 65536


class CrossEntropy(torch.autograd.Function):
    """Losses of rows; keeps the logits, whose gradient overwrites them."""

    @staticmethod
    def forward(ctx, logits, labels):  # type: ignore[no-untyped-def]
        """A loss for each row."""
        rows, vocabulary = logits.shape
        parts = -(-vocabulary // WIDEST)
        losses = buffer("cross_entropy", logits, (rows,), torch.float32)
        if parts == 1:
            sums = buffer("cross_entropy_logsumexp", logits, (rows,), torch.float32)
        else:
            sums = buffer("cross_entropy_logsumexp", logits, (rows, parts), torch.float32)
            sums = torch.logsumexp(sums, dim=1)
            losses += sums
            losses.masked_fill_(labels == IGNORED, 0)
        ctx.save_for_backward(logits, sums, labels)
        return losses

    @staticmethod
    def backward(ctx, gradient):  # type: ignore[no-untyped-def]
        """What the logits have become."""
        logits, _, _ = ctx.saved_tensors
        return logits, None


def cross_entropy(logits: torch.Tensor, target: torch.Tensor, *_: object, **__: object) -> torch.Tensor:
    """The mean over tokens that count, in place of `torch.nn.functional.cross_entropy`."""
    losses: torch.Tensor = CrossEntropy.apply(logits, target)
    counted = torch.count_nonzero(target != IGNORED)
    return losses.sum() / counted


def causal_loss(logits: torch.Tensor, labels: torch.Tensor, *_: object, **__: object) -> torch.Tensor:
    """Labels are moved, and logits taken as they are, in place of a model's `loss_function`."""
    moved = torch.empty_like(labels)
    moved[..., :-1] = labels[..., 1:]
    moved[..., -1] = IGNORED
    return cross_entropy(logits.view(-1, logits.shape[-1]), moved.view(-1))
