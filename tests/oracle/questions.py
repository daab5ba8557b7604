"""What is asked of both, and where the answers are known to differ."""

from __future__ import annotations

from typing import Any

from live import Ask

A100 = "A100 SXM4 80GB"
B200 = "B200 SXM 180GB"
H100 = "H100 SXM5 80GB"
L40S = "L40S"
RTX_4090 = "GeForce RTX 4090"
RTX_3090 = "GeForce RTX 3090"
RTX_5090 = "GeForce RTX 5090"
T4 = "T4"
V100 = "Tesla V100 SXM2 32GB"

#: A model of each architecture: dense, experts, latent attention with and without an indexer, compressed entries,
#: windows, chunks, states of three kinds, Transformers' modules, encoders, images, and quantizations.
MODELS = {
    "dense": "Qwen/Qwen3-8B",
    "tied": "meta-llama/Llama-3.2-1B-Instruct",
    "experts": "Qwen/Qwen3-30B-A3B",
    "dense-then-experts": "zai-org/GLM-4.5-Air",
    "latent": "deepseek-ai/DeepSeek-V3",
    "latent-16-bit": "deepseek-ai/DeepSeek-V2-Lite",
    "latent-indexer": "deepseek-ai/DeepSeek-V3.2",
    "compressed": "deepseek-ai/DeepSeek-V4-Flash",
    "windows-mxfp4": "openai/gpt-oss-20b",
    "windows-alternating": "google/gemma-2-9b-it",
    "windows-and-images": "google/gemma-3-27b-it",
    "chunks": "meta-llama/Llama-4-Scout-17B-16E-Instruct",
    "gated-delta": "Qwen/Qwen3-Next-80B-A3B-Instruct",
    "mamba2": "nvidia/NVIDIA-Nemotron-Nano-9B-v2",
    "mamba2-experts": "ibm-granite/granite-4.0-h-small",
    "mamba2-beside-attention": "tiiuae/Falcon-H1-7B-Instruct",
    "mamba1": "ai21labs/AI21-Jamba-Mini-1.5",
    "alibi": "bigscience/bloom-3b",
    "transformers": "HuggingFaceTB/SmolLM3-3B",
    "images": "Qwen/Qwen3-VL-8B-Instruct",
    "awq": "Qwen/Qwen2.5-72B-Instruct-AWQ",
    "gptq": "Qwen/Qwen2.5-7B-Instruct-GPTQ-Int8",
    "fp8": "Qwen/Qwen3-8B-FP8",
    "nvfp4": "nvidia/Qwen3-235B-A22B-NVFP4",
}

#: Settings that every model is asked about in turn, so that each model meets a few and each setting several models.
SETTINGS: tuple[tuple[str, float, dict[str, Any]], ...] = (
    (H100, 40, {}),
    (H100, 6, {"max_model_len": -1}),
    (A100, 20, {"tensor_parallel": 2, "max_model_len": 16384}),
    (H100, 30, {"tensor_parallel": 4, "kv_cache_dtype": "fp8", "max_model_len": 32768}),
    (B200, 60, {"tensor_parallel": 8, "max_model_len": 8192}),
    (RTX_4090, 4, {"max_model_len": 4096, "enforce_eager": True}),
    (H100, 40, {"pipeline_parallel": 2, "max_model_len": 8192}),
    (L40S, 12, {"usage": "offline", "enable_prefix_caching": False, "max_model_len": 4096}),
    (A100, 30, {"pipeline_parallel": 4, "tensor_parallel": 2, "max_model_len": 8192}),
    (RTX_5090, 8, {"max_num_seqs": 7, "max_model_len": 4096}),
    (H100, 16, {"async_scheduling": False, "max_num_batched_tokens": 2048, "max_model_len": 32000}),
    (H100, 10, {"num_gpu_blocks_override": 1000, "max_model_len": 4096}),
    (H100, 20, {"block_size": 64, "gpu_memory_utilization": 0.5, "max_model_len": 10000}),
)

