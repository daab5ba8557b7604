"""Reading `mlc_llm serve MODEL --mode server --overrides "max_num_sequence=8;..."` and `mlc_llm chat MODEL`.

Flags as MLC-LLM 0.20 and older versions have them (`cli/serve.py`, `cli/chat.py`). A folder of converted weights says
in its name what was converted, and how: `HF://mlc-ai/Llama-3.1-8B-Instruct-q4f16_1-MLC`; if it is here, its
`mlc-chat-config.json` says the rest.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from os.path import basename
from pathlib import Path
from typing import Any

from willfit.engines.mlc_llm.eras import NEWEST
from willfit.engines.mlc_llm.settings import Settings
from willfit.errors import BadInput
from willfit.launch.base import Launch
from willfit.launch.config_files import read_settings
from willfit.launch.flags import flag_table
from willfit.launch.notes import not_counted, of_other_versions
from willfit.launch.scanning import Dialect, scan
from willfit.launch.values import choice, share, whole

PROGRAM = "mlc_llm"

_COMMANDS = ("serve", "chat")

#: What a folder's name ends with: how its weights were converted.
_CONVERTED = re.compile(
    r"[-_](q\db?f\d\d(?:_\w+?)?|e[45]m[32]_e[45]m[32]_f16\w*?|fp8_e4m3fn_bf16_block_scale\w*?)(?:-MLC)?$",
    re.IGNORECASE,
)

#: Names of formats that stand in the place of MLC-LLM's.
_FORMATS = {
    "q4f16_autoawq": "awq",
    "e4m3_e4m3_f16": "fp8",
    "e4m3_e4m3_f16_max_calibrate": "fp8",
    "e5m2_e5m2_f16": "fp8",
    "fp8_e4m3fn_bf16_block_scale": "fp8-block",
    "fp8_e4m3fn_bf16_block_scale_static_activation": "fp8-block",
}

#: Who converts: their folders are named after the models of others.
_CONVERTERS = ("mlc-ai",)

#: Overrides that are settings, and those that are known and do not count.
_OVERRIDES = (
    "max_num_sequence", "max_total_seq_length", "prefill_chunk_size", "context_window_size", "tensor_parallel_shards",
)  # fmt: skip
_QUIET = ("spec_draft_length", "spec_tree_width", "attention_sink_size", "prefill_mode", "max_history_size")
_ASIDE = ("sliding_window_size", "pipeline_parallel_stages", "prefix_cache_max_num_recycling_seqs")

#: What a model's configuration has, and what it is called here.
_CONFIG = {
    "prefill_chunk_size": "config_prefill_chunk_size",
    "max_batch_size": "config_max_batch_size",
    "context_window_size": "context_window_size",
    "tensor_parallel_shards": "tensor_parallel_shards",
}


def recognises(words: Sequence[str]) -> bool:
    """Whether a command starts MLC-LLM."""
    return _place(words) is not None


def _place(words: Sequence[str]) -> int | None:
    """Where the program's name stands."""
    for index, word in enumerate(words[:5]):
        named = index == 0 or words[index - 1] == "-m"
        if (
            named
            and basename(word) == PROGRAM
            and list(words[index + 1 : index + 2]) in [[one] for one in _COMMANDS]
        ):
            return index
    return None


