"""Edits of the variables that Ollama's server is started with."""

from __future__ import annotations

from dataclasses import replace

from willfit.fixing import candidates as ways
from willfit.fixing.candidates import CACHE, SPEED, Candidate
from willfit.fixing.given import Given
from willfit.launch.editing.changes import Change, SetParameter, SetVariable

#: Contexts are filled up to this many tokens (`llama-context.cpp`).
_PADDING = 256


def candidates(given: Given, creates: bool) -> list[Candidate]:
    """What may be edited: requests at once, the cache's type, the context; layers on the devices.

    Parameters
    ----------
    creates
        The command makes a model of a Modelfile, whose parameters win over variables.
    """
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

    def put(parameter: str, value: object) -> tuple[Change, ...]:
        if creates:
            return (SetParameter(parameter, str(value)),)
        return (SetVariable("OLLAMA_CONTEXT_LENGTH", str(value)),)

    name = "PARAMETER num_ctx" if creates else "OLLAMA_CONTEXT_LENGTH"
    for one in ways.shorter(name, given.context, _PADDING):
        found.append(replace(one, changes=lambda value: put("num_ctx", value)))
    if creates and (settings.num_gpu or 0) > 0:
        for one in ways.layers("PARAMETER num_gpu", details.get("n_gpu_layers")):
            found.append(replace(one, changes=lambda value: put("num_gpu", value)))
    return found
