"""Knobs of a serving run: what a question says, and what an engine's own settings say."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from willfit.engines.base import Machine, Question, Subject
from willfit.engines.table import ask, engine_module
from willfit.errors import BadInput
from willfit.estimate import Estimate
from willfit.planning.knobs import Knob
from willfit.planning.solving import Furthest, furthest

CONTEXT = Knob("context", "longest context", "tokens")
USERS = Knob("users", "most users at once")
#: The budget grows with the share, so that only what lies outside of it can be too much.
SHARE = Knob(
    "gpu-memory-utilization", "largest share of a device", first=0.01, size=0.01,
    fills=frozenset(("device",)),
)  # fmt: skip
#: Layers that leave the host's RAM for the devices.
LAYERS = Knob(
    "n-gpu-layers", "most layers on the devices", "layers", first=0, fills=frozenset(("device", "pool"))
)

#: A knob's setting by engine; each engine calls it otherwise.
_SETTINGS: dict[str, dict[str, str]] = {
    SHARE.name: {
        "vllm": "gpu_memory_utilization", "sglang": "mem_fraction_static", "tgi": "cuda_memory_fraction",
        "tensorrt-llm": "free_gpu_memory_fraction", "lmdeploy": "cache_max_entry_count", "lightllm": "mem_fraction",
    },
    LAYERS.name: {"llama.cpp": "n_gpu_layers", "ollama": "num_gpu"},
}  # fmt: skip

#: What else knobs are called: engines' own words.
_OTHER_NAMES = {
    "ctx": "context", "max-model-len": "context", "num-ctx": "context", "concurrency": "users", "ngl": "n-gpu-layers",
    "num-gpu": "n-gpu-layers", "gpu-layers": "n-gpu-layers", "mem-fraction-static": SHARE.name,
    "free-gpu-memory-fraction": SHARE.name, "cache-max-entry-count": SHARE.name, "cuda-memory-fraction": SHARE.name,
}  # fmt: skip

KNOBS = {knob.name: knob for knob in (CONTEXT, USERS, SHARE, LAYERS)}

#: Where the config names no limit: steps beyond these are not tried.
_LONGEST, _MOST_USERS = 1 << 24, 1 << 20


@dataclass(frozen=True, slots=True)
class Serving:
    """A serving run that one number is left open in.

    Attributes
    ----------
    subject, machine, question
        As engines are given them.
    engine
        Its name.
    """

    subject: Subject
    machine: Machine
    question: Question
    engine: str


def knob_named(name: str) -> Knob | None:
    """The knob of a serving run that a word means; None if none does."""
    word = name.lower().replace("_", "-").lstrip("-")
    return KNOBS.get(_OTHER_NAMES.get(word, word))


def solved(knob: Knob, run: Serving) -> Furthest:
    """Turn a knob of a serving run as far as it goes.

    Raises
    ------
    BadInput
        If the engine has no such knob, or nothing can be estimated.
    """
    last, at = _range(knob, run)
    return furthest(knob, last, at)


def _range(knob: Knob, run: Serving) -> tuple[int, Callable[[int], Estimate]]:
    """The last step, and the estimate at a step."""
    if knob == CONTEXT:
        limit = run.subject.architecture.max_positions or _LONGEST
        return limit, lambda step: _asked(run, replace(run.question, context=step))
    if knob == USERS:
        return _MOST_USERS, lambda step: _asked(run, replace(run.question, users=step))
    field = _SETTINGS[knob.name].get(run.engine)
    if field is None:
        known = ", ".join(_SETTINGS[knob.name])
        raise BadInput(f"{run.engine} has no {knob.name}", f"engines that have it: {known}")
    module = engine_module(run.engine)
    settings = module.settings_for(run.subject, run.machine, run.question)

    def at(step: int) -> Estimate:
        value: Any = knob.value(step)
        changed = replace(settings, **{field: value})
        estimate: Estimate = module.estimate(run.subject, run.machine, changed, run.question.users)
        return estimate

    if knob == LAYERS:
        # All of the model's, and what comes behind them as one more (`llama-model.cpp: n_gpu_layers`).
        return len(run.subject.architecture.layers) + 2, at
    return 100, at


def _asked(run: Serving, question: Question) -> Estimate:
    return ask(run.engine, run.subject, run.machine, question)
