"""Edits of commands of programs with few flags about memory."""

from __future__ import annotations

from willfit.fixing import candidates as ways
from willfit.fixing.candidates import CACHE, SPEED, WEIGHTS, Candidate
from willfit.fixing.given import Given
from willfit.launch.editing.changes import SetFlag

#: Contexts of llama.cpp are filled up to this many tokens (`llama-context.cpp`).
_PADDING = 256


def lightllm(given: Given) -> list[Candidate]:
    """LightLLM's own flags."""
    settings, details = given.settings, given.details
    found = ways.shares("--mem_fraction", details["mem_fraction"])
    found += ways.halved(
        "--batch_max_tokens", details["batch_max_tokens"], 512, SPEED,
        "prompts are read {} tokens at a time, so that first tokens come later",
    )  # fmt: skip
    found += ways.halved(
        "--running_max_req_size", details["running_max_req_size"], max(4, given.users), SPEED,
        "at most {} sequences run at once, others wait",
    )  # fmt: skip
    found += ways.spread("--tp", settings.tp, 1, given.devices)
    found += ways.shorter("--max_req_total_len", given.context, 1)
    if given.stored_plain and settings.quant_type == "none":
        cost = "weights are rounded to 8 bits as they load"
        found.append(ways.word("--quant_type", "vllm-fp8w8a8", WEIGHTS, cost))
    return found


def koboldcpp(given: Given) -> list[Candidate]:
    """KoboldCpp's own flags."""
    found: list[Candidate] = []
    if given.settings.cache_type_k == "f16":
        cost = "keys and values are rounded to 8 bits"
        found.append(
            Candidate(
                "--quantkv", ("1",),
                lambda value: (SetFlag("--quantkv", value), SetFlag("--flashattention")),
                lambda _: CACHE, lambda _: cost,
            )
        )  # fmt: skip
    return [
        *found,
        *ways.shorter("--contextsize", given.context, _PADDING),
        *ways.layers("--gpulayers", given.details.get("n_gpu_layers")),
    ]


def llama_cpp_python(given: Given) -> list[Candidate]:
    """Flags of llama-cpp-python's server."""
    return [
        *ways.shorter("--n_ctx", given.context, _PADDING),
        *ways.layers("--n_gpu_layers", given.details.get("n_gpu_layers")),
    ]


def lmstudio(given: Given) -> list[Candidate]:
    """Flags of `lms load`."""
    return ways.shorter("--context-length", given.context, _PADDING)
