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
#: From all of them on: the first step has the experts of all layers in RAM, and the furthest those of the fewest.
EXPERTS = Knob(
    "n-cpu-moe", "fewest layers whose experts stay in RAM", "layers", size=-1, fills=frozenset(("device", "pool"))
)  # fmt: skip
SEQUENCES = Knob("max-num-seqs", "most sequences that are scheduled at once", "sequences")
#: In steps in which graphs are captured: between them a batch of its own size may need more than a larger one.
BATCHED = Knob("max-num-batched-tokens", "most tokens of a batch", "tokens", first=16, size=16)
#: From all devices on, so that the fewest ranks are the furthest.
RANKS = Knob("tensor-parallel", "fewest ranks of tensor parallelism", "ranks")

#: A knob's setting by engine; each engine calls it otherwise.
SETTINGS: dict[str, dict[str, str]] = {
    CONTEXT.name: {
        "vllm": "max_model_len", "sglang": "context_length", "tgi": "max_total_tokens",
        "tensorrt-llm": "max_seq_len", "lmdeploy": "session_len", "lightllm": "max_req_total_len",
        "llama.cpp": "n_ctx", "ollama": "num_ctx", "lmstudio": "context_length", "exllamav2": "max_seq_len",
        "exllamav3": "max_seq_len", "fastllm": "context", "mlc-llm": "context_window_size",
    },
    SHARE.name: {
        "vllm": "gpu_memory_utilization", "sglang": "mem_fraction_static", "tgi": "cuda_memory_fraction",
        "tensorrt-llm": "free_gpu_memory_fraction", "lmdeploy": "cache_max_entry_count", "lightllm": "mem_fraction",
    },
    LAYERS.name: {"llama.cpp": "n_gpu_layers", "ollama": "num_gpu"},
    EXPERTS.name: {"llama.cpp": "n_cpu_moe"},
    SEQUENCES.name: {
        "vllm": "max_num_seqs", "sglang": "max_running_requests", "tensorrt-llm": "max_batch_size",
        "lmdeploy": "max_batch_size", "lightllm": "running_max_req_size",
    },
    BATCHED.name: {
        "vllm": "max_num_batched_tokens", "sglang": "chunked_prefill_size", "tensorrt-llm": "max_num_tokens",
        "tgi": "max_batch_prefill_tokens", "lmdeploy": "max_prefill_token_num", "lightllm": "batch_max_tokens",
    },
    RANKS.name: {
        "vllm": "tensor_parallel", "sglang": "tp_size", "tensorrt-llm": "tensor_parallel_size", "tgi": "num_shard",
        "lmdeploy": "tp", "lightllm": "tp",
    },
}  # fmt: skip

#: What else knobs are called: engines' own words.
_OTHER_NAMES = {
    "ctx": "context", "max-model-len": "context", "num-ctx": "context", "context-length": "context",
    "ctx-size": "context", "max-seq-len": "context", "session-len": "context", "max-total-tokens": "context",
    "concurrency": "users", "ngl": "n-gpu-layers", "num-gpu": "n-gpu-layers", "gpu-layers": "n-gpu-layers",
    "mem-fraction-static": SHARE.name, "free-gpu-memory-fraction": SHARE.name,
    "cache-max-entry-count": SHARE.name, "cuda-memory-fraction": SHARE.name, "ncmoe": EXPERTS.name,
    "max-running-requests": SEQUENCES.name, "max-batch-size": SEQUENCES.name,
    "chunked-prefill-size": BATCHED.name, "max-num-tokens": BATCHED.name, "max-batch-prefill-tokens": BATCHED.name,
    "tensor-parallel-size": RANKS.name, "tp": RANKS.name, "tp-size": RANKS.name, "num-shard": RANKS.name,
}  # fmt: skip

KNOBS = {
    knob.name: knob for knob in (CONTEXT, USERS, SHARE, LAYERS, EXPERTS, SEQUENCES, BATCHED, RANKS)
}  # fmt: skip

#: Steps beyond these are not tried; of contexts and batches where nothing names a limit.
_LONGEST, _MOST_USERS, _MOST_SEQUENCES, _MOST_BATCHED = 1 << 24, 1 << 20, 1 << 16, 1 << 16


