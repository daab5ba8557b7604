"""What SGLang makes of the settings that the user leaves open."""

from __future__ import annotations

from dataclasses import dataclass

from willfit.architectures.model import Architecture, Tower
from willfit.engines.sglang.backends import attention_backend, has_latent, page_size
from willfit.engines.sglang.eras import CardClass, Era
from willfit.engines.sglang.settings import Settings
from willfit.errors import BadInput
from willfit.hardware.device import Device
from willfit.quantities import MIB

#: Share of the static memory that models with an image encoder keep, before the encoder's size is looked at, and the
#: encoder (ViT-L/14) that the share is for (`arg_groups/memory_hook.py: adjust_mem_fraction_for_vlm`).
_WITH_IMAGES = 0.95
_VIT_LAYERS, _VIT_HIDDEN = 24, 1024

#: Families whose configs call the encoder's layers `depth`: SGLang looks for `num_hidden_layers` and takes ViT-L's.
_DEPTH_FAMILIES = frozenset({"qwen_vl", "glm4v"})

#: Layers of Llama 3.2's encoder that its config counts apart.
_MLLAMA_GLOBAL = 8

#: Factor on the static share with AMD's attention kernels, for contexts beyond a length
#: (`server_args.py: _handle_attention_backend_compatibility`).
_AITER_SHARE, _AITER_CONTEXT = 0.85, 8192

#: Models whose sliding layers have a smaller pool than others
#: (`arg_groups/model_overrides/deepseek_v4.py`).
_WINDOW_RATIOS = {"deepseek_v4": 0.1}
_WINDOW_RATIO = 0.8

#: Requests that run at once where tokens are drafted (`arg_groups/speculative_hook.py`).
_DRAFTED_REQUESTS = 48


@dataclass(frozen=True, slots=True)
class Resolved:
    """What SGLang decides before it loads anything.

    Attributes
    ----------
    context_length
        Tokens of the longest sequence.
    max_running_requests
        As asked; 48 if tokens are drafted; None to follow the pool.
    chunk
        Tokens of a prompt that are processed at once.
    capture_sizes, prefill_sizes
        Batch sizes, and numbers of prompt tokens, for which CUDA graphs are captured.
    reserved_mib
        MiB that the default share leaves for activations and graphs; None if the share was given.
    """

    era: Era
    context_length: int
    max_running_requests: int | None
    chunk: int
    page_size: int
    mem_fraction_static: float
    swa_full_tokens_ratio: float
    capture_sizes: tuple[int, ...]
    prefill_sizes: tuple[int, ...]
    reserved_mib: float | None


def resolve(settings: Settings, architecture: Architecture, device: Device, era: Era) -> Resolved:
    """Fill in SGLang's defaults (`arg_groups/memory_hook.py: handle_gpu_memory_settings`).

    Raises
    ------
    BadInput
        If neither the settings nor the config say how long a sequence can be.
    """
    length = settings.context_length or architecture.max_positions
    if not length:
        raise BadInput("the config names no longest sequence", "give --context (SGLang: --context-length)")
    total = (device.reported_bytes or device.usable_bytes or 0) / MIB
    card = next(card for card in era.cards if total < card.below_mib)
    asked = card.chunk if settings.chunked_prefill_size is None else settings.chunked_prefill_size
    if settings.attn_dp_size > 1 and asked > 0:
        asked //= settings.attn_dp_size
    largest = settings.cuda_graph_max_bs or _graph_batch(card, settings)
    captured = () if settings.disable_cuda_graph else capture_sizes(largest, settings, era)
    prefill = _prefill_sizes(asked, settings, architecture, era)
    fraction, reserved = settings.mem_fraction_static, None
    if fraction is None:
        fraction, reserved = _fraction(settings, architecture, total, card, asked, largest, prefill, era)
    if era.image_share and _image_tower(settings, architecture) is not None:
        fraction *= era.image_share
    if attention_backend(settings, architecture, device, era) == "aiter" and length > _AITER_CONTEXT:
        fraction *= _AITER_SHARE
    return Resolved(
        era=era,
        context_length=length,
        max_running_requests=settings.max_running_requests
        or (_DRAFTED_REQUESTS if settings.speculative_algorithm else None),
        chunk=asked if asked > 0 else settings.max_prefill_tokens,
        page_size=page_size(settings, architecture, device, era),
        mem_fraction_static=fraction,
        swa_full_tokens_ratio=settings.swa_full_tokens_ratio
        or _WINDOW_RATIOS.get(architecture.model_type, _WINDOW_RATIO),
        capture_sizes=captured,
        prefill_sizes=prefill,
        reserved_mib=reserved,
    )


def _graph_batch(card: CardClass, settings: Settings) -> int:
    default = card.graph_batch if settings.tp_size < 4 else card.graph_batch_many
    return min(default, settings.max_running_requests or default)


def capture_sizes(largest: int, settings: Settings, era: Era) -> tuple[int, ...]:
    """Batch sizes for which decode graphs are captured (`arg_groups/cuda_graph_hook.py`).

    Before 0.5.3 they were closer at the small end, farther apart when nothing was drafted
    (`model_executor/cuda_graph_runner.py`).
    """
    if era.fraction != "by_activity":
        sizes = [1, 2, 4, 8, *range(16, 161, 8), *range(168, 257, 8), *range(272, 513, 16)]
    elif settings.speculative_algorithm:
        sizes = [*range(1, 9), *range(10, 33, 2), *range(40, 65, 4), *range(72, 257, 8)]
        sizes += range(272, largest + 1, 16)
    else:
        sizes = [1, 2, 4, 8, 12, *range(16, 257, 8), *range(272, 512, 16), *range(512, largest + 1, 32)]
    return tuple(sorted({size for size in sizes if size <= largest} | {largest}))


