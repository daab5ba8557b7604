"""One row: a config, a device and settings in; what vLLM decides and computes out.

vLLM's own `EngineCore._initialize_kv_caches` runs over an executor whose workers build their models on the meta
device and, instead of profiling, are told what is left for the cache.
"""

from __future__ import annotations

import copy
import json
import re
import tempfile
import traceback
from pathlib import Path
from typing import Any

import torch
from standins import Moved, join, leave


def plan(row: dict[str, Any], place: str) -> dict[str, Any]:
    """What vLLM makes of a row; `error` and `stage` if it refuses or the stand-ins do not suffice.

    Parameters
    ----------
    row
        `id`, `files` (name to JSON content, at least `config.json`), `arguments` (of `EngineArgs`), `usage`
        (`server` or `offline`), `kv_bytes` (what profiling would leave for the cache on each rank). With `tensors`
        the answer lists parameters and buffers: how many of each name, and their bytes.
        A dictionary `model_files` in `arguments["speculative_config"]` becomes the draft's directory.
    place
        Device that models are built on; see `standins.Moved`.
    """
    found: dict[str, Any] = {"id": row["id"], "stage": "config"}
    if row.get("tensors"):
        found["tensors"] = {}
    try:
        with tempfile.TemporaryDirectory() as folder:
            _plan(row, place, Path(folder), found)
    except (Exception, SystemExit) as error:
        found["error"] = f"{type(error).__name__}: {error}"
        found["trace"] = traceback.format_exc().splitlines()[-40:]
        if length := re.search(r"estimated maximum model length is (\d+)", str(error)):
            found["estimated_max_model_len"] = int(length[1])
        elif "KV cache is needed" in str(error):
            found["estimated_max_model_len"] = 0
    return found


def _plan(row: dict[str, Any], place: str, folder: Path, found: dict[str, Any]) -> None:
    from vllm.v1.engine.core import EngineCore

    config = _config(row, folder)
    found["resolved"] = _resolved(config)
    found["stage"] = "model"
    executor = _Executor(config, place, row["kv_bytes"], found)
    found["stage"] = "cache"
    engine = EngineCore.__new__(EngineCore)
    engine.model_executor = executor
    engine.vllm_config = config
    engine.collective_rpc = lambda *_, **__: None
    scheduler = engine._initialize_kv_caches(config)
    found["stage"] = "done"
    found["groups"] = [_group(group) for group in executor.groups]
    found["layout"] = config.cache_config.kv_cache_layout
    found["num_blocks"] = scheduler.num_blocks
    found["tokens"] = config.cache_config.kv_cache_size_tokens
    found["concurrency"] = config.cache_config.kv_cache_max_concurrency
    found["resolved"] = _resolved(config)


def _config(row: dict[str, Any], folder: Path) -> Any:
    from vllm.engine.arg_utils import EngineArgs
    from vllm.usage.usage_lib import UsageContext

    arguments = copy.deepcopy(row["arguments"])
    _know(row["files"]["config.json"]["model_type"])
    _write(folder / "model", row["files"])
    speculative = arguments.get("speculative_config") or {}
    if "model_files" in speculative:
        _write(folder / "draft", speculative.pop("model_files"))
        speculative["model"] = str(folder / "draft")
    usage = UsageContext.OPENAI_API_SERVER if row["usage"] == "server" else UsageContext.LLM_CLASS
    given = EngineArgs(model=str(folder / "model"), skip_tokenizer_init=True, **arguments)
    return given.create_engine_config(usage)


def _know(model_type: str) -> None:
    """Read configs whose class would come with the model, as code, with a class without defaults."""
    from transformers import CONFIG_MAPPING, AutoConfig, PretrainedConfig
    from vllm.transformers_utils.config import _CONFIG_REGISTRY

    if model_type not in CONFIG_MAPPING and model_type not in _CONFIG_REGISTRY:
        AutoConfig.register(model_type, type("Config", (PretrainedConfig,), {"model_type": model_type}))


