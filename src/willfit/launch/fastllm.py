"""Reading `ftllm server MODEL --device cuda --moe_device numa ...`, `ftllm run`, `ftllm webui`, `ftllm chat`.

Flags as `ftllm` 1.9.0 and older versions have them (`util.py: make_normal_parser`, `server.py`).
"""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping, Sequence
from os.path import basename
from typing import Any

from willfit.engines.fastllm.eras import NEWEST
from willfit.engines.fastllm.settings import Settings, Shares
from willfit.engines.fastllm.weights import check
from willfit.errors import BadInput
from willfit.launch.base import Launch
from willfit.launch.flags import flag_table
from willfit.launch.notes import not_counted, of_other_versions
from willfit.launch.scanning import Dialect, scan
from willfit.launch.values import choice, share, whole

PROGRAM = "ftllm"

#: It reads a variable that puts experts on NUMA nodes.
READS_VARIABLES = True

_COMMANDS = ("run", "chat", "server", "serve", "webui", "benchmark", "bench")

_NUMBERS = (
    ("--tokens", "tokens"),
    ("--page_size", "page_size"),
    ("--max_batch", "max_batch"),
    ("--chunked_prefill_size", "chunked_prefill_size"),
    ("--max_context_length", "context"),
)

#: Words that say no.
_NO = ("", "false", "0", "off", "none", "disable")

_KV = ("auto", "float16", "bfloat16", "fp8_e4m3")

_SIZE = re.compile(r"(\d+(?:\.\d+)?)([kmg])", re.IGNORECASE)
_UNITS = {"k": 10**3, "m": 10**6, "g": 10**9}


def recognises(words: Sequence[str]) -> bool:
    """Whether a command starts fastLLM."""
    return basename(words[0]) == "ftllm" and list(words[1:2]) in [[one] for one in _COMMANDS]


def parse(
    words: Sequence[str], version: str | None = None, variables: Mapping[str, str] | None = None
) -> Launch:
    """Read a command that starts fastLLM.

    Parameters
    ----------
    words
        The command, split as a shell would.
    version
        Version of `ftllm`; None for the newest that is known.
    variables
        What is set for it.

    Raises
    ------
    BadInput
        If no model is named, or a setting is wrong.
    """
    table = flag_table("fastllm_flags.txt")
    scanned = scan(list(words[2:]), table, PROGRAM, Dialect(), None)
    options = scanned.options
    named = [*scanned.positionals, *([str(options["--path"])] if "--path" in options else [])]
    if len(scanned.positionals) > 1:
        raise BadInput(
            f"{PROGRAM}: {scanned.positionals[1][:60]!r} belongs to no flag", "write ftllm server MODEL"
        )
    if not named:
        raise BadInput(f"{PROGRAM}: no model is named", "write ftllm server MODEL")
    settings: dict[str, Any] = {"version": version} if version else {}
    for flag, name in _NUMBERS:
        text = str(options.get(flag, "-1"))
        if text not in ("-1", "auto"):
            settings[name] = whole(PROGRAM, flag, text)
    for flag, name in (("--device", "device"), ("--moe_device", "moe_device")):
        if options.get(flag):
            settings[name] = _shares(flag, str(options[flag]))
    layers = str(options.get("--moe_device_layers", "-1"))
    if layers not in ("-1", "auto"):
        settings["moe_device_layers"] = whole(PROGRAM, "--moe_device_layers", layers, 0)
    for flag in ("--dtype", "--moe_dtype"):
        if flag in options:
            check(str(options[flag]))
            settings[flag.strip("-")] = str(options[flag])
    if "--kv_cache_dtype" in options:
        kind = choice(PROGRAM, "--kv_cache_dtype", str(options["--kv_cache_dtype"]), _KV)
        settings["kv_cache_dtype"] = "fp8_e4m3" if kind == "fp8_e4m3" else "auto"
    if "--gpu_mem_ratio" in options:
        settings["gpu_mem_ratio"] = share(PROGRAM, "--gpu_mem_ratio", str(options["--gpu_mem_ratio"]))
    if str(options.get("--kv_cache_limit", "auto")) != "auto":
        settings["kv_cache_limit"] = _size(str(options["--kv_cache_limit"]))
    settings["tp"] = _cards(str(options.get("--tp", "")))
    if options.get("--cuda_embedding"):
        settings["cuda_embedding"] = True
    if str(options.get("--cuda_shared_expert", "true")).lower() in _NO:
        settings["cuda_shared_expert"] = False
    numa = (variables or {}).get("FASTLLM_ACTIVATE_NUMA") or (variables or {}).get("FASTLLM_USE_NUMA")
    notes = ["experts go to NUMA nodes, each with a part of them"] if numa else []
    return Launch(
        engine="fastllm",
        model=named[0],
        revision=None,
        settings=Settings(**settings),
        notes=(
            *notes,
            *of_other_versions(scanned, table, "fastLLM", version or NEWEST),
            *not_counted(scanned),
        ),
    )


def _shares(flag: str, text: str) -> Shares:
    """`cuda`, `cudapp=2`, `cudapp=2:1`, `['cuda:0', 'cpu']` or `{'cuda': 1, 'numa': 19}`."""
    if text.startswith("cudapp="):
        return _in_turn(flag, text)
    if text[:1] not in "[{":
        return ((text, 1),)
    try:
        found = ast.literal_eval(text)
        pairs = found.items() if isinstance(found, dict) else [(one, 1) for one in found]
        shares = tuple((str(name), int(count)) for name, count in pairs)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        shares = ()
    if not shares or any(count < 1 for _, count in shares):
        raise BadInput(
            f"{PROGRAM}: {flag} is {text[:60]!r}, which is no map of devices", "write {'cuda':1,'numa':19}"
        )
    return shares


def _in_turn(flag: str, text: str) -> Shares:
    """Cards one after another: how many, their shares, or their numbers."""
    listed = text.partition("=")[2]
    separator = "," if "," in listed else ":" if ":" in listed else ""
    words = listed.split(separator) if separator else [listed]
    numbers = [whole(PROGRAM, flag, word.strip(), 0) for word in words]
    if separator == ",":
        return tuple((f"cuda:{number}", 1) for number in numbers)
    shares = numbers if separator else [1] * numbers[0]
    if not shares or min(shares) < 1:
        raise BadInput(f"{PROGRAM}: {flag} is {text[:60]!r}, which names no card", "write cudapp=2")
    return tuple((f"cuda:{at}", count) for at, count in enumerate(shares))


def _cards(text: str) -> int:
    """How many cards `--tp` names; 0 without."""
    if text.lower() in _NO:
        return 0
    if text.lower() in ("auto", "true", "on"):
        raise BadInput(f"{PROGRAM}: --tp {text} depends on the machine", "write how many cards: --tp 2")
    if text.isascii() and text.isdigit():
        return whole(PROGRAM, "--tp", text)
    return len(text.rpartition("cuda:")[2].split(","))


def _size(text: str) -> int:
    """Bytes of a size with a decimal unit."""
    found = _SIZE.fullmatch(text)
    if found is None:
        raise BadInput(
            f"{PROGRAM}: --kv_cache_limit is {text[:40]!r}, expected a size", "write it as 10g or 512m"
        )
    return int(float(found[1]) * _UNITS[found[2].lower()])
