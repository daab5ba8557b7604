"""RMS norms and layer norms: liger_kernel/ops/rms_norm.py, ops/layer_norm.py (0.8.5)."""

from __future__ import annotations

import torch

from willfit.tracing.worker.stand_ins.buffers import buffer, on_card


def programs(tensor: torch.Tensor) -> int:
    """How many programs sum up a weight's gradient: one for each multiprocessor."""
    if not on_card(tensor):
        return 1
    return torch.cuda.get_device_properties(tensor.device).multi_processor_count


class RMSNorm(torch.autograd.Function):
    """Keeps its input and a statistic for each row; the gradient of the input overwrites that of the output."""

    @staticmethod
    def forward(ctx, rows, weight, in_place):  # type: ignore[no-untyped-def]
        """Normalize."""
        rows, weight = rows.contiguous(), weight.contiguous()
        shape = rows.shape
        rows = rows.view(-1, shape[-1])
        output = buffer("rms_norm", rows, rows.shape, rows.dtype)
        statistic = buffer("rms_norm_statistic", rows, rows.shape[:1], torch.float32)
        ctx.save_for_backward(rows, weight, statistic)
        ctx.in_place = in_place
        return output.view(shape)

    @staticmethod
    def backward(ctx, gradient):  # type: ignore[no-untyped-def]
        """Gradients of rows and weight."""
        rows, weight, _ = ctx.saved_tensors
        shape = gradient.shape
        gradient = gradient.contiguous().view(-1, shape[-1])
        partial = None
        if ctx.needs_input_grad[1]:
            partial = buffer("rms_norm_partial", rows, (programs(rows), rows.shape[-1]), torch.float32)
        of_rows = gradient if ctx.in_place else torch.zeros_like(gradient)
        of_rows = of_rows.view(shape)
        return of_rows, None if partial is None else partial.sum(dim=0).to(weight.dtype), None


class LayerNorm(torch.autograd.Function):
    """Keeps its input, and mean and deviation of each row."""

    @staticmethod
    def forward(ctx, rows, weight, bias):  # type: ignore[no-untyped-def]
        """Normalize."""
        rows, weight, bias = rows.contiguous(), weight.contiguous(), bias.contiguous()
        shape = rows.shape
        rows = rows.view(-1, shape[-1])
        output = buffer("layer_norm", rows, rows.shape, rows.dtype)
        mean = buffer("layer_norm_statistic", rows, rows.shape[:1], torch.float32)
        deviation = buffer("layer_norm_statistic", rows, rows.shape[:1], torch.float32)
        ctx.save_for_backward(rows, weight, bias, mean, deviation)
        return output.view(shape)

    @staticmethod
    def backward(ctx, gradient):  # type: ignore[no-untyped-def]
        """Gradients of rows, weight and bias."""
        rows, weight, bias, _, _ = ctx.saved_tensors
        gradient = gradient.contiguous()
        partials = [
            buffer("layer_norm_partial", rows, (programs(rows), rows.shape[-1]), torch.float32)
            if needed
            else None
            for needed in ctx.needs_input_grad[1:3]
        ]
        of_rows = buffer("layer_norm_backward", rows, rows.shape, rows.dtype).view(gradient.shape)
        sums = [
            None if partial is None else partial.sum(dim=0).to(parameter.dtype)
            for partial, parameter in zip(partials, (weight, bias), strict=True)
        ]
        return (of_rows, *sums)
