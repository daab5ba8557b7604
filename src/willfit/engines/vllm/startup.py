"""vLLM's start-up until the cache is sized, in its own order: resolve settings, load weights, profile."""

from __future__ import annotations

from dataclasses import dataclass, replace

from willfit.engines.base import Subject
from willfit.engines.vllm.cache.plan import CachePlan
from willfit.engines.vllm.features.drafts import buffer_term, draft_term, falls_back
from willfit.engines.vllm.features.experts import all_to_all_term, balance_term
from willfit.engines.vllm.features.lora import lora_era, lora_term
from willfit.engines.vllm.features.offload import Offloaded
from willfit.engines.vllm.settings import Resolved, Settings
from willfit.engines.vllm.shared import Shared
from willfit.engines.vllm.sources import source
from willfit.estimate import Term, exact
from willfit.hardware.device import Device
from willfit.quantities import GIB


@dataclass(frozen=True, slots=True)
class Profile:
    """What vLLM decides and takes at start-up, on the fullest rank, but for the cache.

    Attributes
    ----------
    inside, outside
        Terms that count against vLLM's budget, and terms that come on top of it.
    plan
        How the cache is divided.
    after_loading_bytes
        Part of the weights term that is no parameter or buffer: made after loading, or the allocator's slack.
    moved
        Weights that each rank keeps in host RAM.
    refusal
        Why it would not start whatever the memory; empty otherwise.
    """

    resolved: Resolved
    dtype: str
    kv_dtype: str
    inside: tuple[Term, ...]
    outside: tuple[Term, ...]
    plan: CachePlan
    after_loading_bytes: int
    moved: Offloaded
    refusal: str

    def needed_bytes(self, sequences: int) -> int:
        """What sequences of the longest length need of the cache, with the block that newer versions keep back."""
        null = self.plan.bytes_per_block if self.resolved.era.null_block else 0
        return self.plan.bytes_for(self.resolved.max_model_len, sequences) + null


def profiled(subject: Subject, device: Device, settings: Settings, shared: Shared | None = None) -> Profile:
    """Go through vLLM's start-up until the cache is sized.

    Parameters
    ----------
    device
        Of its memory it only matters whether it is much (see `kinds.kind_of`).
    settings
        Settled (`features.tasks.settled`).
    shared
        What is known of earlier start-ups.

    Raises
    ------
    BadInput
        If the length of a sequence is not known.
    """
    if falls_back(subject, settings):
        settings = replace(settings, generation="v0")
    shared = shared or Shared()
    run = shared.run_of(subject, device, settings)
    resolved, dtype, era = run.resolved, run.dtype, run.resolved.era
    load = shared.loaded(subject, settings, dtype, device)
    inside = [load.weights, run.activations, run.runtime]
    outside: list[Term] = []
    (inside if era.context_inside else outside).append(run.context)
    if run.graphs is not None:
        (inside if run.graphs_inside else outside).append(run.graphs)
    if run.buffers is not None:
        (inside if era.whole_account else outside).append(run.buffers)
    for term, counted in _features(subject, settings, resolved, dtype, device, load.weights.bytes):
        if term is not None:
            (inside if counted else outside).append(term)
    return Profile(
        resolved=resolved,
        dtype=dtype,
        kv_dtype=run.kv_dtype,
        inside=tuple(inside),
        outside=tuple(outside),
        plan=run.plan,
        after_loading_bytes=load.after_loading_bytes,
        moved=load.moved,
        refusal=shared.refusal(subject, settings) or shared.device_refusal(subject, settings, device),
    )


def _features(
    subject: Subject, settings: Settings, resolved: Resolved, dtype: str, device: Device, weights: int
) -> list[tuple[Term | None, bool]]:
    """Terms of what a user may switch on, and whether they count against the budget.

    V0 has subtracted since 0.6.5 what the target's weights and the profile run take, and nothing else.
    """
    era = resolved.era
    counted = era.generation == "v1" or era.context_inside
    ipc = int(settings.mm_ipc_gpu_memory_gb * GIB) if subject.architecture.towers else 0
    return [
        (
            lora_term(subject, settings, resolved, dtype),
            lora_era(settings.version).in_loading or era.context_inside,
        ),
        (draft_term(subject, settings, resolved, dtype, device, weights), counted),
        (buffer_term(subject, settings, resolved, dtype), era.whole_account),
        (balance_term(subject, settings, dtype, device), True),
        (all_to_all_term(subject.architecture, settings, resolved), True),
        (
            exact("video_decoding", ipc, f"{ipc} B (as asked for)", source("video", settings.version, era))
            if ipc
            else None,
            True,
        ),
    ]
