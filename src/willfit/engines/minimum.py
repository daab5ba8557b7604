"""The minimum that any engine needs: weights as stored, the cache that must be held, one layer's activations.

No engine allocates exactly this. It is the answer where the engine is not known, and the yardstick beside one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from willfit import __version__
from willfit.architectures.held import cache_bytes, state_bytes
from willfit.architectures.model import Architecture
from willfit.engines.activations import layer_activation_elements, widest_layer_elements
from willfit.engines.base import Machine, Question, Subject
from willfit.engines.context import context_term
from willfit.engines.support import too_long
from willfit.estimate import Capacity, DeviceEstimate, Estimate, Term, between, exact
from willfit.hardware.device import Device
from willfit.quantities import DTYPE_BYTES, dtype_name, format_bytes

NAME = "minimum"
NEWEST = __version__

#: How a term cites willfit's own source.
_HERE = f"willfit {__version__} willfit"

#: Tokens of a prompt that are processed at once; an encoder needs all of them.
PREFILL_CHUNK = 512

#: The longest sequence that is looked at where a model sets no limit.
_LONGEST = 2**20


@dataclass(frozen=True, slots=True)
class _Needs:
    """What a question takes, whatever the devices.

    Attributes
    ----------
    architecture
        The model.
    dtype, kv_dtype
        Of the activations and of the cache.
    context, users
        Tokens of each sequence, and how many run at once.
    """

    architecture: Architecture
    dtype: str
    kv_dtype: str
    context: int
    users: int

    @property
    def source(self) -> int:
        """Tokens that an encoder reads: the prompt, unless the model fixes their number."""
        architecture = self.architecture
        return architecture.encoder_tokens or (self.context if architecture.encoder else 0)

    @property
    def cache(self) -> int:
        """Bytes of cache of one sequence."""
        size = DTYPE_BYTES[self.kv_dtype]
        return int(cache_bytes(self.architecture, self.context, size, self.source))

    @property
    def state(self) -> int:
        """Bytes of fixed state of one sequence."""
        return state_bytes(self.architecture, self.dtype)

    @property
    def widest(self) -> tuple[int, int]:
        """(tokens, elements of each) where most is alive at once."""
        architecture = self.architecture
        whole = architecture.encoder_only or not architecture.causal
        tokens = self.context if whole else min(self.context, PREFILL_CHUNK)
        sizes = [(tokens, widest_layer_elements(architecture, 1))]
        sizes += [
            (self.source, layer_activation_elements(layer, architecture.hidden_size, 1))
            for layer, _ in architecture.encoder_blocks
        ]
        return max(sizes, key=lambda size: size[0] * size[1])

    @property
    def activations(self) -> int:
        """Bytes that are alive at the widest instant of a layer, for one sequence at a time."""
        tokens, elements = self.widest
        return tokens * elements * DTYPE_BYTES[self.dtype]

    @property
    def logits(self) -> int:
        """Bytes of the next token's scores of one sequence, in fp32."""
        return self.architecture.logits_per_row * 4


def answer(subject: Subject, machine: Machine, question: Question) -> Estimate:
    """The minimum for a question, spread over the devices so that each is as full as the others."""
    needs = _needs(subject, question)
    devices = machine.devices
    fixed = [_fixed_terms(device, needs, index == len(devices) - 1) for index, device in enumerate(devices)]
    limits = [machine.host_bytes if device.is_cpu else device.usable_bytes for device in devices]
    shares = _shares(limits, fixed)
    places = tuple(
        DeviceEstimate(
            device.name, index, limits[index], (*_spread_terms(subject, needs, shares, index), *fixed[index])
        )
        for index, device in enumerate(devices)
    )
    return Estimate(
        model=subject.model,
        engine=NAME,
        engine_version=NEWEST,
        kind="serve",
        devices=places,
        host=DeviceEstimate("host", 0, machine.host_bytes, ()),
        refusal=too_long(subject.architecture, needs.context),
        capacity=_capacity(subject, limits, fixed, needs),
        notes=_notes(subject, needs),
        remedies=_remedies(places, subject, needs),
        details={
            "context": needs.context,
            "users": needs.users,
            "kv_cache_dtype": needs.kv_dtype,
            "dtype": needs.dtype,
        },
    )


def _needs(subject: Subject, question: Question) -> _Needs:
    architecture = subject.architecture
    # Quantized weights are computed with in 16 bits, whatever the model was trained in.
    halved = architecture.dtype == "fp32" and subject.recipe.base.name != "fp32"
    dtype = "fp16" if halved else architecture.dtype
    kv_dtype = dtype if question.kv_dtype == "auto" else dtype_name(question.kv_dtype)
    return _Needs(architecture, dtype, kv_dtype, question.context_for(architecture), question.users)


