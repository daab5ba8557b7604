"""Writing `vllm serve MODEL ...`."""

from __future__ import annotations

import json
from typing import Any

from willfit.engines.versions import parse_version
from willfit.engines.vllm.settings import Settings
from willfit.errors import BadInput
from willfit.launch.flags import flag_table
from willfit.launch.values import choice
from willfit.launch.vllm import CACHE_TYPES
from willfit.launch.writing.models import online_format
from willfit.launch.writing.rows import (
    Row,
    checked,
    flags_of,
    length_reason,
    ranks_reason,
    require_written,
)
from willfit.launch.writing.written import Flag, Order, Written

#: Formats that vLLM makes of 16-bit weights while it loads them (`--quantization`).
_ONLINE = {"fp8": "fp8", "int8": "experts_int8", "nf4": "bitsandbytes"}

#: What it calls dtypes of the cache that have shorter names here.
_CACHE_NAMES = {"fp16": "float16", "bf16": "bfloat16"}

_ROWS = (
    Row("data_parallel", "--data-parallel-size", "{value} replicas, each with a cache of its own"),
    Row("data_parallel_local", "--data-parallel-size-local", "{value} replicas of these on this host"),
    Row("expert_parallel", "--enable-expert-parallel", "each rank holds whole experts"),
    Row("decode_context_parallel", "--decode-context-parallel-size", "{value} ranks share the tokens of a sequence"),
    Row("prefill_context_parallel", "--prefill-context-parallel-size", "{value} ranks share a prompt's tokens"),
    Row("max_num_seqs", "--max-num-seqs", "at most {value} sequences in a batch"),
    Row("max_num_batched_tokens", "--max-num-batched-tokens", "at most {value} tokens in a batch"),
    Row("gpu_memory_utilization", "--gpu-memory-utilization", "the share that vLLM fills: {cache} of cache"),
    Row("kv_cache_memory_bytes", "--kv-cache-memory-bytes", "the cache takes these bytes of a device"),
    Row("num_gpu_blocks_override", "--num-gpu-blocks-override", "the cache has {value} blocks"),
    Row("kv_cache_dtype", "--kv-cache-dtype", "the dtype of keys and values in the cache",
        names=_CACHE_NAMES),
    Row("block_size", "--block-size", "{value} tokens in a block of the cache"),
    Row("dtype", "--dtype", "the dtype of weights that are not quantized"),
    Row("mamba_ssm_cache_dtype", "--mamba-ssm-cache-dtype", "the dtype of recurrent states"),
    Row("enforce_eager", "--enforce-eager", "no CUDA graphs, which take memory of their own"),
    Row("cudagraph_max_capture_size", "--max-cudagraph-capture-size", "the largest batch with a CUDA graph"),
    Row("enable_prefix_caching", "--enable-prefix-caching", "blocks of common prefixes are kept",
        off="--no-enable-prefix-caching"),
    Row("enable_chunked_prefill", "--enable-chunked-prefill", "whether long prompts are cut into chunks",
        off="--no-enable-chunked-prefill"),
    Row("async_scheduling", "--async-scheduling", "one batch is in flight at a time", off="--no-async-scheduling"),
    Row("hybrid_cache_manager", "", "all layers have the same kind of cache",
        off="--disable-hybrid-kv-cache-manager"),
    Row("language_model_only", "--language-model-only", "encoders of images and sounds are left out"),
    Row("skip_mm_profiling", "--skip-mm-profiling", "nothing is set aside for images and sounds"),
    Row("allow_deprecated_quantization", "--allow-deprecated-quantization", "the checkpoint's method is deprecated"),
    Row("sleep_mode", "--enable-sleep-mode", "its memory can be given back while it sleeps"),
    Row("swap_space", "--swap-space", "GiB of host RAM for sequences that wait"),
    Row("load_format", "--load-format", "how the files are read"),
    Row("safetensors_load_strategy", "--safetensors-load-strategy", "how safetensors are read"),
)  # fmt: skip

#: Variables that stand for a setting (`vllm/envs.py`).
_VARIABLES = {
    "estimate_cudagraphs": "VLLM_MEMORY_PROFILER_ESTIMATE_CUDAGRAPHS",
    "flashinfer_sampler": "VLLM_USE_FLASHINFER_SAMPLER",
    "v2_runner": "VLLM_USE_V2_MODEL_RUNNER",
    "chunked_groups": "VLLM_ALLOW_CHUNKED_LOCAL_ATTN_WITH_HYBRID_KV_CACHE",
}

