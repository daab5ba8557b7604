"""Reading `trtllm-serve [serve] MODEL ...`, with the YAML file that it may name.

Flags as TensorRT-LLM's `commands/serve.py` has them in 2026 (`data/trtllm_flags.txt`); they are written with
underscores and read by click, which takes no abbreviations. Flags without effect on memory are read and left alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from willfit.engines.tensorrt_llm.settings import Settings
from willfit.errors import BadInput
from willfit.launch.base import Launch
from willfit.launch.config_files import read_settings
from willfit.launch.flags import flag_table
from willfit.launch.notes import not_counted
from willfit.launch.scanning import Dialect, Options, scan
from willfit.launch.values import choice, share, whole

PROGRAM = "trtllm-serve"

DIALECT = Dialect(abbreviations=False, greedy=True)

#: Commands of the program that serve something else.
_OTHERS = ("disaggregated", "disaggregated_mpi_worker", "embeddings", "mm_embedding_serve")

#: Flags, and the setting that they are.
_COUNTS = {
    "--tensor_parallel_size": "tensor_parallel_size",
    "--pipeline_parallel_size": "pipeline_parallel_size",
    "--moe_expert_parallel_size": "moe_expert_parallel_size",
    "--max_batch_size": "max_batch_size",
    "--max_num_tokens": "max_num_tokens",
    "--max_seq_len": "max_seq_len",
    "--max_beam_width": "max_beam_width",
}
_BACKENDS = {"pytorch": "pytorch", "tensorrt": "tensorrt", "trt": "tensorrt", "_autodeploy": "pytorch"}

#: Keys of the file without effect on memory (`llmapi/llm_args.py`); of others that nothing looks at, a note is made.
_QUIET_KEYS = (
    "attention_dp_config", "custom_tokenizer", "disable_overlap_scheduler", "dtype", "enable_autotuner",
    "enable_chunked_prefill", "enable_iter_perf_stats", "enable_iter_req_stats", "enable_min_latency",
    "fail_fast_on_attention_window_too_large", "garbage_collection_gen0_threshold", "gpus_per_node",
    "guided_decoding_backend", "iter_stats_max_iterations", "num_postprocess_workers", "otlp_traces_endpoint",
    "perf_metrics_max_requests", "post_processor_hook", "print_iter_log", "reasoning_parser", "return_perf_metrics",
    "sampler_type", "scheduler_config", "served_model_name", "stream_interval", "tokenizer", "tokenizer_mode",
    "trust_remote_code",
)  # fmt: skip

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
    if any(word in ("-h", "--help") for word in rest):
        raise BadInput(f"{PROGRAM}: help is asked for, nothing is started", "leave --help out")
    scanned = scan(rest, flag_table("trtllm_flags.txt"), PROGRAM, DIALECT, version)
    options = scanned.options
    if len(scanned.positionals) != 1:
        stray = (
            f"{scanned.positionals[1][:60]!r} belongs to no flag"
            if scanned.positionals
            else "no model is named"
        )
        raise BadInput(f"{PROGRAM}: {stray}", f"write {PROGRAM} MODEL ...")
    settings: dict[str, Any] = {"version": version} if version else {}
    for flag, name in _COUNTS.items():
        if flag in options:
            settings[name] = whole(PROGRAM, flag, str(options[flag]))
    flag = "--free_gpu_memory_fraction"
    if flag in options:
        settings["free_gpu_memory_fraction"] = share(PROGRAM, flag, str(options[flag]))
    if options.get("--enable_attention_dp"):
        settings["enable_attention_dp"] = True
    if "--kv_cache_dtype" in options:
        settings["kv_cache_dtype"] = _dtype("--kv_cache_dtype", options["--kv_cache_dtype"])
    if "--backend" in options:
        settings["backend"] = _backend(str(options["--backend"]))
    notes = []
    file = options.get("--config")
    if file is not None:
        found = read_settings(Path(str(file)).expanduser())
        if found is None:
            notes.append(f"{file} (--config) is not here, so what it sets is not counted")
        else:
            given = Options(found)
            settings |= _settings(given)
            if given.get("speculative_config") and not _drafts(given):
                notes.append(f"speculative_config of {file} is not counted")
            notes += [
                f"{key[:60]} of {file} is not counted"
                for key in found
                if key not in _QUIET_KEYS and given.unseen(key)
            ]
    revision = options.get("--revision")
    return Launch(
        engine="tensorrt-llm",
        model=scanned.positionals[0],
        revision=str(revision) if revision else None,
        settings=Settings(**settings),
        notes=(*notes, *not_counted(scanned)),
    )


def _backend(text: str) -> str:
    return _BACKENDS[choice(PROGRAM, "--backend", text, tuple(_BACKENDS))]


def _dtype(name: str, value: Any) -> str:
    known = ("auto", "fp8", "nvfp4", "float16", "bfloat16")
    return choice(PROGRAM, name, str(value), known)


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
