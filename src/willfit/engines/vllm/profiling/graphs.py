"""What vLLM's captured CUDA graphs take, and what it expects of them."""

from __future__ import annotations

from willfit.calibration import Constant, constant
from willfit.engines.base import Subject
from willfit.engines.vllm.eras import Era
from willfit.engines.vllm.profiling.runner import uses_v2_runner
from willfit.engines.vllm.settings import Resolved, Settings
from willfit.engines.vllm.sources import source
from willfit.estimate import Term, between, combined
from willfit.hardware.device import Device


def graph_term(
    subject: Subject, resolved: Resolved, settings: Settings, device: Device, estimated: bool
) -> Term | None:
    """What captured CUDA graphs take, or what vLLM estimates that they will; None if they are off.

    Each graph has nodes of its own for each layer; a few graphs take no less than the pool that the largest needs.
    The estimate extrapolates from the two largest (`gpu_model_runner.py: profile_cudagraph_memory`).
    """
    sizes = len(resolved.capture_sizes) * resolved.graph_sets
    if not sizes:
        return None
    layers = len(subject.architecture.layers)
    least, each = (
        constant("vllm.graphs_least"),
        constant(graph_constant(subject, device), "vllm.graphs_taken"),
    )
    count = layers * sizes
    spread = each.value * count >= least.value
    parts = [_times(each, count) if spread else _times(least, 1)]
    formula = f"{layers} layers x {sizes} captured sizes x {each.value:.15g} B"
    if not spread:
        formula = f"(the largest of each: {formula}, pool: {least.value:.15g} B)"
    if estimated:
        more = constant("vllm.graphs_overestimated")
        parts.append(_times(more, 1))
        formula += f" + {more.value:.15g} B that the engine expects beyond"
    size, low, high = combined(parts)
    reference = f"{source('graphs', settings.version, resolved.era)}; {(each if spread else least).reference}"
    return between("cuda_graphs", size, max(0, low), high, formula, reference)


def graphs_are_subtracted(subject: Subject, settings: Settings, era: Era) -> bool:
    """Whether an estimate of the graphs comes off the budget (`VLLM_MEMORY_PROFILER_ESTIMATE_CUDAGRAPHS`)."""
    if uses_v2_runner(subject, settings) and not era.v2_estimates_graphs:
        return False
    return era.graphs_inside if settings.estimate_cudagraphs is None else settings.estimate_cudagraphs


def _times(one: Constant, count: int) -> Term:
    return Term("", int(count * one.value), int(count * one.low), int(count * one.high))


def graph_constant(subject: Subject, device: Device) -> str:
    """Name of the constant for a layer's share of one graph.

    HIP's graphs are another implementation; kernels that unpack weights on the way take more.
    """
    if device.vendor == "AMD":
        return "vllm.graphs_taken.amd"
    if subject.recipe.method == "bitsandbytes":
        return "vllm.graphs_taken.bitsandbytes"
    return "vllm.graphs_taken"
