"""Terms, estimates and verdicts: what every rule produces and every surface shows.

A `Term` is one named amount of bytes on one device, with the interval that it is believed to lie in, the
formula with its numbers filled in, and where the rule comes from. A sum of terms is a `DeviceEstimate`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from math import erf, sqrt
from typing import Any, Literal

Verdict = Literal["fits", "tight", "does_not_fit", "unknown"]
VERDICTS: tuple[Verdict, ...] = ("fits", "unknown", "tight", "does_not_fit")

#: Terms in words; others are called by their names.
TERM_WORDS: dict[str, str] = {
    "weights": "weights",
    "kv_cache": "KV cache",
    "compute": "compute buffer",
    "recurrent_state": "recurrent state",
    "activations": "activations",
    "logits": "logits",
    "cuda_graphs": "CUDA graphs",
    "buffers": "runner's buffers",
    "runtime": "run-time libraries",
    "context": "driver context",
    "fragmentation": "fragmentation",
    "communication": "communication",
    "lora": "LoRA adapters",
    "draft": "draft model",
    "draft_buffers": "draft's buffers",
    "expert_exchange": "experts' exchange",
    "sleeping_weights": "weights while asleep",
}

#: What engines call the longest sequence among the settings that they resolve (`Estimate.details`).
CONTEXT_NAMES = (
    "max_model_len", "context_length", "max_seq_len", "max_total_tokens", "session_len", "max_req_total_len",
    "context",
)  # fmt: skip

#: A 90 % interval of a normal distribution is this many standard deviations on each side.
_Z90 = 1.6448536269514722


def term_in_words(name: str) -> str:
    """What a reader would call a term."""
    return TERM_WORDS.get(name, name.replace("_", " "))


@dataclass(frozen=True, slots=True)
class Term:
    """One named amount of bytes on one device.

    Attributes
    ----------
    name
        `weights`, `kv_cache`, `activations`, `logits`, `runtime`, `cuda_graphs`, `communication`, ...
    bytes, low_bytes, high_bytes
        The estimate and its 90 % interval; the three are equal where a rule is exact.
    formula
        The rule with its numbers filled in: `8190735360 parameters x 2 B (bf16)`.
    reference
        Where the rule comes from: an engine's source file and version, a paper, or the calibration.
    """

    name: str
    bytes: int
    low_bytes: int
    high_bytes: int
    formula: str = ""
    reference: str = ""

    def as_json(self) -> dict[str, Any]:
        """The term as the published JSON has it."""
        return {
            "name": self.name,
            "bytes": self.bytes,
            "low_bytes": self.low_bytes,
            "high_bytes": self.high_bytes,
            "formula": self.formula,
            "reference": self.reference,
        }


def exact(name: str, size: int, formula: str = "", reference: str = "") -> Term:
    """A term without uncertainty."""
    return Term(name, size, size, size, formula, reference)


def between(name: str, size: int, low: int, high: int, formula: str = "", reference: str = "") -> Term:
    """A term with an interval."""
    return Term(name, size, min(low, size), max(high, size), formula, reference)


def combined(terms: Iterable[Term]) -> tuple[int, int, int]:
    """Sum of terms with its interval: bytes, low, high.

    Independent errors add in quadrature, each side on its own, so the interval of the sum is narrower
    than the sum of the intervals.
    """
    total, below, above = 0, 0.0, 0.0
    for term in terms:
        total += term.bytes
        below += float(term.bytes - term.low_bytes) ** 2
        above += float(term.high_bytes - term.bytes) ** 2
    return total, total - int(sqrt(below)), total + int(sqrt(above))


@dataclass(frozen=True, slots=True)
class DeviceEstimate:
    """What one device, or the host, would hold.

    Attributes
    ----------
    name, index
        The device's name and which one it is.
    usable_bytes
        What a program can allocate there; None if the device is not known.
    terms
        What is allocated at the peak.
    interval
        The 90 % interval of the sum where terms make up for each other (a cache that takes what others
        leave); None to combine the terms' own intervals.
    page_cache
        Of the host: parts of files that are mapped. The kernel keeps their pages while nothing else needs
        the room and reads them again if it dropped them, so they are not in the peak.
    """

    name: str
    index: int
    usable_bytes: int | None
    terms: tuple[Term, ...]
    interval: tuple[int, int] | None = None
    page_cache: tuple[Term, ...] = ()

    @property
    def peak_bytes(self) -> int:
        """The sum of the terms."""
        return sum(term.bytes for term in self.terms)

    @property
    def interval_bytes(self) -> tuple[int, int]:
        """The 90 % interval of the sum."""
        return self.interval or combined(self.terms)[1:]

    @property
    def probability(self) -> float | None:
        """Probability that the peak stays within usable memory; None if that is not known."""
        if self.usable_bytes is None:
            return None
        return probability_of_fitting(self.peak_bytes, *self.interval_bytes, self.usable_bytes)

    @property
    def verdict(self) -> Verdict:
        """`tight` if the interval straddles the limit."""
        if self.usable_bytes is None:
            return "unknown"
        return verdict_of(*self.interval_bytes, self.usable_bytes)

    def as_json(self) -> dict[str, Any]:
        """The device as the published JSON has it."""
        low, high = self.interval_bytes
        return {
            "name": self.name,
            "index": self.index,
            "usable_bytes": self.usable_bytes,
            "peak_bytes": self.peak_bytes,
            "low_bytes": low,
            "high_bytes": high,
            "terms": [term.as_json() for term in self.terms],
        }


def verdict_of(low: int, high: int, limit: int) -> Verdict:
    """Verdict of a size that lies between `low` and `high`."""
    if high <= limit:
        return "fits"
    return "does_not_fit" if low > limit else "tight"


def probability_of_fitting(size: int, low: int, high: int, limit: int) -> float:
    """Probability that a size with a 90 % interval is at most `limit` (two half normal distributions)."""
    if size <= limit:
        spread = (high - size) / _Z90
        return 1.0 if spread <= 0 else 0.5 * (1 + erf((limit - size) / spread / sqrt(2)))
    spread = (size - low) / _Z90
    return 0.0 if spread <= 0 else 0.5 * (1 - erf((size - limit) / spread / sqrt(2)))


@dataclass(frozen=True, slots=True)
class Demand:
    """Something that must fit into a pool which the engine allocates whatever is asked of it.

    Attributes
    ----------
    what
        In words: `4 sequences of 32,768 tokens`.
    needed_bytes
        What that takes of the pool.
    pool_bytes, pool_low_bytes, pool_high_bytes
        The pool and its 90 % interval.
    """

    what: str
    needed_bytes: int
    pool_bytes: int
    pool_low_bytes: int
    pool_high_bytes: int

    @property
    def verdict(self) -> Verdict:
        """`tight` if the need lies inside the pool's interval."""
        return verdict_of(-self.pool_high_bytes, -self.pool_low_bytes, -self.needed_bytes)

    @property
    def probability(self) -> float:
        """Probability that the pool holds what is needed."""
        return probability_of_fitting(
            -self.pool_bytes, -self.pool_high_bytes, -self.pool_low_bytes, -self.needed_bytes
        )


