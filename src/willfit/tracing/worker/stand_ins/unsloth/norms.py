"""RMS norms and rotary embeddings: kernels/rms_layernorm.py, kernels/rope_embedding.py."""

from __future__ import annotations

import torch

from willfit.tracing.worker.stand_ins.buffers import buffer


class RMSNorm(torch.autograd.Function):
    """Keeps its input and a statistic for each row. The weight gets no gradient; that of the input overwrites that of
    the output, but for Gemma's norms, which add one to the weight."""

    @staticmethod
    def forward(ctx, rows, weight, apart):  # type: ignore[no-untyped-def]
        """Normalize."""
        shape = rows.shape
        rows = rows.reshape(-1, shape[-1])
        output = buffer("rms_norm", rows, rows.shape, rows.dtype)
        statistic = buffer("rms_norm_statistic", rows, rows.shape[:1], torch.float32)
        ctx.save_for_backward(rows, weight, statistic)
        ctx.apart = apart
        return output.view(shape)

    @staticmethod
    def backward(ctx, gradient):  # type: ignore[no-untyped-def]
        """The gradient of the rows."""
        _ = ctx.saved_tensors
        shape = gradient.shape
        gradient = gradient.reshape(-1, shape[-1])
        of_rows = torch.empty_like(gradient) if ctx.apart else gradient
        return of_rows.view(shape), None, None


class Rotary(torch.autograd.Function):
    """Heads of queries or keys are turned in place, and so is their gradient."""

    @staticmethod
    def forward(ctx, heads, cos, sin):  # type: ignore[no-untyped-def]
        """Turn."""
        ctx.tables = (cos.squeeze(), sin.squeeze())
        batch, length, count, width = heads.shape
        return heads.reshape(batch * length, count * width).reshape(batch, length, count, width)

    @staticmethod
    def backward(ctx, gradient):  # type: ignore[no-untyped-def]
        """Turn back."""
        batch, length, count, width = gradient.shape
        return (
            gradient.reshape(batch * length, count * width).reshape(batch, length, count, width),
            None,
            None,
        )


def rotary(queries, keys, cos, sin, position_ids=None, unsqueeze_dim=1):  # type: ignore[no-untyped-def]
    """In place of transformers' `apply_rotary_pos_emb`."""
    queries, keys = (Rotary.apply(one.transpose(1, 2), cos, sin).transpose(1, 2) for one in (queries, keys))
    return queries, keys
