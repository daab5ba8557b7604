"""What is asked of both, and where the answers are known to differ."""

from __future__ import annotations

from live import Ask

A100 = "A100 SXM4 80GB"
B200 = "B200 SXM 180GB"
H100 = "H100 SXM5 80GB"
L40S = "L40S"
RTX_4090 = "GeForce RTX 4090"
RTX_5090 = "GeForce RTX 5090"

#: A model of each architecture: dense, experts, latent attention with and without an indexer, windows, chunks,
#: states of three kinds, short convolutions, encoders, images, and each quantization that states its own exceptions.
MODELS = (
    "Qwen/Qwen3-8B",
    "meta-llama/Llama-3.2-1B-Instruct",
    "Qwen/Qwen3-30B-A3B",
    "zai-org/GLM-4.5-Air",
    "deepseek-ai/DeepSeek-V3",
    "deepseek-ai/DeepSeek-V2-Lite",
    "deepseek-ai/DeepSeek-V3.2",
    "deepseek-ai/DeepSeek-V4-Flash",
    "openai/gpt-oss-20b",
    "google/gemma-2-9b-it",
    "google/gemma-3-27b-it",
    "meta-llama/Llama-4-Scout-17B-16E-Instruct",
    "Qwen/Qwen3-Next-80B-A3B-Instruct",
    "nvidia/NVIDIA-Nemotron-Nano-9B-v2",
    "ibm-granite/granite-4.0-h-small",
    "ai21labs/AI21-Jamba-Mini-1.5",
    "bigscience/bloom-3b",
    "HuggingFaceTB/SmolLM3-3B",
    "Qwen/Qwen3-VL-8B-Instruct",
    "Qwen/Qwen2.5-72B-Instruct-AWQ",
    "Qwen/Qwen2.5-7B-Instruct-GPTQ-Int8",
    "Qwen/Qwen3-8B-FP8",
    "nvidia/Qwen3-235B-A22B-NVFP4",
)
