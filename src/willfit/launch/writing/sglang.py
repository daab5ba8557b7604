"""Writing `python3 -m sglang.launch_server --model-path MODEL ...`."""

from __future__ import annotations

from typing import Any

from willfit.engines.sglang.settings import Settings
from willfit.launch.flags import flag_table, lacks
from willfit.launch.writing.models import online_format
from willfit.launch.writing.rows import (
    Row,
    checked,
    flag_of_version,
    flags_of,
    length_reason,
    ranks_reason,
    require_written,
)
from willfit.launch.writing.written import Flag, Order, Written

_ONLINE = {"fp8": "fp8", "nvfp4": "nvfp4_online", "nf4": "bitsandbytes"}

_ROWS = (
    Row("ep_size", "--ep-size", "{value} ranks share the experts"),
    Row("ep_num_redundant_experts", "--ep-num-redundant-experts", "{value} experts are held twice"),
    Row("moe_a2a_backend", "--moe-a2a-backend", "how tokens reach their experts"),
    Row("mem_fraction_static", "--mem-fraction-static", "the share for weights ({weights}) and cache ({cache})"),
    Row("max_total_tokens", "--max-total-tokens", "the cache holds {value} tokens"),
    Row("max_running_requests", "--max-running-requests", "at most {value} sequences at once"),
    Row("kv_cache_dtype", "--kv-cache-dtype", "the dtype of keys and values in the cache",
        names={"fp8": "fp8_e4m3", "bf16": "bfloat16"}),
    Row("dtype", "--dtype", "the dtype of weights that are not quantized"),
    Row("chunked_prefill_size", "--chunked-prefill-size", "prompts are cut into chunks of {value} tokens"),
    Row("max_prefill_tokens", "--max-prefill-tokens", "at most {value} tokens of prompts in a batch"),
    Row("page_size", "--page-size", "{value} tokens in a page of the cache"),
    Row("swa_full_tokens_ratio", "--swa-full-tokens-ratio", "the share of tokens that window layers keep"),
    Row("disable_hybrid_swa_memory", "--disable-hybrid-swa-memory", "window layers keep whole sequences"),
    Row("mamba_full_memory_ratio", "--mamba-full-memory-ratio", "recurrent states beside the cache"),
    Row("max_mamba_cache_size", "--max-mamba-cache-size", "{value} recurrent states"),
    Row("mamba_ssm_dtype", "--mamba-ssm-dtype", "the dtype of recurrent states"),
    Row("attention_backend", "--attention-backend", "the kernels of attention"),
    Row("decode_attention_backend", "--decode-attention-backend", "the kernels of attention while decoding"),
    Row("disable_radix_cache", "--disable-radix-cache", "prefixes are not kept"),
    Row("disable_overlap_schedule", "--disable-overlap-schedule", "one batch is in flight at a time"),
    Row("disable_cuda_graph", "--disable-cuda-graph", "no CUDA graphs, which take memory of their own"),
    Row("enable_hierarchical_cache", "--enable-hierarchical-cache", "a second cache in host RAM"),
    Row("hicache_ratio", "--hicache-ratio", "the second cache is so many times the first"),
    Row("hicache_size", "--hicache-size", "the second cache in GB for each rank"),
    Row("cpu_offload_gb", "--cpu-offload-gb", "GB of weights in host RAM"),
    Row("disaggregation_mode", "--disaggregation-mode", "what this server does of a request"),
    Row("language_model_only", "--language-model-only", "encoders of images and sounds are left out"),
    Row("is_embedding", "--is-embedding", "vectors and scores instead of text"),
)  # fmt: skip

#: Fields whose flags have had several names; those of the newest version first.
_RENAMED = {
    "cuda_graph_max_bs": (("--cuda-graph-max-bs-decode", "--cuda-graph-max-bs"), "the largest batch with a graph"),
    "disable_prefill_cuda_graph": (
        ("--disable-prefill-cuda-graph", "--disable-piecewise-cuda-graph"), "no CUDA graphs of prompts",
    ),
    "mamba_radix_cache_strategy": (
        ("--mamba-radix-cache-strategy", "--mamba-scheduler-strategy"), "how recurrent states of prefixes are kept",
    ),
}  # fmt: skip

_WRITTEN = {
    "version", "tp_size", "pp_size", "dp_size", "attn_dp_size", "context_length", *_RENAMED,
    *(row.field for row in _ROWS),
}  # fmt: skip


def pins(order: Order) -> dict[str, Any]:
    """The share of memory that the version takes by default, on which the estimate rests."""
    return {"mem_fraction_static": order.estimate.details.get("mem_fraction_static")}


def write(order: Order) -> Written:
    """The command that starts SGLang's server with such settings.

    Raises
    ------
    BadInput
        For settings that no flag of that version stands for.
    """
    settings: Settings = order.settings
    usual = Settings(version=settings.version)
    require_written(settings, usual, _WRITTEN, "SGLang")
    table = flag_table("sglang_flags.txt")
    flags = [Flag(("--tp-size", str(settings.tp_size)), ranks_reason(order.estimate, settings.tp_size))]
    if settings.pp_size > 1:
        stages = str(settings.pp_size)
        flags.append(Flag(("--pp-size", stages), f"the layers in {stages} stages, one after another"))
    flags += _replicas(settings)
    if settings.context_length is not None:
        flags.append(Flag(("--context-length", str(settings.context_length)), length_reason(order.estimate)))
    flags += flags_of(settings, usual, _ROWS, order.estimate)
    for field, (spellings, reason) in _RENAMED.items():
        value = getattr(settings, field)
        if value != getattr(usual, field):
            name = flag_of_version(table, settings.version, spellings, "SGLang")
            flags.append(Flag((name,) if value is True else (name, str(value)), reason))
    online = online_format(order, _ONLINE, "SGLang")
    if online is not None:
        flags.append(
            Flag(("--quantization", online), f"weights are made {order.format_name} while they are loaded")
        )
    if order.revision is not None:
        flags.append(Flag(("--revision", order.revision), "the revision asked for"))
    return Written(
        "sglang",
        settings.version,
        ("python3", "-m", "sglang.launch_server", "--model-path", order.model),
        checked(flags, table, settings.version, "SGLang"),
    )


def _replicas(settings: Settings) -> list[Flag]:
    """Replicas of the model, and of its attention inside the ranks, which had a flag of their own late."""
    found = []
    table = flag_table("sglang_flags.txt")
    if settings.dp_size > 1:
        found.append(
            Flag(("--dp-size", str(settings.dp_size)), "replicas of the model on devices of their own")
        )
    if settings.attn_dp_size > 1:
        reason = "replicas of the attention inside the ranks, each with sequences of its own"
        ranks = str(settings.attn_dp_size)
        if not lacks(table.flags["--attn-dp-size"], table.versions, settings.version):
            found.append(Flag(("--attn-dp-size", ranks), reason))
        else:
            found.append(Flag(("--dp-size", ranks), reason))
            found.append(Flag(("--enable-dp-attention",), "they are inside the ranks"))
    return found
