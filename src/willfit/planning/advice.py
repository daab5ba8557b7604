"""Every format that a model can be stored in: its bytes, who loads it, on what, and whether it fits.

Bytes are those of the model as it would be stored, and whether an engine loads it is what its estimate says.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from math import isfinite

from willfit.engines.base import Machine, Question, Subject
from willfit.engines.table import ENGINES, ask, ask_usual
from willfit.errors import BadInput
from willfit.estimate import Estimate
from willfit.formats.methods import METHODS, Method, Variant, method_of_recipe
from willfit.hardware.table import find_device
from willfit.planning.binding import excess_bytes

#: Kinds of devices, and one of each that has room for much.
KINDS: tuple[tuple[str, str], ...] = (
    ("Hopper", "H100 SXM"),
    ("Blackwell", "B200"),
    ("Ada", "L40S"),
    ("Ampere", "A100 80GB SXM"),
    ("Turing", "T4"),
    ("AMD CDNA3", "MI300X"),
    ("Intel Arc", "Arc B580"),
    ("Apple", "M3 Max 64GB"),
    ("processors", "cpu"),
)

#: Those of them where an engine is asked whether it loads a format at all.
_ASKED = ("H100 SXM", "B200", "M3 Max 64GB", "cpu")

#: Nobody starts it.
_NO_PROGRAM = "minimum"

#: RAM of a host beside a device of `KINDS`.
_HOST_BYTES = 2**40

#: What is said of a checkpoint's own format.
_AS_STORED = "as it is published: no conversion, and no second loss"


@dataclass(frozen=True, slots=True)
class Advice:
    """One format of a model.

    Attributes
    ----------
    method, variant
        What is known of it, and how `--format` calls it; None for the checkpoint as it is.
    subject
        The model as it would be stored.
    stored
        The format that most of its numbers have, group size included.
    engines
        Who loads it, on the machine that was named, else on a card or a processor.
    refusals
        Why others do not, by their names.
    kinds
        Kinds of devices on which an estimate has an answer; empty if a machine was named.
    estimate
        What `willfit MODEL --format` says on the machine; None without one.
    spare_bytes
        What is left there where least is, negative if that much is missing; None if that is not known.
    finest
        No larger format surely fits; where none does, no larger one may.
    """

    method: Method
    variant: Variant
    subject: Subject
    stored: str
    engines: tuple[str, ...]
    refusals: dict[str, str]
    kinds: tuple[str, ...]
    estimate: Estimate | None
    spare_bytes: int | None
    finest: bool = False

    @property
    def bits_per_weight(self) -> float:
        """Bits of a parameter on average, whatever is stored beside it."""
        parameters = self.subject.architecture.parameters
        return 8 * self.subject.weight_bytes / parameters if parameters else 0.0


def variants(stored_method: str) -> Iterator[tuple[Method, Variant]]:
    """Every format of the table, and the checkpoint as it is, whose method is given."""
    if stored_method:
        unknown = Method(stored_method, (stored_method,), "after training", "weights", "optional", (), "")
        yield method_of_recipe(stored_method) or unknown, Variant(None, _AS_STORED)
    for method in METHODS:
        for variant in method.variants:
            if variant.name is not None or not stored_method:
                yield method, variant


def advise(
    subject_of: Callable[[str | None], Subject], machine: Machine | None, question: Question
) -> Iterator[Advice]:
    """Each format of a model, in the order of the table.

    Parameters
    ----------
    subject_of
        The model in the format of a name; None for as it is.
    machine
        Where it shall run; None to look at a device of each kind.
    question
        What shall run.

    Raises
    ------
    BadInput
        If the model cannot be read.
    """
    as_it_is = subject_of(None)
    if as_it_is.gguf is not None:
        raise BadInput(
            f"{as_it_is.model} is a GGUF file: its tensors are as they are",
            "name the model that it was made of",
        )
    kinds: dict[str | bool, tuple[str, ...]] = {}
    for method, variant in variants(as_it_is.recipe.method):
        try:
            subject = as_it_is if variant.name is None else subject_of(variant.name)
        except BadInput:
            continue  # not a format for this model
        key = subject.gguf is not None or method.title
        if machine is None and key not in kinds:
            # Devices are asked about once for a method, and for all GGUF files: with the first of its formats.
            kinds[key] = _kinds(subject, question)
        yield _advice(method, variant, subject, machine, question, kinds.get(key, ()))


def ranked(found: Sequence[Advice]) -> list[Advice]:
    """From the largest to the smallest, the finest that fits marked."""
    ordered = sorted(found, key=lambda one: -one.subject.weight_bytes)
    for wanted in ("fits", "tight"):
        for at, one in enumerate(ordered):
            if one.estimate is not None and one.estimate.verdict == wanted:
                ordered[at] = replace(one, finest=True)
                return ordered
    return ordered


def _advice(
    method: Method,
    variant: Variant,
    subject: Subject,
    machine: Machine | None,
    question: Question,
    kinds: tuple[str, ...],
) -> Advice:
    places = [machine] if machine is not None else [_machine(name) for name in _ASKED]
    refusals = {
        engine: reason
        for engine in ENGINES
        if engine != _NO_PROGRAM and (reason := _refusal(engine, subject, places, question))
    }
    engines = tuple(engine for engine in ENGINES if engine != _NO_PROGRAM and engine not in refusals)
    estimate = None if machine is None else _estimate(subject, machine, question)
    spare = None if estimate is None else _spare(estimate)
    return Advice(method, variant, subject, _stored(subject), engines, refusals, kinds, estimate, spare)


def _refusal(engine: str, subject: Subject, places: Sequence[Machine], question: Question) -> str:
    """Why an engine does not start anywhere, in its words for the first place; empty if it does somewhere."""
    first = ""
    for machine in places:
        try:
            reason = ask(engine, subject, machine, question).refusal
        except BadInput as error:
            reason = error.message
        if not reason:
            return ""
        first = first or reason
    return first


def _estimate(subject: Subject, machine: Machine, question: Question) -> Estimate | None:
    """What is answered where no engine is named; None if nothing is."""
    try:
        return ask_usual(None, subject, machine, question, subject.gguf is not None)
    except BadInput:
        return None


def _kinds(subject: Subject, question: Question) -> tuple[str, ...]:
    """Kinds of devices on which there is an answer."""
    answers = ((kind, _estimate(subject, _machine(name), question)) for kind, name in KINDS)
    return tuple(kind for kind, answer in answers if answer is not None and not answer.refusal)


def _machine(name: str) -> Machine:
    return Machine((find_device(name),), _HOST_BYTES)


def _spare(estimate: Estimate) -> int | None:
    try:
        excess = excess_bytes(estimate, surely=False)
    except BadInput:
        return None
    return -int(excess) if isfinite(excess) else None


def _stored(subject: Subject) -> str:
    """The format of most elements."""
    counts: dict[str, int] = {}
    for line in subject.lines:
        name = line.format.name
        counts[name] = counts.get(name, 0) + line.tensor.elements * line.times
    return max(counts, key=lambda name: counts[name], default="")