#: What only some models can be asked.
OTHERS = (
    *(
        Ask(
            model,
            H100,
            20,
            {"tensor_parallel": ranks, "speculative_tokens": tokens, "mtp": True, "max_model_len": 9000},
        )
        for model in ("deepseek-ai/DeepSeek-V3", "Qwen/Qwen3-Next-80B-A3B-Instruct", "zai-org/GLM-4.5-Air")
        for ranks, tokens in ((1, 1), (4, 3))
    ),
    *(
        Ask(model, H100, 20, {"tensor_parallel": 4, "expert_parallel": True, "max_model_len": 8192})
        for model in ("Qwen/Qwen3-30B-A3B", "deepseek-ai/DeepSeek-V3", "openai/gpt-oss-120b")
    ),
    *(
        Ask(model, H100, 20, {"speculative_tokens": 4, "max_model_len": 8192})
        for model in ("Qwen/Qwen3-8B", "google/gemma-3-27b-it", "Qwen/Qwen3-Next-80B-A3B-Instruct")
    ),
    *(
        Ask(model, H100, 20, {"hybrid_cache_manager": False, "max_model_len": 8192})
        for model in ("google/gemma-3-27b-it", "openai/gpt-oss-20b", "nvidia/NVIDIA-Nemotron-Nano-9B-v2")
    ),
    *(
        Ask("Qwen/Qwen3-8B", device, 20, {"kv_cache_dtype": dtype, "max_model_len": 8192})
        for device in (H100, B200)
        for dtype in ("fp8_e5m2", "int8_per_token_head", "fp8_per_token_head", "int4_per_token_head")
    ),
    Ask(
        "Qwen/Qwen3-Next-80B-A3B-Instruct", H100, 20, {"enable_chunked_prefill": False, "max_model_len": 8192}
    ),
    Ask("Qwen/Qwen3-VL-8B-Instruct", H100, 20, {"language_model_only": True, "max_model_len": 8192}),
    Ask("deepseek-ai/DeepSeek-V4-Flash", H100, 20, {"tensor_parallel": 8, "kv_cache_dtype": "bfloat16"}),
    Ask("TheBloke/Mistral-7B-Instruct-v0.2-GPTQ", H100, 20),
    *(
        Ask(model, device, 20, {"runner": "pooling"}, {"position_embedding_type": "absolute"})
        for model in ("BAAI/bge-m3", "BAAI/bge-large-en-v1.5", "intfloat/multilingual-e5-large")
        for device in (H100, RTX_4090)
    ),
    *(Ask("Qwen/Qwen3-Embedding-8B", device, 20, {"runner": "pooling"}) for device in (A100, L40S)),
)

#: Quantizations, dtypes and caches that a device's compute capability decides about.
ON_OLD_CARDS = (
    *(
        Ask(model, device, 40, {"max_model_len": 4096})
        for model in (
            "Qwen/Qwen3-8B",
            "Qwen/Qwen3-8B-FP8",
            "Qwen/Qwen2.5-0.5B-Instruct-AWQ",
            "Qwen/Qwen2.5-0.5B-Instruct-GPTQ-Int4",
            "RedHatAI/Llama-3.2-1B-Instruct-FP8-dynamic",
            "RedHatAI/Qwen2.5-1.5B-quantized.w8a8",
            "RedHatAI/Qwen3-4B-quantized.w4a16",
            "nvidia/Llama-3.1-70B-Instruct-FP8",
            "nvidia/Qwen3.6-27B-NVFP4",
            "nvidia/Qwen3-235B-A22B-NVFP4",
            "openai/gpt-oss-20b",
            "google/gemma-2-9b-it",
        )
        for device in (V100, T4)
    ),
    *(
        Ask(model, device, 40, {"max_model_len": 4096, "kv_cache_dtype": "fp8"})
        for model in (
            "Qwen/Qwen3-8B",
            "openai/gpt-oss-20b",
            "google/gemma-3-27b-it",
            "deepseek-ai/DeepSeek-V2-Lite",
            "microsoft/Phi-3-mini-4k-instruct",
        )
        for device in (T4, RTX_3090, L40S)
    ),
    Ask("google/gemma-2-9b-it", T4, 40, {"max_model_len": 4096, "dtype": "float16"}),
)


def questions() -> list[Ask]:
    """Each model under five of the settings, what only some can be asked, and what old cards refuse."""
    asked = []
    for index, model in enumerate(MODELS.values()):
        for step in range(5):
            device, pool, settings = SETTINGS[(index + step * 3) % len(SETTINGS)]
            asked.append(Ask(model, device, pool, settings))
    return [*asked, *OTHERS, *ON_OLD_CARDS]


#: Where the two differ: for questions whose line contains a text, in what, and why.
DIFFERENT: dict[str, tuple[set[str], str]] = {
    "deepseek-ai/DeepSeek-V3.2 | GeForce RTX 5090": (
        {"refused"},
        "sparse attention on these cards has kernels of FlashInfer only, which is not installed here",
    ),
    "openai/gpt-oss-20b | B200": (
        {"params_bytes"},
        "without FlashInfer the planner takes Triton's kernels for experts, which pad less",
    ),
    **dict.fromkeys(
        ("Qwen/Qwen3-8B | Tesla V100", "google/gemma-2-9b-it | Tesla V100"),
        ({"refused"}, "that the wheels have no code for Volta shows only when a kernel starts"),
    ),
    "Qwen/Qwen3-8B | GeForce RTX 3090 | 40 GiB | max_model_len=4096 kv": (
        {"refused"},
        "FlashInfer, which reads an 8-bit cache on Ampere, is not installed here",
    ),
}
