"""Two answers side by side: what differs, by how many bytes, and why.

A reason is only given where something that enters a term differs: the model, its format, the devices, a
setting, a number of the term's formula, or a rule that changed between two versions of the engine.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any

from willfit.architectures.held import cache_bytes_per_token
from willfit.architectures.mixers import CompressedAttention
from willfit.asking import Answer
from willfit.estimate import Capacity, DeviceEstimate, Estimate, Term, term_in_words
from willfit.quantities import DTYPE_BYTES, format_bytes, format_count

#: Settings that engines resolve (`Estimate.details`), in words.
_SETTINGS = {
    "users": "users",
    "kv_cache_dtype": "cache dtype",
    "dtype": "dtype",
    "max_num_batched_tokens": "batched tokens",
    "max_num_seqs": "sequences in a batch",
    "gpu_memory_utilization": "budget's share of a device",
    "tensor_parallel": "tensor parallel",
    "pipeline_parallel": "pipeline parallel",
}

#: What differs and enters the weights, the cache that sequences need, and how many of them there is room for.
_OF_WEIGHTS = ("parameters", "format", "devices used")
_OF_STATE = ("users", "layers", "devices used")
_OF_CACHE = ("context", *_OF_STATE, "cache a token", "cache dtype")

_NUMBER = re.compile(r"(?<![\w.])\d+(?:\.\d+)?(?![\w.])")
_LABEL_END = re.compile(r"\s+[x=+-](?:\s|$)|[,;:]|\s\(|(?<!\(s)\)")
_ALLOWED = re.compile(r"^(\d+) allowed")
_AS_ASKED = "(as asked for)"
_BLOCK = re.compile(r"blocks x (\d+) B")
_TAKEN = re.compile(r"(\d+) \((\w+)\)")


@dataclass(frozen=True, slots=True)
class Fact:
    """Something in which the two sides differ, in words."""

    what: str
    a: str
    b: str

    def __str__(self) -> str:
        return f"{self.what} {self.a} → {self.b}"

    def as_json(self) -> dict[str, str]:
        """The fact as the published JSON has it."""
        return {"what": self.what, "a": self.a, "b": self.b}


@dataclass(frozen=True, slots=True)
class TermChange:
    """One term on both sides.

    Attributes
    ----------
    name
        The term's name.
    a, b
        Terms of that name; empty where a side has none.
    reasons
        Why they differ; empty if they do not, or if nothing that is known explains it.
    """

    name: str
    a: tuple[Term, ...]
    b: tuple[Term, ...]
    reasons: tuple[str, ...] = ()

    @property
    def a_bytes(self) -> int:
        """Bytes on side A."""
        return sum(term.bytes for term in self.a)

    @property
    def b_bytes(self) -> int:
        """Bytes on side B."""
        return sum(term.bytes for term in self.b)

    @property
    def difference_bytes(self) -> int:
        """How much more B takes."""
        return self.b_bytes - self.a_bytes

    @property
    def formulas(self) -> tuple[str, str]:
        """The formula of each side; empty where a side has no such term."""
        return _formula(self.a), _formula(self.b)

    def as_json(self) -> dict[str, Any]:
        """The change as the published JSON has it."""
        return {
            "name": self.name,
            "a_bytes": self.a_bytes,
            "b_bytes": self.b_bytes,
            "difference_bytes": self.difference_bytes,
            "reasons": list(self.reasons),
            "a_formula": self.formulas[0],
            "b_formula": self.formulas[1],
        }


@dataclass(frozen=True, slots=True)
class PlaceChange:
    """The fullest device of each side, or the hosts, term by term."""

    a: DeviceEstimate
    b: DeviceEstimate
    terms: tuple[TermChange, ...]

    @property
    def difference_bytes(self) -> int:
        """How much more B takes at the peak: the sum of the terms' differences."""
        return self.b.peak_bytes - self.a.peak_bytes

    def as_json(self) -> dict[str, Any]:
        """The place as the published JSON has it."""
        return {
            "a": _place_json(self.a),
            "b": _place_json(self.b),
            "difference_bytes": self.difference_bytes,
            "terms": [term.as_json() for term in self.terms],
        }


