"""Hugging Face transformers' generate(): loading, prefill and decoding, put together.

A device's peak is that of its worst moment: loading, the layers of the prefill, its logits, the first
or the last decoding step. The terms are those of that moment.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from willfit.architectures.mixers import Recurrent
from willfit.architectures.model import Architecture
from willfit.calibration import constant
from willfit.engines.base import Machine, Subject
from willfit.engines.caching_allocator import REFERENCE as ALLOCATOR
from willfit.engines.caching_allocator import cublas_workspace
from willfit.engines.context import context_term
from willfit.engines.transformers.loading import load, runs_dequantized, scratch_bytes
from willfit.engines.transformers.models import support
from willfit.engines.transformers.moments import Moment, Run, moments, stale_segments
from willfit.engines.transformers.placement import Share, place
from willfit.engines.transformers.settings import Settings
from willfit.engines.transformers.sources import SOURCES
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
    """One device with what it holds of the model, and its part of all layers."""

    index: int
    device: Device
    share: Share
    part: float

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
        context); `resident`, the bytes that stay from loading on, and `stages`, those of the cache and of all
        stages of the prefill added up.

    Raises
    ------
    BadInput
        If a setting makes no sense.
    """
    if settings.fused_modules:
        settings = replace(settings, cache="static")
    recipe = subject.recipe
    quantized = recipe.rule is not None or not isinstance(recipe.base, Plain)
    dtype = settings.resolved_dtype(subject.architecture.dtype, quantized)
    devices = machine.devices
    dequantized = bool(devices) and runs_dequantized(subject, devices[0])
    era = replace(settings.era, rope_tables="none") if settings.fused_modules else settings.era
    loaded = load(subject, era, dtype, settings.tensor_parallel, dequantized)
    run = Run(subject, settings, era, dtype, loaded)
    if settings.tensor_parallel > 1 or not devices:
        shares, left = [Share(loaded.layers, True, True)] * len(devices), Share(0)
    else:
        usable = [
            device.usable_bytes and device.usable_bytes - context_term(device).bytes for device in devices
        ]
        shares, left = place(loaded, usable, settings.device_map == "sequential", settings.offload)
    found = moments(run)
    parts = [
        _device(
            run,
            _Place(index, _with_ram(device, machine), share, share.layers / max(loaded.layers, 1)),
            left,
            found,
        )
        for index, (device, share) in enumerate(zip(devices, shares, strict=True))
    ]
    notes = [*subject.notes, *_support(subject.architecture, settings.version)]
    if dequantized:
        notes.append(
            f"{devices[0].name} has no kernels for {recipe.name}: the weights are expanded to {dtype}"
        )
    if any(
        isinstance(mixer, Recurrent) for layer, _ in subject.architecture.blocks for mixer in layer.mixers
    ):
        notes.append("recurrent layers are counted with fused kernels; transformers' own fallback needs more")
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
        details={
            "devices": [detail for _, detail in parts],
            "dtype": dtype,
            "tensor_parallel": settings.tensor_parallel,
            "era": era,
        },
    )


def _support(architecture: Architecture, version: str) -> list[str]:
    found = support(architecture, version)
    if found.runs or not architecture.class_names:
        return []
    versions = f" ({found.versions})" if found.versions else ""
    return [
        f"transformers {version} has no {architecture.model_type!r} models{versions}; it runs them with code that "
        "comes with a checkpoint, if at all"
    ]


def _device(
    run: Run, place: _Place, left: Share, found: list[Moment]
) -> tuple[DeviceEstimate, dict[str, Any]]:
    worst = max(found, key=place.size)
    resident = _resident(run, place, left, worst)
    passing = _passing(run, place, worst, sum(term.bytes for term in resident))
    runtime = context_term(place.device)
    terms = (*resident, *passing, runtime)
    allocated = combined((*resident, *passing))
    prefill = [moment for moment in found if moment.name.startswith("prefill")]
    stages = sum(int(place.size(moment) - moment.kv_cache * place.part) for moment in prefill)
    stages += max((int(moment.kv_cache * place.part) for moment in prefill), default=0)
    fixed = sum(term.bytes for term in resident)
    reserved = _reserved(run, place, allocated, fixed + stages, worst, runtime)
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
        "resident": fixed,
        "stages": stages,
    }
    return DeviceEstimate(place.device.name, place.index, place.device.usable_bytes, terms), detail


def _with_ram(device: Device, machine: Machine) -> Device:
    """A processor computes in the host's RAM."""
    return replace(device, usable_bytes=machine.host_bytes) if device.is_cpu else device


