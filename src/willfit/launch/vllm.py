"""Reading `vllm serve MODEL ...`, `python -m vllm.entrypoints.openai.api_server --model MODEL ...`, and `vllm bench`.

Flags as vLLM 0.33 has them (`engine/arg_utils.py`, `entrypoints/**/cli_args.py`), with those of older
versions (`data/vllm_flags.txt`). Flags without effect on memory are read and left alone.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from willfit.engines.versions import parse_version
from willfit.engines.vllm.eras import NEWEST
from willfit.engines.vllm.settings import AUTO, Settings
from willfit.errors import BadInput
from willfit.launch.base import Launch
from willfit.launch.config_files import with_config
from willfit.launch.flags import did_you_mean, flag_table, variable_table
from willfit.launch.notes import not_counted, of_other_versions
from willfit.launch.scanning import Dialect, scan
from willfit.launch.values import choice, numbers_of, read_json, without_units
from willfit.launch.vllm_features import VARIABLES, Reader, features

PROGRAM = "vllm serve"

DIALECT = Dialect(underscores=True, fields=True, inverses=True)

READS_VARIABLES = True

#: Numbers above this are no longer exact when vLLM's own reader multiplies them by a unit.
_LARGEST = 2**53

_LEVEL = re.compile(r"-O=?\d")

#: `--quantization` that turns a 16-bit checkpoint into this format while loading.
_ONLINE = {"fp8": "fp8", "fp8_per_tensor": "fp8", "experts_int8": "int8", "bitsandbytes": "nf4"}

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

#: What vLLM-Omni, another package, adds to `vllm serve`.
_OMNI = ("--omni", "--deploy-config")

#: `--task`, later `--convert`, of models that give a vector or a score.
#: Limits of items as they were written before JSON.
_PAIRS = re.compile(r"[a-z]+=\d+(,[a-z]+=\d+)*")

_POOLING = frozenset({"embed", "embedding", "score", "classify", "reward"})

#: What `--kv-cache-dtype` takes, in 0.33 and before (`config/cache.py: CacheDType`).
CACHE_TYPES = (
    "auto", "bfloat16", "float16", "fp8", "fp8_ds_mla", "fp8_e4m3", "fp8_e5m2", "fp8_inc",
    "fp8_per_token_head", "int4_per_token_head", "int8_per_token_head", "nvfp4", "nvfp4_4over6",
    "nvfp4_ds_mla", "octave_k3v3", "octave_k3v3_compact", "octave_k3v4", "turboquant_3bit_nc",
    "turboquant_4bit_nc", "turboquant_k3v4_nc", "turboquant_k8v4", "ultraquant_4bit",
)  # fmt: skip

#: Variables that change a setting (`vllm/envs.py`), and since when one of them has nothing to choose.
_SWITCHES = {
    "VLLM_MEMORY_PROFILER_ESTIMATE_CUDAGRAPHS": "estimate_cudagraphs",
    "VLLM_USE_FLASHINFER_SAMPLER": "flashinfer_sampler",
    "VLLM_USE_V2_MODEL_RUNNER": "v2_runner",
    "VLLM_ALLOW_LONG_MAX_MODEL_LEN": "allow_long_max_model_len",
    "VLLM_ALLOW_CHUNKED_LOCAL_ATTN_WITH_HYBRID_KV_CACHE": "chunked_groups",
}
_VARIABLES = ("VLLM_USE_V1", *_SWITCHES, *VARIABLES)
_ONE_ENGINE = (0, 11)

#: Batches of engines that are neither a server for chats nor the LLM class (`config/scheduler.py: SchedulerConfig`),
#: tokens and sequences; of vLLM's second engine only.
_OTHER_BATCHES = {"max_num_batched_tokens": 2048, "max_num_seqs": 128}
_SECOND_ENGINE = (0, 8)


class _Entry(NamedTuple):
    """A way to start vLLM: how to call it, its own flags, whether it takes a model first, and what it is for."""

    program: str
    tables: tuple[str, ...] = ()
    positional: bool = False
    usage: str = "server"


_SERVE = _Entry(PROGRAM, positional=True)
_BATCH = _Entry("vllm run-batch", ("vllm_batch_flags.txt",), usage="batch")
_LATENCY = _Entry("vllm bench latency", ("vllm_bench_flags.txt",), usage="offline")
_THROUGHPUT = _Entry("vllm bench throughput", ("vllm_bench_flags.txt",), usage="offline")
_ENTRIES = {
    ("serve",): _SERVE,
    ("bench", "latency"): _LATENCY,
    ("bench", "throughput"): _THROUGHPUT,
    ("run-batch",): _BATCH,
}
_MODULES = {
    "vllm.entrypoints.openai.api_server": _Entry("vllm.entrypoints.openai.api_server", positional=True),
    "vllm.entrypoints.api_server": _Entry("vllm.entrypoints.api_server", usage="batch"),
    "vllm.entrypoints.grpc_server": _Entry("vllm.entrypoints.grpc_server"),
    "vllm.entrypoints.openai.run_batch": _BATCH,
    "vllm.entrypoints.cli.main": _SERVE,
    "benchmark_latency.py": _LATENCY,
    "benchmark_throughput.py": _THROUGHPUT,
}


def recognises(words: Sequence[str]) -> bool:
    """Whether a command starts vLLM."""
    return words[0].rsplit("/", 1)[-1] == "vllm" or _module(words) is not None


def _module(words: Sequence[str]) -> int | None:
    """Where the module or script of vLLM stands that `python` is given; None if there is none."""
    for index, word in enumerate(words[:6]):
        if word.startswith("vllm.entrypoints") or (word == "vllm" and words[index - 1] == "-m"):
            return index
        if word.rsplit("/", 1)[-1] in ("benchmark_latency.py", "benchmark_throughput.py"):
            return index
    return None


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
    entry, rest = _entry(words)
    table = flag_table(*entry.tables, "vllm_flags.txt")
    rest, notes = with_config(rest, table, entry.program, keep_first=entry is _SERVE)
    scanned = scan(_with_level(rest), table, entry.program, DIALECT, version)
    options = scanned.options
    model = _model(scanned.positionals, options.get("--model"), entry)
    options.get("--config")  # read, or noted
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
    if "--kv-cache-dtype" in options:
        choice(entry.program, "--kv-cache-dtype", str(options["--kv-cache-dtype"]), CACHE_TYPES)
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
        ("--skip-mm-profiling", "skip_mm_profiling", False),
        ("--allow-deprecated-quantization", "allow_deprecated_quantization", False),
        ("--disable-hybrid-kv-cache-manager", "hybrid_cache_manager", True),
    ):
        if flag in options:
            settings[name] = (options[flag] is True) != inverted
    settings |= _runner(options)
    settings |= _multimodal(options)
    given = variables or {}
    more, draft, said = features(options, given, version, model, Reader(_json_option, _count, _number))
    settings |= _graphs(options) | more | _environment(given, version)
    settings |= _usage(entry, settings)
    devices = options.get("--device-ids")
    quantization = options.get("--quantization")
    if isinstance(quantization, str) and quantization not in _QUANTIZATIONS:
        raise BadInput(
            f"{entry.program}: there is no --quantization {quantization[:40]}",
            f"known: {', '.join(sorted(_QUANTIZATIONS))}",
        )
    return Launch(
        engine="vllm",
        model=model,
        revision=str(options["--revision"]) if "--revision" in options else None,
        settings=Settings(**settings),
        format_name=_ONLINE.get(quantization) if isinstance(quantization, str) else None,
        devices=len(str(devices).split(",")) if devices else None,
        visible=numbers_of(str(devices).split(",")) if devices else (),
        draft=draft,
        notes=(
            *notes,
            *said,
            *of_other_versions(scanned, table, "vLLM", version or NEWEST),
            *not_counted(scanned),
            *_about_graphs(options),
            *_about_variables(given),
        ),
    )


def _entry(words: Sequence[str]) -> tuple[_Entry, list[str]]:
    """How vLLM is started, and the words after that."""
    index = _module(words)
    name = words[index].rsplit("/", 1)[-1] if index is not None else "vllm"
    rest = list(words[(index or 0) + 1 :])
    if name not in ("vllm", "vllm.entrypoints.cli.main"):
        entry = _MODULES.get(name)
        if entry is None:
            raise BadInput(f"{name}: this module starts no server", "write vllm serve MODEL ...")
    else:
        command = next((key for key in _ENTRIES if tuple(rest[: len(key)]) == key), None)
        if command is None:
            given = " ".join(["vllm", *rest[:2]])[:60]
            raise BadInput(f"{given}: only 'vllm serve' starts a server", "write vllm serve MODEL ...")
        entry, rest = _ENTRIES[command], rest[len(command) :]
    if any(word in _OMNI for word in rest):
        raise BadInput(f"{entry.program}: --omni is vLLM-Omni's, which is not worked out")
    if any(word in ("-h", "--help", "--version", "-v") or word.startswith("--help=") for word in rest):
        raise BadInput(f"{entry.program}: help is asked for, nothing is started", "leave --help out")
    return entry, rest


def _with_level(words: Sequence[str]) -> list[str]:
    """`-O3` written out; before 0.12 `-O` was `--compilation-config`, and its JSON is still read so."""
    found: list[str] = []
    for index, word in enumerate(words):
        if _LEVEL.fullmatch(word):
            found += ["--optimization-level", word[2:].lstrip("=")]
        elif word == "-O":
            digit = index + 1 < len(words) and words[index + 1].isdigit()
            found.append("--optimization-level" if digit else "--compilation-config")
        elif word.startswith(("-O.", "-O{", "-O={")):
            found += [f"--compilation-config{word[2:]}"] if word[2] == "." else ["-cc", word[2:].lstrip("=")]
        else:
            found.append(word)
    return found


def _model(positionals: Sequence[str], named: Any, entry: _Entry) -> str:
    """The model: the word in front of the flags, or that of `--model`."""
    stray = positionals[1:] if entry.positional else positionals
    if stray:
        raise BadInput(f"{entry.program}: {stray[0][:60]!r} belongs to no flag")
    if positionals and named and entry is _SERVE and positionals[0] != named:
        raise BadInput(f"{entry.program}: two models are named, {positionals[0][:60]} and {str(named)[:60]}")
    model = positionals[0] if positionals else named
    if not isinstance(model, str) or not model:
        hint = "write vllm serve MODEL ..." if entry.positional else "write --model MODEL"
        raise BadInput(f"{entry.program}: no model is named", hint)
    return model


def _usage(entry: _Entry, settings: Mapping[str, Any]) -> dict[str, Any]:
    """What the way that vLLM is started says of its defaults."""
    if entry.usage == "offline":
        found: dict[str, Any] = {"usage": "offline"}
        if entry is _LATENCY:  # `benchmarks/latency.py: add_cli_args`
            found["enable_prefix_caching"] = settings.get("enable_prefix_caching", False)
        return found
    second = parse_version(settings.get("version", NEWEST)) >= _SECOND_ENGINE
    if entry.usage != "batch" or not second or settings.get("generation") == "v0":
        return {}
    return {name: size for name, size in _OTHER_BATCHES.items() if name not in settings}


def _about_variables(given: Mapping[str, str]) -> list[str]:
    """Notes on vLLM's variables that can change memory and are not read here, and on those that it does not have."""
    ours = [name for name in given if name.startswith("VLLM_") and name not in _VARIABLES]
    known = variable_table("vllm_variables.txt") if ours else {}
    notes = []
    for name in ours:
        if name not in known:
            notes.append(f"vLLM has no variable {name[:60]}: {did_you_mean(name, known)}")
        elif name == "VLLM_USE_MODELSCOPE" and given[name].lower() in ("1", "true"):
            notes.append("vLLM takes the model from ModelScope; the one of that name on the Hub is read")
        elif known[name] and given[name].lower() not in ("", "0", "false"):
            notes.append(f"the variable {name} is not counted")
    return notes


