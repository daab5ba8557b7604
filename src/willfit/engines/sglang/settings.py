"""SGLang's settings, and what it makes of those that the user leaves open."""

from __future__ import annotations

from dataclasses import dataclass

from willfit.architectures.mixers import LatentAttention
from willfit.architectures.model import Architecture
from willfit.engines.sglang.eras import NEWEST, CardClass, Era
from willfit.errors import BadInput
from willfit.hardware.device import Device
from willfit.quantities import MIB

#: Pages of the kernels for sparse latent attention and for compressed attention
#: (`arg_groups/model_overrides/deepseek_v2.py`, `deepseek_v4.py`, `minimax_m3.py`).
_SPARSE_PAGE, _COMPRESSED_PAGE, _INDEXED_PAGE = 64, 256, 128

#: Share of the static memory that models with an image encoder keep, before the encoder's size is looked at, and the
#: encoder (ViT-L/14) that the share is for (`arg_groups/memory_hook.py: adjust_mem_fraction_for_vlm`).
_WITH_IMAGES = 0.95
_VIT_LAYERS, _VIT_HIDDEN = 24, 1024

#: Models whose sliding layers have a smaller pool than others
#: (`arg_groups/model_overrides/deepseek_v4.py`).
_WINDOW_RATIOS = {"deepseek_v4": 0.1}
_WINDOW_RATIO = 0.8

#: Requests that run at once where tokens are drafted (`arg_groups/speculative_hook.py`).
_DRAFTED_REQUESTS = 48


@dataclass(frozen=True, slots=True)
class Settings:
    """Settings under SGLang's own names; None leaves the choice to SGLang.

    Attributes
    ----------
    version
        Version of SGLang.
    attn_dp_size
        Replicas of the attention inside the tensor-parallel ranks (`--dp-size N --enable-dp-attention`).
    dp_size
        Replicas of the whole model, each on devices of its own.
    ep_size
        Degree of expert parallelism inside the tensor-parallel ranks.
    is_embedding
        Vectors and scores are asked for instead of text, although the model's class generates.
    mtp
        The checkpoint's own multi-token-prediction module is loaded as the draft.
    """

    version: str = NEWEST
    tp_size: int = 1
    pp_size: int = 1
    dp_size: int = 1
    attn_dp_size: int = 1
    ep_size: int = 1
    dtype: str = "auto"
    kv_cache_dtype: str = "auto"
    context_length: int | None = None
    mem_fraction_static: float | None = None
    max_total_tokens: int | None = None
    max_running_requests: int | None = None
    chunked_prefill_size: int | None = None
    max_prefill_tokens: int = 16384
    page_size: int | None = None
    swa_full_tokens_ratio: float | None = None
    disable_hybrid_swa_memory: bool = False
    mamba_full_memory_ratio: float = 0.9
    max_mamba_cache_size: int | None = None
    mamba_ssm_dtype: str | None = None
    disable_radix_cache: bool = False
    disable_overlap_schedule: bool = False
    disable_cuda_graph: bool = False
    disable_prefill_cuda_graph: bool = False
    cuda_graph_max_bs: int | None = None
    speculative_algorithm: str | None = None
    speculative_num_draft_tokens: int = 0
    mtp: bool = False
    cpu_offload_gb: float = 0.0
    enable_hierarchical_cache: bool = False
    hicache_ratio: float = 2.0
    hicache_size: float = 0.0
    language_model_only: bool = False
    is_embedding: bool = False

    @property
    def ranks(self) -> int:
        """Devices that one replica takes."""
        return self.tp_size * self.pp_size

    @property
    def attention_ranks(self) -> int:
        """Ranks over which attention heads are divided."""
        return max(1, self.tp_size // self.attn_dp_size)


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
    return Resolved(
        era=era,
        context_length=length,
        max_running_requests=settings.max_running_requests
        or (_DRAFTED_REQUESTS if settings.speculative_algorithm else None),
        chunk=asked if asked > 0 else settings.max_prefill_tokens,
        page_size=settings.page_size or _page(architecture),
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
    sizes = [*range(4, 33, 4), *range(48, 257, 16), *range(288, 513, 32), *range(576, 1025, 64)]
    sizes += [*range(1280, 4097, 256), *range(4608, largest + 1, 512)]
    return tuple(size for size in sizes if size <= largest)


def has_latent(architecture: Architecture) -> bool:
    """Whether attention layers are latent."""
    return any(isinstance(m, LatentAttention) for layer, _ in architecture.blocks for m in layer.mixers)


def _page(architecture: Architecture) -> int:
    """Tokens in a page where neither the user nor a kernel for Blackwell servers asks for more."""
    for layer, _ in architecture.blocks:
        for mixer in layer.mixers:
            if isinstance(mixer, LatentAttention) and mixer.index_dim:
                return _SPARSE_PAGE * mixer.index_pool
            name = type(mixer).__name__
            if name == "CompressedAttention":
                return _COMPRESSED_PAGE
            if name == "IndexedAttention":
                return _INDEXED_PAGE
    return 1


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
    drafts = settings.speculative_algorithm is not None
    extra = era.standalone_mib if settings.speculative_algorithm == "STANDALONE" else era.speculative_mib
    if era.fraction == "by_class":
        reserved = 1024 * (card.reserved_gib + card.reserved_per_rank_gib * settings.ranks)
        reserved += 4096 if settings.attn_dp_size > 1 else 0
    else:
        reserved = 512 + 1.5 * max(chunk if chunk > 0 else settings.max_prefill_tokens, 2048)
        reserved += settings.ranks / 8 * 1024
        reserved += _graph_reserve(settings, architecture, batch, prefill, era)
        if total > 60 * 1024:
            reserved = max(reserved, 10 * 1024)
    reserved += extra if drafts else 0
    share = round((total - reserved) / total, 3) * _image_factor(settings, architecture)
    return share, total * (1 - share)


def _share_by_ranks(ranks: int, total: float) -> float:
    steps = ((16, 0.79), (8, 0.81), (4, 0.85), (2, 0.87), (0, 0.88))
    share = next(share for least, share in steps if ranks >= least) if total <= 81920 else 0.88
    if total > 96 * 1024:
        share = min(share + 48 * 1024 * (1 - share) / total, (total - 18 * 1024) / total)
    return share


def _graph_reserve(
    settings: Settings, architecture: Architecture, batch: int, prefill: tuple[int, ...], era: Era
) -> float:
    """`arg_groups/memory_hook.py: reserve_for_graph_mb`; before 0.5.10 decode graphs counted even when off."""
    reserved = 2.0 * batch if not (settings.disable_cuda_graph and era.draft_counted) else 0.0
    if settings.attn_dp_size > 1:
        reserved += (3 if batch <= 300 else 4.5) * batch * settings.attn_dp_size
    if prefill:
        reserved += 1536 if has_latent(architecture) else 8 * len(prefill)
    return reserved


def _image_factor(settings: Settings, architecture: Architecture) -> float:
    """The larger an image encoder, the less is static."""
    tower = next((tower for tower in architecture.towers if tower.modality == "vision"), None)
    if tower is None or settings.language_model_only:
        return 1.0
    larger = tower.layers * tower.hidden_size**2 / (_VIT_LAYERS * _VIT_HIDDEN**2) - 1
    return _WITH_IMAGES * max(0.8, min(1.05, 1 - 0.1 * larger))
