"""Where SGLang's rules were read."""

from __future__ import annotations

from willfit.engines.sources import Sources

_RUNNER, _MIXIN = (
    "sglang/srt/model_executor/model_runner.py",
    "sglang/srt/model_executor/model_runner_kv_cache_mixin.py",
)

SOURCES = Sources(
    "SGLang",
    (
        "0.4.4", "0.4.6.post5", "0.4.10", "0.5.2", "0.5.6.post2", "0.5.9", "0.5.12", "0.5.18", "0.5.23",
    ),
    {
        "weights": [((0, 0), "sglang/srt/layers/linear.py")],
        "pools": [
            ((0, 0), f"{_RUNNER}: profile_max_num_token"),
            ((0, 5, 9), f"{_MIXIN}: profile_max_num_token"),
            ((0, 5, 12), "sglang/srt/model_executor/pool_configurator.py: calculate_pool_sizes"),
        ],
        "request table": [((0, 0), "sglang/srt/mem_cache/memory_pool.py: ReqToTokenPool")],
        "workspaces": [((0, 0), "sglang/srt/layers/attention/flashinfer_backend.py: FlashInferAttnBackend")],
        "drafts": [((0, 0), "sglang/srt/models/llama_eagle.py"), ((0, 4, 6), "sglang/srt/models/llama_eagle3.py")],
        "adapters": [((0, 4, 10), "sglang/srt/lora/mem_pool.py: LoRAMemoryPool")],
        "forward": [((0, 0), f"{_RUNNER}: forward")],
        "offload": [
            ((0, 0), "sglang/srt/utils.py: maybe_offload_to_cpu"),
            ((0, 5, 2), "sglang/srt/offloader.py: OffloaderV1"),
            ((0, 5, 6), "sglang/srt/utils/offloader.py: OffloaderV1"),
        ],
        "host pool": [
            ((0, 4, 6), "sglang/srt/mem_cache/memory_pool.py: HostKVCache"),
            ((0, 4, 10), "sglang/srt/mem_cache/memory_pool_host.py: HostKVCache"),
            ((0, 5, 18), "sglang/srt/mem_cache/pool_host/base.py: HostKVCache"),
        ],
    },
)  # fmt: skip