def parse(words: Sequence[str], version: str | None = None) -> Launch:
    """Read a command that starts MLC-LLM.

    Parameters
    ----------
    words
        The command, split as a shell would.
    version
        Version of MLC-LLM; None for the newest that is known.

    Raises
    ------
    BadInput
        If no model is named, or a setting is wrong.
    """
    index = _place(words) or 0
    command, table = words[index + 1], flag_table("mlc_flags.txt")
    scanned = scan(list(words[index + 2 :]), table, f"{PROGRAM} {command}", Dialect(), version)
    options = scanned.options
    if len(scanned.positionals) > 1:
        raise BadInput(
            f"{PROGRAM}: {scanned.positionals[1][:60]!r} belongs to no flag", "write mlc_llm serve MODEL"
        )
    if not scanned.positionals:
        raise BadInput(f"{PROGRAM}: no model is named", "write mlc_llm serve MODEL")
    named = scanned.positionals[0]
    notes: list[str] = []
    settings: dict[str, Any] = {"version": version} if version else {}
    configured = _configured(named)
    settings |= configured
    settings["mode"] = "interactive" if command == "chat" else str(options.get("--mode", "local"))
    if "--prefix-cache-mode" in options:
        settings["prefix_cache_mode"] = str(options["--prefix-cache-mode"])
    overrides, aside = _overrides(str(options.get("--overrides", "")))
    settings |= overrides
    if aside:
        notes.append(f"overrides {', '.join(aside)} are not counted")
    model, stored = _model_and_format(named)
    if stored is None:
        notes.append("the model's name does not say how it was converted; it is sized as it is stored")
    elif configured:
        notes.append("settings are taken from mlc-chat-config.json")
    return Launch(
        engine="mlc-llm",
        model=model,
        revision=None,
        settings=Settings(**settings),
        format_name=stored,
        other_files=stored is not None,
        notes=(
            *notes,
            *of_other_versions(scanned, table, "MLC-LLM", version or NEWEST),
            *not_counted(scanned),
        ),
    )


def _overrides(text: str) -> tuple[dict[str, Any], list[str]]:
    """What `--overrides` sets, and what of it does not count."""
    settings: dict[str, Any] = {}
    aside = []
    for part in filter(None, (one.strip() for one in text.split(";"))):
        name, equals, value = part.partition("=")
        where = f"--overrides {name}"
        if not equals:
            raise BadInput(f"{PROGRAM}: {part[:60]!r} is no override", 'write "max_num_sequence=8;..."')
        if name in _OVERRIDES:
            settings[name] = whole(PROGRAM, where, value)
        elif name == "gpu_memory_utilization":
            settings[name] = share(PROGRAM, where, value)
        elif name == "prefix_cache_mode":
            settings[name] = choice(PROGRAM, where, value, ("radix", "disable"))
        elif name == "opt":
            settings[name] = value
        elif name in _ASIDE:
            aside.append(name)
        elif name not in _QUIET:
            known = ", ".join((*_OVERRIDES, "gpu_memory_utilization", "opt", *_ASIDE))
            raise BadInput(f"{PROGRAM}: there is no override {name[:40]!r}", f"known: {known}")
    return settings, aside


def _configured(named: str) -> dict[str, int]:
    """Settings of a folder's `mlc-chat-config.json`; empty if it is not here."""
    if "://" in named:
        return {}
    found: Mapping[str, Any] = read_settings(Path(named).expanduser() / "mlc-chat-config.json") or {}
    inner = found.get("model_config")
    merged = {**(inner if isinstance(inner, dict) else {}), **found}
    return {
        name: merged[key]
        for key, name in _CONFIG.items()
        if isinstance(merged.get(key), int) and not isinstance(merged.get(key), bool) and merged[key] > 0
    }


def _model_and_format(named: str) -> tuple[str, str | None]:
    """The model that a folder's name means, and how it was converted; None if the name does not say it."""
    away = "://" in named
    name = named.removeprefix("HF://").removeprefix("https://huggingface.co/").rstrip("/")
    found = _CONVERTED.search(name)
    if found is None:
        return name, None
    owner, _, last = name[: found.start()].rpartition("/")
    # Meta's first Llama 3 has its maker's name before its own.
    last = re.sub(r"^Llama-3-(?=\d+B)", "Meta-Llama-3-", last)
    model = f"{owner}/{last}" if away and owner and owner not in _CONVERTERS else last
    return model, _FORMATS.get(found[1].lower(), found[1].lower())
