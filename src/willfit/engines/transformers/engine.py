"""Hugging Face transformers' generate(): loading, prefill and decoding, put together.

A device's peak is that of its worst moment: loading, the layers of the prefill, its logits, the first
or the last decoding step. The terms are those of that moment.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from willfit.calibration import constant
from willfit.engines.base import Machine, Subject
from willfit.engines.caching_allocator import REFERENCE as ALLOCATOR
from willfit.engines.caching_allocator import cublas_workspace
from willfit.engines.transformers.loading import load, runs_dequantized, scratch_bytes
from willfit.engines.transformers.moments import Moment, Run, moments, stale_segments
from willfit.engines.transformers.placement import Share, place
from willfit.engines.transformers.settings import Settings
from willfit.estimate import DeviceEstimate, Estimate, Term, between, combined, exact
from willfit.formats.plain import Plain
from willfit.hardware.device import Device
from willfit.quantities import at_least

NAME = "transformers"

#: How many tensors `core_model_loading.py` reads ahead.
_LOADERS = 4

#: A value with its 90 % interval: bytes, low, high.
Interval = tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class _Place:
    """One device with what it holds of the model."""

    index: int
    device: Device
    share: Share
    part: float
    alone: bool

    def size(self, moment: Moment) -> float:
        """Bytes of a moment on this device. The logits end up where the prompt came from."""
        returned = self.share.first and not self.share.last
        logits = moment.logits * self.share.last + moment.returned * returned
        return (moment.kv_cache + moment.slack) * self.part + moment.activations + logits


def estimate(subject: Subject, machine: Machine, settings: Settings) -> Estimate:
    """What transformers would allocate to load a model and generate with it.

    Parameters
    ----------
    subject
        The model as it is stored.
    machine
        The devices that it is spread over, whole layers each, and the host.
    settings
        How it is loaded, and what is generated.

    Returns
    -------
    Estimate
        `details["devices"]` has for each device `moment`, the name of its worst moment; as (bytes, low, high)
        `allocated`, `reserved` (torch's two counters) and `process` (what the driver counts, with the CUDA
        context); and `stages`, the bytes of all stages of the prefill together.

    Raises
    ------
    BadInput
        If a setting makes no sense.
    """
    recipe = subject.recipe
    quantized = recipe.rule is not None or not isinstance(recipe.base, Plain)
    dtype = settings.resolved_dtype(subject.architecture.dtype, quantized)
    devices = machine.devices
    dequantized = bool(devices) and runs_dequantized(subject, devices[0])
    loaded = load(subject, settings.era, dtype, settings.tensor_parallel, dequantized)
    run = Run(subject, settings, settings.era, dtype, loaded)
    if settings.tensor_parallel > 1 or not devices:
        shares, left = [Share(loaded.layers, True, True)] * len(devices), Share(0)
    else:
        usable = [device.usable_bytes for device in devices]
        shares, left = place(loaded, usable, settings.device_map == "sequential", settings.offload)
    found = moments(run)
    parts = [
        _device(
            run,
            _Place(index, device, share, share.layers / max(loaded.layers, 1), len(devices) == 1),
            left,
            found,
        )
        for index, (device, share) in enumerate(zip(devices, shares, strict=True))
    ]
    notes = list(subject.notes)
    if dequantized:
        notes.append(
            f"{devices[0].name} has no kernels for {recipe.name}: the weights are expanded to {dtype}"
        )
    if left.weights(loaded):
        notes.append(f"{left.layers} of {loaded.layers} layers stay in RAM and are brought in one by one")
    return Estimate(
        model=subject.model,
        engine=NAME,
        engine_version=settings.version,
        kind="generate",
        devices=tuple(part for part, _ in parts),
        host=_host(run, machine, left),
        notes=tuple(notes),
        details={"devices": [detail for _, detail in parts]},
    )


def _device(
    run: Run, place: _Place, left: Share, found: list[Moment]
) -> tuple[DeviceEstimate, dict[str, Any]]:
    device, share, part = place.device, place.share, place.part
    worst = max(found, key=place.size)
    terms = [*_resident(run, place, left), *_passing(run, place, worst)]
    allocated = _spread(combined(terms), constant("transformers.allocated_ratio"))
    context = constant("transformers.cuda_context")
    runtime = between(
        "runtime",
        int(context.value),
        int(context.low),
        int(context.high),
        "CUDA context and loaded kernels",
        context.reference,
    )
    resident = sum(term.bytes for term in terms if term.name not in ("kv_cache", "activations", "logits"))
    stages = sum(
        int(moment.activations + moment.logits * share.last)
        for moment in found
        if moment.name.startswith("prefill")
    )
    stages += int(
        max((moment.kv_cache for moment in found if moment.name.startswith("prefill")), default=0) * part
    )
    reserved = _reserved(run, device, allocated, resident + stages, worst, part, runtime)
    shown = allocated[0] if worst.name.startswith("decoding") else reserved[0]
    detail = {
        "moment": worst.name,
        "allocated": allocated,
        "reserved": reserved,
        "process": (
            shown + runtime.bytes,
            allocated[1] + runtime.low_bytes,
            reserved[2] + runtime.high_bytes,
        ),
        "resident": resident,
        "stages": stages,
    }
    total, low, high = combined(terms)
    widened = between(
        "unexplained",
        0,
        (allocated[1] - low) if allocated[1] < low else 0,
        (allocated[2] - high) if allocated[2] > high else 0,
        "spread of published peaks around these rules",
        constant("transformers.allocated_ratio").reference,
    )
    return DeviceEstimate(device.name, place.index, device.usable_bytes, (*terms, widened, runtime)), detail
