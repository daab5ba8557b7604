"""Where llama.cpp's rules were read."""

from __future__ import annotations

from willfit.engines.sources import Sources

SOURCES = Sources(
    "llama.cpp",
    ("1600", "2400", "4000", "5400", "6000", "7000", "8000", "11400"),
    {
        "weights": [
            ((0,), "llama.cpp: llm_load_tensors"),
            ((3600,), "src/llama.cpp: llm_load_tensors"),
            ((4400,), "src/llama-model.cpp: load_tensors"),
        ],
        "keys and values": [
            ((0,), "llama.cpp: llama_kv_cache_init"),
            ((3600,), "src/llama.cpp: llama_kv_cache_init"),
            ((4900,), "src/llama-kv-cache.cpp: llama_kv_cache"),
        ],
        "states": [
            ((0,), "llama.cpp: llama_kv_cache_init"),
            ((5700,), "src/llama-memory-recurrent.cpp: llama_memory_recurrent"),
        ],
        "compute": [
            ((0,), "ggml-alloc.c: ggml_gallocr_reserve_n, over the graph of a whole batch"),
            ((3600,), "ggml/src/ggml-alloc.c: ggml_gallocr_reserve_n, over the graph of a whole batch"),
        ],
        "outputs": [
            ((0,), "llama.cpp: llama_output_reserve"),
            ((4900,), "src/llama-context.cpp: output_reserve"),
        ],
        "drafting": [((0,), "common/speculative.cpp: common_base_params_to_speculative")],
        "adapters": [
            ((0,), "llama.cpp: llama_lora_adapter_init_internal"),
            ((4400,), "src/llama-adapter.cpp: llama_adapter_lora_init_impl"),
        ],
        "projector": [((0,), "examples/llava/clip.cpp: clip_model_load"), ((5200,), "tools/mtmd/clip.cpp")],
        "prompt cache": [((0,), "tools/server/server-task.h: server_prompt_cache")],
        "checkpoints": [((0,), "tools/server/server-context.cpp: create_checkpoint")],
        "fit": [((7410,), "common/fit.cpp: common_params_fit_impl")],
    },
)