def _environment(variables: Mapping[str, str], version: str | None) -> dict[str, Any]:
    """What variables say, `0` or `1`; later versions have one engine only."""
    settings: dict[str, Any] = {}
    for name in ("VLLM_USE_V1", *_SWITCHES):
        text = variables.get(name)
        if text is None:
            continue
        if text not in ("0", "1"):
            raise BadInput(f"{PROGRAM}: {name} is {text[:40]!r}, expected 0 or 1")
        if name in _SWITCHES:
            settings[_SWITCHES[name]] = text == "1"
        elif parse_version(version or NEWEST) < _ONE_ENGINE:
            settings["generation"] = "v1" if text == "1" else "v0"
    return settings


def _runner(options: Mapping[str, Any]) -> dict[str, Any]:
    """What the model is for; any conversion is to vectors or scores (`--task` until 0.10)."""
    runner, task, convert = (options.get(flag) for flag in ("--runner", "--task", "--convert"))
    if runner in ("generate", "pooling"):
        return {"runner": runner}
    if {task, convert} & _POOLING:
        return {"runner": "pooling"}
    return {"runner": "generate"} if task in ("generate", "transcription") else {}


def _multimodal(options: Mapping[str, Any]) -> dict[str, Any]:
    """How many images, videos and sounds a prompt may have, and how large images may be."""
    limits = _limits(options)
    settings: dict[str, Any] = {}
    if limits:
        # A limit is a number, or options with a count.
        counts = {
            name: one.get("count", 999) if isinstance(one, dict) else one for name, one in limits.items()
        }
        settings["mm_limits"] = tuple(
            (name, _at_least_none(f"--limit-mm-per-prompt {name}", count))
            for name, count in sorted(counts.items())
        )
    pixels = _json_option(options, "--mm-processor-kwargs").get("max_pixels")
    return settings | ({} if pixels is None else {"max_pixels": _count("max_pixels", str(pixels))})