def _fixed_terms(device: Device, needs: _Needs, last: bool) -> tuple[Term, ...]:
    """What a device holds beside its share of the model."""
    tokens, elements = needs.widest
    size = needs.activations
    formula = f"{tokens} tokens x {elements} elements x {DTYPE_BYTES[needs.dtype]} B"
    reference = f"{_HERE}/engines/activations.py: widest_layer_elements"
    terms = [between("activations", size, size // 2, 2 * size, formula, reference)]
    if last and needs.logits:
        formula = f"{needs.users} rows x {needs.architecture.logits_per_row} x 4 B"
        reference = f"{_HERE}/engines/minimum.py: the next token's scores in fp32"
        terms.append(exact("logits", needs.users * needs.logits, formula, reference))
    if not device.is_cpu:
        terms.append(context_term(device))
    return tuple(terms)


def _shares(limits: Sequence[int | None], fixed: Sequence[tuple[Term, ...]]) -> list[int]:
    """In what proportion the devices hold the layers: that of their free memory, alike if it is not known."""
    free = [
        0 if limit is None else max(0, limit - sum(term.bytes for term in terms))
        for limit, terms in zip(limits, fixed, strict=True)
    ]
    return [1] * len(free) if None in limits or not any(free) else free


def _spread_terms(subject: Subject, needs: _Needs, shares: Sequence[int], index: int) -> tuple[Term, ...]:
    """What is divided over the devices, as one of them holds it."""
    whole, before, own = sum(shares), sum(shares[:index]), shares[index]
    part = f" x {own}/{whole} (share of the device)" if len(shares) > 1 else ""

    def share(size: int) -> int:
        return size * (before + own) // whole - size * before // whole

    weights = share(subject.weight_bytes)
    less, more = subject.weight_sureness
    formula = f"{subject.weight_bytes} B of tensors ({subject.recipe.name}){part}"
    terms = [
        between(
            "weights",
            weights,
            int(weights * less),
            int(weights * more),
            formula,
            f"{_HERE}/formats/weights.py: weight_lines",
        )
    ]
    if needs.cache:
        source = f" and {needs.source} of the source" if needs.source else ""
        formula = (
            f"{needs.users} x {needs.cache} B for {needs.context} tokens{source} ({needs.kv_dtype}){part}"
        )
        size = share(needs.cache * needs.users)
        reference = f"{_HERE}/architectures/held.py: cache_bytes"
        terms.append(exact("kv_cache", size, formula, reference))
    if needs.state:
        formula = f"{needs.users} x {needs.state} B of recurrent state{part}"
        size = share(needs.state * needs.users)
        reference = f"{_HERE}/architectures/held.py: state_bytes"
        terms.append(exact("recurrent_state", size, formula, reference))
    return tuple(terms)


def _capacity(
    subject: Subject, limits: Sequence[int | None], fixed: Sequence[tuple[Term, ...]], needs: _Needs
) -> Capacity | None:
    """How many sequences, and how long a single one, the memory of all devices could hold together."""
    if not (needs.cache or needs.state):
        return None  # an encoder keeps nothing from one sequence to the next
    usable = [limit for limit in limits if limit is not None]
    if len(usable) < len(limits):
        return None
    # Logits are counted with the sequences that they belong to.
    fixed_bytes = sum(term.bytes for terms in fixed for term in terms) - needs.users * needs.logits
    free = sum(usable) - subject.weight_bytes - fixed_bytes
    concurrency = max(0.0, free / (needs.cache + needs.state + needs.logits))
    longest = _longest(needs, free, len(limits))
    return Capacity(max(int(concurrency * needs.context), longest), longest, concurrency)


def _longest(needs: _Needs, free: int, devices: int) -> int:
    """The longest sequence that a single user can have."""

    def fits(tokens: int) -> bool:
        one = _Needs(needs.architecture, needs.dtype, needs.kv_dtype, tokens, 1)
        more = devices * (one.activations - needs.activations)
        return one.cache + one.state + one.logits + more <= free

    low, high = 0, needs.architecture.max_positions or max(needs.context, _LONGEST)
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if fits(middle) else (low, middle - 1)
    return low


def _notes(subject: Subject, needs: _Needs) -> tuple[str, ...]:
    architecture = subject.architecture
    notes = [*subject.notes, *subject.recipe.notes]
    if architecture.max_positions and needs.context > architecture.max_positions:
        notes.append(
            f"{needs.context} tokens are asked for, the model was made for {architecture.max_positions}"
        )
    if architecture.towers:
        kinds = " and ".join(dict.fromkeys(tower.modality for tower in architecture.towers))
        notes.append(f"what the {kinds} encoder needs while it runs is not counted, its weights are")
    notes.append("the minimum that the maths needs; an engine adds workspaces, padding and what it reserves")
    return tuple(notes)


def _remedies(places: tuple[DeviceEstimate, ...], subject: Subject, needs: _Needs) -> tuple[str, ...]:
    short = [
        place for place in places if place.usable_bytes is not None and place.peak_bytes > place.usable_bytes
    ]
    if not short:
        return ()
    missing = sum(place.peak_bytes - (place.usable_bytes or 0) for place in short)
    remedies = [f"{format_bytes(missing)} more memory, or another device beside it"]
    if needs.cache * needs.users > missing:
        remedies.insert(0, "a shorter context or fewer users")
    if subject.recipe.name in ("bf16", "fp16", "fp32"):
        remedies.insert(0, "quantized weights (--format nf4, awq or q4_0)")
    return tuple(remedies)
