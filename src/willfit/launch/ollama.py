"""Reading `ollama run MODEL`, `ollama create NAME -f Modelfile`, and the variables of `ollama serve`.

A server loads no model until it is asked for one, so that `ollama serve` alone says nothing that could be answered;
its variables count for an `ollama run` behind it. Flags are those of 0.32 (`cmd/cmd.go`) with those of versions since
0.1.33, variables those of `envconfig/config.go`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from willfit.engines.ollama.eras import NEWEST
from willfit.engines.ollama.library import Known, known
from willfit.engines.ollama.settings import Settings
from willfit.errors import BadInput
from willfit.launch.base import Launch, OnlyServes
from willfit.launch.flags import FlagTable, did_you_mean, flag_table
from willfit.launch.modelfile import Modelfile, read_modelfile
from willfit.launch.notes import not_counted, of_other_versions
from willfit.launch.scanning import Dialect, Scanned, scan
from willfit.launch.values import whole

PROGRAM = "ollama"

#: `parse` is given the variables in front of the command as well.
READS_VARIABLES = True

_DIALECT = Dialect(abbreviations=False, greedy=True)
_STARTING = ("run", "create")
_SERVING = ("serve", "start")
_OTHERS = (
    "pull", "push", "list", "ls", "ps", "stop", "show", "cp", "rm", "signin", "signout", "login", "logout", "launch",
    "help", "runner",
)  # fmt: skip

#: Variables by the setting that they give; those that say yes or no, and numbers with the least that they may be.
_SWITCHES = {
    "OLLAMA_FLASH_ATTENTION": "flash_attention",
    "OLLAMA_SCHED_SPREAD": "sched_spread",
    "OLLAMA_NEW_ENGINE": "new_engine",
    "OLLAMA_NEW_ESTIMATES": "new_estimates",
}
_NUMBERS = {
    "OLLAMA_NUM_PARALLEL": "num_parallel",
    "OLLAMA_CONTEXT_LENGTH": "context_length",
    "OLLAMA_GPU_OVERHEAD": "gpu_overhead",
    "OLLAMA_MAX_LOADED_MODELS": "max_loaded_models",
    "LLAMA_ARG_FIT_TARGET": "fit_target_mib",
}
_WORDS = {"OLLAMA_KV_CACHE_TYPE": "kv_cache_type", "OLLAMA_LLM_LIBRARY": "llm_library"}
_TRUE = ("1", "t", "T", "TRUE", "true", "True")
_FALSE = ("0", "f", "F", "FALSE", "false", "False")

#: Go's durations: `5m`, `1h30m`, `-1s`.
_DURATION = re.compile(r"[+-]?(?:\d+(?:\.\d*)?(?:ns|us|µs|ms|s|m|h))+")
_PART = re.compile(r"(\d+(?:\.\d*)?)(ns|us|µs|ms|s|m|h)")
_SECONDS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}


def recognises(words: Sequence[str]) -> bool:
    """Whether a command starts Ollama."""
    return words[0].rsplit("/", 1)[-1] == PROGRAM


def parse(
    words: Sequence[str], version: str | None = None, variables: Mapping[str, str] | None = None
) -> Launch:
    """Read a command that makes Ollama load a model.

    Parameters
    ----------
    words
        The command, split as a shell would.
    version
        Version of Ollama; None for the newest that is known.
    variables
        What is set in front of it.

    Raises
    ------
    BadInput
        For a command that loads nothing, a flag or parameter that Ollama does not have, a value that it would refuse,
        or a model of which it is not known what it is; `OnlyServes` if only a server is started.
    """
    given = dict(variables or {})
    what = words[1] if len(words) > 1 else ""
    if what in _SERVING:
        behind = _behind(words[2:])
        if behind is None:
            raise OnlyServes(given, version)
        return parse(behind, version, given)
    if what not in _STARTING:
        known_words = ", ".join(f"ollama {word}" for word in _STARTING)
        hint = did_you_mean(what, (*_STARTING, *_SERVING)) if what and what not in _OTHERS else known_words
        raise BadInput(f"ollama {what[:40]}".rstrip() + ": nothing is loaded", hint)
    table = flag_table(f"ollama_{what}_flags.txt")
    scanned = scan(words[2:], table, f"{PROGRAM} {what}", _DIALECT, version)
    return _run(scanned, table, version, given) if what == "run" else _create(scanned, table, version, given)


def _behind(words: Sequence[str]) -> Sequence[str] | None:
    """A command behind a server's that loads a model; None without."""
    for index in range(len(words) - 1):
        if words[index].rsplit("/", 1)[-1] == PROGRAM and words[index + 1] in _STARTING:
            return words[index:]
    return None