def _limits(options: Mapping[str, Any]) -> dict[str, Any]:
    """JSON, or pairs such as `image=4,video=1` as they were written until 0.8."""
    text = options.get("--limit-mm-per-prompt")
    if isinstance(text, str) and _PAIRS.fullmatch(text):
        return dict(pair.split("=") for pair in text.split(","))
    return _json_option(options, "--limit-mm-per-prompt")


def _at_least_none(flag: str, value: Any) -> int:
    text = str(value)
    return 0 if text == "0" else _count(flag, text)


def _graphs(options: Mapping[str, Any]) -> dict[str, Any]:
    """What compilation settings say of CUDA graphs: `-O0` captures none."""
    config = _json_option(options, "--compilation-config")
    settings: dict[str, Any] = {}
    mode = config.get("cudagraph_mode")
    level = config.get("level", options.get("--optimization-level"))
    if mode is None and (str(level) == "0" or config.get("use_cudagraph") is False):
        mode = "NONE"
    if mode is not None and str(mode).upper() in ("NONE", "0"):
        settings["enforce_eager"] = True
    sizes = config.get("cudagraph_capture_sizes", options.get("--cudagraph-capture-sizes"))
    if sizes is None:
        sizes = options.get("--cuda-graph-sizes")
    largest = config.get("max_cudagraph_capture_size")
    if sizes == []:
        settings["enforce_eager"] = True
    elif isinstance(sizes, list):
        largest = max(_count("cudagraph_capture_sizes", str(size)) for size in sizes)
    if largest is not None:
        settings["cudagraph_max_capture_size"] = _count("max_cudagraph_capture_size", str(largest))
    return settings