@dataclass(frozen=True, slots=True)
class Capacity:
    """What the memory left after the fixed terms can hold.

    Attributes
    ----------
    kv_cache_tokens
        Tokens that the cache holds over all sequences.
    max_context
        Longest sequence that a single user can have, at most the model's own limit.
    max_concurrency
        How many sequences of the asked context fit at once; may be below 1.
    """

    kv_cache_tokens: int
    max_context: int
    max_concurrency: float

    def as_json(self) -> dict[str, Any]:
        """The capacity as the published JSON has it."""
        return {
            "kv_cache_tokens": self.kv_cache_tokens,
            "max_context": self.max_context,
            "max_concurrency": round(self.max_concurrency, 4),
        }


@dataclass(frozen=True, slots=True)
class Estimate:
    """The answer to "will it fit?": terms per device and on the host, and the verdict.

    Attributes
    ----------
    demands
        What must fit into pools that the engine sizes itself.
    refusal
        Why the engine would not start at all, although memory may suffice; empty otherwise.
    remedies
        If it does not fit: what to change, most promising first.
    details
        Figures that an engine logs and that are no terms (blocks, groups, resolved settings).
    """

    model: str
    engine: str
    engine_version: str
    kind: Literal["serve", "generate", "train"]
    devices: tuple[DeviceEstimate, ...]
    host: DeviceEstimate
    capacity: Capacity | None = None
    demands: tuple[Demand, ...] = ()
    notes: tuple[str, ...] = ()
    refusal: str = ""
    remedies: tuple[str, ...] = ()
    details: dict[str, Any] = field(default_factory=dict)

    @property
    def context(self) -> int:
        """Tokens of the longest sequence that was asked for; 0 if the engine does not say."""
        return next((int(self.details[name]) for name in CONTEXT_NAMES if self.details.get(name)), 0)

    @property
    def verdict(self) -> Verdict:
        """That of the worst device, the host included."""
        if self.refusal:
            return "does_not_fit"
        verdicts = [device.verdict for device in self.devices]
        verdicts += [demand.verdict for demand in self.demands]
        if self.host.usable_bytes is not None:
            verdicts.append(self.host.verdict)
        return max(verdicts, key=VERDICTS.index, default="unknown")

    @property
    def probability(self) -> float | None:
        """Probability that everything fits, taking the worst place; None if no limit is known."""
        if self.refusal:
            return 0.0
        chances = [place.probability for place in (*self.devices, self.host)]
        known = [chance for chance in chances if chance is not None]
        known += [demand.probability for demand in self.demands]
        return min(known) if known else None

    def as_json(self) -> dict[str, Any]:
        """The estimate as the published JSON has it (see `docs/design.md`)."""
        probability = self.probability
        host_low, host_high = self.host.interval_bytes
        return {
            "model": self.model,
            "engine": self.engine,
            "engine_version": self.engine_version,
            "kind": self.kind,
            "verdict": self.verdict,
            "probability": None if probability is None else round(probability, 4),
            "devices": [device.as_json() for device in self.devices],
            "host": {
                "usable_bytes": self.host.usable_bytes,
                "peak_bytes": self.host.peak_bytes,
                "low_bytes": host_low,
                "high_bytes": host_high,
                "terms": [term.as_json() for term in self.host.terms],
                **(
                    {"page_cache": [term.as_json() for term in self.host.page_cache]}
                    if self.host.page_cache
                    else {}
                ),
            },
            "capacity": None if self.capacity is None else self.capacity.as_json(),
            "notes": list(self.notes),
            **({"refusal": self.refusal} if self.refusal else {}),
            **({"remedies": list(self.remedies)} if self.remedies else {}),
            **{
                name: self.details[name]
                for name in ("asleep", "training", "trace", "speed", "prompt")
                if name in self.details
            },
        }
