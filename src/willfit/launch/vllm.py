"""Reading `vllm serve MODEL ...` and `python -m vllm.entrypoints.openai.api_server --model MODEL ...`.

Flags as vLLM 0.33 has them (`engine/arg_utils.py`, `entrypoints/**/cli_args.py`), with those of older
versions. Flags without effect on memory are read and left alone.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from willfit.engines.versions import parse_version
from willfit.engines.vllm.eras import NEWEST
from willfit.engines.vllm.settings import AUTO, Settings
from willfit.errors import BadInput
from willfit.launch.base import Launch
from willfit.launch.flags import Arity, scan
from willfit.launch.vllm_features import VARIABLES, Reader, features

PROGRAM = "vllm serve"

READS_VARIABLES = True

#: Numbers above this are no longer exact when vLLM's own reader multiplies them by a unit.
_LARGEST = 2**53

_LEVEL = re.compile(r"-O=?\d")

_FLAGS = Path(__file__).parent / "data" / "vllm_flags.txt"

_ALIASES = {
    "-tp": "--tensor-parallel-size",
    "-pp": "--pipeline-parallel-size",
    "-dp": "--data-parallel-size",
    "-dcp": "--decode-context-parallel-size",
    "-pcp": "--prefill-context-parallel-size",
    "-ep": "--enable-expert-parallel",
    "-q": "--quantization",
    "-sc": "--speculative-config",
    "-cc": "--compilation-config",
    "-ac": "--attention-config",
    "-O": "--optimization-level",
    "-n": "--nnodes",
    "-r": "--node-rank",
    "--device-memory-utilization": "--gpu-memory-utilization",
    "--kv-cache-memory": "--kv-cache-memory-bytes",
}

#: What is read but does not change the estimate yet, in words.
_NOT_COUNTED = {
    "--config": "the settings of a file",
    "--long-lora-scaling-factors": "rotary tables of adapters",
    "--sleep-mode-offload-cudagraph": "graphs that leave the device while asleep",
}

#: `--quantization` that turns a 16-bit checkpoint into this format while loading.
_ONLINE = {"fp8": "fp8", "fp8_per_tensor": "fp8", "experts_int8": "int8"}

#: What `--quantization` takes, in 0.33 and before (`model_executor/layers/quantization/__init__.py`).
_QUANTIZATIONS = frozenset({
    "aqlm", "auto_awq", "auto_gptq", "auto-round", "awq", "awq_marlin", "bitblas", "bitsandbytes",
    "compressed-tensors", "deepseek_v4_fp8", "deepspeedfp", "experts_int8", "fbgemm_fp8", "fp8",
    "fp8_per_block", "fp8_per_channel", "fp8_per_tensor", "fp_quant", "gguf", "gpt_oss_mxfp4", "gptq",
    "gptq_bitblas", "gptq_marlin", "gptq_marlin_24", "hqq", "humming", "inc",
    "int8_per_channel_weight_only", "ipex", "marlin", "modelopt", "modelopt_fp4", "modelopt_mixed",
    "modelopt_mxfp8", "moe_wna16", "mxfp4", "mxfp8", "neuron_quant", "nvfp4_per_token", "online",
    "petit_nvfp4", "ptpc_fp8", "qqq", "quark", "rtn", "squeezellm", "torchao", "tpu_int8",
})  # fmt: skip

#: Variables that change a setting (`vllm/envs.py`), since when one of them has nothing to choose, and those that
#: do not change memory.
_VARIABLES = ("VLLM_USE_V1", "VLLM_MEMORY_PROFILER_ESTIMATE_CUDAGRAPHS", *VARIABLES)
_ONE_ENGINE = (0, 11)
_WITHOUT_EFFECT = frozenset({
    "VLLM_API_KEY", "VLLM_CACHE_ROOT", "VLLM_CONFIGURE_LOGGING", "VLLM_DO_NOT_TRACK",
    "VLLM_ENGINE_ITERATION_TIMEOUT_S", "VLLM_HOST_IP", "VLLM_LOGGING_LEVEL", "VLLM_NO_USAGE_STATS", "VLLM_PORT",
    "VLLM_RPC_TIMEOUT", "VLLM_WORKER_MULTIPROC_METHOD",
})  # fmt: skip


@cache
def _arities() -> dict[str, Arity]:
    text = _FLAGS.read_text(encoding="utf-8")
    flags: dict[str, Arity] = {}
    for line in text.splitlines():
        if line.startswith("--"):
            name, arity = line.split()
            flags[name] = arity  # type: ignore[assignment]
    return flags


def recognises(words: Sequence[str]) -> bool:
    """Whether a command starts vLLM's server."""
    return words[0].rsplit("/", 1)[-1] == "vllm" or any(
        word.startswith("vllm.entrypoints") for word in words[:4]
    )


