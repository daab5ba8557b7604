"""Where llama.cpp's rules were read."""

from __future__ import annotations

from willfit.engines.sources import Sources

SOURCES = Sources(
    "llama.cpp",
    ("b1573", "b2456", "b3642", "b4291", "b5308", "b6170", "b8643", "b11312"),
    {
        "weights": [
            ((0,), "llama.cpp: llm_load_tensors"),
            ((3642,), "src/llama.cpp: llm_load_tensors"),
            ((5308,), "src/llama-model.cpp: load_tensors"),
        ],
        "rows": [((0,), "ggml-cuda.cu: get_row_split"), ((3642,), "ggml/src/ggml-cuda.cu: get_row_split")],
        "slices": [((8643,), "src/llama-model.cpp: llama_meta_device_get_split_state")],
        "exchange": [((8643,), "ggml/src/ggml-backend-meta.cpp: ggml_backend_meta_graph_compute")],
        "keys and values": [
            ((0,), "llama.cpp: llama_kv_cache_init"),
            ((3642,), "src/llama.cpp: llama_kv_cache_init"),
            ((5308,), "src/llama-kv-cache.cpp: llama_kv_cache_unified"),
            ((6170,), "src/llama-kv-cache-unified.cpp: llama_kv_cache_unified"),
            ((8643,), "src/llama-kv-cache.cpp: llama_kv_cache"),
        ],
        "states": [
            ((0,), "llama.cpp: llama_kv_cache_init"),
            ((3642,), "src/llama.cpp: llama_kv_cache_init"),
            ((5308,), "src/llama-kv-cache.cpp: llama_kv_cache_recurrent"),
            ((6170,), "src/llama-memory-recurrent.cpp: llama_memory_recurrent"),
        ],
        "compute": [
            ((0,), "ggml-alloc.c: ggml_gallocr_reserve_n, over the graph of a whole batch"),
            ((3642,), "ggml/src/ggml-alloc.c: ggml_gallocr_reserve_n, over the graph of a whole batch"),
        ],
        "outputs": [
            ((0,), "llama.cpp: llama_output_reserve"),
            ((3642,), "src/llama.cpp: llama_output_reserve"),
            ((5308,), "src/llama-context.cpp: output_reserve"),
        ],
        "drafting": [((4291,), "common/speculative.cpp: common_speculative_init")],
        "adapters": [
            ((0,), "llama.cpp: llama_apply_lora_from_file_internal"),
            ((3642,), "src/llama.cpp: llama_lora_adapter_init_internal"),
            ((5308,), "src/llama-adapter.cpp: llama_adapter_lora_init_impl"),
        ],
        "projector": [
            ((0,), "examples/llava/clip.cpp: clip_model_load"),
            ((5308,), "tools/mtmd/clip.cpp: clip_init"),
        ],
        "pictures": [((5308,), "tools/mtmd/clip.cpp: alloc_compute_meta, on the picture it warms up with")],
        "prompt cache": [((8643,), "tools/server/server-task.h: server_prompt_cache")],
        "checkpoints": [((8643,), "tools/server/server-context.cpp: server_prompt_checkpoint")],
    },
)
