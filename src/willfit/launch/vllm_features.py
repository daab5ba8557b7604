"""What vLLM's flags say of adapters, drafts, offloading, sleep and the ways to spread a model.

Read apart from `vllm.py`, which reads what every command has. JSON options may be given field by field.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from willfit.engines.vllm.eras import NEWEST
from willfit.engines.vllm.features.lora import RANKS
from willfit.engines.vllm.host import offloading_connector
from willfit.engines.vllm.options import Draft, KvTransfer, Lora, Offload
from willfit.errors import BadInput
from willfit.launch.base import DraftModel
from willfit.quantities import GIB

PROGRAM = "vllm serve"

#: Variables that are read here (`vllm/envs.py`, LMCache's own).
VARIABLES = ("VLLM_ALL2ALL_BACKEND", "VLLM_DEEPEP_BUFFER_SIZE_MB", "VLLM_MM_INPUT_CACHE_GIB")

#: Words in the names of draft models that tell their method (`config/speculative.py: __post_init__`).
_METHODS_BY_NAME = (
    ("eagle3", "eagle3"),
    ("eagle-", "eagle"),
    ("dflash", "dflash"),
    ("dspark", "dspark"),
)
_NGRAM = frozenset({"ngram", "[ngram]"})


@dataclass(frozen=True, slots=True)
class Reader:
    """How `vllm.py` reads JSON, whole numbers and numbers.

    Attributes
    ----------
    json, count, number
        A JSON option; a whole number of at least 1; a number that is not negative. Each is told the flag.
    """

    json: Callable[[Mapping[str, Any], str], dict[str, Any]]
    count: Callable[[str, str], int]
    number: Callable[[str, str], float]


def features(
    options: Mapping[str, Any], variables: Mapping[str, str], version: str | None, model: str, read: Reader
) -> tuple[dict[str, Any], DraftModel | None, tuple[str, ...]]:
    """Settings of the engine, the model that drafts, and notes.

    Raises
    ------
    BadInput
        For a value that vLLM would refuse.
    """
    settings = (
        _layout(options, variables, read)
        | _lora(options, read)
        | _offload(options, read)
        | _inputs(options, variables, read)
    )
    speculation, draft = _speculation(options, model, read)
    transfer, notes = _transfer(options, variables, version or NEWEST, read)
    return settings | speculation | transfer, draft, notes


def _layout(options: Mapping[str, Any], variables: Mapping[str, str], read: Reader) -> dict[str, Any]:
    settings: dict[str, Any] = {}
    for flag, name in (
        ("--decode-context-parallel-size", "decode_context_parallel"),
        ("--prefill-context-parallel-size", "prefill_context_parallel"),
        ("--data-parallel-size-local", "data_parallel_local"),
    ):
        if flag in options:
            settings[name] = read.count(flag, str(options[flag]))
    if "--data-parallel-rank" in options or options.get("--data-parallel-external-lb"):
        # Each replica is started by a command of its own.
        settings["data_parallel_local"] = 1
    if options.get("--enable-eplb"):
        redundant = read.json(options, "--eplb-config").get("num_redundant_experts", 0)
        settings["redundant_experts"] = _whole("num_redundant_experts", redundant)
    backend = options.get("--all2all-backend", variables.get("VLLM_ALL2ALL_BACKEND"))
    if backend is not None:
        settings["all2all_backend"] = str(backend)
    if "VLLM_DEEPEP_BUFFER_SIZE_MB" in variables:
        name = "VLLM_DEEPEP_BUFFER_SIZE_MB"
        settings["all2all_buffer_bytes"] = _whole(name, variables[name]) * 2**20
    if options.get("--enable-sleep-mode"):
        settings["sleep_mode"] = True
    return settings


def _lora(options: Mapping[str, Any], read: Reader) -> dict[str, Any]:
    if not options.get("--enable-lora"):
        return {}
    fields: dict[str, Any] = {}
    for flag, name in (
        ("--max-loras", "max_loras"),
        ("--max-lora-rank", "max_lora_rank"),
        ("--max-cpu-loras", "max_cpu_loras"),
    ):
        if flag in options:
            fields[name] = read.count(flag, str(options[flag]))
    rank = fields.get("max_lora_rank")
    if rank is not None and rank not in RANKS:
        raise BadInput(
            f"{PROGRAM}: --max-lora-rank is {rank}", f"vLLM takes {', '.join(map(str, RANKS))}; round up"
        )
    if "--lora-extra-vocab-size" in options:
        flag = "--lora-extra-vocab-size"
        fields["extra_vocab_size"] = _whole(flag, options[flag])
    if "--lora-dtype" in options:
        fields["dtype"] = str(options["--lora-dtype"])
    if options.get("--lora-target-modules"):
        fields["target_modules"] = _words(options["--lora-target-modules"])
    for flag, name in (
        ("--fully-sharded-loras", "fully_sharded"),
        ("--enable-tower-connector-lora", "tower_connector"),
        ("--specialize-active-lora", "specialize_active"),
        ("--enable-lora-bias", "bias"),
        ("--enable-moe-shared-loras", "moe_shared"),
        ("--enable-mixed-moe-lora-format", "moe_mixed_format"),
    ):
        if options.get(flag):
            fields[name] = True
    return {"lora": Lora(**fields)}


def _offload(options: Mapping[str, Any], read: Reader) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    backend = str(options.get("--offload-backend", "auto"))
    gib = read.number("--cpu-offload-gb", str(options.get("--cpu-offload-gb", "0")))
    if gib and backend != "prefetch":
        fields["uva_bytes"] = int(gib * GIB)
        fields["uva_params"] = _words(options.get("--cpu-offload-params", ()))
    size = _whole("--offload-group-size", options.get("--offload-group-size", 0))
    if size and backend != "uva":
        # Groups win over bytes where both are given.
        fields = {"group_size": size, "prefetch_params": _words(options.get("--offload-params", ()))}
        for flag, name in (
            ("--offload-num-in-group", "num_in_group"),
            ("--offload-prefetch-step", "prefetch_step"),
        ):
            if flag in options:
                fields[name] = _whole(flag, options[flag])
    return {"offload": Offload(**fields)} if fields else {}


def _inputs(options: Mapping[str, Any], variables: Mapping[str, str], read: Reader) -> dict[str, Any]:
    settings: dict[str, Any] = {}
    if "VLLM_MM_INPUT_CACHE_GIB" in variables:
        name = "VLLM_MM_INPUT_CACHE_GIB"
        settings["mm_processor_cache_gb"] = read.number(name, variables[name])
    for flag, name in (
        ("--mm-processor-cache-gb", "mm_processor_cache_gb"),
        ("--mm-ipc-gpu-memory-gb", "mm_ipc_gpu_memory_gb"),
    ):
        if flag in options:
            settings[name] = read.number(flag, str(options[flag]))
    if options.get("--mm-processor-cache-type") == "shm":
        settings["mm_processor_cache_shared"] = True
    if "--api-server-count" in options:
        settings["api_servers"] = read.count("--api-server-count", str(options["--api-server-count"]))
    for flag, name in (
        ("--load-format", "load_format"),
        ("--safetensors-load-strategy", "safetensors_load_strategy"),
    ):
        if flag in options:
            settings[name] = str(options[flag])
    return settings


def _speculation(
    options: Mapping[str, Any], model: str, read: Reader
) -> tuple[dict[str, Any], DraftModel | None]:
    config = read.json(options, "--speculative-config")
    if not config:
        config = _old_speculation(options)
    if not config:
        return {}, None
    tokens = read.count("speculative tokens", str(config.get("num_speculative_tokens", 1)))
    name = str(config.get("model") or "")
    method = _method(str(config.get("method") or ""), name)
    own = method == "mtp" and name in ("", model)
    named = name if method not in ("ngram", "ngram_gpu", "suffix", "custom_class") and not own else ""
    ranks = config.get("draft_tensor_parallel_size")
    dtype = config.get("kv_cache_dtype")
    draft = Draft(
        method=method,
        model=named,
        tensor_parallel=None if ranks is None else read.count("draft_tensor_parallel_size", str(ranks)),
        kv_cache_dtype=None if dtype is None else str(dtype),
        probabilistic=config.get("draft_sample_method") == "probabilistic",
    )
    revision = config.get("revision")
    found = DraftModel(named, method, None if revision is None else str(revision)) if named else None
    return {"speculative_tokens": tokens, "mtp": own, "draft": draft}, found


def _old_speculation(options: Mapping[str, Any]) -> dict[str, Any]:
    """The same from flags of their own: those of 0.33, and those of before 0.9."""
    found = {
        "model": options.get("--spec-model", options.get("--speculative-model")),
        "num_speculative_tokens": options.get("--spec-tokens", options.get("--num-speculative-tokens")),
        "method": options.get("--spec-method"),
        "draft_tensor_parallel_size": options.get("--speculative-draft-tensor-parallel-size"),
    }
    return {name: value for name, value in found.items() if value is not None}


def _method(given: str, model: str) -> str:
    """The method, told from the draft's name where none is given."""
    given = given.lower()
    if "mtp" in given:
        return "mtp"
    if given:
        return "ngram" if given in _NGRAM else given
    if model in _NGRAM:
        return "ngram"
    return next((method for word, method in _METHODS_BY_NAME if word in model.lower()), "draft_model")


