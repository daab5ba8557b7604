"""Writing `trtllm-serve MODEL ...`, with the YAML file of its cache and graphs."""

from __future__ import annotations

from typing import Any

from willfit.engines.tensorrt_llm.settings import Settings
from willfit.errors import BadInput
from willfit.launch.flags import flag_table
from willfit.launch.writing.models import online_format
from willfit.launch.writing.rows import (
    Row,
    checked,
    flags_of,
    length_reason,
    ranks_reason,
    require_written,
    term_bytes,
)
from willfit.launch.writing.written import Flag, Order, Written
from willfit.launch.writing.yaml_text import Said, yaml_text
from willfit.quantities import format_bytes

#: The file beside the command.
FILE = "trtllm.yaml"

_ROWS = (
    Row("moe_expert_parallel_size", "--ep_size", "{value} ranks share the experts"),
    Row(
        "enable_attention_dp", "--enable_attention_dp", "each rank has sequences of its own in the attention"
    ),
    Row("max_batch_size", "--max_batch_size", "at most {value} sequences at once"),
    Row("max_num_tokens", "--max_num_tokens", "at most {value} tokens in a batch"),
    Row("max_beam_width", "--max_beam_width", "{value} beams"),
    Row("backend", "--backend", "what runs the model"),
)

#: Fields of `kv_cache_config` (`llmapi/llm_args.py`), with the reason of each.
_CACHE = {
    "free_gpu_memory_fraction": "the share of the free memory that the cache gets: {cache}",
    "kv_cache_dtype": "the dtype of keys and values",
    "tokens_per_block": "tokens in a block",
    "max_tokens": "the most tokens that the cache holds",
    "max_gpu_total_bytes": "the most bytes that it takes",
    "max_attention_window": "how far layers look back, in turn",
    "host_cache_size": "bytes of a second cache in host RAM, of each rank",
}
_NAMES = {"kv_cache_dtype": "dtype"}

#: What it calls dtypes of the cache that have shorter names here.
_CACHE_NAMES = {"fp16": "float16", "bf16": "bfloat16"}

_WRITTEN = {
    "version", "tensor_parallel_size", "pipeline_parallel_size", "max_seq_len", "cuda_graph",
    "cuda_graph_batch_sizes", "cuda_graph_max_batch_size", "cuda_graph_padding", *_CACHE, *(row.field for row in _ROWS),
}  # fmt: skip


def pins(order: Order) -> dict[str, Any]:
    """The share of memory that the version takes by default, on which the estimate rests."""
    return {"free_gpu_memory_fraction": order.estimate.details.get("free_gpu_memory_fraction")}


def write(order: Order) -> Written:
    """The command that starts TensorRT-LLM's server with such settings, and its file.

    Raises
    ------
    BadInput
        For settings that neither a flag nor the file has.
    """
    settings: Settings = order.settings
    usual = Settings(version=settings.version)
    require_written(settings, usual, _WRITTEN, "TensorRT-LLM")
    if settings.backend == "tensorrt":
        raise BadInput("an engine for TensorRT-LLM is built before it is served", "leave the backend open")
    online_format(order, {}, "TensorRT-LLM")
    flags = [
        Flag(
            ("--tp_size", str(settings.tensor_parallel_size)),
            ranks_reason(order.estimate, settings.tensor_parallel_size),
        ),
    ]
    if settings.pipeline_parallel_size > 1:
        stages = str(settings.pipeline_parallel_size)
        flags.append(Flag(("--pp_size", stages), f"the layers in {stages} stages, one after another"))
    if settings.max_seq_len is not None:
        flags.append(Flag(("--max_seq_len", str(settings.max_seq_len)), length_reason(order.estimate)))
    flags += flags_of(settings, usual, _ROWS, order.estimate)
    if order.revision is not None:
        flags.append(Flag(("--revision", order.revision), "the revision asked for"))
    file = _file(settings, usual, format_bytes(term_bytes(order.estimate, "kv_cache")))
    if file:
        flags.append(Flag(("--extra_llm_api_options", FILE), "the cache and the graphs, which have no flags"))
    return Written(
        "tensorrt-llm",
        settings.version,
        ("trtllm-serve", order.model),
        checked(flags, flag_table("trtllm_flags.txt"), settings.version, "TensorRT-LLM"),
        files={FILE: yaml_text(file)} if file else {},
    )


def _file(settings: Settings, usual: Settings, held: str) -> dict[str, Any]:
    """The settings that only a file says."""
    found: dict[str, Any] = {}
    cache: dict[str, Any] = {}
    for field, reason in _CACHE.items():
        value = getattr(settings, field)
        if value != getattr(usual, field):
            said = list(value) if isinstance(value, tuple) else _CACHE_NAMES.get(value, value)
            cache[_NAMES.get(field, field)] = Said(said, reason.format(cache=held))
    if cache:
        found["kv_cache_config"] = cache
    if settings.cuda_graph is False:
        found["cuda_graph_config"] = Said(None, "no CUDA graphs, which take memory of their own")
    elif settings.cuda_graph or settings.cuda_graph_batch_sizes or settings.cuda_graph_max_batch_size:
        graphs: dict[str, Any] = {"enable_padding": settings.cuda_graph_padding}
        if settings.cuda_graph_batch_sizes:
            graphs["batch_sizes"] = list(settings.cuda_graph_batch_sizes)
        elif settings.cuda_graph_max_batch_size:
            graphs["max_batch_size"] = settings.cuda_graph_max_batch_size
        found["cuda_graph_config"] = Said(graphs, "the batch sizes with a CUDA graph")
    return found