def _write(folder: Path, files: dict[str, Any]) -> None:
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(content))


class _Executor:
    """The first rank of each pipeline stage, one after the other."""

    def __init__(self, config: Any, place: str, pool: int, found: dict[str, Any]) -> None:
        from vllm.config import set_current_vllm_config
        from vllm.platforms import current_platform

        self.pool = pool
        self.config = config
        parallel = config.parallel_config
        stages = parallel.pipeline_parallel_size
        width = parallel.tensor_parallel_size * parallel.prefill_context_parallel_size
        self.specs, self.layouts, found["stages"] = [], [], []
        for stage in range(stages):
            config.compilation_config.static_forward_context = {}
            config.compilation_config.static_all_moe_layers = []
            with set_current_vllm_config(config):
                join(stage * width, stages * width * parallel.data_parallel_size, parallel)
                found["stages"].append(_build(config, place, found.get("tensors")))
            current_platform.update_block_size_for_backend(config)
            found["block_size"] = config.cache_config.block_size
            self._read()
            leave()

    def _read(self) -> None:
        from vllm.distributed.kv_transfer.kv_connector.utils import get_current_attn_backends
        from vllm.v1.attention.backends.utils import get_supported_kv_cache_layouts
        from vllm.v1.worker.gpu.attn_utils import get_kv_cache_spec

        self.specs.append(get_kv_cache_spec(self.config))
        backends = get_current_attn_backends(self.config)
        self.layouts.append([layout.name for layout in get_supported_kv_cache_layouts(backends)])

    def get_kv_cache_specs(self) -> list[dict[str, Any]]:
        return self.specs

    def get_supported_kv_cache_layouts(self) -> list[list[str]]:
        return self.layouts

    def set_kv_cache_layout(self, layout: str, interleave: int) -> None:
        from vllm.v1.attention.backends.utils import record_kv_cache_layout

        record_kv_cache_layout(self.config.cache_config, layout)
        self.config.parallel_config.cp_kv_cache_interleave_size = interleave

    def determine_available_memory(self) -> list[int]:
        return [self.pool] * len(self.specs)

    def initialize_from_config(self, configs: Any) -> None:
        self.groups = max((config.kv_cache_groups for config in configs), key=_group_bytes)

    def compile_or_warm_up_model(self) -> None: ...


def _build(config: Any, place: str, tensors: dict[str, list[int]] | None) -> dict[str, Any]:
    """Build one rank's model, its adapters' slots and its draft, without memory; their sizes."""
    from vllm.distributed import get_pp_group
    from vllm.model_executor.model_loader import get_model
    from vllm.model_executor.model_loader.base_loader import BaseModelLoader
    from vllm.utils.torch_utils import set_default_torch_dtype
    from vllm.v1.worker.workspace import init_workspace_manager

    def without_weights(self: Any, vllm_config: Any, model_config: Any, prefix: str = "") -> Any:
        with set_default_torch_dtype(model_config.dtype), torch.device(place), Moved(place):
            return self.create_model(vllm_config, model_config, prefix)

    BaseModelLoader.load_model = without_weights
    init_workspace_manager(torch.device("cuda:0"))
    model = get_model(vllm_config=config)
    sizes = _sizes(model)
    if tensors is not None:
        for name, tensor in (*model.named_parameters(), *model.named_buffers()):
            entry = tensors.setdefault(re.sub(r"\.\d+\.", ".*.", name), [0, 0])
            entry[0] += 1
            entry[1] += tensor.nbytes
    if config.lora_config:
        from vllm.v1.worker.lora_model_runner_mixin import LoRAModelRunnerMixin

        with Moved(place):
            model = LoRAModelRunnerMixin().load_lora_model(model, config, torch.device("cuda:0"))
        sizes["lora_bytes"] = sum(_slots(model).values())
    if config.speculative_config and get_pp_group().is_last_rank:
        sizes |= _draft(config, model, place)
    return sizes