def _transfer(
    options: Mapping[str, Any], variables: Mapping[str, str], version: str, read: Reader
) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Where blocks go; `--kv-offloading-size` names a connector by itself, and counts all ranks together."""
    config = read.json(options, "--kv-transfer-config")
    connector = str(config.get("kv_connector") or "")
    extra = config.get("kv_connector_extra_config") or {}
    if not isinstance(extra, dict):
        raise BadInput(f"{PROGRAM}: kv_connector_extra_config is not a JSON object")
    size = options.get("--kv-offloading-size")
    if size is not None:
        gib = read.number("--kv-offloading-size", str(size))
        connector = offloading_connector(str(options.get("--kv-offloading-backend", "native")), version)
        extra = {**extra, "cpu_bytes_to_use": int(gib * GIB)}
    if not connector:
        return {}, ()
    if connector == "MultiConnector":
        connector, extra = _of_several(extra)
    transfer = KvTransfer(
        connector,
        cpu_bytes=_optional("cpu_bytes_to_use", extra),
        cpu_bytes_per_rank=_per_rank(connector, extra, variables, read),
        cpu_blocks=_optional("num_cpu_blocks", extra) or None,
    )
    notes: tuple[str, ...] = ()
    if connector == "LMCacheMPConnector":
        transfer = KvTransfer(connector)
        notes = ("blocks are kept by an LMCache server of its own, whose RAM is not counted",)
    return {"kv_transfer": transfer}, notes


def _of_several(extra: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """The first of several connectors that keeps blocks in host RAM, else the first."""
    listed = extra.get("connectors")
    entries = [entry for entry in listed if isinstance(entry, dict)] if isinstance(listed, list) else []
    keeping = [entry for entry in entries if isinstance(entry.get("kv_connector_extra_config"), dict)]
    for entry in (*keeping, *entries):
        inner = entry.get("kv_connector_extra_config")
        return str(entry.get("kv_connector") or "MultiConnector"), dict(inner) if isinstance(
            inner, dict
        ) else {}
    return "MultiConnector", {}


def _per_rank(
    connector: str, extra: Mapping[str, Any], variables: Mapping[str, str], read: Reader
) -> int | None:
    for name in ("cpu_bytes_to_use_per_rank", "kv_bytes_per_rank"):
        if extra.get(name) is not None:
            return _whole(name, extra[name])
    if not connector.startswith("LMCacheConnector"):
        return None
    name = "LMCACHE_MAX_LOCAL_CPU_SIZE"
    gib = extra.get("lmcache.max_local_cpu_size", variables.get(name))
    return None if gib is None else int(read.number(name, str(gib)) * GIB)


def _optional(name: str, fields: Mapping[str, Any]) -> int | None:
    return None if fields.get(name) is None else _whole(name, fields[name])


def _whole(name: str, value: object) -> int:
    try:
        number = float(str(value))
    except ValueError:
        number = -1.0
    if not 0 <= number < 2**53 or number != int(number):
        raise BadInput(
            f"{PROGRAM}: {name} is {str(value)[:40]!r}, expected a whole number that is not negative"
        )
    return int(number)


def _words(value: object) -> tuple[str, ...]:
    """Several words, given apart or with commas between."""
    listed = value if isinstance(value, list | tuple) else [value]
    return tuple(word for item in listed for word in str(item).split(",") if word)