def parse(
    words: Sequence[str], version: str | None = None, variables: Mapping[str, str] | None = None
) -> Launch:
    """Read a command that starts vLLM's server.

    Parameters
    ----------
    words
        The command, split as a shell would.
    version
        Version of vLLM; None for the newest that is known.
    variables
        What is set in front of it.

    Raises
    ------
    BadInput
        For a flag that vLLM does not have, a value that it would refuse, or a command without a model.
    """
    rest = _arguments(words)
    scanned = scan(rest, _arities(), _ALIASES, PROGRAM)
    options = scanned.options
    model = scanned.positionals[0] if scanned.positionals else options.get("--model")
    if not isinstance(model, str) or not model:
        raise BadInput(f"{PROGRAM}: no model is named", "write vllm serve MODEL ...")
    if len(scanned.positionals) > 1:
        raise BadInput(f"{PROGRAM}: {scanned.positionals[1]!r} belongs to no flag")
    settings: dict[str, Any] = {"version": version} if version else {}
    for flag, name, read in (
        ("--tensor-parallel-size", "tensor_parallel", _count),
        ("--pipeline-parallel-size", "pipeline_parallel", _count),
        ("--data-parallel-size", "data_parallel", _count),
        ("--max-model-len", "max_model_len", _tokens),
        ("--max-num-seqs", "max_num_seqs", _count),
        ("--max-num-batched-tokens", "max_num_batched_tokens", _tokens),
        ("--block-size", "block_size", _count),
        ("--num-gpu-blocks-override", "num_gpu_blocks_override", _count),
        ("--kv-cache-memory-bytes", "kv_cache_memory_bytes", _tokens),
        ("--max-cudagraph-capture-size", "cudagraph_max_capture_size", _count),
        ("--gpu-memory-utilization", "gpu_memory_utilization", _fraction),
        ("--swap-space", "swap_space", _number),
    ):
        if flag in options:
            settings[name] = read(flag, str(options[flag]))
    for flag, name in (
        ("--dtype", "dtype"),
        ("--kv-cache-dtype", "kv_cache_dtype"),
        ("--mamba-ssm-cache-dtype", "mamba_ssm_cache_dtype"),
    ):
        if flag in options:
            settings[name] = str(options[flag])
    for flag, name, inverted in (
        ("--enforce-eager", "enforce_eager", False),
        ("--enable-expert-parallel", "expert_parallel", False),
        ("--enable-prefix-caching", "enable_prefix_caching", False),
        ("--enable-chunked-prefill", "enable_chunked_prefill", False),
        ("--async-scheduling", "async_scheduling", False),
        ("--language-model-only", "language_model_only", False),
        ("--allow-deprecated-quantization", "allow_deprecated_quantization", False),
        ("--disable-hybrid-kv-cache-manager", "hybrid_cache_manager", True),
    ):
        if flag in options:
            settings[name] = (options[flag] is True) != inverted
    if options.get("--runner") == "pooling" or options.get("--task") in (
        "embed",
        "score",
        "classify",
        "reward",
    ):
        settings["runner"] = "pooling"
    given = variables or {}
    more, draft, notes = features(options, given, version, model, Reader(_json_option, _count, _number))
    settings |= _graphs(options) | more | _environment(given, version)
    notes += tuple(
        f"{what} ({flag}) are not counted" for flag, what in _NOT_COUNTED.items() if options.get(flag)
    )
    notes += tuple(
        f"the variable {name} is not counted"
        for name in given
        if name.startswith("VLLM_") and name not in (*_VARIABLES, *_WITHOUT_EFFECT)
    )
    quantization = options.get("--quantization")
    if isinstance(quantization, str) and quantization not in _QUANTIZATIONS:
        raise BadInput(
            f"{PROGRAM}: there is no --quantization {quantization}",
            f"known: {', '.join(sorted(_QUANTIZATIONS))}",
        )
    return Launch(
        engine="vllm",
        model=model,
        revision=str(options["--revision"]) if "--revision" in options else None,
        settings=Settings(**settings),
        format_name=_ONLINE.get(quantization) if isinstance(quantization, str) else None,
        notes=notes,
        draft=draft,
    )