def _run(scanned: Scanned, table: FlagTable, version: str | None, variables: Mapping[str, str]) -> Launch:
    if not scanned.positionals:
        raise BadInput("ollama run: no model is named", "write ollama run MODEL")
    name = scanned.positionals[0]
    keep = scanned.options.get("--keepalive")
    settings, notes = _environment(variables)
    if keep is not None:
        settings["keep_alive"] = _duration(str(keep))
        if settings["keep_alive"] is None:
            raise BadInput(
                f"ollama run: --keepalive is {str(keep)[:40]!r}, expected a duration", "write it as 10m"
            )
    return _launch(_model(name), settings, notes, scanned, table, version)


def _create(scanned: Scanned, table: FlagTable, version: str | None, variables: Mapping[str, str]) -> Launch:
    path = scanned.options.get("--file", "Modelfile")
    file = read_modelfile(str(path))
    settings, notes = _environment(variables)
    settings |= _parameters(file)
    if file.adapters:
        settings["adapters"] = file.adapters
    if file.draft:
        notes.append("the drafting model (DRAFT) is not counted")
    quant = scanned.options.get("--quantize")
    return _launch(
        _model(file.model, str(quant) if quant else None), settings, notes, scanned, table, version
    )


def _launch(
    model: Known,
    settings: dict[str, Any],
    notes: list[str],
    scanned: Scanned,
    table: FlagTable,
    version: str | None,
) -> Launch:
    if version:
        settings["version"] = version
    named = [f"{model.name} is taken for {model.file}"] if model.in_library else []
    return Launch(
        engine=PROGRAM,
        model=model.file,
        revision=None,
        settings=Settings(stored=model.stored, encoder=model.encoder, **settings),
        notes=(
            *of_other_versions(scanned, table, "Ollama", version or NEWEST),
            *not_counted(scanned),
            *named,
            *notes,
        ),
    )


def _model(name: str, quant: str | None = None) -> Known:
    """What a model's name stands for; files and folders stand for themselves."""
    path = name.removeprefix("file://")
    if path.startswith(("/", "./", "../", "~")) or path.endswith((".gguf", ".safetensors")) or path == ".":
        return Known.of_path(path, quant)
    found = known(name)
    return found if quant is None else found.quantized(quant)


#: Variables that do not change what a model takes, of any version.
_QUIET = frozenset(
    f"OLLAMA_{name}" for name in (
        "API_KEY", "AUTH", "DEBUG", "DEBUG_LOG_REQUESTS", "EDITOR", "EXPERIMENT", "GO_TEMPLATE", "HOST", "IGPU_ENABLE",
        "INTEL_GPU", "KEEP_ALIVE", "LIBRARY_PATH", "LOAD_TIMEOUT", "MAX_QUEUE", "MAX_TRANSFER_STREAMS", "MAX_VRAM",
        "MODELS", "MULTIUSER_CACHE", "NOHISTORY", "NOPRUNE", "NO_CLOUD", "ORIGINS", "REMOTES", "TMPDIR", "VERSION",
        "VULKAN",
    )
)  # fmt: skip


