"""Reading `python -m sglang.launch_server --model-path MODEL ...` and `sglang serve MODEL ...`.

Flags as SGLang 0.5.23 has them (`server_args.py`, `arg_groups/fields/`), with those of older versions
(`data/sglang_flags.txt`). Flags without effect on memory are read and left alone.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from willfit.engines.sglang.eras import NEWEST
from willfit.engines.sglang.settings import Settings
from willfit.errors import BadInput
from willfit.launch.base import Launch
from willfit.launch.config_files import with_config
from willfit.launch.flags import flag_table
from willfit.launch.notes import not_counted, of_other_versions
from willfit.launch.scanning import Dialect, scan

PROGRAM = "sglang serve"

READS_VARIABLES = True

_MODULES = ("sglang.launch_server", "sglang.srt.entrypoints.http_server")

#: Not a flag of the server itself: `sglang serve` takes it away (`cli/serve.py`).
_MODEL_TYPE = "--model-type"

#: Numbers that may have one of the units, of thousands or of 1024.
_WITH_UNITS = ("--context-length", "--max-total-tokens", "--max-prefill-tokens")
_UNITS = {"k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40}

#: Flags under newer names, or older ones, of those that are read.
_RENAMED = {
    "--cuda-graph-max-bs-decode": "--cuda-graph-max-bs",
    "--disable-piecewise-cuda-graph": "--disable-prefill-cuda-graph",
    "--disable-decode-cuda-graph": "--disable-cuda-graph",
    "--mamba-scheduler-strategy": "--mamba-radix-cache-strategy",
}

#: Variables that can change memory (`environ.py`) and are not read.
_VARIABLES = (
    "SGLANG_CI_SMALL_KV_SIZE",
    "SGLANG_DEEPEP_NUM_MAX_DISPATCH_TOKENS_PER_RANK", "SGLANG_DEEPGEMM_MASKED_MEMORY_BUDGET_FRACTION",
    "SGLANG_DISAGG_STAGING_BUFFER_SIZE_MB", "SGLANG_DISAGG_STAGING_POOL_SIZE_MB",
    "SGLANG_DSA_MQA_LOGITS_FREE_MEM_FRACTION", "SGLANG_DSV4_FP4_LOGITS_BUDGET_MB", "SGLANG_EMBEDDING_POOL_SIZE_MB",
    "SGLANG_ENABLE_GRAPH_POOL_BORROW", "SGLANG_ENABLE_GRAPH_POOL_PRECARVE", "SGLANG_ENABLE_LOGITS_PROCESSER_CHUNK",
    "SGLANG_FLASHINFER_WORKSPACE_SIZE", "SGLANG_FORCE_FP8_MARLIN", "SGLANG_LOGITS_PROCESSER_CHUNK_SIZE",
    "SGLANG_MAMBA_CONV_DTYPE", "SGLANG_MAMBA_SSM_DTYPE", "SGLANG_MAX_KV_CHUNK_CAPACITY",
    "SGLANG_MEMORY_SAVER_CUDA_GRAPH", "SGLANG_MM_BUFFER_SIZE_MB", "SGLANG_MOONCAKE_CUSTOM_MEM_POOL",
    "SGLANG_NSA_FORCE_MLA", "SGLANG_NUM_RESERVED_DECODE_TOKENS", "SGLANG_PP_LAYER_PARTITION",
    "SGLANG_PREFILL_TILE_BUDGET", "SGLANG_QWEN4_PLE_FILE_RSS_BUDGET_GB", "SGLANG_SYMM_MEM_PREALLOC_GB_SIZE",
    "SGLANG_VLM_CACHE_SIZE_MB", "SGLANG_ZBAL_LOCAL_MEM_SIZE",
)  # fmt: skip

#: `--quantization` that turns a 16-bit checkpoint into this format while loading.
_ONLINE = {"fp8": "fp8", "nvfp4_online": "nvfp4", "bitsandbytes": "nf4"}

_NUMBERS = (
    ("--tp-size", "tp_size"),
    ("--pp-size", "pp_size"),
    ("--dp-size", "dp_size"),
    ("--attn-dp-size", "attn_dp_size"),
    ("--ep-size", "ep_size"),
    ("--context-length", "context_length"),
    ("--max-total-tokens", "max_total_tokens"),
    ("--max-running-requests", "max_running_requests"),
    ("--max-prefill-tokens", "max_prefill_tokens"),
    ("--page-size", "page_size"),
    ("--max-mamba-cache-size", "max_mamba_cache_size"),
    ("--cuda-graph-max-bs", "cuda_graph_max_bs"),
    ("--speculative-num-draft-tokens", "speculative_num_draft_tokens"),
    ("--max-loras-per-batch", "max_loras_per_batch"),
    ("--max-lora-rank", "max_lora_rank"),
)

_SHARES = (
    ("--mem-fraction-static", "mem_fraction_static", 1.0),
    ("--swa-full-tokens-ratio", "swa_full_tokens_ratio", 1.0),
    ("--mamba-full-memory-ratio", "mamba_full_memory_ratio", 1e6),
    ("--cpu-offload-gb", "cpu_offload_gb", 1e6),
    ("--hicache-ratio", "hicache_ratio", 1e6),
    ("--hicache-size", "hicache_size", 1e6),
)

_NAMES = (
    "--dtype",
    "--kv-cache-dtype",
    "--mamba-ssm-dtype",
    "--mamba-radix-cache-strategy",
    "--attention-backend",
    "--decode-attention-backend",
    "--speculative-draft-model-path",
    "--moe-a2a-backend",
    "--disaggregation-mode",
)

_SWITCHES = (
    ("--disable-hybrid-swa-memory", "disable_hybrid_swa_memory"),
    ("--disable-radix-cache", "disable_radix_cache"),
    ("--disable-overlap-schedule", "disable_overlap_schedule"),
    ("--disable-cuda-graph", "disable_cuda_graph"),
    ("--disable-prefill-cuda-graph", "disable_prefill_cuda_graph"),
    ("--enable-hierarchical-cache", "enable_hierarchical_cache"),
    ("--language-model-only", "language_model_only"),
)


def recognises(words: Sequence[str]) -> bool:
    """Whether a command starts SGLang's server."""
    return words[0].rsplit("/", 1)[-1] == "sglang" or any(
        word in _MODULES or (word == "sglang" and words[index - 1] == "-m")
        for index, word in enumerate(words[:6])
    )