@dataclass(frozen=True, slots=True)
class Figure:
    """Something that is counted on both sides beside the terms.

    Attributes
    ----------
    name
        `cache_needed_bytes`, or a key of the published capacity.
    a, b
        Its values; None where a side has none.
    reasons
        As for a term.
    """

    name: str
    a: float | None
    b: float | None
    reasons: tuple[str, ...] = ()

    @property
    def difference(self) -> float | None:
        """B less A; None if a side has no value."""
        return None if self.a is None or self.b is None else self.b - self.a

    def as_json(self) -> dict[str, Any]:
        """The figure as the published JSON has it."""
        a, b, difference = (_rounded(value) for value in (self.a, self.b, self.difference))
        return {"name": self.name, "a": a, "b": b, "difference": difference, "reasons": list(self.reasons)}


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two answers and what lies between them.

    Attributes
    ----------
    a, b
        The two estimates.
    facts
        In what the two questions differ: model, format, engine, devices, settings.
    changes
        What the engine does differently in the newer of two versions; empty for different engines.
    device, host
        The fullest device of each side, and the hosts.
    figures
        Cache that is needed and room that there is.
    """

    a: Estimate
    b: Estimate
    facts: tuple[Fact, ...]
    changes: tuple[str, ...]
    device: PlaceChange
    host: PlaceChange
    figures: tuple[Figure, ...]

    def as_json(self) -> dict[str, Any]:
        """The comparison as the published JSON has it; `a` and `b` are the estimates as they are alone."""
        return {
            "a": self.a.as_json(),
            "b": self.b.as_json(),
            "differs": [fact.as_json() for fact in self.facts],
            "engine_changes": list(self.changes),
            "device": self.device.as_json(),
            "host": self.host.as_json(),
            "figures": [figure.as_json() for figure in self.figures],
        }


def compare(a: Answer, b: Answer) -> Comparison:
    """Compare two answers.

    Parameters
    ----------
    a, b
        The two sides. Differences are what B has more than A.
    """
    facts = _facts(a, b)
    eras = _era_changes(a.estimate, b.estimate)
    pools = (bool(a.estimate.demands), bool(b.estimate.demands))
    known = _Known({fact.what: fact for fact in facts}, eras, pools)
    return Comparison(
        a.estimate,
        b.estimate,
        facts,
        tuple(eras.values()),
        _place(fullest(a.estimate), fullest(b.estimate), known),
        _place(a.estimate.host, b.estimate.host, known),
        _figures(a, b, known),
    )


def fullest(estimate: Estimate) -> DeviceEstimate:
    """The device that takes the largest part of what it can; the first of several alike."""
    return max(
        estimate.devices or (estimate.host,),
        key=lambda place: (
            place.peak_bytes / (place.usable_bytes or place.peak_bytes or 1),
            place.peak_bytes,
        ),
    )


@dataclass(frozen=True, slots=True)
class _Known:
    """What reasons are made of.

    Attributes
    ----------
    facts
        By what differs.
    eras
        The engine's changes, by the field of its era.
    pools
        Whether A, and B, allocates a pool for its sequences whatever these need.
    """

    facts: dict[str, Fact]
    eras: dict[str, str]
    pools: tuple[bool, bool]

    def of(self, names: Iterable[str]) -> tuple[str, ...]:
        """The facts of these names that differ, as reasons."""
        return tuple(str(self.facts[name]) for name in names if name in self.facts)

    def changed(self, *fields: str) -> tuple[str, ...]:
        """The engine's changes in these fields, as reasons."""
        return tuple(self.eras[field] for field in fields if field in self.eras)


def _facts(a: Answer, b: Answer) -> tuple[Fact, ...]:
    """In what the two sides differ."""
    one, other = _described(a), _described(b)
    return tuple(
        Fact(name, one[name], other[name]) for name in one if other.get(name, one[name]) != one[name]
    )


