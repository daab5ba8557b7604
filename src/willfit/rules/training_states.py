"""Weights, gradients, two AdamW states and the CUDA kernels, all of one width."""

from __future__ import annotations

from willfit.rules.result import RuleResult

#: What a process takes of a V100 once one tensor is there, as published with the rule (1343 MB).
KERNEL_BYTES = 1_300_000_000


def training_states(
    parameters: int, bytes_per_value: int = 4, kernel_bytes: int = KERNEL_BYTES
) -> RuleResult:
    """What full fine-tuning with AdamW keeps, without activations.

    Parameters
    ----------
    parameters
        Number of parameters.
    bytes_per_value
        Bytes of every value: 4 for fp32, 2 for fp16, 1 for int8.
    kernel_bytes
        What the loaded kernels take.
    """
    one = parameters * bytes_per_value
    return RuleResult(
        name="weights, gradients, AdamW",
        inputs={"parameters": parameters, "bytes_per_value": bytes_per_value, "kernel_bytes": kernel_bytes},
        value=4 * one + kernel_bytes,
        unit="B",
        formula=f"{parameters} x {bytes_per_value} B x (1 + 1 + 2) + {kernel_bytes} B of kernels",
        why="It gives states the width of the weights, where trainers keep 32 bits, and has no activations.",
        source="aidisruptionpub.com, Surprising truths about GPU memory for large models",
        parts={"weights": one, "gradients": one, "optimizer_state": 2 * one, "kernels": kernel_bytes},
    )
