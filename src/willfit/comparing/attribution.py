"""Why two formulas give different sums: one number after the other takes B's value.

Both formulas are multiplied out (`willfit.formulas`), and their parts are paired by what they count. Within a pair the
factors change one by one, in the formula's order, so that what each change makes adds up to the whole. Parts that only
one side has count in full.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from math import prod

from willfit.estimate import term_in_words
from willfit.formulas import Factor, Part, read_formula, value_of
from willfit.quantities import format_bytes

#: A side of a formula that the next one rounds differs from it by no more than this share, or by a block.
_ROUNDED = 0.02


@dataclass(frozen=True, slots=True)
class Step:
    """One number that takes its other value.

    Attributes
    ----------
    words
        The change in words.
    amount
        What it makes of the difference.
    labels
        What the number counts, and the other numbers of its part.
    values
        The number on both sides; None where one side lacks the part.
    times
        What it is multiplied by, in words.
    """

    words: str
    amount: float
    labels: frozenset[str]
    values: tuple[float, float] | None = None
    times: tuple[str, ...] = ()

    def __str__(self) -> str:
        if not self.times:
            return self.words
        *first, last = self.times
        return f"{self.words}, times {', '.join(first)}{' and ' if first else ''}{last}"


def steps_between(a: str, b: str, a_bytes: int, b_bytes: int) -> list[Step] | None:
    """What makes the difference between two formulas; None if one is not written in the grammar.

    Parameters
    ----------
    a, b
        The formulas; an empty one has no parts.
    a_bytes, b_bytes
        What they are the formulas of.
    """
    sides = _parts_of(a, a_bytes), _parts_of(b, b_bytes)
    if sides[0] is None or sides[1] is None:
        return None
    steps = _steps(sides[0], sides[1])
    rest = (b_bytes - a_bytes) - sum(step.amount for step in steps)
    if abs(rest) >= 1:
        short = [
            f"{name}'s budget is {format_bytes(-value_of(side))} short"
            for name, side in zip("AB", sides, strict=True)
            if side and value_of(side) < 0
        ]
        steps.append(Step(" and ".join(short) or "rounding to whole blocks", rest, frozenset()))
    return steps


def sum_in_words(parts: Sequence[Part]) -> str:
    """Parts of a formula: `the model, 8,192 tokens x 49,152 elements x 2 B`."""
    text = ""
    for part in parts:
        sign = (" − " if part.sign < 0 else " + ") if text else "−" if part.sign < 0 else ""
        text += sign + " x ".join(_number_in_words(factor) for factor in part.factors)
    return f"the {parts[0].stage}, {text}" if parts and parts[0].stage else text


def formula_in_words(formula: str) -> str:
    """A formula with its numbers for people: sizes with a unit, others in groups of three digits."""

    def readable(match: re.Match[str]) -> str:
        value = int(match[1])
        if match[2] and value >= 2**20:
            return format_bytes(value)
        return f"{value:,}{match[2] or ''}"

    return re.sub(r"(?<![\w.])(\d{4,})( B\b)?(?![\w.])", readable, formula)


def _parts_of(formula: str, size: int) -> tuple[Part, ...] | None:
    """The parts to compare: what was rounded to a size if that is it, rather than the rounded."""
    if not formula:
        return ()
    read = read_formula(formula)
    if read is None:
        return None
    first = value_of(read.sides[0])
    if size and abs(first - size) > _ROUNDED * size:
        return read.sides[-1]
    return read.sides[0]


def _steps(a: Sequence[Part], b: Sequence[Part]) -> list[Step]:
    waiting: dict[tuple[str, ...], list[Part]] = defaultdict(list)
    for part in b:
        waiting[part.key].append(part)
    steps: list[Step] = []
    only_a: list[Part] = []
    for part in a:
        if waiting[part.key]:
            steps += _within(part, waiting[part.key].pop(0))
        else:
            only_a.append(part)
    only_b = [part for parts in waiting.values() for part in parts]
    for part in tuple(only_a):
        other = next((one for one in only_b if _covers(part, one) or _covers(one, part)), None)
        if other is not None:
            only_a.remove(part)
            only_b.remove(other)
            steps += _within(_padded(part, other), _padded(other, part))
    return [step for step in _merged((*steps, *_instead(only_a, only_b))) if step.amount]


def _merged(steps: Iterable[Step]) -> Iterable[Step]:
    """Steps in which the same number changes, together: a share that several parts are multiplied by."""
    found: dict[str, Step] = {}
    for step in steps:
        same = found.get(step.words)
        found[step.words] = (
            step
            if same is None
            else replace(
                same,
                amount=same.amount + step.amount,
                labels=same.labels | step.labels,
                times=(*same.times, *step.times),
            )
        )
    return found.values()


def _covers(one: Part, other: Part) -> bool:
    """Whether a part counts all that another counts, and is multiplied by more."""
    keys = [factor.key for factor in other.factors]
    return (one.sign, one.stage) == (other.sign, other.stage) and [
        factor.key for factor in one.factors if factor.key in keys
    ] == keys


def _padded(one: Part, other: Part) -> Part:
    """A part with ones for the factors that only another part has."""
    if len(one.factors) >= len(other.factors):
        return one
    own = {factor.key: factor for factor in one.factors}
    factors = tuple(own.get(factor.key, replace(factor, value=1)) for factor in other.factors)
    return replace(one, factors=factors)


def _within(a: Part, b: Part) -> Iterable[Step]:
    """The steps from one part to another with the same factors."""
    values = [factor.value for factor in a.factors]
    for index, (one, other) in enumerate(zip(a.factors, b.factors, strict=True)):
        if one.value == other.value:
            continue
        before = a.sign * prod(values)
        values[index] = other.value
        constant = [f for at, f in enumerate(b.factors) if at != index and f.value != 1]
        times: tuple[str, ...] = ()
        if constant and not _is_size(one):
            times = (" x ".join(_number_in_words(factor) for factor in constant),)
        amount = a.sign * prod(values) - before
        yield Step(_change_in_words(one, other), amount, _labels([a]), (one.value, other.value), times)


def _instead(a: list[Part], b: list[Part]) -> Iterable[Step]:
    """Parts that only one side has.

    Where each side has a stage of its own, or a single part of the same sign, one stands for the other.
    """
    ours, theirs = _staged(a), _staged(b)
    if ours or theirs:
        ours, theirs = ours or a, theirs or b
    else:
        ours, theirs = ([part for part in parts if part.sign > 0] for parts in (a, b))
        if len(ours) != 1 or len(theirs) != 1:
            ours = theirs = []
    if ours and theirs:
        words = f"A: {sum_in_words(ours)}; B: {sum_in_words(theirs)}"
        yield Step(words, value_of(theirs) - value_of(ours), _labels(ours) | _labels(theirs))
        a, b = [part for part in a if part not in ours], [part for part in b if part not in theirs]
    for side, parts, factor in (("A", a, -1), ("B", b, 1)):
        for part in parts:
            words = f"only {side}: {sum_in_words([part])}"
            if part.sign < 0 and part.factors[0].words.startswith("("):
                words = f"only {side} leaves room for {sum_in_words([replace(part, sign=1)])}"
            yield Step(words, factor * part.value, _labels([part]))


def _staged(parts: Sequence[Part]) -> list[Part]:
    return [part for part in parts if part.stage]


def _labels(parts: Iterable[Part]) -> frozenset[str]:
    return frozenset(
        label for part in parts for label in (part.stage, *(factor.key for factor in part.factors))
    )


def _is_size(factor: Factor) -> bool:
    """Whether a number is a size for itself: `15 B of tensors`, `15 (weights)`."""
    return factor.key.startswith("B ") or (factor.words == f"({factor.key})" and factor.value > 2**16)


def _name(factor: Factor) -> str:
    """What a factor counts, in words."""
    name = factor.key.removeprefix("B of ").removeprefix("B ")
    return term_in_words(name) if factor.words.startswith("(") and factor.value > 2**16 else name


def _change_in_words(one: Factor, other: Factor) -> str:
    if _is_size(one):
        return f"{_name(one)} {format_bytes(one.value)} → {format_bytes(other.value)}"
    if one.key == "B":
        size = _size if min(one.value, other.value) >= 2**20 else _plain
        return f"{size(one.value)} → {size(other.value)}"
    if one.words.startswith("("):
        return f"{_name(one)} {number(one.value)} → {number(other.value)}"
    return f"{number(one.value)} → {number(other.value)} {one.key}".rstrip()


def _number_in_words(factor: Factor) -> str:
    if _is_size(factor):
        return f"{format_bytes(factor.value)} {_name(factor)}".rstrip()
    if factor.key == "B":
        return _size(factor.value)
    if factor.words.startswith("("):
        return f"{number(factor.value)} {_name(factor)}"
    return f"{number(factor.value)} {factor.key}".rstrip()


def _size(value: float) -> str:
    return format_bytes(value) if value >= 2**20 else _plain(value)


def _plain(value: float) -> str:
    return f"{number(value)} B"


def number(value: float) -> str:
    """A number of a formula for people."""
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}"
