"""Weights and a fifth more."""

from __future__ import annotations

from willfit.rules.result import RuleResult


def weights_and_a_fifth(parameters: int, bits: int = 16) -> RuleResult:
    """P x (bits / 8) x 1.2, in bytes.

    Parameters
    ----------
    parameters
        Number of parameters.
    bits
        Bits of one parameter as loaded.
    """
    return RuleResult(
        name="weights and 20 %",
        inputs={"parameters": parameters, "bits": bits},
        value=parameters * bits * 12 // 80,
        unit="B",
        formula=f"{parameters} parameters x {bits}/8 B x 1.2",
        why="A fixed 20 % stands for a cache that in truth grows with context and users, not with weights.",
        source="substratus.ai, Calculating GPU memory for serving LLMs; modal.com, How much VRAM",
    )
