"""Hugging Face transformers' generate(): loading, prefill and decoding, put together.

A device's peak is that of its worst moment: loading, the layers of the prefill, its logits, the first
or the last decoding step. The terms are those of that moment.
"""

from __future__ import annotations

from typing import Any

from willfit.calibration import constant
from willfit.engines.base import Machine, Subject
from willfit.engines.caching_allocator import REFERENCE as ALLOCATOR
from willfit.engines.caching_allocator import cublas_workspace
from willfit.engines.transformers.loading import load, runs_dequantized
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
        `details["devices"]` has for each device `moment`, the name of its worst moment, and as (bytes, low,
        high) `allocated`, `reserved` (torch's two counters) and `process` (reserved and the CUDA context).

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
        shares, left = place(loaded, [device.usable_bytes for device in devices], settings.offload)
    found = moments(run)
    stale = stale_segments(run)
    parts = [
        _device(run, index, device, shares[index], left, found, stale) for index, device in enumerate(devices)
    ]
    notes = list(subject.notes)
    if dequantized:
        notes.append(
            f"{devices[0].name} has no kernels for {recipe.name}: the weights are expanded to {dtype}"
        )
    if left.layers or left.first or left.last:
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
    run: Run,
    index: int,
    device: Device,
    share: Share,
    left: Share,
    found: list[Moment],
    stale: tuple[int, int, int],
) -> tuple[DeviceEstimate, dict[str, Any]]:
    loaded, version = run.loaded, f"transformers {run.settings.version}"
    part = share.layers / max(loaded.layers, 1)
    worst = max(found, key=lambda moment: moment.size(part, share.last))
    weights = share.weights(loaded)
    terms = [
        exact(
            "weights",
            weights,
            f"{share.layers} of {loaded.layers} layers of {loaded.total} B, plain tensors in {run.dtype}",
            f"{version} modeling_utils.py",
        )
    ]

    def add(term: Term) -> None:
        if term.bytes or term.high_bytes:
            terms.append(term)

    streamed = loaded.layer // max(loaded.layers, 1) if index == 0 and left.layers else 0
    add(
        exact(
            "staging",
            streamed,
            "one layer that is brought in from RAM",
            "accelerate hooks.py: AlignDevicesHook",
        )
    )
    buffers = int(loaded.buffers * part)
    add(
        exact(
            "buffers", buffers, "rotary tables and masks, one per layer", f"{version} models/*/modeling_*.py"
        )
    )
    add(exact("kv_cache", int(worst.kv_cache * part), worst.kv_formula, f"{version} cache_utils.py"))
    add(
        exact(
            "activations",
            worst.activations,
            f"{worst.name}: {worst.activations_formula}",
            f"{version} models/llama/modeling_llama.py",
        )
    )
    if share.last:
        add(exact("logits", worst.logits, worst.logits_formula, f"{version} generation/utils.py"))
    slack, slack_high = int(worst.slack * part), int(worst.slack_high * part)
    rounding = loaded.slack * weights // max(loaded.total, 1)
    add(
        between(
            "fragmentation",
            rounding + slack,
            rounding,
            rounding + slack_high,
            f"{rounding} B of rounded weight blocks + up to 1 MiB in each block of a growing cache",
            ALLOCATOR,
        )
    )
    if worst.name != "loading":
        workspace = cublas_workspace(device.compute_capability)
        add(exact("workspace", workspace, "cuBLAS workspace", "torch CublasHandlePool.cpp"))
    allocated = combined(terms)
    context = constant("transformers.cuda_context")
    runtime = between(
        "runtime",
        int(context.value),
        int(context.low),
        int(context.high),
        "CUDA context and loaded kernels",
        context.reference,
    )
    reserved = _reserved(run, device, allocated, weights + buffers + rounding, worst, part, stale, runtime)
    detail = {
        "moment": worst.name,
        "allocated": allocated,
        "reserved": reserved,
        "process": (
            reserved[0] + runtime.bytes,
            min(reserved[1], allocated[1]) + runtime.low_bytes,
            reserved[2] + runtime.high_bytes,
        ),
    }
    return DeviceEstimate(device.name, index, device.usable_bytes, (*terms, runtime)), detail


def _reserved(
    run: Run,
    device: Device,
    allocated: tuple[int, int, int],
    resident: int,
    worst: Moment,
    part: float,
    stale: tuple[int, int, int],
    runtime: Term,
) -> tuple[int, int, int]:
    """What torch keeps reserved: value, low, high.

    Blocks of one stage are cut up for the next, which costs a share of everything that is not resident from
    the start; segments that a growing cache outgrew come on top. torch gives cached segments back before
    it fails, so the device's size is the limit.
    """
    ratio = constant("transformers.reserved_ratio")
    moving = allocated[0] - resident
    value = resident + int(moving * ratio.value)
    low = allocated[1] + int(moving * (ratio.low - 1))
    high = allocated[2] + int(moving * (ratio.high - 1))
    if worst.name.startswith("decoding"):
        cache = int(worst.kv_cache * part)
        value = allocated[0] + max(int(stale[0] * part) - cache, 0)
        low = allocated[1]
        high = max(high, allocated[2] + max(int(stale[2] * part) - cache, 0))
    if device.usable_bytes is not None:
        limit = int(at_least(device.usable_bytes - runtime.bytes, allocated[0]))
        value, low, high = min(value, limit), min(low, limit), min(high, limit)
    return value, low, high


def _host(run: Run, machine: Machine, left: Share) -> DeviceEstimate:
    loaded, settings = run.loaded, run.settings
    version = f"transformers {settings.version}"
    terms = []
    if not machine.devices or not settings.device_map:
        terms.append(
            exact(
                "weights",
                loaded.total,
                f"the whole model in {run.dtype}, before it is moved",
                f"{version} modeling_utils.py",
            )
        )
    else:
        most = _LOADERS * loaded.largest
        terms.append(
            between(
                "staging",
                loaded.largest,
                0,
                most,
                f"up to {_LOADERS} tensors on their way, of at most {loaded.largest} B each",
                f"{version} core_model_loading.py",
            )
        )
    if left.weights(loaded):
        terms.append(exact("offloaded_weights", left.weights(loaded), f"{left.layers} layers", "accelerate"))
    if settings.cache == "offloaded" and settings.phase == "generate":
        size = settings.batch * run.kept(run.last_tokens, True).elements * run.width
        terms.append(exact("offloaded_cache", size, "all layers of the cache", f"{version} cache_utils.py"))
    return DeviceEstimate("host", 0, machine.host_bytes, tuple(terms))
