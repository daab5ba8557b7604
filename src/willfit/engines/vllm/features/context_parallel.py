"""Decode and prefill context parallelism: ranks that each hold a share of a sequence's tokens.

`config/parallel.py`, `config/model.py: verify_with_parallel_config`, `v1/kv_cache_interface.py` (0.33). Decode ranks
are tensor-parallel ranks, prefill ranks are devices of their own.
"""

from __future__ import annotations

from dataclasses import dataclass

from willfit.architectures.mixers import Attention, CompressedAttention, LatentAttention, Mixer
from willfit.architectures.model import Architecture
from willfit.engines.versions import Version, era_of
from willfit.engines.vllm.settings import Settings


@dataclass(frozen=True, slots=True)
class ContextEra:
    """What context parallelism can do from a version on.

    Attributes
    ----------
    since
        First version that behaves so.
    decode
        Tokens are spread while decoding.
    grouped_queries
        Also for grouped queries, where key/value heads would be repeated; before, for latents only.
    prefill
        Tokens are spread while prefilling.
    groups
        Also for models with several cache groups.
    """

    since: Version
    decode: bool = False
    grouped_queries: bool = False
    prefill: bool = False
    groups: bool = False


ERAS = (
    ContextEra((0, 0)),
    ContextEra((0, 10, 2), decode=True),
    ContextEra((0, 12), decode=True, grouped_queries=True),
    ContextEra((0, 26), decode=True, grouped_queries=True, prefill=True, groups=True),
)


def context_refusal(architecture: Architecture, settings: Settings) -> str:
    """Why tokens cannot be spread so; empty if they can, or are not."""
    decode, prefill = settings.decode_context_parallel, settings.prefill_context_parallel
    ranks = settings.tensor_parallel
    if decode == prefill == 1:
        return ""
    era = era_of(settings.version, ERAS)
    if prefill > 1 and not era.prefill:
        return "no attention of this version of vLLM runs prefill context parallel; it came with 0.26"
    if decode > 1 and not era.decode:
        return "this version of vLLM has no decode context parallelism; it came with 0.10.2"
    if prefill > 1 and decode not in (1, prefill, ranks * prefill):
        return f"beside {prefill} prefill context ranks, decode context ranks are 1, {prefill} or {ranks * prefill}"
    if prefill > 1 and settings.pipeline_parallel > 1:
        return "vLLM has no prefill context parallelism with pipeline stages"
    if prefill == 1 and ranks % decode:
        return f"{ranks} tensor-parallel ranks cannot be divided into {decode} decode context ranks"
    if decode == 1:
        return ""
    return _attention(architecture, settings, era)


def _attention(architecture: Architecture, settings: Settings, era: ContextEra) -> str:
    mixers: list[Mixer] = [mixer for layer, _ in architecture.blocks for mixer in layer.mixers]
    kept = [mixer for mixer in mixers if isinstance(mixer, Attention) and mixer.keeps_cache]
    compressed = any(isinstance(mixer, CompressedAttention) for mixer in mixers)
    if compressed or any(mixer.window or mixer.chunk for mixer in kept):
        return "vLLM has no decode context parallelism for sliding windows or chunks"
    if any(mixer.fixed_states for mixer in mixers) and not era.groups:
        return (
            "this version has no decode context parallelism for models with state layers; it came with 0.26"
        )
    if any(isinstance(mixer, LatentAttention) for mixer in mixers):
        return ""
    if not era.grouped_queries:
        return "this version spreads latents only over decode context ranks; grouped queries came with 0.12"
    decode, ranks = settings.decode_context_parallel, settings.tensor_parallel
    for mixer in kept:
        most = ranks // mixer.kv_heads
        if ranks <= mixer.kv_heads or decode > most:
            return (
                f"{mixer.kv_heads} key/value heads on {ranks} tensor-parallel ranks leave "
                f"{max(1, most)} decode context ranks, {decode} are asked for"
            )
        if mixer.heads // mixer.kv_heads % decode:
            return (
                f"{mixer.heads // mixer.kv_heads} queries for each key/value head cannot be divided over {decode} "
                "decode context ranks"
            )
    return ""
