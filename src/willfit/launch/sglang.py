"""Reading `python -m sglang.launch_server --model-path MODEL ...` and `sglang serve MODEL ...`.

Flags as SGLang 0.5.23 has them (`server_args.py`, `arg_groups/fields/`), with those of older versions. Flags
without effect on memory are read and left alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from willfit.engines.sglang.settings import Settings
from willfit.errors import BadInput
from willfit.launch.base import Launch
from willfit.launch.flags import Arity, scan

PROGRAM = "sglang serve"

_MODULES = ("sglang.launch_server", "sglang.srt.entrypoints.http_server")

_FLAGS = Path(__file__).parent / "data" / "sglang_flags.txt"

_ALIASES = {
    "--model": "--model-path",
    "--tensor-parallel-size": "--tp-size",
    "--pipeline-parallel-size": "--pp-size",
    "--data-parallel-size": "--dp-size",
    "--attention-data-parallel-size": "--attn-dp-size",
    "--expert-parallel-size": "--ep-size",
    "--ep": "--ep-size",
    "--decode-context-parallel-size": "--dcp-size",
    "--attention-context-parallel-size": "--attn-cp-size",
    "--moe-data-parallel-size": "--moe-dp-size",
    "--enable-hicache": "--enable-hierarchical-cache",
    "--speculative-draft-model": "--speculative-draft-model-path",
    "--nccl-init-addr": "--dist-init-addr",
    "--context-bucket": "--cuda-graph-prefill-max-context",
    "--hierarchical-sparse-attention-extra-config": "--hisparse-config",
    "--grpc-http-sidecar-port": "--smg-http-sidecar-port",
    "--disable-piecewise-cuda-graph": "--disable-prefill-cuda-graph",
    "--cuda-graph-max-bs-decode": "--cuda-graph-max-bs",
    "--mamba-scheduler-strategy": "--mamba-radix-cache-strategy",
}

#: What is read but does not change the estimate yet, in words.
_NOT_COUNTED = {
    "--dcp-size": "decode context parallelism",
    "--attn-cp-size": "context parallelism of attention",
    "--enable-hisparse": "the host's part of a sparse cache",
    "--cuda-graph-config": "settings of CUDA graphs in JSON",
    "--config": "the settings of a file",
}

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


@cache
def _arities() -> dict[str, Arity]:
    flags: dict[str, Arity] = {}
    for line in _FLAGS.read_text(encoding="utf-8").splitlines():
        if line.startswith("--"):
            name, arity = line.split()
            flags[name] = arity  # type: ignore[assignment]
    return flags


def recognises(words: Sequence[str]) -> bool:
    """Whether a command starts SGLang's server."""
    return words[0].rsplit("/", 1)[-1] == "sglang" or any(word in _MODULES for word in words[:4])


def parse(words: Sequence[str], version: str | None = None) -> Launch:
    """Read a command that starts SGLang's server.

    Parameters
    ----------
    words
        The command, split as a shell would.
    version
        Version of SGLang; None for the newest that is known.

    Raises
    ------
    BadInput
        For a flag that SGLang does not have, a value that it would refuse, or a command without a model.
    """
    scanned = scan([_completed(word) for word in _arguments(words)], _arities(), _ALIASES, PROGRAM)
    options, positionals = scanned.options, scanned.positionals
    model = positionals[0] if positionals else options.get("--model-path")
    if not isinstance(model, str) or not model:
        raise BadInput(f"{PROGRAM}: no model is named", "write sglang serve MODEL, or --model-path MODEL")
    if len(positionals) > (0 if "--model-path" in options else 1):
        raise BadInput(f"{PROGRAM}: {positionals[-1]!r} belongs to no flag")
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
        notes=tuple(
            f"{what} ({flag}) are not counted" for flag, what in _NOT_COUNTED.items() if options.get(flag)
        ),
    )


def _arguments(words: Sequence[str]) -> list[str]:
    """The words after `sglang serve` or after the module's name."""
    for index, word in enumerate(words[:4]):
        if word in _MODULES:
            return list(words[index + 1 :])
    if len(words) < 2 or words[1] != "serve":
        given = " ".join(words[:2])
        raise BadInput(f"{given}: only 'sglang serve' starts a server", "write sglang serve MODEL ...")
    return list(words[2:])


def _completed(word: str) -> str:
    """The flag that an abbreviation stands for, as argparse takes it: `--tp 8` is `--tp-size 8`."""
    name, equals, value = word.partition("=")
    if not name.startswith("--") or name == "--":
        return word
    known = {**dict.fromkeys(_arities()), **_ALIASES}
    plain = "--" + name[2:].replace("_", "-")
    if plain in known:
        return word
    meant = {_ALIASES.get(flag, flag) for flag in known if flag.startswith(plain)}
    return meant.pop() + equals + value if len(meant) == 1 else word


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
