"""Why stored weights differ: other parameters, another format, another division over devices."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from willfit.comparing.records import Reason
from willfit.comparing.sides import Side
from willfit.quantities import format_count

#: Formats that hold less than this share of the parameters are not named one by one.
_LEAST_SHARE = 0.01


def weight_reasons(a: Side, b: Side, difference: float, causes: Sequence[str] = ()) -> list[Reason]:
    """The causes of a difference between what two sides hold of their tensors.

    The sizes are those of the files; what one side holds of them follows from its devices and its engine, and is the
    last cause.

    Parameters
    ----------
    difference
        Bytes that B holds more.
    causes
        What the engine loads differently.
    """
    sizes = [side.answer.subject.weight_bytes for side in (a, b)]
    counts = [side.architecture.parameters for side in (a, b)]
    share = _share(a)
    reasons = []
    parameters = sizes[0] * (counts[1] / counts[0] - 1) * share
    if counts[0] != counts[1]:
        words = f"{format_count(counts[0])} → {format_count(counts[1])} parameters"
        reasons.append(Reason(words, parameters))
    formats = _formats(a), _formats(b)
    each = [size / max(1, count) for size, count in zip(sizes, counts, strict=True)]
    if formats[0] != formats[1] and each[0] != each[1]:
        words = f"{each[0]:.2f} → {each[1]:.2f} B a parameter (A: {formats[0]}; B: {formats[1]})"
        reasons.append(Reason(words, counts[1] * (each[1] - each[0]) * share))
    rest = difference - sum(reason.difference for reason in reasons)
    if abs(rest) >= 1:
        reasons.append(Reason("; ".join((_division(a, b), *causes)), rest))
    return reasons


def _share(side: Side) -> float:
    """About what part of the tensors a device holds."""
    return 1 / max(1, len(side.estimate.devices))


def _division(a: Side, b: Side) -> str:
    counts = [len(side.estimate.devices) for side in (a, b)]
    if counts[0] != counts[1]:
        words = f"divided over {counts[0]} → {counts[1]} devices"
        return f"{words}, with what each holds whole" if max(counts) > 1 else words
    dtypes = [side.details.get("dtype") for side in (a, b)]
    if None not in dtypes and dtypes[0] != dtypes[1]:
        return f"plain tensors are loaded in {dtypes[0]} → {dtypes[1]}"
    if a.estimate.engine != b.estimate.engine:
        return "what the engines convert, pad, repeat or leave out"
    return "what is converted, padded, repeated or left out while loading"


def _formats(side: Side) -> str:
    """What is stored how: `fp8 for 7.57 B of 8.19 B parameters, bf16 for 622 M`."""
    sizes: Counter[str] = Counter()
    for line in side.answer.subject.lines:
        if line.tensor.part != "mtp":
            sizes[line.format.name] += line.tensor.elements * line.times
    total = sum(sizes.values())
    named = [(name, size) for name, size in sizes.most_common() if size >= _LEAST_SHARE * total]
    if len(named) == 1:
        return named[0][0]
    return ", ".join(f"{name} for {format_count(size)}" for name, size in named)
