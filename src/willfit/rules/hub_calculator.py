"""The table of `accelerate estimate-memory` and of the calculator on the Hugging Face hub.

Checked against accelerate 1.15: `commands/estimate.py` (`gather_data`, `estimate_training_usage`) and
`utils/other.py` (`convert_bytes`).
"""

from __future__ import annotations

from willfit.rules.result import RuleResult

#: Divisor of the fp32 sizes, and how often the fp32 total is taken for training with Adam. For fp32 the
#: step (weights, gradients, two states) is the largest of its four figures, for fp16 it is the two fp32
#: states; for the integer types it prints N/A.
_DTYPES: tuple[tuple[str, int, int | None], ...] = (
    ("fp32", 1, 4),
    ("fp16", 2, 2),
    ("int8", 4, None),
    ("int4", 8, None),
)


def hub_calculator(total_bytes: int, largest_layer_bytes: int) -> tuple[RuleResult, ...]:
    """One result per dtype: the total, with the largest layer and training with Adam among its parts.

    Parameters
    ----------
    total_bytes
        All parameters and buffers of the base model in fp32, an untied output projection not counted.
    largest_layer_bytes
        The largest part that is not split over devices, in fp32: a decoder layer or the token embedding.
    """
    results = []
    for dtype, divisor, times in _DTYPES:
        total, layer = total_bytes // divisor, largest_layer_bytes // divisor
        training = None if times is None else times * total_bytes
        adam = "N/A" if training is None else printed(training)
        results.append(
            RuleResult(
                name=f"hub calculator, {dtype}",
                inputs={"total_bytes": total_bytes, "largest_layer_bytes": largest_layer_bytes},
                value=total,
                unit="B",
                formula=(
                    f"{total_bytes} B / {divisor} = {printed(total)};"
                    f" largest layer {printed(layer)}; training using Adam {adam}"
                ),
                why="It only divides the fp32 size: no scales, no cache, no activations, no batch.",
                source="accelerate 1.15, commands/estimate.py",
                parts={"largest_layer": layer, **({} if training is None else {"training_adam": training})},
            )
        )
    return tuple(results)


def printed(size: float) -> str:
    """A size as the calculator prints it: steps of 1024 under decimal names, two digits."""
    for unit in ("bytes", "KB", "MB", "GB", "TB"):
        if size < 1024:
            return f"{round(size, 2)} {unit}"
        size /= 1024
    return f"{round(size, 2)} PB"
