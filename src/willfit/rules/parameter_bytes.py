"""Bytes per parameter times parameters."""

from __future__ import annotations

from willfit.rules.result import RuleResult


def parameter_bytes(parameters: int, bits: int = 32) -> RuleResult:
    """Bytes of the weights alone.

    Parameters
    ----------
    parameters
        Number of parameters.
    bits
        Bits of one parameter: 32 for fp32, 16 for fp16 and bf16, 8, 4.
    """
    return RuleResult(
        name="bytes per parameter",
        inputs={"parameters": parameters, "bits": bits},
        value=parameters * bits // 8,
        unit="B",
        formula=f"{parameters} parameters x {bits / 8:g} B",
        why="It counts weights alone, all of one width: no cache, activations, driver or engine.",
        source="common knowledge; discuss.huggingface.co, LLaMA 7B GPU memory requirement",
    )
