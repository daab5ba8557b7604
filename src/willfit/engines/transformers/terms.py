"""The terms of one device at its worst moment."""

from __future__ import annotations

from willfit.calibration import constant
from willfit.engines.caching_allocator import REFERENCE as ALLOCATOR
from willfit.engines.caching_allocator import cublas_workspace
from willfit.engines.transformers.draft import draft_terms
from willfit.engines.transformers.loading import scratch_bytes
from willfit.engines.transformers.moments import Moment
from willfit.engines.transformers.plan import Place, Plan
from willfit.engines.transformers.sources import SOURCES
from willfit.estimate import Term, between, exact


def resident(plan: Plan, place: Place, worst: Moment) -> list[Term]:
    """What stays from loading on: weights and what belongs to them, and workspaces of libraries."""
    run, share = plan.run, place.share
    loaded, settings = run.loaded, run.settings
    weights = share.weights(loaded)
    streamed = plan.streamed if place.index == 0 else 0
    copies = int(loaded.matrices * place.part) * 2 if settings.autocast else 0
    scratch = scratch_bytes(run.subject, run.era, settings.quantization_kernel, loaded)
    # Each thread has a handle of cuBLAS of its own, and each handle its workspace.
    multiplies = worst.name != "loading" and not place.device.is_cpu
    library = cublas_workspace(place.device.compute_capability) * settings.threads if multiplies else 0
    less, more = run.subject.weight_sureness
    buffers, rounding = int(loaded.buffers * place.part), loaded.slack * weights // max(loaded.total, 1)
    terms = [
        between(
            "weights",
            weights,
            int(weights * less) - place.guessed,
            int(weights * more),
            f"{weights} B of tensors ({run.subject.recipe.name}), {share.layers} of {loaded.layers} layers, "
            f"plain ones in {run.dtype}",
            SOURCES.cite("weights", settings.version),
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
            SOURCES.cite("rotary", settings.version),
        ),
        exact(
            "workspace",
            library + scratch,
            f"{library + scratch} B of cuBLAS and quantized kernels",
            "torch aten/src/ATen/cuda/CublasHandlePool.cpp",
        ),
        exact(
            "rounding",
            rounding,
            f"{rounding} B: blocks of weights from 10 MiB on are rounded up to 2 MiB",
            ALLOCATOR,
        ),
        *(draft_terms(run, place.device) if place.index == 0 else ()),
    ]
    return [term for term in terms if term.bytes]


def passing(plan: Plan, place: Place, worst: Moment, held: int) -> list[Term]:
    """What comes and goes: cache, activations, logits, and how far published peaks lie around these rules.

    Parameters
    ----------
    held
        Bytes of what stays.
    """
    run = plan.run
    version, threads = run.settings.version, run.settings.threads
    cache, slack = int(worst.kv_cache * place.part) * threads, int(worst.slack * place.part) * threads
    logits = (worst.logits * place.share.last + worst.returned * place.returned) * threads
    activations = worst.activations * threads
    spread = constant("transformers.allocated_ratio")
    total = held + cache + activations + logits
    low = max(activations - int(total * (1 - spread.low)), 0)
    high = activations + int(total * (spread.high - 1))
    terms = [
        exact(
            "kv_cache",
            cache,
            _each(_of_layers(worst.kv_formula, plan, place), threads),
            SOURCES.cite("cache", version),
        ),
        between(
            "activations",
            activations,
            low,
            high,
            f"{worst.name}: {_each(worst.activations_formula, threads)}",
            f"{SOURCES.cite('layers', version)}; {spread.reference}",
        ),
        exact(
            "logits",
            logits,
            f"{logits} B of the logits that come back"
            if place.returned
            else _each(worst.logits_formula, threads),
            SOURCES.cite("logits", version),
        ),
        between(
            "fragmentation",
            slack,
            0,
            int(worst.slack_high * place.part) * threads,
            f"{slack} B expected, up to 1 MiB in each block of a growing cache",
            ALLOCATOR,
        ),
    ]
    return [term for term in terms if term.high_bytes]


def _each(formula: str, threads: int) -> str:
    """The formula of what each thread has of its own."""
    return formula if threads == 1 or not formula else f"({formula}) x {threads} threads"


def _of_layers(formula: str, plan: Plan, place: Place) -> str:
    """The formula of what all layers take, for the layers of a place."""
    if place.part == 1:
        return formula
    return f"({formula}) x {place.share.layers}/{plan.run.loaded.layers} of the layers"
