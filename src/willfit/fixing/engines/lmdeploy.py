"""Edits of LMDeploy's commands."""

from __future__ import annotations

from willfit.fixing import candidates as ways
from willfit.fixing.candidates import CACHE, SLOWER, SPEED, Candidate
from willfit.fixing.given import Given


def candidates(given: Given) -> list[Candidate]:
    """What may be edited, by LMDeploy's own flags."""
    settings, details = given.settings, given.details
    found: list[Candidate] = []
    if details["cache_max_entry_count"] <= 1:
        found += ways.shares("--cache-max-entry-count", details["cache_max_entry_count"])
    found += ways.halved(
        "--max-prefill-token-num", details["max_prefill_token_num"], 512, SPEED,
        "prompts are read {} tokens at a time, so that first tokens come later",
    )  # fmt: skip
    found += ways.halved(
        "--max-batch-size", details["max_batch_size"], max(4, given.users), SPEED,
        "at most {} sequences run at once, others wait",
    )  # fmt: skip
    if details["backend"] == "pytorch" and not settings.eager_mode:
        found.append(ways.word("--eager-mode", None, SLOWER, "decoding is slower without CUDA graphs"))
    found += ways.spread("--tp", settings.tp, settings.dp * settings.cp, given.devices)
    if not settings.quant_policy:
        for value, loss in (("8", 0.0), ("4", 1.5)):
            cost = f"keys and values are rounded to {value} bits"
            found.append(ways.word("--quant-policy", value, CACHE + loss, cost, "cache"))
    return [*found, *ways.shorter("--session-len", given.context, details["block_size"])]