def _resident(run: Run, place: _Place, left: Share, worst: Moment) -> list[Term]:
    """What stays from loading on: weights and what belongs to them, and cuBLAS's workspace."""
    loaded, share, version = run.loaded, place.share, run.settings.version
    weights = share.weights(loaded)
    streamed = loaded.layer // max(loaded.layers, 1) if place.index == 0 and left.layers else 0
    copies = int(loaded.matrices * place.part) * 2 if run.settings.autocast else 0
    kernel = run.settings.quantization_kernel
    workspace = scratch_bytes(run.subject, run.era, kernel, loaded)
    if worst.name != "loading" and not place.device.is_cpu:
        workspace += cublas_workspace(place.device.compute_capability)
    less, more = run.subject.weight_sureness
    buffers, rounding = int(loaded.buffers * place.part), loaded.slack * weights // max(loaded.total, 1)
    terms = [
        between(
            "weights",
            weights,
            int(weights * less),
            int(weights * more),
            f"{weights} B of tensors ({run.subject.recipe.name}), {share.layers} of {loaded.layers} layers, "
            f"plain ones in {run.dtype}",
            SOURCES.cite("weights", version),
        ),
        exact(
            "staging",
            streamed,
            f"{streamed} B of one layer, brought in from RAM",
            "accelerate hooks.py: AlignDevicesHook",
        ),
        exact(
            "autocast_copies",
            copies,
            f"{copies} B of 16-bit copies of the matrices",
            "torch aten/src/ATen/autocast_mode.cpp",
        ),
        exact(
            "buffers",
            buffers,
            f"{buffers} B of rotary tables and masks of {share.layers} layers",
            SOURCES.cite("rotary", version),
        ),
        exact(
            "workspace",
            workspace,
            f"{workspace} B of cuBLAS and quantized kernels",
            "torch aten/src/ATen/cuda/CublasHandlePool.cpp",
        ),
        exact(
            "rounding",
            rounding,
            f"{rounding} B: blocks of weights from 10 MiB on are rounded up to 2 MiB",
            ALLOCATOR,
        ),
    ]
    return [term for term in terms if term.bytes]


def _passing(run: Run, place: _Place, worst: Moment, resident: int) -> list[Term]:
    """What comes and goes: cache, activations, logits, and how far published peaks lie around these rules."""
    version = run.settings.version
    cache, slack = int(worst.kv_cache * place.part), int(worst.slack * place.part)
    returned = place.share.first and not place.share.last
    logits = worst.logits * place.share.last + worst.returned * returned
    spread = constant("transformers.allocated_ratio")
    total = resident + cache + worst.activations + logits
    low = max(worst.activations - int(total * (1 - spread.low)), 0)
    high = worst.activations + int(total * (spread.high - 1))
    terms = [
        exact("kv_cache", cache, _of_layers(worst.kv_formula, run, place), SOURCES.cite("cache", version)),
        between(
            "activations",
            worst.activations,
            low,
            high,
            f"{worst.name}: {worst.activations_formula}",
            f"{SOURCES.cite('layers', version)}; {spread.reference}",
        ),
        exact(
            "logits",
            logits,
            f"{logits} B of the logits that come back" if returned else worst.logits_formula,
            SOURCES.cite("logits", version),
        ),
        between(
            "fragmentation",
            slack,
            0,
            int(worst.slack_high * place.part),
            f"{slack} B expected, up to 1 MiB in each block of a growing cache",
            ALLOCATOR,
        ),
    ]
    return [term for term in terms if term.high_bytes]


def _of_layers(formula: str, run: Run, place: _Place) -> str:
    """The formula of what all layers take, for the layers of a place."""
    return (
        formula
        if place.part == 1
        else f"({formula}) x {place.share.layers}/{run.loaded.layers} of the layers"
    )


def _reserved(
    run: Run, place: _Place, allocated: Interval, stages: int, worst: Moment, runtime: Term
) -> Interval:
    """What torch keeps reserved.

    Blocks of one stage are rarely of use to another, so all stages of the prefill add up; a growing cache
    leaves outgrown segments behind. torch gives cached segments back before it fails, so the device's size
    is the limit.
    """
    ratio = constant("transformers.reserved_ratio")
    value = max(int(stages * ratio.value), allocated[0])
    low, high = allocated[1], max(int(stages * ratio.high), allocated[2])
    if worst.name.startswith("decoding"):
        once = [
            max(int(bytes_ * place.part - worst.kv_cache * place.part), 0) for bytes_ in stale_segments(run)
        ]
        value = max(value, allocated[0] + once[0])
        high = max(high, allocated[2] + once[2])
    usable = place.device.usable_bytes
    if usable is not None:
        limit = int(at_least(usable - runtime.bytes, allocated[0]))
        value, low, high = min(value, limit), min(low, limit), min(high, max(limit, allocated[2]))
    return value, low, high


def _host(run: Run, machine: Machine, left: Share) -> DeviceEstimate:
    loaded, settings = run.loaded, run.settings
    version = settings.version
    terms = []
    if not machine.devices or settings.device_map is None:
        terms.append(
            exact(
                "weights",
                loaded.total,
                f"{loaded.total} B of the whole model in {run.dtype}, before it is moved",
                SOURCES.cite("weights", version),
            )
        )
    else:
        terms.append(
            between(
                "staging",
                loaded.largest,
                0,
                _LOADERS * loaded.largest,
                f"{loaded.largest} B of the largest tensor, 1 to {_LOADERS} on their way; files are mapped",
                SOURCES.cite("staging", version),
            )
        )
    offloaded = left.weights(loaded)
    if offloaded:
        terms.append(
            exact(
                "offloaded_weights",
                offloaded,
                f"{offloaded} B of {left.layers} layers",
                "accelerate big_modeling.py: dispatch_model",
            )
        )
    if settings.cache == "offloaded" and settings.phase == "generate":
        size = settings.batch * run.kept(run.last_tokens, True).elements * run.width
        formula = f"{size} B of all layers of the cache"
        terms.append(exact("offloaded_cache", size, formula, SOURCES.cite("cache", version)))
    return DeviceEstimate("host", 0, machine.host_bytes, tuple(terms))
