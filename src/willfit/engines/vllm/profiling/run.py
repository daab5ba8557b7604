"""What a rank decides and takes whatever its weights are stored in: settings, cache plan, profile run, libraries."""

from __future__ import annotations

from dataclasses import dataclass, replace

from willfit.engines.base import Subject
from willfit.engines.context import context_term
from willfit.engines.vllm.cache.compressed_plan import plan_compressed
from willfit.engines.vllm.cache.plan import CachePlan, plan_cache
from willfit.engines.vllm.cache.specs import block_size_for, cache_specs, is_compressed, kv_dtype_of
from willfit.engines.vllm.devices.dtypes import model_dtype
from willfit.engines.vllm.eras import era_for
from willfit.engines.vllm.features.drafts import draft_specs
from willfit.engines.vllm.features.lora import graph_sets
from willfit.engines.vllm.host import joins_groups
from willfit.engines.vllm.profiling.graphs import graph_term, graphs_are_subtracted
from willfit.engines.vllm.profiling.peak import activation_term, buffers_term
from willfit.engines.vllm.profiling.runtime import runtime_term
from willfit.engines.vllm.settings import Resolved, Settings, resolve
from willfit.estimate import Term
from willfit.hardware.device import Device


@dataclass(frozen=True, slots=True)
class Run:
    """A rank without its weights.

    Attributes
    ----------
    plan
        How the cache is divided.
    activations, buffers, runtime, context, graphs
        Terms; None for buffers that stay and for graphs where there are none.
    graphs_inside
        An estimate of the graphs comes off the budget.
    """

    resolved: Resolved
    dtype: str
    kv_dtype: str
    plan: CachePlan
    activations: Term
    buffers: Term | None
    runtime: Term
    context: Term
    graphs: Term | None
    graphs_inside: bool


def run_of(subject: Subject, device: Device, settings: Settings) -> Run:
    """Resolve settings, plan the cache, and go through the profile run.

    Of how the model is stored it only matters what it says of the cache, whether it is quantized at all
    (`runner.uses_v2_runner`), and whether it is so by bitsandbytes (`graphs.graph_constant`).

    Raises
    ------
    BadInput
        If the length of a sequence is not known.
    """
    architecture = subject.architecture
    era = era_for(settings.version, settings.generation)
    if settings.chunked_groups is not None:
        era = replace(era, chunked_groups=settings.chunked_groups)
    resolved = replace(resolve(settings, architecture, device, era), graph_sets=graph_sets(settings))
    dtype = model_dtype(subject, settings, device)
    kv_dtype = kv_dtype_of(settings, subject.recipe.kv_cache_dtype, dtype, architecture, device)
    specs = cache_specs(architecture, settings, resolved, kv_dtype, dtype, device)
    specs = [*specs, *draft_specs(subject, settings, resolved, kv_dtype, dtype, device, specs)]
    if is_compressed(architecture):
        plan = plan_compressed(specs, resolved)
    else:
        plan = plan_cache(specs, resolved, settings.hybrid_cache_manager and not joins_groups(settings))
    block_size = block_size_for(architecture, settings, kv_dtype, device)
    subtracted = graphs_are_subtracted(subject, settings, era)
    return Run(
        resolved,
        dtype,
        kv_dtype,
        plan,
        activation_term(subject, resolved, settings, dtype, device, block_size),
        buffers_term(subject, resolved, settings, device),
        runtime_term(settings, device, era),
        context_term(device),
        graph_term(subject, resolved, settings, device, subtracted),
        subtracted,
    )