def _prefill_sizes(chunk: int, settings: Settings, architecture: Architecture, era: Era) -> tuple[int, ...]:
    """Numbers of tokens for which prefill graphs are captured; none for pipelines and models with encoders."""
    off = settings.disable_cuda_graph or settings.disable_prefill_cuda_graph or not era.prefill_graphs
    if off or settings.pp_size > 1 or (architecture.towers and not settings.language_model_only):
        return ()
    largest = min(chunk, 8192) if has_latent(architecture) else chunk
    largest = min(largest, settings.max_total_tokens or largest)
    sizes = [*range(4, 33, 4), *range(48, 257, 16), *range(288, 513, 32), *range(576, 1025, 64)]
    sizes += [*range(1280, 4097, 256), *range(4608, largest + 1, 512)]
    return tuple(size for size in sizes if size <= largest)


def _fraction(
    settings: Settings,
    architecture: Architecture,
    total: float,
    card: CardClass,
    chunk: int,
    batch: int,
    prefill: tuple[int, ...],
    era: Era,
) -> tuple[float, float]:
    """Default of `mem_fraction_static`, and the MiB that it leaves."""
    if not total:
        return 0.88, 0.0
    if era.fraction == "by_ranks":
        share = _share_by_ranks(settings.ranks, total)
        return share, total * (1 - share)
    algorithm = settings.speculative_algorithm
    drafts = algorithm is not None and (era.fraction == "by_class" or algorithm != "NGRAM")
    extra = era.standalone_mib if settings.speculative_algorithm == "STANDALONE" else era.speculative_mib
    if era.fraction == "by_class":
        reserved = 1024 * (card.reserved_gib + card.reserved_per_rank_gib * settings.ranks)
        reserved += 4096 if settings.attn_dp_size > 1 else 0
    else:
        reserved = 512 + 1.5 * _active_tokens(settings, chunk, batch, era)
        reserved += settings.ranks / 8 * 1024
        reserved += _graph_reserve(settings, architecture, batch, prefill, era)
        if total > 60 * 1024:
            reserved = max(reserved, 10 * 1024)
        if era.by_role and settings.moe_a2a_backend == "deepep" and _decodes(settings, era):
            reserved += 0 if settings.disable_cuda_graph else 2048
    reserved += extra if drafts else 0
    share = round((total - reserved) / total, 3)
    if not era.image_share and not (era.by_role and settings.disaggregation_mode == "decode"):
        share *= _image_factor(settings, architecture)
    return share, total * (1 - share)


def _active_tokens(settings: Settings, chunk: int, batch: int, era: Era) -> int:
    """Tokens that the reserve for activations is for: a chunk, or what a server that only decodes has at once."""
    if era.by_role and settings.disaggregation_mode == "decode":
        running = settings.max_running_requests or batch or 1
        return max(running * max(1, settings.speculative_num_draft_tokens), 2048)
    return max(chunk if chunk > 0 else settings.max_prefill_tokens, 2048)


def _decodes(settings: Settings, era: Era) -> bool:
    return not (era.by_role and settings.disaggregation_mode == "prefill")


def _share_by_ranks(ranks: int, total: float) -> float:
    steps = ((16, 0.79), (8, 0.81), (4, 0.85), (2, 0.87), (0, 0.88))
    share = next(share for least, share in steps if ranks >= least) if total <= 81920 else 0.88
    if total > 96 * 1024:
        share = min(share + 48 * 1024 * (1 - share) / total, (total - 18 * 1024) / total)
    return share


def _graph_reserve(
    settings: Settings, architecture: Architecture, batch: int, prefill: tuple[int, ...], era: Era
) -> float:
    """`arg_groups/memory_hook.py: reserve_for_graph_mb`; before 0.5.12 decode graphs counted even when off."""
    reserved, decodes = 0.0, _decodes(settings, era)
    if decodes and not (settings.disable_cuda_graph and era.wide_default):
        reserved += 2.0 * batch
    if decodes and settings.attn_dp_size > 1:
        reserved += (3 if batch <= 300 else 4.5) * batch * settings.attn_dp_size
    if prefill and not (era.by_role and settings.disaggregation_mode == "decode"):
        reserved += 1536 if has_latent(architecture) else 8 * len(prefill)
    return reserved


def _image_factor(settings: Settings, architecture: Architecture) -> float:
    """The larger an image encoder, the less is static (`arg_groups/memory_hook.py: adjust_mem_fraction_for_vlm`)."""
    tower = _image_tower(settings, architecture)
    if tower is None or not tower.layers:
        return 1.0
    layers, hidden = tower.layers, tower.hidden_size
    if architecture.family in _DEPTH_FAMILIES:
        layers = _VIT_LAYERS
    if architecture.model_type == "qwen2_vl":
        hidden = architecture.hidden_size  # its config calls the language model's width so
    if architecture.family == "mllama":
        layers -= _MLLAMA_GLOBAL
    larger = layers * hidden**2 / (_VIT_LAYERS * _VIT_HIDDEN**2) - 1
    return _WITH_IMAGES * max(0.8, min(1.05, 1 - 0.1 * larger))


def _image_tower(settings: Settings, architecture: Architecture) -> Tower | None:
    if settings.language_model_only:
        return None
    return next((tower for tower in architecture.towers if tower.modality == "vision"), None)
