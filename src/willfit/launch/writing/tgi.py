"""Writing `text-generation-launcher --model-id MODEL ...`."""

from __future__ import annotations

from willfit.engines.tgi.settings import Settings
from willfit.launch.flags import flag_table
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

#: `--quantize` for formats that TGI makes of 16-bit weights while it loads them.
ONLINE = {
    "fp8": "fp8", "eetq": "eetq", "bnb-int8": "bitsandbytes", "int8": "bitsandbytes", "nf4": "bitsandbytes-nf4",
    "fp4": "bitsandbytes-fp4",
}  # fmt: skip

_ROWS = (
    Row("max_total_tokens", "--max-total-tokens", ""),
    Row("max_batch_prefill_tokens", "--max-batch-prefill-tokens", "at most {value} tokens of prompts in a batch"),
    Row("cuda_memory_fraction", "--cuda-memory-fraction", "the share that TGI fills: {cache} of cache", pinned=True),
    Row("kv_cache_dtype", "--kv-cache-dtype", "the dtype of keys and values in the cache",
        names={"fp8": "fp8_e4m3fn", "fp8_e4m3": "fp8_e4m3fn"}),
    Row("quantize", "--quantize", "how the weights are stored on the device"),
    Row("speculate", "--speculate", "{value} tokens are drafted at once"),
)  # fmt: skip

_WRITTEN = {
    "version", "num_shard", "max_input_tokens", "cuda_graphs", "attention", "wiggle_room",
    *(row.field for row in _ROWS),
}  # fmt: skip


def settled(order: Order) -> Settings:
    """The settings with the method that the format asks for, on which graphs depend."""
    settings: Settings = order.settings
    from dataclasses import replace

    online = online_format(order, ONLINE, "TGI")
    return settings if online is None or settings.quantize else replace(settings, quantize=online)


def write(order: Order) -> Written:
    """The command that starts TGI's launcher with such settings.

    Raises
    ------
    BadInput
        For settings that no flag of that version stands for.
    """
    settings: Settings = order.settings
    usual = Settings(version=settings.version)
    require_written(settings, usual, _WRITTEN, "TGI")
    table = flag_table("tgi_flags.txt")
    flags = [
        Flag(("--num-shard", str(settings.num_shard)), ranks_reason(order.estimate, settings.num_shard)),
    ]
    for flag in flags_of(settings, usual, _ROWS, order.estimate):
        length = flag.words[0] == "--max-total-tokens"
        flags.append(Flag(flag.words, length_reason(order.estimate)) if length else flag)
    if settings.max_input_tokens is not None:
        name = flag_of_version(table, settings.version, ("--max-input-tokens", "--max-input-length"), "TGI")
        flags.append(
            Flag((name, str(settings.max_input_tokens)), "the longest prompt, with room for an answer")
        )
    if settings.cuda_graphs is not None:
        sizes = ",".join(map(str, settings.cuda_graphs)) or "0"
        flags.append(Flag(("--cuda-graphs", sizes), "batch sizes with a CUDA graph"))
    if order.revision is not None:
        flags.append(Flag(("--revision", order.revision), "the revision asked for"))
    variables = []
    if settings.attention is not None:
        variables.append(Flag((f"ATTENTION={settings.attention}",), "the kernels of attention"))
    if settings.wiggle_room is not None:
        variables.append(
            Flag((f"TGI_WIGGLE_ROOM={settings.wiggle_room!r}",), "the share of the cache that is used")
        )
    return Written(
        "tgi",
        settings.version,
        ("text-generation-launcher", "--model-id", order.model),
        checked(flags, table, settings.version, "TGI"),
        tuple(variables),
    )