def parse(
    words: Sequence[str], version: str | None = None, variables: Mapping[str, str] | None = None
) -> Launch:
    """Read a command that starts SGLang's server.

    Parameters
    ----------
    words
        The command, split as a shell would.
    version
        Version of SGLang; None for the newest that is known.
    variables
        What is set in front of it.

    Raises
    ------
    BadInput
        For a flag that SGLang does not have, a value that it would refuse, or a command without a model.
    """
    table = flag_table("sglang_flags.txt")
    rest, notes = with_config(_arguments(words), table, PROGRAM, keep_first=False)
    scanned = scan(rest, table, PROGRAM, Dialect(), version)
    options = scanned.options
    if scanned.positionals:
        raise BadInput(
            f"{PROGRAM}: {scanned.positionals[0][:60]!r} belongs to no flag", "write --model-path MODEL"
        )
    model = options.get("--model-path")
    if not isinstance(model, str) or not model:
        raise BadInput(f"{PROGRAM}: no model is named", "write sglang serve MODEL, or --model-path MODEL")
    options.get("--config")  # read, or noted
    other_versions = of_other_versions(scanned, table, "SGLang", version or NEWEST)
    for other, name in _RENAMED.items():
        if other in options:
            options[name] = options.pop(other)
            scanned.flags[name] = scanned.flags.pop(other)
    settings: dict[str, Any] = {"version": version} if version else {}
    for flag, name in _NUMBERS:
        if flag in options:
            settings[name] = _count(flag, str(options[flag]))
    for flag, name, most in _SHARES:
        if flag in options:
            settings[name] = _number(flag, str(options[flag]), most)
    for flag, name in _SWITCHES:
        if flag in options:
            settings[name] = options[flag] is True
    for flag in _NAMES:
        if flag in options:
            settings[flag[2:].replace("-", "_")] = str(options[flag])
    settings |= _adapters(options)
    if "--chunked-prefill-size" in options:
        text = str(options["--chunked-prefill-size"])
        settings["chunked_prefill_size"] = -1 if text == "-1" else _count("--chunked-prefill-size", text)
    redundant = str(options.get("--ep-num-redundant-experts", "0"))
    if redundant != "0":
        settings["ep_num_redundant_experts"] = _count("--ep-num-redundant-experts", redundant)
    if options.get("--cuda-graph-backend-prefill") == "disabled":
        settings["disable_prefill_cuda_graph"] = True
    if options.get("--cuda-graph-backend-decode") == "disabled":
        settings["disable_cuda_graph"] = True
    if options.get("--enable-dp-attention") is True:
        settings["attn_dp_size"] = settings.pop("dp_size", 1)
    if options.get("--enable-ep-moe") is True or options.get("--enable-deepep-moe") is True:
        settings["ep_size"] = settings.get("tp_size", 1)
    settings |= _speculation(options)
    quantization = options.get("--quantization")
    return Launch(
        engine="sglang",
        model=model,
        revision=str(options["--revision"]) if "--revision" in options else None,
        settings=Settings(**settings),
        format_name=_ONLINE.get(quantization) if isinstance(quantization, str) else None,
        notes=(
            *notes,
            *other_versions,
            *not_counted(scanned),
            *_about_variables(variables or {}),
        ),
    )


