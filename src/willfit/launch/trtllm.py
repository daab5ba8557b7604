"""Reading `trtllm-serve [serve] MODEL ...`, with the YAML file that it may name.

Flags as TensorRT-LLM's `commands/serve.py` has them in 2026; they are written with underscores. Flags without effect on
memory are read and left alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from willfit.engines.tensorrt_llm.settings import Settings
from willfit.errors import BadInput
from willfit.launch.base import Launch
from willfit.launch.flags import scan
from willfit.launch.values import choice, flag_table, share, whole

PROGRAM = "trtllm-serve"

_FLAGS = "trtllm_flags.txt"

#: Commands of the program that serve something else.
_OTHERS = ("disaggregated", "disaggregated_mpi_worker", "embeddings", "mm_embedding_serve")

#: A file of settings is small; more is not read.
_LARGEST_FILE = 2**20

#: Flags that mean the same, and the setting that they are.
_COUNTS = {
    "--tensor_parallel_size": "tensor_parallel_size",
    "--tp_size": "tensor_parallel_size",
    "--pipeline_parallel_size": "pipeline_parallel_size",
    "--pp_size": "pipeline_parallel_size",
    "--moe_expert_parallel_size": "moe_expert_parallel_size",
    "--ep_size": "moe_expert_parallel_size",
    "--max_batch_size": "max_batch_size",
    "--max_num_tokens": "max_num_tokens",
    "--max_seq_len": "max_seq_len",
    "--max_beam_width": "max_beam_width",
}
_SHARES = ("--free_gpu_memory_fraction", "--kv_cache_free_gpu_memory_fraction")
_FILES = ("--config", "--extra_llm_api_options")
_BACKENDS = {"pytorch": "pytorch", "tensorrt": "tensorrt", "trt": "tensorrt", "_autodeploy": "pytorch"}

#: Keys of the file that are understood and not counted.
_NOT_COUNTED = ("lora_config", "cp_config", "sparse_attention_config", "cache_transceiver_config")

#: `speculative_config.decoding_type` that drafts with layers of its own in the cache; others have none, or a model
#: with a cache of its own.
_DRAFTS = ("MTP", "EAGLE", "EAGLE3")

#: Fields of the file's `kv_cache_config` that are whole numbers, with the least that each can be.
_CACHE_COUNTS = {"tokens_per_block": 1, "max_tokens": 1, "max_gpu_total_bytes": 0, "host_cache_size": 0}


def recognises(words: Sequence[str]) -> bool:
    """Whether a command starts TensorRT-LLM's server."""
    return words[0].rsplit("/", 1)[-1] == PROGRAM


def parse(words: Sequence[str], version: str | None = None) -> Launch:
    """Read a command that starts TensorRT-LLM's server.

    Parameters
    ----------
    words
        The command, split as a shell would.
    version
        Version of TensorRT-LLM; None for the newest that is known.

    Raises
    ------
    BadInput
        For a flag that it does not have, a value that it would refuse, or a command without a model.
    """
    rest = list(words[1:])
    if rest and rest[0] in _OTHERS:
        raise BadInput(f"{PROGRAM} {rest[0]} is not worked out", f"write {PROGRAM} serve MODEL ...")
    if rest and rest[0] == "serve":
        rest = rest[1:]
    flags = flag_table(_FLAGS)
    _check(rest, flags)
    dashed = {flag.replace("_", "-"): arity for flag, arity in flags.items()}
    scanned = scan(rest, dashed, {}, PROGRAM)
    options = {"--" + flag[2:].replace("-", "_"): value for flag, value in scanned.options.items()}
    if len(scanned.positionals) != 1:
        stray = (
            f"{scanned.positionals[1]!r} belongs to no flag" if scanned.positionals else "no model is named"
        )
        raise BadInput(f"{PROGRAM}: {stray}", f"write {PROGRAM} MODEL ...")
    settings: dict[str, Any] = {"version": version} if version else {}
    for flag, name in _COUNTS.items():
        if flag in options:
            settings[name] = whole(PROGRAM, flag, str(options[flag]))
    for flag in _SHARES:
        if flag in options:
            settings["free_gpu_memory_fraction"] = share(PROGRAM, flag, str(options[flag]))
    if options.get("--enable_attention_dp"):
        settings["enable_attention_dp"] = True
    if "--kv_cache_dtype" in options:
        settings["kv_cache_dtype"] = _dtype("--kv_cache_dtype", options["--kv_cache_dtype"])
    if "--backend" in options:
        settings["backend"] = _backend(str(options["--backend"]))
    notes = []
    for flag in ("--context_parallel_size", "--cp_size"):
        if options.get(flag, "1") != "1":
            notes.append(f"context parallelism ({flag}) is not counted")
    for flag in _FILES:
        if flag in options:
            found = _file(Path(str(options[flag])))
            if found is None:
                notes.append(f"{options[flag]} ({flag}) is not here, so what it sets is not counted")
            else:
                settings |= _settings(found)
                notes += [
                    f"{key} of {options[flag]} is not counted" for key in _NOT_COUNTED if found.get(key)
                ]
                if found.get("speculative_config") and not _drafts(found):
                    notes.append(f"speculative_config of {options[flag]} is not counted")
    revision = options.get("--hf_revision", options.get("--revision"))
    return Launch(
        engine="tensorrt-llm",
        model=scanned.positionals[0],
        revision=str(revision) if revision else None,
        settings=Settings(**settings),
        notes=tuple(notes),
    )


