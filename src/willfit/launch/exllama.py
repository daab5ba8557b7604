"""Reading ExLlama's own scripts: `python test_inference.py -m DIR -l 8192`, `python examples/chat.py -m DIR -cs 32768`.

Flags as ExLlamaV2 0.3.2 and ExLlamaV3 1.6.5 have them (`model_init.py` of each, and their scripts).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from os.path import basename
from typing import Any

from willfit.engines import exllamav2, exllamav3
from willfit.errors import BadInput
from willfit.launch.base import DraftModel, Launch
from willfit.launch.flags import flag_table
from willfit.launch.notes import not_counted
from willfit.launch.scanning import Dialect, Scanned, scan
from willfit.launch.tabby import model_and_format
from willfit.launch.values import whole

#: Scripts that load a model; `chat.py` is both libraries'.
_SCRIPTS = re.compile(r"test_inference\.py|chat\.py")

#: Flags of ExLlamaV3 alone.
_NEWER = (
    "-cs",
    "--cache_size",
    "-cq",
    "--cache_quant",
    "-mcl",
    "--moe_cpu_offload",
    "-mtp",
    "--mtp",
    "-rcs",
    "-ccs",
)

#: Tokens of a cache where nothing is said (`model_init.py`).
_TOKENS = 8192

#: ExLlamaV2's length in low-memory mode, and its switches of cache modes.
_LOW_CHUNK = 1024
_SWITCHES = {"--cache_8bit": "FP8", "--cache_q4": "Q4", "--cache_q6": "Q6", "--cache_q8": "Q8"}


def recognises(words: Sequence[str]) -> bool:
    """Whether a command starts one of the scripts with a model's folder."""
    found = any(_SCRIPTS.fullmatch(basename(word)) for word in words[:3])
    return found and any(word in ("-m", "--model_dir") or word.startswith("--model_dir=") for word in words)


def parse(words: Sequence[str], version: str | None = None) -> Launch:
    """Read a command that starts one of ExLlama's scripts.

    Parameters
    ----------
    words
        The command, split as a shell would.
    version
        Version of the library; None for the newest that is known.

    Raises
    ------
    BadInput
        If a flag or its value is wrong.
    """
    start = next(at for at, word in enumerate(words) if _SCRIPTS.fullmatch(basename(word)))
    program, rest = basename(words[start]), list(words[start + 1 :])
    newer = program == "chat.py" and (
        any(word.partition("=")[0] in _NEWER for word in rest)
        or not any("exl2" in word.lower() for word in rest)
    )
    engine = "exllamav3" if newer else "exllamav2"
    scanned = scan(rest, flag_table(f"{engine}_flags.txt"), program, Dialect(), None)
    options = scanned.options
    model, stored = model_and_format(str(options.get("--model_dir") or ""))
    if not model:
        raise BadInput(f"{program}: no model is named", "write -m DIR")
    settings = _newer(program, options) if newer else _older(program, options)
    if version is not None:
        settings["version"] = version
    module = exllamav3 if newer else exllamav2
    draft = options.get("--draft_model_dir")
    return Launch(
        engine=engine,
        model=model,
        revision=None,
        settings=module.Settings(**settings),
        format_name=stored,
        other_files=stored is not None,
        notes=tuple(_notes(scanned)),
        draft=DraftModel(model_and_format(str(draft))[0], "draft_model") if draft else None,
    )


def _notes(scanned: Scanned) -> list[str]:
    return not_counted(scanned)


def _older(program: str, options: Mapping[str, Any]) -> dict[str, Any]:
    settings: dict[str, Any] = {"max_output_len": None, "autosplit_reserve": (192, 64)}
    for flag, name in (
        ("--length", "max_seq_len"),
        ("--chunk_size", "chunk_size"),
        ("--max_output_len",) * 2,
    ):
        if flag in options:
            settings[name.strip("-")] = whole(program, flag, str(options[flag]))
    if "max_seq_len" in settings:
        settings["cache_size"] = settings["max_seq_len"]
    if options.get("--low_mem"):
        settings.setdefault("chunk_size", _LOW_CHUNK)
    for flag, mode in _SWITCHES.items():
        if options.get(flag):
            settings["cache_mode"] = mode
    if options.get("--no_flash_attn"):
        settings["flash_attention"] = False
    if options.get("--draft_model_dir"):
        settings["draft"] = True
    return settings | _split(program, options)


def _newer(program: str, options: Mapping[str, Any]) -> dict[str, Any]:
    settings: dict[str, Any] = {"autosplit_reserve": (), "cache_size": _TOKENS}
    for flag, name in (
        ("--cache_size", "cache_size"),
        ("--autosplit_max_batch_size", "max_batch_size"),
        ("--num_draft_tokens", "draft_num_tokens"),
        ("--moe_cpu_offload", "cpu_moe_offload_layers"),
        ("--chunk_size", "chunk_size"),
    ):
        if flag in options:
            settings[name] = whole(program, flag, str(options[flag]), 0)
    settings["max_seq_len"] = settings["cache_size"]
    if "--cache_quant" in options:
        bits = str(options["--cache_quant"])
        settings["cache_mode"] = bits if "," in bits else f"{bits},{bits}"
    for flag, name in (
        ("--cpu_cache_size", "sysmem_kv_cache"),
        ("--recurrent_cache_size", "sysmem_recurrent_cache"),
    ):
        if flag in options:
            settings[name] = int(_number(program, flag, str(options[flag])) * 1024)
    if options.get("--swa_full"):
        settings["swa_full"] = True
    if options.get("--mtp"):
        settings["draft_mode"] = "mtp"
    elif options.get("--draft_model_dir"):
        settings["draft_mode"] = "model"
    elif "--ngram_match_min" in options:
        settings["draft_mode"] = "ngram"
    return settings | _split(program, options)


def _split(program: str, options: Mapping[str, Any]) -> dict[str, Any]:
    settings: dict[str, Any] = {}
    if options.get("--tensor_parallel"):
        settings["tensor_parallel"] = True
    split = options.get("--gpu_split")
    if split and split != "auto":
        settings["gpu_split"] = tuple(
            _number(program, "--gpu_split", word) for word in str(split).split(",") if word.strip()
        )
    return settings


def _number(program: str, flag: str, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < 1e6:
        raise BadInput(f"{program}: {flag} is {text[:40]!r}, expected a size in GB")
    return value