def _described(answer: Answer) -> dict[str, str]:
    """A side in words."""
    subject, estimate = answer.subject, answer.estimate
    architecture, details = subject.architecture, estimate.details
    described = {
        "model": subject.model,
        "parameters": format_count(architecture.parameters),
        "layers": str(len(architecture.layers)),
        "format": f"{subject.recipe.name} ({_per_parameter(answer):.2f} B a parameter)",
        "engine": f"{estimate.engine} {estimate.engine_version}",
        "device": _devices(estimate),
        "devices used": str(len(estimate.devices)),
    }
    context = details.get("max_model_len") or details.get("context")
    if context:
        described["context"] = f"{context:,}"
    for key, words in _SETTINGS.items():
        if details.get(key) is not None:
            described[words] = _value(details[key])
    element = DTYPE_BYTES.get(str(details.get("kv_cache_dtype", architecture.dtype)))
    if element and not architecture.encoder_only:
        described["cache a token"] = format_bytes(cache_bytes_per_token(architecture, element))
    if architecture.max_positions:
        described["model's limit"] = f"{architecture.max_positions:,}"
    return described


def _per_parameter(answer: Answer) -> float:
    return answer.subject.weight_bytes / max(1, answer.subject.architecture.parameters)


def _devices(estimate: Estimate) -> str:
    counted = Counter(device.name for device in estimate.devices)
    return " + ".join(f"{count} × {name}" if count > 1 else name for name, count in counted.items())


def _value(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.2f}" if round(value, 2) == value else str(value)
    return f"{value:,}" if isinstance(value, int) else str(value)


def _era_changes(a: Estimate, b: Estimate) -> dict[str, str]:
    """What vLLM does differently between the two sides, by field of its era; nothing for other engines."""
    if not a.engine == b.engine == "vllm" or "era" not in a.details or "era" not in b.details:
        return {}
    from willfit.engines.vllm.changes import changes

    return {change.field: change.words for change in changes(a.details["era"], b.details["era"])}


def _place(a: DeviceEstimate, b: DeviceEstimate, known: _Known) -> PlaceChange:
    names = dict.fromkeys(term.name for term in (*a.terms, *b.terms))
    terms = []
    for name in names:
        one, other = (tuple(term for term in place.terms if term.name == name) for place in (a, b))
        change = TermChange(name, one, other)
        if change.difference_bytes:
            change = replace(change, reasons=_reasons(change, known, (a, b)))
        terms.append(change)
    return PlaceChange(a, b, tuple(terms))


def _reasons(
    change: TermChange, known: _Known, places: tuple[DeviceEstimate, DeviceEstimate]
) -> tuple[str, ...]:
    """Why a term differs; nothing if nothing that is known explains it."""
    a, b = change.formulas
    if not change.a or not change.b:
        side, formula = ("B", b) if change.b else ("A", a)
        return (f"only {side} has it: {formula}", *_from_versions(change, known))
    found: tuple[str, ...] = ()
    if change.name == "weights":
        found = known.of(_OF_WEIGHTS)
    elif change.name == "kv_cache":
        found = _of_cache(a, b, known, places)
    elif change.name == "recurrent_state" and not any(known.pools):
        found = known.of(_OF_STATE)
    return found or (*_numbers(a, b), *_from_versions(change, known))


def _of_cache(
    a: str, b: str, known: _Known, places: tuple[DeviceEstimate, DeviceEstimate]
) -> tuple[str, ...]:
    """Why a cache differs: it takes what a budget leaves, or what its sequences need."""
    left = [_ALLOWED.match(formula) is not None for formula in (a, b)]
    if all(left):
        fields = [
            field
            for field, part in (("context_inside", "(context)"), ("graphs_inside", "(cuda_graphs)"))
            if (part in a) != (part in b)
        ]
        return (*_left_over(a, b, known, places), *known.changed(*fields)) or _in_blocks(a, b)
    if not any(known.pools):
        return known.of(_OF_CACHE)
    filling, other = ("A", "B") if left[0] else ("B", "A")
    if any(left) and _AS_ASKED in (b if left[0] else a):
        return (f"{filling} fills what its budget leaves; {other}'s size was asked for",)
    if any(left) and not all(known.pools):
        return (f"{filling} fills what its budget leaves; {other} holds what its sequences need",)
    return ()


