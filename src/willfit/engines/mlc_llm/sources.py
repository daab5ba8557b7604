"""Where MLC-LLM's rules were read."""

from __future__ import annotations

from willfit.engines.sources import Sources

SOURCES = Sources(
    "MLC-LLM",
    ("0.1", "0.17.1", "0.17.2", "0.18.1", "0.19.0", "0.20.0"),
    {
        "weights": [((0, 0), "python/mlc_llm/quantization/group_quantization.py: GroupQuantize")],
        "account": [((0, 0), "cpp/serve/config.cc: EstimateMemoryUsageOnMode")],
        "embeddings": [((0, 0), "cpp/serve/model.cc: AllocEmbeddingTensor")],
        "logits": [((0, 0), "cpp/serve/logit_processor.cc: LogitProcessorImpl")],
        "state": [((0, 20), "cpp/serve/model.cc: CreateKVCache")],
        "pages": [
            ((0, 0), "3rdparty/tvm/src/runtime/relax_vm/paged_kv_cache.cc: PagedAttentionKVCacheObj"),
            ((0, 20), "3rdparty/tvm/src/runtime/vm/paged_kv_cache.cc: PagedAttentionKVCacheObj"),
        ],
        "plan": [
            ((0, 0), "3rdparty/tvm/src/relax/transform/static_plan_block_memory.cc: TokenAllocatorMixed")
        ],
    },
)
