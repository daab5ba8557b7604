"""Where TensorRT-LLM's rules were read."""

from __future__ import annotations

from willfit.engines.sources import Sources

_UTIL = "tensorrt_llm/_torch/pyexecutor/_util.py: KvCacheCreator"

SOURCES = Sources(
    "TensorRT-LLM",
    ("1.4.0",),
    {
        "weights": [((0, 0), "tensorrt_llm/_torch/modules/linear.py")],
        "budget": [((0, 0), f"{_UTIL}.configure_kv_cache_capacity")],
        "profile": [((0, 0), f"{_UTIL}._create_dummy_context_requests")],
        "graphs": [((0, 0), "tensorrt_llm/llmapi/llm_args.py: CudaGraphConfig")],
        "states": [((0, 0), "tensorrt_llm/_torch/pyexecutor/mamba_cache_manager.py")],
        "host cache": [((0, 0), "tensorrt_llm/llmapi/llm_args.py: KvCacheConfig.host_cache_size")],
    },
)
