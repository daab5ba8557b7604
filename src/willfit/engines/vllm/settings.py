"""vLLM's settings, and what it makes of those that the user leaves open."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from willfit.architectures.mixers import LatentAttention
from willfit.architectures.model import Architecture
from willfit.engines.versions import parse_version
from willfit.engines.vllm.eras import NEWEST, Era, era_for
from willfit.engines.vllm.options import Draft, KvTransfer, Lora, Offload
from willfit.errors import BadInput
from willfit.hardware.device import Device
from willfit.quantities import GIB

#: `--max-model-len auto`: as long as the cache allows.
AUTO = -1

#: V0 lets a batch hold at least this many tokens if there are images or sounds (`config.py: SchedulerConfig`).
_LEAST_MULTIMODAL_TOKENS = 5120

#: Items of a modality in a prompt, if nobody says how many.
_NO_LIMIT = 999
#: Tokens in a batch where replicas exchange tokens in batches of a fixed size.
_EXPERT_BATCH = 256

#: From so much memory on, batches are larger, and larger still (`engine/arg_utils.py: get_batch_defaults`).
MUCH, VERY_MUCH = 70 * GIB, 160 * GIB

#: The largest batch that gpt-oss is captured for before 0.14.
_GPT_OSS_LARGEST = 992


@dataclass(frozen=True, slots=True)
class Settings:
    """Settings under vLLM's own names; None leaves the choice to vLLM.

    Attributes
    ----------
    version, generation
        Version of vLLM, and `v0` or `v1` to override the version's default engine.
    usage
        `server` (vllm serve) or `offline` (the LLM class): they have different defaults.
    speculative_tokens
        Draft tokens per step, 0 without speculative decoding.
    mm_limits
        Modalities with how many items a prompt may have (`--limit-mm-per-prompt`).
    max_pixels
        Pixels of the largest image (`--mm-processor-kwargs`), where a processor knows that word.
    runner
        `pooling` for vectors and scores instead of text; `auto` to follow the model.
    mtp
        The checkpoint's own multi-token-prediction module is loaded as the draft.
    chunked_groups, flashinfer_sampler, v2_runner
        Chunked layers have cache groups of their own; FlashInfer samples; the V2 model runner runs (environment
        variables). None for the version's own choice.
    draft
        What drafts, and how; None without speculative decoding.
    lora
        Slots for adapters; None without.
    decode_context_parallel, prefill_context_parallel
        Ranks over which the tokens of a sequence are spread, while decoding and while prefilling.
    data_parallel_local
        Replicas on this host; None for all of them.
    redundant_experts
        Experts that are held twice to balance load; None without balancing (`--enable-eplb`).
    all2all_backend
        How tokens reach their experts under expert parallelism.
    all2all_buffer_bytes
        What each of DeepEP's buffers takes (`VLLM_DEEPEP_BUFFER_SIZE_MB`).
    offload
        Weights in host RAM; None without.
    kv_transfer
        Blocks of the cache in host RAM or elsewhere; None without.
    sleep_mode
        The engine can give its memory back while it sleeps.
    mm_processor_cache_gb, mm_processor_cache_shared
        GiB for processed images and sounds in host RAM, and whether all processes share them.
    mm_ipc_gpu_memory_gb
        GiB of the device that API servers decode videos in.
    api_servers
        API server processes; None for as many as vLLM starts.
    load_format, safetensors_load_strategy
        How files are read.
    """

    version: str = NEWEST
    generation: Literal["v0", "v1"] | None = None
    usage: Literal["server", "offline"] = "server"
    tensor_parallel: int = 1
    pipeline_parallel: int = 1
    data_parallel: int = 1
    expert_parallel: bool = False
    dtype: str | None = None
    kv_cache_dtype: str = "auto"
    max_model_len: int | None = None
    max_num_seqs: int | None = None
    max_num_batched_tokens: int | None = None
    gpu_memory_utilization: float | None = None
    kv_cache_memory_bytes: int | None = None
    num_gpu_blocks_override: int | None = None
    block_size: int | None = None
    enforce_eager: bool = False
    enable_prefix_caching: bool | None = None
    enable_chunked_prefill: bool | None = None
    async_scheduling: bool = True
    hybrid_cache_manager: bool = True
    language_model_only: bool = False
    skip_mm_profiling: bool = False
    mm_limits: tuple[tuple[str, int], ...] = ()
    max_pixels: int | None = None
    runner: Literal["auto", "generate", "pooling"] = "auto"
    mamba_ssm_cache_dtype: str = "auto"
    swap_space: float = 4.0
    cudagraph_max_capture_size: int | None = None
    estimate_cudagraphs: bool | None = None
    speculative_tokens: int = 0
    mtp: bool = False
    chunked_groups: bool | None = None
    flashinfer_sampler: bool | None = None
    v2_runner: bool | None = None
    allow_deprecated_quantization: bool = False
    allow_long_max_model_len: bool = False
    draft: Draft | None = None
    lora: Lora | None = None
    decode_context_parallel: int = 1
    prefill_context_parallel: int = 1
    data_parallel_local: int | None = None
    redundant_experts: int | None = None
    all2all_backend: str | None = None
    all2all_buffer_bytes: int = 2**30
    offload: Offload | None = None
    kv_transfer: KvTransfer | None = None
    sleep_mode: bool = False
    mm_processor_cache_gb: float = 4.0
    mm_processor_cache_shared: bool = False
    mm_ipc_gpu_memory_gb: float = 0.0
    api_servers: int | None = None
    load_format: str = "auto"
    safetensors_load_strategy: str | None = None

    @property
    def expert_ranks(self) -> int:
        """Ranks that hold the experts of a layer together (`fused_moe/config.py: FusedMoEParallelConfig.make`)."""
        return self.tensor_parallel * self.prefill_context_parallel * self.data_parallel

    @property
    def replica_ranks(self) -> int:
        """Devices of one replica."""
        return self.tensor_parallel * self.pipeline_parallel * self.prefill_context_parallel

    @property
    def local_replicas(self) -> int:
        """Replicas on this host."""
        return min(self.data_parallel, self.data_parallel_local or self.data_parallel)

    def limit(self, modality: str) -> int:
        """Items of a modality that a prompt may have."""
        return dict(self.mm_limits).get(modality, _NO_LIMIT)


def with_flashinfer(settings: Settings) -> Settings:
    """The settings where FlashInfer is known to be installed: versions that look for it then let it sample."""
    looked_for = era_for(settings.version, settings.generation).flashinfer == "if_installed"
    unset = settings.flashinfer_sampler is None
    return replace(settings, flashinfer_sampler=True) if looked_for and unset else settings


@dataclass(frozen=True, slots=True)
class Resolved:
    """What vLLM decides before it loads anything.

    Attributes
    ----------
    max_in_flight_tokens
        Tokens that may be scheduled and not yet settled: two batches under asynchronous scheduling.
    capture_sizes
        Batch sizes for which CUDA graphs are captured; empty if they are off.
    graph_sets
        How many times each is captured.
    context_shards
        Ranks that each hold a share of a sequence's tokens.
    """

    era: Era
    max_model_len: int
    max_num_seqs: int
    max_num_batched_tokens: int
    max_in_flight_tokens: int
    gpu_memory_utilization: float
    capture_sizes: tuple[int, ...]
    graph_sets: int = 1
    context_shards: int = 1


def resolve(settings: Settings, architecture: Architecture, device: Device, era: Era) -> Resolved:
    """Fill in vLLM's defaults (`engine/arg_utils.py: get_batch_defaults`, `config/vllm.py`).

    Raises
    ------
    BadInput
        If neither the settings nor the config say how long a sequence can be.
    """
    length = _stated_limit(architecture) if settings.max_model_len in (None, AUTO) else settings.max_model_len
    if not length:
        raise BadInput("the config names no longest sequence", "give --context (vLLM: --max-model-len)")
    tokens, sequences = _batch_defaults(settings, device, era)
    chunked = settings.enable_chunked_prefill
    if chunked is None:
        # V1 always chunks prefill, but pooling models never do.
        chunked = (
            _chunks_by_itself(settings, architecture, device, length) if era.generation == "v0" else True
        )
    if era.generation == "v0":
        tokens = 512 if chunked and parse_version(settings.version) < (0, 6, 5) else 2048
        if architecture.towers:
            tokens = max(tokens, _LEAST_MULTIMODAL_TOKENS)
    if not chunked or architecture.encoder_only:
        tokens = max(tokens, length)
    sequences = settings.max_num_seqs or sequences
    if era.since >= (0, 9):
        tokens = min(tokens, sequences * length)
    tokens = settings.max_num_batched_tokens or tokens
    if not settings.max_num_seqs and era.since >= (0, 9):
        sequences = min(sequences, tokens)
    batches = settings.pipeline_parallel
    if settings.async_scheduling and settings.runner != "pooling" and era.since >= (0, 14):
        batches += 1
    utilization = settings.gpu_memory_utilization
    return Resolved(
        era=era,
        max_model_len=length,
        max_num_seqs=sequences,
        max_num_batched_tokens=tokens,
        max_in_flight_tokens=tokens * batches if era.in_flight else tokens,
        gpu_memory_utilization=era.utilization if utilization is None else utilization,
        capture_sizes=()
        if settings.enforce_eager
        else capture_sizes(settings, sequences, tokens, device, era, architecture.model_type),
        context_shards=settings.decode_context_parallel,
    )


def _stated_limit(architecture: Architecture) -> int:
    """The longest sequence by the config's own number, which RoBERTa's classes do not lessen by what they skip."""
    tables = (t for t in architecture.embeddings if t.name.endswith("position_embeddings.weight"))
    return max([architecture.max_positions, *(table.shape[0] for table in tables)])


def _chunks_by_itself(settings: Settings, architecture: Architecture, device: Device, length: int) -> bool:
    """Whether V0 chunks prefill unasked (`engine/arg_utils.py: _set_default_args_v0`).

    On CUDA above 32k, but not for encoders, latent attention, sliding windows, speculation or adapters.
    """
    unusual = architecture.towers or settings.speculative_tokens or settings.lora
    if length <= 32768 or device.vendor == "AMD" or unusual:
        return False
    mixers = [mixer for layer, _ in architecture.blocks for mixer in layer.mixers]
    return not any(isinstance(mixer, LatentAttention) or getattr(mixer, "window", None) for mixer in mixers)


def named_apart(device: Device) -> str:
    """The part of a device's name by which batches are chosen for it; empty for most."""
    return next((word for word in ("gb10", "a100") if word in device.name.lower()), "")


