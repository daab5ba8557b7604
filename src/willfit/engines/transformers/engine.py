"""Hugging Face transformers' generate(): loading, prefill and decoding, put together.

A device's peak is that of its worst moment: loading, the layers of the prefill, its logits, the first
or the last decoding step. The terms are those of that moment.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from willfit.architectures.mixers import Recurrent
from willfit.architectures.model import Architecture
from willfit.engines.base import Machine, Subject
from willfit.engines.context import context_term
from willfit.engines.transformers.devices import device_refusal
from willfit.engines.transformers.host import host_estimate
from willfit.engines.transformers.models import support
from willfit.engines.transformers.plan import Place, Plan, plan
from willfit.engines.transformers.settings import Settings
from willfit.engines.transformers.terms import passing, resident
from willfit.errors import BadInput
from willfit.estimate import DeviceEstimate, Estimate, combined
from willfit.quantities import format_bytes

NAME = "transformers"


def estimate(subject: Subject, machine: Machine, settings: Settings) -> Estimate:
    """What transformers would allocate to load a model and generate with it.

    Parameters
    ----------
    subject
        The model as it is stored; its draft is the assistant model.
    machine
        The devices that it is spread over, whole layers each, and the host.
    settings
        How it is loaded, and what is generated.

    Returns
    -------
    Estimate
        `details["devices"]` has for each device `moment`, the name of its worst moment; `allocated`, torch's peak as
        (bytes, low, high); and `resident`, the bytes that stay from loading on. What other counters would show is
        `readings.readings`.

    Raises
    ------
    BadInput
        If a setting makes no sense.
    """
    if subject.draft is not None and settings.batch > 1:
        raise BadInput(
            "assisted decoding takes one sequence at a time", "use a batch of 1, or no assistant model"
        )
    laid_out = plan(subject, machine, settings)
    run = laid_out.run
    parts = [_device(laid_out, place) for place in laid_out.places]
    peaks = [(place.device, part.peak_bytes) for place, (part, _) in zip(laid_out.places, parts, strict=True)]
    host = replace(host_estimate(laid_out, machine), usable_bytes=machine.host_beside(peaks))
    return Estimate(
        model=subject.model,
        engine=NAME,
        engine_version=settings.version,
        kind="generate",
        devices=tuple(part for part, _ in parts),
        host=host,
        notes=(*subject.notes, *_notes(laid_out)),
        refusal=device_refusal(subject, machine, settings.version),
        details={
            "devices": [detail for _, detail in parts],
            "dtype": run.dtype,
            "tensor_parallel": settings.tensor_parallel,
            "era": run.era,
            "logits_per_row": subject.architecture.logits_per_row,
        },
    )


def _device(laid_out: Plan, place: Place) -> tuple[DeviceEstimate, dict[str, Any]]:
    worst = laid_out.worst(place)
    held = resident(laid_out, place, worst)
    fixed = sum(term.bytes for term in held)
    terms = (*held, *passing(laid_out, place, worst, fixed))
    detail = {"moment": worst.name, "allocated": combined(terms), "resident": fixed}
    runtime = context_term(place.device)
    return DeviceEstimate(
        place.device.name, place.index, place.device.usable_bytes, (*terms, runtime)
    ), detail


def _notes(laid_out: Plan) -> list[str]:
    run = laid_out.run
    subject, settings = run.subject, run.settings
    notes = _support(subject.architecture, settings.version)
    if laid_out.dequantized:
        notes.append(
            f"{laid_out.places[0].device.name} has no kernels for {subject.recipe.name}: the weights are expanded to "
            f"{run.dtype}"
        )
    if any(
        isinstance(mixer, Recurrent) for layer, _ in subject.architecture.blocks for mixer in layer.mixers
    ):
        notes.append("recurrent layers are counted with fused kernels; transformers' own fallback needs more")
    if subject.gguf is not None:
        unpacked = 4 * sum(line.tensor.elements * line.times for line in subject.lines)
        notes.append(
            "the tensors of a GGUF file are counted as they are; older versions, and devices for which the package "
            f"kernels has none, unpack them: {format_bytes(unpacked)} in fp32"
        )
    total = run.loaded.layers
    if laid_out.in_ram.weights(run.loaded):
        notes.append(f"{laid_out.in_ram.layers} of {total} layers stay in RAM and are brought in one by one")
    if laid_out.on_disk.weights(run.loaded):
        notes.append(
            f"{laid_out.on_disk.layers} of {total} layers stay on disk and are read for every token: very slow"
        )
    if settings.threads > 1:
        notes.append(
            f"{settings.threads} threads share the weights; their peaks need not coincide, so this is the most"
        )
    return notes


def _support(architecture: Architecture, version: str) -> list[str]:
    found = support(architecture, version)
    if found.runs or not architecture.class_names:
        return []
    versions = f" ({found.versions})" if found.versions else ""
    return [
        f"transformers {version} has no {architecture.model_type!r} models{versions}; it runs them with code that "
        "comes with a checkpoint, if at all"
    ]
