"""Writing a Modelfile, the variables of `ollama serve`, and the commands that make and run the model."""

from __future__ import annotations

import re
from typing import Any

from willfit.engines.ollama.settings import Settings
from willfit.errors import BadInput
from willfit.launch.writing.models import gguf_name
from willfit.launch.writing.rows import require_written, term_bytes, text_of
from willfit.launch.writing.templates import template_of
from willfit.launch.writing.written import Flag, Order, Written
from willfit.quantities import format_bytes

FILE = "Modelfile"

#: Variables of the server by the setting that they give, with the reason of each.
_VARIABLES = {
    "num_parallel": (
        "OLLAMA_NUM_PARALLEL",
        "requests that are answered at once, each with a context of its own",
    ),
    "context_length": ("OLLAMA_CONTEXT_LENGTH", "the context of models that name none"),
    "kv_cache_type": ("OLLAMA_KV_CACHE_TYPE", "the type of keys and values in the cache"),
    "flash_attention": (
        "OLLAMA_FLASH_ATTENTION",
        "attention without a matrix of scores, which other types need",
    ),
    "gpu_overhead": ("OLLAMA_GPU_OVERHEAD", "bytes of each device that are left alone"),
    "max_loaded_models": ("OLLAMA_MAX_LOADED_MODELS", "models that are loaded at once"),
    "sched_spread": ("OLLAMA_SCHED_SPREAD", "layers are spread over all devices"),
    "new_engine": ("OLLAMA_NEW_ENGINE", "Ollama's own engine runs the model"),
    "new_estimates": ("OLLAMA_NEW_ESTIMATES", "memory is measured before layers are placed"),
    "llm_library": ("OLLAMA_LLM_LIBRARY", "the library that runs the model"),
    "fit_target_mib": ("LLAMA_ARG_FIT_TARGET", "MiB that are left free on each device"),
}

#: Parameters of the Modelfile, with the comment above each.
_PARAMETERS = {
    "num_ctx": "tokens of a sequence",
    "num_gpu": "layers on the devices, with the output as one more",
    "num_batch": "tokens that are computed at once",
    "num_thread": "threads",
    "main_gpu": "the device with what is not divided",
    "draft_num_predict": "tokens that are drafted at once",
    "use_mmap": "the file is mapped",
    "use_mlock": "the file is pinned into RAM",
}

_WRITTEN = {"version", "fit", "keep_alive", "stored", "encoder", *_VARIABLES, *_PARAMETERS}


def pins(order: Order) -> dict[str, Any]:
    """All layers on the devices, said outright: what is left open is placed anew by what is free at that time."""
    return {"num_gpu": len(order.subject.architecture.layers) + 1}


def write(order: Order) -> Written:
    """The Modelfile with its commands, and the server's variables.

    Raises
    ------
    BadInput
        For settings that neither a variable nor a parameter stands for, or a model that is no GGUF file.
    """
    settings: Settings = order.settings
    usual = Settings(version=settings.version)
    require_written(settings, usual, _WRITTEN, "Ollama")
    named = gguf_name(order, "Ollama")
    source = f"hf.co/{named.repository}:{named.tag}" if named.repository else _beside(named.path)
    template, note = template_of(order.chat_template)
    lines = [f"FROM {source}"]
    for name, reason in _PARAMETERS.items():
        value = getattr(settings, name)
        if value != getattr(usual, name):
            lines += [f"# {_with_sizes(name, reason, order)}", f"PARAMETER {name} {_word(value)}"]
    lines += [template] if template else []
    called = _called(order)
    return Written(
        "ollama",
        settings.version,
        ("ollama", "create", called),
        (Flag(("-f", FILE), "the model with its context and layers"),),
        _variables(settings, usual),
        {FILE: "\n".join(lines) + "\n"},
        server=("ollama", "serve"),
        after=(("ollama", "run", called),),
        notes=(*named.notes, note),
    )


def _variables(settings: Settings, usual: Settings) -> tuple[Flag, ...]:
    found = []
    for field, (name, reason) in _VARIABLES.items():
        value = getattr(settings, field)
        if value != getattr(usual, field):
            found.append(Flag((f"{name}={int(value) if isinstance(value, bool) else value}",), reason))
    if settings.keep_alive is not None:
        seconds = text_of(settings.keep_alive)
        found.append(Flag((f"OLLAMA_KEEP_ALIVE={seconds}s",), "how long a model stays loaded"))
    if settings.fit is False:
        found.append(Flag(("LLAMA_ARG_FIT=off",), "what is open is not made to fit"))
    return tuple(found)


def _with_sizes(name: str, reason: str, order: Order) -> str:
    """A reason with what it costs."""
    if name == "num_ctx":
        cache = format_bytes(term_bytes(order.estimate, "kv_cache"))
        return f"{reason}; {order.users} at once take {cache} of cache on a device"
    if name == "num_gpu":
        return f"{reason}: {format_bytes(term_bytes(order.estimate, 'weights'))} of weights on the fullest"
    return reason


def _word(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _beside(path: str) -> str:
    """A path as a Modelfile has it: a bare name would be taken for a model of the library."""
    if "\n" in path:
        raise BadInput("the path of the model has a line break in it", "rename the file")
    return path if path.startswith(("/", "./", "../", "~")) else f"./{path}"


def _called(order: Order) -> str:
    """What the model is called in Ollama: small letters, digits, dots and dashes (`types/model/name.go`)."""
    name = order.subject.model.rstrip("/").rpartition("/")[2].lower().removesuffix(".gguf")
    return re.sub(r"[^a-z0-9._-]+", "-", name).strip("-._")[:60] or "model"