@dataclass(frozen=True, slots=True)
class Serving:
    """A serving run that one number is left open in.

    Attributes
    ----------
    subject, machine, question
        As engines are given them.
    engine
        Its name.
    settings
        Under the engine's own names, where a launch command says them; None for what the question means.
    """

    subject: Subject
    machine: Machine
    question: Question
    engine: str
    settings: Any = None


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
    turned, last = steps_of(knob, run)
    return furthest(turned, last, estimates(turned, run))


def steps_of(knob: Knob, run: Serving) -> tuple[Knob, int]:
    """The knob with the first value that it has in a run, and its last step.

    Raises
    ------
    BadInput
        If the engine has no such knob, or the model nothing that it turns.
    """
    architecture = run.subject.architecture
    if knob.name in (CONTEXT.name, USERS.name) and run.settings is None:
        return knob, (architecture.max_positions or _LONGEST) if knob == CONTEXT else _MOST_USERS
    if knob == USERS:
        return knob, _MOST_USERS
    _field(knob, run)
    if knob == CONTEXT:
        return knob, architecture.max_positions or _LONGEST
    if knob == LAYERS:
        # All of the model's, and what comes behind them as one more (`llama-model.cpp: n_gpu_layers`).
        return knob, len(architecture.layers) + 2
    if knob == EXPERTS:
        if not any(layer.feed_forward and layer.feed_forward.experts for layer in architecture.layers):
            raise BadInput(f"{run.subject.model} has no experts, so that {knob.name} changes nothing")
        return replace(knob, first=len(architecture.layers)), len(architecture.layers) + 1
    if knob == RANKS:
        heads = {
            mixer.heads for layer in architecture.layers for mixer in layer.mixers if hasattr(mixer, "heads")
        }
        counts = range(len(run.machine.devices), 0, -1)
        values = tuple(count for count in counts if all(number % count == 0 for number in heads))
        return replace(knob, values=values), len(values)
    if knob == SEQUENCES:
        return knob, _MOST_SEQUENCES
    return knob, _MOST_BATCHED if knob == BATCHED else 100


def estimates(knob: Knob, run: Serving) -> Callable[[int], Estimate]:
    """The estimate at each step of a knob, as `steps_of` gives it."""
    question = run.question
    if run.settings is None and knob.name == CONTEXT.name:
        return lambda step: ask(run.engine, run.subject, run.machine, replace(question, context=step))
    if run.settings is None and knob.name == USERS.name:
        return lambda step: ask(run.engine, run.subject, run.machine, replace(question, users=step))
    module = engine_module(run.engine)
    weigh = getattr(module, "estimate_alone", module.estimate)
    settings = run.settings or module.settings_for(run.subject, run.machine, run.question)

    def at(step: int) -> Estimate:
        changes = (
            _of_users(run, settings, step)
            if knob.name == USERS.name
            else _of_value(knob, run, settings, step)
        )
        users = step if knob.name == USERS.name else run.question.users
        estimate: Estimate = weigh(run.subject, run.machine, replace(settings, **changes), users)
        return estimate

    return at


def _of_value(knob: Knob, run: Serving, settings: Any, step: int) -> dict[str, Any]:
    value: Any = knob.value(step)
    if knob.name == CONTEXT.name and run.engine == "llama.cpp":
        value *= _slots(settings)
    return {_field(knob, run): value}


def _of_users(run: Serving, settings: Any, users: int) -> dict[str, Any]:
    """What a command must say for so many users, where that is not the engine's own business."""
    if run.engine == "ollama":
        return {"num_parallel": users}
    if run.engine != "llama.cpp":
        return {}
    context = settings.n_ctx or run.subject.architecture.max_positions
    return {"n_parallel": users, "n_ctx": context // _slots(settings) * users}


def _slots(settings: Any) -> int:
    """Sequences of llama.cpp between which the tokens of the context are shared out."""
    return 1 if settings.kv_unified else max(1, settings.n_parallel or 1)


def _field(knob: Knob, run: Serving) -> str:
    """The engine's own setting that a knob turns."""
    field = SETTINGS[knob.name].get(run.engine)
    if field is None:
        own = [name for name in KNOBS if name == USERS.name or run.engine in SETTINGS[name]]
        raise BadInput(f"{run.engine} has no {knob.name}", f"its knobs: {', '.join(_and_context(own))}")
    return field


def _and_context(names: list[str]) -> list[str]:
    """Knobs with the one that every engine has, whatever it calls it."""
    return names if CONTEXT.name in names else [CONTEXT.name, *names]
