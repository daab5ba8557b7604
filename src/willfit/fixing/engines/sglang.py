"""Edits of SGLang's commands."""

from __future__ import annotations

from willfit.fixing import candidates as ways
from willfit.fixing.candidates import CACHE, OFFLOAD, SLOWER, SPEED, WEIGHTS, Candidate
from willfit.fixing.given import Given
from willfit.launch.editing.changes import SetFlag
from willfit.quantities import GIB


def candidates(given: Given) -> list[Candidate]:
    """What may be edited, by SGLang's own flags."""
    settings, details = given.settings, given.details
    found = ways.shares("--mem-fraction-static", details["mem_fraction_static"])
    if settings.chunked_prefill_size != -1:
        found += ways.halved(
            "--chunked-prefill-size", details["chunked_prefill_size"], 512, SPEED,
            "prompts are read {} tokens at a time, so that first tokens come later",
        )  # fmt: skip
    found += ways.halved(
        "--max-running-requests", details["max_running_requests"], max(4, given.users), SPEED,
        "at most {} sequences run at once, others wait",
    )  # fmt: skip
    if not settings.disable_cuda_graph:
        found += ways.halved(
            "--cuda-graph-max-bs", details["cuda_graph_max_bs"], 1, SPEED,
            "batches of more than {} sequences run without CUDA graphs",
        )  # fmt: skip
        found.append(
            ways.word("--disable-cuda-graph", None, SLOWER, "decoding is slower without CUDA graphs")
        )
    others = settings.pp_size * settings.dp_size
    found += ways.spread("--tp-size", settings.tp_size, others, given.devices)
    if settings.kv_cache_dtype in ("auto", "bf16", "bfloat16"):
        found.append(
            ways.word("--kv-cache-dtype", "fp8_e4m3", CACHE, "keys and values are rounded to 8 bits")
        )
    found += ways.shorter("--context-length", given.context, settings.page_size or 1)
    if given.stored_plain:
        cost = "weights are rounded to 8 bits as they load"
        found.append(ways.word("--quantization", "fp8", WEIGHTS, cost))
    if not settings.cpu_offload_gb:
        most = max(1, int(given.subject.weight_bytes / settings.ranks / 3 / GIB))
        found.append(
            Candidate(
                "--cpu-offload-gb", range(most, 0, -1),
                lambda value: (SetFlag("--cpu-offload-gb", str(value)),),
                lambda value: OFFLOAD + value / most,
                lambda value: f"{value} GiB of weights cross from RAM at every step, which is many times slower",
            )
        )  # fmt: skip
    return found