def _arguments(words: Sequence[str]) -> list[str]:
    """The words after `vllm serve` or after the module's name, `-O3` written out."""
    words = [
        part
        for word in words
        for part in (("-O", word[2:].lstrip("=")) if _LEVEL.fullmatch(word) else (word,))
    ]
    for index, word in enumerate(words):
        if word.startswith("vllm.entrypoints"):
            return list(words[index + 1 :])
    if len(words) < 2 or words[1] != "serve":
        given = " ".join(words[:2])
        raise BadInput(f"{given}: only 'vllm serve' starts a server", "write vllm serve MODEL ...")
    return list(words[2:])


def _environment(variables: Mapping[str, str], version: str | None) -> dict[str, Any]:
    """What variables say, `0` or `1`; later versions have one engine only."""
    settings: dict[str, Any] = {}
    for name in ("VLLM_USE_V1", "VLLM_MEMORY_PROFILER_ESTIMATE_CUDAGRAPHS"):
        text = variables.get(name)
        if text is None:
            continue
        if text not in ("0", "1"):
            raise BadInput(f"{PROGRAM}: {name} is {text[:40]!r}, expected 0 or 1")
        if name != "VLLM_USE_V1":
            settings["estimate_cudagraphs"] = text == "1"
        elif parse_version(version or NEWEST) < _ONE_ENGINE:
            settings["generation"] = "v1" if text == "1" else "v0"
    return settings


def _graphs(options: Mapping[str, Any]) -> dict[str, Any]:
    """What compilation settings say of CUDA graphs: `-O0` captures none."""
    config = _json_option(options, "--compilation-config")
    settings: dict[str, Any] = {}
    mode = config.get("cudagraph_mode")
    if mode is None and options.get("--optimization-level") == "0":
        mode = "NONE"
    if mode is not None and str(mode).upper() in ("NONE", "0"):
        settings["enforce_eager"] = True
    largest = config.get("max_cudagraph_capture_size")
    if largest is not None:
        settings["cudagraph_max_capture_size"] = _count("max_cudagraph_capture_size", str(largest))
    return settings


def _json_option(options: Mapping[str, Any], flag: str) -> dict[str, Any]:
    """A JSON option with the fields that were given one by one."""
    config: Any = {}
    if flag in options:
        try:
            config = json.loads(options[flag])
        except ValueError as error:
            raise BadInput(f"{PROGRAM}: {flag} is not JSON: {error}") from error
        if not isinstance(config, dict):
            raise BadInput(f"{PROGRAM}: {flag} is not a JSON object")
    fields = (text.partition("=") for text in options.get(flag + ".", ()))
    return {**config, **{key: value for key, _, value in fields}}


def _count(flag: str, text: str) -> int:
    if not (text.isascii() and text.isdigit()) or len(text) > 15 or int(text) == 0:
        raise BadInput(f"{PROGRAM}: {flag} is {text[:40]!r}, expected a whole number of at least 1")
    return int(text)


def _tokens(flag: str, text: str) -> int:
    """vLLM's own reading: `32k` is 32,000 and `32K` is 32,768; `auto` and -1 are as long as fits."""
    if text in ("auto", "-1"):
        return AUTO
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([kKmMgG]?)", text)
    if match is None:
        raise BadInput(f"{PROGRAM}: {flag} is {text!r}, expected a number such as 32768, 32k or 32K")
    scale = {"": 1, "k": 10**3, "K": 2**10, "m": 10**6, "M": 2**20, "g": 10**9, "G": 2**30}[match.group(2)]
    value = float(match.group(1)) * scale
    if not 1 <= value < _LARGEST:
        raise BadInput(f"{PROGRAM}: {flag} is {text[:40]}, expected at least 1 and less than 2^53")
    return int(value)


def _fraction(flag: str, text: str) -> float:
    value = _number(flag, text)
    if not 0 < value <= 1:
        raise BadInput(f"{PROGRAM}: {flag} is {text}, expected a share above 0 and at most 1")
    return value


def _number(flag: str, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        raise BadInput(f"{PROGRAM}: {flag} is {text!r}, expected a number") from None
    if not 0 <= value < 1e12:
        raise BadInput(f"{PROGRAM}: {flag} is {text}, expected a number that is not negative")
    return value
