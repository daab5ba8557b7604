"""The minimum that any engine needs: weights as stored, the cache that must be held, one layer's activations.

No engine allocates exactly this. It is the answer where the engine is not known, and the yardstick beside one.
"""

from __future__ import annotations

from willfit import __version__
from willfit.architectures.held import cache_bytes, state_bytes
from willfit.calibration import constant
from willfit.engines.activations import widest_layer_elements
from willfit.engines.base import Machine, Question, Subject
from willfit.estimate import Capacity, DeviceEstimate, Estimate, Term, between, exact
from willfit.quantities import DTYPE_BYTES, dtype_name, format_bytes

NAME = "minimum"
NEWEST = __version__

#: Tokens of a prompt that are processed at once.
PREFILL_CHUNK = 512


def answer(subject: Subject, machine: Machine, question: Question) -> Estimate:
    """The minimum for a question, spread over the devices in proportion to their memory."""
    architecture = subject.architecture
    context = question.context_for(architecture)
    dtype = (
        "fp16" if architecture.dtype == "fp32" and subject.recipe.base.name != "fp32" else architecture.dtype
    )
    kv_dtype = dtype if question.kv_dtype == "auto" else dtype_name(question.kv_dtype)
    element = DTYPE_BYTES[kv_dtype]
    cache = int(cache_bytes(architecture, context, element)) * question.users
    state = state_bytes(architecture, dtype) * question.users
    tokens = min(context, PREFILL_CHUNK)
    widest = widest_layer_elements(architecture, 1)
    activations = tokens * widest * DTYPE_BYTES[dtype]
    logits = question.users * architecture.logits_per_row * 4
    runtime = constant("cuda.context")
    devices = machine.devices
    usable = [device.usable_bytes or 0 for device in devices]
    shares = [size / (sum(usable) or 1) if any(usable) else 1 / len(devices) for size in usable]
    estimates = []
    for index, (device, share) in enumerate(zip(devices, shares, strict=True)):
        part = f" x {share:.3f} of the layers" if len(devices) > 1 else ""
        terms: list[Term] = [
            exact(
                "weights",
                int(subject.weight_bytes * share),
                f"{subject.weight_bytes} B stored ({subject.recipe.name}){part}",
                "the tensors of the checkpoint",
            )
        ]
        if cache:
            formula = (
                f"{question.users} x {cache // question.users} B for {context} tokens ({kv_dtype}){part}"
            )
            terms.append(exact("kv_cache", int(cache * share), formula, "what the layers must hold"))
        if state:
            formula = f"{question.users} x {state // question.users} B of recurrent state{part}"
            terms.append(exact("recurrent_state", int(state * share), formula, "what the layers must hold"))
        formula = f"{tokens} tokens x {widest} elements x {DTYPE_BYTES[dtype]} B"
        terms.append(
            between(
                "activations", activations, activations // 2, 2 * activations, formula, "the widest layer"
            )
        )
        if index == len(devices) - 1:
            formula = f"{question.users} rows x {architecture.logits_per_row} x 4 B"
            terms.append(exact("logits", logits, formula, "the next token's scores in fp32"))
        if not device.is_cpu:
            terms.append(
                Term(
                    "context",
                    int(runtime.value),
                    int(runtime.low),
                    int(runtime.high),
                    "driver context",
                    runtime.reference,
                )
            )
        limit = machine.host_bytes if device.is_cpu else device.usable_bytes
        estimates.append(DeviceEstimate(device.name, index, limit, tuple(terms)))
    places = tuple(estimates)
    return Estimate(
        model=subject.model,
        engine=NAME,
        engine_version=NEWEST,
        kind="serve",
        devices=places,
        host=DeviceEstimate("host", 0, machine.host_bytes, ()),
        capacity=_capacity(subject, places, question, context, element),
        notes=(
            *subject.notes,
            *subject.recipe.notes,
            "the minimum that the maths needs; an engine adds workspaces, padding and what it reserves",
        ),
        remedies=_remedies(places, subject, cache),
        details={"context": context, "kv_cache_dtype": kv_dtype, "dtype": dtype},
    )


def _capacity(
    subject: Subject, places: tuple[DeviceEstimate, ...], question: Question, context: int, element: int
) -> Capacity | None:
    """How far the cache could grow into what is free."""
    architecture = subject.architecture
    if any(place.usable_bytes is None for place in places):
        return None
    held = sum(term.bytes for place in places for term in place.terms if term.name == "kv_cache")
    free = sum((place.usable_bytes or 0) - place.peak_bytes for place in places) + held
    limit = architecture.max_positions or context
    low, high = 0, limit
    while low < high:
        middle = (low + high + 1) // 2
        if int(cache_bytes(architecture, middle, element)) <= free:
            low = middle
        else:
            high = middle - 1
    one = int(cache_bytes(architecture, context, element))
    if not one:
        return None
    concurrency = max(0.0, free / one)
    return Capacity(int(concurrency * context), low, concurrency)


def _remedies(places: tuple[DeviceEstimate, ...], subject: Subject, cache: int) -> tuple[str, ...]:
    short = [
        place for place in places if place.usable_bytes is not None and place.peak_bytes > place.usable_bytes
    ]
    if not short:
        return ()
    missing = sum(place.peak_bytes - (place.usable_bytes or 0) for place in short)
    remedies = [f"{format_bytes(missing)} more memory, or another device beside it"]
    if cache > missing:
        remedies.insert(0, "a shorter context or fewer users")
    if subject.recipe.name in ("bf16", "fp16", "fp32"):
        remedies.insert(0, "quantized weights (--format nf4, awq or q4_0)")
    return tuple(remedies)
