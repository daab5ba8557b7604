"""Bytes of optimizer state per parameter."""

from __future__ import annotations

from willfit.errors import BadInput
from willfit.rules.result import RuleResult

#: What each optimizer keeps for one parameter, in bytes, and what these bytes are.
STATES: dict[str, tuple[tuple[str, int], ...]] = {
    "sgd": (),
    "adam": (("first moment", 4), ("second moment", 4)),
    "mixed-precision adam": (("master weight", 4), ("first moment", 4), ("second moment", 4)),
    "8-bit adam": (("master weight", 4), ("first moment", 1), ("second moment", 1)),
}


def optimizer_bytes(parameters: int, optimizer: str = "adam") -> RuleResult:
    """Bytes that an optimizer keeps between steps.

    Parameters
    ----------
    parameters
        Number of trained parameters.
    optimizer
        `sgd`, `adam`, `mixed-precision adam` or `8-bit adam`.

    Raises
    ------
    BadInput
        If the rule does not know the optimizer.
    """
    if optimizer not in STATES:
        raise BadInput(f"no rule for the optimizer {optimizer!r}", f"known: {', '.join(STATES)}")
    states = STATES[optimizer]
    each = " + ".join(f"{size} B {name}" for name, size in states) or "0 B"
    return RuleResult(
        name=f"optimizer state, {optimizer}",
        inputs={"parameters": parameters, "optimizer": optimizer},
        value=parameters * sum(size for _, size in states),
        unit="B",
        formula=f"{parameters} parameters x ({each})",
        why="It leaves out the copies that a step makes, and the scales and small tensors of 8-bit states.",
        source="arXiv:1910.02054 (ZeRO), section 3.1; blog.eleuther.ai, Transformer math 101",
        parts={name: parameters * size for name, size in states},
    )