def _draft(config: Any, target: Any, place: str) -> dict[str, int]:
    """Build the draft, which may share the target's table and head; what it has of its own."""
    from vllm.v1.worker.gpu.spec_decode import init_speculator
    from vllm.v1.worker.gpu.spec_decode.speculator import DraftModelSpeculator

    with Moved(place):
        speculator = init_speculator(config, torch.device("cuda:0"), None)
        if not isinstance(speculator, DraftModelSpeculator):
            return {}
        speculator.load_model(target)
    shared = {id(tensor) for tensor in (*target.parameters(), *target.buffers())}
    sizes = _sizes(speculator.model, shared)
    return {f"draft_{name}": size for name, size in sizes.items()}


def _sizes(model: Any, leave_out: frozenset[int] | set[int] = frozenset()) -> dict[str, int]:
    """Parameters and buffers, each tensor once."""
    parameters = {id(tensor): tensor.nbytes for tensor in model.parameters() if id(tensor) not in leave_out}
    buffers = {id(tensor): tensor.nbytes for tensor in model.buffers() if id(tensor) not in leave_out}
    return {"params_bytes": sum(parameters.values()), "buffers_bytes": sum(buffers.values())}


def _slots(model: Any) -> dict[int, int]:
    """Stacked adapter weights, which are no parameters."""
    from vllm.lora.layers import BaseLayerWithLoRA

    found: dict[int, int] = {}
    for module in model.modules():
        if isinstance(module, BaseLayerWithLoRA):
            for value in vars(module).values():
                for tensor in value if isinstance(value, (tuple, list)) else (value,):
                    if isinstance(tensor, torch.Tensor):
                        found[id(tensor)] = tensor.nbytes
    return found


def _group_bytes(groups: Any) -> int:
    """Bytes that a block takes in the widest group."""
    from vllm.v1.kv_cache_interface import UniformTypeKVCacheSpecs

    return max(
        (
            group.kv_cache_spec.page_size_bytes
            * (1 if isinstance(group.kv_cache_spec, UniformTypeKVCacheSpecs) else len(group.layer_names))
            for group in groups
        ),
        default=0,
    )


def _group(group: Any) -> dict[str, Any]:
    from vllm.v1.kv_cache_interface import UniformTypeKVCacheSpecs

    spec = group.kv_cache_spec
    one = next(iter(spec.kv_cache_specs.values())) if isinstance(spec, UniformTypeKVCacheSpecs) else spec
    return {
        "kind": type(one).__name__,
        "layers": len(group.layer_names),
        "block_size": spec.block_size,
        "page_bytes": one.page_size_bytes,
        "bytes_per_block": _group_bytes([group]),
    }


def _resolved(config: Any) -> dict[str, Any]:
    """What vLLM settles before it loads anything."""
    scheduler, cache, compilation = config.scheduler_config, config.cache_config, config.compilation_config
    return {
        "dtype": str(config.model_config.dtype).removeprefix("torch."),
        "quantization": config.model_config.quantization,
        "max_model_len": config.model_config.max_model_len,
        "max_num_seqs": scheduler.max_num_seqs,
        "max_num_batched_tokens": scheduler.max_num_batched_tokens,
        "max_in_flight_tokens": config.max_in_flight_tokens,
        "async_scheduling": scheduler.async_scheduling,
        "chunked_prefill": scheduler.enable_chunked_prefill,
        "gpu_memory_utilization": cache.gpu_memory_utilization,
        "prefix_caching": cache.enable_prefix_caching,
        "kv_cache_dtype": cache.cache_dtype,
        "capture_sizes": compilation.cudagraph_capture_sizes,
        "cudagraph_mode": compilation.cudagraph_mode.name,
        "runner": config.model_config.runner_type,
        "runner_v2": config.use_v2_model_runner,
    }