def _batch_defaults(settings: Settings, device: Device, era: Era) -> tuple[int, int]:
    """(max_num_batched_tokens, max_num_seqs) by device and usage."""
    if era.generation == "v0":
        return 2048, 256
    total, name = device.usable_bytes or 0, named_apart(device)
    server = settings.usage == "server"
    if _batches_for_experts(settings) and era.since >= (0, 20):
        return _EXPERT_BATCH, (1024 if total >= MUCH else 256)
    if total >= VERY_MUCH and era.since >= (0, 29):
        return 16384, 1024
    if total < MUCH or name == "gb10" or (name == "a100" and era.since >= (0, 9)):
        return (2048 if server else 8192), 256
    return (8192 if server else 16384), 1024


def _batches_for_experts(settings: Settings) -> bool:
    """Whether replicas exchange tokens in batches of a fixed size (`config/parallel.py: use_batched_dp_moe`)."""
    batched = settings.all2all_backend in ("deepep_low_latency", "nixl_ep")
    return batched and settings.expert_parallel and settings.data_parallel > 1


def capture_sizes(
    settings: Settings, sequences: int, tokens: int, device: Device, era: Era, model_type: str = ""
) -> tuple[int, ...]:
    """Batch sizes for which decode graphs are captured (`config/vllm.py: _set_cudagraph_sizes`).

    gpt-oss is given more of them (`models/config.py: GptOssForCausalLMConfig`).

    Parameters
    ----------
    sequences, tokens
        `max_num_seqs` and `max_num_batched_tokens`.
    """
    if era.generation == "v0":
        return tuple(size for size in (1, 2, 4, *range(8, 257, 8)) if size <= max(sequences, 1))
    ceiling = 512
    if era.since >= (0, 29) and device.compute_capability.startswith("10."):
        ceiling = 1024
    query = 1 + settings.speculative_tokens
    largest = min(2 * sequences * query, ceiling)
    if era.since < (0, 9):
        largest = 512
    sparse = era.sparse_capture
    chosen = settings.cudagraph_max_capture_size
    if model_type == "gpt_oss":
        chosen, sparse = chosen or (1024 if era.since >= (0, 14) else _GPT_OSS_LARGEST), True
    largest = chosen or largest
    decoded: list[int] = []
    if not chosen and query > 1 and era.captured in ("decode", "sequences"):
        counts = {*_grid(min(sequences, ceiling), sparse=True), min(sequences, ceiling)}
        decoded = [count * query for count in counts if count * query <= largest]
    elif not chosen and sequences <= largest and era.captured == "sequences":
        decoded = [sequences]
    if era.sparse_capture:
        largest = min(largest, tokens)
    batch = [tokens] if tokens <= largest and era.captured != "grid" else []
    return tuple(sorted({*_grid(largest, sparse), *batch, *(size for size in decoded if size <= tokens)}))


def _grid(largest: int, sparse: bool) -> list[int]:
    """1, 2, 4, every 8 sizes, and from 256 on every 16 if `sparse`."""
    step_from = 256 if sparse else largest + 1
    sizes = [1, 2, 4, *range(8, step_from, 8), *range(step_from, largest + 1, 16)]
    return [size for size in sizes if size <= largest]