def _about_variables(given: Mapping[str, str]) -> list[str]:
    """Notes on variables that can change memory or where the model comes from."""
    on = [name for name in given if given[name].lower() not in ("", "0", "false")]
    notes = [f"the variable {name} is not counted" for name in on if name in _VARIABLES]
    if "SGLANG_USE_MODELSCOPE" in on:
        notes.append("SGLang takes the model from ModelScope; the one of that name on the Hub is read")
    return notes


def _arguments(words: Sequence[str]) -> list[str]:
    """The words after `sglang serve` or after the module's name, a model that stands first behind `--model-path`."""
    index = next((index for index, word in enumerate(words[:6]) if word in (*_MODULES, "sglang")), 0)
    rest = list(words[index + 1 :])
    if words[index] not in _MODULES:
        if rest[:1] != ["serve"]:
            given = " ".join(["sglang", *rest[:1]])[:60]
            raise BadInput(f"{given}: only 'sglang serve' starts a server", "write sglang serve MODEL ...")
        rest = rest[1:]
        if rest and not rest[0].startswith("-"):
            rest = ["--model-path", *rest]
        if _MODEL_TYPE in rest[:-1]:
            at = rest.index(_MODEL_TYPE)
            kind, rest = rest[at + 1], rest[:at] + rest[at + 2 :]
            if kind == "diffusion":
                raise BadInput(f"{PROGRAM}: {_MODEL_TYPE} diffusion is not worked out")
    if any(word in ("-h", "--help", "--version") for word in rest):
        raise BadInput(f"{PROGRAM}: help is asked for, nothing is started", "leave --help out")
    return rest


def _speculation(options: Mapping[str, Any]) -> dict[str, Any]:
    """Without a draft model of its own, EAGLE and NEXTN draft with the checkpoint's module."""
    algorithm = options.get("--speculative-algorithm")
    if not isinstance(algorithm, str):
        return {}
    algorithm = algorithm.upper()
    own = "--speculative-draft-model-path" in options
    found: dict[str, Any] = {
        "speculative_algorithm": algorithm,
        "mtp": algorithm in ("EAGLE", "NEXTN") and not own,
    }
    steps = options.get("--speculative-num-steps")
    if steps is not None and "--speculative-num-draft-tokens" not in options:
        found["speculative_num_draft_tokens"] = _count("--speculative-num-steps", str(steps)) + 1
    return found


def _adapters(options: Mapping[str, Any]) -> dict[str, Any]:
    """Adapters that are named turn LoRA on."""
    found: dict[str, Any] = {}
    if options.get("--enable-lora") is True or options.get("--lora-paths"):
        found["enable_lora"] = True
    modules = options.get("--lora-target-modules")
    if modules:
        words = modules if isinstance(modules, list | tuple) else str(modules).split()
        found["lora_target_modules"] = tuple(str(word) for word in words)
    return found


def _count(flag: str, text: str) -> int:
    """A number of at least 1, with a unit where SGLang takes one (`utils/common.py: human_readable_int`)."""
    found = re.fullmatch(r"(\d{1,12})(\.\d{1,9})?(Ki|Mi|Gi|Ti|k|M|G|T)", text, re.ASCII)
    if found is not None and flag in _WITH_UNITS and not (found[2] and found[3].endswith("i")):
        return int(float(found[1] + (found[2] or "")) * _UNITS[found[3]])
    if not (text.isascii() and text.isdigit()) or len(text) > 15 or int(text) == 0:
        raise BadInput(f"{PROGRAM}: {flag} is {text[:40]!r}, expected a whole number of at least 1")
    return int(text)


def _number(flag: str, text: str, most: float) -> float:
    try:
        value = float(text)
    except ValueError:
        raise BadInput(f"{PROGRAM}: {flag} is {text[:40]!r}, expected a number") from None
    if not 0 <= value <= most or (most == 1 and value == 0):
        raise BadInput(f"{PROGRAM}: {flag} is {text[:40]}, expected a number up to {most:g}")
    return value
