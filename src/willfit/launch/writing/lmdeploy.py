"""Writing `lmdeploy serve api_server MODEL ...`."""

from __future__ import annotations

from typing import Any

from willfit.engines.lmdeploy.settings import Settings
from willfit.launch.flags import flag_table
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

_ROWS = (
    Row("backend", "--backend", "the engine that runs"),
    Row("dp", "--dp", "{value} replicas of the attention"),
    Row("ep", "--ep", "{value} ranks share the experts"),
    Row("cp", "--cp", "{value} ranks share the tokens of a sequence"),
    Row("max_batch_size", "--max-batch-size", "at most {value} sequences at once"),
    Row(
        "cache_max_entry_count", "--cache-max-entry-count", "the share of memory that the cache gets: {cache}"
    ),
    Row("quant_policy", "--quant-policy", "the bits of keys and values in the cache"),
    Row("dtype", "--dtype", "the dtype of weights that are not quantized"),
    Row("cache_block_seq_len", "--cache-block-seq-len", "{value} tokens in a block of the cache"),
    Row("max_prefill_token_num", "--max-prefill-token-num", "at most {value} tokens of prompts in a step"),
    Row("num_gpu_blocks", "--num-gpu-blocks", "the cache has {value} blocks"),
    Row("eager_mode", "--eager-mode", "no CUDA graphs, which take memory of their own"),
    Row("language_model_only", "--language-model-only", "encoders of images are left out"),
    Row("prefix_cache_state_budget", "--prefix-cache-state-budget", "recurrent states kept for prefixes"),
)

_WRITTEN = {
    "version", "tp", "session_len", "cudagraph_capture_batch_sizes", *(row.field for row in _ROWS),
}  # fmt: skip


def pins(order: Order) -> dict[str, Any]:
    """The share of memory that the version takes by default, on which the estimate rests."""
    return {"cache_max_entry_count": order.estimate.details.get("cache_max_entry_count")}


def write(order: Order) -> Written:
    """The command that starts LMDeploy's server with such settings.

    Raises
    ------
    BadInput
        For settings that no flag of that version stands for.
    """
    settings: Settings = order.settings
    usual = Settings(version=settings.version)
    require_written(settings, usual, _WRITTEN, "LMDeploy")
    online_format(order, {}, "LMDeploy")
    flags = [Flag(("--tp", str(settings.tp)), ranks_reason(order.estimate, settings.tp))]
    if settings.session_len is not None:
        flags.append(Flag(("--session-len", str(settings.session_len)), length_reason(order.estimate)))
    flags += flags_of(settings, usual, _ROWS, order.estimate)
    if settings.cudagraph_capture_batch_sizes:
        sizes = map(str, settings.cudagraph_capture_batch_sizes)
        flags.append(Flag(("--cudagraph-capture-batch-sizes", *sizes), "batch sizes with a CUDA graph"))
    if order.revision is not None:
        flags.append(Flag(("--revision", order.revision), "the revision asked for"))
    return Written(
        "lmdeploy",
        settings.version,
        ("lmdeploy", "serve", "api_server", order.model),
        checked(flags, flag_table("lmdeploy_flags.txt"), settings.version, "LMDeploy"),
    )