def _left_over(
    a: str, b: str, known: _Known, places: tuple[DeviceEstimate, DeviceEstimate]
) -> tuple[str, ...]:
    """What makes a cache larger or smaller that takes what the other terms leave of a budget."""
    budgets = [int(_NUMBER.search(formula)[0]) for formula in (a, b)]  # type: ignore[index]
    taken: list[Counter[str]] = []
    for formula in (a, b):
        sizes: Counter[str] = Counter()
        for size, name in _TAKEN.findall(formula):
            sizes[name] += int(size)
        taken.append(sizes)
    gains = {name: taken[0][name] - taken[1][name] for name in dict.fromkeys(chain(*taken))}
    budget = budgets[1] - budgets[0]
    reasons = []
    if budget:
        share = known.facts.get("budget's share of a device")
        whys = [f"{share.a} → {share.b} of the device"] if share else []
        usable = [place.usable_bytes for place in places]
        if usable[0] != usable[1]:
            whys.append(" → ".join(format_bytes(size or 0) for size in usable) + " usable")
        why = f" ({', '.join(whys)})" if whys else ""
        reasons.append((abs(budget), f"budget {signed(budget)}{why}"))
    for name, gain in gains.items():
        if gain:
            words = term_in_words(name)
            verb = "leave" if words.endswith("s") else "leaves"
            reasons.append(
                (abs(gain), f"{words} {verb} {format_bytes(abs(gain))} {'more' if gain > 0 else 'less'}")
            )
    return tuple(text for _, text in sorted(reasons, key=lambda reason: -reason[0]))


def _in_blocks(a: str, b: str) -> tuple[str, ...]:
    """The same room cut into other blocks."""
    blocks = [_BLOCK.search(formula) for formula in (a, b)]
    sizes = [format_bytes(int(block[1])) for block in blocks if block]
    return (f"the same room in whole blocks of {' → '.join(sizes)}",) if len(set(sizes)) > 1 else ()


def _from_versions(change: TermChange, known: _Known) -> tuple[str, ...]:
    """The engine's changes that enter a term, where its formulas show that they do."""
    a, b = change.formulas
    fields = []
    if change.name == "activations":
        fields.append("generation")
        if a.startswith("the sampler") or b.startswith("the sampler"):
            fields.append("activation")
    elif change.name == "cuda_graphs" and change.a and change.b:
        if change.a[0].reference != change.b[0].reference:
            fields.append("graphs_inside")
        if any("captured sizes" in text for text in _numbers(a, b)):
            fields += ["sparse_capture", "captured"]
    return known.changed(*fields)


def _numbers(a: str, b: str) -> tuple[str, ...]:
    """The numbers in which two formulas differ that are the same but for these: `2,048 → 8,192 tokens`.

    Results within a formula follow from the rest and are left out.
    """
    found_a, found_b = _labelled(a), _labelled(b)
    if [label for label, _ in found_a] != [label for label, _ in found_b]:
        return ()
    pairs = zip(found_a, found_b, strict=True)
    texts = [f"{_grouped(x)} → {_grouped(y)} {label}".rstrip() for (label, x), (_, y) in pairs if x != y]
    return tuple(dict.fromkeys(texts))


def _labelled(formula: str) -> list[tuple[str, str]]:
    """The numbers that enter a formula, each with the words behind it."""
    found = []
    for match in _NUMBER.finditer(formula):
        if formula[: match.start()].rstrip().endswith("="):
            continue
        found.append((_LABEL_END.split(formula[match.end() :], maxsplit=1)[0].strip(), match[0]))
    return found


