"""Edits of the variables that Ollama's server is started with."""

from __future__ import annotations

from willfit.fixing import candidates as ways
from willfit.fixing.candidates import CACHE, SPEED, Candidate
from willfit.fixing.given import Given
from willfit.launch.editing.changes import Change, SetVariable

#: Contexts are filled up to this many tokens (`llama-context.cpp`).
_PADDING = 256


def candidates(given: Given) -> list[Candidate]:
    """What may be edited: requests at once, the cache's type, the context."""
    settings, details = given.settings, given.details
    found: list[Candidate] = []
    if details["num_parallel"] > max(1, given.users):
        found.append(
            Candidate(
                "OLLAMA_NUM_PARALLEL", range(max(1, given.users), details["num_parallel"]),
                lambda value: (SetVariable("OLLAMA_NUM_PARALLEL", str(value)),), lambda value: SPEED + 1 / value,
                lambda value: f"at most {value} requests run at once, others wait",
            )
        )  # fmt: skip
    if settings.kv_cache_type in (None, "f16"):
        flash: tuple[Change, ...] = (
            () if details.get("flash_attn") else (SetVariable("OLLAMA_FLASH_ATTENTION", "1"),)
        )
        found.append(
            Candidate(
                "OLLAMA_KV_CACHE_TYPE", ("q8_0",),
                lambda value: (SetVariable("OLLAMA_KV_CACHE_TYPE", value), *flash), lambda _: CACHE,
                lambda _: "keys and values are rounded to 8 bits",
            )
        )  # fmt: skip
    if settings.num_ctx is None:
        for one in ways.shorter("OLLAMA_CONTEXT_LENGTH", given.context, _PADDING):
            found.append(
                Candidate(
                    one.name, one.values, lambda value: (SetVariable("OLLAMA_CONTEXT_LENGTH", str(value)),),
                    one.loss, one.cost,
                )
            )  # fmt: skip
    return found
