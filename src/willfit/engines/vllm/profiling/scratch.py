"""Scratch space of vLLM's expert and sparse-attention kernels, and what the profile run rehearses for them.

Each of these is as large as the profile's batch or the longest sequence makes it. In later versions they share one
buffer that grows to the largest request and stays (`v1/worker/workspace.py`).
"""

from __future__ import annotations

from willfit.architectures.mixers import LatentAttention
from willfit.architectures.model import Architecture, FeedForward
from willfit.engines.vllm.cache.specs import index_bytes_per_token
from willfit.engines.vllm.eras import Era
from willfit.engines.vllm.settings import Resolved, Settings
from willfit.hardware.device import Device
from willfit.quantities import MIB, ceil_div

#: The indexer's largest block of logits (`VLLM_SPARSE_INDEXER_MAX_LOGITS_MB`).
_INDEX_LOGITS = 512 * MIB

#: FlashMLA's sparse kernel gathers the latents of this many prompts of the longest length, in 16 bits
#: (`v1/attention/backends/mla/flashmla_sparse.py: get_prefill_workspace_size`).
_GATHERED_PROMPTS = 5

#: Rows of up-projected latents: eight prompts, or four blocks for each sequence, at most this many
#: (`MLACommonMetadataBuilder.determine_chunked_prefill_workspace_size`).
_MOST_LATENT_ROWS = 64 * 1024


def expert_scratch(
    ffn: FeedForward, hidden: int, tokens: int, size: int, settings: Settings, era: Era
) -> int:
    """Bytes of the routed tokens between the two products of a layer of experts.

    The modular kernels ask for room for the activated and for the projected tokens, each at least as wide as the
    model (`fused_moe/experts/triton_moe.py: workspace_shapes`); before, the two products shared one tensor beside the
    activated tokens and the sum (`fused_moe/fused_moe.py: fused_experts_impl`).
    """
    if not ffn.experts:
        return 0
    shards = 1 if settings.expert_parallel else settings.expert_ranks
    wide = ceil_div((2 if ffn.gated else 1) * ffn.expert_width, shards)
    activated = ceil_div(ffn.expert_width, shards)
    tokens = min(tokens, era.expert_chunk) if era.expert_chunk else tokens
    if era.scratch_kept:
        return tokens * ffn.top_k * (max(activated, hidden) + max(wide, hidden)) * size
    return tokens * (ffn.top_k * (max(wide, hidden) + activated) + hidden) * size


def index_scratch(architecture: Architecture, resolved: Resolved, device: Device) -> int:
    """Bytes that a sparse indexer gathers its keys into (`mla/indexer.py: get_max_prefill_buffer_size`)."""
    latent = _indexed(architecture)
    if latent is None:
        return 0
    length = resolved.max_model_len
    gathered = resolved.era.index_rows * length * index_bytes_per_token(latent)
    if device.compute_capability.startswith("9."):
        gathered = max(gathered, _GATHERED_PROMPTS * length * latent.latent_per_token * 2)
    return gathered


def rehearsed_bytes(
    mixer: LatentAttention, resolved: Resolved, settings: Settings, size: int, block_size: int
) -> int:
    """Bytes that the profile run allocates in place of what latent attention will take beside long prompts."""
    rehearsed = 0
    if resolved.era.rehearses_latents:
        least = resolved.max_num_seqs * block_size
        rows = max(min(max(8 * resolved.max_model_len, 4 * least), _MOST_LATENT_ROWS), least)
        heads = ceil_div(mixer.heads, settings.tensor_parallel)
        rehearsed = rows * heads * (mixer.nope_dim + mixer.value_dim) * size
    if resolved.era.rehearses_index and mixer.index_dim:
        rehearsed = max(rehearsed, _INDEX_LOGITS)
    return rehearsed


def _indexed(architecture: Architecture) -> LatentAttention | None:
    mixers = (mixer for layer, _ in architecture.blocks for mixer in layer.mixers)
    return next((mixer for mixer in mixers if isinstance(mixer, LatentAttention) and mixer.index_dim), None)