def _figures(a: Answer, b: Answer, known: _Known) -> tuple[Figure, ...]:
    """The cache that is needed and the room that there is."""
    figures = []
    if any(known.pools):
        held = (*known.of(_OF_CACHE), *known.changed(*_fields_of_sequences(a, b)))
        figures.append(Figure("cache_needed_bytes", _needed(a.estimate), _needed(b.estimate), held))
    room = _room(a.estimate, b.estimate, known)
    per_token = known.of(("cache a token", "cache dtype"))
    otherwise = _reports_otherwise(a) or _reports_otherwise(b)
    rules = known.changed("capacity") if otherwise else ()
    each = () if per_token or "context" in known.facts else _of_each(a.estimate, b.estimate)
    reasons = {
        "kv_cache_tokens": (*room, *per_token, *(each if otherwise else ()), *rules),
        "max_context": (*known.of(("model's limit",)), *room, *per_token),
        "max_concurrency": (*known.of(("context",)), *room, *per_token, *each),
    }
    capacities = (a.estimate.capacity, b.estimate.capacity)
    if capacities != (None, None):
        for name, why in reasons.items():
            one, other = (_of_capacity(capacity, name) for capacity in capacities)
            figures.append(Figure(name, one, other, tuple(dict.fromkeys(why))))
    return tuple(figure if figure.difference else replace(figure, reasons=()) for figure in figures)


def _of_capacity(capacity: Capacity | None, name: str) -> float | None:
    value: float | None = getattr(capacity, name, None)
    return value


def _needed(estimate: Estimate) -> int | None:
    """What the asked sequences need of a pool; None for engines that have none."""
    return sum(demand.needed_bytes for demand in estimate.demands) if estimate.demands else None


def _of_each(a: Estimate, b: Estimate) -> tuple[str, ...]:
    """What the sequences take of a pool, if that differs for as many sequences."""
    needed = (_needed(a), _needed(b))
    if needed[0] is None or needed[1] is None or a.details.get("users") != b.details.get("users"):
        return ()
    sizes = [format_bytes(size) for size in needed if size is not None]
    return (f"cache needed {' → '.join(sizes)}",) if needed[0] != needed[1] else ()


def _room(a: Estimate, b: Estimate, known: _Known) -> tuple[str, ...]:
    """How much room the caches have, if that differs; of engines without a pool, what decides it."""
    if not all(known.pools):
        return known.of(("engine", "device", "parameters", "format", "users", "context"))
    pools = [max(0, sum(demand.pool_bytes for demand in estimate.demands)) for estimate in (a, b)]
    return (
        (f"room for the cache {format_bytes(pools[0])} → {format_bytes(pools[1])}",)
        if pools[0] != pools[1]
        else ()
    )


def _reports_otherwise(answer: Answer) -> bool:
    """Whether the reported tokens are not just those of all blocks, so that the rule of the version shows."""
    details, capacity = answer.estimate.details, answer.estimate.capacity
    if capacity is None or "num_gpu_blocks" not in details:
        return False
    return bool(capacity.kv_cache_tokens != details["num_gpu_blocks"] * details["block_size"])


def _fields_of_sequences(a: Answer, b: Answer) -> list[str]:
    """The fields of vLLM's era that enter what a sequence of one of these models takes."""
    mixers = [
        mixer
        for answer in (a, b)
        for layer, _ in answer.subject.architecture.blocks
        for mixer in layer.mixers
    ]
    fields = ["null_block"]
    if any(getattr(mixer, "window", 0) or getattr(mixer, "chunk", 0) for mixer in mixers):
        fields += ["in_flight", "group_slack"]
    if any(mixer.fixed_states for mixer in mixers):
        fields += ["state_caching", "checkpoint_blocks"]
    if any(isinstance(mixer, CompressedAttention) for mixer in mixers):
        fields.append("padded_windows")
    return fields


def signed(size: float) -> str:
    """A difference in bytes for people: `+1.50 GiB`, `−512.0 MiB`, `0 B`."""
    return f"{'+' if size > 0 else '−' if size < 0 else ''}{format_bytes(abs(size))}"


def _formula(terms: tuple[Term, ...]) -> str:
    return "; ".join(term.formula for term in terms if term.formula)


def _grouped(number: str) -> str:
    return number if "." in number else f"{int(number):,}"


def _rounded(value: float | None) -> float | None:
    return round(value, 4) if isinstance(value, float) else value


def _place_json(place: DeviceEstimate) -> dict[str, Any]:
    return {
        "name": place.name,
        "index": place.index,
        "usable_bytes": place.usable_bytes,
        "peak_bytes": place.peak_bytes,
    }
