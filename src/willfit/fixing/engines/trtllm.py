"""Edits of commands of TensorRT-LLM's server."""

from __future__ import annotations

from willfit.fixing import candidates as ways
from willfit.fixing.candidates import CACHE, SPEED, Candidate
from willfit.fixing.given import Given


def candidates(given: Given) -> list[Candidate]:
    """What may be edited, by TensorRT-LLM's own flags."""
    settings, details = given.settings, given.details
    found = ways.shares("--free_gpu_memory_fraction", details["free_gpu_memory_fraction"])
    found += ways.halved(
        "--max_num_tokens", details["max_num_tokens"], 512, SPEED,
        "prompts are read {} tokens at a time, so that first tokens come later",
    )  # fmt: skip
    found += ways.halved(
        "--max_batch_size", details["max_batch_size"], max(4, given.users), SPEED,
        "at most {} sequences run at once, others wait",
    )  # fmt: skip
    others = settings.pipeline_parallel_size
    found += ways.spread("--tensor_parallel_size", settings.tensor_parallel_size, others, given.devices)
    if settings.kv_cache_dtype in ("auto", "float16", "bfloat16"):
        found.append(ways.word("--kv_cache_dtype", "fp8", CACHE, "keys and values are rounded to 8 bits"))
    return [*found, *ways.shorter("--max_seq_len", given.context, details["tokens_per_block"])]
