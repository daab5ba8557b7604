"""Edits of commands of TGI's launcher."""

from __future__ import annotations

from willfit.fixing import candidates as ways
from willfit.fixing.candidates import CACHE, SLOWER, SPEED, WEIGHTS, Candidate
from willfit.fixing.given import Given
from willfit.launch.editing.changes import Change, SetFlag


def candidates(given: Given) -> list[Candidate]:
    """What may be edited, by TGI's own flags."""
    settings, details = given.settings, given.details
    found = ways.shares("--cuda-memory-fraction", settings.cuda_memory_fraction, 1.0)
    found += ways.halved(
        "--max-batch-prefill-tokens", details["max_batch_prefill_tokens"], 512, SPEED,
        "prompts are read up to {} tokens at a time, so that first tokens come later",
    )  # fmt: skip
    if settings.cuda_graphs != ():
        found.append(ways.word("--cuda-graphs", "0", SLOWER, "decoding is slower without CUDA graphs"))
    found += ways.spread("--num-shard", settings.num_shard, 1, given.devices)
    if settings.kv_cache_dtype is None:
        found.append(
            ways.word("--kv-cache-dtype", "fp8_e4m3fn", CACHE, "keys and values are rounded to 8 bits")
        )
    prompt = settings.max_input_tokens

    def shortened(value: int) -> tuple[Change, ...]:
        # A prompt must be shorter than the whole sequence.
        return (SetFlag("--max-input-tokens", str(value - 1)),) if prompt and prompt >= value else ()

    found += ways.shorter("--max-total-tokens", given.context, details["block_size"], also=shortened)
    if given.stored_plain:
        for value, loss, bits in (("fp8", 0, 8), ("bitsandbytes-nf4", 1, 4)):
            cost = f"weights are rounded to {bits} bits as they load"
            found.append(ways.word("--quantize", value, WEIGHTS + loss, cost, "weights"))
    return found