def _check(words: Sequence[str], flags: Mapping[str, Any]) -> None:
    """Flags that it does not have; it knows no other spelling."""
    for word in words:
        name = word.partition("=")[0]
        if name.startswith("--") and len(name) > 2 and name not in flags:
            close = get_close_matches(name.replace("-", "_").replace("__", "--", 1), flags, n=1, cutoff=0.6)
            hint = f"did you mean {close[0]}?" if close else "check the spelling, or leave it out"
            raise BadInput(f"{PROGRAM} has no flag {name}", hint)


def _backend(text: str) -> str:
    return _BACKENDS[choice(PROGRAM, "--backend", text, tuple(_BACKENDS))]


def _dtype(name: str, value: Any) -> str:
    known = ("auto", "fp8", "nvfp4", "float16", "bfloat16")
    return choice(PROGRAM, name, str(value), known)


def _file(path: Path) -> dict[str, Any] | None:
    """The settings of a YAML file; None if it is not there.

    Raises
    ------
    BadInput
        If it is no YAML file with names and values.
    """
    import yaml  # type: ignore[import-untyped]

    try:
        with path.open("rb") as file:
            text = file.read(_LARGEST_FILE + 1)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise BadInput(f"cannot read {path}: {error.strerror}") from error
    if len(text) > _LARGEST_FILE:
        raise BadInput(f"{path} is too large for a file of settings")
    try:
        found = yaml.safe_load(text)
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError, ValueError) as error:
        raise BadInput(f"{path} is not YAML: {' '.join(str(error).split())[:100]}") from error
    if found is None:
        return {}
    if not isinstance(found, dict):
        raise BadInput(f"{path} does not hold names and values", "write max_batch_size: 64")
    return found


def _settings(found: Mapping[str, Any]) -> dict[str, Any]:
    """What a file of settings says; it wins over flags."""
    settings: dict[str, Any] = {}
    for name in set(_COUNTS.values()):
        if found.get(name) is not None:
            settings[name] = whole(PROGRAM, name, str(found[name]))
    if isinstance(found.get("enable_attention_dp"), bool):
        settings["enable_attention_dp"] = found["enable_attention_dp"]
    if found.get("backend") is not None:
        settings["backend"] = _backend(str(found["backend"]))
    cache = _section(found, "kv_cache_config")
    for name, least in _CACHE_COUNTS.items():
        if cache.get(name) is not None:
            settings[name] = whole(PROGRAM, f"kv_cache_config.{name}", str(cache[name]), least)
    if cache.get("free_gpu_memory_fraction") is not None:
        name = "free_gpu_memory_fraction"
        settings[name] = share(PROGRAM, f"kv_cache_config.{name}", str(cache[name]))
    if cache.get("dtype") is not None:
        settings["kv_cache_dtype"] = _dtype("kv_cache_config.dtype", cache["dtype"])
    if cache.get("max_attention_window") is not None:
        settings["max_attention_window"] = _sizes(
            "kv_cache_config.max_attention_window", cache["max_attention_window"]
        )
    return settings | _graphs(found) | _drafts(found)


def _drafts(found: Mapping[str, Any]) -> dict[str, Any]:
    """`speculative_config`: an MTP module for each token, or one layer of EAGLE."""
    draft = _section(found, "speculative_config")
    kind = str(draft.get("decoding_type", "")).upper()
    if kind not in _DRAFTS:
        return {}
    name = "num_nextn_predict_layers" if kind == "MTP" else "max_draft_len"
    tokens = whole(PROGRAM, f"speculative_config.{name}", str(draft.get(name, 1)))
    return {"draft_layers": tokens if kind == "MTP" else 1, "draft_tokens": tokens}


def _graphs(found: Mapping[str, Any]) -> dict[str, Any]:
    """`cuda_graph_config`: null turns graphs off."""
    if "cuda_graph_config" not in found:
        return {}
    if found["cuda_graph_config"] is None:
        return {"cuda_graph": False}
    graphs = _section(found, "cuda_graph_config")
    settings: dict[str, Any] = {
        "cuda_graph": True,
        "cuda_graph_padding": graphs.get("enable_padding") is True,
    }
    if graphs.get("batch_sizes"):
        settings["cuda_graph_batch_sizes"] = _sizes("cuda_graph_config.batch_sizes", graphs["batch_sizes"])
    elif graphs.get("max_batch_size"):
        settings["cuda_graph_max_batch_size"] = whole(
            PROGRAM, "cuda_graph_config.max_batch_size", str(graphs["max_batch_size"])
        )
    return settings


def _section(found: Mapping[str, Any], name: str) -> dict[str, Any]:
    section = found.get(name)
    if section is None:
        return {}
    if not isinstance(section, dict):
        raise BadInput(f"{PROGRAM}: {name} does not hold names and values")
    return section


def _sizes(name: str, values: Any) -> tuple[int, ...]:
    if not isinstance(values, list) or not values:
        raise BadInput(f"{PROGRAM}: {name} is no list of numbers")
    return tuple(whole(PROGRAM, name, str(value)) for value in values)
