"""Why a term differs between two sides."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from willfit.comparing.attribution import Step, formula_in_words, steps_between
from willfit.comparing.held import held_by, held_reasons
from willfit.comparing.records import Fact, PlaceChange, Reason, TermChange, whole
from willfit.comparing.sides import Side
from willfit.comparing.weights import weight_reasons
from willfit.engines.changes import Change
from willfit.estimate import DeviceEstimate, term_in_words
from willfit.quantities import format_bytes

#: How the formula counts what is stored in the files.
_TENSORS = "B of tensors"

#: How the formula says that the user decided.
_AS_ASKED = "(as asked for)"


@dataclass(frozen=True, slots=True)
class Known:
    """What reasons are made of: the sides, in what their questions differ, and the engine's changes."""

    a: Side
    b: Side
    facts: tuple[Fact, ...]
    changes: tuple[Change, ...]

    def entering(self, what: str) -> tuple[Change, ...]:
        """The changes that enter something other than a term."""
        return tuple(change for change in self.changes if what in change.enters)


def place_change(a: DeviceEstimate, b: DeviceEstimate, known: Known) -> PlaceChange:
    """A device or host of each side, term by term, with the reasons."""
    names = dict.fromkeys(term.name for term in (*a.terms, *b.terms))
    terms = []
    for name in names:
        one, other = (tuple(term for term in place.terms if term.name == name) for place in (a, b))
        change = TermChange(name, one, other)
        if change.difference_bytes:
            change = replace(change, reasons=whole(_reasons(change, known), change.difference_bytes))
        terms.append(change)
    return PlaceChange(a, b, tuple(terms))


def _reasons(change: TermChange, known: Known) -> Sequence[Reason]:
    """What makes the difference; the parts add up to it."""
    a, b = change.formulas
    difference = change.difference_bytes
    if change.name == "kv_cache":
        found = _of_cache(change, known)
        if found:
            return found
    elif change.name == "recurrent_state" and change.a and change.b and not _pools(known):
        ours, theirs = (held_by(side, cache=False) for side in (known.a, known.b))
        sizes = change.a_bytes, change.b_bytes
        return held_reasons(ours, theirs, sizes, "beyond that the engine takes")
    if not change.a or not change.b:
        side, formula = ("B", b) if change.b else ("A", a)
        words = f"only {side}: {formula_in_words(formula) or term_in_words(change.name)}"
        return [Reason(_with_changes(words, known, change.name), difference)]
    steps = steps_between(a, b, change.a_bytes, change.b_bytes)
    if steps is None or not steps:
        words = f"A: {a or 'no formula'}; B: {b or 'no formula'}"
        return [Reason(_with_changes(words, known, change.name), difference)]
    return _explained(change.name, steps, known)


def _explained(term: str, steps: Sequence[Step], known: Known) -> list[Reason]:
    """Steps as reasons, with the settings and the engine's changes behind them."""
    causes: dict[int, list[str]] = {}
    for change in known.changes:
        at = _step_of(change, term, steps)
        if at is not None:
            causes.setdefault(at, []).append(change.words)
    reasons = []
    for index, step in enumerate(steps):
        if term == "weights" and _TENSORS in step.labels and step.values:
            reasons += weight_reasons(known.a, known.b, step.amount, causes.get(index, ()))
            continue
        words = "; ".join((f"{step}{_setting_of(step, known)}", *causes.get(index, ())))
        reasons.append(Reason(words, step.amount))
    return reasons


def _step_of(change: Change, term: str, steps: Sequence[Step]) -> int | None:
    """Which step a change of the engine is behind, if any."""
    for entered in change.enters:
        name, _, label = entered.partition(": ")
        if name != term:
            continue
        found = [
            index
            for index, step in enumerate(steps)
            if not label or (label in step.labels and _agrees(change, step))
        ]
        if found:
            return max(found, key=lambda index: abs(steps[index].amount))
    return None


def _agrees(change: Change, step: Step) -> bool:
    """Whether a number changes as the engine's default does, where that is a number."""
    numbers = [
        value for value in change.values if isinstance(value, int | float) and not isinstance(value, bool)
    ]
    return len(numbers) < len(change.values) or step.values is None or {*numbers} == {*step.values}


def _setting_of(step: Step, known: Known) -> str:
    """The setting that has the numbers of a step on both sides."""
    if step.values is None or known.a.estimate.engine != known.b.estimate.engine:
        return ""
    ours, theirs = known.a.settings, known.b.settings
    for name, value in ours.items():
        if name not in step.words and (value, theirs.get(name)) == step.values:
            return f" ({name})"
    return ""


def _with_changes(words: str, known: Known, term: str) -> str:
    """Words with the changes of the engine that enter a whole term."""
    causes = [change.words for change in known.changes if any(_is_of(one, term) for one in change.enters)]
    return "; ".join((words, *causes))


def _is_of(entered: str, term: str) -> bool:
    return entered.partition(": ")[0] == term


def _pools(known: Known) -> bool:
    return known.a.pool_bytes is not None or known.b.pool_bytes is not None


def _of_cache(change: TermChange, known: Known) -> list[Reason]:
    """A cache holds what its sequences need, what was asked for, or what a budget leaves."""
    pools = [side.pool_bytes is not None for side in (known.a, known.b)]
    sizes = (change.a_bytes, change.b_bytes)
    if not any(pools):
        ours, theirs = (held_by(side, states=False) for side in (known.a, known.b))
        return held_reasons(ours, theirs, sizes, "beyond that the engine holds")
    words = []
    for letter, side, pool, formula in zip("AB", (known.a, known.b), pools, change.formulas, strict=True):
        if not pool:
            words.append(f"{letter} holds what {side.users:,} x {side.context:,} tokens need")
        elif _AS_ASKED in formula:
            words.append(f"{letter}'s size was asked for")
        else:
            words.append(f"{letter} fills what its budget leaves")
    if words[0][2:] == words[1][2:]:
        return []
    text = "; ".join(f"{word}, {format_bytes(size)}" for word, size in zip(words, sizes, strict=True))
    return [Reason(text, change.difference_bytes)]