def _unknown(variables: Mapping[str, str]) -> list[str]:
    """Notes on variables that look like Ollama's and are none, which it passes over."""
    from difflib import get_close_matches

    names = sorted({*_SWITCHES, *_NUMBERS, *_WORDS, *_QUIET})
    notes = []
    for name in variables:
        if name.startswith("OLLAMA_") and name not in names:
            close = get_close_matches(name, names, 1, 0.8)
            meant = f" (do you mean {close[0]}?)" if close else ""
            notes.append(f"Ollama has no variable {name[:40]}: it has no effect{meant}")
    return notes


def _environment(variables: Mapping[str, str]) -> tuple[dict[str, Any], list[str]]:
    """Settings of the server, and notes on variables that Ollama would not understand."""
    settings: dict[str, Any] = {}
    notes = []
    for name, setting in _SWITCHES.items():
        text = variables.get(name, "")
        if text:
            settings[setting] = text not in _FALSE
            if text not in (*_TRUE, *_FALSE):
                notes.append(f"{name}={text[:20]} is taken for true")
    for name, setting in _NUMBERS.items():
        text = variables.get(name, "")
        if text.isascii() and text.isdigit():
            # 0 leaves the choice to Ollama.
            settings[setting] = int(text) or (0 if setting == "gpu_overhead" else None)
        elif text:
            notes.append(f"{name}={text[:20]} is no whole number: Ollama takes its default")
    for name, setting in _WORDS.items():
        if variables.get(name):
            settings[setting] = variables[name]
    keep = variables.get("OLLAMA_KEEP_ALIVE", "")
    if keep:
        settings["keep_alive"] = _duration(keep)
        if settings["keep_alive"] is None:
            notes.append(f"OLLAMA_KEEP_ALIVE={keep[:20]} is no duration: Ollama takes its default")
    if variables.get("LLAMA_ARG_FIT", "").lower() in ("off", "0", "false"):
        settings["fit"] = False
    return settings, [*notes, *_unknown(variables)]


def _duration(text: str) -> float | None:
    """Seconds of `5m`, `1h30m` or `300`; None if it is none."""
    if _DURATION.fullmatch(text):
        total = sum(float(number) * _SECONDS[unit] for number, unit in _PART.findall(text))
        return -total if text.startswith("-") else total
    return float(text) if re.fullmatch(r"[+-]?\d{1,12}", text) else None


#: Parameters that decide about memory, and what kind they are.
_COUNTED = {
    "num_ctx": 1, "num_batch": 1, "num_thread": 0, "main_gpu": 0, "draft_num_predict": 0,
}  # fmt: skip
_BOOLEAN = ("use_mmap", "use_mlock")
_LEFT_OUT = frozenset({
    "num_keep", "seed", "num_predict", "top_k", "top_p", "min_p", "typical_p", "repeat_last_n", "temperature",
    "repeat_penalty", "presence_penalty", "frequency_penalty", "stop", "mirostat", "mirostat_eta", "mirostat_tau",
    "penalize_newline", "tfs_z", "numa", "low_vram", "f16_kv", "logits_all", "vocab_only", "num_gqa",
    "rope_frequency_base", "rope_frequency_scale", "embedding_only",
})  # fmt: skip


def _parameters(file: Modelfile) -> dict[str, Any]:
    """Settings that a Modelfile's PARAMETER lines give.

    Raises
    ------
    BadInput
        For a parameter that Ollama does not have, or a value that it would refuse.
    """
    settings: dict[str, Any] = {}
    for name, text in file.parameters:
        where = f"{file.path}: PARAMETER"
        if name in _COUNTED:
            settings[name] = whole(where, name, text, _COUNTED[name])
        elif name == "num_gpu":
            if not re.fullmatch(r"-?\d{1,9}", text):
                raise BadInput(f"{where} num_gpu is {text[:40]!r}, expected a whole number")
            settings[name] = int(text)
        elif name in _BOOLEAN:
            if text not in (*_TRUE, *_FALSE):
                raise BadInput(f"{where} {name} is {text[:40]!r}, expected true or false")
            settings[name] = text in _TRUE
        elif name not in _LEFT_OUT:
            raise BadInput(f"{where} {name[:40]}: there is no such parameter", did_you_mean(name, _COUNTED))
    return settings