def _about_graphs(options: Mapping[str, Any]) -> list[str]:
    """What compilation settings say of CUDA graphs that is not counted: modes other than the usual one, and none."""
    mode = str(_json_option(options, "--compilation-config").get("cudagraph_mode", "NONE")).upper()
    usual = ("NONE", "0", "FULL_AND_PIECEWISE")
    return [] if mode in usual else [f"CUDA graphs of mode {mode[:40]} are not counted apart"]


def _json_option(options: Mapping[str, Any], flag: str) -> dict[str, Any]:
    """A JSON option; a number alone was the level of compilation before 0.12."""
    config: Any = {}
    if flag in options:
        try:
            config = read_json(options[flag])
        except (ValueError, RecursionError) as error:
            raise BadInput(f"{PROGRAM}: {flag} is not JSON: {error}") from error
        if isinstance(config, int) and flag == "--compilation-config":
            config = {"level": config}
        if not isinstance(config, dict):
            raise BadInput(f"{PROGRAM}: {flag} is not a JSON object")
    return dict(config)


def _count(flag: str, text: str) -> int:
    if not (text.isascii() and text.isdigit()) or len(text) > 15 or int(text) == 0:
        raise BadInput(f"{PROGRAM}: {flag} is {text[:40]!r}, expected a whole number of at least 1")
    return int(text)


def _tokens(flag: str, text: str) -> int:
    """A number, with a unit or without; `auto` and -1 are as long as fits."""
    if text.lower() in ("auto", "-1"):
        return AUTO
    value = without_units(text)
    if value is None:
        raise BadInput(f"{PROGRAM}: {flag} is {text[:40]!r}, expected a number such as 32768, 32k or 32K")
    if not 1 <= value < _LARGEST:
        raise BadInput(f"{PROGRAM}: {flag} is {text[:40]}, expected at least 1 and less than 2^53")
    return value


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
