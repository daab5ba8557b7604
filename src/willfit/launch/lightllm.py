"""Reading `python -m lightllm.server.api_server --model_dir MODEL ...`.

Flags as LightLLM 1.2 has them (`lightllm/server/api_cli.py`), with those of 1.0 and 1.1 (`data/lightllm_flags.txt`);
they are written with underscores. Flags without effect on memory are read and left alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from willfit.engines.lightllm import KV_TYPES, MODES, NEWEST, Settings
from willfit.errors import BadInput
from willfit.launch.base import Launch
from willfit.launch.flags import flag_table
from willfit.launch.notes import not_counted, of_other_versions
from willfit.launch.scanning import Dialect, Scanned, scan
from willfit.launch.values import choice, share, whole
from willfit.quantities import GIB

PROGRAM = "lightllm.server.api_server"

#: `--quant_type` that turns a 16-bit checkpoint into this format while loading, without the names of kernels.
_ONLINE = {"w8a8": "int8", "fp8w8a8": "fp8", "fp8w8a8-pt": "fp8", "fp8w8a8-b128": "fp8"}

_DRAFTS = (
    "deepseekv3", "vanilla_with_att", "eagle_with_att", "vanilla_no_att", "eagle_no_att",
)  # fmt: skip

#: `--cpu_cache_storage_size`, if nothing is said.
_CPU_CACHE = 2 * GIB

_DATA_TYPES = ("fp16", "float16", "bf16", "bfloat16", "fp32", "float32")


def recognises(words: Sequence[str]) -> bool:
    """Whether a command starts LightLLM."""
    return any(word.startswith("lightllm.server") for word in words[:4])


def parse(words: Sequence[str], version: str | None = None) -> Launch:
    """Read a command that starts LightLLM's server.

    Parameters
    ----------
    words
        The command, split as a shell would.
    version
        Version of LightLLM; None for the newest that is known.

    Raises
    ------
    BadInput
        For a flag that LightLLM does not have, a value that it would refuse, or a command without a model.
    """
    start = next(index for index, word in enumerate(words) if word.startswith("lightllm.server"))
    if words[start] != PROGRAM:
        raise BadInput(f"{words[start]}: only {PROGRAM} starts a server", f"write python -m {PROGRAM} ...")
    rest = words[start + 1 :]
    if any(word in ("-h", "--help") for word in rest):
        raise BadInput(f"{PROGRAM}: help is asked for, nothing is started", "leave --help out")
    table = flag_table("lightllm_flags.txt")
    scanned = scan(rest, table, PROGRAM, Dialect(), version)
    options = scanned.options
    if scanned.positionals:
        raise BadInput(
            f"{PROGRAM}: {scanned.positionals[0][:60]!r} belongs to no flag", "write --model_dir MODEL"
        )
    model = options.get("--model_dir")
    if not isinstance(model, str) or not model:
        raise BadInput(f"{PROGRAM}: no model is named", "write --model_dir MODEL")
    settings: dict[str, Any] = _numbers(options) | _words(options)
    if version:
        settings["version"] = version
    online, notes = _online(scanned)
    settings["quant_type"] = str(options.get("--quant_type", "none"))
    return Launch(
        engine="lightllm",
        model=model,
        revision=None,
        settings=Settings(**settings),
        format_name=online,
        notes=(
            *of_other_versions(scanned, table, "LightLLM", version or NEWEST),
            *not_counted(scanned),
            *notes,
        ),
    )


def _online(scanned: Scanned) -> tuple[str | None, list[str]]:
    """The format that weights are quantized to while they are loaded, and what is not known of it."""
    kind = str(scanned.options.get("--quant_type", "none"))
    online = _ONLINE.get(kind.removeprefix("vllm-").removesuffix("-vllm"))
    if online is None and kind != "none":
        return None, [f"--quant_type {kind[:40]} is not counted: weights are taken as stored"]
    return online, []


def _numbers(options: Mapping[str, Any]) -> dict[str, Any]:
    settings: dict[str, Any] = {}
    for name in (
        "tp",
        "dp",
        "max_total_token_num",
        "max_req_total_len",
        "batch_max_tokens",
        "chunked_prefill_size",
        "running_max_req_size",
        "graph_max_batch_size",
        "graph_split_batch_size",
        "graph_grow_step_size",
        "linear_att_cache_size",
        "mtp_step",
        "pd_kv_page_num",
        "pd_kv_page_size",
    ):
        flag = "--" + name.replace("_", "-")
        if flag in options:
            settings[name] = whole(PROGRAM, "--" + name, str(options[flag]))
    if "--mem-fraction" in options:
        settings["mem_fraction"] = share(PROGRAM, "--mem_fraction", str(options["--mem-fraction"]))
    if "--embed-cache-storage-size" in options:
        settings["embed_cache_bytes"] = _gib(options, "--embed-cache-storage-size")
    if options.get("--enable-cpu-cache"):
        given = "--cpu-cache-storage-size" in options
        settings["cpu_cache_bytes"] = _gib(options, "--cpu-cache-storage-size") if given else _CPU_CACHE
    return settings


def _gib(options: Mapping[str, Any], flag: str) -> int:
    """Bytes of a size in GiB."""
    text = str(options[flag])
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < 1e6:
        name = "--" + flag[2:].replace("-", "_")
        raise BadInput(f"{PROGRAM}: {name} is {text[:40]!r}, expected a size in GB", "write it as 4")
    return int(value * GIB)


def _words(options: Mapping[str, Any]) -> dict[str, Any]:
    settings: dict[str, Any] = {}
    for name, choices in (
        ("llm_kv_type", ("None", *KV_TYPES)),
        ("data_type", _DATA_TYPES),
        ("linear_att_ssm_data_type", ("bfloat16", "float32")),
        ("penalty_counter_mode", ("cpu_counter", "pin_mem_counter", "gpu_counter")),
        ("mtp_mode", _DRAFTS),
    ):
        flag = "--" + name.replace("_", "-")
        if flag in options:
            settings[name] = choice(PROGRAM, "--" + name, str(options[flag]), choices)
    if options.get("--run-mode") in ("prefill", "decode"):
        settings["run_mode"] = options["--run-mode"]
    words = options.get("--mode", ())
    for word in [words] if isinstance(words, str) else words:
        if word in MODES:
            settings["llm_kv_type"] = word
    for name in (
        "disable_cudagraph",
        "disable_vision",
        "disable_chunked_prefill",
        "enable_chunked_prefill",
        "enable_ep_moe",
        "enable_multimodal",
    ):
        if options.get("--" + name.replace("_", "-")):
            settings[name] = True
    if "--performance-mode" in options:
        choice(PROGRAM, "--performance_mode", str(options["--performance-mode"]), ("personal",))
        settings["personal"] = True
    return settings
