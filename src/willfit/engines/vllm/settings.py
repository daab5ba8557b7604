"""vLLM's settings, and what it makes of those that the user leaves open."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from willfit.architectures.mixers import LatentAttention
from willfit.architectures.model import Architecture
from willfit.engines.versions import parse_version
from willfit.engines.vllm.eras import NEWEST, Era
from willfit.errors import BadInput
from willfit.hardware.device import Device
from willfit.quantities import GIB

#: `--max-model-len auto`: as long as the cache allows.
AUTO = -1

#: V0 lets a batch hold at least this many tokens if there are images or sounds (`config.py: SchedulerConfig`).
_LEAST_MULTIMODAL_TOKENS = 5120

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
    mtp
        The checkpoint's own multi-token-prediction module is loaded as the draft.
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
    runner: Literal["generate", "pooling"] = "generate"
    mamba_ssm_cache_dtype: str = "auto"
    cpu_offload_gb: float = 0.0
    swap_space: float = 4.0
    cudagraph_max_capture_size: int | None = None
    estimate_cudagraphs: bool | None = None
    speculative_tokens: int = 0
    mtp: bool = False
    allow_deprecated_quantization: bool = False


@dataclass(frozen=True, slots=True)
class Resolved:
    """What vLLM decides before it loads anything.

    Attributes
    ----------
    max_in_flight_tokens
        Tokens that may be scheduled and not yet settled: two batches under asynchronous scheduling.
    capture_sizes
        Batch sizes for which CUDA graphs are captured; empty if they are off.
    """

    era: Era
    max_model_len: int
    max_num_seqs: int
    max_num_batched_tokens: int
    max_in_flight_tokens: int
    gpu_memory_utilization: float
    capture_sizes: tuple[int, ...]


def resolve(settings: Settings, architecture: Architecture, device: Device, era: Era) -> Resolved:
    """Fill in vLLM's defaults (`engine/arg_utils.py: get_batch_defaults`, `config/vllm.py`).

    Raises
    ------
    BadInput
        If neither the settings nor the config say how long a sequence can be.
    """
    length = architecture.max_positions if settings.max_model_len in (None, AUTO) else settings.max_model_len
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
    if settings.async_scheduling and settings.runner == "generate" and era.since >= (0, 14):
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
    )


def _chunks_by_itself(settings: Settings, architecture: Architecture, device: Device, length: int) -> bool:
    """Whether V0 chunks prefill unasked (`engine/arg_utils.py: _set_default_args_v0`).

    On CUDA above 32k, but not for encoders, latent attention, sliding windows or speculation.
    """
    if length <= 32768 or device.vendor == "AMD" or architecture.towers or settings.speculative_tokens:
        return False
    mixers = [mixer for layer, _ in architecture.blocks for mixer in layer.mixers]
    return not any(isinstance(mixer, LatentAttention) or getattr(mixer, "window", None) for mixer in mixers)


def _batch_defaults(settings: Settings, device: Device, era: Era) -> tuple[int, int]:
    """(max_num_batched_tokens, max_num_seqs) by device and usage."""
    if era.generation == "v0":
        return 2048, 256
    total = device.usable_bytes or 0
    server = settings.usage == "server"
    if total >= 160 * GIB and era.since >= (0, 29):
        return 16384, 1024
    small = total < 70 * GIB or "gb10" in device.name.lower()
    if small or ("a100" in device.name.lower() and era.since >= (0, 9)):
        return (2048 if server else 8192), 256
    return (8192 if server else 16384), 1024


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