#: From this version on there is one engine, and nothing to choose.
_ONE_ENGINE = (0, 11)

_WRITTEN = {
    "version", "generation", "usage", "tensor_parallel", "pipeline_parallel", "max_model_len", "runner", "mm_limits",
    "max_pixels", "allow_long_max_model_len", *_VARIABLES, *(row.field for row in _ROWS),
}  # fmt: skip


def pins(order: Order) -> dict[str, Any]:
    """The share of memory that the version takes by default, on which the estimate rests."""
    return {"gpu_memory_utilization": order.estimate.details.get("gpu_memory_utilization")}


def write(order: Order) -> Written:
    """The command that starts vLLM's server with such settings.

    Raises
    ------
    BadInput
        For settings that no flag of that version stands for.
    """
    settings: Settings = order.settings
    usual = Settings(version=settings.version)
    require_written(settings, usual, _WRITTEN, "vLLM")
    if settings.usage != "server":
        raise BadInput("the LLM class has no command", "ask about a server")
    table = flag_table("vllm_flags.txt")
    kind = _CACHE_NAMES.get(settings.kv_cache_dtype, settings.kv_cache_dtype)
    choice("vLLM", "--kv-cache-dtype", kind, CACHE_TYPES)
    flags = [
        Flag(
            ("--tensor-parallel-size", str(settings.tensor_parallel)),
            ranks_reason(order.estimate, settings.tensor_parallel),
        ),
    ]
    if settings.pipeline_parallel > 1:
        stages = str(settings.pipeline_parallel)
        flags.append(
            Flag(("--pipeline-parallel-size", stages), f"the layers in {stages} stages, one after another")
        )
    if settings.max_model_len is not None:
        length = "auto" if settings.max_model_len == -1 else str(settings.max_model_len)
        flags.append(Flag(("--max-model-len", length), length_reason(order.estimate)))
    flags += flags_of(settings, usual, _ROWS, order.estimate)
    flags += _model_flags(order, settings)
    return Written(
        "vllm",
        settings.version,
        ("vllm", "serve", order.model),
        checked(flags, table, settings.version, "vLLM"),
        _variables(settings),
    )


def _model_flags(order: Order, settings: Settings) -> list[Flag]:
    """What the model is for, how it is quantized, and what prompts may hold."""
    found = []
    if settings.runner == "pooling" and parse_version(settings.version) < (0, 10):
        found.append(Flag(("--task", "embed"), "vectors or scores instead of text"))
    elif settings.runner != "auto":
        found.append(Flag(("--runner", settings.runner), "vectors or scores, or text"))
    online = online_format(order, _ONLINE, "vLLM")
    if online is not None:
        found.append(
            Flag(("--quantization", online), f"weights are made {order.format_name} while they are loaded")
        )
    if settings.mm_limits:
        limits = json.dumps(dict(settings.mm_limits), separators=(",", ":"))
        found.append(Flag(("--limit-mm-per-prompt", limits), "items of a modality that a prompt may have"))
    if settings.max_pixels is not None:
        largest = json.dumps({"max_pixels": settings.max_pixels}, separators=(",", ":"))
        found.append(Flag(("--mm-processor-kwargs", largest), "the largest image"))
    if order.revision is not None:
        found.append(Flag(("--revision", order.revision), "the revision asked for"))
    return found


def _variables(settings: Settings) -> tuple[Flag, ...]:
    found = []
    if settings.generation is not None and parse_version(settings.version) < _ONE_ENGINE:
        second = int(settings.generation == "v1")
        found.append(Flag((f"VLLM_USE_V1={second}",), f"vLLM's engine {settings.generation.upper()}"))
    if settings.allow_long_max_model_len:
        found.append(Flag(("VLLM_ALLOW_LONG_MAX_MODEL_LEN=1",), "sequences longer than the model's limit"))
    for name, variable in _VARIABLES.items():
        value = getattr(settings, name)
        if value is not None:
            found.append(Flag((f"{variable}={int(value)}",), name.replace("_", " ")))
    return tuple(found)
