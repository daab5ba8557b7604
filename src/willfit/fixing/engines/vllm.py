"""Edits of vLLM's commands."""

from __future__ import annotations

from willfit.engines.vllm.settings import AUTO
from willfit.fixing import candidates as ways
from willfit.fixing.candidates import CACHE, OFFLOAD, SHARE, SLOWER, SPEED, WEIGHTS, Candidate
from willfit.fixing.given import Given
from willfit.launch.editing.changes import DropFlag, SetFlag
from willfit.quantities import GIB


def candidates(given: Given) -> list[Candidate]:
    """What may be edited, by vLLM's own flags."""
    settings, details = given.settings, given.details
    found: list[Candidate] = []
    for flag, value in (
        ("--kv-cache-memory-bytes", settings.kv_cache_memory_bytes),
        ("--num-gpu-blocks-override", settings.num_gpu_blocks_override),
    ):
        if value is not None:
            found.append(_dropped(flag))
    found += ways.shares("--gpu-memory-utilization", details["gpu_memory_utilization"])
    found += ways.halved(
        "--max-num-batched-tokens", details["max_num_batched_tokens"], 512, SPEED,
        "prompts are read {} tokens at a time, so that first tokens come later",
    )  # fmt: skip
    found += ways.halved(
        "--max-num-seqs", details["max_num_seqs"], max(4, given.users), SPEED,
        "at most {} sequences run at once, others wait",
    )  # fmt: skip
    if not settings.enforce_eager:
        found.append(ways.word("--enforce-eager", None, SLOWER, "decoding is slower without CUDA graphs"))
    others = settings.replica_ranks // settings.tensor_parallel * settings.data_parallel
    found += ways.spread("--tensor-parallel-size", settings.tensor_parallel, others, given.devices)
    if settings.kv_cache_dtype in ("auto", "bfloat16", "float16"):
        found.append(ways.word("--kv-cache-dtype", "fp8", CACHE, "keys and values are rounded to 8 bits"))
    if settings.max_model_len != AUTO:
        found += ways.shorter("--max-model-len", given.context, settings.block_size or 16)
    if given.stored_plain:
        found.append(
            ways.word(
                "--quantization", "fp8", WEIGHTS, "weights are rounded to 8 bits as they load", "weights"
            )
        )
        found.append(
            ways.word(
                "--quantization", "bitsandbytes", WEIGHTS + 1,
                "weights are rounded to 4 bits (NF4) as they load, and decoding is slower", "weights",
            )
        )  # fmt: skip
    if settings.offload is None:
        found.append(_offloaded(given))
    return found


def _dropped(flag: str) -> Candidate:
    return Candidate(
        flag,
        (None,),
        lambda _: (DropFlag(flag),),
        lambda _: SHARE,
        lambda _: "vLLM sizes the cache by itself",
    )


def _offloaded(given: Given) -> Candidate:
    """The fewest GiB of weights of each device in RAM, at most a third: with more, every step waits for the bus."""
    most = max(1, int(given.subject.weight_bytes / given.settings.replica_ranks / 3 / GIB))
    return Candidate(
        "--cpu-offload-gb", range(most, 0, -1), lambda value: (SetFlag("--cpu-offload-gb", str(value)),),
        lambda value: OFFLOAD + value / most,
        lambda value: f"{value} GiB of weights cross from RAM at every step, which is many times slower",
    )  # fmt: skip
